package render

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

var update = flag.Bool("update", false, "rewrite the golden files; read the diff before you commit it")

var (
	now   = time.Date(2026, 3, 14, 14, 5, 0, 0, time.UTC)
	plain = Style{Location: time.UTC}
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-golden +now):\n%s", name, diff)
	}
}

func before(d time.Duration) int64 { return now.Add(-d).UnixMilli() }

// healthy is a cluster of three with one service, in which all is well.
func healthy() cluster.Status {
	return cluster.Status{
		Cluster: "7f3a91c2d4e8b605", Node: "db2", Leader: "db2", Term: 4, Index: 912, Quorum: true,
		Voters: 3, VotersUp: 3, Age: 100 * time.Millisecond, At: now,
		Services: []cluster.ServiceStatus{{
			Name: "pg", Holder: "db1", Epoch: 42, State: "running", LeaseLeft: 1830 * time.Millisecond,
			Since: now.Add(-(9*24 + 4) * time.Hour), Guarantee: []string{"kernel gate", "guard", "kernel timer"}, Kappa: 50 * time.Millisecond,
			Takeover: state.TakeoverLease,
			Resources: []cluster.ResourceStatus{
				{Name: "192.0.2.50/24", Kind: "vip", State: "running", Text: "eth0"},
				{Name: "postgres", Kind: "process", State: "running"},
			},
			Candidates: []cluster.Candidate{
				{Node: "db2", Can: true, Priority: 90, Why: "healthy"},
				{Node: "wit1", Why: "is a witness: it votes only"},
			},
			Last: &state.Event{Index: 88, At: before((9*24 + 4) * time.Hour), Kind: "handover", Service: "pg", Node: "db1", Epoch: 42, By: "ann", Why: "kernel patch of db2"},
			Next: "nothing: db1 holds it and its lease is renewed",
		}},
		Nodes: []cluster.NodeStatus{
			{Name: "db1", Role: state.RoleVoter, Address: "192.0.2.11:7400", Alive: "yes", Ready: true, Session: 80, SessionState: "open", Renewed: 120 * time.Millisecond, Version: "1.0.0", Holds: []string{"pg"}},
			{Name: "db2", Role: state.RoleVoter, Address: "192.0.2.12:7400", Alive: "yes", Ready: true, Leader: true, Session: 31, SessionState: "open", Renewed: 90 * time.Millisecond, Version: "1.0.0"},
			{Name: "wit1", Role: state.RoleWitness, Address: "192.0.2.13:7400", Alive: "yes", Ready: true, Renewed: -1, Version: "1.0.0"},
		},
	}
}

func statuses() map[string]cluster.Status {
	paused := healthy()
	paused.Paused = &state.Mark{By: "ann", Reason: "kernel patch", At: before(time.Minute), Until: now.Add(25 * time.Minute).UnixMilli()}
	paused.Services[0].Paused = &state.Mark{By: "bob", Until: now.Add(24 * time.Hour).UnixMilli()}
	paused.Services[0].Next = "nothing: the cluster is paused"

	lost := healthy()
	lost.Node, lost.Leader, lost.Quorum, lost.VotersUp, lost.Age = "db1", "", false, 1, 12*time.Second
	lost.Services[0].LeaseLeft, lost.Services[0].State = -1, "unknown"
	lost.Services[0].Guarantee, lost.Services[0].Resources = nil, nil
	lost.Services[0].Candidates = []cluster.Candidate{{Node: "db2", Why: "is not heard from"}}
	lost.Services[0].Next = "unknown: this node does not lead"
	lost.Nodes[1].Alive, lost.Nodes[1].Leader, lost.Nodes[2].Alive = "no", false, "suspect"
	lost.Alarms = []string{"this is the view of node db1 alone: no leader is known"}

	never := lost
	never.Age = -1

	failed := healthy()
	failed.Services[0].State = "starting"
	failed.Services[0].Holder, failed.Services[0].Epoch = "db2", 43
	failed.Services[0].Since = now.Add(-3 * time.Second)
	failed.Services[0].Resources[0].State, failed.Services[0].Resources[0].Text = "failed", "02:00:00:00:00:07 answers for it\nit is in use"
	failed.Services[0].Resources[1].State = "stopped"
	failed.Services[0].Candidates = []cluster.Candidate{{Node: "db1", Why: "failed under epoch 42: postgres exited with status 1; failoverctl cleanup pg db1 lets it try again."}}
	failed.Services[0].Failures = []state.Failure{{Node: "db1", Epoch: 42, Why: "postgres exited with status 1", Index: 900, At: before(4 * time.Second)}}
	failed.Services[0].Move = &state.Move{To: "", By: "ann", Why: "try the other one", At: before(2 * time.Second)}
	failed.Nodes[0].Holds, failed.Nodes[1].Holds = nil, []string{"pg"}
	failed.Nodes[0].Standby = &state.Mark{By: "ann"}
	failed.Nodes[1].Ready = false
	failed.Nodes[1].SessionState = "closing"

	alarms := healthy()
	alarms.Alarms = []string{"the kernel's gate was flushed by somebody else and has been put back", "db1: disk 93 % full"}
	alarms.Nodes[0].Alarms = []string{"disk 93 % full"}
	alarms.Nodes[1].Alarms = []string{"the kernel's gate was flushed by somebody else and has been put back"}
	alarms.Nodes[2].Alarms = []string{"certificate expires in 6 d"}
	alarms.Nodes[2].ConfigDiffers = true

	nobody := healthy()
	nobody.Services[0].Holder, nobody.Services[0].State, nobody.Services[0].Resources = "", "waiting", nil
	nobody.Services[0].Takeover = state.TakeoverFence
	nobody.Services[0].Candidates = append(nobody.Services[0].Candidates, cluster.Candidate{Node: "db1", Why: "its session is closing: not heard from for 2.1 s"})
	nobody.Services[0].Next = "waits for a proof that db1 is off: takeover = \"fence\""
	nobody.Services[0].Last = nil
	nobody.Nodes[0].Alive, nobody.Nodes[0].Holds = "no", nil

	empty := healthy()
	empty.Services = nil

	long := healthy()
	name := "a-service-whose-name-somebody-made-as-long-as-the-rules-allow-63"
	long.Services[0].Name, long.Services[0].Holder = name, "db-primary.frankfurt.example.net"
	long.Nodes[0].Name = "db-primary.frankfurt.example.net"
	long.Nodes[1].Name, long.Leader, long.Node = "データベース2", "データベース2", "データベース2"
	long.Services[0].Candidates[0].Node = "データベース2"
	for range 4 {
		long.Services[0].Resources = append(long.Services[0].Resources, cluster.ResourceStatus{Name: "2001:db8:0:1::8a2e:370:7334/64", Kind: "vip", State: "running", Text: "bond0.1234"})
	}

	hostile := healthy()
	hostile.Services[0].Last.Why = "\x1b]0;owned\x07\x1b[2Jgone \u202egnp.exe\r\nline two\ttab"
	hostile.Nodes[0].Alarms = []string{"\x1b[31mred\x1b[0m"}

	return map[string]cluster.Status{
		"healthy": healthy(), "paused": paused, "no-quorum": lost, "no-quorum-ever": never, "failed": failed, "alarms": alarms,
		"nobody": nobody, "no-services": empty, "long-names": long, "hostile": hostile,
		"waiting": {Node: "a", At: now, Waiting: "10.0.0.3:7400 (c) has not answered yet; 10.0.0.2:7400 (b) lists other peers: 10.0.0.1:7400, 10.0.0.2:7400"},
	}
}

func TestStatus(t *testing.T) {
	for name, st := range statuses() {
		t.Run(name, func(t *testing.T) { golden(t, "status-"+name, Status(st, plain)) })
	}
	t.Run("wide", func(t *testing.T) {
		golden(t, "status-wide", Status(healthy(), Style{Location: time.UTC, Wide: true, Width: 160}))
	})
	t.Run("narrow", func(t *testing.T) {
		golden(t, "status-narrow", Status(healthy(), Style{Location: time.UTC, Width: 50}))
	})
}

// Colour adds nothing but colour, and without it there is none.
func TestColour(t *testing.T) {
	colour := plain
	colour.Color = true
	for name, st := range statuses() {
		without, with := Status(st, plain), Status(st, colour)
		if strings.ContainsRune(without, '\x1b') {
			t.Errorf("%s: an escape character without colour", name)
		}
		if stripped := sgr(with); stripped != without {
			t.Errorf("%s: colour changes the text:\n%s", name, cmp.Diff(without, stripped))
		}
		if with == without {
			t.Errorf("%s: there is no colour", name)
		}
	}
}

// sgr removes what sets colours.
func sgr(text string) string {
	for {
		from := strings.Index(text, "\x1b[")
		if from < 0 {
			return text
		}
		to := strings.IndexByte(text[from:], 'm')
		if to < 0 {
			return text
		}
		text = text[:from] + text[from+to+1:]
	}
}

// The same status twice is the same text, and nothing panics on an empty one.
func TestStatusOfNothing(t *testing.T) {
	for _, st := range []cluster.Status{
		{}, {At: now, Services: []cluster.ServiceStatus{{}}, Nodes: []cluster.NodeStatus{{}}},
		{At: now, Services: []cluster.ServiceStatus{{Last: &state.Event{}, Move: &state.Move{}, Paused: &state.Mark{}, Failures: []state.Failure{{}}}}},
	} {
		if got := Status(st, plain); got == "" {
			t.Error("no text")
		}
	}
}

func events() []state.Event {
	return []state.Event{
		{Index: 3, At: before(3 * time.Hour), Kind: "session-open", Node: "db1", Session: 3, By: "db1", Why: "first session"},
		{Index: 12, At: before(2 * time.Hour), Kind: "grant", Service: "pg", Node: "db1", Session: 3, Epoch: 1, By: "db2", Why: "db1 is the best of 2 candidates: priority 100"},
		{Index: 900, At: before(time.Minute), Kind: "session-close", Node: "db1", Session: 3, By: "db2", Why: "not heard from for 1.6 s by a majority"},
		{Index: 901, At: before(time.Minute), Kind: "over", Service: "pg", Node: "db1", Epoch: 1, Why: "expired"},
		{Index: 902, Kind: "leader", Node: "db2", Why: "elected in term 5"},
		{Index: 1234567, At: before(0), Kind: "pause", By: "ann", Why: "kernel\npatch"},
	}
}

func TestExplain(t *testing.T) {
	golden(t, "explain", Explain(cluster.Explanation{
		Service: "pg",
		Lines: []string{
			"db1 holds pg under epoch 42 and says that it is running.",
			"takeover = \"fence\": when the holder is lost, the end of its lease is not enough; it must be fenced, or an operator must say that it is off, which failoverctl failover --force does.",
		},
		Candidates: []cluster.Candidate{
			{Node: "db2", Can: true, Priority: 90, Why: "renewed 90 ms ago"},
			{Node: "db3", Why: "on standby (by ann: \"disk\")"},
			{Node: "db4", Can: true, Why: "yes"},
		},
		History: events(),
	}, plain))
}

func TestEvents(t *testing.T) {
	text := ""
	for _, e := range events() {
		text += Event(e, plain) + "\n"
	}
	golden(t, "events", text)
}

func TestResults(t *testing.T) {
	r := cluster.SwitchoverResult{Service: "pg", From: "db1", To: "db2", Epoch: 43, Took: 28 * time.Millisecond, Steps: []string{"db2 prepares: address probed", "db1 stops vip 192.0.2.50"}}
	apply := cluster.ApplyResult{Index: 77, Changes: []string{"pg changes its resources: it is stopped and started again on db1", "old is removed: it is stopped on db2"}}
	golden(t, "results", strings.Join([]string{
		Moved(r, plain), WouldMove(r), Plan(apply, false, plain), Plan(apply, true, plain), Plan(cluster.ApplyResult{Index: 77}, false, plain),
	}, "\n"))
}

func TestMembers(t *testing.T) {
	members := []cluster.Member{
		{Name: "db1", Address: "192.0.2.11:7400", Role: state.RoleVoter, Vote: "voter", Alive: "yes", Birth: "b1"},
		{Name: "db2", Address: "192.0.2.12:7400", Role: state.RoleMember, Vote: "nonvoter", Alive: "no", Birth: "b2"},
		{Name: "db9", Address: "192.0.2.19:7400", Vote: "none", Alive: "unknown", Waiting: "it has new data under an old name; failoverctl members add db9 192.0.2.19 admits it"},
	}
	wide := plain
	wide.Wide = true
	golden(t, "members", Members(members, plain)+"\n"+Members(members, wide))
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 ms", 250 * time.Microsecond: "0.2 ms", 28 * time.Millisecond: "28 ms", 99 * time.Millisecond: "99 ms",
		100 * time.Millisecond: "0.1 s", 1999 * time.Millisecond: "1.9 s", 10 * time.Second: "10 s", 119 * time.Second: "119 s",
		2 * time.Minute: "2 min", 59*time.Minute + 59*time.Second: "59 min", time.Hour: "1 h", 25 * time.Hour: "1 d 1 h", 48 * time.Hour: "2 d",
		-3 * time.Second: "-3.0 s",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"as it is — é 界": "as it is — é 界", "a\nb\r\n\nc ": "a; b; c", "\x1b[2J": `\u001b[2J`, "\x00\x7f": `\u0000\u007f`,
		"\u202eabc": `\u202eabc`, "a\tb": "a b", "\ufffd": "\ufffd", "\xff": "\ufffd", "": "", "\U000e0041": `\U000e0041`,
	} {
		if got := Plain(text); got != want {
			t.Errorf("Plain(%q) = %q, want %q", text, got, want)
		}
	}
}
