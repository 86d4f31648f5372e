//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled says whether this program was built with points in it.
const Enabled = true

// the process's own points.
var process = newSet(os.Getenv(Variable))

// Here is a point: whatever is armed for the label happens now.
func Here(label string) { process.here(label) }

// Number is what is armed for the label as a number, else the ordinary one.
func Number(label string, ordinary uint64) uint64 { return process.number(label, ordinary) }

// In says which data directory the process works on.
func In(data string) { process.in(filepath.Join(data, Dir)) }

// set is what is armed for one process.
type set struct {
	kill func(syscall.Signal)

	mu    sync.Mutex
	dir   string            // "": not known yet
	fixed map[string]action // of the environment
	armed map[string]action // of the file
	read  os.FileInfo       // the file as it was read last; nil: there was none
	count map[string]int    // how often a label was reached while it was armed
	seen  map[string]struct{}
}

func newSet(environment string) *set {
	s := &set{kill: killSelf, count: map[string]int{}, seen: map[string]struct{}{}}
	var err error
	if s.fixed, err = parse(environment); err != nil {
		// A test that arms nothing would pass: better none than such a one.
		fmt.Fprintln(os.Stderr, Variable+":", err)
		os.Exit(2)
	}
	return s
}

func killSelf(sig syscall.Signal) {
	_ = syscall.Kill(os.Getpid(), sig) // to oneself it cannot fail
	if sig == syscall.SIGKILL {
		select {} // not one instruction more of the caller's
	}
}

func (s *set) in(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir, s.armed, s.read = dir, nil, nil
}

func (s *set) here(label string) {
	a, sleep := s.due(label)
	switch {
	case sleep > 0:
		time.Sleep(sleep)
	case a != 0:
		s.kill(a)
	}
}

func (s *set) number(label string, ordinary uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	a, ok := s.armed[label]
	if !ok {
		a, ok = s.fixed[label]
	}
	if !ok || a.number == 0 {
		return ordinary
	}
	return a.number
}

// due says what has to happen at a label now, and marks that it does.
func (s *set) due(label string) (sig syscall.Signal, sleep time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	s.note(label)
	a, ok := s.armed[label]
	if !ok {
		a, ok = s.fixed[label]
	}
	if !ok || a.number > 0 {
		return 0, 0
	}
	s.count[label]++
	if s.count[label] < a.nth {
		return 0, 0
	}
	if !s.mark(label, a) {
		return 0, 0
	}
	return a.sig, a.sleep
}

// refresh reads the file again if it is another than before: a stat each time.
func (s *set) refresh() {
	if s.dir == "" {
		return
	}
	path := filepath.Join(s.dir, Armed)
	now, err := os.Stat(path)
	if err != nil {
		s.armed, s.read = nil, nil
		return
	}
	if s.read != nil && os.SameFile(s.read, now) && s.read.ModTime().Equal(now.ModTime()) && s.read.Size() == now.Size() {
		return
	}
	raw, err := os.ReadFile(path)
	if err == nil {
		s.armed, err = parse(string(raw))
	}
	if err != nil {
		s.complain(fmt.Sprintf("%s: %v\n", path, err))
	}
	s.read = now
	clear(s.count)
}

// note writes down that the process came past a label, once for each.
func (s *set) note(label string) {
	if _, known := s.seen[label]; known || s.dir == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(s.dir, Seen), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return // no directory: nobody asks
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%s %s\n", filepath.Base(os.Args[0]), label); err == nil {
		s.seen[label] = struct{}{}
	}
}

// mark leaves the mark of a label; false when it was there before. What sleeps
// does so each time. Without a directory there is nothing to tell two lives of
// a program apart by, and nothing is held back.
func (s *set) mark(label string, a action) bool {
	if s.dir == "" {
		return true
	}
	f, err := os.OpenFile(filepath.Join(s.dir, Fired+label), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return a.sleep > 0
	case err != nil:
		// Not marked, not done: else it would happen again and again.
		s.complain(fmt.Sprintf("mark %s: %v\n", label, err))
		return false
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %d\n", filepath.Base(os.Args[0]), os.Getpid())
	return true
}

func (s *set) complain(text string) {
	fmt.Fprint(os.Stderr, "failpoint: "+strings.TrimSpace(text)+"\n")
}
