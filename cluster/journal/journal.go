// Package journal is a node's synced record of what it may be running: the
// session it renews, and each service epoch that it has activated or is giving
// up (LEASE.md, 9, 11 and 12). Every change is on the disk when its call
// returns.
//
// The record is what a restarted daemon goes by before it has heard from
// anybody: entries of this boot and session it may keep running if it finds
// them running, all others it proves stopped and releases. It is therefore
// never taken for empty because it cannot be read.
//
// The file is a sequence of checksummed records, appended and synced one at a
// time, and rewritten as a whole (written beside, synced, renamed, directory
// synced) at each Open and when it has grown.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// The sentinels of this package.
var (
	// ErrFailed: a sync, or something of equal weight, failed once. What is on the
	// disk is unknown since then, and no later sync can be trusted: stop serving,
	// stop renewing, exit.
	ErrFailed = errors.New("journal failed; restart the daemon once the disk is well")
	// ErrDamaged: the file is neither whole nor merely torn at its end.
	ErrDamaged = errors.New("journal is damaged")
	// ErrNewer: the file was written by a newer version of the program.
	ErrNewer = errors.New("journal was written by a newer version")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("journal is closed")
	// ErrNoSession: nothing can be activated before a session of this boot is recorded.
	ErrNoSession = errors.New("journal has no session of this boot")
	// ErrReleasing: the epoch is being given up; it is never activated again (R1).
	ErrReleasing = errors.New("epoch is being given up")
	// ErrForeign: the epoch was activated in another boot or session: prove it
	// stopped and release it.
	ErrForeign = errors.New("epoch was activated in another boot or session")
)

// Session is the session that the node renews, and what it needs to go on
// renewing it after a restart of the daemon, before Raft is loaded.
type Session struct {
	BootID string        `json:"boot_id"` // filled in by SetSession when empty
	ID     uint64        `json:"id"`
	TTL    time.Duration `json:"ttl"`   // H
	Kappa  time.Duration `json:"kappa"` // κ
	// Voters is the configuration that was renewed with last. A stale list is
	// merely refused by the voters.
	Voters []VoterAddr `json:"voters"`
	Key    []byte      `json:"key"` // authenticates renewals
	// Incarnation tells the lives of the node's data apart.
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// VoterAddr says where a voter is reached for renewals.
type VoterAddr struct {
	ID   string `json:"id"`
	Addr string `json:"addr"` // host:port
}

func (s Session) clone() Session {
	s.Voters = slices.Clone(s.Voters)
	s.Key = bytes.Clone(s.Key)
	return s
}

func (s Session) equal(o Session) bool {
	return s.BootID == o.BootID && s.ID == o.ID && s.TTL == o.TTL && s.Kappa == o.Kappa &&
		s.Incarnation == o.Incarnation && bytes.Equal(s.Key, o.Key) && slices.Equal(s.Voters, o.Voters)
}

// State is how far an entry's epoch is.
type State string

// The states of an entry. It never goes back.
const (
	StateActive    State = "active"    // may be running
	StateReleasing State = "releasing" // proven stopped, or never started; being given up
)

// Entry is an epoch of a service that this node has activated or is giving up,
// with the boot and session in which that was recorded.
type Entry struct {
	BootID     string `json:"boot_id"`
	Session    uint64 `json:"session"`
	Service    string `json:"service"`
	Epoch      uint64 `json:"epoch"`
	State      State  `json:"state"`
	Generation uint64 `json:"generation,omitempty"` // of the service's specification
	// Note is the caller's own: what was started, so that it can be stopped after
	// the specification has changed.
	Note []byte `json:"note,omitempty"`
}

type entryKey struct {
	service string
	epoch   uint64
}

// Journal is an open record. It is safe for concurrent use: changes take turns,
// and a change that hangs with the disk does not keep Session and Entries from
// answering with what was last known to be synced.
type Journal struct {
	bootID string
	file   *logFile

	change sync.Mutex // held for a whole change, I/O included

	mu      sync.Mutex // guards what follows; never held during I/O
	session *Session
	entries map[entryKey]Entry
}

// Open opens or creates the journal in a directory whose lock the caller holds.
// A record torn by a crash at the file's end was never relied upon and is
// dropped. Any other damage is an error that says what to do (ErrDamaged,
// ErrNewer). The file is always written anew: a program that ran before may have
// seen a sync fail, after which what can be read need not be on the disk.
func Open(dir, bootID string) (*Journal, error) { return open(osDisk{dir}, bootID) }

func open(d disk, bootID string) (*Journal, error) {
	if bootID == "" {
		return nil, errors.New("open journal: no boot id")
	}
	j := &Journal{bootID: bootID, entries: make(map[entryKey]Entry), file: &logFile{disk: d, grow: growTo}}
	records, err := j.file.load()
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	for _, r := range records {
		j.apply(r)
	}
	if err := j.file.rewrite(j.live()); err != nil {
		j.file.close()
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return j, nil
}

// apply changes the memory as a record says.
func (j *Journal) apply(r record) {
	if r.Session != nil {
		j.session = r.Session
	}
	if e := r.Entry; e != nil {
		j.entries[entryKey{e.Service, e.Epoch}] = *e
	}
	if e := r.Erase; e != nil {
		delete(j.entries, entryKey{e.Service, e.Epoch})
	}
}

// live returns the records that amount to what is in memory, in a fixed order.
func (j *Journal) live() []record {
	var out []record
	if j.session != nil {
		out = append(out, record{Session: j.session})
	}
	for _, e := range j.sorted() {
		out = append(out, record{Entry: &e})
	}
	return out
}

func (j *Journal) sorted() []Entry {
	out := make([]Entry, 0, len(j.entries))
	for _, e := range j.entries {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		if a.Service != b.Service {
			if a.Service < b.Service {
				return -1
			}
			return 1
		}
		if a.Epoch < b.Epoch {
			return -1
		}
		return 1
	})
	return out
}

// commit syncs a record and only then lets it be seen.
func (j *Journal) commit(r record) error {
	j.mu.Lock()
	live := j.live()
	j.mu.Unlock()
	if err := j.file.append(r, live); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.apply(r)
	return nil
}

// Session returns the recorded session, of whatever boot, and whether there is
// one. Only a session of this boot may be resumed.
func (j *Journal) Session() (Session, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.session == nil {
		return Session{}, false
	}
	return j.session.clone(), true
}

// SetSession records the session that is about to be renewed, before its first
// renewal, and again when the voters change. One that is recorded already costs
// no sync.
func (j *Journal) SetSession(s Session) error {
	j.change.Lock()
	defer j.change.Unlock()
	s = s.clone()
	if s.BootID == "" {
		s.BootID = j.bootID
	}
	if s.BootID != j.bootID {
		return fmt.Errorf("record session %d: it is of boot %s, this is boot %s: open a new session", s.ID, s.BootID, j.bootID)
	}
	if s.ID == 0 {
		return errors.New("record session: it has no id")
	}
	if err := j.file.usable(); err != nil {
		return fmt.Errorf("record session %d: %w", s.ID, err)
	}
	if old, ok := j.Session(); ok && old.equal(s) {
		return nil
	}
	failpoint.Here("journal.session.before")
	if err := j.commit(record{Session: &s}); err != nil {
		return fmt.Errorf("record session %d: %w", s.ID, err)
	}
	return nil
}

// Active records that an epoch is about to be activated under the recorded
// session; call it before anything is started, and again when what is started
// changes. Generation is the specification's, note is the caller's own.
func (j *Journal) Active(service string, epoch uint64, generation uint64, note []byte) error {
	j.change.Lock()
	defer j.change.Unlock()
	if err := j.active(service, epoch, generation, note); err != nil {
		return fmt.Errorf("record %s epoch %d as active: %w", service, epoch, err)
	}
	return nil
}

func (j *Journal) active(service string, epoch uint64, generation uint64, note []byte) error {
	if err := j.file.usable(); err != nil {
		return err
	}
	s, ok := j.Session()
	if !ok || s.BootID != j.bootID {
		return ErrNoSession
	}
	e := Entry{
		BootID: j.bootID, Session: s.ID, Service: service, Epoch: epoch,
		State: StateActive, Generation: generation, Note: bytes.Clone(note),
	}
	if old, ok := j.entry(service, epoch); ok {
		switch {
		case old.State == StateReleasing:
			return ErrReleasing
		case old.BootID != e.BootID || old.Session != e.Session:
			return ErrForeign
		case old.Generation == generation && bytes.Equal(old.Note, note):
			return nil
		}
	}
	failpoint.Here("journal.active.before")
	return j.commit(record{Entry: &e})
}

// Releasing records that an epoch is proven stopped, or was never started, and
// is being given up: from here on it is never activated again. An entry of
// another boot or session keeps their names.
func (j *Journal) Releasing(service string, epoch uint64) error {
	j.change.Lock()
	defer j.change.Unlock()
	if err := j.releasing(service, epoch); err != nil {
		return fmt.Errorf("record %s epoch %d as releasing: %w", service, epoch, err)
	}
	return nil
}

func (j *Journal) releasing(service string, epoch uint64) error {
	if err := j.file.usable(); err != nil {
		return err
	}
	e, ok := j.entry(service, epoch)
	if ok && e.State == StateReleasing {
		return nil
	}
	if !ok {
		e = Entry{BootID: j.bootID, Service: service, Epoch: epoch}
		if s, ok := j.Session(); ok && s.BootID == j.bootID {
			e.Session = s.ID
		}
	}
	e.State = StateReleasing
	failpoint.Here("journal.releasing.before")
	return j.commit(record{Entry: &e})
}

// Erase forgets an epoch; only after the applied state shows it over. An epoch
// that is not recorded is no error.
func (j *Journal) Erase(service string, epoch uint64) error {
	j.change.Lock()
	defer j.change.Unlock()
	err := j.file.usable()
	if err == nil {
		if _, ok := j.entry(service, epoch); !ok {
			return nil
		}
		failpoint.Here("journal.erase.before")
		err = j.commit(record{Erase: &erase{Service: service, Epoch: epoch}})
	}
	if err != nil {
		return fmt.Errorf("erase %s epoch %d: %w", service, epoch, err)
	}
	return nil
}

// Entries returns all entries, of whatever boot and session, by service and epoch.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.sorted()
	for i := range out {
		out[i].Note = bytes.Clone(out[i].Note)
	}
	return out
}

// Mine reports whether an entry is of this boot and of the recorded session: one
// that may go on running if it is found running.
func (j *Journal) Mine(e Entry) bool {
	s, ok := j.Session()
	return ok && s.BootID == j.bootID && e.BootID == s.BootID && e.Session == s.ID
}

func (j *Journal) entry(service string, epoch uint64) (Entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.entries[entryKey{service, epoch}]
	return e, ok
}

// Close closes the file. What was recorded stays.
func (j *Journal) Close() error {
	j.change.Lock()
	defer j.change.Unlock()
	return j.file.close()
}
