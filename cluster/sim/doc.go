// Package sim runs a whole cluster in one goroutine, from one seed, some
// hundred times faster than the world: machines with clocks that are wrong in
// every way that LEASE.md allows for, a network that loses, delays, repeats and
// reorders, disks that hang, a Raft reduced to its rules, and on each machine a
// daemon whose voter (lease.Voter), lease (lease.Holder, lease.Closing) and
// decisions (decide.Leader, decide.Member) are the real ones. What stands
// between them, the node's loops of package cluster, is rebuilt here as events:
// the same evidence, the same order of journal, start, stop, message and entry.
//
// A tour:
//
//	world.go     true time, the queue of events, the trace
//	machine.go   a machine: power, clocks, what really runs, who ends it at the deadline
//	net.go       links, datagrams, calls
//	raft.go      logs, elections, commits; log.go: proposals and applying
//	disk.go      the journal, and a disk that hangs or fails
//	daemon.go    a daemon's life: start, session, renewals
//	unit.go      one service on a node; member.go: what the node does about it
//	lead.go      what a leader knows and does; evidence.go: what it remembers
//	plan.go      operators and faults, drawn from the seed; faults.go, operate.go: what they do
//	check.go     what must always hold, looked at after every event that could break it
//
// A run is a function of its seed: a failure is shown again by the same seed,
// with a trace this time, and with as few of its faults as still make it fail.
package sim
