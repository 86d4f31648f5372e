// Package gossip says what this node sees of the others through
// hashicorp/memberlist. It gives hints, never verdicts: who holds a service is
// decided by the log and the lease alone, and everything here may be late,
// wrong or forged by whoever has the key.
//
// What is known of memberlist v0.7.0, read in its source, and shapes this
// package:
//
//   - Suspicion is told to no delegate, and Node.State in Members is always
//     "alive": the true state is in a struct that is not exported. What can be
//     seen is this node's own probing. DisableTcpPingsForNode is asked at the
//     very moment when a direct probe has gone unanswered for the probe timeout,
//     and PingDelegate hears of every answer. A sight is therefore "suspect"
//     from the first own probe that was lost until one is answered: earlier than
//     memberlist's own suspicion, and also for a node that others still reach.
//     What other nodes suspect is not seen until it ends in "dead".
//   - NotifyLeave does not tell a death from a departure, for the same reason.
//     A leaving node says goodbye in a message of its own before it leaves.
//   - Dead nodes are forgotten after GossipToTheDeadTime and never called again,
//     so that two halves of a longer partition would not find one another: the
//     rejoin loop calls every peer that is not among the living.
//   - A node that starts anew counts its incarnations from 1 and is disbelieved
//     until it has heard of its former self: Meta.Incarnation tells its lives apart.
//   - NotifyAlive, NotifyConflict and the event delegate run under memberlist's
//     lock: they only write into the book here, and callbacks run elsewhere.
//   - Leave panics after Shutdown, NodeMeta longer than 512 bytes panics: both
//     are made impossible here.
//   - Shutdown does not wait for streams, which live for up to TCPTimeout, and
//     there is no limit to how many are accepted; a header of a few bytes makes
//     it reserve 100 MB. The transport here counts, bounds and ends them.
//   - One node that claims an odd protocol version makes every later push/pull
//     fail: NotifyAlive lets none in.
//   - The advertised port is 7946 unless set, whatever is listened on.
//   - A node that feels unwell probes up to AwarenessMaxMultiplier times more
//     slowly: what an isolated node says of the others is late.
package gossip
