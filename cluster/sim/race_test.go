//go:build race

package sim

// defaultSeeds: the race detector is slow, and there is one goroutine to a world.
const defaultSeeds = 40
