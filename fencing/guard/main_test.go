package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the guard's program, its inits and runners, and the
// fake daemon that some tests kill.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "run", "status", "version", initArg, hookArg:
			os.Exit(Main(os.Args, MainOptions{Version: "test", OpenGate: gateToFile, Delete: deleteToFile}))
		case "fake-daemon":
			os.Exit(fakeDaemon(os.Args[2:]))
		case "kernel-timer":
			_, err := newKernelTimer()
			fmt.Println(os.Getpid(), err)
			os.Exit(0)
		case "beat":
			os.Exit(beat(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

const long = 15 * time.Second // generous limit of a condition that comes soon

// rig is a guard in a process of its own, with a client.
type rig struct {
	t   *testing.T
	dir string
	*Client
}

type rigOption func(*SpawnOptions)

func withoutCgroup(o *SpawnOptions) { o.NoCgroup = true }

// start spawns a guard and sees to it that nothing of it is left.
func startRig(t *testing.T, opts ...rigOption) *rig {
	t.Helper()
	needNamespaces(t)
	r := &rig{t: t, dir: t.TempDir()}
	r.Client = r.spawn(opts...)
	t.Cleanup(r.clean)
	r.Use(7)
	return r
}

func (r *rig) spawn(opts ...rigOption) *Client {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	o := SpawnOptions{Binary: exe, Dir: r.dir}
	for _, f := range opts {
		f(&o)
	}
	c, err := Spawn(context.Background(), o)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(r.dir, "guard.log"))
		r.t.Fatalf("spawn: %v\n%s", err, log)
	}
	return c
}

func (r *rig) clean() {
	pid := r.Pid()
	if r.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(r.dir, "guard.log"))
		r.t.Logf("the guard's log:\n%s", log)
	}
	r.Client.Close()
	st, err := readStat(pid)
	if err == nil && isGuard(pid, r.dir) {
		_ = unix.Kill(pid, unix.SIGKILL)
		eventually(r.t, "the guard's end", func() bool {
			now, err := readStat(pid)
			return err != nil || now.start != st.start || now.state == 'Z'
		})
	}
	if r.info.Cgroup != "" {
		g := openGroup(r.info.Cgroup)
		if g.Exists() {
			if err := clearGroup(g); err != nil {
				r.t.Error(err)
			}
		}
	}
}

func isGuard(pid int, dir string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(b), dir)
}

// lease gives the guard a deadline this far ahead and returns it.
func (r *rig) lease(left time.Duration) Deadline {
	r.t.Helper()
	for end := time.Now().Add(long); ; {
		d := now(r.t).Add(left)
		err := r.Extend(d.Boot, d.Raw)
		if err == nil {
			return d
		}
		// A busy machine may keep even a guard with priority waiting for 50 ms.
		if !errors.Is(err, ErrGuardLost) || r.Err() != nil || time.Now().After(end) {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) start(s Spec) {
	r.t.Helper()
	if err := r.Start(ctx(r.t), s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) unit(name string) (Running, bool) {
	r.t.Helper()
	list, err := r.List(ctx(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, u := range list {
		if u.Name == name {
			return u, true
		}
	}
	return Running{}, false
}

// await waits until a unit is in a state.
func (r *rig) await(name string, state UnitState) Running {
	r.t.Helper()
	var last Running
	eventually(r.t, fmt.Sprintf("%s to be %s", name, state), func() bool {
		last, _ = r.unit(name)
		return last.State == state
	})
	return last
}

func (r *rig) awaitOutput(name, want string) string {
	r.t.Helper()
	var out []byte
	eventually(r.t, fmt.Sprintf("%q in the output of %s", want, name), func() bool {
		out, _ = r.Output(ctx(r.t), name)
		return strings.Contains(string(out), want)
	})
	return string(out)
}

func now(t *testing.T) Deadline {
	t.Helper()
	d, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	return c
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain for %s", long, what)
		}
	}
}

// tree lists the processes below a process, itself included, by the host's IDs.
func tree(root int) []int {
	out := []int{root}
	entries, _ := os.ReadDir("/proc")
	below := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.state != 'Z' && st.state != 'X' {
			below[st.parent] = append(below[st.parent], pid)
		}
	}
	for i := 0; i < len(out); i++ {
		out = append(out, below[out[i]]...)
	}
	return out
}

// obituary tells when the last of some processes died.
type obituary struct {
	fds []int
}

func watchDeaths(t *testing.T, pids []int) *obituary {
	t.Helper()
	o := &obituary{}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatalf("watch process %d: %v", pid, err)
		}
		o.fds = append(o.fds, fd)
	}
	t.Cleanup(func() {
		for _, fd := range o.fds {
			unix.Close(fd)
		}
	})
	return o
}

// last waits for all deaths and returns the clocks right after the last.
func (o *obituary) last(t *testing.T) Deadline {
	t.Helper()
	for _, fd := range o.fds {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(long.Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n != 1 || err != nil {
				t.Fatalf("a process did not die: %v", err)
			}
			break
		}
	}
	return now(t)
}

func (o *obituary) anyDead() bool {
	for _, fd := range o.fds {
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n == 1 {
			return true
		}
	}
	return false
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func (r *rig) deadline() Deadline {
	r.t.Helper()
	info, err := r.Status(ctx(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	return info.Deadline
}
