package decide

import (
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// Sight is what gossip says of a node: a hint, never a verdict.
type Sight string

// What gossip may say. The empty value is unknown.
const (
	SightUnknown Sight = ""
	SightAlive   Sight = "alive"
	SightSuspect Sight = "suspect"
	SightDead    Sight = "dead"
	SightLeft    Sight = "left"
)

// LeaderView is what a leader knows when it decides.
type LeaderView struct {
	State *state.State
	Self  string
	Term  uint64 // of the leadership; nothing is decided before State.LeaderTerm equals it

	Voters   []string                     // of the latest Raft configuration
	Sessions map[uint64]SessionView       // evidence about sessions, by ID
	Sights   map[string]Sight             // by node name
	Moves    map[string]Preparation       // by service: how far the preparation of its ordered or wanted move is
	Pauses   map[uint64]PauseView         // by the index of the pause's mark
	Unable   map[string]map[string]string // by service and node: why the node says that it could not run it

	// Unstarted tells, by service, for how long its holder has left its epoch
	// without beginning: counted by this leader from when no other epoch was in
	// the way, and only while the holder's own fresh reports say nothing of it.
	// Services that are not in it have begun, or it is not known.
	Unstarted map[string]time.Duration
	// Unended tells, by service, for how long the giver of a hand-over, or the
	// holder of a service that was removed, has not begun to end, in the same way.
	// Services that are not in it are being stopped, or it is not known.
	Unended map[string]time.Duration

	given map[string]int // grants in the plan under way, by node
}

// SessionView is the leader's evidence about one session.
type SessionView struct {
	// Ages holds, by voter, how long ago that voter renewed the session, as
	// told by the voter and grown older since. Voters that are not in it are unknown.
	Ages map[string]time.Duration
	// Told holds, by voter, how long ago the answer came that its age goes by. A
	// voter may have said OK since then.
	Told map[string]time.Duration
	// Asked is how long ago the leader last asked the voters; 0: never, or not known.
	Asked time.Duration
	// Opened is set when the session was opened under this leadership; Since is
	// then how long the leader has known it. A voter that has no note of it
	// counts from its own start, which says nothing of a node that has just come.
	Opened bool
	Since  time.Duration
	// Goodbye is set when the node said that everything is stopped and it leaves.
	Goodbye bool
	// Due is how long until no lease under the session can be left (D of
	// LEASE.md); meaningless unless DueKnown: too few voters have confirmed the close.
	Due      time.Duration
	DueKnown bool
}

// Preparation is how far a candidate has prepared to receive a service.
type Preparation struct {
	To   string
	Done bool
	// Failed is why the candidate could not prepare; empty while it has not failed.
	Failed string
	// Waited is how long the preparation has been under way.
	Waited time.Duration
}

// PauseView is how long this leader has counted a pause.
type PauseView struct {
	Counted time.Duration
}

// quiet returns since when no round of renewals can have reached a majority of
// the voters, as far as is known: a voter that has not told may have said OK just
// now. A majority leaves out a few, at most the ones that were silent for
// longest; the longest silence among the others is the answer. known is false
// when too few have told for every majority to have one of them.
func (v SessionView) quiet(voters []string) (age time.Duration, known bool) {
	return majoritySilence(voters, v.Ages, v.young)
}

// renewed is the same without the grace for a session that was just opened:
// how long ago a majority said OK at the latest. More than Since: never yet.
// known is false when too few have told.
func (v SessionView) renewed(voters []string) (age time.Duration, known bool) {
	return majoritySilence(voters, v.Ages, nil)
}

// silence is the quiet that the voters had seen when they told, without the time
// since: a voter may have said OK again. A leader that was held up knows old
// answers only, and takes nothing away by them.
func (v SessionView) silence(voters []string) time.Duration {
	age, _ := majoritySilence(voters, v.Ages, func(voter string, age time.Duration) time.Duration {
		return v.young(voter, age) - v.Told[voter]
	})
	return age
}

// unheard reports whether a voter has not told for longer than a limit, or never.
func (v SessionView) unheard(voters []string, limit time.Duration) bool {
	for _, name := range voters {
		if _, told := v.Ages[name]; !told || v.Told[name] >= limit {
			return true
		}
	}
	return false
}

// young bounds an age by how long the session has existed.
func (v SessionView) young(_ string, age time.Duration) time.Duration {
	if v.Opened {
		return min(age, v.Since)
	}
	return age
}

// majoritySilence is the longest silence that every majority of the voters must
// have seen. Each age is taken as it is, or through as.
func majoritySilence(voters []string, told map[string]time.Duration, as func(voter string, age time.Duration) time.Duration) (age time.Duration, known bool) {
	var few [9]time.Duration // no allocation for a cluster of any usual size
	ages := few[:0]
	for _, name := range voters {
		if a, ok := told[name]; ok {
			if as != nil {
				a = as(name, a)
			}
			ages = append(ages, a)
		}
	}
	leftOut := len(voters) - (len(voters)/2 + 1)
	if len(voters) == 0 || len(ages) <= leftOut {
		return 0, false
	}
	sortDescending(ages)
	return ages[leftOut], true
}

func sortDescending(ages []time.Duration) {
	for i := 1; i < len(ages); i++ {
		for j := i; j > 0 && ages[j] > ages[j-1]; j-- {
			ages[j], ages[j-1] = ages[j-1], ages[j]
		}
	}
}

// StepKind names what a leader's step does.
type StepKind string

// The kinds of step.
const (
	// StepCommit proposes Command.
	StepCommit StepKind = "commit"
	// StepAskAges asks the voters when they last renewed Session.
	StepAskAges StepKind = "ask-ages"
	// StepConfirmClosed asks the voters to confirm the close of Session, with their age.
	StepConfirmClosed StepKind = "confirm-closed"
	// StepPrepare asks Node to prepare to receive Service.
	StepPrepare StepKind = "prepare"
)

// Step is one thing for the leader to do.
type Step struct {
	Kind    StepKind
	Command state.Command // StepCommit
	Session uint64        // StepAskAges, StepConfirmClosed
	Service string        // StepPrepare, and what a commit is about
	Node    string        // StepPrepare
	Why     string
}

// Plan is a leader's decision.
type Plan struct {
	Steps []Step
	// Wake is when to look again though nothing has changed; 0: only on news.
	Wake time.Duration
	// Notes says of every service what the leader does or waits for, and why.
	Notes map[string]string
}

func (p *Plan) add(s Step) { p.Steps = append(p.Steps, s) }

func (p *Plan) commit(service string, c state.Command, why string) {
	p.add(Step{Kind: StepCommit, Command: c, Service: service, Why: why})
}

// wake asks to look again after d at the latest.
func (p *Plan) wake(d time.Duration) {
	if d < time.Millisecond {
		d = time.Millisecond
	}
	if p.Wake == 0 || d < p.Wake {
		p.Wake = d
	}
}
