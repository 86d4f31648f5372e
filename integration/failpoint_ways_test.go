package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// The ways to lead a cluster past its points. Each ends when its round does;
// what it has switched off is on again then.

// rest waits for the end of the round, at most d.
func (s *storm) rest(d time.Duration) { _ = lab.Wait(s.round, d) }

func (s *storm) nothing() { s.rest(3 * time.Second) }

// restartHolder kills the holder's daemon, every third time another's.
func (s *storm) restartHolder() {
	holder, _, other, ok := s.roles()
	if !ok {
		return
	}
	if s.turn%3 == 2 {
		holder = other
	}
	s.kill(holder)
	s.rest(1500 * time.Millisecond)
}

func (s *storm) switchover() {
	if _, _, _, ok := s.roles(); ok {
		s.insist("switchover", lab.Service, "--reason", "a storm")
		s.rest(500 * time.Millisecond)
	}
}

// takeover lets the holder's daemon be dead until another holds.
func (s *storm) takeover() {
	holder, _, _, ok := s.roles()
	if !ok {
		return
	}
	s.hold(holder, true)
	s.kill(holder)
	for s.round.Err() == nil {
		if now, _, _, ok := s.roles(); ok && now != holder {
			break
		}
		s.rest(20 * time.Millisecond)
	}
	s.hold(holder, false)
	s.rest(2 * time.Second)
}

// cutOffHolder parts the holder from all others until its lease has run out.
func (s *storm) cutOffHolder() {
	holder, _, _, ok := s.roles()
	if !ok {
		return
	}
	must(s.t, s.l.Partition(holder))
	s.rest(2 * s.f.Lease())
	must(s.t, s.l.Heal())
	s.rest(time.Second)
}

func (s *storm) killBoth() {
	holder, _, _, ok := s.roles()
	if !ok {
		return
	}
	_, err := holder.Signal(syscall.SIGKILL, lab.Guard, lab.Daemon)
	must(s.t, err)
	s.rest(2 * time.Second)
}

func (s *storm) killGuard() {
	holder, _, _, ok := s.roles()
	if !ok {
		return
	}
	_, err := holder.Signal(syscall.SIGKILL, lab.Guard)
	must(s.t, err)
	s.rest(2 * time.Second)
}

// failedStart moves the service to a host where its hook fails.
func (s *storm) failedStart() {
	holder, _, _, ok := s.roles()
	if !ok {
		return
	}
	to := other(s.r, holder)
	broken := filepath.Join(s.l.Programs(), "broken."+to.Name())
	must(s.t, os.WriteFile(broken, nil, 0o644))
	defer func() {
		must(s.t, os.Remove(broken))
		s.round = s.ctx
		if err := s.ctl("cleanup", lab.Service); err != nil {
			s.t.Logf("cleanup: %v", err)
		}
	}()
	s.insist("switchover", lab.Service, "--to", to.Name(), "--reason", "a storm")
	s.rest(2 * time.Second)
}

func (s *storm) killLeader() {
	_, leader, _, ok := s.roles()
	if !ok {
		return
	}
	s.hold(leader, true)
	s.kill(leader)
	s.rest(500 * time.Millisecond)
	s.hold(leader, false)
	s.rest(2 * time.Second)
}

// orderRestart has the leader and another restart in turn, by an operator's word.
func (s *storm) orderRestart() {
	_, leader, other, ok := s.roles()
	if !ok {
		return
	}
	if s.turn%2 == 1 {
		other = leader
	}
	s.insist("node", "restart", other.Name())
	s.rest(time.Second)
}

// terminate ends the holder's daemon, and another's, in turn and in good order.
func (s *storm) terminate() {
	holder, _, other, ok := s.roles()
	if !ok {
		return
	}
	if s.turn%2 == 1 {
		holder = other
	}
	d := s.f.Daemon(holder)
	if err := d.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
	select {
	case <-d.Done():
	case <-s.round.Done():
	}
	s.rest(time.Second)
}

// orders changes the service's policy, which restarts nothing, and pauses it.
func (s *storm) orders() {
	path := filepath.Join(s.l.Dir(), "storm.hcl")
	text := stormService(s.l, fmt.Sprintf("priorities = { a = %d }", 1+s.turn))
	must(s.t, os.WriteFile(path, []byte(text), 0o600))
	s.insist("apply", path)
	s.insist("pause", lab.Service, "--reason", "a storm")
	s.round = s.ctx
	s.insist("resume", lab.Service)
}

// vouch switches the holder off and says so before its lease has run out.
func (s *storm) vouch() {
	holder, _, _, ok := s.roles()
	if !ok {
		return
	}
	s.hold(holder, true)
	s.mu.Lock()
	s.ours[holder]++
	s.mu.Unlock()
	must(s.t, holder.PowerOff())
	s.rest(s.f.Lease() * 6 / 10)
	for s.ctl("failover", lab.Service, "--force", "--yes", "--reason", "switched off by the storm") != nil && s.round.Err() == nil {
		s.rest(10 * time.Millisecond)
		if now, _, _, ok := s.roles(); ok && now != holder {
			break
		}
	}
	must(s.t, holder.PowerOn())
	_ = os.Remove(filepath.Join(s.l.Programs(), "run."+holder.Name())) // what a boot empties
	s.hold(holder, false)
	s.rest(time.Second)
}

func (s *storm) changeVote() {
	_, _, other, ok := s.roles()
	if !ok {
		return
	}
	s.insist("members", "demote", other.Name())
	s.insist("members", "promote", other.Name())
}

// changeMember adds and removes a fourth node, in turn.
func (s *storm) changeMember() {
	d := s.more.Hosts()[0]
	if _, there := members(s.ctx, s.t, s.f)[d.Name()]; there {
		s.insist("members", "remove", d.Name())
	} else {
		s.insist("members", "add", d.Name(), d.Address().String())
	}
}

// snapshot fills the log and restarts a daemon that then reads a snapshot.
func (s *storm) snapshot() {
	_, _, other, ok := s.roles()
	if !ok {
		return
	}
	if s.turn == 0 {
		s.kill(s.f.Hosts()...) // to read the numbers
	}
	for range 12 {
		s.insist("pause", lab.Service, "--reason", "a storm")
		s.insist("resume", lab.Service)
	}
	s.rest(1200 * time.Millisecond)
	s.kill(other)
	s.rest(1500 * time.Millisecond)
	s.round = s.ctx
	s.insist("resume", lab.Service)
}

// found empties all data directories and lets the hosts found a cluster.
func (s *storm) found() {
	hosts := s.f.Hosts()
	if s.turn > 0 {
		// What was begun may come by the next point by itself.
		if s.rest(1500 * time.Millisecond); s.round.Err() != nil {
			return
		}
	}
	for _, h := range hosts {
		s.hold(h, true)
	}
	s.kill(hosts...)
	for _, h := range hosts {
		_, err := h.Signal(syscall.SIGKILL, lab.Guard)
		must(s.t, err)
	}
	for _, h := range hosts {
		entries, err := os.ReadDir(filepath.Join(h.Dir(), "data"))
		must(s.t, err)
		for _, e := range entries {
			if path := filepath.Join(h.Dir(), "data", e.Name()); path != s.points(h) {
				must(s.t, os.RemoveAll(path))
			}
		}
	}
	for _, h := range hosts {
		s.hold(h, false)
	}
	s.rest(6 * time.Second)
}
