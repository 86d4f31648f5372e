package gossip

import (
	"context"
	"errors"
	"log"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Limits of the transport. Legitimate traffic of a hundred nodes stays far below.
const (
	maxPacket      = 2048      // bytes; memberlist itself sends 1400 at the most
	maxStreams     = 8         // inbound at a time
	maxStreamBytes = 256 << 10 // read from one inbound or outbound stream
)

var errTooMuch = errors.New("the other side sends more than a cluster's gossip can need")

// transport is memberlist's own, with a limit to everything and an end that
// is waited for.
type transport struct {
	*memberlist.NetTransport
	ctx     context.Context // ends with Shutdown: dials are given up
	cancel  context.CancelFunc
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{} // closed when the listeners have ended
	end     sync.Once
	wg      sync.WaitGroup

	mu      sync.Mutex
	conns   map[*stream]bool // true: inbound
	inbound int
	closed  bool
}

// newTransport listens on TCP and UDP at the address.
func newTransport(host string, port int, logger *log.Logger) (*transport, error) {
	nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: port, Logger: logger})
	if err != nil {
		return nil, err
	}
	t := &transport{
		NetTransport: nt, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		done: make(chan struct{}), conns: map[*stream]bool{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Add(2)
	go t.passPackets()
	go t.passStreams()
	return t, nil
}

// passPackets drops what is larger than anything a node sends: a packet of 64
// KiB can be a compressed 40 MiB.
func (t *transport) passPackets() {
	defer t.wg.Done()
	for {
		select {
		case p := <-t.NetTransport.PacketCh():
			if len(p.Buf) > maxPacket {
				continue
			}
			select {
			case t.packets <- p:
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
}

func (t *transport) passStreams() {
	defer t.wg.Done()
	for {
		select {
		case conn := <-t.NetTransport.StreamCh():
			s := t.keep(conn, true)
			if s == nil {
				continue
			}
			select {
			case t.streams <- s:
			case <-t.done:
				_ = s.Close()
				return
			}
		case <-t.done:
			return
		}
	}
}

// keep counts a connection until it is closed, or closes it at once when there
// are too many or the transport has ended.
func (t *transport) keep(conn net.Conn, inbound bool) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || inbound && t.inbound >= maxStreams {
		_ = conn.Close()
		return nil
	}
	s := &stream{Conn: conn, owner: t, left: maxStreamBytes}
	t.conns[s] = inbound
	if inbound {
		t.inbound++
	}
	return s
}

func (t *transport) forget(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if inbound, there := t.conns[s]; there {
		delete(t.conns, s)
		if inbound {
			t.inbound--
		}
	}
}

// PacketCh is part of memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is part of memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout is part of memberlist.Transport.
func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

// DialAddressTimeout is part of memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = time.Nanosecond // zero would wait for ever
	}
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	if s := t.keep(conn, false); s != nil {
		return s, nil
	}
	return nil, net.ErrClosed
}

// interrupt gives up dials and closes every stream, now and from now on.
// Datagrams still go out.
func (t *transport) interrupt() {
	t.cancel()
	t.mu.Lock()
	t.closed = true
	var open []*stream
	for s := range t.conns {
		open = append(open, s)
	}
	t.mu.Unlock()
	for _, s := range open {
		_ = s.Close()
	}
}

// Shutdown is part of memberlist.Transport: it ends the listeners and all
// streams, and waits for the goroutines of this transport.
func (t *transport) Shutdown() error {
	t.interrupt()
	err := t.NetTransport.Shutdown() // its listeners hand over what they have, so this comes before done
	t.end.Do(func() { close(t.done) })
	t.wg.Wait()
	return err
}

// stream is a connection that can be read so far and no further.
type stream struct {
	net.Conn
	owner *transport
	left  int // only touched by the reader
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, errTooMuch
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

func (s *stream) Close() error {
	s.owner.forget(s)
	return s.Conn.Close()
}
