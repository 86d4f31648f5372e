package lease

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

// MembershipView is what a leader knows before it appends a configuration with
// another set of voters (rule 14). All of it is of its own term and is thrown
// away with its leadership.
type MembershipView struct {
	Now   clock.Reading
	Term  uint64       // the leader's own
	State *state.State // as the leader itself has applied it

	// FirstApplied is when the leader applied the LeaderStart of its own term
	// (State.LeaderTerm shows that term), not when it was told that it leads.
	FirstApplied clock.Reading
	// LastCommitted is when the leader saw its latest change of voters committed;
	// nil when it has made none in this term.
	LastCommitted *clock.Reading
	// Pending says that the latest configuration is not committed yet.
	Pending bool

	Current Configuration // the latest, which is also the committed one unless Pending
	Next    Configuration // the one to append

	// Committed is the index of the leader's own state after a Barrier. A commit
	// index of raft does not serve: no-ops and barriers never reach the state.
	Committed uint64
	// Applied holds the index of each node's state, as the nodes said themselves
	// after Committed was taken, the leader's own included. Raft's applied index
	// does not serve: it means handed over, not applied.
	Applied map[string]uint64

	// FenceAlone holds the closing sessions that wait for an unreachable fence
	// device and nothing else: their D has passed, and no accepted proof but
	// fencing is left. They do not hold up a change.
	FenceAlone map[uint64]bool
}

// MayChange says whether the leader may append v.Next now. If not, why says what
// is missing, and wait is after how long it is worth asking again; zero when
// that depends on an event and not on time.
func MayChange(v MembershipView) (ok bool, wait time.Duration, why string) {
	if v.State == nil || v.State.LeaderTerm != v.Term {
		return false, 0, "this leader has not applied the first entry of its own term yet"
	}
	if v.Pending {
		return false, 0, "the last change of the voters is not committed yet"
	}
	if why := oneStep(v.Current, v.Next); why != "" {
		return false, 0, why
	}
	longest, closing := unended(v.State, v.FenceAlone)
	if len(closing) > 0 {
		return false, 0, "a session is closing: " + strings.Join(closing, ", ") + "; the voters change once it has ended"
	}
	if left := longest - clock.Shorter(v.FirstApplied, v.Now); left > 0 {
		return false, left, fmt.Sprintf("leases given before this leader's term may last another %v", left.Round(time.Millisecond))
	}
	if v.LastCommitted != nil {
		if left := longest - clock.Shorter(*v.LastCommitted, v.Now); left > 0 {
			return false, left, fmt.Sprintf("leases given under the voters before the last change may last another %v", left.Round(time.Millisecond))
		}
	}
	var behind []string
	for _, n := range v.Next.Voters {
		at, heard := v.Applied[n]
		switch {
		case !heard:
			behind = append(behind, n+" has not answered")
		case at < v.Committed:
			behind = append(behind, fmt.Sprintf("%s has applied %d of %d", n, at, v.Committed))
		}
	}
	if len(v.Next.Voters)-len(behind) < v.Next.Majority() {
		return false, 0, "no majority of the new voters has applied all that is committed: " + strings.Join(behind, ", ")
	}
	return true, 0, ""
}

// oneStep says what is wrong with a change, or nothing when exactly one voter
// comes or goes. By names, not by ID: a hash is no proof of a difference.
func oneStep(from, to Configuration) string {
	var added, removed []string
	for _, n := range to.Voters {
		if !from.Has(n) {
			added = append(added, n)
		}
	}
	for _, n := range from.Voters {
		if !to.Has(n) {
			removed = append(removed, n)
		}
	}
	switch {
	case len(to.Voters) == 0:
		return "a cluster without voters decides nothing"
	case len(added)+len(removed) == 0:
		return "the new voters are the present ones"
	case len(added)+len(removed) > 1:
		return fmt.Sprintf("one voter at a time: this would add %d and remove %d", len(added), len(removed))
	}
	return ""
}

// unended returns the longest wait that an unended session may call for, of the
// largest TTL and the largest κ, and the sessions whose closing holds up a change.
func unended(st *state.State, fenceAlone map[uint64]bool) (longest time.Duration, closing []string) {
	var ttl, kappa time.Duration
	var ids []uint64
	for id, s := range st.Sessions {
		if s.Status == state.SessionEnded {
			continue
		}
		ttl, kappa = max(ttl, s.TTL), max(kappa, s.Kappa)
		if s.Status == state.SessionClosing && !fenceAlone[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		closing = append(closing, fmt.Sprintf("%d of %s", id, st.Sessions[id].Node))
	}
	return Wait(ttl, kappa), closing
}
