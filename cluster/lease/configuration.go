package lease

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// Configuration is a set of voters under a name of its own. Treat a value as
// immutable: its slice is shared.
type Configuration struct {
	// ID is a hash of the sorted voter IDs, the c of LEASE.md. It is never a log
	// index: one index can name two configurations, and raft does not tell it (R4).
	ID     uint64
	Voters []string // sorted, each once
}

// NewConfiguration names a set of voters. The order and repetitions of the
// names do not matter, the argument is not kept. It allocates: build the value
// when the membership changes, not at each renewal.
func NewConfiguration(voters []string) Configuration {
	sorted := slices.Clone(voters)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)

	// Lengths go in too, so that no two lists of names run into the same bytes.
	h := fnv.New64a()
	var n [8]byte
	for _, v := range sorted {
		binary.BigEndian.PutUint64(n[:], uint64(len(v)))
		h.Write(n[:])
		h.Write([]byte(v))
	}
	return Configuration{ID: h.Sum64(), Voters: sorted}
}

// Majority is how many voters decide. An empty configuration has one voter too
// few to decide anything.
func (c Configuration) Majority() int { return len(c.Voters)/2 + 1 }

// Has reports whether a node is a voter.
func (c Configuration) Has(voter string) bool { return c.index(voter) >= 0 }

// index is the place of a voter, or -1. A loop: there are three or five of them.
func (c Configuration) index(voter string) int {
	for i, v := range c.Voters {
		if v == voter {
			return i
		}
	}
	return -1
}
