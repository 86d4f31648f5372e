package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// startOf is what the member's machine knows of another node's start.
func (m *machine) startOf(node string) StartOf {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.state.Nodes[node]
	if n == nil {
		return StartOf{}
	}
	return StartOf{Birth: n.Birth, Start: n.Started, Applied: m.state.Index}
}

// watchfulCluster is a running cluster whose nodes know of each other's starts.
func watchfulCluster(t *testing.T) *testCluster {
	t.Helper()
	c := newCluster(t, 3)
	for _, m := range c.members {
		// Slow enough for a busy machine: nothing here is about elections.
		m.options.Timing = Timing{Heartbeat: time.Second, Election: time.Second, LeaderLease: time.Second, Commit: 20 * time.Millisecond}
		m.options.StartOf = func(node string) StartOf { return m.machine.startOf(node) }
	}
	c.start()
	return c
}

// begin notes a start of the member and has it committed, as a daemon does.
func (c *testCluster) begin(m *member, nonce uint64) {
	c.t.Helper()
	birth := m.dir.Identity().Birth
	if err := m.dir.Begin(nonce); err != nil {
		c.t.Fatal(err)
	}
	for _, cmd := range []state.Command{
		state.SetNode{Node: m.name, Role: state.RoleVoter, Address: m.address, Birth: birth},
		state.Started{Node: m.name, Nonce: nonce, Birth: birth, BootID: "boot"},
	} {
		eventually(c.t, "commit of a start", func() bool {
			leader, _ := c.leads()
			r, err := leader.node.Propose(bounded(c.t, 5*time.Second), cmd)
			if r.Refused != nil {
				c.t.Fatal(r.Refused)
			}
			return err == nil
		})
	}
	for _, other := range c.members {
		eventually(c.t, "the start at "+other.name, func() bool {
			return other.machine.startOf(m.name).Start == nonce
		})
	}
}

// copyOf copies a stopped member's directory and gives a function that puts the
// copy back.
func copyOf(t *testing.T, m *member) (putBack func()) {
	t.Helper()
	aside := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(aside, os.DirFS(m.path)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.RemoveAll(m.path); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(m.path, os.DirFS(aside)); err != nil {
			t.Fatal(err)
		}
	}
}

// outlived starts the member, waits until it has ended its part as an older
// copy, and checks that its directory is not taken again.
func outlived(t *testing.T, m *member, words string) {
	t.Helper()
	err := m.open() // the others may call before it has started
	if err == nil {
		select {
		case err = <-m.node.Fatal():
		case <-time.After(20 * time.Second):
			t.Fatal("an older copy takes part")
		}
		m.stop()
	} else {
		m.dir.Close()
		m.node, m.dir = nil, nil
	}
	if !errors.Is(err, ErrOutlived) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "members replace") {
		t.Fatalf("it ended with: %v", err)
	}
	_, err = OpenDirectory(m.path, Self{Node: m.name, Role: state.RoleVoter, Address: m.address, Peers: []string{m.address}})
	if !errors.Is(err, ErrOutlived) || !strings.Contains(err.Error(), "members replace") {
		t.Errorf("a directory that was found to be an older copy opens: %v", err)
	}
}

func TestCopyFromBeforeAStartIsRefused(t *testing.T) {
	c := watchfulCluster(t)
	f := c.followers()[0]
	c.begin(f, 1)
	f.stop()
	putBack := copyOf(t, f)
	f.start()
	c.begin(f, 2)
	// The others forget what they were told, but for what stands in the log.
	for _, m := range c.members {
		m.stop()
	}
	putBack()
	for _, m := range c.members {
		if m != f {
			m.start()
		}
	}
	c.propose("on")
	outlived(t, f, "not noted in it")
	c.propose("and on")
}

func TestCopyWithoutEntriesThatItHeldIsRefused(t *testing.T) {
	c := watchfulCluster(t)
	f := c.followers()[0]
	c.begin(f, 1)
	f.stop()
	putBack := copyOf(t, f)
	f.start()
	c.propose("since")
	c.level([]string{f.name, "since"})
	// An idle leader tells what is committed, and so hears what is held.
	leader, _ := c.leads()
	eventually(t, "the leader's note", func() bool {
		return leader.node.gate.stream.past.about(f.name).Held >= leader.machine.index()
	})
	f.stop()
	putBack()
	outlived(t, f, "its log ends at")
	c.propose("on")
}

// TestLaggardIsNoCopy: being behind, for however long, is nothing bad.
func TestLaggardIsNoCopy(t *testing.T) {
	c := watchfulCluster(t)
	f := c.followers()[0]
	c.begin(f, 1)
	f.stop()
	c.propose("more")
	c.propose("evermore")
	f.start()
	c.level([]string{f.name, "more", "evermore"})
	c.begin(f, 2)
	f.stop()
	for _, m := range c.members {
		if m != f {
			m.stop()
			m.start()
		}
	}
	c.propose("on")
	f.start()
	c.level([]string{f.name, "more", "evermore", "on"})
}

// TestNewDataHasPromisedNothing: what was known of a name's old data is no
// reason against its new data.
func TestNewDataHasPromisedNothing(t *testing.T) {
	known := &continuity{held: map[string]heldBy{}, startOf: func(string) StartOf { return StartOf{Birth: "old", Start: 7, Applied: 100} }}
	known.met("x", "old")
	known.holds("x", 90)
	ends := 0
	m := newMember(t, "x")
	m.openDirectory()
	if err := m.dir.Begin(8); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		birth string
		last  uint64
		want  bool
	}{{"old", 90, true}, {"old", 89, true}, {"old", 100, false}, {"new", 0, false}} {
		own := &continuity{dir: m.dir, birth: x.birth, last: func() uint64 { return x.last }, end: func(error) { ends++ }}
		if err := own.check("y", known.about("x")); (err != nil) != x.want {
			t.Errorf("data %s with a log up to %d: %v", x.birth, x.last, err)
		}
	}
	if ends != 2 {
		t.Errorf("%d ends", ends)
	}
	known.met("x", "new")
	if p := known.about("x"); p.Held != 0 || p.HeldBirth != "new" {
		t.Errorf("of new data is known: %+v", p)
	}
}

// TestCopyAtAnotherAddressIsRefused: the configuration in its log gives it away,
// though somebody has made everything else fit.
func TestCopyAtAnotherAddressIsRefused(t *testing.T) {
	c := watchfulCluster(t)
	f := c.followers()[0]
	c.propose("on")
	f.stop()
	raw, err := os.ReadFile(filepath.Join(f.path, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := newMember(t, "elsewhere").address
	if err := os.WriteFile(filepath.Join(f.path, identityFile), []byte(strings.ReplaceAll(string(raw), f.address, elsewhere)), 0o600); err != nil {
		t.Fatal(err)
	}
	f.address = elsewhere
	if err := f.open(); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "copy of another machine's data directory") {
		t.Errorf("it opens: %v", err)
	}
}

// TestConnectionFromAnotherAddressIsRefused: so it is by the others.
func TestConnectionFromAnotherAddressIsRefused(t *testing.T) {
	c := watchfulCluster(t)
	leader, _ := c.leads()
	told := make(chan string, 16)
	leader.stop()
	leader.options.Stranger = func(node, why string) {
		select {
		case told <- node + ": " + why:
		default:
		}
	}
	leader.start()
	other := c.members[0]
	if other == leader {
		other = c.members[1]
	}
	i := impersonate(t, leader, other.name, ClusterID(c.founders), "127.0.0.1:1")
	conn, err := i.stream.Dial(i.target(), 5*time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), "two nodes of one name") {
		t.Fatalf("let in: %v", err)
	}
	select {
	case words := <-told:
		if !strings.Contains(words, other.name+": ") || !strings.Contains(words, "two nodes of one name") {
			t.Errorf("told: %s", words)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody is told")
	}
}
