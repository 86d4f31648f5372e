package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/service"
)

var _ GuardPort = (*guard.Client)(nil)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "run", "init", "hook":
			os.Exit(guard.Main(os.Args, guard.MainOptions{Version: "test"}))
		}
	}
	os.Exit(m.Run())
}

const long = 15 * time.Second

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	return c
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func newGuard(t *testing.T) *guard.Client {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := guard.Spawn(ctx(t), guard.SpawnOptions{Binary: exe, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endGuard(t, c) })
	c.Use(1)
	extend(t, c, time.Minute)
	return c
}

func endGuard(t *testing.T, c *guard.Client) {
	pid := c.Pid()
	c.Close()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(long.Milliseconds())); n != 1 {
		t.Errorf("the guard does not end: %v", err)
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

func extend(t *testing.T, c *guard.Client, left time.Duration) {
	t.Helper()
	var err error
	eventually(t, "the guard to take a deadline", func() bool {
		var d guard.Deadline
		if d, err = guard.Now(); err != nil {
			t.Fatal(err)
		}
		d = d.Add(left)
		err = c.Extend(d.Boot, d.Raw)
		return err == nil || !errors.Is(err, guard.ErrGuardLost)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a directory of hooks and the resource that uses them.
type rig struct {
	t     *testing.T
	dir   string
	guard *guard.Client
	trap  string // what the daemon of daemonHooks does about signals
}

func newRig(t *testing.T) *rig {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, dir: dir, guard: newGuard(t)}
}

// hook writes a script and returns its path.
func (r *rig) hook(name, script string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) read(name string) string {
	b, _ := os.ReadFile(r.path(name))
	return string(b)
}

func (r *rig) options() Options {
	return Options{
		Name: "db", Guard: r.guard, Allowed: []string{r.dir},
		Origin:       service.Origin{Service: "erp", Node: "a", Epoch: 9, Previous: "b", Reason: "asked", Proof: "released"},
		Start:        []string{r.path("start"), "with", "arguments"},
		Stop:         []string{r.path("stop")},
		Status:       []string{r.path("status")},
		StartTimeout: 5 * time.Second, StopTimeout: 5 * time.Second, StatusTimeout: 5 * time.Second,
	}
}

func (r *rig) hooks(o Options) *Hooks {
	r.t.Helper()
	h, err := New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// daemonHooks start something that goes on by itself, and find it again.
func (r *rig) daemonHooks() {
	r.hook("start", fmt.Sprintf(`cd %s; echo "start $* $FAILOVER_SERVICE $FAILOVER_EPOCH $FAILOVER_NODE $FAILOVER_PREVIOUS $FAILOVER_REASON $FAILOVER_PROOF $FAILOVER_ACTION" >> log
(setsid sh -c 'echo $$ > pid.new; mv pid.new pid; %s while :; do date +%%s%%N > beat.new; mv beat.new beat; sleep 0.01; done' >/dev/null 2>&1 &)
while ! [ -e pid ]; do sleep 0.01; done`, r.dir, r.trap))
	r.hook("stop", fmt.Sprintf(`cd %s; echo "stop $FAILOVER_EPOCH" >> log; [ -e pid ] && kill -9 $(cat pid) 2>/dev/null; rm -f pid; exit 0`, r.dir))
	r.hook("status", fmt.Sprintf(`cd %s; [ -e pid ] && kill -0 $(cat pid) 2>/dev/null && exit 0; exit 7`, r.dir))
}

// beats reports whether what the start hook left is running.
func (r *rig) beats() bool {
	first := r.read("beat")
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if r.read("beat") != first {
			return true
		}
	}
	return false
}

func TestLife(t *testing.T) {
	r := newRig(t)
	r.daemonHooks()
	h := r.hooks(r.options())
	if running, err := h.Running(ctx(t)); running || err != nil {
		t.Errorf("before the start: %v %v", running, err)
	}
	if err := h.Start(ctx(t), 3); err != nil {
		t.Fatal(err)
	}
	if running, err := h.Running(ctx(t)); !running || err != nil {
		t.Errorf("started: %v %v", running, err)
	}
	if !r.beats() {
		t.Error("what the start hook left does not run")
	}
	// Idempotent, and found by the next daemon.
	next := r.hooks(r.options())
	if err := next.Adopt(ctx(t), 3); err != nil {
		t.Error(err)
	}
	if err := next.Start(ctx(t), 3); err != nil {
		t.Error(err)
	}
	if err := next.Adopt(ctx(t), 4); !errors.Is(err, ErrOtherEpoch) {
		t.Errorf("adopted under another epoch: %v", err)
	}
	if err := r.hooks(r.options()).Start(ctx(t), 4); !errors.Is(err, ErrOtherEpoch) {
		t.Errorf("started under another epoch: %v", err)
	}
	if got, want := r.read("log"), "start with arguments erp 3 a b asked released start\n"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
	if err := h.Stop(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if r.beats() {
		t.Error("runs after a proven stop")
	}
	if err := h.Stop(ctx(t)); err != nil {
		t.Errorf("stopped twice: %v", err)
	}
	if list, err := r.guard.List(ctx(t)); err != nil || len(list) != 0 {
		t.Errorf("left with the guard: %+v %v", list, err)
	}
	// A stop by a daemon that has not started it names the epoch it was built for.
	if err := r.hooks(r.options()).Stop(ctx(t)); err != nil || !strings.HasSuffix(r.read("log"), "stop 9\n") {
		t.Errorf("%v, log %q", err, r.read("log"))
	}
}

// What a stop hook forgets goes with the unit.
func TestStopEndsWhatTheHookForgot(t *testing.T) {
	r := newRig(t)
	r.trap = `trap "" TERM;`
	r.daemonHooks()
	r.hook("stop", "exit 0")
	h := r.hooks(r.options())
	if err := h.Start(ctx(t), 1); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := h.Stop(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if r.beats() {
		t.Error("it runs")
	}
	t.Logf("proven stopped after %v; what is left has %v to heed a TERM", time.Since(began), leaveTimeout)
}

func TestStatusCodes(t *testing.T) {
	r := newRig(t)
	r.daemonHooks()
	h := r.hooks(r.options())
	for code, want := range map[int]string{0: "true", 3: "false", 7: "false", 1: "unknown", 2: "unknown", 4: "unknown", 8: "unknown", 127: "unknown"} {
		r.hook("status", fmt.Sprintf("exit %d", code))
		running, err := h.Running(ctx(t))
		got := fmt.Sprint(running)
		if err != nil {
			got = "unknown"
			if !errors.Is(err, ErrUnknown) || running {
				t.Errorf("exit %d: %v %v", code, running, err)
			}
		}
		if got != want {
			t.Errorf("exit %d: %s, want %s", code, got, want)
		}
	}
	r.hook("status", "kill -9 $$")
	if _, err := h.Running(ctx(t)); !errors.Is(err, ErrUnknown) {
		t.Errorf("killed by a signal: %v", err)
	}
	// Without a status hook only what was seen is known.
	o := r.options()
	o.Status = nil
	h = r.hooks(o)
	if _, err := h.Running(ctx(t)); !errors.Is(err, ErrUnknown) {
		t.Errorf("never started, no status hook: %v", err)
	}
	if err := h.Start(ctx(t), 1); err != nil {
		t.Fatal(err)
	}
	if running, err := h.Running(ctx(t)); !running || err != nil {
		t.Errorf("started, no status hook: %v %v", running, err)
	}
}

func TestFailures(t *testing.T) {
	r := newRig(t)
	r.daemonHooks()
	o := r.options()
	o.StartTimeout, o.StopTimeout, o.StatusTimeout = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	h := r.hooks(o)

	r.hook("start", "echo no licence; exit 5")
	if err := h.Start(ctx(t), 1); !errors.Is(err, ErrHook) || !strings.Contains(err.Error(), "no licence") {
		t.Errorf("a start that fails: %v", err)
	}
	r.hook("start", "echo so far; trap '' TERM; sleep 1000")
	if err := h.Start(ctx(t), 1); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "so far") {
		t.Errorf("a start that hangs: %v", err)
	}
	r.daemonHooks()
	if err := h.Start(ctx(t), 1); err != nil {
		t.Fatal(err)
	}
	// A stop that fails or hangs proves nothing, and does not kill behind the user's back.
	r.hook("stop", "echo busy; exit 1")
	if err := h.Stop(ctx(t)); !errors.Is(err, ErrHook) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a stop that fails: %v", err)
	}
	r.hook("stop", "while :; do echo flood; done")
	if err := h.Stop(ctx(t)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a stop that hangs: %v", err)
	}
	if !r.beats() {
		t.Error("ended by a stop that failed")
	}
	// A stop that lies is found out by the status hook.
	r.hook("stop", "exit 0")
	r.hook("status", "exit 0")
	if err := h.Stop(ctx(t)); !errors.Is(err, ErrStillRuns) {
		t.Errorf("a stop that lies: %v", err)
	}
	r.hook("status", "exit 1")
	if err := h.Stop(ctx(t)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a stop whose status is unknown: %v", err)
	}
	r.hook("status", "exit 3")
	if err := h.Stop(ctx(t)); err != nil {
		t.Errorf("a stop that all agree on: %v", err)
	}
}

// At the deadline everything in the unit ends; a stop works afterwards.
func TestDeadline(t *testing.T) {
	r := newRig(t)
	r.daemonHooks()
	h := r.hooks(r.options())
	if err := h.Start(ctx(t), 1); err != nil {
		t.Fatal(err)
	}
	// A shorter deadline needs another session, and that a release.
	if err := h.Stop(ctx(t)); err != nil {
		t.Fatal(err)
	}
	r.guard.Use(2)
	extend(t, r.guard, 1500*time.Millisecond)
	if err := h.Start(ctx(t), 2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deadline", func() bool {
		list, err := r.guard.List(ctx(t))
		return err == nil && len(list) == 1 && list[0].State == guard.UnitKilled
	})
	if r.beats() {
		t.Error("it runs after the deadline")
	}
	if err := h.Start(ctx(t), 2); !errors.Is(err, guard.ErrNoLease) {
		t.Errorf("started without a lease: %v", err)
	}
	if running, err := h.Running(ctx(t)); running || err != nil {
		t.Errorf("after the deadline: %v %v", running, err)
	}
	if err := h.Stop(ctx(t)); err != nil {
		t.Errorf("stop without a lease: %v", err)
	}
}

func TestAllowed(t *testing.T) {
	base := t.TempDir()
	dir, other := filepath.Join(base, "hooks"), filepath.Join(base, "other")
	for _, d := range []string{dir, other, filepath.Join(dir, "sub"), filepath.Join(dir, "open")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	file := func(path string, mode os.FileMode) {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, path string) {
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	file(filepath.Join(dir, "good"), 0o755)
	file(filepath.Join(dir, "sub", "good"), 0o700)
	file(filepath.Join(dir, "open", "swap"), 0o755)
	file(filepath.Join(dir, "everybody"), 0o757)
	file(filepath.Join(dir, "plain"), 0o644)
	file(filepath.Join(other, "elsewhere"), 0o755)
	file(filepath.Join(base, "hooks-evil"), 0o755)
	link(filepath.Join(other, "elsewhere"), filepath.Join(dir, "out"))
	link(filepath.Join(dir, "good"), filepath.Join(other, "in"))
	link(dir, filepath.Join(base, "linked"))
	allow := []string{filepath.Join(base, "linked"), "/nowhere", "relative"}
	for path, ok := range map[string]bool{
		dir + "/good": true, dir + "/sub/good": true, other + "/in": true, base + "/linked/good": true, dir + "/../hooks/good": true,
		dir + "/out": false, other + "/elsewhere": false, base + "/hooks-evil": false, dir + "/everybody": false, dir + "/plain": false,
		dir + "/open/swap": false, dir + "/missing": false, dir: false, dir + "/sub": false, "good": false, "": false, "/bin/sh": false,
		dir + "/../other/elsewhere": false,
	} {
		real, err := allowed(path, allow)
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: %v, want allowed %v", path, err, ok)
		}
		if ok && !strings.HasPrefix(real, dir) {
			t.Errorf("%s: real path %s", path, real)
		}
	}
	if os.Geteuid() == 0 {
		file(filepath.Join(dir, "foreign"), 0o755)
		if err := os.Chown(filepath.Join(dir, "foreign"), 65534, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := allowed(filepath.Join(dir, "foreign"), allow); !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), "65534") {
			t.Errorf("another user's: %v", err)
		}
	}
}

func TestNothingRunsThatIsNotAllowed(t *testing.T) {
	r := newRig(t)
	r.daemonHooks()
	o := r.options()
	o.Allowed = []string{filepath.Join(r.dir, "sub")}
	h := r.hooks(o)
	if err := h.Check(); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("check: %v", err)
	}
	if err := h.Start(ctx(t), 1); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("start: %v", err)
	}
	if err := h.Stop(ctx(t)); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("stop: %v", err)
	}
	if _, err := h.Running(ctx(t)); !errors.Is(err, ErrUnknown) || !errors.Is(err, ErrNotAllowed) {
		t.Errorf("running: %v", err)
	}
	if r.read("log") != "" {
		t.Errorf("run all the same: %q", r.read("log"))
	}
}
