package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// machine is the real state behind a lock, as the lease's voter is.
type machine struct {
	before func(index uint64) // called before each Apply, without the lock

	mu    sync.Mutex
	state *state.State
	terms []uint64 // of the entries applied here
}

func newMachine() *machine { return &machine{state: state.New()} }

func (m *machine) Apply(index, term uint64, cmd state.Command) state.Result {
	if m.before != nil {
		m.before(index)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.terms = append(m.terms, term)
	return m.state.Apply(index, term, cmd)
}

func (m *machine) Snapshot() *state.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Clone()
}

func (m *machine) Restore(s *state.State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Index < m.state.Index {
		return fmt.Errorf("index %d is below %d", s.Index, m.state.Index)
	}
	m.state = s
	return nil
}

// names are the nodes that were set, in the order of the log.
func (m *machine) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, e := range m.state.History {
		if e.Kind == (state.SetNode{}).Kind() {
			out = append(out, e.Node)
		}
	}
	return out
}

func (m *machine) index() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Index
}

// member is a node of a test's cluster and all that outlives its process.
type member struct {
	t       *testing.T
	name    string
	path    string
	address string
	options Options // what the test wants different

	dir     *Directory
	machine *machine
	node    *Node
}

// testCluster is a cluster on loopback with real stores.
type testCluster struct {
	t        *testing.T
	founders []cluster.Founder
	members  []*member
}

var testTiming = Timing{Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, LeaderLease: 100 * time.Millisecond, Commit: 20 * time.Millisecond}

// newCluster founds a cluster of n voters, and starts them unless told not to.
func newCluster(t *testing.T, n int) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	for i := range n {
		c.members = append(c.members, newMember(t, string(rune('a'+i))))
	}
	slices.SortFunc(c.members, func(a, b *member) int { return compare(a.address, b.address) })
	for _, m := range c.members {
		m.openDirectory()
		id := m.dir.Identity()
		c.founders = append(c.founders, cluster.Founder{Node: id.Node, Role: state.RoleVoter, Address: id.Address, Birth: id.Birth})
	}
	for i, m := range c.members {
		d := Decision{Verb: Join, Cluster: ClusterID(c.founders), Founders: c.founders}
		if i == 0 {
			d.Verb = Found
		}
		_, said := m.dir.look()
		if _, err := m.dir.settle(said, d); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func compare(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

func newMember(t *testing.T, name string) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := &member{t: t, name: name, path: filepath.Join(t.TempDir(), name), address: l.Addr().String()}
	t.Cleanup(func() {
		if m.node != nil {
			m.stop()
		}
		if m.dir != nil {
			m.dir.Close()
		}
	})
	return m
}

func (m *member) openDirectory() {
	m.t.Helper()
	if m.dir != nil {
		return
	}
	dir, err := OpenDirectory(m.path, Self{Node: m.name, Role: state.RoleVoter, Address: m.address, Peers: []string{m.address}, Version: "test"})
	if err != nil {
		m.t.Fatal(err)
	}
	m.dir = dir
}

// open starts the member's node with a new machine.
func (m *member) open() error {
	m.openDirectory()
	o := m.options
	o.Directory = m.dir
	m.machine = newMachine()
	if o.Machine == nil {
		o.Machine = m.machine
	}
	if o.Timing == (Timing{}) {
		o.Timing = testTiming
	}
	if o.DiskLimit == 0 {
		o.DiskLimit = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(testWriter{m.t}, &slog.HandlerOptions{Level: slog.LevelInfo})).With("test", m.name)
	}
	node, err := Open(o)
	m.node = node
	return err
}

func (m *member) start() {
	m.t.Helper()
	if err := m.open(); err != nil {
		m.t.Fatalf("start %s: %v", m.name, err)
	}
}

func (m *member) stop() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.node.Stop(ctx); err != nil {
		m.t.Errorf("stop %s: %v", m.name, err)
	}
	m.node = nil
	m.dir.Close()
	m.dir = nil
}

func (c *testCluster) start() {
	c.t.Helper()
	for _, m := range c.members {
		if m.node == nil {
			m.start()
		}
	}
}

// leads waits until one of the members has been handed a leadership.
func (c *testCluster) leads(among ...*member) (*member, Leadership) {
	c.t.Helper()
	if len(among) == 0 {
		among = c.members
	}
	var leader *member
	var lead Leadership
	eventually(c.t, "a leader", func() bool {
		for _, m := range among {
			if m.node == nil {
				continue
			}
			if l, ok := m.node.Leading(); ok && m.node.IsLeader() {
				leader, lead = m, l
				return true
			}
		}
		return false
	})
	return leader, lead
}

func (c *testCluster) followers() []*member {
	leader, _ := c.leads()
	var out []*member
	for _, m := range c.members {
		if m != leader {
			out = append(out, m)
		}
	}
	return out
}

// propose commits a SetNode with that reason on whoever leads, asking again
// for as long as it takes.
func (c *testCluster) propose(why string, among ...*member) state.Result {
	c.t.Helper()
	var result state.Result
	eventually(c.t, "commit of "+why, func() bool {
		leader, _ := c.leads(among...)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r, err := leader.node.Propose(ctx, setNode(why))
		if err != nil && !errors.Is(err, cluster.ErrNotLeader) && !errors.Is(err, cluster.ErrUnknown) {
			c.t.Fatalf("propose %s: %v", why, err)
		}
		result = r
		return err == nil
	})
	return result
}

func setNode(name string) state.SetNode {
	return state.SetNode{Node: name, Role: state.RoleMember, Address: "192.0.2.1:7946", Birth: "b-" + name}
}

// level waits until the members' machines have applied the same.
func (c *testCluster) level(want []string, among ...*member) {
	c.t.Helper()
	if len(among) == 0 {
		among = c.members
	}
	for _, m := range among {
		eventually(c.t, m.name+" to be level", func() bool { return slices.Equal(m.machine.names(), want) })
	}
}

// eventually polls for what must come true, with a limit that only a hang reaches.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, 30*time.Second, what, ok)
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("no %s within %v", what, limit)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(began)
}

func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// testWriter logs to the test. What a node says after its test has ended is
// dropped: only a leaked goroutine says any.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (n int, err error) {
	if w.t.Context().Err() == nil {
		w.t.Log(string(p[:max(0, len(p)-1)]))
	}
	return len(p), nil
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return info.Size()
}
