package gossip

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/failoverd/failoverd/cluster/decide"
)

const (
	// gossipToTheDead is how long memberlist goes on telling a dead node that it is dead.
	gossipToTheDead = 30 * time.Second
	// streamTimeout bounds a dial and every exchange over TCP.
	streamTimeout = 2 * time.Second
	// spreadTimeout bounds the wait for news of this node to be passed on.
	spreadTimeout = 2 * time.Second
)

var (
	// ErrStopped: the adapter was stopped.
	ErrStopped = errors.New("gossip is stopped")
	// ErrOptions: the options cannot work; the text says which and why.
	ErrOptions = errors.New("invalid gossip options")
)

// Timing sets how fast a death is noticed, and how often wrongly. See config.Timing.
type Timing struct {
	Probe     time.Duration // between two probes
	Timeout   time.Duration // of the direct answer; shorter than Probe
	Interval  time.Duration // between two rounds of passing news on
	Suspicion int           // probe intervals from suspicion to death, times log10 of the number of nodes
}

// Options is what Start needs.
type Options struct {
	// Meta describes this node; Name and Incarnation are its identity.
	Meta Meta
	// Address is where this node gossips, host:port, TCP and UDP. Other nodes
	// are told this same address. Port 0 takes a free one: for tests.
	Address string
	// Label keeps clusters apart: packets of another label are dropped unread.
	Label string
	// Key encrypts and authenticates: 16, 24 or 32 bytes; nil: neither.
	Key []byte
	// Peers are gossip addresses that are called until somebody is alive there.
	Peers  []string
	Timing Timing
	Log    *slog.Logger
	// OnChange is called after what Members returns has changed, several
	// changes at once, from one goroutine; it must not call Stop. May be nil.
	OnChange func()
	// OnConflict is called, from the same goroutine, for a second node of a name
	// that is taken, this node's own included; once a minute each. May be nil.
	OnConflict func(Conflict)

	forget time.Duration // of the dead, by memberlist; tests shorten it
}

// Gossip is a running memberlist.
type Gossip struct {
	log        *slog.Logger
	lines      *logBridge
	book       *book
	list       *memberlist.Memberlist
	transport  *transport
	address    string
	onChange   func()
	onConflict func(Conflict)

	ctx    context.Context // ends with Stop
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // the rejoin loop looks again

	mu      sync.Mutex
	meta    Meta
	encoded []byte
	peers   map[string]*caller // by address, this node's own excepted
	leaving bool
	stopped bool
}

// Start listens and begins to call the peers. It returns at once: that nobody
// answers yet is no error.
func Start(o Options) (*Gossip, error) {
	host, port, err := o.check()
	if err != nil {
		return nil, err
	}
	encoded, err := o.Meta.encode()
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{
		log: o.Log, book: newBook(o.Meta.Name), onChange: o.OnChange, onConflict: o.OnConflict,
		meta: o.Meta, encoded: encoded, wake: make(chan struct{}, 1), peers: map[string]*caller{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.lines = newLogBridge(o.Log)
	logger := log.New(g.lines, "", 0)
	if g.transport, err = newTransport(host, port, logger); err != nil {
		g.cancel()
		return nil, fmt.Errorf("listen for gossip on %s: %w", o.Address, err)
	}
	port = g.transport.GetAutoBindPort()
	g.address = net.JoinHostPort(host, fmt.Sprint(port))
	if g.list, err = memberlist.Create(o.settings(g, host, port, logger)); err != nil {
		g.cancel()
		return nil, fmt.Errorf("start gossip: %w", errors.Join(err, g.transport.Shutdown()))
	}
	g.SetPeers(o.Peers)
	g.wg.Add(2)
	go g.rejoin()
	go g.notify()
	return g, nil
}

// check returns the host and port to listen on.
func (o *Options) check() (string, int, error) {
	ap, err := netip.ParseAddrPort(o.Address)
	switch t := o.Timing; {
	case err != nil || ap.Addr().IsUnspecified():
		return "", 0, fmt.Errorf("%w: address %q is no host:port of this node", ErrOptions, o.Address)
	case len(o.Label) > memberlist.LabelMaxSize:
		return "", 0, fmt.Errorf("%w: the label has %d bytes, %d are possible", ErrOptions, len(o.Label), memberlist.LabelMaxSize)
	case len(o.Key) != 0 && len(o.Key) != 16 && len(o.Key) != 24 && len(o.Key) != 32:
		return "", 0, fmt.Errorf("%w: the key has %d bytes; 16, 24 or 32 are needed", ErrOptions, len(o.Key))
	case t.Probe <= 0 || t.Timeout <= 0 || t.Timeout >= t.Probe || t.Interval <= 0 || t.Suspicion < 1:
		return "", 0, fmt.Errorf("%w: timing %+v", ErrOptions, t)
	}
	return ap.Addr().Unmap().String(), int(ap.Port()), nil
}

// settings are memberlist's, every one that matters said.
func (o *Options) settings(g *Gossip, host string, port int, logger *log.Logger) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = o.Meta.Name
	c.Transport = g.transport
	c.Logger = logger
	c.BindAddr, c.BindPort = host, port
	c.AdvertiseAddr, c.AdvertisePort = host, port
	c.Label = o.Label
	c.SkipInboundLabelCheck = false
	c.SecretKey = o.Key
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	c.EnableCompression = false // packets are small, and time matters
	c.ProbeInterval, c.ProbeTimeout = o.Timing.Probe, o.Timing.Timeout
	c.GossipInterval = o.Timing.Interval
	c.SuspicionMult = o.Timing.Suspicion
	// A host that is busy finds the others dead; this keeps it from saying so.
	c.AwarenessMaxMultiplier = 8
	c.PushPullInterval = 10 * time.Second
	c.TCPTimeout = streamTimeout
	c.GossipToTheDeadTime = cmp.Or(o.forget, gossipToTheDead)
	// A name may move to another address once its node has been dead for a while.
	c.DeadNodeReclaimTime = c.GossipToTheDeadTime
	c.RequireNodeNames = false // peers are called by address, before their names are known
	c.HandoffQueueDepth = 256
	d := &delegate{g}
	c.Delegate, c.Events, c.Ping, c.Alive, c.Conflict = d, d, d, d, d
	c.DisableTcpPingsForNode = d.probeLost
	return c
}

// Address is where this node gossips, host:port.
func (g *Gossip) Address() string { return g.address }

// Members returns every node that was ever seen, this one excepted, by name. A
// name that is not there is unknown.
func (g *Gossip) Members() map[string]Sight { return g.book.members() }

// Sights is Members as the deciding code takes it.
func (g *Gossip) Sights() map[string]decide.Sight {
	out := map[string]decide.Sight{}
	for name, s := range g.book.members() {
		out[name] = s.State
	}
	return out
}

// Health is 0 when this node keeps up with its own probing, and grows to 7 the
// less it does: then what it says of others means little.
func (g *Gossip) Health() int { return g.list.GetHealthScore() }

// UpdateMeta tells the others something new about this node. Name and
// Incarnation cannot change. It returns when the news has begun to spread.
func (g *Gossip) UpdateMeta(m Meta) error {
	encoded, err := m.encode()
	if err != nil {
		return err
	}
	g.mu.Lock()
	if m.Name != g.meta.Name || m.Incarnation != g.meta.Incarnation {
		g.mu.Unlock()
		return fmt.Errorf("%w: name and incarnation stay while a node lives", ErrMeta)
	}
	if g.stopped || g.leaving {
		g.mu.Unlock()
		return ErrStopped
	}
	g.meta, g.encoded = m, encoded
	g.wg.Add(1) // while the lock is held, so that Stop waits
	g.mu.Unlock()
	defer g.wg.Done()
	if err := g.list.UpdateNode(spreadTimeout); err != nil {
		g.log.Debug("gossip: news of this node spread slowly", "error", err)
	}
	return nil
}

// Leave says goodbye, so that the others need not find out. It returns when
// the word has been passed on, after two seconds, or when ctx ends. The node
// goes on listening until Stop.
func (g *Gossip) Leave(ctx context.Context) error {
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return ErrStopped
	}
	first := !g.leaving
	g.leaving = true
	g.wg.Add(1)
	g.mu.Unlock()
	if !first {
		g.wg.Done()
		return nil
	}
	done := make(chan error, 1)
	go func() {
		defer g.wg.Done()
		g.sayGoodbye()
		err := g.list.Leave(spreadTimeout)
		g.sayGoodbye() // a datagram can be lost
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("leave gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave gossip: %w", ctx.Err())
	}
}

// sayGoodbye tells every living node directly, without waiting for a round.
func (g *Gossip) sayGoodbye() {
	g.mu.Lock()
	word, err := json.Marshal(goodbye{Name: g.meta.Name, Incarnation: g.meta.Incarnation})
	g.mu.Unlock()
	if err != nil {
		return // two plain fields always encode
	}
	for address := range g.book.living() {
		if err := g.list.SendToAddress(memberlist.Address{Addr: address}, word); err != nil {
			g.log.Debug("gossip: goodbye not sent", "to", address, "error", err)
		}
	}
}

// Stop ends gossip without a word, as a crash would, unless Leave came first.
// It waits for everything that it started; what memberlist itself leaves behind
// (a probe or a timer, for some seconds) has no effect any more.
func (g *Gossip) Stop() error {
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return nil
	}
	g.stopped = true
	g.mu.Unlock()
	g.cancel()
	g.transport.interrupt() // a call in progress need not run into its timeout
	g.wg.Wait()
	err := g.list.Shutdown()
	g.lines.close() // timers of memberlist outlive it
	if err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

// notify calls back, outside of every lock, until Stop.
func (g *Gossip) notify() {
	defer g.wg.Done()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.book.changed:
		}
		select {
		case g.wake <- struct{}{}:
		default:
		}
		for _, c := range g.book.due() {
			g.log.Warn("gossip: a second node uses a name that is taken", "name", c.Name, "known", c.Known, "other", c.Intruder)
			if g.onConflict != nil {
				g.onConflict(c)
			}
		}
		if g.onChange != nil {
			g.onChange()
		}
	}
}
