package config

import (
	"fmt"
	"slices"
	"time"
)

// Timing is every interval of a node that a profile sets together. A value set
// alone in the file takes the place of the profile's.
type Timing struct {
	Lease time.Duration // H: how long a holder may go on without a renewal by a majority
	Renew time.Duration // between two renewals

	Heartbeat   time.Duration // a follower without word from a leader for so long stands for election
	Election    time.Duration // a candidate without a majority for so long tries again
	LeaderLease time.Duration // a leader without a majority for so long steps down
	Commit      time.Duration // followers learn of a commit within one to two of these when nothing else is sent
	DiskLimit   time.Duration // a leader whose write to disk takes longer stops its heartbeats, so that another wins

	GossipProbe     time.Duration // between two probes
	GossipTimeout   time.Duration // a probe without an answer for so long is tried through others
	GossipInterval  time.Duration // between two rounds of gossip
	GossipSuspicion int           // a suspect is called dead after about so many probe intervals
}

// The names of the profiles.
const (
	ProfileDefault = "default"
	ProfileFast    = "fast"
)

// Profiles lists the names that a file may use.
func Profiles() []string { return []string{ProfileDefault, ProfileFast} }

// Default is the profile for ordinary hosts: a lost holder is replaced some 2 s
// later, and both cores busy for a minute move nothing.
func Default() Timing {
	return Timing{
		Lease: 2 * time.Second, Renew: 200 * time.Millisecond,
		Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond,
		LeaderLease: 500 * time.Millisecond, Commit: 10 * time.Millisecond, DiskLimit: 500 * time.Millisecond,
		GossipProbe: 200 * time.Millisecond, GossipTimeout: 100 * time.Millisecond,
		GossipInterval: 100 * time.Millisecond, GossipSuspicion: 4,
	}
}

// Fast is the profile for hosts with time to spare and a quiet network: a lost
// holder is replaced some 0.6 s later.
func Fast() Timing {
	return Timing{
		Lease: 600 * time.Millisecond, Renew: 70 * time.Millisecond,
		Heartbeat: 200 * time.Millisecond, Election: 200 * time.Millisecond,
		LeaderLease: 200 * time.Millisecond, Commit: 10 * time.Millisecond, DiskLimit: 300 * time.Millisecond,
		GossipProbe: 100 * time.Millisecond, GossipTimeout: 50 * time.Millisecond,
		GossipInterval: 50 * time.Millisecond, GossipSuspicion: 3,
	}
}

// ProfileTiming returns the timing of a profile, and whether there is one of that name.
func ProfileTiming(name string) (Timing, bool) {
	switch name {
	case ProfileDefault:
		return Default(), true
	case ProfileFast:
		return Fast(), true
	}
	return Timing{}, false
}

// What the limits of Check are counted from.
const (
	// WorstStall is how late an ordinary process was woken at worst with every core busy, as measured.
	WorstStall = 108 * time.Millisecond
	// RoundTrip is what is set aside for a renewal's way there and back.
	RoundTrip = 10 * time.Millisecond
	// LeastLeaseWithoutGate is the shortest lease when no nftables gate can be
	// had: an address lifetime counts whole seconds and is rounded down from nine tenths.
	LeastLeaseWithoutGate = 3 * time.Second
	// slowestSync is the slowest append and fsync measured on a healthy disk.
	slowestSync = 91 * time.Millisecond
)

// LeastLease is the shortest lease that a renewal interval allows: three
// chances to renew, a stall of the holder and one of a voter, and a round trip.
func LeastLease(renew time.Duration) time.Duration {
	return 3*renew + 2*WorstStall + RoundTrip
}

type limit struct {
	key       string
	value     time.Duration
	low, high time.Duration
	whyLow    string
	whyHigh   string
}

// Check returns the reasons why the timing cannot be safe or cannot work. gate
// says whether the kernel's gate (nftables) can be had on this host: without
// it leases must be longer. The problems carry a Key and no place.
func (t Timing) Check(gate bool) []Problem {
	var out []Problem
	add := func(key, format string, args ...any) {
		out = append(out, Problem{Key: "timing." + key, Text: fmt.Sprintf(format, args...)})
	}
	for _, l := range t.limits() {
		switch {
		case l.value < l.low:
			add(l.key, "%s = %s is too short: %s; use %s or more", l.key, l.value, l.whyLow, l.low)
		case l.value > l.high:
			add(l.key, "%s = %s is too long: %s; use %s or less", l.key, l.value, l.whyHigh, l.high)
		}
	}
	if t.GossipSuspicion < 2 || t.GossipSuspicion > 20 {
		add("gossip_suspicion", "gossip_suspicion = %d: below 2 one lost packet calls a node dead, above 20 gossip says nothing in time; use 2 to 20", t.GossipSuspicion)
	}
	if len(out) > 0 {
		return out // comparing values that are wrong by themselves would only say it twice
	}
	if least := LeastLease(t.Renew); t.Lease < least {
		add("lease", "lease = %s is too short for renew = %s: three renewals, two stalls of %s and a round trip of %s take %s; use a lease of %s or more, or renew every %s or less",
			t.Lease, t.Renew, WorstStall, RoundTrip, least, least, max(0, (t.Lease-2*WorstStall-RoundTrip)/3).Round(time.Millisecond))
	}
	if !gate && t.Lease < LeastLeaseWithoutGate {
		add("lease", "lease = %s is too short without nftables: the address lifetime that must serve instead counts whole seconds; use %s or more, or load nf_tables", t.Lease, LeastLeaseWithoutGate)
	}
	if t.Election < t.Heartbeat {
		add("election", "election = %s is shorter than heartbeat = %s: candidates would outrun one another; use %s or more", t.Election, t.Heartbeat, t.Heartbeat)
	}
	if t.LeaderLease > t.Heartbeat {
		add("leader_lease", "leader_lease = %s is longer than heartbeat = %s: an old leader would go on after a new one is elected; use %s or less", t.LeaderLease, t.Heartbeat, t.Heartbeat)
	}
	if t.Commit*4 > t.Heartbeat {
		add("commit", "commit = %s is too long for heartbeat = %s: followers would learn of a commit when they already stand for election; use %s or less", t.Commit, t.Heartbeat, t.Heartbeat/4)
	}
	if t.DiskLimit <= t.Commit {
		add("disk_limit", "disk_limit = %s is not longer than commit = %s: an idle leader would be taken for one whose disk hangs; use %s or more", t.DiskLimit, t.Commit, max(2*t.Commit, 2*slowestSync.Round(10*time.Millisecond)))
	}
	if t.GossipTimeout >= t.GossipProbe {
		add("gossip_timeout", "gossip_timeout = %s is not shorter than gossip_probe = %s: no time would be left to ask other nodes; use %s or less", t.GossipTimeout, t.GossipProbe, t.GossipProbe/2)
	}
	return out
}

func (t Timing) limits() []limit {
	const ms = time.Millisecond
	return []limit{
		{"lease", t.Lease, 100 * ms, 5 * time.Minute, "no ordinary host keeps it", "a lost holder would not be replaced for minutes"},
		{"renew", t.Renew, 10 * ms, time.Minute, "timers are late by more than that", "a lease needs several chances"},
		{"heartbeat", t.Heartbeat, 50 * ms, 10 * time.Second, "a busy host would start elections without need", "a cluster without a leader decides nothing"},
		{"election", t.Election, 50 * ms, 10 * time.Second, "a busy host would start elections without need", "a cluster without a leader decides nothing"},
		{"leader_lease", t.LeaderLease, 25 * ms, 10 * time.Second, "one late answer would depose a leader", "a leader that is cut off must step down"},
		{"commit", t.Commit, ms, time.Second, "it is a busy loop", "followers would learn of decisions too late"},
		{"disk_limit", t.DiskLimit, slowestSync.Round(100 * ms), 30 * time.Second, "a healthy disk takes 91 ms at times", "a leader whose disk hangs would stay leader"},
		{"gossip_probe", t.GossipProbe, 20 * ms, 10 * time.Second, "timers are late by more than that", "gossip would say nothing in time"},
		{"gossip_timeout", t.GossipTimeout, 10 * ms, 10 * time.Second, "timers are late by more than that", "gossip would say nothing in time"},
		{"gossip_interval", t.GossipInterval, 10 * ms, 10 * time.Second, "it is a busy loop", "gossip would say nothing in time"},
	}
}

// durations names the settings of timing that are durations, for the reader
// and for printing; GossipSuspicion is the one that is a number.
func (t *Timing) durations() []namedDuration {
	return []namedDuration{
		{"lease", &t.Lease}, {"renew", &t.Renew},
		{"heartbeat", &t.Heartbeat}, {"election", &t.Election}, {"leader_lease", &t.LeaderLease},
		{"commit", &t.Commit}, {"disk_limit", &t.DiskLimit},
		{"gossip_probe", &t.GossipProbe}, {"gossip_timeout", &t.GossipTimeout}, {"gossip_interval", &t.GossipInterval},
	}
}

type namedDuration struct {
	key   string
	value *time.Duration
}

// timingKeys lists the keys of a timing block.
func timingKeys() []string {
	keys := []string{"gossip_suspicion"}
	var t Timing
	for _, d := range t.durations() {
		keys = append(keys, d.key)
	}
	slices.Sort(keys)
	return keys
}
