package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// errShut is what raft gets when it wants to send while the gate is shut.
var errShut = errors.New("raft transport is shut")

// ErrRestart means that this node can go on, but only from a new start.
var ErrRestart = errors.New("failoverd must be started again")

// gate is raft's transport. It is shut for good when the node has stopped
// taking part, and for sending while the disk hangs: a leader whose disk hangs
// would otherwise keep its followers with heartbeats and commit nothing
// (hashicorp/raft issues 503 and 666).
type gate struct {
	inner   *raft.NetworkTransport
	stream  *stream
	watch   *watch
	verdict *verdict

	rpcs  chan raft.RPC // to raft
	began chan struct{} // closed once raft runs
	stop  chan struct{}
	once  sync.Once
	wait  sync.WaitGroup

	raft atomic.Pointer[raft.Raft] // set once it runs
	// silent shuts the gate for sending, so that raft steps down.
	silent   atomic.Bool
	election time.Duration
	hesitant atomic.Bool // stands for election after all others

	// installing is the snapshot of the leader's that raft is at, if any.
	installing atomic.Pointer[raft.InstallSnapshotRequest]
}

func newGate(inner *raft.NetworkTransport, s *stream, w *watch, v *verdict, election time.Duration) *gate {
	g := &gate{
		inner: inner, stream: s, watch: w, verdict: v, election: election,
		rpcs: make(chan raft.RPC), began: make(chan struct{}), stop: make(chan struct{}),
	}
	g.wait.Add(2)
	go g.forward()
	go g.mourn()
	return g
}

// knows gives the gate its raft, which can be asked for its indexes now.
func (g *gate) knows(r *raft.Raft) { g.raft.Store(r) }

// begin lets requests in.
func (g *gate) begin() { close(g.began) }

// memberAt is a member's address in the latest configuration, once there is one.
func memberAt(r *raft.Raft, node string) (address string, ok bool) {
	if r == nil {
		return "", false
	}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if string(s.ID) == node {
			return string(s.Address), true
		}
	}
	return "", false
}

// shut says why nothing may be sent now, or nil.
func (g *gate) shut() error {
	if err := g.verdict.reached(); err != nil {
		return fmt.Errorf("%w: %w", errShut, err)
	}
	if g.silent.Load() {
		return fmt.Errorf("%w: this node gives its leadership up", errShut)
	}
	if since, stalled := g.watch.stalled(); stalled {
		return fmt.Errorf("%w: an access to the disk has been stuck for %v", errShut, since)
	}
	return nil
}

// target is a server as the stream dials it.
func target(id raft.ServerID, address raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + string(address))
}

// Consumer delivers the requests of the other nodes.
func (g *gate) Consumer() <-chan raft.RPC { return g.rpcs }

// LocalAddr is the address that the other nodes know.
func (g *gate) LocalAddr() raft.ServerAddress { return g.inner.LocalAddr() }

// AppendEntriesPipeline is refused: pipelining can wedge (hashicorp/raft issue 612).
func (g *gate) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries sends entries or a heartbeat.
func (g *gate) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := g.shut(); err != nil {
		return err
	}
	err := g.inner.AppendEntries(id, target(id, to), req, resp)
	if err == nil && resp.Success && g.stream.past != nil {
		g.stream.past.holds(string(id), min(req.PrevLogEntry+uint64(len(req.Entries)), req.LeaderCommitIndex))
	}
	return err
}

// RequestVote asks for a vote.
func (g *gate) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.inner.RequestVote(id, target(id, to), req, resp)
}

// RequestPreVote asks whether a vote would be given.
func (g *gate) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.inner.RequestPreVote(id, target(id, to), req, resp)
}

// InstallSnapshot sends a snapshot.
func (g *gate) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.inner.InstallSnapshot(id, target(id, to), req, resp, data)
}

// TimeoutNow tells a node to stand for election.
func (g *gate) TimeoutNow(id raft.ServerID, to raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.inner.TimeoutNow(id, target(id, to), req, resp)
}

// EncodePeer writes an address.
func (g *gate) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte { return []byte(address) }

// DecodePeer reads an address.
func (g *gate) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler does nothing, on purpose: raft's handler would apply a
// heartbeat beside the main loop, and a term that grows there can meet a
// leader that is just setting itself up (hashicorp/raft issue 695). Without a
// handler heartbeats take the same way as everything else.
func (g *gate) SetHeartbeatHandler(func(raft.RPC)) {}

// Close shuts the gate for good, ends all connections and waits for what the
// gate has running.
func (g *gate) Close() error {
	var err error
	g.once.Do(func() {
		close(g.stop)
		err = g.inner.Close()
		g.inner.CloseStreams()
		g.wait.Wait()
	})
	return err
}

// forward hands the other nodes' requests to raft, one after the other.
func (g *gate) forward() {
	defer g.wait.Done()
	select {
	case <-g.began:
	case <-g.stop:
		return
	}
	for {
		select {
		case rpc := <-g.inner.Consumer():
			g.hand(rpc)
		case <-g.stop:
			return
		}
	}
}

func (g *gate) hand(rpc raft.RPC) {
	switch req := rpc.Command.(type) {
	case *raft.InstallSnapshotRequest:
		g.install(rpc, req)
		return
	case *raft.RequestVoteRequest:
		if err := g.impostor(req.RPCHeader); err != nil {
			g.answer(rpc, nil, err)
			return
		}
	case *raft.RequestPreVoteRequest:
		if err := g.impostor(req.RPCHeader); err != nil {
			g.answer(rpc, nil, err)
			return
		}
	}
	g.pass(rpc)
}

// pass gives a request to raft's main loop and reports whether it took it.
func (g *gate) pass(rpc raft.RPC) bool {
	if err := g.verdict.reached(); err != nil {
		g.answer(rpc, nil, errShut)
		return false
	}
	select {
	case g.rpcs <- rpc:
		return true
	case <-g.verdict.done:
	case <-g.stop:
	}
	g.answer(rpc, nil, errShut)
	return false
}

// impostor objects to a candidate under the name of a member that calls from
// another address than the member's: a copied data directory, or a second
// node of one name.
func (g *gate) impostor(h raft.RPCHeader) error {
	if at, member := memberAt(g.raft.Load(), string(h.ID)); member && at != string(h.Addr) {
		return fmt.Errorf("%w: %s", ErrStranger, twoOfOneName(string(h.ID), at, string(h.Addr)))
	}
	return nil
}

// install passes a snapshot of the leader's on if it is news. raft takes any
// snapshot of the present term, even an older one that was late on its way,
// and sets what it has applied and its configuration back to that.
func (g *gate) install(rpc raft.RPC, req *raft.InstallSnapshotRequest) {
	r := g.raft.Load()
	if req.Term == r.CurrentTerm() && req.LastLogIndex <= r.AppliedIndex() {
		// All that is in it is on this disk and applied: that is what success
		// tells the leader, which may have missed the answer to the first sending.
		g.answer(rpc, &raft.InstallSnapshotResponse{Term: req.Term, Success: true}, nil)
		return
	}
	answered := make(chan raft.RPCResponse, 1)
	to := rpc.RespChan
	rpc.RespChan = answered
	g.installing.Store(req)
	defer g.installing.Store(nil)
	if !g.pass(rpc) {
		to <- <-answered
		return
	}
	// raft's main loop is busy with the snapshot until it answers.
	select {
	case a := <-answered:
		g.outgrown(r, req, a)
		to <- a
	case <-g.verdict.done:
		to <- raft.RPCResponse{Error: errShut}
	case <-g.stop:
		to <- raft.RPCResponse{Error: errShut}
	}
}

// outgrown ends the node's part after a snapshot was installed over a longer
// log. All of that log was of an old leadership and is deleted, but raft goes
// on taking its end for this node's last entry, would vote for candidates that
// lack what is committed, and could append nothing. A new start knows better.
func (g *gate) outgrown(r *raft.Raft, req *raft.InstallSnapshotRequest, a raft.RPCResponse) {
	resp, ok := a.Response.(*raft.InstallSnapshotResponse)
	if !ok || !resp.Success || r.LastIndex() <= req.LastLogIndex {
		return
	}
	g.verdict.reach(fmt.Errorf("%w: the leader's snapshot replaced a log that was longer, and never committed: start failoverd again, its data is good", ErrRestart))
}

// answer responds in raft's place. A snapshot that follows the request is read
// away first, or its bytes would be taken for the next request.
func (g *gate) answer(rpc raft.RPC, resp any, err error) {
	if rpc.Reader == nil {
		rpc.Respond(resp, err)
		return
	}
	g.wait.Add(1)
	go func() {
		defer g.wait.Done()
		// An error here is the connection's end, which its handler notices itself.
		_, _ = io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(resp, err)
	}()
}
