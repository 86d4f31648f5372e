package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/cluster/state"
)

// hostNode is a node that passes CheckHost: free ports on loopback, directories
// of the test, and a guard.
func hostNode(t *testing.T) *Node {
	t.Helper()
	dir := t.TempDir()
	guard := filepath.Join(dir, "failoverguard")
	if err := os.WriteFile(guard, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := &Node{
		Path: "node.hcl", Name: "a", Address: fmt.Sprintf("127.0.0.1:%d", freePorts(t)),
		DataDir: filepath.Join(dir, "data", "deep"), Socket: filepath.Join(dir, "run", "s.sock"),
		Guard: guard, HookDirs: []string{filepath.Join(dir, "hooks")},
	}
	return n
}

// freePorts finds four ports in a row that nobody has at the moment.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		base := portOf(l.Addr().String())
		l.Close()
		free := base+portsPerNode <= 65535
		for i := 0; i < portsPerNode && free; i++ {
			address := fmt.Sprintf("127.0.0.1:%d", base+i)
			free = tryListen("tcp", address) == nil && tryListen("udp", address) == nil
		}
		if free {
			return base
		}
	}
	t.Fatal("no four free ports in a row")
	return 0
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		fmt.Fprintln(&b, path, d.Type())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCheckHostChangesNothing(t *testing.T) {
	n := hostNode(t)
	root := filepath.Dir(n.Guard)
	before := tree(t, root)
	if err := n.CheckHost(); err != nil {
		t.Fatal(err)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	if err := os.MkdirAll(n.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.CheckHost(); err != nil {
		t.Fatalf("with a data directory: %v", err)
	}
	if left, err := os.ReadDir(n.DataDir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCheckHostSaysWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, n *Node)
		want  []string
	}{
		{"raft port in use", func(t *testing.T, n *Node) { occupy(t, "tcp", RaftAddress(n.Address)) }, []string{"for Raft", "another program has it", "ss -tlnp"}},
		{"renewal port in use", func(t *testing.T, n *Node) { occupy(t, "udp", RenewAddress(n.Address)) }, []string{"for renewals", "ss -ulnp"}},
		{"gossip port in use", func(t *testing.T, n *Node) { occupy(t, "udp", GossipAddress(n.Address)) }, []string{"for gossip"}},
		{"api port in use", func(t *testing.T, n *Node) { n.API = occupy(t, "tcp", "127.0.0.1:0") }, []string{"api = ", "another program has it"}},
		{"address of another host", func(t *testing.T, n *Node) { n.Address = "192.0.2.11:7400" }, []string{`address = "192.0.2.11:7400" belongs to no interface`}},
		{"data_dir is a file", func(t *testing.T, n *Node) { n.DataDir = n.Guard }, []string{"data_dir", "no directory"}},
		{"data_dir below a file", func(t *testing.T, n *Node) { n.DataDir = n.Guard + "/data" }, []string{"data_dir", "no directory"}},
		{"data_dir cannot be written", func(t *testing.T, n *Node) { n.DataDir = "/proc/failoverd" }, []string{`data_dir = "/proc/failoverd" cannot be written`}},
		{"socket is a file", func(t *testing.T, n *Node) { n.Socket = n.Guard }, []string{"is no socket; remove it"}},
		{"socket answers", func(t *testing.T, n *Node) {
			n.Socket = filepath.Join(filepath.Dir(n.Guard), "s")
			occupy(t, "unix", n.Socket)
		}, []string{"another failoverd answers"}},
		{"no guard", func(t *testing.T, n *Node) { n.Guard += "x" }, []string{"guard = ", "no such file"}},
		{"guard is a directory", func(t *testing.T, n *Node) { n.Guard = filepath.Dir(n.Guard) }, []string{"guard = ", "is no program"}},
		{"hooks of everybody", func(t *testing.T, n *Node) { openDir(t, n.HookDirs[0]) }, []string{"hook_dirs: ", "can be written by others", "chmod go-w"}},
		{"certificate", func(t *testing.T, n *Node) { n.TLS = &TLS{CA: "/nonexistent"} }, []string{`tls.ca = "/nonexistent"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := hostNode(t)
			c.spoil(t, n)
			err := n.CheckHost()
			var problems *Error
			if !errors.As(err, &problems) {
				t.Fatalf("got %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
			if len(problems.Problems) != 1 {
				t.Errorf("more than one problem: %v", err)
			}
		})
	}
}

// A full or read-only disk does not show in permissions, least of all to root.
func TestCheckHostTriesTheDisk(t *testing.T) {
	n := hostNode(t)
	n.DataDir = t.TempDir()
	if err := unix.Mount("tmpfs", n.DataDir, "tmpfs", unix.MS_RDONLY, "size=64k"); err != nil {
		t.Skipf("a read-only file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(n.DataDir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, dir := range []string{n.DataDir, filepath.Join(n.DataDir, "new")} {
		n.DataDir = dir
		if err := n.CheckHost(); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	n.DataDir = filepath.Dir(n.DataDir)
}

func openDir(t *testing.T, dir string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
}

// occupy listens until the test ends and returns where.
func occupy(t *testing.T, network, address string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.LocalAddr().String()
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestAllowCommand(t *testing.T) {
	dir := t.TempDir()
	hooks, elsewhere := filepath.Join(dir, "hooks"), filepath.Join(dir, "elsewhere")
	script := func(path string, mode os.FileMode) string {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("#!/bin/sh\n"), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := script(filepath.Join(hooks, "start"), 0o755)
	deep := script(filepath.Join(hooks, "erp", "start"), 0o755)
	outside := script(filepath.Join(elsewhere, "start"), 0o755)
	similar := script(hooks+"-not/start", 0o755)
	writable := script(filepath.Join(hooks, "writable"), 0o777)
	plain := script(filepath.Join(hooks, "plain"), 0o644)
	inOpen := script(filepath.Join(hooks, "open", "start"), 0o755)
	openDir(t, filepath.Dir(inOpen))
	escape := filepath.Join(hooks, "escape")
	linked := filepath.Join(dir, "linked")
	if err := errors.Join(os.Symlink(outside, escape), os.Symlink(hooks, linked)); err != nil {
		t.Fatal(err)
	}
	n := &Node{HookDirs: []string{hooks}}
	for _, path := range []string{good, deep, filepath.Join(linked, "start")} {
		if err := n.AllowCommand(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := (&Node{HookDirs: []string{linked}}).AllowCommand(good); err != nil {
		t.Errorf("through a linked directory: %v", err)
	}
	for path, want := range map[string]string{
		outside: "in none of hook_dirs", similar: "in none of hook_dirs", escape: "in none of hook_dirs",
		hooks: "in none of hook_dirs", writable: "can be written by others", inOpen: "can be written by others",
		plain: "not executable", filepath.Join(hooks, "gone"): "no such file",
		hooks + "/../elsewhere/start": "clean absolute path", "start": "clean absolute path",
	} {
		if err := n.AllowCommand(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: no %q in %v", path, want, err)
		}
	}
	specs := []state.Spec{{Name: "s", Resources: []state.Resource{
		{Kind: "process", Name: "p", Process: &state.Process{Command: []string{good}}},
		{Kind: "exec", Name: "e", Exec: &state.Exec{Start: []string{good}, Stop: []string{outside}, Status: []string{plain}}},
		{Kind: "vip", Name: "v", VIP: &state.VIP{}},
	}}}
	err := n.CheckCommands(specs)
	var problems *Error
	if !errors.As(err, &problems) || len(problems.Problems) != 2 || !strings.Contains(err.Error(), "service s, exec e: ") {
		t.Errorf("got %v", err)
	}
}
