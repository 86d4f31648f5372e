package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Leave gives everything up before the daemon stops for good: services move to
// others where somebody can take them, else they are stopped and released.
func (n *Node) Leave(ctx context.Context) error {
	failpoint.Here("leave.begin")
	for _, u := range n.allUnits() {
		if u.holding() {
			n.wg.Go(func() { n.moveAway(ctx, u.name) })
		}
	}
	limited, cancel := context.WithTimeout(ctx, leaveMoveLimit)
	if err := n.awaitIdle(limited); err != nil {
		n.Log.Warn("not everything moved away in time; the rest is stopped and released", "err", err)
	}
	cancel()
	n.mu.Lock()
	n.leaving = true
	n.mu.Unlock()
	n.Poke()
	if err := n.awaitIdle(ctx); err != nil {
		return err
	}
	failpoint.Here("leave.idle")
	n.sayGoodbye(ctx)
	failpoint.Here("leave.goodbye")
	n.Renewals.Drop()
	return nil
}

// leaveMoveLimit is how long a stop waits for others to take the services over.
const leaveMoveLimit = 15 * time.Second

// moveAway orders one service away and waits until it goes or the order is
// withdrawn: then there is nobody to take it, and it is stopped and released.
func (n *Node) moveAway(ctx context.Context, service string) {
	failpoint.Here("leave.move.before")
	limited, cancel := context.WithTimeout(ctx, proposeLimit)
	res, err := n.commit(limited, state.RequestMove{Service: service, Stamp: n.stamp("", n.Self+" stops")})
	cancel()
	if err != nil {
		n.releaseAll(service, err.Error())
		return
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		st := n.Voter.View()
		svc := st.Services[service]
		switch {
		case svc == nil || n.leaves():
			return
		case st.Index < res.Index || svc.Move != nil:
		case len(svc.Unfinished()) == 1 && svc.Newest().Node == n.Self:
			n.releaseAll(service, lastWhy(st, service, res.Index))
			return
		default:
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// releaseAll stops waiting for others: everything here is stopped and released.
func (n *Node) releaseAll(service, why string) {
	n.Log.Warn("nobody takes the service over; it is stopped and released", "service", service, "why", why)
	n.mu.Lock()
	n.leaving = true
	n.mu.Unlock()
	n.Poke()
}

func (n *Node) leaves() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leaving
}

// awaitIdle waits until nothing runs here and the journal is empty.
func (n *Node) awaitIdle(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var busy []string
		for _, u := range n.allUnits() {
			if !u.idle() {
				busy = append(busy, u.name)
			}
		}
		if len(busy) == 0 && len(n.Journal.Entries()) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if len(busy) > 0 {
				return fmt.Errorf("%w: still stopping %s", ErrTimeout, strings.Join(busy, ", "))
			}
			return fmt.Errorf("%w: the release of what was stopped here is not committed yet", ErrTimeout)
		case <-tick.C:
		}
	}
}

func (n *Node) sayGoodbye(ctx context.Context) {
	n.mu.Lock()
	session := n.session
	n.mu.Unlock()
	if session == 0 || n.consensus() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	name, address := n.consensus().Leader()
	var err error
	switch {
	case name == n.Self:
		_, err = n.commit(ctx, state.CloseSession{Session: session, Stamp: n.stamp("", n.Self+" said goodbye: everything on it is stopped")})
	case address != "":
		var peer Peer
		if peer, err = n.Peers.Peer(address); err == nil {
			err = peer.Goodbye(ctx, n.Self, session)
		}
	default:
		err = errors.New("no leader is known")
	}
	if err != nil {
		n.Log.Info("left without a goodbye", "err", err)
	}
}

func (u *unit) idle() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.busy && u.phase == decide.PhaseStopped
}
