package state

import (
	"testing"

	"pgregory.net/rapid"
)

// FuzzCommands lets the coverage of the state machine's code guide what
// TestProperties only draws: sequences of commands, held against the model and
// against replicas that took other ways to the same index.
func FuzzCommands(f *testing.F) {
	f.Add(seedBytes(1))
	f.Add(seedBytes(2))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		w := world{t: t, s: settled(t), m: newModel(), seen: counted{done: map[string]int{}, refused: map[string]int{}}}
		w.restored = w.s.Clone()
		w.follow()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step()
		}
		w.finish()
	}))
}

// seedBytes are bytes for a drawn sequence of some length; what they mean is
// rapid's affair, and does not matter.
func seedBytes(seed uint64) []byte {
	b := make([]byte, 8<<10)
	for i := range b {
		seed = seed*6364136223846793005 + 1442695040888963407
		b[i] = byte(seed >> 56)
	}
	return b
}
