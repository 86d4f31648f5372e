// Package consensus keeps the replicated log: hashicorp/raft over raft-boltdb,
// with the traps of both closed.
//
// A tour. Directory (directory.go) is the locked data directory: who this node
// is, which cluster its data belongs to, whether a store existed here before.
// RunFounding (found.go, its decisions in founding.go) turns blank directories
// into one cluster, never two. Open starts a Node on such a directory.
// Node.Propose appends a command and returns what applying it gave;
// Node.Leaderships hands out every leadership of this node as a context that
// ends with it.
//
// What stands between raft and the outside:
//
//	command.go     a command as a versioned envelope of strict JSON
//	machine.go     raft's FSM over a Machine; an entry that cannot be read ends the node's part
//	store.go       the log store: a checksum per entry, a watch on the time each access takes,
//	               and no second write after one that failed
//	ballot.go      term and vote in one record, so that a crash cannot mix two terms
//	snapshots.go   an older snapshot is never installed over newer state
//	gate.go        the transport: shut when the disk hangs or the node has stopped taking part
//	stream.go      TCP or TLS, and a greeting that names cluster, sender and receiver
//	continuity.go  a data directory that is an older copy of itself takes part in nothing
//	leadership.go  from raft's notifications to contexts that end
//	mourn.go       a leader whose process has died is replaced without a timeout
//	verify.go      the file is read through before raft sees it
//
// A node that meets something it must not survive (a failed fsync, an unknown
// command, state that would go back) stops taking part: it sends and answers
// nothing more, says why on Fatal, and waits to be stopped. It never panics and
// never goes on as if nothing had happened.
package consensus
