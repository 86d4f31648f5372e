package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Machine is what committed commands are applied to. Apply and Restore are
// called from one goroutine, in the order of the log.
type Machine interface {
	// Apply carries out the command of one entry. A refusal is in the result.
	Apply(index, term uint64, cmd state.Command) state.Result
	// Snapshot returns a state that is not changed afterwards.
	Snapshot() *state.State
	// Restore replaces the state. It fails, before it changes anything, for a
	// state whose index is below what has been applied.
	Restore(*state.State) error
}

// ErrBackwards means that the replicated state was about to go back. A voter's
// promises stand in it: one that forgets them may say yes to what it has closed.
var ErrBackwards = errors.New("replicated state would go back")

// applied is what Propose gets through raft's future.
type applied struct {
	result state.Result
	term   uint64
}

// fsm is raft's state machine over a Machine. After the first error it does
// nothing more: whatever came next would be applied to a state that lacks
// something, and a snapshot would make that loss look whole.
type fsm struct {
	machine Machine
	verdict *verdict
	index   atomic.Uint64 // of the last entry seen, commands and configurations
}

// Apply decodes and applies one entry.
func (f *fsm) Apply(log *raft.Log) any {
	if err := f.verdict.reached(); err != nil {
		return err
	}
	cmd, err := DecodeCommand(log.Data)
	if err != nil {
		err = fmt.Errorf("apply entry %d of term %d: %w", log.Index, log.Term, err)
		f.verdict.reach(err)
		return err
	}
	failpoint.Here("fsm.apply.before")
	result := f.machine.Apply(log.Index, log.Term, cmd)
	f.index.Store(log.Index)
	failpoint.Here("fsm.applied")
	return applied{result: result, term: log.Term}
}

// StoreConfiguration lets raft take a snapshot right after a change of the
// configuration; the configuration itself is raft's own.
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) { f.index.Store(index) }

// Snapshot captures the state.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.verdict.reached(); err != nil {
		return nil, err
	}
	failpoint.Here("fsm.snapshot")
	return snapshot{f.machine.Snapshot()}, nil
}

// Restore reads a snapshot. Whatever goes wrong ends the node's part: raft
// would try an older snapshot at a start, and the same one for ever later.
func (f *fsm) Restore(from io.ReadCloser) error {
	if err := f.verdict.reached(); err != nil {
		return err
	}
	err := f.restore(from)
	if err != nil {
		f.verdict.reach(err)
	}
	return err
}

func (f *fsm) restore(from io.Reader) error {
	data, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s, err := state.Decode(data)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	failpoint.Here("fsm.restore.before")
	if err := f.machine.Restore(s); err != nil {
		return fmt.Errorf("restore snapshot of index %d: %w: %w", s.Index, ErrBackwards, err)
	}
	failpoint.Here("fsm.restored")
	f.index.Store(s.Index)
	return nil
}

// snapshot is a state on its way to the disk.
type snapshot struct{ state *state.State }

// Persist writes the state.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	failpoint.Here("fsm.persist.before")
	data, err := s.state.Encode()
	if err == nil {
		_, err = sink.Write(data)
	}
	if err != nil {
		// The caller cancels the sink.
		return fmt.Errorf("write snapshot: %w", err)
	}
	failpoint.Here("fsm.persisted")
	return nil
}

// Release has nothing to release: the state is ours alone.
func (snapshot) Release() {}
