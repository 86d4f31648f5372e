package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Fault is something that happens to a settled cluster, and its end.
type Fault func(holder *Host, s Status) error

// insiderName is the client that is cut off together with the holder.
const insiderName = "insider"

// Switchover asks for a planned move, as an operator would.
func (r *Rig) Switchover(ctx context.Context) Fault {
	return func(holder *Host, _ Status) error {
		r.options.Log("failoverctl switchover %s, away from %s", Service, holder)
		since := r.Lab.Now()
		if _, err := r.Failoverd.Switchover(ctx, Service, ""); err != nil {
			return r.explain(err)
		}
		return r.movedFrom(ctx, holder, since)
	}
}

// movedFrom waits for another node's answer and says who it is.
func (r *Rig) movedFrom(ctx context.Context, holder *Host, since time.Duration) error {
	answer, err := r.Moved(ctx, holder, since)
	if err != nil {
		return r.explain(fmt.Errorf("nobody took over from %s: %w", holder, err))
	}
	r.options.Log("%s answers the client", answer.Node)
	return nil
}

// KillDaemon kills the holder's daemon and starts it again at once.
func (r *Rig) KillDaemon(context.Context) Fault {
	return func(holder *Host, _ Status) error {
		r.options.Log("kill -9 of the daemon on %s, restarted at once", holder)
		if err := r.Failoverd.Kill(holder); err != nil {
			return err
		}
		return r.Failoverd.Start(holder)
	}
}

// KillLeader kills the daemon that leads and does not hold, and starts it again
// once another leads.
func (r *Rig) KillLeader(ctx context.Context) Fault {
	return func(holder *Host, s Status) error {
		leader := r.Lab.Host(s.Leader)
		if leader == nil || leader == holder {
			return fmt.Errorf("kill the leader: %q leads and %s holds, they must differ", s.Leader, holder)
		}
		r.options.Log("kill -9 of the leader's daemon on %s; %s holds", leader, holder)
		if err := r.Failoverd.Kill(leader); err != nil {
			return err
		}
		for {
			now, err := r.Failoverd.Status(ctx)
			if err == nil && now.Quorum && now.Leader != "" && now.Leader != s.Leader {
				r.options.Log("%s leads now", now.Leader)
				return r.Failoverd.Start(leader)
			}
			if err := Wait(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("nobody else leads: %w", err)
			}
		}
	}
}

// PowerCut switches the holder off, and on again once another holds.
func (r *Rig) PowerCut(ctx context.Context) Fault {
	return func(holder *Host, _ Status) error {
		r.options.Log("power of %s cut", holder)
		since := r.Lab.Now()
		if err := holder.PowerOff(); err != nil {
			return err
		}
		if err := r.movedFrom(ctx, holder, since); err != nil {
			return err
		}
		r.options.Log("power of %s on again", holder)
		return r.PowerOn(holder)
	}
}

// Freeze stops the holder's daemon with SIGSTOP, its guard too if asked, for
// that long.
func (r *Rig) Freeze(ctx context.Context, d time.Duration, guardToo bool) Fault {
	return func(holder *Host, _ Status) (err error) {
		what := "daemon"
		if guardToo {
			what = "daemon and guard"
		}
		r.options.Log("SIGSTOP of %s on %s, for %v", what, holder, d)
		since := r.Lab.Now()
		if err := r.Failoverd.Stop(holder, guardToo); err != nil {
			return err
		}
		defer func() {
			r.options.Log("%s goes on", holder)
			err = errors.Join(err, r.Failoverd.Cont(holder))
		}()
		if err := r.movedFrom(ctx, holder, since); err != nil {
			return err
		}
		return Wait(ctx, d-(r.Lab.Now()-since))
	}
}

// Partition cuts the holder off for that long, together with a client that goes
// on asking it, and heals the cut. The carriers stay.
func (r *Rig) Partition(ctx context.Context, d time.Duration) Fault {
	return func(holder *Host, _ Status) (err error) {
		insider, err := r.Lab.Client(insiderName)
		if err != nil {
			return err
		}
		asking, err := insider.Ask(Ask{Target: netip.AddrPortFrom(VIP, Port), Every: 5 * time.Millisecond})
		if err != nil {
			return err
		}
		defer asking.Stop()
		if _, err := asking.WaitAnswer(ctx, 0); err != nil {
			return err
		}
		r.options.Log("%s cut off from everybody but one client, for %v", holder, d)
		since := r.Lab.Now()
		if err := r.Lab.Partition(holder, insider); err != nil {
			return err
		}
		defer func() {
			r.options.Log("partition healed")
			err = errors.Join(err, r.Lab.Heal())
			r.healed = r.Lab.Now()
		}()
		if err := r.movedFrom(ctx, holder, since); err != nil {
			return err
		}
		return Wait(ctx, d-(r.Lab.Now()-since))
	}
}

// Stay lets time pass with nothing wrong.
func (r *Rig) Stay(ctx context.Context, d time.Duration) Fault {
	return func(*Host, Status) error {
		r.options.Log("nothing happens for %v", d)
		return Wait(ctx, d)
	}
}
