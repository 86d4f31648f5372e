package rpc

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/failoverd/failoverd/cluster"
)

func TestSocketModes(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	_, path := serveUnix(t, &fakeOperator{})
	for at, want := range map[string]os.FileMode{path: 0o660, filepath.Dir(path): 0o750} {
		info, err := os.Stat(at)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", at, info.Mode().Perm(), want)
		}
	}
}

// deadSocket leaves a socket behind as a killed daemon does.
func deadSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeadSocketIsReplaced(t *testing.T) {
	path := deadSocket(t)
	s := NewServer(ServerOptions{Operator: &fakeOperator{version: cluster.Version{Node: "a"}}, Log: quiet()})
	if err := s.ServeUnix(path); err != nil {
		t.Fatal(err)
	}
	v, err := dial(t, "unix://"+path).Version(testContext(t))
	if err != nil || v.Node != "a" {
		t.Fatalf("got %+v, %v", v, err)
	}
	s.Stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after Stop the socket is still there: %v", err)
	}
}

func TestLiveSocketIsLeftAlone(t *testing.T) {
	_, path := serveUnix(t, &fakeOperator{version: cluster.Version{Node: "first"}})
	second := NewServer(ServerOptions{Operator: &fakeOperator{}, Log: quiet()})
	defer second.Stop()
	err := second.ServeUnix(path)
	if err == nil || !strings.Contains(err.Error(), "another daemon answers on socket "+path) {
		t.Errorf("got %v", err)
	}
	if v, err := dial(t, "unix://"+path).Version(testContext(t)); err != nil || v.Node != "first" {
		t.Errorf("the first daemon: %+v, %v", v, err)
	}
}

func TestFileInTheSocketsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerOptions{Operator: &fakeOperator{}, Log: quiet()})
	defer s.Stop()
	if err := s.ServeUnix(path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file: %q, %v", b, err)
	}
}

func TestSocketPathTooLong(t *testing.T) {
	s := NewServer(ServerOptions{Operator: &fakeOperator{}, Log: quiet()})
	defer s.Stop()
	err := s.ServeUnix("/tmp/" + strings.Repeat("x", 110))
	if err == nil || !strings.Contains(err.Error(), "8 bytes too long for a socket") {
		t.Errorf("got %v", err)
	}
}

// A daemon that stops late takes nobody else's socket away.
func TestStopLeavesASuccessorsSocket(t *testing.T) {
	s, path := serveUnix(t, &fakeOperator{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor := NewServer(ServerOptions{Operator: &fakeOperator{version: cluster.Version{Node: "b"}}, Log: quiet()})
	if err := successor.ServeUnix(path); err != nil {
		t.Fatal(err)
	}
	defer successor.Stop()
	s.Stop()
	if v, err := dial(t, "unix://"+path).Version(testContext(t)); err != nil || v.Node != "b" {
		t.Errorf("the successor: %+v, %v", v, err)
	}
}

// Of daemons that find a dead socket at once, one gets it.
func TestManyFindADeadSocket(t *testing.T) {
	path := deadSocket(t)
	const n = 8
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		s := NewServer(ServerOptions{Operator: &fakeOperator{}, Log: quiet()})
		t.Cleanup(s.Stop)
		all.Go(func() { errs[i] = s.ServeUnix(path) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !strings.Contains(err.Error(), "another daemon answers") {
			t.Errorf("a loser got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d daemons have the socket", won)
	}
}
