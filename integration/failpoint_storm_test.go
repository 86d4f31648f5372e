package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// storm lets the processes of a cluster die at failpoints, starts daemons again
// as their supervisor would, and leads the cluster past the next points.
type storm struct {
	t    *testing.T
	r    *lab.Rig // nil: no service
	l    *lab.Lab
	f    *lab.Failoverd
	more *lab.Failoverd // of a fourth node; nil: there is none

	action  string // crash or stop
	window  int    // so many labels are armed at once
	numbers string // armed beside, in every passage

	ctx   context.Context // of the test
	round context.Context // ends when a point was reached

	turn int // rounds so far

	mu    sync.Mutex
	held  map[*lab.Host]bool // whose daemon stays down for now
	ours  map[*lab.Host]int  // SIGKILLs that the test sent to a daemon
	dead  map[*lab.Host]int  // daemons that ended by SIGKILL
	exits []string           // daemons that ended otherwise
	ended chan struct{}
	wait  sync.WaitGroup
}

func newStorm(ctx context.Context, t *testing.T, l *lab.Lab, f *lab.Failoverd, r *lab.Rig) *storm {
	t.Helper()
	s := &storm{
		t: t, r: r, l: l, f: f, ctx: ctx, round: ctx, action: "crash", window: 4,
		held: map[*lab.Host]bool{}, ours: map[*lab.Host]int{}, dead: map[*lab.Host]int{}, ended: make(chan struct{}),
	}
	for _, h := range f.Hosts() {
		must(t, os.MkdirAll(s.points(h), 0o700))
		s.wait.Add(1)
		go s.supervise(h)
	}
	t.Cleanup(func() {
		close(s.ended)
		s.wait.Wait()
	})
	return s
}

// points is the directory of a host's failpoints.
func (s *storm) points(h *lab.Host) string { return filepath.Join(h.Dir(), "data", failpoint.Dir) }

// supervise starts a host's daemon again whenever it has ended.
func (s *storm) supervise(h *lab.Host) {
	defer s.wait.Done()
	for {
		d := s.f.Daemon(h)
		select {
		case <-s.ended:
			return
		case <-d.Done():
		}
		s.buried(h, d.Wait())
		for s.holds(h) {
			if !s.sleep(2 * time.Millisecond) {
				return
			}
		}
		if err := s.f.Start(h); err != nil {
			s.t.Errorf("start the daemon of %s again: %v", h, err)
			return
		}
	}
}

func (s *storm) sleep(d time.Duration) bool {
	select {
	case <-s.ended:
		return false
	case <-time.After(d):
		return true
	}
}

func (s *storm) buried(h *lab.Host, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			s.dead[h]++
			return
		}
	}
	s.exits = append(s.exits, fmt.Sprintf("%s: %v", h, err))
}

func (s *storm) holds(h *lab.Host) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[h]
}

// hold keeps a host's daemon down from its next end on, until release.
func (s *storm) hold(h *lab.Host, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[h] = on
}

// kill kills the daemons of hosts.
func (s *storm) kill(hosts ...*lab.Host) {
	for _, h := range hosts {
		s.mu.Lock()
		s.ours[h]++
		s.mu.Unlock()
		must(s.t, s.f.Kill(h))
	}
}

// arm writes what is armed, on every host: whoever comes by first dies.
func (s *storm) arm(labels ...string) {
	s.t.Helper()
	text := s.numbers
	for _, l := range labels {
		text += l + "=" + s.action + "\n"
	}
	for _, h := range s.f.Hosts() {
		fresh := filepath.Join(s.points(h), "new")
		must(s.t, os.WriteFile(fresh, []byte(text), 0o600))
		must(s.t, os.Rename(fresh, filepath.Join(s.points(h), failpoint.Armed)))
	}
}

// mark is what a process leaves that is about to die.
type mark struct {
	host    *lab.Host
	label   string
	program string
	pid     int // as the host sees it
}

func (s *storm) marks() (all []mark) {
	for _, h := range s.f.Hosts() {
		files, err := filepath.Glob(filepath.Join(s.points(h), failpoint.Fired+"*"))
		must(s.t, err)
		for _, file := range files {
			m := mark{host: h, label: strings.TrimPrefix(filepath.Base(file), failpoint.Fired)}
			program, pid, _ := strings.Cut(strings.TrimSpace(read(file)), " ")
			m.program = program
			m.pid, _ = strconv.Atoi(pid)
			all = append(all, m)
		}
	}
	return all
}

// clear removes all marks.
func (s *storm) clear() {
	for _, m := range s.marks() {
		must(s.t, os.Remove(filepath.Join(s.points(m.host), failpoint.Fired+m.label)))
	}
}

// patience is how long a passage may go on without reaching a further point.
const patience = 25 * time.Second

// pass leads past all labels of a passage.
func (s *storm) pass(p passage, labels []string) {
	s.t.Helper()
	s.clear()
	began, before := time.Now(), len(s.exitsSeen())
	pending := slices.Clone(labels)
	last := time.Now()
	for s.turn = 0; len(pending) > 0; s.turn++ {
		armed := pending[:min(s.window, len(pending))]
		if p.first != "" {
			armed = append([]string{p.first}, armed...)
			for _, h := range s.f.Hosts() {
				_ = os.Remove(filepath.Join(s.points(h), failpoint.Fired+p.first)) // it may not be there
			}
		}
		s.arm(armed...)
		s.attempt(p, pending)
		reached := s.reached(pending)
		if len(reached) > 0 {
			last = time.Now()
			pending = slices.DeleteFunc(pending, func(l string) bool { return slices.Contains(reached, l) })
			s.t.Logf("%8.3f s: died at %s", time.Since(began).Seconds(), strings.Join(reached, " "))
		}
		if time.Since(last) > patience || s.ctx.Err() != nil {
			s.t.Errorf("%s: never reached: %s", p.name, strings.Join(pending, " "))
			break
		}
	}
	s.arm()
	s.proveDead()
	s.t.Logf("%s: %d points in %d rounds, %.1f s; exits: %s", p.name, len(labels)-len(pending), s.turn, time.Since(began).Seconds(), strings.Join(s.exitsSeen()[before:], "; "))
}

// attempt provokes once and returns when a pending label was reached, or the
// provocation is over.
func (s *storm) attempt(p passage, pending []string) {
	ctx, cancel := context.WithTimeout(s.ctx, 8*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if len(s.reached(pending)) > 0 {
				s.endure()
				cancel()
				return
			}
			_ = lab.Wait(ctx, 5*time.Millisecond) // its end is looked at above
		}
	}()
	s.round = ctx
	p.provoke(s)
	cancel()
	<-done
}

// endure lets what is stopped stay so for three leases, and go on then.
func (s *storm) endure() {
	if s.action != "stop" {
		return
	}
	_ = lab.Wait(s.ctx, 3*s.f.Lease()) // an end of the test ends this too
	for _, h := range s.f.Hosts() {
		if _, err := h.Cont(lab.Daemon, lab.Guard); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *storm) reached(labels []string) (out []string) {
	for _, m := range s.marks() {
		if slices.Contains(labels, m.label) && !slices.Contains(out, m.label) {
			out = append(out, m.label)
		}
	}
	return out
}

func (s *storm) exitsSeen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.exits)
}

// proveDead holds the marks against what has become of the processes: who left
// one is gone, and daemons have died by SIGKILL as often as marks say.
func (s *storm) proveDead() {
	s.t.Helper()
	if s.action != "crash" {
		return
	}
	died := map[*lab.Host]int{}
	for _, m := range s.marks() {
		if m.program == lab.Daemon {
			died[m.host]++
		}
		eventually(s.ctx, s.t, fmt.Sprintf("the end of %s %d at %s", m.program, m.pid, m.label), func() error {
			if lives(s.t, m) {
				return complain("it still runs on %s", m.host)
			}
			return nil
		})
	}
	for h, n := range died {
		eventually(s.ctx, s.t, "the account of the dead on "+h.Name(), func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.dead[h] < n {
				return complain("%d daemons were killed on %s, and %d left a mark", s.dead[h], h, n)
			}
			return nil
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.dead)
	clear(s.ours)
}

// lives reports whether the process of a mark still runs (proc_pid_status(5), NSpid).
func lives(t *testing.T, m mark) bool {
	t.Helper()
	all, err := m.host.Programs(m.program)
	must(t, err)
	for _, p := range all {
		for line := range strings.Lines(read(fmt.Sprintf("/proc/%d/status", p.Pid))) {
			if ids, ok := strings.CutPrefix(line, "NSpid:"); ok && !p.Nested && slices.Contains(strings.Fields(ids), strconv.Itoa(m.pid)) {
				return true
			}
		}
	}
	return false
}

// ctl asks every daemon in turn until one does as asked.
func (s *storm) ctl(args ...string) error {
	problem := errors.New("no daemon")
	for _, h := range s.f.Hosts() {
		ctx, cancel := context.WithTimeout(s.round, 4*time.Second)
		_, err := s.f.Ctl(ctx, h, args...)
		cancel()
		if err == nil {
			return nil
		}
		problem = err
		if s.round.Err() != nil {
			break
		}
	}
	return problem
}

// insist repeats an order until it is carried out or the round is over.
func (s *storm) insist(args ...string) {
	for s.ctl(args...) != nil {
		if lab.Wait(s.round, 50*time.Millisecond) != nil {
			return
		}
	}
}

// status asks until a daemon answers; ok is false when the round ended before.
func (s *storm) status() (st lab.Status, ok bool) {
	for {
		for _, h := range s.f.Hosts() {
			ctx, cancel := context.WithTimeout(s.round, time.Second)
			out, err := s.f.Ctl(ctx, h, "status", "-o", "json")
			cancel()
			if err == nil && json.Unmarshal([]byte(out), &st) == nil && st.Quorum && st.Leader != "" {
				return st, true
			}
		}
		if lab.Wait(s.round, 20*time.Millisecond) != nil {
			return st, false
		}
	}
}

// roles are who holds, who leads and who does neither, as far as there are such.
func (s *storm) roles() (holder, leader, other *lab.Host, ok bool) {
	for {
		st, answered := s.status()
		if !answered {
			return nil, nil, nil, false
		}
		name, _, state := serviceOf(st, lab.Service)
		holder, leader = s.l.Host(name), s.l.Host(st.Leader)
		if s.r == nil || holder != nil && state == "running" {
			break
		}
		if lab.Wait(s.round, 20*time.Millisecond) != nil {
			return nil, nil, nil, false
		}
	}
	for _, h := range s.f.Hosts() {
		if h != holder && h != leader {
			other = h
		}
	}
	return holder, leader, other, true
}
