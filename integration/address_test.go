package integration

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/integration/lab"
)

// alarmed waits until a host's status has an alarm with each of the words.
func alarmed(ctx context.Context, t *testing.T, r *lab.Rig, h *lab.Host, words ...string) {
	t.Helper()
	eventually(ctx, t, "the report", func() error {
		s, err := status(ctx, r.Failoverd, h)
		if err != nil {
			return err
		}
		for _, alarm := range s.Alarms {
			missing := false
			for _, w := range words {
				missing = missing || !strings.Contains(alarm, w)
			}
			if !missing {
				return nil
			}
		}
		return complain("alarms of %s: %q, want one with %q", h, s.Alarms, words)
	})
}

// addressThere complains unless the host has the virtual address.
func addressThere(h *lab.Host) error {
	return inKernel(h, func(k *netlink.Handle, eth netlink.Link) error {
		list, err := k.AddrList(eth, netlink.FAMILY_V4)
		for _, a := range list {
			if a.IP.String() == lab.VIP.String() {
				return nil
			}
		}
		return complain("%s has %v (%v)", h, list, err)
	})
}

// inKernel gives fn a netlink socket of the host and its interface.
func inKernel(h *lab.Host, fn func(k *netlink.Handle, eth netlink.Link) error) error {
	return h.In(func() error {
		k, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer k.Close()
		eth, err := k.LinkByName(lab.Interface)
		if err != nil {
			return err
		}
		return fn(k, eth)
	})
}

// TestAddressRemoved takes the virtual address off the holder, as a human or a
// network manager would. It is put back and announced at once, under the same
// grant, and status says that something else removed it.
func TestAddressRemoved(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	m, err := r.Measure(ctx, func(holder *lab.Host, s lab.Status) error {
		_, epoch, _ := serviceOf(s, lab.Service)
		heard := listenARP(ctx, t, r.Lab.Host("client"))
		for range 3 {
			since, before := r.Lab.Now(), heard.count(holder)
			must(t, inKernel(holder, func(k *netlink.Handle, eth netlink.Link) error {
				return k.AddrDel(eth, &netlink.Addr{IPNet: &net.IPNet{IP: lab.VIP.AsSlice(), Mask: net.CIDRMask(32, 32)}})
			}))
			answeredAgain(ctx, t, r, since)
			heard.more(ctx, t, holder, before)
		}
		alarmed(ctx, t, r, holder, lab.VIP.String(), "removed", "something else")
		eventually(ctx, t, "the address", func() error { return addressThere(holder) })
		if _, e, err := granted(ctx, r); err != nil || e != epoch {
			t.Errorf("epoch %d before, %d after (%v)", epoch, e, err)
		}
		return nil
	})
	must(t, err)
	t.Logf("removed three times: longest silence %v, %d requests lost", m.Silence, m.Lost)
	if m.Before != m.After || m.Silence > time.Second+m.Stall {
		t.Errorf("from %s to %s, %v without an answer\n%s", m.Before, m.After, m.Silence, r.Account(ctx, m))
	}
}

// TestAddressClaimed has another host claim the address by ARP, as one with a
// copied configuration would. The holder sees it, says whose hardware address it
// is, and tells the neighbours again where the address really is: the client
// comes back to it. It does not give the address up for that.
func TestAddressClaimed(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	rogue, err := r.Lab.AddHost("rogue")
	must(t, err)
	// What watches the wire for a second holder among ours must not see this one.
	must(t, r.Lab.Cut(rogue, r.Lab.Host("observer")))
	client := r.Lab.Host("client")
	heard := listenARP(ctx, t, client)
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		before, rogues := heard.count(holder), heard.count(rogue)
		claimed := r.Lab.Now()
		must(t, claimARP(rogue))
		heard.more(ctx, t, rogue, rogues)  // the client has been told so,
		heard.more(ctx, t, holder, before) // and has been put right
		limit, cancel := context.WithTimeout(ctx, soon)
		defer cancel()
		eventually(limit, t, "the way back to the holder", func() error { return neighbour(client, holder) })
		t.Logf("the client had the holder's hardware address %v after the claim", r.Lab.Now()-claimed)
		alarmed(ctx, t, r, holder, lab.VIP.String(), "also claimed", rogue.MAC().String())
		if held := r.Lab.Holders(); len(held) != 1 || held[0] != holder.Name() {
			t.Errorf("%v have the address, want %s alone", held, holder)
		}
		answeredAgain(ctx, t, r, r.Lab.Now())
		return nil
	})
	must(t, err)
	if m.Before != m.After {
		t.Errorf("from %s to %s\n%s", m.Before, m.After, r.Account(ctx, m))
	}
	t.Logf("%d requests lost, longest silence %v", m.Lost, m.Silence)
}
