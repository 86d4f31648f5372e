package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// load prepares a unit for what the journal says may be running. Until that is
// adopted or stopped the unit counts as unknown, also when its resources cannot
// be made: a stop tries again to make them, and proves nothing without.
func (u *unit) load(epoch, gen uint64, kept []byte) error {
	u.mu.Lock()
	u.epoch, u.gen, u.kept, u.unbuilt = epoch, gen, kept, true
	u.setPhase(decide.PhaseUnknown)
	u.mu.Unlock()
	failpoint.Here("unit.load")
	return u.build()
}

// build makes the resources of what was loaded, unless that is done.
func (u *unit) build() error {
	u.mu.Lock()
	kept, unbuilt := u.kept, u.unbuilt
	u.mu.Unlock()
	if !unbuilt {
		return nil
	}
	var n note
	if err := json.Unmarshal(kept, &n); err != nil {
		return fmt.Errorf("read journal note: %w", err)
	}
	list, err := u.host.builder.Build(n.Spec, n.Origin)
	if err != nil {
		return fmt.Errorf("build resources: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.resources, u.spec, u.kept, u.unbuilt = list, n.Spec, nil, false
	return nil
}

// claim makes renewals arm what was loaded while it waits to be adopted.
func (u *unit) claim() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.setPhase(decide.PhaseStarting)
}

// adopt takes over what was loaded and claimed: every resource must be there,
// else nothing is adopted and the unit is unproven until stopped.
func (u *unit) adopt() error {
	if err := u.adoptAll(); err != nil {
		u.mu.Lock()
		u.setPhase(decide.PhaseUnknown)
		u.mu.Unlock()
		return err
	}
	watch, stop := context.WithCancel(u.host.ctx)
	u.mu.Lock()
	u.interrupt = stop
	u.setPhase(decide.PhaseRunning)
	u.mu.Unlock()
	u.watch(watch)
	return nil
}

func (u *unit) adoptAll() error {
	u.mu.Lock()
	list, epoch := u.resources, u.epoch
	u.mu.Unlock()
	ctx, cancel := context.WithTimeout(u.host.ctx, 10*time.Second)
	defer cancel()
	if err := u.arm(); err != nil {
		return err
	}
	failpoint.Here("unit.adopt.armed")
	for _, r := range list {
		if err := adoptOne(ctx, r, epoch); err != nil {
			u.setState(r, "unknown", err.Error())
			return err
		}
		failpoint.Here("unit.adopted")
		u.setState(r, "running", "adopted")
	}
	return nil
}

func adoptOne(ctx context.Context, r Resource, epoch uint64) error {
	if a, ok := r.(Adopter); ok {
		if err := a.Adopt(ctx, epoch); err != nil {
			return fmt.Errorf("adopt %s: %w", r.Name(), err)
		}
		return nil
	}
	running, err := r.Running(ctx)
	if err != nil {
		return fmt.Errorf("adopt %s: %w", r.Name(), err)
	}
	if !running {
		return fmt.Errorf("adopt %s: it does not run", r.Name())
	}
	return nil
}

// NotedAddresses are the virtual addresses in a note of the journal; nil when
// the note cannot be read.
func NotedAddresses(kept []byte) []netip.Addr {
	var n note
	if err := json.Unmarshal(kept, &n); err != nil {
		return nil
	}
	return specAddresses(n.Spec)
}

func specAddresses(spec state.Spec) []netip.Addr {
	var out []netip.Addr
	for _, r := range spec.Resources {
		if r.VIP == nil {
			continue
		}
		if p, err := netip.ParsePrefix(r.VIP.Address); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out
}

// ActiveAddresses are the virtual addresses of what runs here.
func (n *Node) ActiveAddresses() []netip.Addr {
	var out []netip.Addr
	for _, u := range n.allUnits() {
		if !u.holding() {
			continue
		}
		u.mu.Lock()
		out = append(out, specAddresses(u.spec)...)
		u.mu.Unlock()
	}
	return out
}
