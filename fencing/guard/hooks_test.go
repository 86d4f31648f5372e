package guard

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hookRig is a guard with a unit of hooks.
func hookRig(t *testing.T, opts ...rigOption) *rig {
	r := startRig(t, opts...)
	r.lease(time.Minute)
	r.start(Spec{Name: "h", Kind: KindHooks, Epoch: 2, StopTimeout: 200 * time.Millisecond})
	return r
}

func (r *rig) hook(label, script string, timeout time.Duration) HookResult {
	r.t.Helper()
	res, err := r.Run(ctx(r.t), Hook{Unit: "h", Start: label == "start", Label: label, Command: sh(script), Timeout: timeout,
		Environment: []string{"FAILOVER_EPOCH=2"}})
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// eachContainment runs a test twice: with a cgroup, and as where there is none.
func eachContainment(t *testing.T, f func(t *testing.T, opts ...rigOption)) {
	t.Run("cgroup", func(t *testing.T) { f(t) })
	t.Run("namespace alone", func(t *testing.T) { f(t, withoutCgroup) })
}

func TestHookResults(t *testing.T) {
	eachContainment(t, func(t *testing.T, opts ...rigOption) {
		r := hookRig(t, opts...)
		for script, want := range map[string]HookResult{
			"echo epoch $FAILOVER_EPOCH": {Known: true, Output: []byte("epoch 2\n")},
			"echo out; echo err >&2":     {Known: true, Output: []byte("out\nerr\n")},
			"exit 7":                     {Known: true, Exit: 7},
			"kill -9 $$":                 {Known: true, Exit: -1, Signal: "SIGKILL"},
		} {
			got := r.hook("status", script, long)
			if got.Known != want.Known || got.Exit != want.Exit || got.Signal != want.Signal || !bytes.Equal(got.Output, want.Output) {
				t.Errorf("%s: %+v, want %+v", script, got, want)
			}
		}
		if _, err := r.Run(ctx(t), Hook{Unit: "h", Label: "x", Command: []string{"/no/such"}, Timeout: long}); !errors.Is(err, ErrStart) {
			t.Errorf("a hook that is not there: %v", err)
		}
		if _, err := r.Run(ctx(t), Hook{Unit: "h", Label: "x", Command: sh("true")}); !errors.Is(err, ErrRefused) {
			t.Errorf("a hook without a timeout: %v", err)
		}
	})
}

// What a start hook leaves behind lives on in the unit, and ends with it.
func TestStartHookLeavesADaemon(t *testing.T) {
	eachContainment(t, func(t *testing.T, opts ...rigOption) {
		r := hookRig(t, opts...)
		pidfile := filepath.Join(r.dir, "pid")
		res := r.hook("start", `(setsid sh -c 'echo $$ > `+pidfile+`.new; mv `+pidfile+`.new `+pidfile+`; exec sleep 1000' &) ; while ! [ -e `+pidfile+` ]; do sleep 0.01; done; echo started`, long)
		if !res.Known || res.Exit != 0 || string(res.Output) != "started\n" {
			t.Fatalf("%+v %s", res, res.Output)
		}
		u := r.await("h", UnitRunning)
		if !u.HookStarted {
			t.Errorf("not shown as started: %+v", u)
		}
		var pids []int
		eventually(t, "the runner's end", func() bool { pids = tree(u.Pid); return len(pids) == 2 })
		// Hooks of the unit see each other's processes by their IDs.
		if res := r.hook("status", "kill -0 $(cat "+pidfile+") && grep -q sleep /proc/$(cat "+pidfile+")/comm", long); !res.Known || res.Exit != 0 {
			t.Errorf("the status hook does not find the daemon: %+v %s", res, res.Output)
		}
		deaths := watchDeaths(t, pids)
		if deaths.anyDead() {
			t.Error("ended with a status hook")
		}
		if err := r.Stop(ctx(t), "h"); err != nil {
			t.Fatal(err)
		}
		if !deaths.anyDead() {
			t.Error("lives after a proven stop")
		}
		deaths.last(t)
	})
}

// FAULTS 21: hooks that hang, fork, ignore TERM and flood. All of the hook is
// killed after its timeout, nothing else is, and the result is unknown.
func TestHookTimeout(t *testing.T) {
	eachContainment(t, func(t *testing.T, opts ...rigOption) {
		r := hookRig(t, opts...)
		if res := r.hook("start", "setsid sleep 1000 & exit 0", long); !res.Known {
			t.Fatalf("%+v", res)
		}
		u := r.await("h", UnitRunning)
		var kept []int
		eventually(t, "the runner's end", func() bool { kept = tree(u.Pid); return len(kept) == 2 })
		keptDeaths := watchDeaths(t, kept)
		for name, script := range map[string]string{
			"hangs":            "exec sleep 1000",
			"ignores TERM":     "trap '' TERM INT HUP; while :; do sleep 1; done",
			"forks and leaves": "(setsid sh -c 'trap \"\" TERM; setsid sleep 1001 & setsid sleep 1002 & wait' &); setsid sleep 1003 & sleep 1004",
			"floods":           "while :; do echo flood flood flood flood flood flood flood; done",
			"forks on and on":  "f() { sleep 0.01; f & f; }; for i in 1 2 3 4 5; do (setsid sleep 1000 &); done; while :; do (setsid sleep 5 &); sleep 0.005; done",
		} {
			labels := []string{"stop"}
			if name == "forks and leaves" {
				labels = append(labels, "start")
			}
			for _, label := range labels {
				t.Run(name+" "+label, func(t *testing.T) {
					began := time.Now()
					res := r.hook(label, script, 300*time.Millisecond)
					if res.Known || !res.TimedOut || !strings.Contains(res.Text, "timeout") {
						t.Errorf("%+v", res)
					}
					if took := time.Since(began); took > 300*time.Millisecond+runnerGrace {
						t.Errorf("took %v", took)
					}
					if len(res.Output) > MaxHookOutput {
						t.Errorf("%d bytes of output", len(res.Output))
					}
					if name == "floods" && (len(res.Output) != MaxHookOutput || res.Cut == 0) {
						t.Errorf("kept %d bytes, cut %d", len(res.Output), res.Cut)
					}
					// Nothing of the hook is left, all of the service is.
					eventually(t, "the end of what the hook started", func() bool { return len(tree(u.Pid)) == len(kept) })
					if keptDeaths.anyDead() {
						t.Error("a part of the service was killed with the hook")
					}
				})
			}
		}
		// The next hook runs as if nothing had been.
		if res := r.hook("status", "exit 0", long); !res.Known || res.Exit != 0 {
			t.Errorf("%+v", res)
		}
	})
}

// Hooks of a unit run one at a time, in order.
func TestHooksRunOneAtATime(t *testing.T) {
	r := hookRig(t)
	file := filepath.Join(r.dir, "order")
	done := make(chan error, 5)
	for range 5 {
		go func() {
			_, err := r.Run(longContext(), Hook{Unit: "h", Label: "status", Timeout: long,
				Command: sh("echo in >> " + file + "; sleep 0.05; echo out >> " + file)})
			done <- err
		}()
	}
	for range 5 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || string(b) != strings.Repeat("in\nout\n", 5) {
		t.Errorf("%q %v", b, err)
	}
}

// Stop and status hooks work without a lease and without a unit; start hooks do not.
func TestHooksWithoutALease(t *testing.T) {
	eachContainment(t, func(t *testing.T, opts ...rigOption) {
		r := startRig(t, opts...)
		if res := r.hook("stop", "setsid sleep 1000 & echo stopped", long); !res.Known || string(res.Output) != "stopped\n" {
			t.Errorf("%+v %s", res, res.Output)
		}
		if u, ok := r.unit("h"); ok {
			t.Errorf("a unit is left: %+v", u)
		}
		if _, err := r.Run(ctx(t), Hook{Unit: "h", Start: true, Label: "start", Command: sh("true"), Timeout: long}); !errors.Is(err, ErrNotFound) {
			t.Errorf("a start hook without a unit: %v", err)
		}
		// The deadline is nothing to them, but to a start hook and all that it left.
		d := r.lease(700 * time.Millisecond)
		r.start(Spec{Name: "h", Kind: KindHooks})
		if res := r.hook("start", "setsid sleep 1000 & exit 0", long); !res.Known {
			t.Fatalf("%+v", res)
		}
		u := r.await("h", UnitRunning)
		deaths := watchDeaths(t, tree(u.Pid))
		deaths.last(t)
		if d.Left(now(t)) > 0 {
			t.Error("ended before the deadline")
		}
		r.await("h", UnitKilled)
		if res := r.hook("status", "exit 3", long); !res.Known || res.Exit != 3 {
			t.Errorf("%+v", res)
		}
	})
}

// A start hook that runs when the deadline comes is killed, and unknown.
func TestDeadlineDuringAHook(t *testing.T) {
	r := startRig(t)
	r.lease(600 * time.Millisecond)
	r.start(Spec{Name: "h", Kind: KindHooks})
	res := r.hook("start", "sleep 1000", long)
	if res.Known || !strings.Contains(res.Text, "deadline") {
		t.Errorf("%+v", res)
	}
	r.await("h", UnitKilled)
}

// A hook that kills its own runner is unknown, and does not hold anything up.
func TestHookKillsItsRunner(t *testing.T) {
	eachContainment(t, func(t *testing.T, opts ...rigOption) {
		r := hookRig(t, opts...)
		res := r.hook("stop", "kill -9 $PPID; sleep 1000", long)
		if res.Known || !strings.Contains(res.Text, "without a word") {
			t.Errorf("%+v", res)
		}
		if err := r.Stop(ctx(t), "h"); err != nil {
			t.Fatal(err)
		}
	})
}

// A stopped runner, and hook, outlive no timeout either.
func TestHookStopsItsRunner(t *testing.T) {
	t.Parallel()
	eachContainment(t, func(t *testing.T, opts ...rigOption) {
		t.Parallel()
		r := hookRig(t, opts...)
		began := time.Now()
		res := r.hook("stop", "kill -STOP $PPID; sleep 1000", 200*time.Millisecond)
		if res.Known || !res.TimedOut {
			t.Errorf("%+v", res)
		}
		if took := time.Since(began); took > runnerGrace+3*time.Second {
			t.Errorf("took %v", took)
		}
		u, _ := r.unit("h")
		eventually(t, "the end of the hook", func() bool {
			st, err := readStat(u.Pid)
			return err != nil || st.state == 'Z' || len(tree(u.Pid)) == 1
		})
	})
}

// Mounts of a hook reach the host where the host shares its own; a process's never do.
func TestMountsStayInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount on the host")
	}
	r := hookRig(t)
	dir := filepath.Join(r.dir, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// A mount of ours that is shared, as all are under systemd.
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	// The unit was made before the mount: another one sees it.
	r.start(Spec{Name: "h2", Kind: KindHooks, ShareMounts: true})
	res, err := r.Run(ctx(t), Hook{Unit: "h2", Start: true, Label: "start", Timeout: long,
		Command: sh("mount -t tmpfs none " + sub + " && touch " + sub + "/seen && mount -t tmpfs none /proc/fs 2>/dev/null; exit 0")})
	if err != nil || !res.Known || res.Exit != 0 {
		t.Fatalf("%+v %s %v", res, res.Output, err)
	}
	if _, err := os.Stat(filepath.Join(sub, "seen")); err != nil {
		t.Errorf("the hook's mount is not seen on the host: %v", err)
	}
	_ = unix.Unmount(sub, unix.MNT_DETACH)
	r.start(Spec{Name: "p", Command: sh("mount -t tmpfs none " + sub + " && touch " + sub + "/inside; echo done; exec sleep 100")})
	r.awaitOutput("p", "done")
	if _, err := os.Stat(filepath.Join(sub, "inside")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process's mount is seen on the host: %v", err)
	}
	// Neither touched the host's /proc.
	if _, err := os.Stat("/proc/" + strconv.Itoa(os.Getpid())); err != nil {
		t.Errorf("the host's /proc: %v", err)
	}
}
