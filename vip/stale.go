package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/vip/gate"
)

// CleanOptions say what a dead predecessor may have left behind.
type CleanOptions struct {
	// Gate is the gate just opened: what it manages is ours too. May be nil.
	Gate *gate.Gate
	// Owner as in Options: whose labels are ours.
	Owner string
	// Known are addresses that are ours by configuration or journal, whatever
	// their label: of an interface whose name leaves no room for one, say.
	Known []netip.Addr
	// Keep are addresses that will be adopted, or are active.
	Keep []netip.Addr
	Log  *slog.Logger
}

// CleanStale removes the addresses that an earlier daemon of this owner left on
// this host, and what the gate holds for them, and proves it. It returns what
// it removed. Nothing passed through them since their lease ended; this is so
// that nothing stays.
func CleanStale(ctx context.Context, o CleanOptions) ([]netip.Prefix, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	managed, err := o.managed()
	if err != nil {
		return nil, fmt.Errorf("clean up addresses: %w", err)
	}
	nl, err := openRTNL()
	if err != nil {
		return nil, err
	}
	defer nl.close()
	var removed []netip.Prefix
	err = nl.run(ctx, func(h *netlink.Handle) error {
		var err error
		removed, err = o.clean(h, managed)
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("clean up addresses: %w", err)
	}
	if o.Gate != nil && len(managed) > 0 {
		failpoint.Here("vip.stale.gate")
		if err := o.Gate.Remove(managed); err != nil {
			return removed, fmt.Errorf("clean up gate: %w", err)
		}
	}
	return removed, nil
}

// managed returns what the gate manages and is not to be kept, shut.
func (o *CleanOptions) managed() ([]netip.Addr, error) {
	if o.Gate == nil {
		return nil, nil
	}
	if o.Owner == "" {
		o.Owner = o.Gate.Name()
	}
	state, err := o.Gate.State()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for a := range state {
		if !slices.Contains(o.Keep, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, o.Gate.Shut(addrs)
}

func (o *CleanOptions) clean(h *netlink.Handle, managed []netip.Addr) ([]netip.Prefix, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	labels := map[int]string{}
	for _, l := range links {
		if name := l.Attrs().Name; label(name, o.Owner) != name {
			labels[l.Attrs().Index] = label(name, o.Owner)
		}
	}
	stale := func(a holding) bool {
		addr := a.prefix.Addr()
		if slices.Contains(o.Keep, addr) {
			return false
		}
		if ours, ok := labels[a.index]; ok && a.label == ours {
			return true
		}
		return a.index != loopbackIndex && (slices.Contains(managed, addr) || slices.Contains(o.Known, addr))
	}
	list, err := listAddrs(h)
	if err != nil {
		return nil, err
	}
	var removed []netip.Prefix
	var errs []error
	for _, a := range list {
		if !stale(a) {
			continue
		}
		failpoint.Here("vip.stale.delete")
		if err := deleteAddr(h, a); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", a.prefix, err))
			continue
		}
		o.Log.Warn("removed an address that an earlier daemon left", "address", a.prefix.String(), "label", a.label)
		removed = append(removed, a.prefix)
	}
	if err := errors.Join(errs...); err != nil {
		return removed, err
	}
	if list, err = listAddrs(h); err != nil {
		return removed, err
	}
	for _, a := range list {
		if stale(a) {
			return removed, fmt.Errorf("%s is still there after it was deleted", a.prefix)
		}
	}
	return removed, nil
}
