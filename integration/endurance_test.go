package integration

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// patient reports whether there is time for the figures that take minutes.
func patient() bool { return os.Getenv("FAILOVERD_LONG") != "" }

var (
	enduranceTime = flag.Duration("endurance", 0, "how long TestEndurance lasts; default 15s, with FAILOVERD_LONG 10m")
	enduranceLoss = flag.Int("endurance.loss", 20, "percent of the frames between the nodes that TestEndurance loses, each way")
	enduranceBusy = flag.Int("endurance.busy", runtime.NumCPU(), "busy loops beside the nodes in TestEndurance")
)

// TestEndurance loses a fifth of all frames between the nodes, each way, while
// every core is busy. Nothing may move, and the client, whose own way to the
// nodes is whole, may lose no request.
func TestEndurance(t *testing.T) {
	d := *enduranceTime
	switch {
	case d > 0:
	case patient():
		d = 10 * time.Minute
	default:
		d = 15 * time.Second
	}
	ctx := limited(t, d+2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default", Every: 10 * time.Millisecond})
	var before, under lab.Status
	var worst time.Duration
	m, err := r.Measure(ctx, func(holder *lab.Host, s lab.Status) error {
		before = s
		must(t, r.Lab.Lose(*enduranceLoss, r.Failoverd.Hosts()...))
		stop := spin(t, *enduranceBusy, r.Failoverd.Hosts())
		defer stop()
		end := r.Lab.Now() + d
		for r.Lab.Now() < end {
			must(t, lab.Wait(ctx, min(2*time.Second, end-r.Lab.Now())))
			asked := r.Lab.Now()
			// The operator's own way is lossy too: what cannot be asked now is asked later.
			if s, err := status(ctx, r.Failoverd, holder); err == nil {
				under = s
				worst = max(worst, r.Lab.Now()-asked)
			}
		}
		return r.Lab.Heal()
	})
	must(t, err)
	_, e1, _ := serviceOf(before, lab.Service)
	_, e2, _ := serviceOf(m.Status, lab.Service)
	t.Logf("%v with %d %% of the frames lost and %d busy loops on %d cores: epoch %d to %d, %d of %d requests lost, "+
		"longest silence %v (the machine's own part %v), %d elections, slowest status %v, alarms at the end %q",
		m.To-m.From, *enduranceLoss, *enduranceBusy, runtime.NumCPU(), e1, e2, m.Lost, len(r.Client.Requests(m.From, m.To)),
		m.Silence, m.Noise, elections(ctx, t, r, m), worst, under.Alarms)
	for i, q := range r.Client.Lost(m.From, m.To) {
		if i == 20 {
			break
		}
		t.Logf("lost: sent %.1f ms after the fault, %v after %v", float64((q.Sent-m.From).Microseconds())/1e3, q.Outcome, q.Got-q.Sent)
	}
	if e1 != e2 {
		t.Errorf("epoch %d before, %d after: the service was given anew\n%s", e1, e2, r.Account(ctx, m))
	}
	stays(ctx, t, r, m)
	if !m.Figures.None() {
		t.Error(m.Figures)
	}
}

// spin runs n busy loops of ordinary priority on the hosts in turn, which compete
// with the daemons as any other program there would, until stop is called.
func spin(t *testing.T, n int, hosts []*lab.Host) (stop func()) {
	t.Helper()
	var running []*lab.Running
	stop = func() {
		for _, p := range running {
			p.Kill()
		}
		running = nil
	}
	t.Cleanup(stop)
	for i := range n {
		p, err := hosts[i%len(hosts)].Start(exec.Command("/bin/sh", "-c", "while :; do :; done"))
		must(t, err)
		running = append(running, p)
	}
	return stop
}

// granted gives the service's holder and epoch as any daemon that answers tells.
func granted(ctx context.Context, r *lab.Rig) (holder string, epoch uint64, err error) {
	s, err := r.Failoverd.Status(ctx)
	holder, epoch, _ = serviceOf(s, lab.Service)
	return holder, epoch, err
}
