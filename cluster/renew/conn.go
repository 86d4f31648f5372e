package renew

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
)

// VoterSide is what answers for this node: *lease.Voter.
type VoterSide interface {
	Renew(session, configID uint64) (ok bool, why lease.Reason)
	Age(session uint64) (age time.Duration, a lease.Standing)
}

// Target is a voter and where it listens for renewals.
type Target struct {
	ID   string
	Addr netip.AddrPort
}

// Options is what a Conn needs.
type Options struct {
	// Address is where to listen. A port of 0 takes a free one (LocalAddr).
	Address netip.AddrPort
	// Self is this node's name, at most 255 bytes.
	Self string
	// Key returns the cluster's key; nil while it is not known: then nothing is
	// asked and nothing answered. It is called for every datagram, must not block,
	// and the slice must not be modified later.
	Key func() []byte
	// Voter is this node's own voter side. It is called directly for this node's
	// own vote.
	Voter VoterSide
	Clock clock.Clock
	// Targets returns the voters to ask and their configuration. Before Raft is
	// loaded the journal's list serves. It is called for every round, must not
	// block, and the slices must not be modified later. A voter without a known
	// address has the zero Addr and is not asked.
	Targets func() (lease.Configuration, []Target)
	// Interval is the time between two renewals, at most a third of any TTL.
	Interval time.Duration
	Log      *slog.Logger // nil: nothing is logged

	wrap func(socket) socket // tests: a network that loses datagrams
}

// socket is what a Conn uses of *net.UDPConn.
type socket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetWriteDeadline(t time.Time) error
	LocalAddr() net.Addr
	Close() error
}

// writeLimit is how long a datagram may wait for room in the socket. A network
// that takes longer has lost it.
const writeLimit = 20 * time.Millisecond

// Conn is a node's socket for renewals: holder, voter and leader in one. It is
// safe for concurrent use.
type Conn struct {
	opt  Options
	log  *slog.Logger
	sock socket
	self []byte // the node's name, never modified

	done chan struct{}
	wg   sync.WaitGroup

	seals struct { // for what is sent on this node's own account
		sync.Mutex
		sealer
		buf [maxDatagram]byte
	}

	mu        sync.Mutex
	targets   []Target      // of the latest round or question: who may answer
	holder    *lease.Holder // nil before the first Hold
	held      bool          // renewals are going on
	stop      chan struct{} // ends the sender of holder
	stopped   chan struct{} // closed when it has ended
	lastSeq   uint64        // of all holders before this one
	asks      [maxAsks]ask
	askSeq    uint64
	onExtend  func(until clock.Reading, left time.Duration)
	onRefused func(session uint64, why lease.Reason)
	onAge     func(voter string, q Question, session uint64, age time.Duration, a lease.Standing, asked, at clock.Reading)
	stats     Stats

	changing sync.Mutex // held by Hold, Drop and Close

	askNonce uint64
	extended chan struct{} // one value: the lease reaches further
	news     chan event

	// Of the receiver alone.
	in, out [maxDatagram]byte
	seal    sealer
	replay  replays
}

// Listen opens the socket and begins to answer.
func Listen(opt Options) (*Conn, error) {
	switch {
	case opt.Self == "" || len(opt.Self) > maxName:
		return nil, fmt.Errorf("listen for renewals: a node's name has 1 to %d bytes, not %d", maxName, len(opt.Self))
	case opt.Key == nil || opt.Voter == nil || opt.Clock == nil || opt.Targets == nil:
		return nil, errors.New("listen for renewals: Key, Voter, Clock and Targets are all needed")
	case opt.Interval <= 0:
		return nil, fmt.Errorf("listen for renewals: an interval of %v is none", opt.Interval)
	}
	network := "udp6"
	if opt.Address.Addr().Unmap().Is4() {
		network = "udp4"
	}
	u, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(opt.Address))
	if err != nil {
		return nil, fmt.Errorf("listen for renewals on %v: %w; is the port taken, and the address this host's?", opt.Address, err)
	}
	c := newConn(opt, u)
	c.wg.Add(3)
	go c.receive()
	go c.extend()
	go c.tell()
	return c, nil
}

func newConn(opt Options, s socket) *Conn {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.wrap != nil {
		s = opt.wrap(s)
	}
	return &Conn{
		opt: opt, log: opt.Log, sock: s, self: []byte(opt.Self),
		done:     make(chan struct{}),
		askNonce: rand.Uint64() | 1,
		extended: make(chan struct{}, 1),
		news:     make(chan event, maxNews),
		replay:   replays{bySession: make(map[uint64]*granted)},
	}
}

// LocalAddr is where the socket listens.
func (c *Conn) LocalAddr() netip.AddrPort {
	if a, ok := c.sock.LocalAddr().(*net.UDPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// Close stops renewing and answering and waits until no callback runs any more.
// It must not be called from a callback. What was granted in time runs out by itself.
func (c *Conn) Close() error {
	c.changing.Lock()
	defer c.changing.Unlock()
	select {
	case <-c.done:
		return nil
	default:
	}
	close(c.done)
	c.stopSender()
	err := c.sock.Close()
	c.wg.Wait()
	if err != nil {
		return fmt.Errorf("close socket for renewals: %w", err)
	}
	return nil
}

// OnExtend sets what is called after the lease was extended, with the absolute
// deadline and what is left of it. The calls come one at a time and in order,
// within a session never with an earlier deadline after a later one; extensions
// that come while a call is still running are told of in one more call, with the
// newest deadline. Set it before Hold.
func (c *Conn) OnExtend(f func(until clock.Reading, left time.Duration)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onExtend = f
}

// OnRefused sets what is called when a voter would not renew, one call at a time.
func (c *Conn) OnRefused(f func(session uint64, why lease.Reason)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onRefused = f
}

// OnAge sets what is called with each answer to Ask, one call at a time. Asked is
// this node's clock when the question was sent, and at when its answer was
// received: answers may arrive in another order than the questions were put. The
// answer to ConfirmClosed always has lease.StandingClosed.
func (c *Conn) OnAge(f func(voter string, q Question, session uint64, age time.Duration, a lease.Standing, asked, at clock.Reading)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onAge = f
}

// Stats counts what became of datagrams since Listen.
type Stats struct {
	Rounds   uint64 // renewals sent, each to every voter
	Granted  uint64 // renewals of others that this node said OK to
	Refused  uint64 // and that it said no to
	Replayed uint64 // and that came again or late
	Forged   uint64 // datagrams whose authentication is wrong
	Lost     uint64 // datagrams that could not be sent, and news dropped because nobody took it
}

// Stats returns the counts.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *Conn) count(n *uint64) {
	c.mu.Lock()
	*n++
	c.mu.Unlock()
}

// sendTo hands a sealed datagram to the socket.
func (c *Conn) sendTo(b []byte, to netip.AddrPort) {
	// The deadline keeps a full socket from holding up whoever sends.
	err := c.sock.SetWriteDeadline(time.Now().Add(writeLimit))
	if err == nil {
		_, err = c.sock.WriteToUDPAddrPort(b, to)
	}
	if err != nil {
		c.count(&c.stats.Lost)
	}
}

// voter returns the name of a node that may answer, without an allocation, or "".
func (c *Conn) voter(name []byte) string {
	for _, t := range c.targets {
		if t.ID == string(name) {
			return t.ID
		}
	}
	return ""
}
