package integration

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// tree describes everything below a directory but sockets: paths, modes, sizes, times.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.IsDir() {
			fmt.Fprintf(&b, "%s %v\n", path, info.Mode())
			return nil
		}
		fmt.Fprintf(&b, "%s %v %d %v\n", path, info.Mode(), info.Size(), info.ModTime())
		return nil
	}))
	return b.String()
}

// write writes a file into a directory of the test's own and gives its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// Mistakes in a file of services are told with their line by validate and by
// apply, the same, before anybody is asked.
func TestBadServices(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	for _, c := range []struct {
		name, text string
		line       int
		words      []string
	}{
		{"misspelt key", "service \"s\" {\n  failbak = true\n  vip \"10.77.0.100/24\" { interface = \"eth0\" }\n}\n", 2, []string{"failbak", `"failback"`}},
		{"unknown block", "service \"s\" {\n  vip \"10.77.0.100/24\" { interface = \"eth0\" }\n  proces \"p\" {}\n}\n", 3, []string{"proces", `"process"`}},
		{"wrong type", "service \"s\" {\n  failback = \"sometimes\"\n  vip \"10.77.0.100/24\" { interface = \"eth0\" }\n}\n", 2, []string{"failback", "true or false"}},
		{"duplicate name", "service \"s\" {\n  vip \"10.77.0.100/24\" { interface = \"eth0\" }\n}\nservice \"s\" {\n  vip \"10.77.0.101/24\" { interface = \"eth0\" }\n}\n", 4, []string{`"s"`, "a second time", "line 1"}},
		{"network address", "service \"s\" {\n  vip \"10.77.0.0/24\" { interface = \"eth0\" }\n}\n", 2, []string{"10.77.0.0", "network"}},
		{"no prefix", "service \"s\" {\n  vip \"10.77.0.100\" { interface = \"eth0\" }\n}\n", 2, []string{"10.77.0.100", "/24"}},
		{"no such prefix", "service \"s\" {\n  vip \"10.77.0.100/42\" { interface = \"eth0\" }\n}\n", 2, []string{"/42"}},
		{"the same address twice", "service \"s\" {\n  vip \"10.77.0.100/24\" { interface = \"eth0\" }\n}\nservice \"t\" {\n  vip \"10.77.0.100/24\" { interface = \"eth0\" }\n}\n", 5, []string{"10.77.0.100", `"s"`}},
		{"no end", "service \"s\" {\n  vip \"10.77.0.100/24\" {\n", 2, []string{"brace"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "services.hcl", c.text)
			words := append(c.words, fmt.Sprintf("%s:%d:", path, c.line))
			program(ctx, t, lab.Control, "validate", path).mustSay(t, codeError, words...)
			program(ctx, t, lab.Control, "--socket", "/nonexistent/failoverd.sock", "apply", path).mustSay(t, codeError, words...)
		})
	}
}

// Mistakes in a node's own file are told with their line by validate, by
// failoverd --check and by failoverd, which leaves nothing behind.
func TestBadNode(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	good := []string{
		`node = "a"`,
		`address = "127.0.0.1:27400"`,
		`peers = ["127.0.0.1:27400", "127.0.0.1:27410", "127.0.0.1:27420"]`,
	}
	for _, c := range []struct {
		name  string
		line  int    // which of the lines is replaced, from 1; 4: one more
		text  string // by what
		words []string
	}{
		{"misspelt key", 4, `profil = "fast"`, []string{"profil", `"profile"`}},
		{"wrong type", 4, `insecure = "perhaps"`, []string{"insecure", "true or false"}},
		{"unknown profile", 4, `profile = "quick"`, []string{"quick", "default", "fast"}},
		{"peers without this node", 3, `peers = ["127.0.0.1:27410", "127.0.0.1:27420", "127.0.0.1:27430"]`, []string{"peers does not name this node", "127.0.0.1:27400"}},
		{"two peers", 3, `peers = ["127.0.0.1:27400", "127.0.0.1:27410"]`, []string{"two peers", "witness"}},
		{"open to others", 2, `address = "192.0.2.11"`, []string{"192.0.2.11", "tls", "insecure = true"}},
		{"a name for an address", 2, `address = "node-a"`, []string{"node-a", "IP address"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := append([]string{}, good...)
			if c.line > len(lines) {
				lines = append(lines, c.text)
			} else {
				lines[c.line-1] = c.text
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "node.hcl")
			text := strings.Join(lines, "\n") + fmt.Sprintf("\ndata_dir = %q\nsocket = %q\n", filepath.Join(dir, "data"), filepath.Join(dir, "run", "s"))
			must(t, os.WriteFile(path, []byte(text), 0o600))
			before := tree(t, dir)
			words := append(c.words, fmt.Sprintf("%s:%d:", path, c.line))
			program(ctx, t, lab.Control, "validate", path).mustSay(t, codeError, words...)
			program(ctx, t, lab.Daemon, "--config", path, "--check").mustSay(t, codeUsage, words...)
			program(ctx, t, lab.Daemon, "--config", path).mustSay(t, codeUsage, words...)
			if after := tree(t, dir); after != before {
				t.Errorf("something has changed; before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// alone is one host with a good file for a daemon of three.
func alone(t *testing.T) (*lab.Host, *lab.Failoverd) {
	t.Helper()
	l := newLab(t, "a", "b", "c")
	f, err := l.Failoverd(lab.FailoverdOptions{Hosts: l.Hosts(), Profile: "fast"})
	must(t, err)
	return l.Host("a"), f
}

// What only the host can tell is told before anything is changed on it.
func TestBadHost(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	h, f := alone(t)
	config := f.ConfigFile(h)
	good := read(config)
	start := func(t *testing.T, words ...string) {
		t.Helper()
		before := tree(t, h.Dir())
		for _, args := range [][]string{{"--config", config, "--check"}, {"--config", config}} {
			o := on(ctx, t, h, lab.Daemon, args...)
			o.mustSay(t, codeUsage, words...)
			o.mustSay(t, codeUsage, config)
		}
		if err := nothingLeft(h, lab.Daemon, lab.Guard); err != nil {
			t.Error(err)
		}
		if after := tree(t, h.Dir()); after != before {
			t.Errorf("something has changed; before:\n%safter:\n%s", before, after)
		}
	}
	with := func(t *testing.T, from, to string) {
		t.Helper()
		edit(t, config, from, to)
		t.Cleanup(func() { must(t, os.WriteFile(config, []byte(good), 0o600)) })
	}

	t.Run("data directory is a file", func(t *testing.T) {
		path := filepath.Join(h.Dir(), "file")
		must(t, os.WriteFile(path, nil, 0o600))
		with(t, filepath.Join(h.Dir(), "data"), filepath.Join(path, "data"))
		start(t, "data_dir", path, "no directory")
	})
	t.Run("data directory cannot be made", func(t *testing.T) {
		with(t, filepath.Join(h.Dir(), "data"), "/proc/failoverd")
		start(t, "data_dir", "/proc/failoverd", "cannot be")
	})
	t.Run("port in use", func(t *testing.T) {
		var taken net.Listener
		must(t, h.In(func() (err error) {
			taken, err = net.Listen("tcp", net.JoinHostPort(h.Address().String(), "7401"))
			return err
		}))
		defer taken.Close()
		start(t, h.Address().String()+":7401", "another program has it", "ss -tlnp")
	})
	t.Run("renewal port in use", func(t *testing.T) {
		var taken net.PacketConn
		must(t, h.In(func() (err error) {
			taken, err = net.ListenPacket("udp", net.JoinHostPort(h.Address().String(), "7403"))
			return err
		}))
		defer taken.Close()
		start(t, h.Address().String()+":7403", "another program has it", "ss -ulnp")
	})
	t.Run("address of another host", func(t *testing.T) {
		with(t, fmt.Sprintf("address   = %q", h.Address()), `address = "10.77.0.13"`)
		start(t, "10.77.0.13", "belongs to no interface", h.Address().String())
	})
	t.Run("no guard", func(t *testing.T) {
		with(t, "insecure  = true", "insecure = true\nguard = \"/nonexistent/failoverguard\"")
		start(t, "guard", "/nonexistent/failoverguard")
	})
	t.Run("interface that is not there", func(t *testing.T) {
		path := write(t, "services.hcl", "service \"s\" {\n  vip \"10.77.0.100/24\" { interface = \"eth7\" }\n}\n")
		on(ctx, t, h, lab.Control, "validate", "--host", path).mustSay(t, codeError, "eth7", "service s", lab.Interface)
		program(ctx, t, lab.Control, "validate", path).mustSay(t, 0) // it may be there on the nodes
	})
}

// foreign starts a host's daemon, which must end by itself with those words and
// leave the data as it was.
func foreign(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host, words ...string) {
	t.Helper()
	data := filepath.Join(h.Dir(), "data")
	before := kept(t, data)
	cmd := exec.Command(programPath(t, lab.Daemon), "--config", f.ConfigFile(h))
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	o := finish(limit, t, cmd, h)
	o.mustSay(t, codeError, words...)
	for path, text := range kept(t, data) {
		if before[path] != text {
			t.Errorf("%s has changed", path)
		}
	}
}

// kept gives what a node must not lose: identity and log.
func kept(t *testing.T, dir string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, name := range []string{"identity.json", "raft.db"} {
		texts[name] = read(filepath.Join(dir, name))
	}
	return texts
}

// A daemon starts with its own data only, and with data that is whole. The
// other two go on meanwhile.
func TestBadData(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	holder, s, err := r.Settled(ctx)
	must(t, err)
	var h *lab.Host
	for _, candidate := range r.Failoverd.Hosts() {
		if candidate != holder && candidate.Name() != s.Leader {
			h = candidate
		}
	}
	if h == nil {
		h = other(r, holder)
	}
	from := r.Lab.Now()
	must(t, r.Failoverd.Kill(h))
	data, config := filepath.Join(h.Dir(), "data"), r.Failoverd.ConfigFile(h)
	identity, log, file := read(filepath.Join(data, "identity.json")), read(filepath.Join(data, "raft.db")), read(config)
	put := func(t *testing.T, name, text string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(data, name), []byte(text), 0o600))
	}
	restore := func() { put(t, "identity.json", identity); put(t, "raft.db", log) }

	t.Run("of another node", func(t *testing.T) {
		defer func() { must(t, os.WriteFile(config, []byte(file), 0o600)) }()
		edit(t, config, fmt.Sprintf("node      = %q", h.Name()), `node = "z"`)
		foreign(ctx, t, r.Failoverd, h, data, fmt.Sprintf("%q", h.Name()), `"z"`)
	})
	t.Run("without an identity", func(t *testing.T) {
		defer restore()
		must(t, os.Remove(filepath.Join(data, "identity.json")))
		foreign(ctx, t, r.Failoverd, h, data, "identity.json", "members replace")
	})
	t.Run("identity cut", func(t *testing.T) {
		defer restore()
		put(t, "identity.json", identity[:len(identity)/2])
		foreign(ctx, t, r.Failoverd, h, "identity.json", "members replace")
	})
	t.Run("log missing", func(t *testing.T) {
		defer restore()
		must(t, os.Remove(filepath.Join(data, "raft.db")))
		foreign(ctx, t, r.Failoverd, h, "raft.db", "members replace")
	})
	t.Run("log empty", func(t *testing.T) {
		defer restore()
		put(t, "raft.db", "")
		foreign(ctx, t, r.Failoverd, h, "raft.db", "members replace")
	})
	t.Run("log cut", func(t *testing.T) {
		defer restore()
		put(t, "raft.db", log[:len(log)/2])
		foreign(ctx, t, r.Failoverd, h, "raft.db", "members replace")
	})
	t.Run("log flipped", func(t *testing.T) {
		defer restore()
		broken := []byte(log)
		for i := range 4096 * 4 { // the two meta pages and what follows
			broken[i] ^= 0xff
		}
		put(t, "raft.db", string(broken))
		foreign(ctx, t, r.Failoverd, h, "raft.db", "members replace")
	})
	t.Run("in use", func(t *testing.T) {
		must(t, r.Failoverd.Start(h))
		listening(ctx, t, r.Failoverd, h)
		second := filepath.Join(h.Dir(), "second.hcl")
		must(t, os.WriteFile(second, []byte(file), 0o600))
		o := on(ctx, t, h, lab.Daemon, "--config", second)
		if o.code == 0 || !strings.Contains(o.errors, "another") {
			t.Errorf("want another failoverd to be named: %s", o)
		}
	})
	if now, _, err := r.Settled(ctx); err != nil || now != holder {
		t.Fatalf("%v holds (%v), want %s as before", now, err, holder)
	}
	must(t, r.Client.Settle(ctx, r.Lab.Now()))
	if lost := r.Client.Lost(from, r.Lab.Now()); len(lost) > 0 {
		t.Errorf("%d requests lost because of a node that neither leads nor holds, the first %+v", len(lost), lost[0])
	}
}

// A service that runs is removed only by somebody who says that this is meant,
// and a mistake in what is applied changes nothing.
func TestBadApply(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	holder, s, err := r.Settled(ctx)
	must(t, err)
	_, epoch, _ := serviceOf(s, lab.Service)
	from := r.Lab.Now()
	unchanged := func(t *testing.T) {
		t.Helper()
		s, err := r.Failoverd.Status(ctx)
		must(t, err)
		if now, e, state := serviceOf(s, lab.Service); now != holder.Name() || e != epoch || state != "running" || len(s.Services) != 1 {
			t.Errorf("%s %s under epoch %d, want it on %s under %d; %d services", now, state, e, holder, epoch, len(s.Services))
		}
	}
	spare := "service \"spare\" {\n  nodes = [\"a\"]\n  vip \"10.77.0.120/24\" { interface = \"eth0\" }\n}\n"

	t.Run("removal of what runs", func(t *testing.T) {
		path := write(t, "services.hcl", spare)
		ctl(ctx, t, r.Failoverd, holder, "apply", "--prune", path).mustSay(t, codeRefused, lab.Service, "--yes")
		unchanged(t)
		ctl(ctx, t, r.Failoverd, holder, "plan", "--prune", path).mustSay(t, 0, lab.Service, "removed", holder.Name(), "spare")
		unchanged(t)
	})
	t.Run("node that is not there", func(t *testing.T) {
		path := write(t, "services.hcl", strings.Replace(spare, `"a"`, `"q"`, 1))
		ctl(ctx, t, r.Failoverd, holder, "apply", path).mustSay(t, codeUsage, `"q"`, "not a member")
		unchanged(t)
	})
	t.Run("one mistake among good ones", func(t *testing.T) {
		path := write(t, "services.hcl", spare+"service \"other\" {\n  nods = [\"a\"]\n  vip \"10.77.0.121/24\" { interface = \"eth0\" }\n}\n")
		ctl(ctx, t, r.Failoverd, holder, "apply", path).mustSay(t, codeError, path+":6:", "nods", `"nodes"`)
		unchanged(t)
	})
	t.Run("unknown service and node", func(t *testing.T) {
		ctl(ctx, t, r.Failoverd, holder, "switchover", "pett").mustSay(t, codeError, "pett")
		ctl(ctx, t, r.Failoverd, holder, "switchover", lab.Service, "--to", "q").mustSay(t, codeError, "q")
		ctl(ctx, t, r.Failoverd, holder, "node", "standby", "q").mustSay(t, codeRefused, "q", "known: a, b, c")
		unchanged(t)
	})
	t.Run("failover of a holder that lives", func(t *testing.T) {
		ctl(ctx, t, r.Failoverd, holder, "failover", lab.Service).mustSay(t, codeRefused, "renewed its lease", "switchover "+lab.Service)
		ctl(ctx, t, r.Failoverd, holder, "failover", lab.Service, "--force", "--reason", "a test").mustSay(t, codeUsage, "--yes")
		ctl(ctx, t, r.Failoverd, holder, "failover", lab.Service, "--force", "--yes").mustSay(t, codeUsage, "--reason")
		ctl(ctx, t, r.Failoverd, holder, "failover", lab.Service, "--force", "--yes", "--reason", "a test").mustSay(t, codeRefused, "renewed its lease")
		unchanged(t)
	})
	must(t, r.Client.Settle(ctx, r.Lab.Now()))
	if lost := r.Client.Lost(from, r.Lab.Now()); len(lost) > 0 {
		t.Errorf("%d requests lost before anything was changed", len(lost))
	}
	t.Run("interface that is not there", func(t *testing.T) {
		path := write(t, "services.hcl", "service \"spare\" {\n  vip \"10.77.0.120/24\" { interface = \"eth7\" }\n}\n")
		ctl(ctx, t, r.Failoverd, holder, "apply", path)
		eventually(ctx, t, "what is said of it", func() error {
			out, err := r.Failoverd.AnyCtl(ctx, "explain", "spare")
			if err == nil && (!strings.Contains(out, "eth7") || !strings.Contains(out, lab.Interface)) {
				err = fmt.Errorf("explain: %s", out)
			}
			return err
		})
	})
	t.Run("removal that is meant", func(t *testing.T) {
		path := write(t, "services.hcl", spare)
		ctl(ctx, t, r.Failoverd, holder, "apply", "--prune", "--yes", path).mustSay(t, 0)
		eventually(ctx, t, "the end of the service", func() error {
			if now := r.Lab.Holders(); len(now) > 0 {
				return fmt.Errorf("%v has the address", now)
			}
			return nothingLeft(holder, "pet")
		})
	})
}

// A node that comes with the data of another cluster, as after a disk was put
// into the wrong machine, is no voter of this one, and changes nothing in it.
func TestDataOfAnotherCluster(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	holder, _, err := r.Settled(ctx)
	must(t, err)
	h := other(r, holder)
	data := filepath.Join(h.Dir(), "data")

	// The same hosts found a second cluster, with the first one's data kept aside.
	for _, each := range r.Failoverd.Hosts() {
		must(t, r.Failoverd.Kill(each))
		if _, err := each.Signal(syscall.SIGKILL, lab.Guard); err != nil {
			t.Fatal(err)
		}
	}
	aside := filepath.Join(h.Dir(), "aside")
	for _, each := range r.Failoverd.Hosts() {
		eventually(ctx, t, "the end of everything", func() error { return nothingLeft(each, lab.Guard, "pet") })
		own := filepath.Join(each.Dir(), "data")
		if each == h {
			must(t, os.Rename(own, aside))
		} else {
			must(t, os.RemoveAll(own))
		}
	}
	must(t, r.Failoverd.Start(r.Failoverd.Hosts()...))
	_, before, err := r.Failoverd.Settled(ctx, "")
	must(t, err)
	if len(before.Services) != 0 {
		t.Fatalf("a new cluster has services: %+v", before.Services)
	}
	second := clusterOf(ctx, t, r.Failoverd, h)

	wipe(ctx, t, r.Failoverd, h)
	must(t, os.Rename(aside, data))
	must(t, r.Failoverd.Start(h))
	var said string
	eventually(ctx, t, "what is said of it", func() error {
		said = read(r.Failoverd.LogFile(h))
		said = said[strings.LastIndex(said, "insecure = true"):]
		if !strings.Contains(said, second) {
			return fmt.Errorf("want the cluster %s to be named: %s", second, said)
		}
		return nil
	})
	t.Logf("it says: %s", last(said, 3))
	steadily(ctx, t, 3*time.Second, "beside data of another cluster", func() error {
		for _, each := range r.Failoverd.Hosts() {
			s, err := status(ctx, r.Failoverd, each, "--local")
			if each == h {
				if err == nil && s.VotersUp > 1 {
					return fmt.Errorf("%s counts %d voters as its own", h, s.VotersUp)
				}
				continue
			}
			if err != nil {
				return err
			}
			if len(s.Services) != 0 || clusterOf(ctx, t, r.Failoverd, each) != second {
				return fmt.Errorf("%s has the services of another cluster: %+v", each, s.Services)
			}
		}
		return nil
	})
	s, err := r.Failoverd.Status(ctx)
	if err != nil || !s.Quorum {
		t.Errorf("quorum %v (%v); want the other two to go on", s.Quorum, err)
	}
	t.Run("is no voter that answers", func(t *testing.T) {
		if s.VotersUp != 2 {
			t.Errorf("%d voters up; what a node of another cluster says of itself is not of this one", s.VotersUp)
		}
	})
}
