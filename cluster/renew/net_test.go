package renew

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

const (
	ms      = time.Millisecond
	patient = 20 * time.Second // how long a test waits for what must come
	nonce   = 4242
)

// member is a node of a test's cluster: a voter side with a state of its own, a
// socket, and what its callbacks were told.
type member struct {
	*Conn
	voter *lease.Voter
	clk   clock.Clock
	index uint64

	extends chan extension
	refused chan lease.Reason
	ages    chan told
}

type extension struct {
	until clock.Reading
	left  time.Duration
}

type told struct {
	voter    string
	question Question
	session  uint64
	age      time.Duration
	standing lease.Standing
	at       clock.Reading
}

// cluster is some members that know one another's addresses.
type cluster struct {
	t       *testing.T
	mu      sync.Mutex
	key     []byte
	conf    lease.Configuration
	targets []Target
	members map[string]*member
	session uint64
}

func (c *cluster) where() (lease.Configuration, []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conf, c.targets
}

func (c *cluster) secret() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key
}

// newCluster starts nodes on loopback, all of them voters; adjust may change the
// options of each.
func newCluster(t *testing.T, names []string, adjust func(name string, o *Options)) *cluster {
	t.Helper()
	c := &cluster{
		t: t, key: []byte("0123456789abcdef0123456789abcdef"), conf: lease.NewConfiguration(names),
		members: map[string]*member{},
	}
	for _, n := range names {
		o := Options{
			Address: netip.MustParseAddrPort("127.0.0.1:0"), Self: n, Key: c.secret, Clock: clock.System(),
			Targets: c.where, Interval: 20 * ms,
		}
		if adjust != nil {
			adjust(n, &o)
		}
		m := &member{clk: o.Clock, extends: make(chan extension, 1000), refused: make(chan lease.Reason, 1000), ages: make(chan told, 1000)}
		m.voter = lease.NewVoter(n, nonce, o.Clock, func() lease.Configuration { conf, _ := c.where(); return conf })
		if o.Voter == nil {
			o.Voter = m.voter
		}
		conn, err := Listen(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		m.Conn = conn
		conn.OnExtend(func(until clock.Reading, left time.Duration) { m.extends <- extension{until, left} })
		conn.OnRefused(func(_ uint64, why lease.Reason) {
			select {
			case m.refused <- why:
			default:
			}
		})
		conn.OnAge(func(voter string, q Question, session uint64, age time.Duration, a lease.Standing, _, at clock.Reading) {
			m.ages <- told{voter, q, session, age, a, at}
		})
		c.mu.Lock()
		c.members[n] = m
		c.targets = append(c.targets, Target{ID: n, Addr: conn.LocalAddr()})
		c.mu.Unlock()
	}
	c.commit(state.Found{ID: "cluster", Key: make([]byte, 32)})
	for _, n := range names {
		c.commit(state.SetNode{Node: n, Role: state.RoleVoter, Address: "192.0.2.1:7100"})
	}
	for _, n := range names {
		c.commit(state.Started{Node: n, Nonce: nonce, Birth: "birth", BootID: "boot"})
	}
	c.session = c.commit(state.OpenSession{Node: names[0], BootID: "boot", TTL: time.Second, Kappa: 50 * ms})
	return c
}

// commit applies a command on every member.
func (c *cluster) commit(cmd state.Command) uint64 {
	c.t.Helper()
	var session uint64
	for n, m := range c.members {
		session = c.commitOn(n, cmd)
		_ = m
	}
	return session
}

func (c *cluster) commitOn(name string, cmd state.Command) uint64 {
	c.t.Helper()
	m := c.members[name]
	m.index++
	res := m.voter.Apply(m.index, 1, cmd)
	if res.Refused != nil {
		c.t.Fatalf("%s: %s", cmd.Kind(), res.Refused.Why)
	}
	return res.Session
}

// take waits for something from a channel.
func take[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patient):
		t.Fatalf("no %s within %v", what, patient)
		panic("unreachable")
	}
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(patient)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patient, what)
		}
		time.Sleep(ms) // between two looks
	}
}

// bad is a network that loses, repeats and delays what is sent through a socket.
type bad struct {
	socket
	mu                sync.Mutex
	rnd               *rand.Rand
	lose, twice, keep int // of 100
	kept              []packet
}

type packet struct {
	b  []byte
	to netip.AddrPort
}

func (s *bad) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rnd.IntN(100) < s.lose {
		return len(b), nil
	}
	if s.rnd.IntN(100) < s.keep {
		s.kept = append(s.kept, packet{append([]byte(nil), b...), to})
		return len(b), nil
	}
	if len(s.kept) > 0 && s.rnd.IntN(3) == 0 {
		i := s.rnd.IntN(len(s.kept))
		p := s.kept[i]
		s.kept = append(s.kept[:i], s.kept[i+1:]...)
		_, _ = s.socket.WriteToUDPAddrPort(p.b, p.to)
	}
	if s.rnd.IntN(100) < s.twice {
		_, _ = s.socket.WriteToUDPAddrPort(b, to)
	}
	return s.socket.WriteToUDPAddrPort(b, to)
}

// tap records what a socket receives.
type tap struct {
	socket
	mu  sync.Mutex
	got []packet
}

func (s *tap) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := s.socket.ReadFromUDPAddrPort(b)
	if err == nil {
		s.mu.Lock()
		s.got = append(s.got, packet{append([]byte(nil), b[:n]...), from})
		s.mu.Unlock()
	}
	return n, from, err
}

// ofKind returns what was received of a kind.
func (s *tap) ofKind(k kind) []packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []packet
	for _, p := range s.got {
		if len(p.b) > 1 && kind(p.b[1]) == k {
			out = append(out, p)
		}
	}
	return out
}

// pipe is a socket without a network: a test writes what it receives and sees
// what it sends.
type pipe struct {
	in   chan packet
	out  chan packet
	done chan struct{}
	once sync.Once

	reads atomic.Int64 // that have begun
}

func newPipe() *pipe {
	return &pipe{in: make(chan packet), out: make(chan packet, 1000), done: make(chan struct{})}
}

func (p *pipe) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	p.reads.Add(1)
	select {
	case <-p.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	case m := <-p.in:
		return copy(b, m.b), m.to, nil
	}
}

func (p *pipe) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case p.out <- packet{append([]byte(nil), b...), to}:
	default:
	}
	return len(b), nil
}

func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
func (p *pipe) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (p *pipe) Close() error                     { p.once.Do(func() { close(p.done) }); return nil }
