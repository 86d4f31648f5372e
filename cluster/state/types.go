package state

import "time"

// Role says what a node may do in the cluster.
type Role string

// The three roles. A voter votes and may hold; a witness votes and never
// holds; a member holds without a vote.
const (
	RoleVoter   Role = "voter"
	RoleWitness Role = "witness"
	RoleMember  Role = "member"
)

// Votes reports whether the role belongs in the Raft configuration as a voter.
func (r Role) Votes() bool { return r == RoleVoter || r == RoleWitness }

// Holds reports whether a node of this role may hold a service.
func (r Role) Holds() bool { return r == RoleVoter || r == RoleMember }

// Cluster is what identifies the cluster and is fixed when it is founded.
type Cluster struct {
	ID string `json:"id"`
	// Key authenticates renewals; 32 random bytes, drawn by the first leader.
	Key []byte `json:"key"`
}

// Node is a member of the cluster as every replica sees it.
type Node struct {
	Name    string `json:"name"`
	Role    Role   `json:"role"`
	Address string `json:"address"` // host:port; further ports are counted from this one
	Birth   string `json:"birth"`   // drawn once per data directory; a second node of the same name has another

	// Started is the nonce of the daemon's latest start that a leader has
	// recorded: a voter whose own nonce stands here is ready (LEASE.md).
	Started    uint64 `json:"started"`
	BootID     string `json:"boot_id"`
	Version    string `json:"version"`
	ConfigHash string `json:"config_hash"` // of the settings that must not differ

	// Session is the newest session of the node, open or not; 0 before the first.
	Session uint64 `json:"session"`

	Standby *Mark `json:"standby,omitempty"`
}

// Mark records that an operator asked for something, when and why.
type Mark struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	At     int64  `json:"at"`              // proposer's wall clock, Unix ms: shown, never decided upon
	Until  int64  `json:"until,omitempty"` // same; 0 = no end. The leader that counts it down commits the end
	Index  uint64 `json:"index"`           // log index of the mark
}

// SessionStatus is the life of a session: open, closing, ended. It never goes back.
type SessionStatus string

// The statuses of a session.
const (
	SessionOpen    SessionStatus = "open"
	SessionClosing SessionStatus = "closing"
	SessionEnded   SessionStatus = "ended"
)

// ProofKind is why a session or a grant is over.
type ProofKind string

// The proofs of LEASE.md.
const (
	ProofReleased ProofKind = "released"
	ProofFenced   ProofKind = "fenced"
	ProofExpired  ProofKind = "expired"
	ProofVouched  ProofKind = "vouched"
)

// Proof is one reason to believe that a session is over, and who brought it.
type Proof struct {
	Kind  ProofKind `json:"kind"`
	Index uint64    `json:"index"`
	By    string    `json:"by"`
	Why   string    `json:"why"`
	At    int64     `json:"at"`
}

// Session is one life of one node's claim. Its ID is the log index of the
// entry that opened it.
type Session struct {
	ID     uint64 `json:"id"`
	Node   string `json:"node"`
	BootID string `json:"boot_id"`
	// Replaces is the node's session before this one, 0 for its first: who asks
	// twice for the same session is known by it.
	Replaces uint64        `json:"replaces,omitempty"`
	TTL      time.Duration `json:"ttl"`   // H
	Kappa    time.Duration `json:"kappa"` // κ: how late the holder's enforcement may be
	Status   SessionStatus `json:"status"`
	// Closing is why the session is closing or ended; empty while open.
	Closing string  `json:"closing,omitempty"`
	Proofs  []Proof `json:"proofs,omitempty"` // of an ended session; they accumulate
	Fence   *Fence  `json:"fence,omitempty"`
}

// Proven reports whether the session has ended with a proof of the kind.
func (s *Session) Proven(kind ProofKind) bool {
	for _, p := range s.Proofs {
		if p.Kind == kind {
			return true
		}
	}
	return false
}

// Fence is a fencing of a session's node that a leader has begun.
type Fence struct {
	By    string `json:"by"` // the node that proposed it
	Why   string `json:"why"`
	Index uint64 `json:"index"`
}

// Takeover says which proofs end a service's grant besides its release.
type Takeover string

// TakeoverLease accepts whichever comes first of fenced and expired;
// TakeoverFence accepts no expiry. A vouched end is accepted by both.
const (
	TakeoverLease Takeover = "lease"
	TakeoverFence Takeover = "fence"
)

// Accepts reports whether the policy takes the proof as the end of a grant.
func (t Takeover) Accepts(kind ProofKind) bool {
	switch kind {
	case ProofReleased, ProofFenced, ProofVouched:
		return true
	case ProofExpired:
		return t != TakeoverFence
	}
	return false
}

// GrantKind tells a plain grant from a planned hand-over.
type GrantKind string

// The kinds of grant.
const (
	KindGrant    GrantKind = "grant"
	KindHandOver GrantKind = "handover"
)

// Grant says that an epoch of a service belongs to a session of a node.
type Grant struct {
	Epoch   uint64    `json:"epoch"`
	Node    string    `json:"node"`
	Session uint64    `json:"session"`
	Kind    GrantKind `json:"kind"`
	From    uint64    `json:"from,omitempty"` // hand-over: the epoch that it follows
	Index   uint64    `json:"index"`
	Why     string    `json:"why"`
	At      int64     `json:"at"`

	// Over is the proof that ended the epoch; empty while it is not over.
	// It is set once and stays, whatever becomes of the policy later.
	Over      ProofKind `json:"over,omitempty"`
	OverIndex uint64    `json:"over_index,omitempty"`
}

// Resource is one thing that a service is made of. Exactly one of the
// pointers is set, the one that Kind names.
type Resource struct {
	Kind    string   `json:"kind"` // vip, process, exec
	Name    string   `json:"name"` // unique within the service
	VIP     *VIP     `json:"vip,omitempty"`
	Process *Process `json:"process,omitempty"`
	Exec    *Exec    `json:"exec,omitempty"`
}

// VIP is a virtual address.
type VIP struct {
	Address   string `json:"address"` // 192.0.2.100/24: the address and its network
	Interface string `json:"interface"`
	// Prefix keeps the network's prefix length on the address instead of /32.
	Prefix bool `json:"prefix,omitempty"`
}

// Process is a program that the guard runs as its child.
type Process struct {
	Command     []string          `json:"command"`
	Environment map[string]string `json:"environment,omitempty"`
	Directory   string            `json:"directory,omitempty"`
	User        string            `json:"user,omitempty"`
	StopSignal  string            `json:"stop_signal,omitempty"` // default TERM
	StopTimeout time.Duration     `json:"stop_timeout"`          // then KILL
	// Ready, when set, is a TCP address that must accept before the start counts as done.
	Ready        string        `json:"ready,omitempty"`
	StartTimeout time.Duration `json:"start_timeout"`
	// Restarts is how many crashes in a row are answered by a local restart.
	Restarts int `json:"restarts"`
}

// Exec is a trio of hooks of the user's own.
type Exec struct {
	Start         []string      `json:"start"`
	Stop          []string      `json:"stop"`
	Status        []string      `json:"status"`
	StartTimeout  time.Duration `json:"start_timeout"`
	StopTimeout   time.Duration `json:"stop_timeout"`
	StatusTimeout time.Duration `json:"status_timeout"`
	Interval      time.Duration `json:"interval"` // between status calls
}

// Spec is what a user wrote of a service.
type Spec struct {
	Name       string         `json:"name"`
	Takeover   Takeover       `json:"takeover"`
	Nodes      []string       `json:"nodes,omitempty"`      // may hold; empty: every node whose role may
	Priorities map[string]int `json:"priorities,omitempty"` // higher first; absent is 0
	Failback   bool           `json:"failback,omitempty"`   // go back to a node of higher priority by itself
	Resources  []Resource     `json:"resources"`            // started top to bottom, stopped bottom to top
}

// Failure is a node's report that it could not run a service.
type Failure struct {
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Why   string `json:"why"`
	Index uint64 `json:"index"`
	At    int64  `json:"at"`
}

// Move is an operator's order to move a service, open until the service has
// moved or the order is withdrawn. It is committed so that a new leader goes on with it.
type Move struct {
	To    string `json:"to,omitempty"` // empty: the best candidate
	By    string `json:"by"`
	Why   string `json:"why"`
	Index uint64 `json:"index"`
	At    int64  `json:"at"`
}

// Service is a service and everything that was decided about it.
type Service struct {
	Name string `json:"name"`
	Spec Spec   `json:"spec"`
	// Generation is the log index of the entry that last changed Spec.
	Generation uint64 `json:"generation"`
	// Removed services are stopped and get no further grant; LastEpoch stays
	// for ever, so that a service of the same name goes on counting.
	Removed bool `json:"removed,omitempty"`

	LastEpoch uint64 `json:"last_epoch"`
	// Grants holds every epoch that is not over and the newest one even when it is, oldest first.
	Grants []Grant `json:"grants,omitempty"`

	Paused   *Mark     `json:"paused,omitempty"`
	Move     *Move     `json:"move,omitempty"`
	Failures []Failure `json:"failures,omitempty"` // newest per node, until a success or a cleanup
}

// Newest returns the grant with the highest epoch, or nil before the first.
func (s *Service) Newest() *Grant {
	if len(s.Grants) == 0 {
		return nil
	}
	return &s.Grants[len(s.Grants)-1]
}

// Unfinished returns the grants that are not over, oldest first.
func (s *Service) Unfinished() []Grant {
	var out []Grant
	for _, g := range s.Grants {
		if g.Over == "" {
			out = append(out, g)
		}
	}
	return out
}

// Event is a line of the history: what was committed, and why.
type Event struct {
	Index   uint64 `json:"index"`
	At      int64  `json:"at"`   // proposer's wall clock, Unix ms
	Kind    string `json:"kind"` // the command's kind, or "over" for an epoch that ended
	Service string `json:"service,omitempty"`
	Node    string `json:"node,omitempty"`
	Session uint64 `json:"session,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`
	By      string `json:"by,omitempty"`
	Why     string `json:"why"` // the reason in words
}

// State is the whole replicated state. Two replicas that have applied the same
// index hold equal states, and equal states encode to equal bytes.
type State struct {
	Index uint64 `json:"index"` // of the last entry applied
	Term  uint64 `json:"term"`  // of that entry

	Cluster  Cluster             `json:"cluster"`
	Nodes    map[string]*Node    `json:"nodes"`
	Sessions map[uint64]*Session `json:"sessions"`
	Services map[string]*Service `json:"services"`
	Paused   *Mark               `json:"paused,omitempty"` // the whole cluster

	// Leader and LeaderTerm come from the newest LeaderStart: a leader whose
	// own term stands here has applied its own first entry.
	Leader     string `json:"leader"`
	LeaderTerm uint64 `json:"leader_term"`

	History []Event `json:"history"` // the newest MaxHistory
}

// MaxHistory bounds State.History.
const MaxHistory = 1000
