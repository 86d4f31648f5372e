package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// impersonator speaks raft to a node under another node's name.
type impersonator struct {
	t       *testing.T
	to      *member
	name    string
	address string
	stream  *stream
	*raft.NetworkTransport
}

// puppet is a cluster of one real node and two that a test plays.
func puppet(t *testing.T) (real *member, b *impersonator, configuration raft.Configuration) {
	t.Helper()
	real = newMember(t, "real")
	real.openDirectory()
	founders := []cluster.Founder{founder(real.dir.Identity())}
	var names = []string{"b", "c"}
	for i, name := range names {
		founders = append(founders, cluster.Founder{Node: name, Role: state.RoleVoter, Address: fmt.Sprintf("127.0.0.1:%d", i+1), Birth: name})
	}
	for _, f := range founders {
		configuration.Servers = append(configuration.Servers, raft.Server{ID: raft.ServerID(f.Node), Address: raft.ServerAddress(f.Address)})
	}
	_, said := real.dir.look()
	if ok, err := real.dir.settle(said, Decision{Verb: Join, Cluster: "puppets", Founders: founders}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	// Long, so that the node does not stand for election in between.
	real.options.Timing = Timing{Heartbeat: time.Minute, Election: time.Minute, LeaderLease: time.Minute}
	real.options.TrailingLogs = 1 << 20
	real.start()
	return real, impersonate(t, real, "b", "puppets", "127.0.0.1:1"), configuration
}

func impersonate(t *testing.T, to *member, name, id, address string) *impersonator {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{listener: l, advertise: address, cluster: id, node: name, log: slog.New(slog.DiscardHandler),
		resolve: func(a string) (string, error) { return a, nil }, open: map[net.Conn]struct{}{}}
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: s, MaxPool: 1, Timeout: 10 * time.Second, Logger: newBridge(s.log)})
	t.Cleanup(func() { tr.Close(); tr.CloseStreams() })
	return &impersonator{t: t, to: to, name: name, address: address, stream: s, NetworkTransport: tr}
}

func (i *impersonator) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(i.name), Addr: []byte(i.address)}
}

func (i *impersonator) target() raft.ServerAddress {
	return target(raft.ServerID(i.to.name), raft.ServerAddress(i.to.address))
}

func (i *impersonator) append(term, prev, prevTerm, commit uint64, entries ...*raft.Log) raft.AppendEntriesResponse {
	i.t.Helper()
	var resp raft.AppendEntriesResponse
	req := &raft.AppendEntriesRequest{RPCHeader: i.header(), Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: commit, Entries: entries}
	if err := i.AppendEntries("", i.target(), req, &resp); err != nil {
		i.t.Fatalf("append: %v", err)
	}
	return resp
}

func (i *impersonator) install(term, index, indexTerm uint64, s *state.State, c raft.Configuration) (raft.InstallSnapshotResponse, error) {
	i.t.Helper()
	data, err := s.Encode()
	if err != nil {
		i.t.Fatal(err)
	}
	var resp raft.InstallSnapshotResponse
	err = i.InstallSnapshot("", i.target(), &raft.InstallSnapshotRequest{
		RPCHeader: i.header(), SnapshotVersion: 1, Term: term, LastLogIndex: index, LastLogTerm: indexTerm,
		Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: 1, Size: int64(len(data)),
	}, &resp, bytes.NewReader(data))
	return resp, err
}

func command(t *testing.T, index, term uint64, cmd state.Command) *raft.Log {
	t.Helper()
	data, err := EncodeCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: data}
}

func configurationEntry(index, term uint64, c raft.Configuration) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
}

// stateOf is the state after the given nodes were set by entries from 2 on.
func stateOf(t *testing.T, names ...string) *state.State {
	t.Helper()
	s := state.New()
	for i, name := range names {
		if r := s.Apply(uint64(i+2), 5, setNode(name)); r.Refused != nil {
			t.Fatal(r.Refused)
		}
	}
	return s
}

// TestLateSnapshotIsNotInstalled sends, under the present term and under a new
// one, snapshots that end before what was applied.
func TestLateSnapshotIsNotInstalled(t *testing.T) {
	real, b, full := puppet(t)
	smaller := raft.Configuration{Servers: full.Servers[:2]}

	entries := []*raft.Log{configurationEntry(1, 5, smaller)}
	for i, name := range []string{"n2", "n3", "n4", "n5"} {
		entries = append(entries, command(t, uint64(i+2), 5, setNode(name)))
	}
	// The configuration grows after what the late snapshot holds, and entry 7
	// is one that no machine sees: machine and snapshot can stand at one index.
	entries = append(entries, configurationEntry(6, 5, full), &raft.Log{Index: 7, Term: 5, Type: raft.LogNoop})
	if resp := b.append(5, 0, 0, 7, entries...); !resp.Success {
		t.Fatalf("%+v", resp)
	}
	eventually(t, "the entries to be applied", func() bool { return real.machine.index() == 5 && real.node.raft.AppliedIndex() == 7 })
	unchanged := func(when string) {
		t.Helper()
		if got := real.node.raft.AppliedIndex(); got != 7 {
			t.Errorf("%s: applied %d", when, got)
		}
		if got := real.machine.names(); len(got) != 4 {
			t.Errorf("%s: machine has %v", when, got)
		}
		if got := real.node.Configuration().Voters; len(got) != 3 {
			t.Errorf("%s: voters %v", when, got)
		}
		if dirs, err := real.node.store.(*store).snapshots.List(); err != nil || len(dirs) != 0 {
			t.Errorf("%s: snapshots %v, %v", when, dirs, err)
		}
		if err := real.node.verdict.reached(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	for _, late := range []struct {
		index uint64
		names []string
	}{{3, []string{"n2", "n3"}}, {5, []string{"n2", "n3", "n4", "n5"}}, {7, []string{"n2", "n3", "n4", "n5"}}} {
		// The leader may ask twice because it missed the answer: it gets its success.
		resp, err := b.install(5, late.index, 5, stateOf(t, late.names...), smaller)
		if err != nil || !resp.Success {
			t.Errorf("late snapshot of %d: %+v, %v", late.index, resp, err)
		}
		unchanged(fmt.Sprintf("after the snapshot of %d", late.index))
	}
	// Under a new term raft itself must see the request first.
	if _, err := b.install(6, 3, 5, stateOf(t, "n2", "n3"), smaller); err == nil || !strings.Contains(err.Error(), "came late") {
		t.Errorf("late snapshot of a new term: %v", err)
	}
	unchanged("after a snapshot of a new term")
	if got := real.node.Term(); got != 6 {
		t.Errorf("term %d", got)
	}
	if resp := b.append(6, 7, 5, 8, command(t, 8, 6, setNode("n8"))); !resp.Success {
		t.Errorf("%+v", resp)
	}
	eventually(t, "the log to go on", func() bool { return len(real.machine.names()) == 5 })
}

// TestRaftAloneGoesBack shows why the above is needed. When it fails, raft has
// learned to refuse late snapshots.
func TestRaftAloneGoesBack(t *testing.T) {
	config := raft.DefaultConfig()
	config.LocalID, config.Logger = "real", newBridge(slog.New(slog.DiscardHandler))
	config.HeartbeatTimeout, config.ElectionTimeout = time.Minute, time.Minute
	_, tr := raft.NewInmemTransport("127.0.0.1:9")
	store := raft.NewInmemStore()
	m := newMachine()
	r, err := raft.NewRaft(config, &fsm{machine: m, verdict: newVerdict()}, store, store, raft.NewInmemSnapshotStore(), tr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { r.Shutdown().Error() }()
	_, from := raft.NewInmemTransport("127.0.0.1:8")
	from.Connect(tr.LocalAddr(), tr)

	one := raft.Configuration{Servers: []raft.Server{{ID: "real", Address: "127.0.0.1:9"}}}
	two := raft.Configuration{Servers: append(one.Servers, raft.Server{ID: "b", Address: "127.0.0.1:8"})}
	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("b"), Addr: []byte("127.0.0.1:8")}
	var appended raft.AppendEntriesResponse
	req := &raft.AppendEntriesRequest{RPCHeader: header, Term: 5, LeaderCommitIndex: 3, Entries: []*raft.Log{
		configurationEntry(1, 5, one), command(t, 2, 5, setNode("n2")), configurationEntry(3, 5, two),
	}}
	if err := from.AppendEntries("real", tr.LocalAddr(), req, &appended); err != nil || !appended.Success {
		t.Fatal(err, appended)
	}
	data, err := stateOf(t, "n2").Encode()
	if err != nil {
		t.Fatal(err)
	}
	var installed raft.InstallSnapshotResponse
	err = from.InstallSnapshot("real", tr.LocalAddr(), &raft.InstallSnapshotRequest{
		RPCHeader: header, SnapshotVersion: 1, Term: 5, LastLogIndex: 2, LastLogTerm: 5,
		Configuration: raft.EncodeConfiguration(one), ConfigurationIndex: 1, Size: int64(len(data)),
	}, &installed, bytes.NewReader(data))
	if err != nil || !installed.Success {
		t.Fatalf("raft refuses a late snapshot by itself now: %v", err)
	}
	if got := r.AppliedIndex(); got != 2 {
		t.Errorf("applied %d, expected raft to go back to 2", got)
	}
	if got := len(r.GetConfiguration().Configuration().Servers); got != 1 {
		t.Errorf("%d servers, expected raft to go back to 1", got)
	}
}

// TestNewerSnapshotReplacesTheLog: entries that were never committed must not
// stay below a snapshot, where this node would hand them on as a leader.
func TestNewerSnapshotReplacesTheLog(t *testing.T) {
	real, b, full := puppet(t)
	if resp := b.append(5, 0, 0, 2, configurationEntry(1, 5, full), command(t, 2, 5, setNode("n2")), command(t, 3, 5, setNode("never"))); !resp.Success {
		t.Fatalf("%+v", resp)
	}
	eventually(t, "entry 2", func() bool { return real.machine.index() == 2 })
	s := stateOf(t, "n2", "n3", "n4")
	if resp, err := b.install(6, 9, 6, s, full); err != nil || !resp.Success {
		t.Fatalf("%+v, %v", resp, err)
	}
	if got := real.machine.names(); len(got) != 3 {
		t.Errorf("machine has %v", got)
	}
	if last, err := real.node.store.(*store).bolt.LastIndex(); err != nil || last != 0 {
		t.Errorf("log ends at %d, %v: the entry that was never committed is still there", last, err)
	}
	if resp := b.append(6, 9, 6, 10, command(t, 10, 6, setNode("n10"))); !resp.Success {
		t.Fatalf("%+v", resp)
	}
	eventually(t, "entry 10", func() bool { return real.machine.index() == 10 })
	real.stop()
	real.start()
	if got := real.machine.names(); len(got) != 3 {
		t.Errorf("after a restart: %v", got)
	}
}

// TestSnapshotOverALongerLogNeedsANewStart: raft would go on as if the last
// entry were the old log's, with its lower term.
func TestSnapshotOverALongerLogNeedsANewStart(t *testing.T) {
	real, b, full := puppet(t)
	entries := []*raft.Log{configurationEntry(1, 5, full)}
	for i := range uint64(10) {
		entries = append(entries, command(t, 2+i, 5, setNode(fmt.Sprintf("old%d", i))))
	}
	if resp := b.append(5, 0, 0, 1, entries...); !resp.Success {
		t.Fatalf("%+v", resp)
	}
	_, err := b.install(7, 6, 6, stateOf(t, "n2", "n3"), full)
	t.Logf("install: %v", err)
	select {
	case err := <-real.node.Fatal():
		if !errors.Is(err, ErrRestart) {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no fatal error")
	}
	real.stop()
	real.start()
	if got := real.node.raft.LastIndex(); got != 6 {
		t.Errorf("the log ends at %d, want the snapshot's end", got)
	}
	if resp := b.append(7, 6, 6, 7, command(t, 7, 7, setNode("n7"))); !resp.Success {
		t.Fatalf("%+v", resp)
	}
	eventually(t, "entry 7", func() bool { return len(real.machine.names()) == 3 })
}

// TestAnUnreadableSnapshotEndsTheNodesPart: raft would ask for it for ever.
func TestAnUnreadableSnapshotEndsTheNodesPart(t *testing.T) {
	real, b, full := puppet(t)
	data := []byte(`{"format":"failoverd-state","version":99,"state":{}}`)
	var resp raft.InstallSnapshotResponse
	err := b.InstallSnapshot("", b.target(), &raft.InstallSnapshotRequest{
		RPCHeader: b.header(), SnapshotVersion: 1, Term: 5, LastLogIndex: 9, LastLogTerm: 5,
		Configuration: raft.EncodeConfiguration(full), ConfigurationIndex: 1, Size: int64(len(data)),
	}, &resp, bytes.NewReader(data))
	if err == nil {
		t.Error("installed")
	}
	select {
	case err := <-real.node.Fatal():
		if !errors.Is(err, state.ErrSnapshotVersion) {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no fatal error")
	}
}

// TestStateThatWouldGoBackEndsTheNodesPart: should a late snapshot come through
// all the same, the machine refuses it and the node is out.
func TestStateThatWouldGoBackEndsTheNodesPart(t *testing.T) {
	m := newMachine()
	m.state = stateOf(t, "n2", "n3")
	f := &fsm{machine: m, verdict: newVerdict()}
	data, err := stateOf(t, "n2").Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(data))); !errors.Is(err, ErrBackwards) {
		t.Errorf("%v", err)
	}
	if len(m.names()) != 2 {
		t.Error("the state went back")
	}
	if err := f.verdict.reached(); !errors.Is(err, ErrBackwards) {
		t.Errorf("verdict %v", err)
	}
}

// TestUnknownCommandEndsEveryNodesPart commits an entry that no node knows.
func TestUnknownCommandEndsEveryNodesPart(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	c.propose("known")
	c.level([]string{"known"})
	leader, lead := c.leads()
	later := []byte(`{"v":1,"kind":"teleport","command":{"service":"erp"}}`)
	future := leader.node.raft.Apply(later, time.Second)
	next := leader.node.raft.Apply(command(t, 0, 0, setNode("next")).Data, time.Second)
	if err := future.Error(); err != nil {
		t.Logf("future: %v", err)
	}
	if next.Error() == nil {
		if _, applied := next.Response().(applied); applied {
			t.Error("the entry after it was applied")
		}
	}
	<-lead.Ctx.Done()
	for _, m := range c.members {
		fatal := m.node.Fatal()
		select {
		case err := <-fatal:
			if !errors.Is(err, ErrUnknownCommand) {
				t.Errorf("%s: %v", m.name, err)
			}
		case <-time.After(5 * time.Second):
			// The leader may have gone silent before it told this one of the commit.
			if m == leader {
				t.Errorf("%s: no fatal error", m.name)
			}
		}
		if got := m.machine.names(); len(got) != 1 {
			t.Errorf("%s applied %v", m.name, got)
		}
		if m == leader {
			if err := m.node.Snapshot(bounded(t, 5*time.Second)); err == nil {
				t.Error("a snapshot was taken beyond the unknown entry")
			}
		}
	}
	// A restart meets it again, and applies nothing behind it either.
	leader.stop()
	leader.start()
	for _, m := range c.members {
		if m != leader && m.node.verdict.reached() != nil {
			m.stop()
			m.start()
		}
	}
	eventually(t, "the entry to be met again", func() bool {
		for _, m := range c.members {
			if m.node.verdict.reached() != nil {
				return true
			}
		}
		return false
	})
	for _, m := range c.members {
		if got := m.machine.names(); len(got) > 1 {
			t.Errorf("%s applied %v", m.name, got)
		}
	}
}

func TestPipeliningIsOff(t *testing.T) {
	if _, err := new(gate).AppendEntriesPipeline("b", "127.0.0.1:1"); err != raft.ErrPipelineReplicationNotSupported {
		t.Errorf("%v", err)
	}
}
