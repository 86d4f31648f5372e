package cluster

import (
	"context"
	"net"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// Resource is one thing in the ordered list of a service: an address, a
// process, a hook. The methods speak of the active role.
type Resource interface {
	Name() string
	// Start is idempotent and returns when the resource serves, or why not.
	Start(ctx context.Context, epoch uint64) error
	// Stop returns nil only when the resource is proven stopped.
	Stop(ctx context.Context) error
	// Running returns an error for "unknown", never for "no".
	Running(ctx context.Context) (bool, error)
}

// Armed is a Resource that the kernel ends by itself when it is not armed
// again. Arm gives it the lease's absolute deadline, so that what is left is
// counted at the last moment: a process can be frozen between any two lines.
type Armed interface {
	Arm(until clock.Reading) error
}

// Preparer is a Resource that can do some of its start's work in advance.
// ignore holds hardware addresses that are no conflict: the present holder's.
type Preparer interface {
	Prepare(ctx context.Context, ignore []net.HardwareAddr) error
}

// Announcer is a Resource that tells its neighbours again where it is.
type Announcer interface {
	Announce(ctx context.Context) error
}

// Adopter is a Resource that can take over what an earlier daemon of this node
// has left running under the same epoch.
type Adopter interface {
	Adopt(ctx context.Context, epoch uint64) error
}

// Guaranteed is a Resource that says what bounds it when the daemon cannot,
// and how late that may be.
type Guaranteed interface {
	Guarantee() []string
	Kappa() time.Duration
}

// Origin tells a resource why it starts, for the environment of what it runs.
type Origin struct {
	Service  string
	Epoch    uint64
	Previous string // the holder before, if any
	Reason   string
	Proof    state.ProofKind // what ended the epoch before
}

// Builder makes the resources of a service, in start order. Building touches nothing outside.
type Builder interface {
	Build(spec state.Spec, origin Origin) ([]Resource, error)
	// Able says why this host could not run the service, as far as can be told
	// without starting it: a command that is not allowed, an interface that is not there.
	Able(spec state.Spec) error
}

// Consensus is the replicated log as a node needs it.
type Consensus interface {
	// Propose commits a command on the leader and returns what applying it gave.
	// A refusal is in the result, not in the error.
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	// Barrier returns when everything committed before it is applied here.
	Barrier(ctx context.Context) error
	// Leader is the leader's name and base address as far as known, or "".
	Leader() (name, address string)
	// Servers is the latest configuration, from one look.
	Servers() []Server
	// DiskStalled is for how long a write to this node's disk has been stuck.
	DiskStalled() (time.Duration, bool)
	// Hesitate makes this node slower to stand for election, or as fast as others again.
	Hesitate(on bool) error
	AddNonvoter(ctx context.Context, name, address string) error
	// Promote, Demote and Remove may change who votes. They append in the given
	// term, in which what a change waits for was checked, or not at all: with
	// ErrNotLeader, also when this node leads again in a later term.
	Promote(ctx context.Context, term uint64, name, address string) error
	Demote(ctx context.Context, term uint64, name string) error
	Remove(ctx context.Context, term uint64, name string) error
	// Transfer gives the leadership to another voter; best effort.
	Transfer(ctx context.Context) error
}

// Server is a line of the Raft configuration.
type Server struct {
	Name    string
	Address string
	Votes   bool
}

// Leadership is one leadership of this node; Ctx ends with it.
type Leadership struct {
	Term uint64
	Ctx  context.Context
}

// Renewals is the holder's and the leader's side of the datagrams.
type Renewals interface {
	// Hold begins to renew a session, at once.
	Hold(session uint64, ttl time.Duration)
	// Drop stops renewing; what was granted in time runs out by itself.
	Drop()
	// Until is the absolute deadline of the session that is held, if any majority has said OK.
	Until() (clock.Reading, bool)
	// Left is the time left of that lease; zero or less: none.
	Left() time.Duration
	// AskAges and ConfirmClosed send the question to every voter.
	AskAges(session uint64)
	ConfirmClosed(session uint64)
}

// Gossip tells what memberlist thinks of the others: hints.
type Gossip interface {
	Sights() map[string]decide.Sight
}

// Guard is the process that survives the daemon.
type Guard interface {
	// Extend tells the absolute deadline of the lease. It answers within some
	// 50 ms or fails: the guard is then counted as frozen or dead.
	Extend(until clock.Reading) error
	// Use makes the guard work for a session; the one before is forgotten.
	Use(session uint64) error
	// Alive reports whether the guard answered lately.
	Alive() bool
}

// Voter is the lease's voter side with the replicated state under one lock.
type Voter interface {
	View() *state.State
	Ready() bool
	Age(session uint64) (time.Duration, lease.Standing)
}
