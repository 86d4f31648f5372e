package rpc

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// relay stands between a client and a node, passes bytes on, and can cut every
// connection without a goodbye.
type relay struct {
	listener net.Listener
	to       string
	work     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	shut  bool // refuse new connections
}

func newRelay(t *testing.T, to net.Listener) *relay {
	t.Helper()
	r := &relay{listener: listen(t), to: to.Addr().String(), conns: map[net.Conn]bool{}}
	r.work.Go(r.accept)
	t.Cleanup(func() {
		_ = r.listener.Close()
		r.cut()
		r.work.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		if r.shut {
			r.mu.Unlock()
			_ = errors.Join(in.Close(), out.Close())
			continue
		}
		r.conns[in], r.conns[out] = true, true
		r.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			r.work.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = errors.Join(pair[0].Close(), pair[1].Close())
			})
		}
	}
}

// cut ends all connections and refuses new ones until mend.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = true
	for c := range r.conns {
		delete(r.conns, c)
		_ = c.Close()
	}
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = false
}
