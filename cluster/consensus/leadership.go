package consensus

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Leadership is one leadership of this node. It is handed out after a
// LeaderStart of its own was applied here under Term; Ctx ends with it.
type Leadership = cluster.Leadership

// leader turns raft's notifications into leaderships.
type leader struct {
	node   *Node
	notify <-chan bool
	out    chan Leadership

	mu      sync.Mutex
	current *Leadership        // handed out and not over
	cancel  context.CancelFunc // of the leadership, or of the attempt to establish it

	beforeChange func() // a test's: between what a change of the voters checks and its append
}

func newLeader(n *Node, notify <-chan bool) *leader {
	return &leader{node: n, notify: notify, out: make(chan Leadership, 1)}
}

// Leaderships delivers each leadership of this node. A leadership that is over
// before it was received is replaced by the next. For one receiver.
func (n *Node) Leaderships() <-chan Leadership { return n.leader.out }

// Leading is the present leadership, if there is one.
func (n *Node) Leading() (Leadership, bool) {
	n.leader.mu.Lock()
	defer n.leader.mu.Unlock()
	if n.leader.current == nil {
		return Leadership{}, false
	}
	return *n.leader.current, true
}

// during runs do while the leadership of a term lasts, and reports whether it
// did. As long as do runs this node begins no other: raft hands over every gain
// and loss of leadership, unbuffered, before it takes anything as a leader of the
// next term, and watch takes none while do runs. So do must be short.
func (l *leader) during(term uint64, do func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil || l.current.Term != term {
		return false
	}
	do()
	return true
}

// watch receives every notification at once, since raft's main loop waits for
// that. A second true without a false between is a leadership lost and won again.
func (l *leader) watch() {
	defer l.node.wait.Done()
	defer l.over()
	fatal := l.node.verdict.done
	leads, relieved := false, false
	for {
		select {
		case leads = <-l.notify:
			l.over()
		case <-l.node.watch.changed:
		case <-fatal:
			fatal = nil
		case <-l.node.halt:
			return // raft does not wait for a receiver once it shuts down
		}
		// A leader whose disk hangs commits nothing and is being replaced: it
		// must not go on as if it led, and starts over if it comes back.
		_, stalled := l.node.watch.stalled()
		if stalled && leads && !relieved {
			l.node.wait.Add(1)
			go l.node.relieve()
		}
		relieved = stalled && (relieved || leads)
		if stalled || fatal == nil || !leads {
			l.over()
			continue
		}
		l.begin()
	}
}

// over ends the present leadership, or the attempt to establish one.
func (l *leader) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
	if l.current != nil {
		l.node.log.Info("leadership is over", "term", l.current.Term)
	}
	l.cancel, l.current = nil, nil
}

// begin establishes a leadership unless one is there or on its way.
func (l *leader) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.node.wait.Add(1)
	go func() {
		defer l.node.wait.Done()
		l.establish(ctx)
	}()
}

// establish commits a LeaderStart of this node's own and learns its term from
// its being applied here. Until then entries of earlier terms may still be
// waiting, and raft's word for the term may already be that of another leader.
func (l *leader) establish(ctx context.Context) {
	n := l.node
	for ctx.Err() == nil {
		failpoint.Here("leader.start.before")
		start := state.LeaderStart{Node: n.id, Stamp: state.Stamp{At: time.Now().UnixMilli(), By: n.id, Why: "elected"}}
		a, err := n.apply(ctx, start)
		if err == nil && a.result.Refused != nil {
			err = a.result.Refused
		}
		if err == nil {
			err = n.Barrier(ctx)
		}
		if err == nil && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == a.term && l.hand(ctx, a.term) {
			return
		}
		if ctx.Err() == nil {
			n.log.Debug("leadership is not established yet", "error", err)
		}
		pause := time.NewTimer(n.options.Timing.Heartbeat / 4)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// hand gives a leadership out unless it is over already.
func (l *leader) hand(ctx context.Context, term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	given := Leadership{Term: term, Ctx: ctx}
	l.current = &given
	select {
	case <-l.out: // nobody took the one before, and it is over
	default:
	}
	failpoint.Here("leader.handed")
	l.out <- given
	l.node.log.Info("this node leads", "term", term)
	return true
}
