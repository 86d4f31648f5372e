package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// The sentinels of what a node may answer. Their identity survives the wire (package rpc).
var (
	// ErrNoQuorum: no leader is known, or no majority stands behind the answer.
	ErrNoQuorum = errors.New("no quorum")
	// ErrNotLeader: the node asked does not lead, and the leader is not known yet or has just changed.
	ErrNotLeader = errors.New("not the leader")
	// ErrUnknown: the entry may or may not have been committed; ask again.
	ErrUnknown = errors.New("outcome unknown")
	// ErrRefused: a safety rule or the state machine refused; the text says why.
	ErrRefused = errors.New("refused")
	// ErrNotFound: no service, node or session of that name.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the request itself makes no sense.
	ErrInvalid = errors.New("invalid request")
	// ErrTimeout: the deadline passed before the outcome was known.
	ErrTimeout = errors.New("timed out")
)

// Operator is what an operator can ask of any node. A node that does not lead
// forwards what only the leader can do; By names the person for the history.
type Operator interface {
	Status(ctx context.Context) (Status, error)
	Explain(ctx context.Context, service, node string) (Explanation, error)
	// History returns the newest events, oldest first; service and node filter when not empty.
	History(ctx context.Context, q HistoryQuery) ([]state.Event, error)
	// Watch calls fn for every event from now on, until ctx ends or fn fails.
	Watch(ctx context.Context, q HistoryQuery, fn func(state.Event) error) error

	Switchover(ctx context.Context, r SwitchoverRequest) (SwitchoverResult, error)
	// Failover takes a service from its holder on the operator's word that the
	// holder is off (Force), or is refused with what would be safe.
	Failover(ctx context.Context, r FailoverRequest) (SwitchoverResult, error)
	Pause(ctx context.Context, r PauseRequest) error
	Standby(ctx context.Context, r StandbyRequest) error
	// RestartNode makes the named node's daemon restart and keep its services under their lease.
	RestartNode(ctx context.Context, node, by, why string) error
	Cleanup(ctx context.Context, service, node, by string) error

	Members(ctx context.Context) ([]Member, error)
	ChangeMember(ctx context.Context, r MemberRequest) error

	// Apply puts services in force; DryRun only says what it would do.
	Apply(ctx context.Context, r ApplyRequest) (ApplyResult, error)
	Version(ctx context.Context) (Version, error)
}

// Status is a node's account of the cluster, with where it comes from and how old it is.
type Status struct {
	Cluster  string          `json:"cluster"`           // id, empty before the cluster is founded
	Node     string          `json:"node"`              // who answers
	Waiting  string          `json:"waiting,omitempty"` // why there is no cluster yet, naming whom it waits for
	Leader   string          `json:"leader"`
	Term     uint64          `json:"term"`
	Index    uint64          `json:"index"`
	Quorum   bool            `json:"quorum"` // a majority stood behind this answer
	Voters   int             `json:"voters"`
	VotersUp int             `json:"voters_up"` // that answer now
	Age      time.Duration   `json:"age"`       // of the confirmation by a quorum, or of the last word from a leader
	At       time.Time       `json:"at"`
	Paused   *state.Mark     `json:"paused,omitempty"`
	Services []ServiceStatus `json:"services"`
	Nodes    []NodeStatus    `json:"nodes"`
	Alarms   []string        `json:"alarms,omitempty"`
}

// ServiceStatus is one service.
type ServiceStatus struct {
	Name       string           `json:"name"`
	Holder     string           `json:"holder,omitempty"` // empty: nobody
	Epoch      uint64           `json:"epoch"`
	State      string           `json:"state"`      // running, starting, stopping, waiting, stopped, unknown
	LeaseLeft  time.Duration    `json:"lease_left"` // as the holder told; negative: unknown
	Since      time.Time        `json:"since"`
	Guarantee  []string         `json:"guarantee"` // kernel gate, guard, kernel timer, address lifetime, fence
	Kappa      time.Duration    `json:"kappa"`
	Takeover   state.Takeover   `json:"takeover"`
	Resources  []ResourceStatus `json:"resources"`
	Candidates []Candidate      `json:"candidates"`
	Paused     *state.Mark      `json:"paused,omitempty"`
	Move       *state.Move      `json:"move,omitempty"`
	Failures   []state.Failure  `json:"failures,omitempty"`
	Last       *state.Event     `json:"last,omitempty"` // last move
	Next       string           `json:"next"`           // what the leader would do now, and why
}

// ResourceStatus is one resource on its holder.
type ResourceStatus struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	State string `json:"state"` // running, stopped, starting, stopping, failed, unknown
	Text  string `json:"text,omitempty"`
}

// Candidate says whether a node could take a service over, and why not.
type Candidate struct {
	Node     string `json:"node"`
	Can      bool   `json:"can"`
	Why      string `json:"why"`
	Priority int    `json:"priority"`
}

// NodeStatus is one node.
type NodeStatus struct {
	Name          string        `json:"name"`
	Role          state.Role    `json:"role"`
	Address       string        `json:"address"`
	Alive         string        `json:"alive"` // yes, no, suspect, unknown
	Ready         bool          `json:"ready"`
	Leader        bool          `json:"leader"`
	Session       uint64        `json:"session"`
	SessionState  string        `json:"session_state"`
	Renewed       time.Duration `json:"renewed"` // age of the newest renewal known to the leader; negative: unknown
	Version       string        `json:"version"`
	Standby       *state.Mark   `json:"standby,omitempty"`
	ConfigDiffers bool          `json:"config_differs,omitempty"`
	Holds         []string      `json:"holds"`
	Alarms        []string      `json:"alarms,omitempty"`
}

// Explanation answers why a service is where it is and what would move it.
type Explanation struct {
	Service    string        `json:"service"`
	Node       string        `json:"node,omitempty"`
	Lines      []string      `json:"lines"` // in order, complete sentences
	Candidates []Candidate   `json:"candidates"`
	History    []state.Event `json:"history"` // what led here
}

// HistoryQuery selects events.
type HistoryQuery struct {
	Service string `json:"service,omitempty"`
	Node    string `json:"node,omitempty"`
	Limit   int    `json:"limit,omitempty"` // 0: all that are kept
}

// SwitchoverRequest asks for a planned move.
type SwitchoverRequest struct {
	Service string `json:"service"` // empty: the only one
	To      string `json:"to,omitempty"`
	By      string `json:"by"`
	Why     string `json:"why"`
	DryRun  bool   `json:"dry_run"`
}

// SwitchoverResult says what was, or would be, done.
type SwitchoverResult struct {
	Service string        `json:"service"`
	From    string        `json:"from"`
	To      string        `json:"to"`
	Epoch   uint64        `json:"epoch"`
	Took    time.Duration `json:"took"`
	Steps   []string      `json:"steps"`
}

// FailoverRequest is an operator's word that a holder is off.
type FailoverRequest struct {
	Service string `json:"service"`
	To      string `json:"to,omitempty"`
	Force   bool   `json:"force"`
	By      string `json:"by"`
	Why     string `json:"why"`
}

// PauseRequest pauses or resumes.
type PauseRequest struct {
	Service string        `json:"service,omitempty"` // empty: the cluster
	On      bool          `json:"on"`
	For     time.Duration `json:"for,omitempty"`
	By      string        `json:"by"`
	Why     string        `json:"why"`
}

// StandbyRequest makes a node stand by or serve again.
type StandbyRequest struct {
	Node string `json:"node"`
	On   bool   `json:"on"`
	By   string `json:"by"`
	Why  string `json:"why"`
}

// Member is one node of the Raft configuration or of the state.
type Member struct {
	Name    string     `json:"name"`
	Address string     `json:"address"`
	Role    state.Role `json:"role"`
	Vote    string     `json:"vote"` // voter, nonvoter, none
	Alive   string     `json:"alive"`
	Waiting string     `json:"waiting,omitempty"` // a node that asks to be admitted, and why it may not come in by itself
	Birth   string     `json:"birth,omitempty"`
}

// MemberRequest changes the membership. Action is add, promote, demote, remove
// or replace; Replaces names the node that a replace removes.
type MemberRequest struct {
	Action   string     `json:"action"`
	Node     string     `json:"node"`
	Address  string     `json:"address,omitempty"`
	Role     state.Role `json:"role,omitempty"`
	Replaces string     `json:"replaces,omitempty"`
	By       string     `json:"by"`
	Why      string     `json:"why"`
}

// ApplyRequest puts services in force.
type ApplyRequest struct {
	Services []state.Spec `json:"services"`
	// Prune removes services that are not named; a running one only with Yes.
	Prune  bool   `json:"prune"`
	Yes    bool   `json:"yes"`
	DryRun bool   `json:"dry_run"`
	By     string `json:"by"`
	Why    string `json:"why"`
}

// ApplyResult lists what changes and its consequences, one sentence each.
type ApplyResult struct {
	Changes []string `json:"changes"` // empty: nothing to do
	Index   uint64   `json:"index"`
}

// Version is what a node runs.
type Version struct {
	Node     string `json:"node"`
	Version  string `json:"version"`
	Protocol int    `json:"protocol"` // of the log
	Go       string `json:"go"`
}
