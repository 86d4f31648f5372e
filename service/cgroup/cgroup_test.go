package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const long = 10 * time.Second

// newGroup makes a group for a test and clears it afterwards.
func newGroup(t *testing.T) *Group {
	t.Helper()
	own, err := Own()
	if err == nil {
		err = own.Writable()
	}
	if err != nil {
		t.Skipf("%v; run as root on a host with cgroup v2", err)
	}
	g, err := own.Create(fmt.Sprintf("failover-cgroup-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		if err := g.Clear(ctx); err != nil {
			t.Error(err)
		}
	})
	return g
}

// run starts a script that is born into the group.
func run(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	dir, err := g.OpenDir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	return cmd
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

const descendants = `trap '' TERM
setsid sleep 1000 &
(setsid sh -c 'setsid sleep 1001 & sleep 1002' &)
exec sleep 1003`

func count(t *testing.T, g *Group) int {
	t.Helper()
	pids, err := g.allProcs()
	if err != nil {
		t.Fatal(err)
	}
	return len(pids)
}

func TestKillTakesAllAndEmptyProvesIt(t *testing.T) {
	for name, kill := range map[string]func(*Group) error{"cgroup.kill": (*Group).Kill, "one by one": (*Group).killEach} {
		for _, frozen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, frozen %v", name, frozen), func(t *testing.T) {
				top := newGroup(t)
				g, err := top.Create("unit")
				if err != nil {
					t.Fatal(err)
				}
				nested, err := g.Create("hook-1")
				if err != nil {
					t.Fatal(err)
				}
				if empty, err := g.Empty(); !empty || err != nil {
					t.Fatalf("new and not empty: %v %v", empty, err)
				}
				run(t, g, descendants)
				run(t, nested, descendants)
				eventually(t, "all descendants", func() bool { return count(t, g) == 10 })
				if empty, err := top.Empty(); empty || err != nil {
					t.Fatalf("the top does not see what lives below: %v %v", empty, err)
				}
				if err := g.Remove(); !errors.Is(err, ErrPopulated) {
					t.Fatalf("removed while populated: %v", err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
				err = g.WaitEmpty(ctx)
				cancel()
				if !errors.Is(err, ErrPopulated) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "(s") {
					t.Fatalf("waited for what lives: %v", err)
				}
				if frozen {
					if err := g.Freeze(true); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				if err := kill(g); err != nil {
					t.Fatal(err)
				}
				ctx, cancel = context.WithTimeout(context.Background(), long)
				defer cancel()
				if err := g.WaitEmpty(ctx); err != nil {
					t.Fatal(err)
				}
				t.Logf("killed and empty after %v", time.Since(began))
				if err := g.Remove(); err != nil {
					t.Fatal(err)
				}
				if g.Exists() || nested.Exists() {
					t.Error("a directory is left")
				}
			})
		}
	}
}

func TestClearOfWhatForks(t *testing.T) {
	top := newGroup(t)
	g, err := top.Create("bomb")
	if err != nil {
		t.Fatal(err)
	}
	run(t, g, "while :; do (setsid sleep 100 &); (setsid sleep 100 &); done")
	eventually(t, "some forks", func() bool { return count(t, g) > 30 })
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	if err := g.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	if g.Exists() {
		t.Error("it is left")
	}
}

// Everything that is gone already is as it should be.
func TestGone(t *testing.T) {
	g := newGroup(t).Child("never")
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	if empty, err := g.Empty(); !empty || err != nil {
		t.Errorf("Empty: %v %v", empty, err)
	}
	for name, err := range map[string]error{"Kill": g.Kill(), "WaitEmpty": g.WaitEmpty(ctx), "Remove": g.Remove(), "Clear": g.Clear(ctx)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.OpenDir(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenDir: %v", err)
	}
}

func TestMove(t *testing.T) {
	top := newGroup(t)
	a, err := top.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := top.Create("b")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := top.Create("a"); err != nil || again.Path() != a.Path() {
		t.Errorf("made twice: %v", err)
	}
	cmd := run(t, a, "exec sleep 1000")
	if err := b.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if pids, err := b.Procs(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("%v %v", pids, err)
	}
	if empty, err := a.Empty(); !empty || err != nil {
		t.Errorf("left behind: %v %v", empty, err)
	}
	children, err := top.Children()
	if err != nil || len(children) != 2 {
		t.Errorf("%v %v", children, err)
	}
}

func TestNames(t *testing.T) {
	g := Open(t.TempDir())
	for _, bad := range []string{"", ".", "..", "a/b", "a\nb", "cgroup.kill", strings.Repeat("x", 256)} {
		if _, err := g.Create(bad); err == nil {
			t.Errorf("made %q", bad)
		}
	}
	if c, err := g.Create("unit-a:b%20"); err != nil || filepath.Dir(c.Path()) != g.Path() {
		t.Errorf("%v %v", c, err)
	}
}

func TestParseMountinfo(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want mount
	}{
		"hybrid": {`23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:10 master:1 - cgroup2 cgroup2 rw,nsdelegate
`, mount{"/", "/sys/fs/cgroup/unified"}},
		"part, with a space": {`41 31 0:38 /docker/abc /a\040b rw - cgroup2 c rw` + "\n", mount{"/docker/abc", "/a b"}},
	} {
		got, err := parseMountinfo(strings.NewReader(c.text))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v %v, want %+v", name, got, err, c.want)
		}
	}
	for _, none := range []string{"", "23 27 0:22 / /sys rw - sysfs sysfs rw\n", "nonsense\n - cgroup2\n"} {
		if _, err := parseMountinfo(strings.NewReader(none)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%q: %v", none, err)
		}
	}
}

func TestOwnPath(t *testing.T) {
	got, err := ownPath(strings.NewReader("9:name=systemd:/\n1:cpu:/\n0::/system.slice/failoverd.service\n"))
	if err != nil || got != "/system.slice/failoverd.service" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := ownPath(strings.NewReader("1:cpu:/\n")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("version 1 alone: %v", err)
	}
}

func TestWritableSaysWhyNot(t *testing.T) {
	if err := Open(filepath.Join(t.TempDir(), "no")).Writable(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
	if err := Open(t.TempDir()).Writable(); err != nil {
		t.Errorf("a directory that can be written: %v", err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\040b`: "a b", `\134`: `\`, `a\0`: `a\0`, `a\999`: `a\999`, "": ""} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
