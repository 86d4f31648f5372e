package main

import (
	"context"

	"github.com/failoverd/failoverd/integration/lab"
)

// kind is a kind of fault.
type kind struct {
	name   string
	what   string // in words
	weight int    // how often it comes, among all; 0: only by a schedule from a file
	// low and high bound the argument; high 0: there is none.
	low, high int
	instant   bool // it is done and has no end
	everybody bool // it has no target
	needs     part // of the target, which no other fault may have at the same time
	operator  bool // it is asked of the cluster, which may refuse
	// begin does it and gives what ends it, or nil.
	begin func(ctx context.Context, in *injector, h *lab.Host, f fault) (end func() error, err error)
}

// part is what of a host a fault has for itself while it lasts.
type part uint

const (
	partDaemon part = 1 << iota // its processes can be signalled and started
	partLink                    // its cable
	partBox                     // its kernel can be reached
	partCPU
	partDisk
	partAll = partDaemon | partLink | partBox | partCPU | partDisk
)

// kinds are all kinds of fault, in the order in which a seed counts them.
var kinds = []*kind{
	{name: "power", what: "the power is cut, and with it what was not synced; on again later", weight: 10, needs: partAll, begin: power},
	{name: "link", what: "the carrier is lost", weight: 7, needs: partLink, begin: unplug},
	{name: "cut", what: "cut off from all hosts, together with half of the clients", weight: 10, begin: cutOff},
	{name: "apart", what: "cut off from the cluster, while clients see both sides", weight: 7, begin: apart},
	{name: "pair", what: "cannot see one other node", weight: 5, low: 1, high: 4, begin: pairCut},
	{name: "split", what: "this node and the next so many are cut off from the rest", weight: 4, low: 1, high: 2, begin: split},
	{name: "shatter", what: "no two nodes see each other", weight: 3, everybody: true, begin: shatter},
	{name: "mute", what: "nobody hears it", weight: 6, begin: mute},
	{name: "deaf", what: "it hears nobody", weight: 6, begin: deaf},
	{name: "loss", what: "so many percent of all frames are lost", weight: 5, low: 5, high: 40, everybody: true, begin: loss},
	{name: "lossy", what: "so many percent of its frames are lost", weight: 4, low: 10, high: 80, begin: lossy},
	{name: "no-raft", what: "only the log's connections are cut", weight: 4, begin: noPort(portRaft)},
	{name: "no-peer", what: "only calls between nodes are cut", weight: 3, begin: noPort(portPeer)},
	{name: "no-gossip", what: "only gossip is cut", weight: 3, begin: noPort(portGossip)},
	{name: "no-renew", what: "only renewals are cut", weight: 6, begin: noPort(portRenew)},
	{name: "kill", what: "SIGKILL of the daemon, started again at once", weight: 8, instant: true, needs: partDaemon, begin: kill},
	{name: "kill-late", what: "SIGKILL of the daemon, started again later", weight: 7, needs: partDaemon, begin: killLate},
	{name: "stop", what: "SIGSTOP of the daemon", weight: 9, needs: partDaemon, begin: stop(lab.Daemon)},
	{name: "stop-both", what: "SIGSTOP of daemon and guard", weight: 7, needs: partDaemon, begin: stop(lab.Daemon, lab.Guard)},
	{name: "stop-guard", what: "SIGSTOP of the guard", weight: 4, needs: partDaemon, begin: stop(lab.Guard)},
	{name: "freeze", what: "the whole host is frozen", weight: 8, needs: partDaemon | partCPU, begin: freeze},
	{name: "guard", what: "SIGKILL of the guard", weight: 4, instant: true, needs: partBox, begin: killGuard},
	{name: "flush", what: "nft flush ruleset", weight: 4, instant: true, needs: partBox, begin: flush},
	{name: "address", what: "the address is removed by hand", weight: 4, instant: true, needs: partBox, begin: removeAddress},
	{name: "busy", what: "so many loops keep the processors busy", weight: 4, low: 1, high: 3, needs: partCPU, begin: busy},
	{name: "term", what: "SIGTERM of the daemon, started again later", weight: 5, needs: partDaemon, begin: terminate},
	{name: "restart", what: "failoverctl node restart", weight: 3, instant: true, needs: partDaemon, operator: true, begin: restart},
	{name: "switchover", what: "failoverctl switchover, to the target unless it holds", weight: 9, instant: true, operator: true, begin: switchover},
	{name: "pause", what: "the cluster is paused, and resumed", weight: 3, everybody: true, operator: true, begin: pause},
	{name: "standby", what: "failoverctl node standby, and unstandby", weight: 4, operator: true, begin: standby},
	{name: "disk-hang", what: "whatever writes to the disk waits", weight: 5, needs: partDisk, begin: diskHangs},
	{name: "disk-slow", what: "each write and sync takes up to so many ms longer", weight: 4, low: 5, high: 300, needs: partDisk, begin: diskSlow},
	{name: "disk-full", what: "the disk is full", weight: 3, needs: partDisk, begin: diskFull},
	{name: "disk-fails", what: "every sync fails", weight: 4, needs: partDisk, begin: diskFails},
	{name: "disk-read", what: "the disk can only be read", weight: 2, needs: partDisk, begin: diskReadOnly},
}

// kindOf gives the kind of that name, or nil.
func kindOf(name string) *kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	return nil
}
