package consensus

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// A process that dies leaves no timeout to wait for: the kernel ends its
// connections and refuses new ones. A follower that sees both happen to its
// leader need not wait until the heartbeats have been missing for long enough.
// Nothing rests on its being right: the election has all of raft's conditions,
// and an alive leader that loses one is merely replaced.

const (
	redials     = 3
	redialPause = 5 * time.Millisecond // between them: a dying process closes its sockets one by one
	redialTime  = 200 * time.Millisecond
)

// mourn looks after nodes whose connections have ended. Between two elections
// that it begins lies some time, lest a firewall that resets connections keep
// moving the leadership round.
func (g *gate) mourn() {
	defer g.wait.Done()
	quiet := time.Time{}
	for {
		select {
		case node := <-g.stream.lost:
			if time.Now().After(quiet) && g.succeed(node) {
				quiet = time.Now().Add(10 * g.election)
			}
		case <-g.stop:
			return
		}
	}
}

// succeed stands for election if the node was the leader and its process is
// dead, the survivors one after the other in the order of their names.
func (g *gate) succeed(node string) bool {
	r := g.raft.Load()
	if r == nil {
		return false
	}
	leads := func() bool {
		_, id := r.LeaderWithID()
		return string(id) == node && r.State() == raft.Follower
	}
	address, _ := r.LeaderWithID()
	rank := g.rank(r, node)
	if rank < 0 || !leads() || !g.refuses(string(address)) {
		return false
	}
	if !g.sleep(time.Duration(rank)*g.election/2) || !leads() {
		return false
	}
	answered := make(chan raft.RPCResponse, 1)
	return g.pass(raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, RespChan: answered})
}

// rank is this node's place among the voters without the dead one, or -1.
func (g *gate) rank(r *raft.Raft, dead string) int {
	var voters []string
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && string(s.ID) != dead {
			voters = append(voters, string(s.ID))
		}
	}
	slices.Sort(voters)
	rank := slices.Index(voters, g.stream.node)
	if rank >= 0 && g.hesitant.Load() {
		rank += len(voters)
	}
	return rank
}

// refuses reports whether nobody listens at an address any more.
func (g *gate) refuses(address string) bool {
	to, err := g.stream.resolve(address)
	if err != nil {
		return false
	}
	for range redials {
		ctx, cancel := context.WithTimeout(context.Background(), redialTime)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", to)
		cancel()
		if errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
		if err != nil {
			return false
		}
		conn.Close()
		if !g.sleep(redialPause) {
			return false
		}
	}
	return false
}

// sleep waits unless the gate is closed first.
func (g *gate) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-g.stop:
		return false
	}
}
