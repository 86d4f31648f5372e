//go:build race

package lease

// The model runs in one thread: the race detector finds nothing in it and makes
// it many times slower.
func init() { *worlds /= 20 }
