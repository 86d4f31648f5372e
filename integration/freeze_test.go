package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// TestFrozenHolder stops the holder's daemon, alone and together with its guard,
// for 3 and 10 leases, and for 100 where there is time. It must be gone by the kernel's hand at the lease's
// end, and look before it acts when it wakes.
func TestFrozenHolder(t *testing.T) {
	times, limit := []int{3, 10}, 4*time.Minute
	if patient() {
		times, limit = append(times, 100), 10*time.Minute
	}
	ctx := limited(t, limit)
	r := newRig(ctx, t, lab.RigOptions{})
	for _, guardToo := range []bool{false, true} {
		for _, leases := range times {
			t.Run(fmt.Sprintf("%d leases, guard too %v", leases, guardToo), func(t *testing.T) {
				m := measured(ctx, t, r, r.Freeze(ctx, time.Duration(leases)*r.Failoverd.Lease(), guardToo))
				moves(t, m)
			})
		}
	}
}

// TestShortFreeze stops the holder's daemon for about a lease, so that it wakes
// in the middle of being replaced: whatever comes of it, never two.
func TestShortFreeze(t *testing.T) {
	ctx := limited(t, 3*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	lease := r.Failoverd.Lease()
	for _, d := range []time.Duration{lease / 2, lease * 8 / 10, lease, lease + 50*time.Millisecond, lease * 12 / 10} {
		t.Run(d.String(), func(t *testing.T) {
			measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
				if err := r.Failoverd.Stop(holder, d > lease); err != nil {
					return err
				}
				must(t, lab.Wait(ctx, d))
				return r.Failoverd.Cont(holder)
			})
		})
	}
}

// TestFrozenHost freezes every process of the holder's host by its control
// groups, the service's own among them: nothing there can run, only the kernel.
func TestFrozenHost(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	if !r.Failoverd.Hosts()[0].CanFreeze() {
		t.Skip("freezing a host needs root and a writable cgroup v2 mount")
	}
	m := measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
		since := r.Lab.Now()
		r.Failoverd.Deaf(holder, true)
		if err := holder.Freeze(); err != nil {
			return err
		}
		_, moved := r.Moved(ctx, holder, since)
		must(t, lab.Wait(ctx, 3*r.Failoverd.Lease()))
		if err := holder.Thaw(); err != nil {
			return err
		}
		r.Failoverd.Deaf(holder, false)
		return moved
	})
	moves(t, m)
}

// TestFrozenLeader stops the daemon that leads while another node holds: a new
// leader is elected, and the client sees nothing.
func TestFrozenLeader(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	apart(ctx, t, r)
	m := measured(ctx, t, r, func(_ *lab.Host, s lab.Status) error {
		leader := r.Lab.Host(s.Leader)
		if err := r.Failoverd.Stop(leader, false); err != nil {
			return err
		}
		must(t, lab.Wait(ctx, 3*r.Failoverd.Lease()))
		return r.Failoverd.Cont(leader)
	})
	stays(ctx, t, r, m)
}
