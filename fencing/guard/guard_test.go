package guard

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func longContext() context.Context {
	c, cancel := context.WithTimeout(context.Background(), long)
	_ = cancel // of the process's life
	return c
}

func TestStartListStop(t *testing.T) {
	for name, opts := range map[string][]rigOption{"cgroup": nil, "namespace alone": {withoutCgroup}} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, opts...)
			if err := r.Start(ctx(t), Spec{Name: "s:web", Epoch: 3, Command: sh("exec sleep 100")}); !errors.Is(err, ErrNoLease) {
				t.Fatalf("started without a lease: %v", err)
			}
			r.lease(time.Minute)
			spec := Spec{
				Name: "s:web", Epoch: 3, Environment: []string{"FAILOVER_EPOCH=3"},
				Command: sh(`echo "epoch $FAILOVER_EPOCH of $0"; exec sleep 100`),
			}
			r.start(spec)
			u := r.await("s:web", UnitRunning)
			if u.Epoch != 3 || u.Session != 7 || !u.Leased || u.Pid == 0 || !u.Proc {
				t.Errorf("listed: %+v", u)
			}
			if (u.Cgroup != "") != (opts == nil && r.Info().Cgroup != "") {
				t.Errorf("cgroup %q", u.Cgroup)
			}
			r.awaitOutput("s:web", "epoch 3 of /bin/sh")
			r.start(spec) // adopted: the same one
			if again := r.await("s:web", UnitRunning); again.Pid != u.Pid {
				t.Errorf("started twice: init %d, then %d", u.Pid, again.Pid)
			}
			spec.Epoch = 4
			if err := r.Start(ctx(t), spec); !errors.Is(err, ErrConflict) {
				t.Errorf("another epoch beside the one that runs: %v", err)
			}
			deaths := watchDeaths(t, tree(u.Pid))
			if err := r.Stop(ctx(t), "s:web"); err != nil {
				t.Fatal(err)
			}
			if !deaths.anyDead() {
				t.Error("Stop said nil before the processes had died")
			}
			deaths.last(t)
			if _, ok := r.unit("s:web"); ok {
				t.Error("still listed after a proven stop")
			}
			if u.Cgroup != "" && openGroup(u.Cgroup).Exists() {
				t.Error("the cgroup is left")
			}
			if err := r.Stop(ctx(t), "s:web"); err != nil {
				t.Errorf("stop of what is stopped: %v", err)
			}
		})
	}
}

func TestStartErrors(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	for name, c := range map[string]struct {
		spec Spec
		want error
		text string
	}{
		"no such program":   {Spec{Name: "a", Command: []string{"/no/such"}}, ErrStart, "/no/such"},
		"not executable":    {Spec{Name: "a", Command: []string{"/etc/passwd"}}, ErrStart, "permission denied"},
		"no such directory": {Spec{Name: "a", Command: sh("true"), Directory: "/no/dir"}, ErrStart, "/no/dir"},
		"no such user":      {Spec{Name: "a", Command: sh("true"), User: "no-such-user"}, ErrRefused, "no-such-user"},
		"relative":          {Spec{Name: "a", Command: []string{"sleep", "1"}}, ErrRefused, "absolute"},
		"empty":             {Spec{Name: "a"}, ErrRefused, "no command"},
		"bad name":          {Spec{Name: "../x", Command: sh("true")}, ErrRefused, "unit name"},
		"bad signal":        {Spec{Name: "a", Command: sh("true"), StopSignal: "KILL"}, ErrRefused, "signal"},
		"another session":   {Spec{Name: "a", Session: 8, Command: sh("true")}, ErrSession, "session"},
		"unknown kind":      {Spec{Name: "a", Kind: "vm", Command: sh("true")}, ErrUnsupported, "vm"},
	} {
		t.Run(name, func(t *testing.T) {
			err := r.Start(ctx(t), c.spec)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
	// And what failed does not stand in the way of a better try.
	r.start(Spec{Name: "a", Command: sh("exec sleep 100")})
	r.await("a", UnitRunning)
}

// Children that ignore TERM, leave session and process group, and forget their parents.
const stubborn = `trap '' TERM HUP INT
setsid sleep 1000 &
setsid sh -c 'setsid sleep 1001 & exec sleep 1002' &
echo up
exec sleep 1003`

func TestStopIsProven(t *testing.T) {
	for name, opts := range map[string][]rigOption{"cgroup": nil, "namespace alone": {withoutCgroup}} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, opts...)
			r.lease(time.Minute)
			r.start(Spec{Name: "a", Command: sh(stubborn), StopTimeout: 300 * time.Millisecond})
			r.awaitOutput("a", "up")
			u := r.await("a", UnitRunning)
			var pids []int
			eventually(t, "all descendants", func() bool { pids = tree(u.Pid); return len(pids) >= 5 })
			deaths := watchDeaths(t, pids)
			began := time.Now()
			if err := r.Stop(ctx(t), "a"); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < 250*time.Millisecond {
				t.Errorf("killed after %v, before its stop timeout", took)
			}
			for i, fd := range deaths.fds {
				if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n != 1 {
					t.Errorf("process %d lives after a proven stop", pids[i])
				}
			}
		})
	}
}

func TestStopSignalReachesProgramThenTheRest(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	// The shell dies of USR1 by default; its child writes that it got the signal afterwards.
	r.start(Spec{Name: "a", StopSignal: "USR1", StopTimeout: long, Command: sh(
		`sh -c 'trap "echo child got it; exit" USR1; echo up; while :; do sleep 0.01; done' & wait`)})
	r.awaitOutput("a", "up")
	if err := r.Stop(ctx(t), "a"); err != nil {
		t.Fatal(err)
	}
	r.awaitOutput("a", "child got it")
}

func TestSecondGuardIsRefused(t *testing.T) {
	r := startRig(t)
	_, err := New(Options{Dir: r.dir})
	if !errors.Is(err, ErrTaken) {
		t.Fatalf("a second guard: %v", err)
	}
	again := r.spawn() // connects to the first
	defer again.Close()
	if again.Pid() != r.Pid() {
		t.Errorf("a second guard was started: %d beside %d", again.Pid(), r.Pid())
	}
}

func TestDetached(t *testing.T) {
	r := startRig(t)
	pid := r.Pid()
	sid, err := unix.Getsid(pid)
	if err != nil {
		t.Fatal(err)
	}
	if sid != pid {
		t.Errorf("session %d, want its own, %d", sid, pid)
	}
	if st, err := readStat(pid); err != nil || st.parent == os.Getpid() {
		t.Errorf("the guard is our child: %+v %v", st, err)
	}
	fi, err := os.Stat(filepath.Join(r.dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v", fi.Mode())
	}
}

// Namespaces that follow each other do not share process IDs: a stale file
// with one names nobody.
func TestProcessIDsOfTheNextLifeAreOthers(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	seen := map[string]bool{}
	for range 5 {
		r.start(Spec{Name: "a", Command: sh("echo pid $$.; exec sleep 100")})
		var pid string
		eventually(t, "its ID", func() bool {
			out, _ := r.Output(ctx(t), "a")
			last := string(out[strings.LastIndex(string(out), "pid ")+1:])
			pid, _, _ = strings.Cut(last, ".")
			return strings.HasSuffix(string(out), ".\n") && !seen[pid]
		})
		seen[pid] = true
		if err := r.Stop(ctx(t), "a"); err != nil {
			t.Fatal(err)
		}
	}
}
