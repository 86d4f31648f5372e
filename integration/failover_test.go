package integration

import (
	"context"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// measured lets the fault happen and checks what every fault must leave: a
// cluster that is whole again and an outage within its bound. The bound is wide,
// since other tests and builds may have the processors: bench holds the figures
// of the README. That nobody saw two holders is checked for every rig at its end.
func measured(ctx context.Context, t *testing.T, r *lab.Rig, fault lab.Fault) lab.Measurement {
	t.Helper()
	m, err := r.Measure(ctx, fault)
	if err != nil {
		t.Fatal(err)
	}
	limit := 2*r.Failoverd.Lease() + m.Status.Kappa(lab.Service) + time.Second + m.Stall
	if m.Silence > limit {
		t.Errorf("the client had no answer for %v, want at most %v\n%s", m.Silence, limit, r.Account(ctx, m))
	}
	t.Logf("%s to %s, silence %v, %d requests lost", m.Before, m.After, m.Silence, m.Lost)
	return m
}

// stays checks that the fault moved nothing and lost no request.
func stays(ctx context.Context, t *testing.T, r *lab.Rig, m lab.Measurement) {
	t.Helper()
	if m.After != m.Before {
		t.Errorf("the service moved from %s to %s\n%s", m.Before, m.After, r.Account(ctx, m))
	}
	if m.Lost > 0 {
		t.Errorf("%d requests lost\n%s", m.Lost, r.Account(ctx, m))
	}
}

// moves checks that another node holds after the fault.
func moves(t *testing.T, m lab.Measurement) {
	t.Helper()
	if m.After == m.Before {
		t.Errorf("%s still holds", m.Before)
	}
}

// TestPowerOffOfTheHolder switches the holder off, twice, so that the second
// time the service goes to a node that has come back.
func TestPowerOffOfTheHolder(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	for range 2 {
		moves(t, measured(ctx, t, r, r.PowerCut(ctx)))
	}
}

// TestSwitchover moves the service through every node by an operator's order.
func TestSwitchover(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	for range 3 {
		moves(t, measured(ctx, t, r, r.Switchover(ctx)))
	}
	for _, to := range r.Failoverd.Hosts() {
		m := measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
			if holder == to {
				return nil
			}
			_, err := r.Failoverd.Switchover(ctx, lab.Service, to.Name())
			return err
		})
		if m.After != to.Name() {
			t.Errorf("switchover --to %s left the service on %s", to, m.After)
		}
	}
}

// TestSwitchoverOfAnAddressAlone is the shortest move there is: nothing has to
// be stopped or started but the address.
func TestSwitchoverOfAnAddressAlone(t *testing.T) {
	ctx := limited(t, 60*time.Second)
	r := newRig(ctx, t, lab.RigOptions{Alone: true})
	for range 3 {
		m := measured(ctx, t, r, r.Switchover(ctx))
		moves(t, m)
		if limit := r.Failoverd.Lease() + m.Stall; m.Silence > limit {
			t.Errorf("a planned move took %v, longer than the lease that it need not wait for", m.Silence)
		}
	}
}

// TestDaemonKilled kills the holder's daemon and starts it again, as its
// supervisor would: the client must see nothing of it.
func TestDaemonKilled(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	// The default lease leaves a busy machine time to start a program.
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	for range 3 {
		stays(ctx, t, r, measured(ctx, t, r, r.KillDaemon(ctx)))
	}
}

// TestDaemonStaysDead kills the holder's daemon for good: its services stop with
// the lease, and another node takes over.
func TestDaemonStaysDead(t *testing.T) {
	ctx := limited(t, 60*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	m := measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
		since := r.Lab.Now()
		if err := r.Failoverd.Kill(holder); err != nil {
			return err
		}
		if _, err := r.Moved(ctx, holder, since); err != nil {
			return err
		}
		// What the dead daemon ran is gone without anybody's help.
		eventually(ctx, t, "the dead daemon's service", func() error { return absent(r, holder) })
		return r.Failoverd.Start(holder)
	})
	moves(t, m)
}

// absent complains while the host has the address or runs the service.
func absent(r *lab.Rig, h *lab.Host) error {
	for _, name := range r.Lab.Holders() {
		if name == h.Name() {
			return complain("%s has the address", h)
		}
	}
	running, err := h.Programs("pet")
	if err != nil {
		return err
	}
	if len(running) > 0 {
		return complain("%s runs the service: %v", h, running)
	}
	return nil
}

// TestLeaderKilled kills the daemon that leads while another node holds.
func TestLeaderKilled(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	apart(ctx, t, r)
	stays(ctx, t, r, measured(ctx, t, r, r.KillLeader(ctx)))
}

// TestLeaderPoweredOff does the same to the whole host.
func TestLeaderPoweredOff(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	apart(ctx, t, r)
	m := measured(ctx, t, r, func(holder *lab.Host, s lab.Status) error {
		leader := r.Lab.Host(s.Leader)
		if err := leader.PowerOff(); err != nil {
			return err
		}
		eventually(ctx, t, "a new leader", func() error {
			now, err := r.Failoverd.Status(ctx)
			if err == nil && (!now.Quorum || now.Leader == "" || now.Leader == s.Leader) {
				err = complain("%q leads", now.Leader)
			}
			return err
		})
		return r.PowerOn(leader)
	})
	stays(ctx, t, r, m)
}

// TestHolderThatLeadsIsPoweredOff takes both at once: an election stands before
// the takeover.
func TestHolderThatLeadsIsPoweredOff(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	_, s, err := r.Settled(ctx)
	must(t, err)
	_, err = r.Failoverd.Switchover(ctx, lab.Service, s.Leader)
	must(t, err)
	holder, s, err := r.Settled(ctx)
	must(t, err)
	if s.Leader != holder.Name() {
		t.Skipf("%s leads and %s holds: leadership moved away by itself", s.Leader, holder)
	}
	moves(t, measured(ctx, t, r, r.PowerCut(ctx)))
}

// apart moves the service away from the leader.
func apart(ctx context.Context, t *testing.T, r *lab.Rig) {
	t.Helper()
	for range 5 {
		holder, s, err := r.Settled(ctx)
		must(t, err)
		if holder.Name() != s.Leader {
			return
		}
		_, err = r.Failoverd.Switchover(ctx, lab.Service, "")
		must(t, err)
	}
	t.Fatal("after five switchovers the leader still holds the service")
}
