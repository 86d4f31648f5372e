package state

import (
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// drawCommand draws a command that has some chance to be carried out in the
// state: most of its parts are right, some are not, and a few are arbitrary.
func drawCommand(t *rapid.T, s *State, term uint64) Command {
	d := drawer{t: t, s: s, term: term}
	kinds := []func() Command{
		d.open, d.open, d.close, d.end, d.end, d.fence,
		d.grant, d.grant, d.grant, d.grant, d.handOver, d.handOver, d.handOver, d.released, d.released, d.released,
		d.start, d.services, d.services, d.pause, d.standby, d.move, d.failure, d.setNode, d.rare,
	}
	return kinds[rapid.IntRange(0, len(kinds)-1).Draw(t, "kind")]()
}

type drawer struct {
	t    *rapid.T
	s    *State
	term uint64
}

// mostly returns the right value nine times out of ten.
func mostly[T any](d drawer, right T, other *rapid.Generator[T]) T {
	if rapid.IntRange(0, 9).Draw(d.t, "right") > 0 {
		return right
	}
	return other.Draw(d.t, "other")
}

func (d drawer) bool() bool { return rapid.Bool().Draw(d.t, "bool") }

func (d drawer) of(words ...string) string { return rapid.SampledFrom(words).Draw(d.t, "word") }

func (d drawer) node() string { return d.of("a", "b", "c", "d", "w") }

func (d drawer) service() string { return d.of("erp", "db") }

func (d drawer) stamp() Stamp {
	return Stamp{At: rapid.Int64Range(0, 2).Draw(d.t, "at"), By: d.of("", "a", "ops"), Why: d.of("", "because", "\xffx\n")}
}

func (d drawer) number() uint64 { return rapid.Uint64Range(0, d.s.Index+2).Draw(d.t, "number") }

// session draws one of the known sessions, or any number when there is none.
func (d drawer) session() uint64 {
	if ids := d.s.SessionIDs(); len(ids) > 0 {
		return mostly(d, rapid.SampledFrom(ids).Draw(d.t, "session"), rapid.Uint64Range(0, d.s.Index+2))
	}
	return d.number()
}

// holder draws a node and its current session.
func (d drawer) holder() (string, uint64) {
	node := d.node()
	session := d.number()
	if n := d.s.Nodes[node]; n != nil {
		session = mostly(d, n.Session, rapid.Uint64Range(0, d.s.Index+2))
	}
	return node, session
}

func (d drawer) last(service string) uint64 {
	if svc := d.s.Services[service]; svc != nil {
		return svc.LastEpoch
	}
	return 0
}

// unfinished draws an epoch of the service that is not over, if there is one.
func (d drawer) unfinished(service string) Grant {
	if svc := d.s.Services[service]; svc != nil {
		if open := svc.Unfinished(); len(open) > 0 {
			return rapid.SampledFrom(open).Draw(d.t, "epoch")
		}
	}
	return Grant{Epoch: rapid.Uint64Range(0, d.last(service)+1).Draw(d.t, "epoch"), Node: d.node()}
}

func (d drawer) setNode() Command {
	return SetNode{
		Stamp: d.stamp(), Node: d.node(), Role: Role(d.of("voter", "voter", "voter", "member", "member", "witness", "")),
		Address: d.of("192.0.2.1:7400", "192.0.2.2:7400", ""), Birth: d.of("", "", "", "one", "two"),
	}
}

func (d drawer) start() Command {
	return Started{
		Stamp: d.stamp(), Node: d.node(), Nonce: rapid.Uint64Range(0, 3).Draw(d.t, "nonce"),
		Birth: d.of("one", "one", "two"), BootID: d.of("x", "y"), Version: d.of("1", "\xff"),
	}
}

func (d drawer) open() Command {
	node, replaces := d.holder()
	if sess := d.s.OpenSession(node); sess != nil && rapid.IntRange(0, 4).Draw(d.t, "older") == 0 {
		replaces = sess.Replaces
	}
	return OpenSession{
		Stamp: d.stamp(), Node: node, BootID: d.of("x", "y"), Replaces: replaces,
		TTL: mostly(d, 2*time.Second, rapid.Just(time.Duration(0))), Kappa: 50 * time.Millisecond,
	}
}

func (d drawer) close() Command {
	if rapid.IntRange(0, 2).Draw(d.t, "fewer") > 0 {
		return d.open()
	}
	return CloseSession{Stamp: d.stamp(), Session: d.session()}
}

func (d drawer) end() Command {
	return EndSession{
		Stamp: d.stamp(), Session: d.session(), Proof: ProofKind(d.of("released", "fenced", "expired", "expired", "vouched", "no")),
		Term: mostly(d, d.term, rapid.Uint64Range(0, d.term+1)),
	}
}

func (d drawer) fence() Command {
	return StartFence{Stamp: d.stamp(), Session: d.session(), Proposer: d.node()}
}

func (d drawer) grant() Command {
	service := d.service()
	node, session := d.holder()
	return GrantService{
		Stamp: d.stamp(), Service: service, Node: node, Session: session,
		Epoch: mostly(d, d.last(service)+1, rapid.Uint64Range(0, d.last(service)+2)),
	}
}

func (d drawer) handOver() Command {
	service := d.service()
	from := d.unfinished(service)
	node, session := d.holder()
	return HandOver{
		Stamp: d.stamp(), Service: service, From: from.Epoch, FromNode: mostly(d, from.Node, rapid.Just("a")),
		Epoch: mostly(d, d.last(service)+1, rapid.Uint64Range(0, d.last(service)+2)), ToNode: node, ToSession: session,
	}
}

func (d drawer) released() Command {
	service := d.service()
	g := d.unfinished(service)
	return Released{Stamp: d.stamp(), Service: service, Epoch: g.Epoch, Node: mostly(d, g.Node, rapid.Just("b"))}
}

func (d drawer) services() Command {
	c := SetServices{Stamp: d.stamp()}
	for _, name := range []string{"erp", "db"} {
		switch rapid.IntRange(0, 9).Draw(d.t, name) {
		case 0, 1, 2, 3, 4:
			spec := Spec{Name: name, Takeover: Takeover(mostly(d, d.of("lease", "fence"), rapid.Just("")))}
			if d.bool() {
				spec.Nodes = []string{"a", "b", "c", "w"}
			}
			if d.bool() {
				spec.Resources = []Resource{{Kind: "vip", Name: "v", VIP: &VIP{Address: d.of("192.0.2.8/24", "192.0.2.9/24"), Interface: "eth0"}}}
			}
			c.Services = append(c.Services, spec)
		case 5:
			c.Remove = append(c.Remove, name)
		}
	}
	return c
}

func (d drawer) pause() Command {
	return SetPause{Stamp: d.stamp(), Service: d.of("", "erp"), On: rapid.IntRange(0, 5).Draw(d.t, "on") == 0, Mark: mostly(d, 0, rapid.Uint64Range(0, d.s.Index))}
}

func (d drawer) standby() Command {
	return SetStandby{Stamp: d.stamp(), Node: d.node(), On: d.bool()}
}

func (d drawer) move() Command {
	return RequestMove{Stamp: d.stamp(), Service: d.service(), To: d.of("", "a", "b", "c"), Cancel: rapid.IntRange(0, 3).Draw(d.t, "cancel") == 0}
}

func (d drawer) failure() Command {
	service := d.service()
	g := d.unfinished(service)
	if d.bool() {
		return ClearFailures{Stamp: d.stamp(), Service: service, Node: d.of("", "a", "b")}
	}
	return ReportFailure{Stamp: d.stamp(), Service: service, Epoch: g.Epoch, Node: g.Node}
}

func (d drawer) rare() Command {
	switch rapid.IntRange(0, 3).Draw(d.t, "rare") {
	case 0:
		return Found{Stamp: d.stamp(), ID: d.of("x", "y"), Key: make([]byte, 32)}
	case 1:
		return LeaderStart{Stamp: d.stamp(), Node: d.node()}
	case 2:
		return RemoveNode{Stamp: d.stamp(), Node: d.node()}
	}
	return drawHostile(d.t)
}

// hostile makes commands of arbitrary content, of every kind.
var hostile = map[string]func(t *rapid.T) Command{
	"found":         made[Found],
	"leader":        made[LeaderStart],
	"node":          made[SetNode],
	"node-remove":   made[RemoveNode],
	"started":       made[Started],
	"session-open":  made[OpenSession],
	"session-close": made[CloseSession],
	"session-end":   made[EndSession],
	"fence":         made[StartFence],
	"grant":         made[GrantService],
	"handover":      made[HandOver],
	"released":      made[Released],
	"services":      made[SetServices],
	"pause":         made[SetPause],
	"standby":       made[SetStandby],
	"move":          made[RequestMove],
	"failure":       made[ReportFailure],
	"cleanup":       made[ClearFailures],
}

func drawHostile(t *rapid.T) Command {
	kinds := slices.Sorted(maps.Keys(hostile))
	return hostile[rapid.SampledFrom(kinds).Draw(t, "hostile")](t)
}

func made[C Command](t *rapid.T) Command { return rapid.Make[C]().Draw(t, "command") }
