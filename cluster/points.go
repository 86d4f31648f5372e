package cluster

import (
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// atCommit is the failpoint before a leader proposes what was decided, by kind:
// a leader that dies between two kinds leaves another state behind.
func atCommit(cmd state.Command) {
	switch cmd.(type) {
	case state.CloseSession:
		failpoint.Here("leader.close.before")
	case state.EndSession:
		failpoint.Here("leader.end.before")
	case state.GrantService:
		failpoint.Here("leader.grant.before")
	case state.HandOver:
		failpoint.Here("leader.handover.before")
	}
}

// atCommitted is the failpoint after the answer.
func atCommitted(cmd state.Command) {
	switch cmd.(type) {
	case state.CloseSession:
		failpoint.Here("leader.close.committed")
	case state.EndSession:
		failpoint.Here("leader.end.committed")
	case state.GrantService:
		failpoint.Here("leader.grant.committed")
	case state.HandOver:
		failpoint.Here("leader.handover.committed")
	}
}
