package consensus

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// snapshots is the store of snapshots. raft creates one here for its own state
// and for what the leader sends; the latter must be newer than what is applied.
type snapshots struct {
	raft.SnapshotStore
	gate *gate
}

// Create begins a snapshot. The gate has refused a late one already, but an
// entry may have been applied between; here, on raft's main loop, no more can be.
func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	if req := s.gate.installing.Load(); req != nil && req.LastLogIndex == index && req.LastLogTerm == term {
		if applied := s.gate.raft.Load().AppliedIndex(); index <= applied {
			return nil, fmt.Errorf("%w: snapshot of index %d came late, %d is applied", ErrBackwards, index, applied)
		}
	}
	failpoint.Here("raft.snapshot.create")
	return s.SnapshotStore.Create(version, index, term, c, configurationIndex, trans)
}
