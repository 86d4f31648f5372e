package consensus

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// The test's own binary serves as a second process.
const (
	helperMode = "CONSENSUS_TEST_HELPER"
	helperPath = "CONSENSUS_TEST_PATH"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperMode); mode != "" {
		if err := helper(mode, os.Getenv(helperPath)); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var helperSelf = Self{Node: "a", Role: state.RoleVoter, Address: "127.0.0.1:1", Peers: []string{"127.0.0.1:1"}}

// helper holds something open, says so, and waits until its input ends.
func helper(mode, path string) error {
	switch mode {
	case "directory":
		d, err := OpenDirectory(path, helperSelf)
		if err != nil {
			return err
		}
		defer d.Close()
	case "store":
		db, err := bbolt.Open(filepath.Join(path, storeFile), 0o600, nil)
		if err != nil {
			return err
		}
		defer db.Close()
	case "write":
		return writeUntilKilled(path)
	default:
		return fmt.Errorf("no mode %q", mode)
	}
	fmt.Println("ready")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	_ = err // the end of the input is the end of the helper
	return nil
}

// writeUntilKilled writes entries and votes as fast as it can, and says after
// each what is on the disk.
func writeUntilKilled(path string) error {
	d, err := OpenDirectory(path, helperSelf)
	if err != nil {
		return err
	}
	o, err := Options{Directory: d, Machine: newMachine()}.withDefaults()
	if err != nil {
		return err
	}
	st, err := openStore(o, newWatch(time.Minute), newVerdict())
	if err != nil {
		return err
	}
	last, err := st.log.LastIndex()
	if err != nil {
		return err
	}
	for i := last + 1; ; i++ {
		term := st.stable.now.Term + 1
		if err := vote(st.stable, term, fmt.Sprintf("candidate%d", term)); err != nil {
			return err
		}
		fmt.Println("term", term)
		if err := st.log.StoreLog(&raft.Log{Index: i, Term: term, Data: []byte(fmt.Sprint("entry", i))}); err != nil {
			return err
		}
		fmt.Println("entry", i)
	}
}

// startHelper starts a second process and returns it with its output.
func startHelper(t *testing.T, mode, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^$")
	cmd.Env = append(os.Environ(), helperMode+"="+mode, helperPath+"="+path)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

func ready(t *testing.T, out *bufio.Scanner) {
	t.Helper()
	if !out.Scan() || out.Text() != "ready" {
		t.Fatalf("helper says %q", out.Text())
	}
}

func TestDirectoryKeepsItsIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	self := Self{Node: "a", Role: state.RoleVoter, Address: "192.0.2.1:7946", Peers: []string{"192.0.2.2:7946", "192.0.2.1:7946"}, Version: "1.0"}
	d, err := OpenDirectory(path, self)
	if err != nil {
		t.Fatal(err)
	}
	first := d.Identity()
	if first.Birth == "" || first.Cluster != "" || first.Peers[0] != "192.0.2.1:7946" || first.Version != "1.0" {
		t.Errorf("%+v", first)
	}
	info, err := os.Stat(filepath.Join(path, identityFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	d.Close()

	self.Role, self.Address, self.Peers = state.RoleWitness, "192.0.2.9:7946", nil // free to change without data
	if d, err = OpenDirectory(path, self); err != nil {
		t.Fatal(err)
	}
	second := d.Identity()
	if second.Birth != first.Birth || second.Role != state.RoleWitness || second.Address != "192.0.2.9:7946" {
		t.Errorf("%+v", second)
	}
	_, said := d.look()
	founders := []cluster.Founder{founder(second)}
	if ok, err := d.settle(said, Decision{Verb: Found, Cluster: "X", Founders: founders}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := d.settle(said, Decision{Verb: Join, Cluster: "X"}); !ok || err != nil {
		t.Errorf("the same again: %v, %v", ok, err)
	}
	if _, err := d.settle(said, Decision{Verb: Join, Cluster: "Y"}); !errors.Is(err, ErrForeign) {
		t.Errorf("another cluster: %v", err)
	}
	d.Close()

	moved := self
	moved.Address = "192.0.2.1:7946"
	if _, err := OpenDirectory(path, moved); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "failoverctl members replace") {
		t.Errorf("moved: %v", err)
	}
	other := self
	other.Node = "b"
	if _, err := OpenDirectory(path, other); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), `node "a"`) {
		t.Errorf("another node: %v", err)
	}
	if d, err = OpenDirectory(path, self); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.Identity(); got.Cluster != "X" || len(got.Founders) != 1 || !d.lays() {
		t.Errorf("%+v", got)
	}
}

func TestDirectoryWithoutAGoodIdentity(t *testing.T) {
	self := helperSelf
	for name, content := range map[string]string{
		"empty":         "",
		"not JSON":      "node a",
		"unknown field": `{"version":1,"node":"a","role":"voter","address":"x","peers":[],"birth":"b","color":"red"}`,
		"no birth":      `{"version":1,"node":"a","role":"voter","address":"x","peers":[]}`,
		"later version": `{"version":2,"node":"a","role":"voter","address":"x","peers":[],"birth":"b"}`,
	} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, identityFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenDirectory(path, self)
		if err == nil || name != "later version" && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		// Nothing was changed, and the lock was given back.
		if got, _ := os.ReadFile(filepath.Join(path, identityFile)); string(got) != content {
			t.Errorf("%s: identity was changed to %s", name, got)
		}
	}
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, storeFile), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDirectory(path, self); !errors.Is(err, ErrDamaged) {
		t.Errorf("a store without an identity: %v", err)
	}
	if _, err := OpenDirectory(path, Self{}); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("nobody: %v", err)
	}
	file := filepath.Join(path, storeFile)
	if _, err := OpenDirectory(file, self); err == nil {
		t.Error("a file for a directory")
	}
}

func TestSecondDaemonIsRefusedByName(t *testing.T) {
	path := t.TempDir()
	cmd, out := startHelper(t, "directory", path)
	ready(t, out)
	_, err := OpenDirectory(path, helperSelf)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", cmd.Process.Pid)) {
		t.Errorf("%v, want the process %d", err, cmd.Process.Pid)
	}
	cmd.Process.Kill()
	cmd.Wait()
	d, err := OpenDirectory(path, helperSelf)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

func TestStoreInUseIsToldWithinASecond(t *testing.T) {
	o, want := filled(t, 10)
	cmd, out := startHelper(t, "store", o.Directory.Path())
	ready(t, out)
	began := time.Now()
	_, err := read(t, o)
	if took := time.Since(began); took > time.Second {
		t.Errorf("told after %v", took)
	}
	if !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if got, err := read(t, o); err != nil || len(got.Entries) != len(want.Entries) {
		t.Error(err)
	}
}

// TestKilledProcessLosesNothingItSaid kills a process in the middle of its
// writes, again and again, and looks for everything that it had reported.
func TestKilledProcessLosesNothingItSaid(t *testing.T) {
	path := t.TempDir()
	entry, term := 0, 0
	for round := range 8 {
		cmd, out := startHelper(t, "write", path)
		for range 5 + 7*round {
			if !out.Scan() {
				t.Fatal("the helper has ended")
			}
			var n int
			switch {
			case strings.HasPrefix(out.Text(), "entry "):
				fmt.Sscanf(out.Text(), "entry %d", &n)
				entry = n
			case strings.HasPrefix(out.Text(), "term "):
				fmt.Sscanf(out.Text(), "term %d", &n)
				term = n
			default:
				t.Fatalf("helper: %s", out.Text())
			}
		}
		cmd.Process.Kill()
		cmd.Wait()

		d, err := OpenDirectory(path, helperSelf)
		if err != nil {
			t.Fatal(err)
		}
		o, err := Options{Directory: d, Machine: newMachine()}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t, o)
		if err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		if len(got.Entries) < entry || got.Ballot.Term < uint64(term) || got.Ballot.VoteTerm < uint64(term) {
			t.Errorf("said entry %d and term %d, found %d entries and %+v", entry, term, len(got.Entries), got.Ballot)
		}
		if want := fmt.Sprintf("candidate%d", got.Ballot.VoteTerm); string(got.Ballot.VoteFor) != want {
			t.Errorf("vote of term %d for %s", got.Ballot.VoteTerm, got.Ballot.VoteFor)
		}
		d.Close()
	}
}

// TestFirstConfigurationSurvivesACrashAtEveryStep lays it with a crash after
// each write, and starts again.
func TestFirstConfigurationSurvivesACrashAtEveryStep(t *testing.T) {
	for step := range 4 {
		m := newMember(t, "a")
		m.openDirectory()
		founders := []cluster.Founder{founder(m.dir.Identity())}
		_, said := m.dir.look()
		if ok, err := m.dir.settle(said, Decision{Verb: Found, Cluster: ClusterID(founders), Founders: founders}); !ok || err != nil {
			t.Fatal(ok, err)
		}
		disk := &faultyDisk{}
		m.options.wrap = func(b backing) backing {
			disk.backing = b
			return &crashing{faultyDisk: disk, after: step}
		}
		err := m.open()
		if step < 2 && err == nil {
			t.Fatalf("step %d: the crash did not come", step)
		}
		if err == nil {
			m.stop()
		} else {
			m.node = nil
			m.dir.Close()
			m.dir = nil
		}
		m.options.wrap = nil
		m.start()
		eventually(t, "a leader", func() bool { _, ok := m.node.Leading(); return ok })
	}
}

// crashing fails every write after some.
type crashing struct {
	*faultyDisk
	after int
}

func (c *crashing) StoreLogs(logs []*raft.Log) error {
	return c.step(func() error { return c.backing.StoreLogs(logs) })
}

func (c *crashing) Set(key, value []byte) error {
	return c.step(func() error { return c.backing.Set(key, value) })
}

func (c *crashing) step(call func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.after == 0 {
		return errors.New("crash")
	}
	c.after--
	return call()
}
