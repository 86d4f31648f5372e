package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// victimVariable makes this test program build a lab, say where it is, and
// wait to be killed.
const victimVariable = "FAILOVERD_LAB_TEST_VICTIM"

func victim() {
	if denial != nil {
		fmt.Println("denied", denial)
		os.Exit(0)
	}
	l, err := New(Options{Hosts: []string{"a", "b"}})
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	pids := []string{strconv.Itoa(os.Getpid())}
	for _, h := range l.Hosts() {
		r, err := h.Start(exec.Command("/bin/sleep", "1000"))
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		pids = append(pids, strconv.Itoa(h.Pid()), strconv.Itoa(r.Pid()))
	}
	fmt.Println("up", l.Dir(), strings.Join(pids, " "))
	select {}
}

// TestNothingIsLeftBehindByAKilledLab kills a program that runs a lab, as root
// and as an ordinary user, and looks for whatever it made.
func TestNothingIsLeftBehindByAKilledLab(t *testing.T) {
	if denial != nil {
		t.Skip(denial)
	}
	users := map[string]*syscall.Credential{"this user": nil}
	if os.Geteuid() == 0 && !Inner() {
		users["an ordinary user"] = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	for name, user := range users {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM} {
			t.Run(name+", "+signal.String(), func(t *testing.T) {
				killedLabLeavesNothing(t, user, signal)
			})
		}
	}
}

func killedLabLeavesNothing(t *testing.T, user *syscall.Credential, signal syscall.Signal) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimVariable+"=1")
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	// A group of its own, so that the signal reaches what a terminal's would.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	fields := strings.Fields(line)
	switch fields[0] {
	case "denied":
		t.Skip(line)
	case "up":
	default:
		t.Fatal(line)
	}
	dir := fields[1]
	target := cmd.Process.Pid
	if signal == syscall.SIGINT {
		target = -target // the terminal signals the whole group
	}
	must(t, syscall.Kill(target, signal))
	_ = cmd.Wait() // killed, as it should
	var pids []int
	for _, field := range fields[2:] {
		pid, err := strconv.Atoi(field)
		must(t, err)
		pids = append(pids, pid)
	}
	must(t, wait(20*time.Second, 10*time.Millisecond, func() error {
		for _, pid := range pids {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is still there (%v)", pid, err)
			}
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			return fmt.Errorf("%s is still there (%v)", dir, err)
		}
		groups, err := filepath.Glob(filepath.Join(cgroupMount(), filepath.Base(dir)+"-*"))
		if err != nil || len(groups) > 0 {
			return fmt.Errorf("control groups are still there: %v (%v)", groups, err)
		}
		return nil
	}))
}

func TestStaleLabsAreSwept(t *testing.T) {
	tmp := t.TempDir()
	old := time.Now().Add(-time.Hour)
	make := func(name string, files ...string) string {
		dir := filepath.Join(tmp, prefix+name)
		must(t, os.Mkdir(dir, 0o755))
		for _, f := range files {
			must(t, os.WriteFile(filepath.Join(dir, f), nil, 0o644))
		}
		must(t, os.Chtimes(dir, old, old))
		return dir
	}
	stale, kept, live := make("stale", "x"), make("kept", keepWord), make("live")
	young := filepath.Join(tmp, prefix+"young")
	must(t, os.Mkdir(young, 0o755))
	lock, err := lockDir(live)
	must(t, err)
	defer lock.Close()
	must(t, sweepStale(tmp, ""))
	for dir, want := range map[string]bool{stale: false, kept: true, live: true, young: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s there: %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	l := newLab(t, "a", "b")
	r, err := l.Host("a").Start(exec.Command("/bin/sleep", "1000"))
	must(t, err)
	must(t, l.Watch(vip))
	asking(t, l, "client")
	must(t, l.Close())
	select {
	case <-r.Done():
	default:
		t.Error("a process outlived the lab")
	}
	if _, err := os.Stat(l.Dir()); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	left, err := Leftovers()
	must(t, err)
	for _, path := range left {
		if strings.Contains(path, filepath.Base(l.Dir())) {
			t.Errorf("left behind: %s", path)
		}
	}
	must(t, l.Close()) // twice is no error
}

func TestTwoLabsLiveSideBySide(t *testing.T) {
	one, two := newLab(t, "a", "b"), newLab(t, "a", "b")
	must(t, one.Watch(vip))
	must(t, two.Watch(vip))
	claim(t, one.Host("a"))
	claim(t, two.Host("b"))
	waitHolders(t, one, "a")
	waitHolders(t, two, "b")
	if f := judge(t, one, 0, one.Now()); !f.None() {
		t.Errorf("labs see each other: %v", f)
	}
	must(t, one.Close())
	waitHolders(t, two, "b")
}
