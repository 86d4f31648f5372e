package main

// scope is a search with everything bounded but time, loss and order.
type scope struct {
	name  string
	words string
	long  bool
	run   func(f faults, lim bounds) outcome
}

func leaseOf(s leaseScope) func(faults, bounds) outcome {
	return func(f faults, lim bounds) outcome {
		m := &leaseModel{leaseScope: s, f: f}
		return search(m.system(), lim)
	}
}

func grantOf(s grantScope) func(faults, bounds) outcome {
	return func(f faults, lim bounds) outcome {
		m := &grantModel{grantScope: s, f: f}
		return search(m.system(), lim)
	}
}

var scopes = []scope{
	{"renewal", "3 voters, a close, loss and reordering, lagging voters", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 1, goings: 1})},
	{"messages", "OKs and questions travel, two requests at once", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 2, slowOK: true, slowAsk: true})},
	{"terms", "1 change of leader", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 1, elections: 1})},
	{"restart", "1 voter restarts, leases of one tick", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, restarts: 1})},
	{"restart-long", "1 voter restarts", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 1, restarts: 1})},
	{"restart-terms", "1 voter restarts, 1 change of leader", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, restarts: 1, elections: 1})},
	{"sessions", "a second session of the same node, OKs travel", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, session2: true, slowOK: true})},
	{"members", "3 voters, 2 changes of voters, lag", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2})},
	{"members-4", "3 voters of 4 nodes, 1 change of voters", false,
		leaseOf(leaseScope{nodes: 4, voters: 7, h: 1, k: 1, requests: 1, changes: 1})},
	{"members-4-two", "3 voters of 4 nodes, 2 changes of voters", true,
		leaseOf(leaseScope{nodes: 4, voters: 7, h: 1, k: 1, requests: 1, changes: 2})},
	{"members-terms", "2 changes of voters, 1 change of leader, nobody lags", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2, elections: 1, prompt: true})},
	{"members-terms-lag", "2 changes of voters, 1 change of leader, lag", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2, elections: 1})},
	{"members-terms-two", "2 changes of voters, 2 changes of leader, nobody lags", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2, elections: 2, prompt: true})},
	{"members-restart", "2 changes of voters, a restart, lag", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2, restarts: 1})},
	{"gap", "as members, and anything happens between the check of a change and its append, in that term", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2, gap: gapTerm})},
	{"gap-terms", "as members-terms-two, and anything between check and append, in that term", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2, elections: 2, gap: gapTerm, prompt: true})},
	{"handover", "2 hand-overs and 1 grant", false, grantOf(grantScope{grants: 1, hands: 2})},
	{"chain", "3 hand-overs", false, grantOf(grantScope{hands: 3})},
	{"restarts", "1 hand-over, a daemon restarts", false, grantOf(grantScope{hands: 1, restarts: 1})},
	{"reboots", "a session is closed, a grant, a reboot", true, grantOf(grantScope{grants: 1, closes: 1, reboots: 1})},
	{"fencing", "only fencing is a proof; a close, a grant", false, grantOf(grantScope{grants: 1, closes: 1, fences: 1, fencedOnly: true})},
	{"handover-crash", "1 hand-over, 1 grant, a close, a restart, a reboot", true,
		grantOf(grantScope{grants: 1, hands: 1, closes: 1, restarts: 1, reboots: 1})},
}

func scopeOf(name string) *scope {
	for i := range scopes {
		if scopes[i].name == name {
			return &scopes[i]
		}
	}
	return nil
}
