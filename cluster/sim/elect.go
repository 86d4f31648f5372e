package sim

import (
	"github.com/failoverd/failoverd/cluster/state"
)

// awaitElection stands for election when no leader is heard for a while.
func (d *daemon) awaitElection() {
	c := &d.raft
	c.patience = d.w.timing.election + d.w.upTo(d.w.timing.election)
	var look func()
	look = func() {
		if left := c.heard + c.patience - d.w.now; left > 0 {
			d.after(left, look)
			return
		}
		if !c.leads {
			d.stand()
		}
		c.patience = d.w.timing.election + d.w.upTo(d.w.timing.election)
		c.heard = d.w.now
		d.after(c.patience, look)
	}
	d.after(c.patience, look)
}

// transfer gives the leadership to another voter, at best.
func (d *daemon) transfer() {
	var others []string
	for _, v := range d.raft.conf.Voters {
		if v != d.n.name {
			others = append(others, v)
		}
	}
	if len(others) == 0 {
		return
	}
	to := d.w.byName[others[d.w.rnd.IntN(len(others))]]
	d.stepDown()
	d.w.datagram(d.n, to, ofLog, func(other *daemon) { other.campaign(true) })
}

// stand asks first whether a majority would vote for this node (raft's pre-vote):
// one that hears nobody must not depose leader after leader by its rising terms.
func (d *daemon) stand() {
	c, r := &d.raft, &d.n.raft
	if !c.conf.Has(d.n.name) || d.n.diskHung || !c.loaded {
		return
	}
	c.stands++
	c.candidate, c.leader = false, ""
	round, yes := c.stands, map[string]bool{d.n.name: true}
	term, last, lastTerm := r.term, r.last(), r.lastTerm()
	for _, v := range c.conf.Voters {
		if v == d.n.name {
			continue
		}
		to := d.w.byName[v]
		d.w.datagram(d.n, to, ofLog, func(other *daemon) {
			would, theirs := other.wouldVote(d.n.name, term, last, lastTerm), other.n.raft.term
			d.w.datagram(to, d.n, ofLog, func(now *daemon) {
				switch {
				case now != d || c.stands != round || r.term != term || c.leads || c.leader != "":
					return
				case theirs > term:
					d.newTerm(theirs)
					return
				case !would:
					return
				}
				yes[v] = true
				if len(yes) >= c.conf.Majority() {
					c.stands++ // once is enough
					d.campaign(false)
				}
			})
		})
	}
}

// wouldVote answers the question of a candidate to be; nothing is promised by it.
func (d *daemon) wouldVote(candidate string, term, last, lastTerm uint64) bool {
	c, r := &d.raft, &d.n.raft
	return c.loaded && !d.n.diskHung && term >= r.term && !d.follows(candidate) &&
		(lastTerm > r.lastTerm() || lastTerm == r.lastTerm() && last >= r.last())
}

// follows reports whether this node leads, or hears a leader other than the candidate.
func (d *daemon) follows(candidate string) bool {
	c := &d.raft
	return c.leads || c.leader != "" && c.leader != candidate && d.w.now-c.heard < d.w.timing.election
}

// campaign stands for election; called is set when the leader itself gives way.
func (d *daemon) campaign(called bool) {
	c, r := &d.raft, &d.n.raft
	if !c.conf.Has(d.n.name) || d.n.diskHung || !c.loaded {
		return
	}
	r.term++
	r.voted = d.n.name
	c.candidate, c.leader = true, ""
	c.votes = map[string]bool{d.n.name: true}
	term, last, lastTerm := r.term, r.last(), r.lastTerm()
	for _, v := range c.conf.Voters {
		if v == d.n.name {
			continue
		}
		to := d.w.byName[v]
		d.w.datagram(d.n, to, ofLog, func(other *daemon) {
			if !other.vote(d.n.name, term, last, lastTerm, called) {
				return
			}
			d.w.datagram(to, d.n, ofLog, func(now *daemon) {
				if now == d && c.candidate && r.term == term {
					c.votes[v] = true
					d.maybeLead()
				}
			})
		})
	}
	d.maybeLead()
}

// vote gives this node's vote, for ever, to one candidate of a term that knows as
// much as it does. While a leader is heard nobody else is listened to.
func (d *daemon) vote(candidate string, term, last, lastTerm uint64, called bool) bool {
	c, r := &d.raft, &d.n.raft
	if !c.loaded || d.n.diskHung || term < r.term {
		return false
	}
	if !called && d.follows(candidate) {
		return false
	}
	if term > r.term {
		d.newTerm(term)
	}
	if r.voted != "" && r.voted != candidate || lastTerm < r.lastTerm() || lastTerm == r.lastTerm() && last < r.last() {
		return false
	}
	r.voted = candidate
	c.heard = d.w.now
	return true
}

func (d *daemon) newTerm(term uint64) {
	d.n.raft.term, d.n.raft.voted = term, ""
	d.stepDown()
}

// stepDown ends a leadership with everything that was waiting for it.
func (d *daemon) stepDown() {
	c := &d.raft
	c.candidate = false
	if !c.leads {
		return
	}
	d.w.say("%s leads term %d no more", d.n.name, d.n.raft.term)
	c.leads, c.leader, c.heard = false, "", d.w.now
	d.unlead()
	waiting := c.waiting
	c.waiting = map[uint64]waiter{}
	for i := c.applied + 1; i <= d.n.raft.last(); i++ {
		if w, ok := waiting[i]; ok {
			w.done(state.Result{}, unknown)
		}
	}
}

func (d *daemon) maybeLead() {
	c, r := &d.raft, &d.n.raft
	if len(c.votes) < c.conf.Majority() {
		return
	}
	c.candidate, c.leads, c.leader = false, true, d.n.name
	c.peers = map[string]*peer{}
	for _, n := range d.w.nodes {
		if n != d.n {
			c.peers[n.name] = &peer{next: r.last() + 1, heard: d.w.now}
		}
	}
	d.w.stats.Terms++
	d.w.say("%s leads term %d", d.n.name, r.term)
	d.establish(r.term)
	d.beat(r.term)
}

// establish commits the leader's own first entry; only then does it lead.
func (d *daemon) establish(term uint64) {
	if !d.raft.leads || d.n.raft.term != term {
		return
	}
	start := state.LeaderStart{Node: d.n.name, Stamp: state.Stamp{By: d.n.name, Why: "elected"}}
	d.propose(start, func(_ state.Result, f failure) {
		switch {
		case !d.raft.leads || d.n.raft.term != term:
		case f == "":
			d.lead()
		default:
			d.after(20*ms, func() { d.establish(term) })
		}
	})
}
