package consensus

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ErrStranger means that a connection's other end is not who it should be: a
// node of another cluster, or another node at a node's address. raft itself
// never asks; it would count such a node's word as that of the one it dialled.
var ErrStranger = errors.New("not the node that was expected")

// greeting is the first thing on every connection, from the one who dials. It
// is answered by a welcome, and that by the caller's word: empty when it goes on.
type greeting struct {
	Cluster string `json:"cluster"`
	From    string `json:"from"`
	To      string `json:"to"`
	Address string `json:"address,omitempty"` // of From, as it stands in its own file
	Birth   string `json:"birth,omitempty"`   // of From's data
	Past    past   `json:"past"`              // To's, as From knows it
}

// welcome is the answer to a greeting.
type welcome struct {
	Why   string `json:"why,omitempty"` // the connection is refused
	Birth string `json:"birth,omitempty"`
	Past  past   `json:"past"` // the caller's, as this node knows it
}

const (
	greetingMagic = "failoverd raft 2\n"
	greetingMax   = 4 << 10
	greetingTime  = 5 * time.Second // for whoever connects to us and is slow
)

// stream carries raft's connections: TCP or TLS, and a greeting.
type stream struct {
	listener  net.Listener
	advertise string
	tls       *tls.Config
	cluster   string
	node      string
	resolve   func(address string) (string, error)
	log       *slog.Logger
	lost      chan string // nodes that had made a connection which has ended; may be nil
	// past is what is known of the others' and of this node's own; may be nil.
	past *continuity
	// memberAt is a member's address in the configuration; may be nil.
	memberAt func(node string) (address string, ok bool)
	// stranger is told of a member that was refused, here or by that member; may be nil.
	stranger func(node, why string)

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

// Accept waits for a connection. The greeting is read by whoever reads first,
// so that a slow caller holds up nobody else.
func (s *stream) Accept() (net.Conn, error) {
	conn, err := s.listener.Accept()
	if err != nil {
		return nil, err
	}
	tracked, err := s.track(conn)
	if err != nil {
		return nil, err
	}
	if s.tls != nil {
		return &guest{Conn: tls.Server(tracked, s.tls), stream: s}, nil
	}
	return &guest{Conn: tracked, stream: s}, nil
}

// Dial connects to a target as the gate writes it: node@address.
func (s *stream) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, address, ok := strings.Cut(string(target), "@")
	if !ok {
		return nil, fmt.Errorf("dial %q: no node is named", target)
	}
	address, err := s.resolve(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", node, err)
	}
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", node, err)
	}
	conn, err := s.track(raw)
	if err != nil {
		return nil, err
	}
	conn, err = s.greet(ctx, conn, node, address, deadline)
	if err != nil {
		return nil, fmt.Errorf("greet %s at %s: %w", node, address, err)
	}
	return conn, nil
}

// greet does the caller's half: TLS, the greeting, and the answer to it.
func (s *stream) greet(ctx context.Context, conn net.Conn, node, address string, deadline time.Time) (net.Conn, error) {
	raw := conn
	fail := func(err error) (net.Conn, error) {
		raw.Close()
		return nil, err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return fail(err)
	}
	if s.tls != nil {
		config := s.tls.Clone()
		if config.ServerName == "" {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return fail(err)
			}
			config.ServerName = host
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return fail(err)
		}
		conn = secure
	}
	hello := greeting{Cluster: s.cluster, From: s.node, To: node, Address: s.advertise}
	if s.past != nil {
		hello.Birth, hello.Past = s.past.birth, s.past.about(node)
	}
	body, err := json.Marshal(hello)
	if err != nil {
		return fail(err)
	}
	if err := writeFrame(conn, append([]byte(greetingMagic), body...)); err != nil {
		return fail(err)
	}
	answer, err := readFrame(conn)
	if err != nil {
		return fail(err)
	}
	var w welcome
	if err := strict(answer, &w); err != nil {
		return fail(fmt.Errorf("%w: it answers in another version: %q", ErrStranger, answer))
	}
	if w.Why != "" {
		s.refused(node, w.Why)
		return fail(fmt.Errorf("%w: it says: %q", ErrStranger, w.Why))
	}
	var outlived error
	if s.past != nil {
		s.past.met(node, w.Birth)
		outlived = s.past.check(node, w.Past)
	}
	if err := writeFrame(conn, []byte(text(outlived))); err != nil {
		return fail(err)
	}
	if outlived != nil {
		return fail(outlived)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	return conn, nil
}

// guest is an accepted connection that has still to greet.
type guest struct {
	net.Conn
	stream *stream
	once   sync.Once
	err    error
	from   string
}

// Read reads the greeting first.
func (g *guest) Read(p []byte) (int, error) {
	g.once.Do(func() { g.err = g.welcome() })
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.Conn.Read(p)
	if err != nil && !g.stream.isClosed() {
		select {
		case g.stream.lost <- g.from:
		default: // another one is being looked at
		}
	}
	return n, err
}

func (g *guest) welcome() error {
	if err := g.SetDeadline(time.Now().Add(greetingTime)); err != nil {
		return err
	}
	frame, err := readFrame(g.Conn)
	if err != nil {
		return err
	}
	hello, why := g.stream.objection(frame)
	answer := welcome{Why: why}
	if p := g.stream.past; p != nil && why == "" {
		answer.Birth, answer.Past = p.birth, p.about(hello.From)
		if err := p.check(hello.From, hello.Past); err != nil {
			answer = welcome{Why: err.Error()}
		}
	}
	// What the caller wrote stands in it too: it must fit a frame, escapes and all.
	answer.Why = answer.Why[:min(len(answer.Why), greetingMax/8)]
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	if err := writeFrame(g.Conn, body); err != nil {
		return err
	}
	if answer.Why != "" {
		g.stream.log.Warn("raft connection refused", "from", g.RemoteAddr().String(), "why", answer.Why)
		g.stream.refused(hello.From, answer.Why)
		return fmt.Errorf("%w: %s", ErrStranger, answer.Why)
	}
	word, err := readFrame(g.Conn)
	if err != nil {
		return err
	}
	if len(word) > 0 {
		g.stream.log.Warn("raft connection given up by the caller", "from", g.RemoteAddr().String(), "why", string(word))
		g.stream.refused(hello.From, string(word))
		return fmt.Errorf("%w: it says: %q", ErrStranger, word)
	}
	g.from = hello.From
	return g.SetDeadline(time.Time{})
}

// refused tells of a connection with a member that came to nothing.
func (s *stream) refused(node, why string) {
	if s.stranger == nil || s.memberAt == nil {
		return
	}
	if _, member := s.memberAt(node); member {
		s.stranger(node, why)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// objection reads a greeting and says why it is not for this node, or "".
func (s *stream) objection(frame []byte) (g greeting, why string) {
	body, ok := strings.CutPrefix(string(frame), greetingMagic)
	if !ok || strict([]byte(body), &g) != nil {
		return greeting{}, "this port speaks raft of failoverd: another program or another version called"
	}
	if g.Cluster != s.cluster {
		return g, fmt.Sprintf("this is node %s of cluster %s, the caller %s belongs to cluster %s: one of them has data of another cluster in its data directory", s.node, s.cluster, g.From, g.Cluster)
	}
	if g.To != s.node {
		return g, fmt.Sprintf("this is node %s, the caller %s wanted node %s at this address: correct the address of one of them", s.node, g.From, g.To)
	}
	if g.From == s.node {
		return g, fmt.Sprintf("the caller has this node's own name %s: two nodes of one name, or an address of this node given to another", s.node)
	}
	if s.memberAt != nil && g.Address != "" {
		if at, member := s.memberAt(g.From); member && at != g.Address {
			return g, twoOfOneName(g.From, at, g.Address)
		}
	}
	return g, ""
}

// twoOfOneName is what is said to a caller under a member's name and from
// another address than the member's.
func twoOfOneName(name, known, here string) string {
	return fmt.Sprintf("node %s is at %s in this cluster, and a node of that name calls from %s: two nodes of one name, or a node that has moved and must be replaced", name, known, here)
}

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func writeFrame(to io.Writer, body []byte) error {
	if len(body) > greetingMax {
		body = body[:greetingMax]
	}
	frame := binary.BigEndian.AppendUint16(nil, uint16(len(body)))
	_, err := to.Write(append(frame, body...))
	return err
}

func readFrame(from io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > greetingMax {
		return nil, fmt.Errorf("greeting of %d bytes", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(from, body)
	return body, err
}

// Addr is the address that the others know, whatever this node listens on.
func (s *stream) Addr() net.Addr { return advertised(s.advertise) }

type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// Close stops listening and ends every connection: raft's transport would
// leave accepted ones to their readers.
func (s *stream) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	err := s.listener.Close()
	for conn := range open {
		conn.Close()
	}
	return err
}

// track returns a connection that Close ends too.
func (s *stream) track(conn net.Conn) (net.Conn, error) {
	t := &tracked{Conn: conn, stream: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	s.open[t] = struct{}{}
	return t, nil
}

type tracked struct {
	net.Conn
	stream *stream
}

// Close ends the connection.
func (t *tracked) Close() error {
	t.stream.mu.Lock()
	delete(t.stream.open, t)
	t.stream.mu.Unlock()
	return t.Conn.Close()
}
