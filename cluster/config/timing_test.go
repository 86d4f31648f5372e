package config

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestProfilesAreSafe(t *testing.T) {
	for _, name := range Profiles() {
		timing, ok := ProfileTiming(name)
		if !ok {
			t.Fatalf("profile %s has no timing", name)
		}
		if p := timing.Check(true); len(p) > 0 {
			t.Errorf("%s: %v", name, p)
		}
		if p := timing.Check(false); len(p) != 1 || p[0].Key != "timing.lease" || !strings.Contains(p[0].Text, "without nftables") {
			t.Errorf("%s without the gate: %v", name, p)
		}
		long := timing
		long.Lease = LeastLeaseWithoutGate
		if p := long.Check(false); len(p) > 0 {
			t.Errorf("%s with a lease for hosts without the gate: %v", name, p)
		}
	}
}

// Whatever passes keeps the promises that the lease and raft rely on.
func TestCheckedTimingKeepsThePromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := func(name string, high int) time.Duration {
			return time.Duration(rapid.IntRange(0, high).Draw(t, name)) * time.Millisecond
		}
		timing := Timing{
			Lease: d("lease", 5000), Renew: d("renew", 1000),
			Heartbeat: d("heartbeat", 1000), Election: d("election", 1000), LeaderLease: d("leader_lease", 1000),
			Commit: d("commit", 200), DiskLimit: d("disk_limit", 1000),
			GossipProbe: d("probe", 500), GossipTimeout: d("timeout", 200), GossipInterval: d("interval", 200),
			GossipSuspicion: rapid.IntRange(0, 30).Draw(t, "suspicion"),
		}
		gate := rapid.Bool().Draw(t, "gate")
		problems := timing.Check(gate)
		kept := timing.Lease >= 3*timing.Renew+2*WorstStall+RoundTrip &&
			(gate || timing.Lease >= 3*time.Second) &&
			timing.LeaderLease <= timing.Heartbeat && timing.Heartbeat <= timing.Election &&
			timing.LeaderLease >= 5*time.Millisecond && timing.Commit >= time.Millisecond &&
			timing.DiskLimit > timing.Commit && timing.GossipTimeout < timing.GossipProbe
		if len(problems) == 0 && !kept {
			t.Fatalf("accepted: %+v", timing)
		}
		for _, p := range problems {
			if p.Text == "" || !strings.HasPrefix(p.Key, "timing.") {
				t.Fatalf("a problem without words or key: %+v", p)
			}
		}
	})
}
