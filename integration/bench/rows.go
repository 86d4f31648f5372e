package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// row is a fault and what it may cost.
type row struct {
	name    string
	alone   bool   // the service is the address alone
	long    bool   // minutes, once
	profile string // only this one; empty: all
	// prepare brings the cluster into the state that the row needs.
	prepare func(context.Context, *lab.Rig) error
	fault   func(context.Context, *lab.Rig) lab.Fault
	lasts   func(lease time.Duration) time.Duration
	bound   bound
}

// bound is what a row promises. Two holders are never allowed.
type bound struct {
	// median of the silences; 0: none is promised.
	median func(profile string) time.Duration
	// each run stays within the lease + κ + 100 ms.
	lease bool
	// nothing is lost.
	lost bool
	// nothing is lost after the partition has healed.
	heal bool
	// the holder stays.
	stay bool
}

// takeover is the promise about a lost holder.
func takeover(profile string) time.Duration {
	if profile == "fast" {
		return 700 * time.Millisecond
	}
	return 2100 * time.Millisecond
}

func planned(string) time.Duration { return 30 * time.Millisecond }

const freezeTime = 15 * time.Second

func leases(n int) func(time.Duration) time.Duration {
	return func(lease time.Duration) time.Duration { return time.Duration(n) * lease }
}

func always(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// rows are those of the table in docs/BENCHMARKS.md.
var rows = []row{
	{
		name:  "power-off of the holder",
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault { return r.PowerCut(ctx) },
		lasts: leases(2), bound: bound{median: takeover, lease: true},
	},
	{
		name: "partition of the holder, 3 leases, healed",
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault {
			return r.Partition(ctx, 3*r.Failoverd.Lease())
		},
		lasts: leases(3), bound: bound{median: takeover, lease: true, heal: true},
	},
	{
		name:  "SIGSTOP of the daemon, 15 s",
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault { return r.Freeze(ctx, freezeTime, false) },
		lasts: always(freezeTime), bound: bound{median: takeover, lease: true},
	},
	{
		name:  "SIGSTOP of daemon and guard, 15 s",
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault { return r.Freeze(ctx, freezeTime, true) },
		lasts: always(freezeTime), bound: bound{median: takeover, lease: true},
	},
	{
		name:  "SIGKILL of the daemon, restarted at once",
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault { return r.KillDaemon(ctx) },
		lasts: leases(1), bound: bound{lost: true, stay: true},
	},
	{
		name:    "SIGKILL of the leader that is not the holder",
		prepare: leaderApart,
		fault:   func(ctx context.Context, r *lab.Rig) lab.Fault { return r.KillLeader(ctx) },
		lasts:   leases(1), bound: bound{lost: true, stay: true},
	},
	{
		name: "planned switchover, VIP alone", alone: true,
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault { return r.Switchover(ctx) },
		lasts: leases(1), bound: bound{median: planned, lease: true},
	},
	{
		name:  "planned switchover, program and VIP",
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault { return r.Switchover(ctx) },
		lasts: leases(1), bound: bound{lease: true},
	},
	{
		name: "idle, 5 minutes", long: true,
		fault: func(ctx context.Context, r *lab.Rig) lab.Fault { return r.Stay(ctx, 5*time.Minute) },
		lasts: always(5 * time.Minute), bound: bound{stay: true, lost: true},
	},
	{
		name: "both cores busy, 60 s", long: true, profile: "default",
		fault: busy,
		lasts: always(time.Minute), bound: bound{stay: true},
	},
}

// leaderApart moves the service away from the leader if it holds it.
func leaderApart(ctx context.Context, r *lab.Rig) error {
	for range 3 {
		holder, status, err := r.Settled(ctx)
		if err != nil {
			return err
		}
		if holder.Name() != status.Leader {
			return nil
		}
		if _, err := r.Failoverd.Switchover(ctx, lab.Service, ""); err != nil {
			return err
		}
	}
	return fmt.Errorf("the leader holds the service after three switchovers")
}

// busy keeps every core busy for a minute.
func busy(ctx context.Context, _ *lab.Rig) lab.Fault {
	return func(*lab.Host, lab.Status) error {
		deadline := time.Now().Add(time.Minute)
		var group sync.WaitGroup
		for range runtime.NumCPU() {
			group.Go(func() {
				for n := 0; time.Now().Before(deadline) && ctx.Err() == nil; n++ {
				}
			})
		}
		group.Wait()
		return ctx.Err()
	}
}
