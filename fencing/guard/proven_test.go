package guard

import (
	"context"
	"errors"
	"testing"
)

// nil is the proof that nothing of a unit lives: whoever cannot wait for it has none.
func TestAStopThatWasNotSeenThroughIsNotProven(t *testing.T) {
	u := &unit{stopped: make(chan struct{})}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.proven(over); !errors.Is(err, ErrNotProven) {
		t.Errorf("given up waiting: %v", err)
	}
	close(u.stopped)
	if err := u.proven(over); err != nil {
		t.Errorf("stopped: %v", err)
	}
}
