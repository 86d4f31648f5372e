package guard

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// sleeper is a process that the test started and a guard may find.
func sleeper(t *testing.T, attr *syscall.SysProcAttr) (pid int, start uint64) {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	st, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, st.start
}

func writeRecord(t *testing.T, dir, name string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := v.(string); ok {
		b = []byte(s)
	}
	if err := os.MkdirAll(filepath.Join(dir, recordDir), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, recordDir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func alive(pid int, start uint64) bool {
	st, err := readStat(pid)
	return err == nil && st.start == start && st.state != 'Z'
}

// A new guard ends what its predecessor recorded, and nothing that only looks like it.
func TestRecordsOfADeadGuard(t *testing.T) {
	dir := t.TempDir()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	left, leftStart := sleeper(t, nil)
	other, otherStart := sleeper(t, nil)
	writeRecord(t, dir, "left.json", record{BootID: boot, Name: "left", Session: 3, Epoch: 4, Pid: left, Start: leftStart})
	writeRecord(t, dir, "reused.json", record{BootID: boot, Name: "reused", Pid: other, Start: otherStart - 1})
	writeRecord(t, dir, "boot.json", record{BootID: "another", Name: "boot", Pid: other, Start: otherStart})
	writeRecord(t, dir, "cut.json", `{"boot_id":"`)
	writeRecord(t, dir, "half.json.new", `{}`)
	g, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	if alive(left, leftStart) {
		t.Error("what the dead guard left is alive")
	}
	if !alive(other, otherStart) {
		t.Error("somebody else's process was killed")
	}
	if said := strings.Join(g.Info().Leftovers, "; "); !strings.Contains(said, "killed left (session 3, epoch 4)") {
		t.Errorf("it says %q", said)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, recordDir)); err != nil || len(entries) != 0 {
		t.Errorf("records left: %v %v", entries, err)
	}
}

// What is in its predecessor's cgroups is ended, wherever these were.
func TestCgroupsOfADeadGuard(t *testing.T) {
	own := needCgroup(t)
	dir := t.TempDir()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	groups, err := openGroups(dir)
	if err != nil {
		t.Fatal(err)
	}
	here, err := groups.Create(groupName("a"))
	if err != nil {
		t.Fatal(err)
	}
	nested, err := here.Create(hookGroupPrefix + "1")
	if err != nil {
		t.Fatal(err)
	}
	// Another guard's directory, as if it had run in another cgroup.
	elsewhere, err := own.Create(groupPrefix + "test-" + filepath.Base(filepath.Dir(dir)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if elsewhere.Exists() {
			_ = clearGroup(elsewhere)
		}
	})
	there, err := elsewhere.Create(groupName("b"))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	var starts []uint64
	for _, c := range []interface {
		OpenDir() (*os.File, error)
	}{nested, there} {
		d, err := c.OpenDir()
		if err != nil {
			t.Fatal(err)
		}
		pid, start := sleeper(t, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())})
		d.Close()
		pids, starts = append(pids, pid), append(starts, start)
	}
	writeRecord(t, dir, "b.json", record{BootID: boot, Name: "b", Pid: 1 << 22, Cgroup: there.Path()})
	g, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range pids {
		if alive(pids[i], starts[i]) {
			t.Errorf("process %d is alive", pids[i])
		}
	}
	if here.Exists() || there.Exists() || elsewhere.Exists() {
		t.Error("a cgroup is left")
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if groups.Exists() {
		t.Error("the guard's own cgroup is left after its end")
	}
}

// A record names a path; only a guard's own kind of group is cleared by it.
func TestRecordDoesNotClearOtherGroups(t *testing.T) {
	own := needCgroup(t)
	top, err := own.Create("not-a-guards-" + filepath.Base(filepath.Dir(t.TempDir())))
	if err != nil {
		t.Fatal(err)
	}
	c, err := top.Create("x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clearGroup(top) })
	d, err := c.OpenDir()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	pid, start := sleeper(t, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())})
	dir := t.TempDir()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	writeRecord(t, dir, "x.json", record{BootID: boot, Name: "x", Pid: 1 << 22, Cgroup: c.Path()})
	g, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if !alive(pid, start) {
		t.Error("a process outside of all guards' groups was killed")
	}
}

func TestEndProcessIsSureOfItsTarget(t *testing.T) {
	pid, start := sleeper(t, nil)
	for _, c := range []struct {
		pid   int
		start uint64
	}{{pid, start + 1}, {0, start}, {-1, start}, {1, 0}, {1 << 22, start}} {
		if was, err := endProcess(c.pid, c.start); was || err != nil {
			t.Errorf("%+v: %v %v", c, was, err)
		}
	}
	if !alive(pid, start) {
		t.Fatal("killed by a wrong identity")
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil { // a stopped one ends as well
		t.Fatal(err)
	}
	if was, err := endProcess(pid, start); !was || err != nil || alive(pid, start) {
		t.Errorf("%v %v", was, err)
	}
	if err := (&records{dir: filepath.Join(t.TempDir(), "no")}).add(Spec{Name: "a"}, &birth{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a record that cannot be written: %v", err)
	}
}
