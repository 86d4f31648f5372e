//go:build failpoints

package failpoint

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// armedSet is a set over a directory, and what it did instead of dying.
func armedSet(t *testing.T, text string) (*set, *[]syscall.Signal, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), Dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	arm(t, dir, text)
	var sent []syscall.Signal
	s := newSet("")
	s.kill = func(sig syscall.Signal) { sent = append(sent, sig) }
	s.in(dir)
	return s, &sent, dir
}

func arm(t *testing.T, dir, text string) {
	t.Helper()
	tmp := filepath.Join(dir, "new")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, Armed)); err != nil {
		t.Fatal(err)
	}
}

func TestCrashHappensOnce(t *testing.T) {
	s, sent, dir := armedSet(t, "a=crash\nb=stop@3")
	s.here("c")
	s.here("a")
	s.here("a")
	if len(*sent) != 1 || (*sent)[0] != syscall.SIGKILL {
		t.Fatalf("sent %v, want one SIGKILL", *sent)
	}
	if _, err := os.Stat(filepath.Join(dir, Fired+"a")); err != nil {
		t.Error(err)
	}
	// Another life of the program finds the mark.
	next := newSet("")
	next.kill = func(sig syscall.Signal) { t.Errorf("the next life got %v", sig) }
	next.in(dir)
	next.here("a")
	if err := os.Remove(filepath.Join(dir, Fired+"a")); err != nil {
		t.Fatal(err)
	}
	s.here("a")
	if len(*sent) != 2 {
		t.Error("armed anew, and nothing happened")
	}
}

func TestCountAndNewFile(t *testing.T) {
	s, sent, dir := armedSet(t, "b=stop@3")
	s.here("b")
	s.here("b")
	if len(*sent) != 0 {
		t.Fatalf("sent %v too early", *sent)
	}
	s.here("b")
	if len(*sent) != 1 || (*sent)[0] != syscall.SIGSTOP {
		t.Fatalf("sent %v, want one SIGSTOP", *sent)
	}
	arm(t, dir, "d=crash")
	s.here("b")
	s.here("d")
	if len(*sent) != 2 {
		t.Errorf("the new file was not read: %v", *sent)
	}
	raw, err := os.ReadFile(filepath.Join(dir, Seen))
	if err != nil || strings.Count(string(raw), " b\n") != 1 || strings.Count(string(raw), " d\n") != 1 {
		t.Errorf("seen: %q, %v", raw, err)
	}
}

func TestSleepEachTime(t *testing.T) {
	s, sent, _ := armedSet(t, "a=sleep:20ms")
	began := time.Now()
	s.here("a")
	s.here("a")
	if took := time.Since(began); took < 40*time.Millisecond || len(*sent) != 0 {
		t.Errorf("two pauses took %v; sent %v", took, *sent)
	}
}

func TestEnvironment(t *testing.T) {
	s := newSet("a=crash;b=stop@2")
	var sent []syscall.Signal
	s.kill = func(sig syscall.Signal) { sent = append(sent, sig) }
	s.here("a")
	s.here("b")
	s.here("b")
	if len(sent) != 2 {
		t.Errorf("sent %v", sent)
	}
}

func TestNumber(t *testing.T) {
	s, sent, _ := armedSet(t, "a=number:7")
	s.here("a")
	if n := s.number("a", 3); n != 7 || len(*sent) != 0 {
		t.Errorf("number %d, sent %v", n, *sent)
	}
	if n := s.number("b", 3); n != 3 {
		t.Errorf("an ordinary number is %d", n)
	}
}

func TestNothingWithoutADirectory(t *testing.T) {
	s := newSet("")
	s.kill = func(sig syscall.Signal) { t.Errorf("sent %v", sig) }
	s.in(filepath.Join(t.TempDir(), Dir))
	s.here("a")
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{"a", "=crash", "a=die", "a=crash@0", "a=crash@x", "a=sleep:0s", "a=sleep:x", "a=number:0", "a=number:2@2"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
