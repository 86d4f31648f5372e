// Package sim runs a whole cluster in one goroutine, from one seed, more than a
// thousand times faster than the world: machines with clocks that are wrong in
// every way that LEASE.md allows for, a network that loses, delays, repeats and
// reorders, disks that hang, devices that fence, fail and lie, a Raft reduced to
// its rules, and on each machine a daemon whose voter (lease.Voter), lease
// (lease.Holder, lease.Closing), memory of what the voters told (evidence.Ledger)
// and decisions (decide.Leader, decide.Member) are the real ones. What stands
// between them, the node's loops of package cluster, is rebuilt here as events:
// the same order of journal, start, stop, message and entry.
//
// A tour:
//
//	world.go     true time, the queue of events, the trace
//	machine.go   a machine: power, clocks, what really runs, who ends it at the deadline
//	net.go       links, datagrams, calls
//	raft.go      logs and commits; elect.go: elections; log.go: proposals and applying
//	disk.go      the journal, and a disk that hangs or fails
//	daemon.go    a daemon's life: start, session, renewals
//	unit.go      one service on a node; member.go: what the node does about it
//	lead.go      what a leader knows and does (what it remembers is package evidence)
//	fence.go     devices that turn machines off, or say so
//	script.go    a world as a text; plan.go: drawn from a seed
//	faults.go    what befalls the machines; operate.go: what operators order
//	check.go     what must always hold, looked at after every event that could break it
//
//	seen.go      what must happen now and then, or the search has lost its bite
//
// A run is a function of its script: a failure is shown as the shortest script
// that still fails, and kept in testdata as a case.
package sim
