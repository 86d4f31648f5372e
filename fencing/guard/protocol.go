package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The versions of the protocol that this code speaks. A client says its own
// range first; the guard answers with the highest that both know.
const (
	ProtocolVersion    = 1
	MinProtocolVersion = 1
)

// Kappa is how long after the deadline the last supervised process may still
// run, whatever becomes of the guard (LEASE.md, "Enforcement on the holder").
const Kappa = 50 * time.Millisecond

// The sentinels of what a guard may answer; they keep their identity over the socket.
var (
	// ErrGuardLost: the guard is dead, or does not answer. What it supervised
	// ends by itself, at its deadline at the latest.
	ErrGuardLost = errors.New("guard lost")
	// ErrRefused: the request makes no sense or would be unsafe; the text says why.
	ErrRefused = errors.New("refused by the guard")
	// ErrNoLease: the deadline has passed, or none was set yet; nothing is started.
	ErrNoLease = errors.New("no lease")
	// ErrSession: the guard holds the deadline of another session.
	ErrSession = errors.New("another session")
	// ErrNotFound: nothing of that name is supervised.
	ErrNotFound = errors.New("not supervised")
	// ErrConflict: something else runs under that name, or the name is busy.
	ErrConflict = errors.New("conflict")
	// ErrStart: the program could not be started.
	ErrStart = errors.New("cannot start")
	// ErrNotProven: it could not be shown that everything has stopped.
	ErrNotProven = errors.New("not proven stopped")
	// ErrContainment: neither PID namespaces nor user namespaces may be made here.
	ErrContainment = errors.New("no PID namespace")
	// ErrUnsupported: the guard is older than the request.
	ErrUnsupported = errors.New("not supported by this guard")
	// ErrClocks: guard and client do not read the same clocks.
	ErrClocks = errors.New("clocks differ")
	// ErrTaken: another living guard serves this directory.
	ErrTaken = errors.New("another guard is running")
)

// kinds is how sentinels travel.
var kinds = map[string]error{
	"lost": ErrGuardLost, "refused": ErrRefused, "no_lease": ErrNoLease, "session": ErrSession,
	"not_found": ErrNotFound, "conflict": ErrConflict, "start": ErrStart, "not_proven": ErrNotProven,
	"containment": ErrContainment, "unsupported": ErrUnsupported, "clocks": ErrClocks, "taken": ErrTaken,
}

// wireError is an error on the socket.
type wireError struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Text: err.Error()}
	for kind, sentinel := range kinds {
		if errors.Is(err, sentinel) {
			w.Kind = kind
			break
		}
	}
	return w
}

func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	if s, ok := kinds[w.Kind]; ok {
		return &remoteError{text: w.Text, is: s}
	}
	return errors.New(w.Text)
}

// remoteError keeps the guard's words and the sentinel behind them.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// The operations. An operation that a guard does not know is answered with
// ErrUnsupported, and the connection goes on.
const (
	opHello    = "hello"
	opExtend   = "extend"
	opPing     = "ping"
	opRelease  = "release"
	opStart    = "start"
	opStop     = "stop"
	opSignal   = "signal"
	opRun      = "run"
	opList     = "list"
	opOutput   = "output"
	opGates    = "gates"
	opWatch    = "watch"
	opShutdown = "shutdown"
)

// request is one frame from the client; reply one from the guard. A frame
// without an id is an event.
type request struct {
	ID   uint64          `json:"id"`
	Op   string          `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

type reply struct {
	ID    uint64          `json:"id,omitempty"`
	Error *wireError      `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
	Event *Event          `json:"event,omitempty"`
}

// hello opens every connection. Deadlines are absolute readings, so both sides
// must read the same clocks: Now is compared.
type hello struct {
	Min    int      `json:"min"`
	Max    int      `json:"max"`
	BootID string   `json:"boot_id"`
	Now    Deadline `json:"now"`
}

// Info is what a guard says of itself.
type Info struct {
	Protocol int      `json:"protocol"` // agreed for this connection
	Version  string   `json:"version"`  // of the program
	Pid      int      `json:"pid"`
	BootID   string   `json:"boot_id"`
	Session  uint64   `json:"session"`  // 0: none
	Deadline Deadline `json:"deadline"` // zero: none
	Lapses   uint64   `json:"lapses"`   // deadlines that were reached
	// Cgroup is the directory of the guard's groups; empty: cgroup v2 cannot be
	// written here, and PID namespaces alone prove what has stopped.
	Cgroup string `json:"cgroup,omitempty"`
	// CgroupText says why there is none.
	CgroupText string `json:"cgroup_text,omitempty"`
	// KernelTimer: a frozen guard dies with everything it supervises. Text says why not.
	KernelTimer     bool   `json:"kernel_timer"`
	KernelTimerText string `json:"kernel_timer_text,omitempty"`
	// Realtime and MemoryLocked: what was asked for and granted.
	Realtime     bool   `json:"realtime"`
	MemoryLocked bool   `json:"memory_locked"`
	RealtimeText string `json:"realtime_text,omitempty"`
	// Leftovers says what a dead predecessor had left and this guard removed.
	Leftovers []string `json:"leftovers,omitempty"`
}

// extendBody carries a deadline of a session.
type extendBody struct {
	Session  uint64   `json:"session"`
	Deadline Deadline `json:"deadline"`
}

// UnitKind tells what is supervised under a name.
type UnitKind string

// A process is one program that must go on running; a unit of hooks is a
// namespace in which hooks are run one after the other and what they leave behind lives on.
const (
	KindProcess UnitKind = "process"
	KindHooks   UnitKind = "hooks"
)

// Spec says what to supervise.
type Spec struct {
	// Name is the unit's name: printable ASCII, no '/', at most 200 bytes (see UnitName).
	Name string   `json:"name"`
	Kind UnitKind `json:"kind"` // default: process
	// Session and Epoch it belongs to. A unit of the same name, session and
	// epoch that runs already is adopted. Session 0 is filled in by the client.
	Session uint64 `json:"session"`
	Epoch   uint64 `json:"epoch"`

	Command     []string `json:"command,omitempty"`     // the program by absolute path, and its arguments
	Environment []string `json:"environment,omitempty"` // KEY=value, added to a small basic environment
	Directory   string   `json:"directory,omitempty"`   // default /
	User        string   `json:"user,omitempty"`        // default: the guard's

	StopSignal  string        `json:"stop_signal,omitempty"`  // TERM, SIGTERM, 15; default TERM
	StopTimeout time.Duration `json:"stop_timeout,omitempty"` // then KILL; default 10 s
	// Restarts is how many crashes in a row are answered by a restart; a minute
	// of good running starts the count anew.
	Restarts int `json:"restarts,omitempty"`
	// Tasks bounds processes and threads, give or take 300; 0: DefaultTasks. It holds
	// where the pids controller or a PID limit per namespace (Linux 6.14) is at hand.
	Tasks int `json:"tasks,omitempty"`
	// LogBytes bounds the log file; it is rotated once. 0: DefaultLogBytes.
	LogBytes int64 `json:"log_bytes,omitempty"`
	// ShareMounts lets mounts made inside reach the host, where the host's own
	// are shared (as systemd makes them). Without it host mounts reach the
	// service, and not the other way round.
	ShareMounts bool `json:"share_mounts,omitempty"`
}

// Defaults of Spec.
const (
	DefaultStopTimeout = 10 * time.Second
	DefaultTasks       = 32768
	DefaultLogBytes    = 8 << 20
)

// UnitState is where a unit is in its life.
type UnitState string

// The states of a unit. In the last three nothing of it runs, proven.
const (
	UnitStarting UnitState = "starting"
	UnitRunning  UnitState = "running"
	UnitStopping UnitState = "stopping" // asked to, or being killed: not proven yet
	UnitBackoff  UnitState = "backoff"  // crashed, will be restarted
	UnitFailed   UnitState = "failed"   // crashed too often, or could not be started
	UnitKilled   UnitState = "killed"   // by the deadline
	UnitStopped  UnitState = "stopped"
)

// Gone reports whether nothing of the unit runs and nothing will by itself.
func (s UnitState) Gone() bool { return s == UnitFailed || s == UnitKilled || s == UnitStopped }

// Running is a unit as List shows it.
type Running struct {
	Name     string    `json:"name"`
	Kind     UnitKind  `json:"kind"`
	Session  uint64    `json:"session"`
	Epoch    uint64    `json:"epoch"`
	State    UnitState `json:"state"`
	Text     string    `json:"text,omitempty"` // why, in words
	Pid      int       `json:"pid,omitempty"`  // of its init, seen by the guard; 0: none
	Since    time.Time `json:"since"`          // of the state; wall clock, shown only
	Restarts int       `json:"restarts"`       // since the unit's start
	LastExit string    `json:"last_exit,omitempty"`
	Leased   bool      `json:"leased"`           // ends with the deadline
	Cgroup   string    `json:"cgroup,omitempty"` // directory; empty: none
	Proc     bool      `json:"proc"`             // has a /proc of its own
	UserNS   bool      `json:"user_ns"`          // needed a user namespace
	Dropped  uint64    `json:"dropped"`          // bytes of output that the log could not take
	Hook     string    `json:"hook,omitempty"`   // being run
	// HookStarted: a start hook has ended well in this unit.
	HookStarted bool `json:"hook_started,omitempty"`
}

type startReply struct {
	Adopted bool    `json:"adopted"`
	Unit    Running `json:"unit"`
}

type nameBody struct {
	Name    string        `json:"name"`
	Signal  string        `json:"signal,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Hook is one command to be run in a unit of hooks.
type Hook struct {
	// Unit it is run in. When there is none, Start hooks fail, and others get a
	// unit of their own for as long as they run.
	Unit string `json:"unit"`
	// Start marks the hook that starts a service: it needs the lease, and what
	// it leaves behind lives on in the unit.
	Start bool `json:"start,omitempty"`
	// Label names it in logs: start, stop, status.
	Label string `json:"label"`

	Command     []string      `json:"command"` // by absolute path
	Environment []string      `json:"environment,omitempty"`
	Directory   string        `json:"directory,omitempty"`
	User        string        `json:"user,omitempty"`
	Timeout     time.Duration `json:"timeout"` // then everything it started is killed; over 0
}

// HookResult is what became of a hook.
type HookResult struct {
	// Known: the hook ended by itself, with Exit or Signal. Otherwise Text says
	// what happened, and whether it did its work is unknown.
	Known  bool   `json:"known"`
	Exit   int    `json:"exit"`
	Signal string `json:"signal,omitempty"`
	Text   string `json:"text,omitempty"`
	// Output is the last MaxHookOutput bytes of standard output and error.
	Output   []byte        `json:"output,omitempty"`
	Cut      uint64        `json:"cut,omitempty"` // bytes before that
	Took     time.Duration `json:"took"`
	TimedOut bool          `json:"timed_out,omitempty"`
}

// MaxHookOutput is how much of a hook's output is kept.
const MaxHookOutput = 64 << 10

type outputReply struct {
	Output []byte `json:"output"`
}

// Gate is what is shut and removed at the deadline, before anything is killed.
type Gate struct {
	Table     string    `json:"table"` // of package vip/gate; empty: no gate
	Addresses []Address `json:"addresses,omitempty"`
}

// Address is one to be deleted at the deadline.
type Address struct {
	CIDR      string `json:"cidr"` // as it stands on the interface
	Interface string `json:"interface"`
}

type gatesBody struct {
	Gates []Gate `json:"gates"`
}

type watchBody struct {
	Since  uint64 `json:"since"` // sequence number of the last event seen
	Output bool   `json:"output"`
}

// UnitName makes the unit name of a service's resource. Characters that a unit
// name may not have are written as %XX, so that two resources never share one.
func UnitName(service, resource string) string {
	return escapeName(service) + ":" + escapeName(resource)
}

func escapeName(s string) string {
	var b []byte
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b = append(b, c)
		default:
			b = fmt.Appendf(b, "%%%02X", c)
		}
	}
	return string(b)
}

// checkUnitName accepts what is safe as a file name and as a cgroup's.
func checkUnitName(name string) error {
	if name == "" || len(name) > 200 || name[0] == '.' {
		return fmt.Errorf("%w: %q is no unit name", ErrRefused, name)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == '/' {
			return fmt.Errorf("%w: unit name %q: only printable ASCII without '/'", ErrRefused, name)
		}
	}
	return nil
}
