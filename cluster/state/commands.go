package state

import "time"

// Command is an entry of the log. Every command is idempotent or is refused
// when it comes twice: a proposer that lost its leadership does not know
// whether its entry was committed, and asks again.
type Command interface {
	// Kind is the command's name in the log and in the history.
	Kind() string
}

// Stamp is what every command carries for people to read. Nothing is decided by it.
type Stamp struct {
	At  int64  `json:"at,omitempty"` // proposer's wall clock, Unix ms
	By  string `json:"by,omitempty"` // the node or operator who proposed it
	Why string `json:"why,omitempty"`
}

// Found gives the cluster its identity. Refused when it has another one already.
type Found struct {
	Stamp
	ID  string `json:"id"`
	Key []byte `json:"key"`
}

// LeaderStart is a leader's first entry of its term; the term is the entry's own.
type LeaderStart struct {
	Stamp
	Node string `json:"node"`
}

// SetNode adds a node or changes its role or address. An empty Birth leaves
// the recorded one, a new one replaces it (an operator admitted new data).
type SetNode struct {
	Stamp
	Node    string `json:"node"`
	Role    Role   `json:"role"`
	Address string `json:"address"`
	Birth   string `json:"birth,omitempty"`
}

// RemoveNode forgets a node that holds nothing and has no unended session.
type RemoveNode struct {
	Stamp
	Node string `json:"node"`
}

// Started records a start of a node's daemon, appended by a leader after that start.
type Started struct {
	Stamp
	Node       string `json:"node"`
	Nonce      uint64 `json:"nonce"`
	Birth      string `json:"birth"`
	BootID     string `json:"boot_id"`
	Version    string `json:"version"`
	ConfigHash string `json:"config_hash"`
}

// OpenSession begins a new life of a node's claim in place of the session
// Replaces (0: none yet).
type OpenSession struct {
	Stamp
	Node     string        `json:"node"`
	BootID   string        `json:"boot_id"`
	Replaces uint64        `json:"replaces"`
	TTL      time.Duration `json:"ttl"`
	Kappa    time.Duration `json:"kappa"`
}

// CloseSession stops all renewals of a session: whoever applies it says OK no more.
type CloseSession struct {
	Stamp
	Session uint64 `json:"session"`
}

// EndSession adds a proof to a closing or ended session. For ProofExpired the
// entry's own term must be Term: answers gathered in another term are void.
type EndSession struct {
	Stamp
	Session uint64    `json:"session"`
	Proof   ProofKind `json:"proof"`
	Term    uint64    `json:"term,omitempty"`
}

// StartFence records that a session's node is about to be fenced.
type StartFence struct {
	Stamp
	Session  uint64 `json:"session"`
	Proposer string `json:"proposer"`
}

// GrantService gives the next epoch of a service to a session.
type GrantService struct {
	Stamp
	Service string `json:"service"`
	Epoch   uint64 `json:"epoch"`
	Node    string `json:"node"`
	Session uint64 `json:"session"`
}

// HandOver ends one epoch and gives the next in one entry; the receiver waits
// for the giver's word, its Released, or an accepted end of its session.
type HandOver struct {
	Stamp
	Service   string `json:"service"`
	From      uint64 `json:"from"` // the epoch that is given up
	FromNode  string `json:"from_node"`
	Epoch     uint64 `json:"epoch"` // From + 1 or later: always the service's last epoch + 1
	ToNode    string `json:"to_node"`
	ToSession uint64 `json:"to_session"`
}

// Released says that an epoch's holder has proven it stopped, or never started it.
type Released struct {
	Stamp
	Service string `json:"service"`
	Epoch   uint64 `json:"epoch"`
	Node    string `json:"node"` // whose epoch it was
}

// SetServices puts a set of services in force. Services that are not named are
// removed only when Remove names them.
type SetServices struct {
	Stamp
	Services []Spec   `json:"services"`
	Remove   []string `json:"remove,omitempty"`
}

// SetPause pauses or resumes a service, or the whole cluster when Service is empty.
type SetPause struct {
	Stamp
	Service string `json:"service,omitempty"`
	On      bool   `json:"on"`
	Until   int64  `json:"until,omitempty"` // shown; the leader commits the end
	// Mark, when set on a resume, ends only the pause with that index: an
	// expiry never ends a later pause.
	Mark uint64 `json:"mark,omitempty"`
}

// SetStandby makes a node stand by or serve again.
type SetStandby struct {
	Stamp
	Node string `json:"node"`
	On   bool   `json:"on"`
}

// RequestMove orders a planned move; Cancel withdraws the order with index Mark.
type RequestMove struct {
	Stamp
	Service string `json:"service"`
	To      string `json:"to,omitempty"`
	Cancel  bool   `json:"cancel,omitempty"`
	Mark    uint64 `json:"mark,omitempty"`
}

// ReportFailure says that a node could not start or keep a service under an epoch.
type ReportFailure struct {
	Stamp
	Service string `json:"service"`
	Epoch   uint64 `json:"epoch"`
	Node    string `json:"node"`
}

// ClearFailures forgets the failures of a service, on one node or on all.
type ClearFailures struct {
	Stamp
	Service string `json:"service"`
	Node    string `json:"node,omitempty"`
}

// Kind names the command.
func (Found) Kind() string         { return "found" }
func (LeaderStart) Kind() string   { return "leader" }
func (SetNode) Kind() string       { return "node" }
func (RemoveNode) Kind() string    { return "node-remove" }
func (Started) Kind() string       { return "started" }
func (OpenSession) Kind() string   { return "session-open" }
func (CloseSession) Kind() string  { return "session-close" }
func (EndSession) Kind() string    { return "session-end" }
func (StartFence) Kind() string    { return "fence" }
func (GrantService) Kind() string  { return "grant" }
func (HandOver) Kind() string      { return "handover" }
func (Released) Kind() string      { return "released" }
func (SetServices) Kind() string   { return "services" }
func (SetPause) Kind() string      { return "pause" }
func (SetStandby) Kind() string    { return "standby" }
func (RequestMove) Kind() string   { return "move" }
func (ReportFailure) Kind() string { return "failure" }
func (ClearFailures) Kind() string { return "cleanup" }

// Result is what applying a command gave. Refused is nil when the command did
// what it says or had been done before.
type Result struct {
	Index   uint64   `json:"index"`             // of the entry
	Session uint64   `json:"session,omitempty"` // OpenSession: the session to use
	Epoch   uint64   `json:"epoch,omitempty"`   // GrantService, HandOver: the epoch given
	Refused *Refusal `json:"refused,omitempty"`
}

// Refusal is a command that the state machine did not carry out. The state is
// unchanged but for its index.
type Refusal struct {
	Code string `json:"code"` // stable, e.g. "epoch-not-over"
	Why  string `json:"why"`  // in words, with what to do next
}

// Error makes a Refusal an error.
func (r *Refusal) Error() string { return r.Why }
