package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/failoverd/failoverd/integration/lab"
)

// outermost gives the guard that the daemon talks to: of its processes on the
// host the one that is in no PID namespace of its own.
func outermost(t *testing.T, h *lab.Host) int {
	t.Helper()
	all, err := h.Programs(lab.Guard)
	must(t, err)
	var own []int
	for _, p := range all {
		if !p.Nested {
			own = append(own, p.Pid)
		}
	}
	if len(own) == 0 {
		t.Fatalf("no guard on %s: %v", h, all)
	}
	slices.Sort(own)
	return own[0]
}

// gone complains while the process still exists.
func gone(pid int) error {
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d is still there (%v)", pid, err)
	}
	return nil
}

// nothingLeft complains while a process of one of the programs is on the host.
func nothingLeft(h *lab.Host, programs ...string) error {
	for _, program := range programs {
		if left, err := h.Programs(program); err != nil || len(left) > 0 {
			return fmt.Errorf("on %s are %v (%w)", h, left, err)
		}
	}
	return nil
}

// answeredAgain waits for an answer to a request that was sent after the instant.
func answeredAgain(ctx context.Context, t *testing.T, r *lab.Rig, since time.Duration) lab.Request {
	t.Helper()
	a, err := r.Client.WaitAnswer(ctx, since)
	must(t, err)
	return a
}

// A guard that is killed takes its processes with it. The service comes back, on
// this node or another, and never on two.
func TestGuardKilled(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		pid := outermost(t, holder)
		pets, err := holder.Programs("pet")
		must(t, err)
		if len(pets) != 1 {
			t.Fatalf("the service's processes on %s: %v", holder, pets)
		}
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		eventually(ctx, t, "the killed guard's service", func() error { return gone(pets[0].Pid) })
		answeredAgain(ctx, t, r, r.Lab.Now())
		return nil
	})
	must(t, err)
	if !m.Figures.None() {
		t.Error(m.Figures)
	}
	t.Logf("from %s to %s, %v without an answer", m.Before, m.After, m.Silence)
	if limit := 5 * (r.Failoverd.Lease() + time.Second); m.Silence > limit {
		t.Errorf("%v without an answer, want less than %v", m.Silence, limit)
	}
	guards, err := r.Lab.Host(m.Before).Programs(lab.Guard)
	must(t, err)
	if len(guards) == 0 {
		t.Errorf("%s has no guard any more", m.Before)
	}
}

// A guard that is frozen while its daemon goes on takes no deadline any more:
// the kernel ends it at the last one it took, and the service comes back.
func TestGuardFrozen(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		frozen, err := holder.Programs(lab.Guard)
		must(t, err)
		pets, err := holder.Programs("pet")
		must(t, err)
		n, err := holder.Stop(lab.Guard)
		must(t, err)
		if n == 0 || len(pets) != 1 {
			t.Fatalf("on %s: %d guards stopped, services %v", holder, n, pets)
		}
		eventually(ctx, t, "the frozen guard's service", func() error { return gone(pets[0].Pid) })
		answeredAgain(ctx, t, r, r.Lab.Now())
		for _, p := range frozen {
			if err := syscall.Kill(p.Pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Error(err)
			}
		}
		return nil
	})
	must(t, err)
	if !m.Figures.None() {
		t.Error(m.Figures)
	}
	t.Logf("from %s to %s, %v without an answer", m.Before, m.After, m.Silence)
	if limit := 5 * (r.Failoverd.Lease() + time.Second); m.Silence > limit {
		t.Errorf("%v without an answer, want less than %v", m.Silence, limit)
	}
}

// inHost opens an nftables socket of the host.
func inHost(t *testing.T, h *lab.Host, fn func(*nftables.Conn) error) {
	t.Helper()
	must(t, h.In(func() error {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		return errors.Join(fn(c), c.CloseLasting())
	}))
}

// tables gives the names of a host's nftables tables.
func tables(t *testing.T, h *lab.Host) (names []string) {
	t.Helper()
	inHost(t, h, func(c *nftables.Conn) error {
		list, err := c.ListTables()
		for _, table := range list {
			names = append(names, table.Name)
		}
		return err
	})
	slices.Sort(names)
	return names
}

// Somebody's `nft flush ruleset` takes the gate along. It is made anew, status
// says so, and no request is lost for it.
func TestGateFlushed(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		before := tables(t, holder)
		if len(before) == 0 {
			t.Skip("nftables cannot be used here: there is no gate to flush")
		}
		inHost(t, holder, func(c *nftables.Conn) error { c.FlushRuleset(); return c.Flush() })
		eventually(ctx, t, "the gate", func() error {
			if now := tables(t, holder); !slices.Equal(now, before) {
				return fmt.Errorf("tables %v, before the flush %v", now, before)
			}
			return nil
		})
		eventually(ctx, t, "the report", func() error {
			s, err := status(ctx, r.Failoverd, holder)
			if err != nil {
				return err
			}
			if !strings.Contains(strings.Join(s.Alarms, "\n"), "gate") {
				return fmt.Errorf("alarms of %s: %q", holder, s.Alarms)
			}
			return nil
		})
		return nil
	})
	must(t, err)
	if !m.Figures.None() || m.Lost > 0 || m.Before != m.After {
		t.Errorf("from %s to %s, %d requests lost, %s", m.Before, m.After, m.Lost, m.Figures)
	}
}

// A daemon that is restarted by an operator's word leaves its service alone.
func TestNodeRestartLosesNothing(t *testing.T) {
	ctx := limited(t, 60*time.Second)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		starts := func() int { return strings.Count(read(r.Failoverd.LogFile(holder)), "msg=running") }
		before, pid := starts(), r.Failoverd.Daemon(holder).Pid()
		ctl(ctx, t, r.Failoverd, holder, "node", "restart", holder.Name(), "--reason", "a test").mustSay(t, 0, holder.Name()+" restarts")
		eventually(ctx, t, "the new daemon", func() error {
			if starts() == before {
				return errors.New("it has not started again")
			}
			return nil
		})
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("the process is another one now: whoever supervised it has seen an exit (%v)", err)
		}
		return nil
	})
	must(t, err)
	if !m.Figures.None() || m.Lost > 0 || m.Before != m.After {
		t.Errorf("from %s to %s, %d requests lost, %s\n%s", m.Before, m.After, m.Lost, m.Figures, r.Account(ctx, m))
	}
}

// SIGTERM is a stop for good: the service is handed over first.
func TestTerminatedDaemonHandsOver(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		since := r.Lab.Now()
		if err := r.Failoverd.Terminate(ctx, holder); err != nil {
			t.Errorf("a stopped daemon should end well: %v", err)
		}
		if a, err := r.Moved(ctx, holder, since); err != nil {
			t.Error(err)
		} else {
			t.Logf("%s answers", a.Node)
		}
		eventually(ctx, t, "after the stop", func() error { return nothingLeft(holder, lab.Guard, "pet") })
		out, err := r.Failoverd.AnyCtl(ctx, "history", lab.Service)
		must(t, err)
		if !strings.Contains(out, holder.Name()+" stops") || strings.Contains(out, "expired") {
			t.Errorf("the history does not tell of a stop that handed over:\n%s", out)
		}
		return r.Failoverd.Start(holder)
	})
	must(t, err)
	if !m.Figures.None() || m.Before == m.After {
		t.Errorf("from %s to %s, %s", m.Before, m.After, m.Figures)
	}
	// A hand-over waits for no lease; what it waits for is the two starts of the
	// service, on a host that others use too.
	if m.Silence > 5*time.Second {
		t.Errorf("%v without an answer", m.Silence)
	}
}

// A paused cluster moves nothing, not even away from a holder that is dead.
func TestPausedMovesNothing(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	holder, before, err := r.Settled(ctx)
	must(t, err)
	_, epoch, _ := serviceOf(before, lab.Service)
	ctl(ctx, t, r.Failoverd, holder, "pause", "--for", "10m", "--reason", "moving cables").mustSay(t, 0)
	must(t, holder.PowerOff())
	off := r.Lab.Now()
	steadily(ctx, t, 6*r.Failoverd.Lease(), "while paused", func() error {
		if now := r.Lab.Holders(); len(now) > 0 {
			return fmt.Errorf("%v has the address", now)
		}
		s, err := r.Failoverd.Status(ctx)
		if err != nil {
			return nil // an election may be under way
		}
		if name, e, _ := serviceOf(s, lab.Service); e != epoch {
			return fmt.Errorf("granted to %q under epoch %d, the dead holder had %d", name, e, epoch)
		}
		return nil
	})
	out, err := r.Failoverd.AnyCtl(ctx, "status")
	must(t, err)
	for _, word := range []string{"paused", "moving cables"} {
		if !strings.Contains(out, word) {
			t.Errorf("status does not say %q:\n%s", word, out)
		}
	}
	if _, err := r.Failoverd.AnyCtl(ctx, "resume"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Moved(ctx, holder, off); err != nil {
		t.Fatalf("nobody took over after the resume: %v", err)
	}
	must(t, r.PowerOn(holder))
	if _, _, err := r.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}

// hookScript starts the pet in the background, as the start scripts of old
// services do, and notes down each call and for which epoch it was made.
const hookScript = `#!/bin/sh
# $1: start, stop or status; $2: the pet; $3: the directory that all hosts share
pidfile="$3/$FAILOVER_NODE.pid"
alive() { [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; }
case "$1" in
start)
	"$2" -listen 0.0.0.0:8080 -dir "$3" </dev/null >/dev/null 2>&1 &
	echo $! >"$pidfile"
	;;
stop)
	if alive; then
		kill "$(cat "$pidfile")"
		while alive; do sleep 0.05; done
	fi
	rm -f "$pidfile"
	;;
status)
	alive || { echo "$1:$FAILOVER_NODE:$FAILOVER_EPOCH:no" >>"$3/calls"; exit 3; }
	;;
esac
echo "$1:$FAILOVER_NODE:$FAILOVER_EPOCH" >>"$3/calls"
`

// A service that comes with hooks of its own is started, asked and stopped by
// them, and a switchover stops it here before it starts it there.
func TestExecHooks(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	shared := filepath.Join(r.Lab.Dir(), "shared")
	source := filepath.Join(t.TempDir(), "reports")
	must(t, os.WriteFile(source, []byte(hookScript), 0o755))
	program, err := r.Lab.InstallProgram(source)
	must(t, err)
	pet := filepath.Join(r.Lab.Programs(), "pet")
	command := func(verb string) string { return fmt.Sprintf("[%q, %q, %q, %q]", program, verb, pet, shared) }
	calls := func() []string { return strings.Fields(read(filepath.Join(shared, "calls"))) }
	called := func(verb string, node string) func() error {
		return func() error {
			s, err := r.Failoverd.Status(ctx)
			if err != nil {
				return err
			}
			_, epoch, _ := serviceOf(s, lab.Service)
			if want := fmt.Sprintf("%s:%s:%d", verb, node, epoch); !slices.Contains(calls(), want) {
				return fmt.Errorf("no %s in %q", want, calls())
			}
			return nil
		}
	}
	must(t, r.Failoverd.Apply(ctx, fmt.Sprintf(`
service %q {
  exec "reports" {
    start    = %s
    stop     = %s
    status   = %s
    interval = "1s"
  }
  vip "%s/24" { interface = %q }
}
`, lab.Service, command("start"), command("stop"), command("status"), lab.VIP, lab.Interface)))
	eventually(ctx, t, "the change to hooks", func() error {
		if !strings.Contains(strings.Join(calls(), " "), "start:") {
			return fmt.Errorf("calls so far: %q", calls())
		}
		return nil
	})
	m, err := r.Measure(ctx, r.Switchover(ctx))
	must(t, err)
	eventually(ctx, t, "the start hook", called("start", m.After))
	eventually(ctx, t, "the status hook", called("status", m.After))
	_, epoch, _ := serviceOf(m.Status, lab.Service)
	stop := slices.Index(calls(), fmt.Sprintf("stop:%s:%d", m.Before, epoch-1))
	start := slices.Index(calls(), fmt.Sprintf("start:%s:%d", m.After, epoch))
	if stop < 0 || start < stop {
		t.Errorf("want the stop on %s before the start on %s in %q", m.Before, m.After, calls())
	}
	started := map[string]int{}
	for _, c := range calls() {
		if strings.HasPrefix(c, "start:") {
			started[c]++
		}
	}
	for c, n := range started {
		if n != 1 {
			t.Errorf("%s was called %d times", c, n)
		}
	}
	if err := nothingLeft(r.Lab.Host(m.Before), "pet"); err != nil {
		t.Error(err)
	}
}
