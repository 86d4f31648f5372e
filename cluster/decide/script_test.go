package decide

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// A script is a case file: paragraphs of lines that build a view, a line
// "----", and what was decided. The first paragraph is a comment that says what
// the case is about. Each paragraph goes on from the one before.
//
// Lines about the state:
//
//	nodes a b c w:witness d:member   with open sessions a/11, b/12, ... of those that
//	                                 hold (H 2 s); the first leads term 5
//	standby b [by=ann] [why=...]     or: standby b off
//	session b STATUS [why=...] [proof=expired,fenced] [id=N]
//	                                 open, closing, ended, none; with an id it is a
//	                                 further one that takes the place of the present
//	service erp [takeover=fence] [nodes=a,b] [prio=a:2,b:1] [failback] [removed] [generation=N] [last=N]
//	epoch erp 3 on b [session=N] [from=2] [over=released] [why=...]
//	failed erp on b epoch=3 [why=...]  or: failed erp off
//	move erp [to=c] [by=ann] [why=...] or: move erp off
//	pause [erp] [by=ann] [why=...] [for=10s]  or: pause [erp] off
//	leads a term=4                   what the newest LeaderStart says
//
// Lines about what the leader knows; at first a leads, and all voters have
// renewed every session 100 ms ago:
//
//	self a
//	ages b a=100ms b=1.7s            what the voters told; others are unknown
//	quiet b 1.7s                     every voter told the same, just now
//	heard b 1.5s                     the answers of all but the leader itself came so long ago; c=2s for one of them
//	asked b 300ms                    how long ago the voters were asked of its session
//	opened b 300ms                   its session was opened under this leadership, so long ago; or: opened b off
//	unstarted erp 7s                 or: unstarted erp off
//	unended erp 7s                   or: unended erp off
//	goodbye b, sight b dead, due b 300ms, unable erp on=c why=...
//	prepared erp to=c [done] [failed=...] [waited=1s]  or: prepared erp off
//	counted 5s [erp]                 how long the leader counted the pause
//
// Lines about what a member knows; at first it is b, ready, under session 12,
// with a good lease:
//
//	member b                         whose own view it is
//	renews N                         the session that the daemon renews
//	ready, not-ready, refused, not-refused, deaf, hears, leaving, lease good|short|lapsed
//	record erp 3 active|releasing [session=N] [boot=other]  or: record erp 3 off
//	local erp 3 running [generation=N] [failed=...] [reported]  or: local erp off
//	told erp from=3 epoch=4 index=N
//
// Lines that decide, and print what comes of it:
//
//	lead           the plan; what its commits would be refused is shown as well
//	candidates erp
//	act            the acts of the member
type script struct {
	l    LeaderView
	m    MemberView
	out  strings.Builder
	fail func(format string, args ...any)
}

const caseTTL = 2 * time.Second

func newScript(fail func(string, ...any)) *script {
	st := state.New()
	st.Index, st.Term = 100, 5
	st.Cluster = state.Cluster{ID: "x", Key: make([]byte, 32)}
	r := &script{fail: fail}
	r.l = LeaderView{
		State: st, Term: 5, Sessions: map[uint64]SessionView{}, Sights: map[string]Sight{}, Moves: map[string]Preparation{},
		Pauses: map[uint64]PauseView{}, Unable: map[string]map[string]string{}, Unstarted: map[string]time.Duration{}, Unended: map[string]time.Duration{},
	}
	r.m = MemberView{State: st, Self: "b", Ready: true, Session: 12, Lease: true, Local: map[string]Local{}, Told: map[Told]bool{}}
	return r
}

// run runs the lines of one paragraph and returns what they printed.
func (r *script) run(lines []string) string {
	r.out.Reset()
	for _, l := range lines {
		r.line(words(l))
	}
	if err := r.l.State.Check(); err != nil {
		r.fail("a state that cannot be: %v", err)
	}
	return r.out.String()
}

func (r *script) line(w []string) {
	a := arguments(w[1:])
	switch w[0] {
	case "nodes":
		r.nodes(w[1:])
	case "standby", "session", "service", "epoch", "failed", "move", "pause", "leads":
		r.stateLine(w[0], a)
	case "self", "ages", "quiet", "heard", "asked", "opened", "goodbye", "sight", "due", "unable", "unstarted", "unended", "prepared", "counted":
		r.leaderLine(w[0], a)
	case "member", "renews", "ready", "not-ready", "refused", "not-refused", "deaf", "hears", "leaving", "lease", "record", "local", "told":
		r.memberLine(w[0], a)
	case "lead":
		r.lead()
	case "candidates":
		svc := r.service(a.at(0))
		for _, c := range Candidates(r.l, svc) {
			verdict := "no"
			if c.Can {
				verdict = "can"
			} else if c.Unknown {
				verdict = "unknown"
			}
			fmt.Fprintf(&r.out, "%s %s priority %d: %s\n", c.Node, verdict, c.Priority, c.Why)
		}
	case "act":
		r.act()
	default:
		panic("no such line: " + w[0])
	}
}

func (r *script) nodes(list []string) {
	st := r.l.State
	for i, word := range list {
		name, role, _ := strings.Cut(word, ":")
		if role == "" {
			role = "voter"
		}
		n := &state.Node{
			Name: name, Role: state.Role(role), Address: fmt.Sprintf("192.0.2.%d:7400", i+1),
			Birth: "data-" + name, Started: uint64(101 + i), BootID: "boot-" + name,
		}
		st.Nodes[name] = n
		if n.Role.Votes() {
			r.l.Voters = append(r.l.Voters, name)
		}
		if n.Role.Holds() {
			r.open(n, uint64(11+i))
		}
	}
	r.l.Self = r.l.Voters[0]
	st.Leader, st.LeaderTerm = r.l.Self, st.Term
	for id := range st.Sessions {
		r.tell(id, r.allAges(100*time.Millisecond))
	}
}

func (r *script) open(n *state.Node, id uint64) *state.Session {
	s := &state.Session{ID: id, Node: n.Name, BootID: n.BootID, Replaces: n.Session, TTL: caseTTL, Kappa: 50 * time.Millisecond, Status: state.SessionOpen}
	r.l.State.Sessions[id] = s
	n.Session = id
	return s
}

func (r *script) allAges(age time.Duration) map[string]time.Duration {
	ages := map[string]time.Duration{}
	for _, v := range r.l.Voters {
		ages[v] = age
	}
	return ages
}

func (r *script) tell(session uint64, ages map[string]time.Duration) {
	v := r.l.Sessions[session]
	v.Ages, v.Told = ages, nil
	r.l.Sessions[session] = v
}

func (r *script) heard(session uint64, a args) {
	all, err := time.ParseDuration(a.at(1))
	must(err)
	v := r.l.Sessions[session]
	v.Told = map[string]time.Duration{}
	for name := range v.Ages {
		if _, own := a.key[name]; own {
			v.Told[name] = a.duration(name)
		} else if name != r.l.Self {
			v.Told[name] = all
		}
	}
	r.l.Sessions[session] = v
}

func (r *script) service(name string) *state.Service {
	svc := r.l.State.Services[name]
	if svc == nil {
		panic("no such service: " + name)
	}
	return svc
}

// sessionOf finds a session by its number or by its node's name: the newest.
func (r *script) sessionOf(word string) *state.Session {
	if id, err := strconv.ParseUint(word, 10, 64); err == nil {
		return r.l.State.Sessions[id]
	}
	return r.l.State.Sessions[r.l.State.Nodes[word].Session]
}

func (r *script) stateLine(kind string, a args) {
	st := r.l.State
	mark := &state.Mark{By: a.key["by"], Reason: a.key["why"], At: 1000, Index: 60}
	if a.has("for") {
		mark.Until = mark.At + a.duration("for").Milliseconds()
	}
	switch kind {
	case "standby":
		if a.has("off") {
			mark = nil
		}
		st.Nodes[a.at(0)].Standby = mark
	case "session":
		r.session(a)
	case "service":
		r.putService(a)
	case "epoch":
		r.epoch(a)
	case "failed":
		svc := r.service(a.at(0))
		if a.has("off") {
			svc.Failures = nil
			return
		}
		svc.Failures = append(svc.Failures, state.Failure{Node: a.after("on"), Epoch: a.number("epoch"), Why: a.key["why"], Index: 70})
		slices.SortFunc(svc.Failures, func(x, y state.Failure) int { return strings.Compare(x.Node, y.Node) })
	case "move":
		r.service(a.at(0)).Move = nil
		if !a.has("off") {
			r.service(a.at(0)).Move = &state.Move{To: a.key["to"], By: a.key["by"], Why: a.key["why"], Index: 65}
		}
	case "pause":
		if a.has("off") {
			mark = nil
		}
		if name := a.at(0); name != "" && name != "off" {
			r.service(name).Paused = mark
		} else {
			st.Paused = mark
		}
	case "leads":
		st.Leader, st.LeaderTerm = a.at(0), a.number("term")
	}
}

func (r *script) session(a args) {
	n := r.l.State.Nodes[a.at(0)]
	if a.has("none") {
		delete(r.l.State.Sessions, n.Session)
		n.Session = 0
		return
	}
	s := r.l.State.Sessions[n.Session]
	if a.has("id") && n.Session != a.number("id") {
		s = r.open(n, a.number("id"))
	}
	s.Status, s.Closing, s.Proofs, s.Fence = state.SessionStatus(a.at(1)), "", nil, nil
	if s.Status != state.SessionOpen {
		s.Closing = a.key["why"]
		if s.Closing == "" {
			s.Closing = "it was silent"
		}
	}
	for _, p := range a.list("proof") {
		if p == string(state.ProofFenced) {
			s.Fence = &state.Fence{By: "a", Index: 55}
		}
		s.Proofs = append(s.Proofs, state.Proof{Kind: state.ProofKind(p), Index: 56})
	}
}

func (r *script) putService(a args) {
	svc := r.l.State.Services[a.at(0)]
	if svc == nil {
		svc = &state.Service{Name: a.at(0), Generation: 20}
		r.l.State.Services[svc.Name] = svc
	}
	svc.Spec = state.Spec{Name: svc.Name, Takeover: state.TakeoverLease, Nodes: a.list("nodes"), Failback: a.has("failback")}
	if a.has("takeover") {
		svc.Spec.Takeover = state.Takeover(a.key["takeover"])
	}
	for _, p := range a.list("prio") {
		node, n, _ := strings.Cut(p, ":")
		if svc.Spec.Priorities == nil {
			svc.Spec.Priorities = map[string]int{}
		}
		svc.Spec.Priorities[node], _ = strconv.Atoi(n)
	}
	if a.has("generation") {
		svc.Generation = a.number("generation")
	}
	if a.has("last") {
		svc.LastEpoch = a.number("last")
	}
	svc.Removed = a.has("removed")
}

func (r *script) epoch(a args) {
	svc := r.service(a.at(0))
	e, err := strconv.ParseUint(a.at(1), 10, 64)
	must(err)
	node := a.after("on")
	g := state.Grant{Epoch: e, Node: node, Session: r.l.State.Nodes[node].Session, Kind: state.KindGrant, Index: 30 + e, Why: a.key["why"], Over: state.ProofKind(a.key["over"])}
	if a.has("session") {
		g.Session = a.number("session")
	}
	if a.has("from") {
		g.Kind, g.From = state.KindHandOver, a.number("from")
	}
	if g.Over != "" {
		g.OverIndex = 58
	}
	svc.Grants = slices.DeleteFunc(svc.Grants, func(old state.Grant) bool { return old.Epoch == e || old.Over != "" })
	svc.Grants = append(svc.Grants, g)
	slices.SortFunc(svc.Grants, func(x, y state.Grant) int { return int(x.Epoch) - int(y.Epoch) })
	svc.LastEpoch = max(svc.LastEpoch, e)
	// As the state machine does: of the epochs that are over only the newest is kept.
	svc.Grants = slices.DeleteFunc(svc.Grants, func(g state.Grant) bool { return g.Over != "" && g.Epoch != svc.LastEpoch })
}

func (r *script) leaderLine(kind string, a args) {
	switch kind {
	case "self":
		r.l.Self = a.at(0)
		r.l.State.Leader = a.at(0)
	case "ages":
		ages := map[string]time.Duration{}
		for name, value := range a.key {
			d, err := time.ParseDuration(value)
			must(err)
			ages[name] = d
		}
		r.tell(r.sessionOf(a.at(0)).ID, ages)
	case "quiet":
		d, err := time.ParseDuration(a.at(1))
		must(err)
		r.tell(r.sessionOf(a.at(0)).ID, r.allAges(d))
	case "heard":
		r.heard(r.sessionOf(a.at(0)).ID, a)
	case "asked":
		id := r.sessionOf(a.at(0)).ID
		v := r.l.Sessions[id]
		d, err := time.ParseDuration(a.at(1))
		must(err)
		v.Asked = d
		r.l.Sessions[id] = v
	case "opened":
		id := r.sessionOf(a.at(0)).ID
		v := r.l.Sessions[id]
		v.Opened, v.Since = false, 0
		if !a.has("off") {
			d, err := time.ParseDuration(a.at(1))
			must(err)
			v.Opened, v.Since = true, d
		}
		r.l.Sessions[id] = v
	case "goodbye":
		id := r.sessionOf(a.at(0)).ID
		v := r.l.Sessions[id]
		v.Goodbye = true
		r.l.Sessions[id] = v
	case "sight":
		r.l.Sights[a.at(0)] = Sight(a.at(1))
	case "due":
		id := r.sessionOf(a.at(0)).ID
		v := r.l.Sessions[id]
		d, err := time.ParseDuration(a.at(1))
		must(err)
		v.Due, v.DueKnown = d, true
		r.l.Sessions[id] = v
	case "unable":
		r.l.Unable[a.at(0)] = map[string]string{a.key["on"]: a.key["why"]}
	case "unstarted", "unended":
		idle := r.l.Unstarted
		if kind == "unended" {
			idle = r.l.Unended
		}
		delete(idle, a.at(0))
		if !a.has("off") {
			d, err := time.ParseDuration(a.at(1))
			must(err)
			idle[a.at(0)] = d
		}
	case "prepared":
		delete(r.l.Moves, a.at(0))
		if !a.has("off") {
			p := Preparation{To: a.key["to"], Done: a.has("done"), Failed: a.key["failed"]}
			if a.has("waited") {
				p.Waited = a.duration("waited")
			}
			r.l.Moves[a.at(0)] = p
		}
	case "counted":
		d, err := time.ParseDuration(a.at(0))
		must(err)
		r.l.Pauses[60] = PauseView{Counted: d}
	}
}

func (r *script) memberLine(kind string, a args) {
	switch kind {
	case "member":
		r.m.Self = a.at(0)
	case "renews":
		id, err := strconv.ParseUint(a.at(0), 10, 64)
		must(err)
		r.m.Session = id
	case "ready":
		r.m.Ready = true
	case "not-ready":
		r.m.Ready = false
	case "refused", "not-refused":
		r.m.Refused = kind == "refused"
	case "deaf", "hears":
		r.m.Deaf = kind == "deaf"
	case "leaving":
		r.m.Leaving = true
	case "lease":
		r.m.Lease, r.m.Lapsed = a.has("good"), a.has("lapsed")
	case "record":
		r.record(a)
	case "local":
		r.local(a)
	case "told":
		r.m.Told[Told{Service: a.at(0), From: a.number("from"), Epoch: a.number("epoch"), Index: a.number("index")}] = true
	}
}

func (r *script) record(a args) {
	e, err := strconv.ParseUint(a.at(1), 10, 64)
	must(err)
	r.m.Records = slices.DeleteFunc(r.m.Records, func(o Record) bool { return o.Service == a.at(0) && o.Epoch == e })
	if a.has("off") {
		return
	}
	rec := Record{Service: a.at(0), Epoch: e, Session: 12, SameBoot: a.key["boot"] == "", Releasing: a.has("releasing")}
	if a.has("session") {
		rec.Session = a.number("session")
	}
	r.m.Records = append(r.m.Records, rec)
}

func (r *script) local(a args) {
	delete(r.m.Local, a.at(0))
	if a.has("off") {
		return
	}
	e, err := strconv.ParseUint(a.at(1), 10, 64)
	must(err)
	l := Local{Epoch: e, Phase: Phase(a.at(2)), Generation: 20, Failed: a.key["failed"], Reported: a.has("reported")}
	if a.has("generation") {
		l.Generation = a.number("generation")
	}
	r.m.Local[a.at(0)] = l
}
