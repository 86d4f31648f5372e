package integration

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// TestPausedThroughFaults pauses the cluster and lets one fault after the other
// happen to it. A holder that is cut off, frozen or killed loses its lease, and
// with it the address and the process, for that is the kernel's promise and not
// a decision; but nothing is started anywhere else, its session stays open, and
// when the fault is over it serves on under the same epoch. Only a machine that
// has booted anew has lost its session: then nobody serves until the resume.
func TestPausedThroughFaults(t *testing.T) {
	ctx := limited(t, 3*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	apart(ctx, t, r)
	holder, before, err := r.Settled(ctx)
	must(t, err)
	_, epoch, _ := serviceOf(before, lab.Service)
	ctl(ctx, t, r.Failoverd, holder, "pause", "--for", "1h", "--reason", "the electrician is in the house").mustSay(t, 0)
	lease := r.Failoverd.Lease()
	p := &pausedCluster{r: r, holder: holder, epoch: epoch}

	faults := []struct {
		name       string
		begin, end func() error
		serves     bool // the holder serves on meanwhile
	}{
		{"the leader's daemon is killed", func() error { return r.Failoverd.Kill(p.leader(ctx, t)) },
			func() error { return r.Failoverd.Start(p.struck) }, true},
		{"the leader has no power", func() error { return p.leader(ctx, t).PowerOff() },
			func() error { return r.PowerOn(p.struck) }, true},
		{"the holder is cut off", func() error { return r.Lab.Partition(holder) }, r.Lab.Heal, false},
		{"the holder has no carrier", holder.Unplug, holder.Plug, false},
		{"daemon and guard of the holder are frozen", func() error { return r.Failoverd.Stop(holder, true) },
			func() error { return r.Failoverd.Cont(holder) }, false},
		{"the holder's daemon is killed", func() error { return r.Failoverd.Kill(holder) },
			func() error { return r.Failoverd.Start(holder) }, false},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			from := r.Lab.Now()
			must(t, f.begin())
			if !f.serves {
				eventually(ctx, t, "the end of the lease", p.nobody)
			}
			steadily(ctx, t, 2*lease, "while paused", func() error { return p.unchanged(ctx, !f.serves) })
			must(t, f.end())
			now, s, err := r.Settled(ctx)
			must(t, err)
			if _, e, _ := serviceOf(s, lab.Service); now != holder || e != epoch {
				t.Fatalf("%s serves under epoch %d, before it was %s under %d", now, e, holder, epoch)
			}
			must(t, r.Client.Settle(ctx, r.Lab.Now()))
			lost := len(r.Client.Lost(from, r.Lab.Now()))
			silence, _ := r.Client.Silence(from, r.Lab.Now())
			t.Logf("%d requests lost, longest silence %v", lost, silence)
			if f.serves && silence > lease+time.Second {
				t.Errorf("%v without an answer for a fault that does not touch the holder", silence)
			}
		})
	}

	t.Run("the holder has no power", func(t *testing.T) {
		must(t, holder.PowerOff())
		eventually(ctx, t, "the end of the lease", p.nobody)
		steadily(ctx, t, 2*lease, "while paused", func() error { return p.unchanged(ctx, true) })
		must(t, r.PowerOn(holder))
		// All are there again, and still nobody may begin.
		eventually(ctx, t, "the return of "+holder.Name(), func() error { return p.returned(ctx) })
		steadily(ctx, t, 2*lease, "with all nodes back", func() error { return p.unchanged(ctx, true) })
		since := r.Lab.Now()
		_, err := r.Failoverd.AnyCtl(ctx, "resume")
		must(t, err)
		answeredAgain(ctx, t, r, since)
		_, s, err := r.Settled(ctx)
		must(t, err)
		if _, e, _ := serviceOf(s, lab.Service); e != epoch+1 {
			t.Errorf("epoch %d after the resume, want %d", e, epoch+1)
		}
	})
}

// pausedCluster is what must stay as it was.
type pausedCluster struct {
	r      *lab.Rig
	holder *lab.Host
	epoch  uint64
	struck *lab.Host // the leader that a fault happened to last
}

// leader gives the host that leads, which is not the holder as a rule; where it
// is, the fault happens to another host.
func (p *pausedCluster) leader(ctx context.Context, t *testing.T) *lab.Host {
	t.Helper()
	s, err := p.r.Failoverd.Status(ctx)
	must(t, err)
	p.struck = p.r.Lab.Host(s.Leader)
	if p.struck == p.holder {
		p.struck = others(p.r, p.holder)[0]
		t.Logf("%s leads and holds; the fault happens to %s", p.holder, p.struck)
	}
	return p.struck
}

// nobody complains while a host has the address.
func (p *pausedCluster) nobody() error {
	if now := p.r.Lab.Holders(); len(now) > 0 {
		return complain("%v have the address", now)
	}
	return nil
}

// unchanged complains of any other holder and of any other epoch.
func (p *pausedCluster) unchanged(ctx context.Context, silent bool) error {
	now := p.r.Lab.Holders()
	if silent && len(now) > 0 {
		return complain("%v have the address, with the lease over", now)
	}
	if !silent && !slices.Equal(now, []string{p.holder.Name()}) {
		return complain("%v have the address, and %s was untouched", now, p.holder)
	}
	for _, h := range others(p.r, p.holder) {
		if pets, err := h.Programs("pet"); err != nil || len(pets) > 0 {
			return complain("%s runs %v (%v)", h, pets, err)
		}
	}
	s, err := p.r.Failoverd.Status(ctx)
	if err != nil || s.Leader == "" {
		return nil // an election may be under way
	}
	if _, e, _ := serviceOf(s, lab.Service); e != p.epoch {
		return complain("epoch %d, before it was %d", e, p.epoch)
	}
	return nil
}

// returned complains until every node is ready under an open session and status
// says that nobody holds the service, and why.
func (p *pausedCluster) returned(ctx context.Context) error {
	s, err := p.r.Failoverd.Status(ctx)
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if !n.Ready || n.SessionState != "open" || n.Alive != "yes" {
			return complain("%+v", n)
		}
	}
	for _, v := range s.Services {
		if v.Name == lab.Service && v.Holder == "" && strings.Contains(v.Next, "paused") {
			return nil
		}
	}
	return errors.New("the service is not said to be without a holder for the pause")
}
