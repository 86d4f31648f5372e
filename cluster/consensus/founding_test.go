package consensus

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

var threePeers = []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"}

// blank is a node without data; i counts from 0.
func blank(i int) cluster.Identity {
	return cluster.Identity{
		Node: string(rune('a' + i)), Role: state.RoleVoter, Address: threePeers[i],
		Peers: slices.Clone(threePeers), Birth: fmt.Sprintf("%c1", 'a'+i),
	}
}

// foundedBy is a node that has data of the cluster of these founders.
func foundedBy(id cluster.Identity, founders ...cluster.Identity) cluster.Identity {
	for _, f := range founders {
		id.Founders = append(id.Founders, founder(f))
	}
	id.Cluster = ClusterID(id.Founders)
	return id
}

func answersOf(ids ...cluster.Identity) map[string]Answer {
	m := map[string]Answer{}
	for _, id := range ids {
		m[id.Address] = Answer{Identity: id}
	}
	return m
}

func TestNextFounding(t *testing.T) {
	a, b, c := blank(0), blank(1), blank(2)
	change := func(id cluster.Identity, f func(*cluster.Identity)) cluster.Identity {
		id.Peers = slices.Clone(id.Peers)
		f(&id)
		return id
	}
	newDisk := func(id cluster.Identity) cluster.Identity {
		return change(id, func(id *cluster.Identity) { id.Birth += "-new" })
	}
	unreachable := map[string]Answer{b.Address: {Identity: b}, c.Address: {Err: errors.New("connection refused")}}
	for _, test := range []struct {
		name    string
		self    cluster.Identity
		answers map[string]Answer
		verb    Verb
		why     []string
	}{
		{"all blank, first address", a, answersOf(b, c), Found, nil},
		{"all blank, second address", b, answersOf(a, c), Wait, []string{"waiting for a to found"}},
		{"one does not answer", a, unreachable, Wait, []string{c.Address + " does not answer", "connection refused"}},
		{"one was not asked", a, answersOf(b), Wait, []string{c.Address}},
		{"another list", a, answersOf(b, change(c, func(id *cluster.Identity) { id.Peers = id.Peers[:2] })), Wait, []string{"c (" + c.Address + ")", "another list of peers"}},
		{"the same name twice", a, answersOf(b, change(c, func(id *cluster.Identity) { id.Node = "b" })), Wait, []string{`same name "b"`, b.Address, c.Address}},
		{"this node's name", a, answersOf(b, change(c, func(id *cluster.Identity) { id.Node = "a" })), Wait, []string{`same name "a"`}},
		{"a copied directory", a, answersOf(b, change(c, func(id *cluster.Identity) { id.Birth = "b1" })), Wait, []string{"copy"}},
		{"an address that leads elsewhere", a, answersOf(b, change(c, func(id *cluster.Identity) { id.Birth = "x" })), Found, nil},
		{"another address than asked", a, map[string]Answer{b.Address: {Identity: b}, c.Address: {Identity: b}}, Wait, []string{"says that its address is " + b.Address}},
		{"own address not listed", change(a, func(id *cluster.Identity) { id.Peers = []string{b.Address, c.Address} }), answersOf(b, c), Refuse, []string{"do not include this node's own address"}},
		{"two peers", change(a, func(id *cluster.Identity) { id.Peers = threePeers[:2] }), answersOf(change(b, func(id *cluster.Identity) { id.Peers = threePeers[:2] })), Wait, []string{"witness"}},
		{"one peer", change(a, func(id *cluster.Identity) { id.Peers = threePeers[:1] }), nil, Found, nil},
		{"no vote anywhere", change(a, func(id *cluster.Identity) { id.Role = state.RoleMember; id.Peers = threePeers[:1] }), nil, Wait, []string{"has a vote"}},
		{"two voters and a member", a, answersOf(b, change(c, func(id *cluster.Identity) { id.Role = state.RoleMember })), Wait, []string{"witness"}},
		{"two voters and a witness", a, answersOf(b, change(c, func(id *cluster.Identity) { id.Role = state.RoleWitness })), Found, nil},
		{"own cluster is a founder's", b, answersOf(foundedBy(a, a, b, c), c), Join, []string{"a (" + a.Address + ")"}},
		{"a founder joins though another is away", b, map[string]Answer{a.Address: {Identity: foundedBy(a, a, b, c)}, c.Address: {Err: errors.New("x")}}, Join, nil},
		{"first address, and another has data", newDisk(a), answersOf(b, foundedBy(c, a, b, c)), Refuse, []string{"knows a", "failoverctl members replace a", "a1-new"}},
		{"wiped founder", newDisk(c), answersOf(foundedBy(a, a, b, c), foundedBy(b, a, b, c)), Refuse, []string{"failoverctl members replace c"}},
		{"admitted with its new disk", newDisk(c), answersOf(foundedBy(a, a, b, newDisk(c))), Join, nil},
		{"a stranger", change(c, func(id *cluster.Identity) { id.Node = "z" }), answersOf(foundedBy(a, a, b)), Refuse, []string{"does not know this node", "failoverctl members add z"}},
		{"its name taken", change(c, func(id *cluster.Identity) { id.Node = "b" }), answersOf(foundedBy(a, a, b)), Refuse, []string{"has a node b already"}},
		{"its address taken", change(c, func(id *cluster.Identity) { id.Node = "z" }), answersOf(foundedBy(a, a, b, c)), Refuse, []string{"knows this node's address"}},
		{"two clusters", c, answersOf(foundedBy(a, a, b, c), foundedBy(b, b, c)), Refuse, []string{"two clusters", "a (", "b ("}},
		{"has data already", foundedBy(a, a, b, c), nil, Join, nil},
	} {
		d := NextFounding(test.self, test.answers)
		if d.Verb != test.verb {
			t.Errorf("%s: %s (%s), want %s", test.name, d.Verb, d.Why, test.verb)
		}
		for _, want := range test.why {
			if !strings.Contains(d.Why, want) {
				t.Errorf("%s: %q lacks %q", test.name, d.Why, want)
			}
		}
		if d.Why == "" || (d.Cluster != "") != (d.Verb == Found || d.Verb == Join) {
			t.Errorf("%s: %+v", test.name, d)
		}
	}
}

func TestClusterIDIsOfAllItsFounders(t *testing.T) {
	f := []cluster.Founder{founder(blank(0)), founder(blank(1)), founder(blank(2))}
	id := ClusterID(f)
	reversed := slices.Clone(f)
	slices.Reverse(reversed)
	if ClusterID(reversed) != id {
		t.Error("the order matters")
	}
	for i, change := range []func(*cluster.Founder){
		func(f *cluster.Founder) { f.Node += "x" }, func(f *cluster.Founder) { f.Role = state.RoleWitness },
		func(f *cluster.Founder) { f.Address += "0" }, func(f *cluster.Founder) { f.Birth += "x" },
		func(f *cluster.Founder) { f.Node, f.Address = f.Node+"1", f.Address[1:] },
	} {
		other := slices.Clone(f)
		change(&other[1])
		if ClusterID(other) == id {
			t.Errorf("change %d does not matter", i)
		}
	}
}

// network lets directories ask each other.
type network struct {
	mu   sync.Mutex
	dirs map[string]*Directory
}

func (n *network) ask(_ context.Context, address string) (cluster.Identity, error) {
	n.mu.Lock()
	d := n.dirs[address]
	n.mu.Unlock()
	if d == nil {
		return cluster.Identity{}, errors.New("connection refused")
	}
	return d.Identity(), nil
}

func (n *network) set(address string, d *Directory) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dirs[address] = d
}

// TestFoundingOnLoopback founds from peers alone, one node after the other,
// runs the cluster, and brings a node back whose disk was wiped.
func TestFoundingOnLoopback(t *testing.T) {
	var members []*member
	var peers []string
	for _, name := range []string{"a", "b", "c"} {
		m := newMember(t, name)
		members = append(members, m)
		peers = append(peers, m.address)
	}
	net := &network{dirs: map[string]*Directory{}}
	open := func(m *member) {
		t.Helper()
		dir, err := OpenDirectory(m.path, Self{Node: m.name, Role: state.RoleVoter, Address: m.address, Peers: peers})
		if err != nil {
			t.Fatal(err)
		}
		m.dir = dir
		net.set(m.address, dir)
	}
	var mu sync.Mutex
	told := map[string][]string{}
	run := func(ctx context.Context, m *member) (Founded, error) {
		return RunFounding(ctx, FoundingOptions{Directory: m.dir, Ask: net.ask, Interval: 20 * time.Millisecond, Progress: func(why string) {
			mu.Lock()
			defer mu.Unlock()
			told[m.name] = append(told[m.name], why)
		}})
	}
	results := make(chan Founded, 3)
	failed := make(chan error, 3)
	for _, m := range members {
		open(m)
		go func() {
			f, err := run(bounded(t, 30*time.Second), m)
			results <- f
			failed <- err
		}()
		// Each starts only once the one before has said whom it waits for.
		if m != members[2] {
			eventually(t, "word of "+m.name, func() bool { mu.Lock(); defer mu.Unlock(); return len(told[m.name]) > 0 })
		}
	}
	ids := map[string]bool{}
	for range members {
		f := <-results
		ids[f.Cluster] = true
		if err := <-failed; err != nil || len(f.Founders) != 3 {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	if len(ids) != 1 || ids[""] {
		t.Fatalf("clusters %v", ids)
	}
	if why := told["a"][0]; !strings.Contains(why, members[2].address+" does not answer") {
		t.Errorf("a was told %q", why)
	}
	lays := 0
	for _, m := range members {
		if m.dir.lays() {
			lays++
		}
	}
	if lays != 1 {
		t.Errorf("%d nodes lay the first configuration", lays)
	}
	c := &testCluster{t: t, members: members}
	c.start()
	c.propose("one")
	c.level([]string{"one"})

	// A restart needs nobody.
	members[0].stop()
	net.set(members[1].address, nil)
	open(members[0])
	if f, err := run(bounded(t, 10*time.Second), members[0]); err != nil || !ids[f.Cluster] {
		t.Errorf("restart: %+v, %v", f, err)
	}
	members[0].start()
	c.level([]string{"one"})
	net.set(members[1].address, members[1].dir)

	// A wiped disk founds nothing and joins nothing.
	wiped := members[2]
	wiped.stop()
	wiped.path = filepath.Join(t.TempDir(), "empty")
	open(wiped)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if f, err := run(ctx, wiped); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "failoverctl members replace c") {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := Open(Options{Directory: wiped.dir, Machine: newMachine()}); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("open without a cluster: %v", err)
	}
	c.members = members[:2]
	c.propose("two")
	c.level([]string{"one", "two"})
}

func TestFoundingRefusesItsOwnMistakesAtOnce(t *testing.T) {
	d, err := OpenDirectory(t.TempDir(), Self{Node: "a", Role: state.RoleVoter, Address: "10.0.0.9:1", Peers: threePeers})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = RunFounding(bounded(t, 10*time.Second), FoundingOptions{Directory: d, Ask: (&network{}).ask})
	if !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), "10.0.0.9:1") {
		t.Errorf("%v", err)
	}
}
