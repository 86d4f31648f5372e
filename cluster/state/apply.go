package state

import (
	"fmt"
	"slices"
)

// New returns the state before the first entry.
func New() *State {
	s := &State{}
	s.ready()
	return s
}

// ready makes the maps, so that a zero State can be applied to as well.
func (s *State) ready() {
	if s.Nodes == nil {
		s.Nodes = map[string]*Node{}
	}
	if s.Sessions == nil {
		s.Sessions = map[uint64]*Session{}
	}
	if s.Services == nil {
		s.Services = map[string]*Service{}
	}
}

// Apply carries out the entry at index of the term, or refuses it with a reason.
// A refused command changes nothing but Index and Term. Commands are given by
// value, as they are declared; nothing of cmd is kept by reference.
//
// An entry at or below s.Index was applied before: it is refused and nothing
// changes, Index and Term included. Terms never go back in a log; should one, the
// entry is refused and Term stays.
func (s *State) Apply(index, term uint64, cmd Command) Result {
	if index <= s.Index {
		return Result{Index: index, Refused: refuse(CodeAlreadyApplied,
			"entry %d was applied before, the state stands at %d: read the state for what it did", index, s.Index)}
	}
	s.ready()
	s.Index = index
	if term < s.Term {
		return Result{Index: index, Refused: refuse(CodeTermBack,
			"entry %d is of term %d and follows one of term %d: this log is damaged or of another cluster; restore a backup or replace this node's data", index, term, s.Term)}
	}
	s.Term = term
	res := s.dispatch(cmd)
	res.Index = index
	if res.Refused == nil {
		s.dropMoves()
		s.pruneSessions()
	}
	return res
}

// dispatch calls the rule of a command. A rule checks everything first and
// changes the state only when nothing is left that could refuse. s.Index and
// s.Term are already the entry's own.
func (s *State) dispatch(cmd Command) (res Result) {
	switch c := cmd.(type) {
	case Found:
		res.Refused = s.found(c, c.tidy())
	case LeaderStart:
		res.Refused = s.leaderStart(c, c.tidy())
	case SetNode:
		res.Refused = s.setNode(c, c.tidy())
	case RemoveNode:
		res.Refused = s.removeNode(c, c.tidy())
	case Started:
		res.Refused = s.started(c, c.tidy())
	case OpenSession:
		res.Session, res.Refused = s.openSession(c, c.tidy())
	case CloseSession:
		res.Refused = s.closeSession(c, c.tidy())
	case EndSession:
		res.Refused = s.endSession(c, c.tidy())
	case StartFence:
		res.Refused = s.startFence(c, c.tidy())
	case GrantService:
		res.Epoch, res.Refused = s.grantService(c, c.tidy())
	case HandOver:
		res.Epoch, res.Refused = s.handOver(c, c.tidy())
	case Released:
		res.Refused = s.released(c, c.tidy())
	case SetServices:
		res.Refused = s.setServices(c, c.tidy())
	case SetPause:
		res.Refused = s.setPause(c, c.tidy())
	case SetStandby:
		res.Refused = s.setStandby(c, c.tidy())
	case RequestMove:
		res.Refused = s.requestMove(c, c.tidy())
	case ReportFailure:
		res.Refused = s.reportFailure(c, c.tidy())
	case ClearFailures:
		res.Refused = s.clearFailures(c, c.tidy())
	default:
		res.Refused = refuse(CodeUnknownCommand,
			"this failoverd does not know the command %T: upgrade it to the version of the others", cmd)
	}
	return res
}

// note adds an event to the history, with the proposer's reason or, when none
// was given, with words of our own. Events are never changed once added: Clone
// relies on it.
func (s *State) note(st Stamp, e Event, format string, args ...any) {
	e.Index, e.At, e.By = s.Index, st.At, st.By
	e.Why = or(st.Why, tidyText(fmt.Sprintf(format, args...)))
	s.History = append(s.History, e)
	if over := len(s.History) - MaxHistory; over > 0 {
		s.History = s.History[over:]
	}
}

// pruneSessions forgets ended sessions that nothing refers to any more: no epoch
// waits for a proof of theirs, and their node has a newer one.
func (s *State) pruneSessions() {
	named := map[uint64]bool{}
	for _, svc := range s.Services {
		for _, g := range svc.Unfinished() {
			named[g.Session] = true
		}
	}
	for id, sess := range s.Sessions {
		n := s.Nodes[sess.Node]
		if sess.Status == SessionEnded && !named[id] && (n == nil || n.Session != id) {
			delete(s.Sessions, id)
		}
	}
}

// dropMoves withdraws orders that can never be carried out any more, since their
// target left, stands by or may not hold: an open order blocks the next one.
func (s *State) dropMoves() {
	for _, name := range s.ServiceNames() {
		svc := s.Services[name]
		if svc.Move == nil || svc.Move.To == "" {
			continue
		}
		if no := s.mayMoveTo(svc, svc.Move.To); no != nil {
			s.note(Stamp{}, Event{Kind: RequestMove{}.Kind(), Service: name, Node: svc.Move.To},
				"order %d to move %s to %s is withdrawn: %s", svc.Move.Index, name, svc.Move.To, no.Why)
			svc.Move = nil
		}
	}
}

// removeFailures forgets the failures that drop selects and reports whether there were any.
func removeFailures(svc *Service, drop func(Failure) bool) bool {
	before := len(svc.Failures)
	svc.Failures = slices.DeleteFunc(svc.Failures, drop)
	if len(svc.Failures) == 0 {
		svc.Failures = nil
	}
	return len(svc.Failures) < before
}
