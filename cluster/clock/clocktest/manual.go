// Package clocktest has a clock that moves only when a test moves it.
package clocktest

import (
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
)

// Manual is a clock for tests. The zero value starts at zero in both clocks.
// It is safe for concurrent use.
type Manual struct {
	mu  sync.Mutex
	now clock.Reading
}

// New returns a manual clock that shows r.
func New(r clock.Reading) *Manual { return &Manual{now: r} }

// Now returns what the clock shows.
func (m *Manual) Now() clock.Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Advance moves both clocks on by d, as on a machine that runs.
func (m *Manual) Advance(d time.Duration) { m.Move(d, d) }

// Suspend moves only CLOCK_BOOTTIME on by d, as a suspend of the machine does.
func (m *Manual) Suspend(d time.Duration) { m.Move(d, 0) }

// Move moves each clock on by an amount of its own, as slewing does. Negative
// amounts are ignored: neither clock ever goes back.
func (m *Manual) Move(boot, raw time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Boot += max(boot, 0)
	m.now.Raw += max(raw, 0)
}
