package guard

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCrashIsRestarted(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	count := filepath.Join(r.dir, "count")
	r.start(Spec{Name: "a", Restarts: 2, Command: sh("echo run >> " + count + "; setsid sleep 1000 & exit 3")})
	u := r.await("a", UnitFailed)
	b, err := os.ReadFile(count)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "run"); n != 3 {
		t.Errorf("run %d times, want once and two restarts", n)
	}
	if u.Restarts != 2 || u.LastExit != "exit status 3" || !strings.Contains(u.Text, "exit status 3") || u.Pid != 0 {
		t.Errorf("%+v", u)
	}
	// The story in order; each restart later than the one before.
	var kinds []string
	var at []time.Time
	for len(kinds) < 7 {
		select {
		case e := <-r.Events():
			if e.Unit == "a" && e.Kind != EventOutput {
				kinds, at = append(kinds, string(e.Kind)), append(at, e.At)
			}
		case <-time.After(long):
			t.Fatalf("events so far: %v", kinds)
		}
	}
	if got, want := strings.Join(kinds, " "), "started exited restarted exited restarted exited failed"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if a, b := at[2].Sub(at[1]), at[4].Sub(at[3]); a < firstBackoff || b < 2*firstBackoff {
		t.Errorf("back-off %v, then %v", a, b)
	}
	// A failed unit may be started anew.
	r.start(Spec{Name: "a", Command: sh("exec sleep 100")})
	r.await("a", UnitRunning)
}

func TestStableRunForgetsCrashes(t *testing.T) {
	needNamespaces(t)
	g, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	g.stable = 50 * time.Millisecond
	if err := g.Extend(1, now(t).Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Start(ctx(t), Spec{Name: "a", Session: 1, Restarts: 1, Command: sh("sleep 0.1; exit 1")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three restarts", func() bool { return g.List()[0].Restarts >= 3 })
	if err := g.Stop(ctx(t), "a", 0); err != nil {
		t.Fatal(err)
	}
}

func TestStopAndDeadlineDuringBackoff(t *testing.T) {
	r := startRig(t)
	d := r.lease(1500 * time.Millisecond)
	for _, n := range []string{"a", "b"} {
		r.start(Spec{Name: n, Restarts: 100, Command: sh("exit 1")})
	}
	eventually(t, "a long back-off", func() bool { u, _ := r.unit("a"); return u.State == UnitBackoff && u.Restarts >= 2 })
	began := time.Now()
	if err := r.Stop(ctx(t), "a"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("a stop waited %v for the back-off", took)
	}
	u := r.await("b", UnitKilled)
	if d.Left(now(t)) > 0 {
		t.Errorf("given up before the deadline: %+v", u)
	}
	if restarts := u.Restarts; restarts > 5 {
		t.Errorf("%d restarts in 1.5 s", restarts)
	}
}

// One rule for all that has ended: it is told how, and nothing of it is left.
func TestProgramKilledBySignal(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	r.start(Spec{Name: "a", Command: sh("kill -SEGV $$")})
	if u := r.await("a", UnitFailed); !strings.Contains(u.LastExit, "SIGSEGV") {
		t.Errorf("last exit %q", u.LastExit)
	}
	// A service that attacks its own init does not get rid of it.
	r.start(Spec{Name: "b", Command: sh("for s in TERM INT HUP QUIT USR1 USR2 PIPE KILL STOP; do kill -$s 1; done; echo done; exec sleep 100")})
	r.awaitOutput("b", "done")
	if u := r.await("b", UnitRunning); u.State != UnitRunning {
		t.Errorf("%+v", u)
	}
	if err := r.Stop(ctx(t), "b"); err != nil {
		t.Fatal(err)
	}
}

func TestSignal(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	r.start(Spec{Name: "a", Command: sh("trap 'echo reloaded' HUP; echo up; while :; do sleep 0.01; done")})
	r.awaitOutput("a", "up")
	if err := r.Signal(ctx(t), "a", "HUP"); err != nil {
		t.Fatal(err)
	}
	r.awaitOutput("a", "reloaded")
	if err := r.Signal(ctx(t), "no", "HUP"); !errors.Is(err, ErrNotFound) {
		t.Errorf("signal to nobody: %v", err)
	}
}

// TERM to the guard stops everything by its own rules, INT nothing.
func TestSignalsToTheGuard(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	mark := filepath.Join(r.dir, "mark")
	r.start(Spec{Name: "a", Command: sh("trap 'echo in order > " + mark + "; exit' TERM; echo up; while :; do sleep 0.01; done")})
	r.awaitOutput("a", "up")
	u := r.await("a", UnitRunning)
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGPIPE} {
		if err := unix.Kill(r.Pid(), s); err != nil {
			t.Fatal(err)
		}
	}
	if again := r.await("a", UnitRunning); again.Pid != u.Pid {
		t.Errorf("restarted by a signal to the guard")
	}
	if err := r.Shutdown(ctx(t)); !errors.Is(err, ErrConflict) {
		t.Errorf("shut down beside a running service: %v", err)
	}
	deaths := watchDeaths(t, append(tree(u.Pid), r.Pid()))
	if err := unix.Kill(r.Pid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	deaths.last(t)
	if b, err := os.ReadFile(mark); err != nil || string(b) != "in order\n" {
		t.Errorf("not stopped in order: %q %v", b, err)
	}
	if cg := r.Info().Cgroup; cg != "" && openGroup(cg).Exists() {
		t.Error("its cgroup is left")
	}
}

func TestShutdownOfAnIdleGuard(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	r.start(Spec{Name: "a", Command: sh("exec sleep 100")})
	if err := r.Stop(ctx(t), "a"); err != nil {
		t.Fatal(err)
	}
	deaths := watchDeaths(t, []int{r.Pid()})
	if err := r.Shutdown(ctx(t)); err != nil {
		t.Fatal(err)
	}
	deaths.last(t)
}

func TestReleaseAndNewSession(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	r.start(Spec{Name: "a", Command: sh("exec sleep 100")})
	if err := r.Release(ctx(t)); !errors.Is(err, ErrConflict) {
		t.Errorf("released beside a running service: %v", err)
	}
	if err := r.Stop(ctx(t), "a"); err != nil {
		t.Fatal(err)
	}
	if err := r.Release(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if info, err := r.Status(ctx(t)); err != nil || info.Session != 0 || !info.Deadline.IsZero() {
		t.Errorf("after the release: %+v %v", info, err)
	}
	if err := r.Start(ctx(t), Spec{Name: "a", Command: sh("exec sleep 100")}); !errors.Is(err, ErrNoLease) {
		t.Errorf("started without a lease: %v", err)
	}
	// The next session's deadline begins anew, also with an earlier one.
	r.Use(9)
	r.lease(time.Second)
	if info, err := r.Status(ctx(t)); err != nil || info.Session != 9 || info.Deadline.Left(now(t)) > time.Second {
		t.Errorf("in the new session: %+v %v", info, err)
	}
}

func TestRunsAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start programs as another user")
	}
	r := startRig(t)
	r.lease(time.Minute)
	r.start(Spec{Name: "a", User: "nobody", Command: sh("id -un; echo home $HOME; exec sleep 100")})
	r.awaitOutput("a", "nobody\nhome ")
}

// A guard that nobody needs any more ends by itself; not before.
func TestIdleGuardEnds(t *testing.T) {
	needNamespaces(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(exe, "run", "-dir", dir, "-idle", "300ms")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	var c *Client
	eventually(t, "the guard to answer", func() bool {
		c, err = Dial(ctx(t), filepath.Join(dir, SocketName))
		return err == nil
	})
	r := &rig{t: t, dir: dir, Client: c}
	c.Use(1)
	d := r.lease(1500 * time.Millisecond)
	r.start(Spec{Name: "a", Command: sh("exec sleep 100")})
	c.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
		if d.Left(now(t)) > 0 {
			t.Error("it ended before its service's lease")
		}
	case <-time.After(long):
		t.Fatal("it stays")
	}
}
