package gossip

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
	lookAgain  = time.Second // the loop looks at least so often
	maxPeers   = maxNodes
)

// caller remembers when an address is to be called again.
type caller struct {
	wait time.Duration
	next time.Time
}

// SetPeers replaces the addresses that are called while nobody is alive there,
// for nodes that are added or removed. This node's own address and what is no
// host:port are left out.
func (g *Gossip) SetPeers(addresses []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	peers := map[string]*caller{}
	for _, a := range addresses {
		ap, err := netip.ParseAddrPort(a)
		if err != nil || a == g.address || len(peers) >= maxPeers {
			continue
		}
		a = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
		if known := g.peers[a]; known != nil {
			peers[a] = known
		} else {
			peers[a] = &caller{wait: firstRetry}
		}
	}
	g.peers = peers
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// rejoin calls every peer that is not among the living, more and more slowly,
// for as long as this node gossips. memberlist joins once and forgets the dead
// for good: after a long partition nobody would call.
func (g *Gossip) rejoin() {
	defer g.wg.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.wake:
		case <-timer.C:
		}
		g.call(g.toCall(time.Now()))
		timer.Reset(g.pause(time.Now()))
	}
}

// toCall returns the addresses whose time has come and sets their next time.
func (g *Gossip) toCall(now time.Time) []string {
	living := g.book.living()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leaving || g.stopped {
		return nil
	}
	var out []string
	for a, c := range g.peers {
		switch {
		case living[a]:
			c.wait, c.next = firstRetry, time.Time{}
		case !now.Before(c.next):
			out = append(out, a)
			// Spread, lest all nodes of a cluster that comes back call at once.
			c.next = now.Add(c.wait*3/4 + rand.N(c.wait/2))
			c.wait = min(2*c.wait, lastRetry)
		}
	}
	return out
}

// pause is how long nothing need be called.
func (g *Gossip) pause(now time.Time) time.Duration {
	living := g.book.living()
	g.mu.Lock()
	defer g.mu.Unlock()
	pause := lookAgain
	for a, c := range g.peers {
		if !living[a] {
			pause = min(pause, max(c.next.Sub(now), time.Millisecond))
		}
	}
	return pause
}

// call joins at each address, all at once: one that is powered off takes the
// whole stream timeout.
func (g *Gossip) call(addresses []string) {
	var wg sync.WaitGroup
	for _, a := range addresses {
		wg.Go(func() {
			// The error is in memberlist's own debug line; the next call follows by itself.
			if n, err := g.list.Join([]string{a}); err == nil && n > 0 {
				g.log.Debug("gossip: exchanged with a peer", "address", a)
			}
		})
	}
	wg.Wait()
}
