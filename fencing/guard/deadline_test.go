package guard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/service/cgroup"
)

func TestDeadlineOfAGuardThatRuns(t *testing.T) {
	for name, opts := range map[string][]rigOption{"cgroup": nil, "namespace alone": {withoutCgroup}} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, opts...)
			gate, iface := filepath.Join(r.dir, "gate"), filepath.Join(r.dir, "iface")
			if err := r.SetGates(ctx(t), []Gate{{Table: gate, Addresses: []Address{{CIDR: "192.0.2.1/32", Interface: iface}}}}); err != nil {
				t.Fatal(err)
			}
			r.lease(long)
			r.serve("a", "b")
			// A new session only when nothing runs; the same one moves forwards only.
			if err := r.lease1(8, time.Second); !errors.Is(err, ErrSession) {
				t.Fatalf("another session beside running services: %v", err)
			}
			r.clean2(t, "a", "b")
			r.Use(8)
			served, d := r.serveUnder(700*time.Millisecond, "a", "b")
			r.lease(5 * time.Millisecond) // never backwards
			served.check("a guard that runs", d, 0)

			for _, name := range []string{"a", "b"} {
				if u := r.await(name, UnitKilled); u.Pid != 0 {
					t.Errorf("killed, but shown with %+v", u)
				}
			}
			if r.Err() != nil {
				t.Errorf("the guard did not survive: %v", r.Err())
			}
			shut, deleted := lines(t, gate), lines(t, iface)
			if len(shut) != 1 || len(deleted) != 1 || !strings.HasPrefix(shut[0], "shut 1 ") || !strings.HasPrefix(deleted[0], "delete 192.0.2.1/32 ") {
				t.Fatalf("gate %q, address %q", shut, deleted)
			}
			if at := stamp(t, shut[0]); at < d.Boot || at > d.Boot+20*time.Millisecond {
				t.Errorf("gate shut %v after the deadline", at-d.Boot)
			}
			if stamp(t, deleted[0]) < stamp(t, shut[0]) {
				t.Error("address deleted before the gate was shut")
			}
			if err := r.Start(ctx(t), Spec{Name: "c", Command: sh("exec sleep 1")}); !errors.Is(err, ErrNoLease) {
				t.Errorf("started after the deadline: %v", err)
			}
			// A lapse is not final: the same session resumes.
			r.lease(long)
			r.serve("a")
		})
	}
}

func (r *rig) lease1(session uint64, left time.Duration) error {
	d := now(r.t).Add(left)
	old := r.session.Load()
	defer r.Use(old)
	r.Use(session)
	return r.Extend(d.Boot, d.Raw)
}

func (r *rig) clean2(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := r.Kill(ctx(t), n); err != nil {
			t.Fatal(err)
		}
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	eventually(t, path, func() bool {
		b, _ := os.ReadFile(path)
		out = strings.Split(strings.TrimSpace(string(b)), "\n")
		return strings.HasSuffix(string(b), "\n")
	})
	return out
}

func stamp(t *testing.T, line string) time.Duration {
	t.Helper()
	n, err := strconv.ParseInt(line[strings.LastIndexByte(line, ' ')+1:], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n)
}

// The kernel ends what a guard that cannot run supervises.
func TestDeadlineOfAGuardThatIsStopped(t *testing.T) {
	for name, opts := range map[string][]rigOption{"cgroup": nil, "namespace alone": {withoutCgroup}} {
		for i := range 3 {
			t.Run(fmt.Sprintf("%s %d", name, i), func(t *testing.T) {
				r := startRig(t, opts...)
				served, d := r.serveUnder(stopLease, "a", "b")
				if err := unix.Kill(r.Pid(), unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				served.check("SIGSTOP of the guard", d, earlyStop)
				<-r.Lost()
				if err := r.Extend(d.Boot, d.Raw); !errors.Is(err, ErrGuardLost) {
					t.Errorf("extended by a dead guard: %v", err)
				}
			})
		}
	}
}

// The lease of the tests that stop the guard, and how much before its end the
// kernel may end everything: a tenth of what was left when its timer was armed,
// since the clock may be slewed by so much.
const (
	stopLease = 800 * time.Millisecond
	earlyStop = stopLease / 10
)

func TestDeadlineOfAGuardInAFrozenCgroup(t *testing.T) {
	own := needCgroup(t)
	for i := range 3 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			r := startRig(t)
			g, err := own.Create(fmt.Sprintf("failover-test-%d-%d", os.Getpid(), i))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := clearGroup(g); err != nil {
					t.Error(err)
				}
			}()
			if err := g.Add(r.Pid()); err != nil {
				t.Fatal(err)
			}
			served, d := r.serveUnder(stopLease, "a", "b")
			if err := g.Freeze(true); err != nil {
				t.Fatal(err)
			}
			awaitFrozen(t, g)
			served.check("frozen cgroup of the guard", d, earlyStop)
		})
	}
}

func awaitFrozen(t *testing.T, g *cgroup.Group) {
	t.Helper()
	eventually(t, "the cgroup to freeze", func() bool {
		b, err := os.ReadFile(filepath.Join(g.Path(), "cgroup.events"))
		return err == nil && strings.Contains(string(b), "frozen 1")
	})
}

// The guard and its services frozen together, and the services' inits stopped
// as well: SIGKILL needs none of them to run.
func TestDeadlineOfEverythingStopped(t *testing.T) {
	r := startRig(t)
	served, d := r.serveUnder(stopLease, "a")
	for _, pid := range append(tree(r.await("a", UnitRunning).Pid), r.Pid()) {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	served.check("SIGSTOP of all", d, stopLease)
}

// Busy processors delay neither a guard that runs nor the end of one that is
// stopped, where it may have priority.
func TestDeadlineWithBusyProcessors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may have priority")
	}
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("/bin/sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
		runtime.LockOSThread() // the signal comes with the end of this thread
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
	}
	r := startRig(t)
	served, d := r.serveUnder(stopLease, "a")
	served.check("a guard that runs, processors busy", d, 0)
	served, d = r.serveUnder(stopLease, "a")
	if err := unix.Kill(r.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	served.check("SIGSTOP of the guard, processors busy", d, earlyStop)
}

// A gate that hangs holds nothing up.
func TestGateThatHangs(t *testing.T) {
	needNamespaces(t)
	release := make(chan struct{})
	g, err := New(Options{Dir: t.TempDir(), OpenGate: func(string) (Shutter, error) { return hungGate{release}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		close(release)
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	// Not the test's process is to be killed should the guard be late.
	g.lease.timer.close()
	g.lease.timer = nil
	if err := g.SetGates([]Gate{{Table: "x"}}); err != nil {
		t.Fatal(err)
	}
	d := now(t).Add(time.Second)
	if err := g.Extend(1, d); err != nil {
		t.Fatal(err)
	}
	u, _, err := g.Start(ctx(t), Spec{Name: "a", Session: 1, Command: sh("exec sleep 1000")})
	if err != nil {
		t.Fatal(err)
	}
	gone := watchDeaths(t, []int{u.Pid}).last(t)
	if late := -d.Left(gone); late < 0 || late > time.Second {
		t.Errorf("ended %v after the deadline", late)
	}
}

type hungGate struct{ release chan struct{} }

func (h hungGate) Shut([]Address) error { <-h.release; return nil }
func (h hungGate) Close() error         { return nil }

// A guard that died anyway says so: as PID 1 it could not be killed by its timer.
func TestKernelTimerRefusesToServePID1(t *testing.T) {
	needNamespaces(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "kernel-timer")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "1 ") || !strings.Contains(string(out), "PID 1") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestSpawnSaysWhyNot(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    SpawnOptions
		text string
	}{
		"no program":   {SpawnOptions{Binary: "/no/such/failoverguard", Dir: t.TempDir()}, "/no/such/failoverguard"},
		"no directory": {SpawnOptions{Binary: exe, Dir: filepath.Join(file, "dir")}, "not a directory"},
		"no log":       {SpawnOptions{Binary: exe, Dir: t.TempDir(), Log: filepath.Join(file, "log")}, "log"},
	} {
		began := time.Now()
		_, err := Spawn(ctx(t), c.o)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// A guard that dies takes everything with it at once.
func TestKillOfTheGuard(t *testing.T) {
	for name, opts := range map[string][]rigOption{"cgroup": nil, "namespace alone": {withoutCgroup}} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, opts...)
			r.lease(long)
			served := r.serve("a")
			killed := now(t)
			if err := unix.Kill(r.Pid(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			served.check("SIGKILL of the guard", killed, 0)
			<-r.Lost()
			if r.Alive() || !errors.Is(r.Err(), ErrGuardLost) {
				t.Errorf("alive %v, error %v", r.Alive(), r.Err())
			}
			// The next one begins with nothing, and says what it found.
			r.Client.Close()
			r.Client = r.spawn(opts...)
			if len(r.Info().Leftovers) == 0 || !strings.Contains(r.Info().Leftovers[0], "a (session 7, epoch 0)") {
				t.Errorf("leftovers: %q", r.Info().Leftovers)
			}
			if left := r.Info().Cgroup; left != "" {
				if c, err := openGroup(left).Children(); err != nil || len(c) != 0 {
					t.Errorf("cgroups left: %v %v", c, err)
				}
			}
			list, err := r.List(ctx(t))
			if err != nil || len(list) != 0 {
				t.Errorf("a new guard supervises %v, %v", list, err)
			}
		})
	}
}

func TestSpawnReplacesAFrozenGuard(t *testing.T) {
	t.Parallel()
	r := startRig(t)
	old := r.Pid()
	stop(t, old)
	began := time.Now()
	if err := r.Extend(int64Deadline(t)); !errors.Is(err, ErrGuardLost) {
		t.Errorf("extended by a stopped guard: %v", err)
	}
	if took := time.Since(began); took > 4*extendWithin {
		t.Errorf("it took %v to find out", took)
	}
	eventually(t, "the silence to be noticed", func() bool { return !r.Alive() })
	<-r.Lost()
	r.Client.Close()
	r.Client = r.spawn()
	if r.Pid() == old {
		t.Error("connected to the guard that does not answer")
	}
}

// stop stops a process and waits until it has.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process to stop", func() bool {
		st, err := readStat(pid)
		return err == nil && st.state == 'T'
	})
}

func int64Deadline(t *testing.T) (boot, raw time.Duration) {
	d := now(t).Add(time.Minute)
	return d.Boot, d.Raw
}
