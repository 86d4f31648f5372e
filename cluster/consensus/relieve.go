package consensus

import "github.com/hashicorp/raft"

// relieve has another voter stand for election at once when this leader's disk
// hangs. Without that the voters would wait for heartbeats until each of them
// has given the leader up, the one that holds a service twice as long as the
// others, and a vote is refused before. The message is that of a leadership
// transfer, which raft's main loop cannot send while it waits for the disk; the
// election has all of raft's conditions.
func (n *Node) relieve() {
	defer n.wait.Done()
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == n.id {
			continue
		}
		if _, stalled := n.watch.stalled(); !stalled || n.verdict.reached() != nil {
			return
		}
		req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: n.gate.EncodePeer("", n.gate.LocalAddr()),
		}}
		err := n.gate.inner.TimeoutNow(s.ID, target(s.ID, s.Address), req, new(raft.TimeoutNowResponse))
		if err == nil {
			return // a second one would only disturb the first
		}
		n.log.Debug("could not have another node stand for election", "other", s.ID, "error", err)
	}
}
