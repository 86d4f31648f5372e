package main

import "time"

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

var scopes = []scope{
	{"renewal", "3 voters, a close, loss and reordering, lagging voters", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 1, goings: 1})},
	{"messages", "OKs and questions travel, two requests at once", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 2, slowOK: true, slowAsk: true})},
	{"terms", "1 change of leader", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 1, elections: 1})},
	{"restart", "1 voter restarts", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 1, restarts: 1})},
	{"restart-terms", "1 voter restarts, 1 change of leader", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 2, k: 1, requests: 1, restarts: 1, elections: 1})},
	{"sessions", "a second session of the same node, OKs travel", false,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, session2: true, slowOK: true})},
	{"members", "3 voters of 4 nodes, 1 change of voters", true,
		leaseOf(leaseScope{nodes: 4, voters: 7, h: 1, k: 1, requests: 1, changes: 1})},
	{"members-two", "2 changes of voters", true,
		leaseOf(leaseScope{nodes: 4, voters: 7, h: 1, k: 1, requests: 1, changes: 2})},
	{"members-terms", "2 changes of voters, 1 change of leader", true,
		leaseOf(leaseScope{nodes: 4, voters: 7, h: 1, k: 1, requests: 1, changes: 2, elections: 1})},
	{"small-terms", "3 nodes, 2 changes of voters, 1 change of leader", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 2, elections: 1})},
	{"gap-alone", "something happens between check and change, in one term, but the leader appends nothing", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 1, elections: 1, gap: gapAlone})},
	{"gap-term", "anything happens between check and change, in one term", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 1, elections: 1, gap: gapTerm})},
	{"gap-any", "anything happens between check and change, a new term too", true,
		leaseOf(leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 1, elections: 2, gap: gapAny})},
	{"gap4-term", "4 nodes", true,
		leaseOf(leaseScope{nodes: 4, voters: 7, h: 1, k: 1, requests: 1, changes: 2, gap: gapTerm})},
}

func scopeOf(name string) *scope {
	for i := range scopes {
		if scopes[i].name == name {
			return &scopes[i]
		}
	}
	return nil
}

// quickLimit bounds a single search of the quick set.
var quickLimit = bounds{states: 30e6, time: 5 * time.Minute}
