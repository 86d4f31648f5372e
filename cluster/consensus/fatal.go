package consensus

import (
	"sync"
)

// verdict is the end of a node's part, reached at most once. Every part of the
// node that must stand still when something cannot be survived looks at it.
type verdict struct {
	mu   sync.Mutex
	err  error
	done chan struct{} // closed with the first error
	out  chan error    // what Node.Fatal hands out; holds the one error

	// released is closed when the node stops: whoever was parked because of the
	// error may return then, since nothing can leave the node any more.
	released    chan struct{}
	releaseOnce sync.Once
}

func newVerdict() *verdict {
	return &verdict{done: make(chan struct{}), out: make(chan error, 1), released: make(chan struct{})}
}

// reach ends the node's part. Only the first error counts: what follows is its
// consequence.
func (v *verdict) reach(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return
	}
	v.err = err
	v.out <- err
	close(v.done)
}

// reached returns the error that ended the node's part, or nil.
func (v *verdict) reached() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// park keeps a goroutine of raft where it is until the node is stopped. raft
// would panic on, or shrug at, some of the errors that end a node's part; a
// call that does not return makes it do neither.
func (v *verdict) park() { <-v.released }

// release lets the parked go. The transport is shut for good before.
func (v *verdict) release() { v.releaseOnce.Do(func() { close(v.released) }) }
