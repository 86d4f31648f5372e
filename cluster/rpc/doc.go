// Package rpc carries the ports of package cluster over gRPC: Operator from
// failoverctl to any node, Peer and forwarded Operator calls between nodes.
//
// The sentinel errors of package cluster keep their identity on the way:
// errors.Is and errors.As work on what a Client returns as they do on the node
// that answered. A call that was sent and got no answer is cluster.ErrUnknown
// when it could have changed something, and ErrUnreachable when it was never sent.
//
// The parts, in the order of a call: Client (client.go) and Peers (peers.go)
// send, conn (conn.go) keeps the connection, Server (server.go, socket.go)
// listens within limits (limits.go), the services (operator_server.go,
// peer_server.go, watch_server.go) call what they were given, and Forward
// (forward.go) passes on to the leader what only a leader can do.
package rpc
