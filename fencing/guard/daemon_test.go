package guard

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemon runs a fake daemon that extends the lease every third of it.
func (r *rig) daemon(lease time.Duration) (*exec.Cmd, func() Deadline) {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(exe, "fake-daemon", r.dir, "7", lease.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	first := make(chan string, 1)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			select {
			case first <- s.Text():
			default:
			}
		}
	}()
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	select {
	case text := <-first:
		if !strings.HasPrefix(text, "extended") {
			r.t.Fatalf("the daemon says %q", text)
		}
	case <-time.After(long):
		r.t.Fatal("the daemon extends nothing")
	}
	return cmd, func() Deadline { return r.deadline() }
}

// The service goes on under the lease when the daemon is killed, and a new
// daemon that comes in time takes it over without the service noticing.
func TestDaemonKilledAndBack(t *testing.T) {
	r := startRig(t)
	const lease = 900 * time.Millisecond
	first, deadline := r.daemon(lease)
	served := r.serve("a")
	u := r.await("a", UnitRunning)
	if err := unix.Kill(first.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	second, deadline2 := r.daemon(lease)
	old := deadline()
	eventually(t, "the new daemon to extend", func() bool { return deadline2().Boot > old.Boot })
	eventually(t, "three leases to pass", func() bool { return old.Add(3*lease).Left(now(t)) < 0 })
	if again := r.await("a", UnitRunning); again.Pid != u.Pid || again.Restarts != 0 || served.deaths.anyDead() {
		t.Errorf("the service did not survive the daemon's restart: %+v, was init %d", again, u.Pid)
	}
	// And nobody comes back: it ends with what was left.
	if err := unix.Kill(second.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = second.Wait()
	served.check("SIGKILL of the daemon", deadline(), 0)
}

func TestDaemonStopped(t *testing.T) {
	r := startRig(t)
	d, deadline := r.daemon(600 * time.Millisecond)
	served := r.serve("a")
	if err := unix.Kill(d.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// What it had sent before the stop counts; afterwards nothing moves.
	end := deadline()
	served.check("SIGSTOP of the daemon", end, 0)
	if again := deadline(); again != end {
		t.Errorf("the deadline moved from %v to %v without a daemon", end, again)
	}
	// Awake, it goes on extending: late words change nothing for what has ended.
	if err := unix.Kill(d.Process.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon to extend again", func() bool { return deadline().Boot > end.Boot })
	if u, _ := r.unit("a"); u.State != UnitKilled {
		t.Errorf("after the daemon's awakening: %+v", u)
	}
}

// Extend is answered at once, whatever else the guard is asked.
func TestExtendWaitsForNothing(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	for _, n := range []string{"a", "b", "c", "d"} {
		r.start(Spec{Name: n, StopTimeout: 2 * time.Second, Command: sh("trap '' TERM; echo up; while :; do sleep 1; done")})
		r.awaitOutput(n, "up")
		go func() { _ = r.Stop(longContext(), n) }()
		r.await(n, UnitStopping)
	}
	var took []time.Duration
	for range 200 {
		began := time.Now()
		r.lease(time.Minute)
		took = append(took, time.Since(began))
	}
	var sum, worst time.Duration
	for _, d := range took {
		sum, worst = sum+d, max(worst, d)
	}
	t.Logf("Extend beside four slow stops: mean %v, worst %v", sum/time.Duration(len(took)), worst)
	if mean := sum / time.Duration(len(took)); mean > 10*time.Millisecond {
		t.Errorf("Extend takes %v on average", mean)
	}
	for _, n := range []string{"a", "b", "c", "d"} {
		if u, ok := r.unit(n); ok && u.State != UnitStopping {
			t.Errorf("%s: %s", n, u.State)
		}
	}
}

// An upgrade: a second client beside the first, which then goes; the guard and
// what it supervises stay.
func TestUpgrade(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	r.start(Spec{Name: "a", Epoch: 5, Command: sh("exec sleep 100")})
	u := r.await("a", UnitRunning)
	next := r.spawn()
	if next.Pid() != r.Pid() || next.Info().Session != 7 || next.Info().Deadline.Left(now(t)) <= 0 {
		t.Errorf("the new daemon finds %+v", next.Info())
	}
	r.Client.Close()
	r.Client = next
	// The session is resumed: what runs is adopted, and what happened is told.
	r.start(Spec{Name: "a", Epoch: 5, Command: sh("exec sleep 100")})
	if again := r.await("a", UnitRunning); again.Pid != u.Pid {
		t.Error("started anew")
	}
	select {
	case e := <-next.Events():
		if e.Kind != EventStarted || e.Unit != "a" {
			t.Errorf("first event %+v", e)
		}
	case <-time.After(long):
		t.Error("no events")
	}
	if !next.Alive() || next.Err() != nil {
		t.Errorf("alive %v, %v", next.Alive(), next.Err())
	}
}
