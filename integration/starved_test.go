package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// What profile default is agreed to bear without a move (docs/OPERATING.md).
const (
	agreedLoops = 1  // busy loops of the daemon's own priority for each core
	agreedQuota = 25 // percent of one core, where a quota limits daemon, guard and service together
)

// limits is a control group for the processes of one host, version 1 or 2.
type limits struct {
	dir string
	v2  bool
}

// newLimits makes a control group with the controller, or skips the test where
// this process may not. It is removed when the rig, made later, is gone.
func newLimits(t *testing.T, controller string) limits {
	t.Helper()
	needLab(t)
	v2 := []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
	var l limits
	if fields := " " + strings.Join(strings.Fields(read("/proc/mounts")), " ") + " "; strings.Contains(fields, " /sys/fs/cgroup/"+controller+" cgroup ") {
		l.dir = "/sys/fs/cgroup/" + controller
	}
	for _, root := range v2 {
		if l.dir == "" && strings.Contains(" "+strings.TrimSpace(read(root+"/cgroup.subtree_control"))+" ", " "+controller+" ") {
			l = limits{dir: root, v2: true}
		}
	}
	if l.dir == "" {
		t.Skipf("the controller %s of control groups cannot be had here", controller)
	}
	dir, err := os.MkdirTemp(l.dir, "failoverd-starved-")
	if err != nil {
		t.Skipf("no control group can be made: %v", err)
	}
	l.dir = dir
	t.Cleanup(func() {
		eventually(limitedAnew(t), t, "the removal of the control group", func() error { return os.Remove(dir) })
	})
	return l
}

// limitedAnew gives time for what happens after a test, whose own context has ended.
func limitedAnew(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// enter is the line of a script by which it enters the group.
func (l limits) enter() string { return fmt.Sprintf("echo $$ >%s/cgroup.procs", l.dir) }

func (l limits) set(v1, v2, value string) error {
	name := v1
	if l.v2 {
		name = v2
	}
	return os.WriteFile(filepath.Join(l.dir, name), []byte(value), 0)
}

// processor lets the group have so many percent of one core.
func (l limits) processor(percent int) error {
	if l.v2 {
		return l.set("", "cpu.max", fmt.Sprintf("%d 100000", percent*1000))
	}
	return l.set("cpu.cfs_quota_us", "", strconv.Itoa(percent*1000))
}

// memory gives what the group uses, in bytes.
func (l limits) memory() (int, error) {
	name := "memory.usage_in_bytes"
	if l.v2 {
		name = "memory.current"
	}
	return strconv.Atoi(strings.TrimSpace(read(filepath.Join(l.dir, name))))
}

// TestBusyLoops has programs of the daemon's own priority compete with it for
// every core, as many as profile default is agreed to bear.
func TestBusyLoops(t *testing.T) {
	if !patient() {
		t.Skip("TestEndurance has as many loops, and loss besides; a minute of them alone: set FAILOVERD_LONG")
	}
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default", Every: 10 * time.Millisecond})
	unmoved(ctx, t, r, func(*lab.Host, lab.Status) {
		stop := spin(t, agreedLoops*runtime.NumCPU(), r.Failoverd.Hosts())
		defer stop()
		must(t, lab.Wait(ctx, time.Minute))
	})
}

// TestProcessorQuota gives daemon, guard and service of the holder together the
// part of one core that profile default is agreed to bear.
func TestProcessorQuota(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	group := newLimits(t, "cpu")
	bin, set := wrapped(t, filepath.Join(programs(t), lab.Daemon))
	set("a", group.enter())
	// The client asks now and then: the service's own work is in the quota.
	r := newRig(ctx, t, lab.RigOptions{Profile: "default", Every: 100 * time.Millisecond, Bin: bin})
	if holder, _, err := r.Settled(ctx); err != nil || holder.Name() != "a" {
		must(t, err)
		_, err = r.Failoverd.Switchover(ctx, lab.Service, "a")
		must(t, err)
	}
	if raw := read(filepath.Join(group.dir, "cgroup.procs")); len(strings.Fields(raw)) < 3 {
		t.Fatalf("daemon, guard and service should be in the group: %q", raw)
	}
	unmoved(ctx, t, r, func(holder *lab.Host, _ lab.Status) {
		if holder.Name() != "a" {
			t.Fatalf("%s holds, not the limited one", holder)
		}
		must(t, group.processor(agreedQuota))
		must(t, lab.Wait(ctx, 4*time.Second))
		must(t, group.processor(1000))
	})
}

// TestOutOfMemory takes the memory from the holder's daemon until the kernel
// kills it, and starts it again as its supervisor would: it adopts its service,
// and the client sees nothing.
func TestOutOfMemory(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	group := newLimits(t, "memory")
	bin, set := wrapped(t, filepath.Join(programs(t), lab.Daemon))
	r := newRig(ctx, t, lab.RigOptions{Profile: "default", Bin: bin})
	unmoved(ctx, t, r, func(holder *lab.Host, _ lab.Status) {
		// What a process has already is counted where it was: the daemon has to
		// start in the group. Its guard and its service live on outside.
		set(holder.Name(), group.enter())
		must(t, r.Failoverd.Kill(holder))
		must(t, r.Failoverd.Start(holder))
	})
	unmoved(ctx, t, r, func(holder *lab.Host, _ lab.Status) {
		daemon := r.Failoverd.Daemon(holder)
		used, err := group.memory()
		must(t, err)
		starve(ctx, t, r, group, holder, daemon)
		t.Logf("killed by the kernel; it had %d KiB before", used>>10)
		var exit interface{ Sys() any }
		if err := daemon.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("the daemon ended with %v, want a kill by the kernel", err)
		}
		must(t, group.set("memory.limit_in_bytes", "memory.max", strconv.Itoa(1<<30)))
		must(t, r.Failoverd.Start(holder))
	})
}

// starve takes memory from the group until the daemon is dead.
func starve(ctx context.Context, t *testing.T, r *lab.Rig, group limits, holder *lab.Host, daemon *lab.Running) {
	t.Helper()
	limit, err := group.memory()
	must(t, err)
	for {
		// Version 1 refuses a limit below what it cannot take back, version 2 kills.
		if err := group.set("memory.limit_in_bytes", "memory.max", strconv.Itoa(limit)); err == nil {
			limit -= 1 << 20
		} else if !errors.Is(err, syscall.EBUSY) {
			t.Fatal(err)
		}
		limit = max(limit, 1<<20)
		select {
		case <-daemon.Done():
			return
		case <-ctx.Done():
			t.Fatalf("the daemon lives on with %d KiB", limit>>10)
		case <-time.After(5 * time.Millisecond):
			_, _ = status(ctx, r.Failoverd, holder) // has it do something; it may die of it
		}
	}
}
