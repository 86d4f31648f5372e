package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/failoverd/failoverd/integration/lab"
)

// pointByPointVariable asks for every failpoint by itself, by crash and by stop.
const pointByPointVariable = "FAILOVERD_LONG"

// taggedVariable names a directory of programs that were built with the tag
// failpoints before.
const taggedVariable = "FAILOVERD_FAILPOINT_BIN"

// tagged builds the programs with failpoints in them.
func tagged(ctx context.Context, t *testing.T) string {
	t.Helper()
	if bin := os.Getenv(taggedVariable); bin != "" {
		return bin
	}
	root, err := lab.ModuleRoot()
	must(t, err)
	bin := t.TempDir()
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", "go", "build", "-tags", "failpoints", "-o", bin,
		"./cmd/failoverd", "./cmd/failoverguard", "./cmd/failoverctl", "./integration/pet")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with failpoints: %v\n%s", err, out)
	}
	return bin
}

// inPrograms gives the labels that stand in the programs of a directory.
func inPrograms(t *testing.T, bin string, labels map[string]string) (found []string) {
	t.Helper()
	var text []byte
	for _, name := range []string{lab.Daemon, lab.Guard} {
		raw, err := os.ReadFile(filepath.Join(bin, name))
		must(t, err)
		text = append(text, raw...)
	}
	for label := range labels {
		if bytes.Contains(text, []byte(label)) {
			found = append(found, label)
		}
	}
	slices.Sort(found)
	return found
}

// TestOrdinaryProgramsHaveNoFailpoints looks for the labels in the programs that
// are shipped, and finds them in those that are not.
func TestOrdinaryProgramsHaveNoFailpoints(t *testing.T) {
	ctx := limited(t, 5*time.Minute)
	labels := pointsInSource(t)
	if found := inPrograms(t, filepath.Dir(programPath(t, lab.Daemon)), labels); len(found) > 0 {
		t.Errorf("the ordinary programs contain %s", strings.Join(found, ", "))
	}
	if found := inPrograms(t, tagged(ctx, t), labels); len(found) != len(labels) {
		t.Errorf("%d of %d labels found where all must be: this check sees nothing", len(found), len(labels))
	}
}

// TestFailpoints ends a process of a running cluster at every failpoint there
// is, and has the cluster recover from it.
//
// By default some labels are armed at once and the cluster is looked at after
// each passage, and those that are rare are left out. With FAILOVERD_LONG=1 it is
// looked at after each label, and each is done twice: the process dies, or stands
// still for three leases.
// FAILOVERD_POINTS names the only labels or passages to do.
func TestFailpoints(t *testing.T) {
	needLab(t)
	ctx := limited(t, 4*time.Hour)
	bin := tagged(ctx, t)
	t.Run("service", func(t *testing.T) { withService(ctx, t, bin) })
	t.Run("founding", func(t *testing.T) { withoutService(ctx, t, bin) })
}

// wanted narrows a passage to what FAILOVERD_POINTS names.
func wanted(p passage) []string {
	all := strings.Fields(p.labels)
	only := strings.Fields(os.Getenv("FAILOVERD_POINTS"))
	if len(only) == 0 && p.rare && !pointByPoint() {
		return nil
	}
	if len(only) == 0 || slices.Contains(only, strings.ReplaceAll(p.name, " ", "-")) {
		return all
	}
	return slices.DeleteFunc(all, func(l string) bool { return !slices.Contains(only, l) })
}

func pointByPoint() bool { return os.Getenv(pointByPointVariable) != "" }

// each leads through a passage, at once or label by label, and checks after each.
func each(t *testing.T, s *storm, p passage, check func(what string)) {
	t.Helper()
	labels := wanted(p)
	if len(labels) == 0 {
		t.Logf("%s: left out, %d points; FAILOVERD_POINTS=%s leads past them", p.name, len(strings.Fields(p.labels)), strings.ReplaceAll(p.name, " ", "-"))
		return
	}
	if !pointByPoint() {
		s.pass(p, labels)
		check(p.name)
		return
	}
	s.window = 1
	for _, label := range labels {
		for _, s.action = range []string{"crash", "stop"} {
			s.pass(p, []string{label})
			check(s.action + " at " + label)
		}
	}
}

func withService(ctx context.Context, t *testing.T, bin string) {
	o := lab.RigOptions{Profile: "fast", Every: 20 * time.Millisecond, Log: t.Logf, Bin: bin, Keep: os.Getenv("KEEP") != ""}
	r, err := lab.NewRig(ctx, o)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			tell(t, r.Failoverd)
		}
		if err := r.Close(); err != nil {
			t.Errorf("close rig: %v", err)
		}
	})
	must(t, r.Failoverd.Apply(ctx, stormService(r.Lab, "")))
	s := newStorm(ctx, t, r.Lab, r.Failoverd, r)
	w := &watchful{t: t, s: s, from: r.Lab.Now()}
	w.look("before all")
	for _, p := range passages {
		if p.alone {
			continue
		}
		switch p.name {
		case "membership":
			if len(wanted(p)) > 0 {
				var d *lab.Host
				d, s.more = newcomer(t, r, "d")
				must(t, s.more.Start(d))
				waits(ctx, t, s.more, d, "failoverctl members add d")
			}
		case "snapshot":
			s.numbers = "consensus.snapshot.threshold=number:16\nconsensus.snapshot.ms=number:300\nconsensus.snapshot.trailing=number:4\n"
		}
		each(t, s, p, w.look)
		switch {
		case t.Failed() && !pointByPoint():
			return
		case p.name == "membership" && s.more != nil:
			w.without("d")
		}
	}
}

// stormService is the rig's service with hooks, and something more about it. The
// hooks leave a file where they run, and fail where they are told to.
func stormService(l *lab.Lab, more string) string {
	hook := filepath.Join(l.Programs(), "hook")
	if _, err := os.Stat(hook); err != nil {
		text := fmt.Sprintf(`#!/bin/sh
cd %s || exit 1
case $1 in
start) test -e broken.$FAILOVER_NODE && exit 1; : >run.$FAILOVER_NODE ;;
stop) rm -f run.$FAILOVER_NODE ;;
status) test -e run.$FAILOVER_NODE || exit 3 ;;
esac
`, l.Programs())
		if err := os.WriteFile(hook, []byte(text), 0o755); err != nil {
			panic(err) // only in a test, and without it nothing can be tested
		}
	}
	return fmt.Sprintf(`service %[1]q {
  %[2]s
  exec "hooks" {
    start  = [%[3]q, "start"]
    stop   = [%[3]q, "stop"]
    status = [%[3]q, "status"]
  }
  process %[1]q {
    command = [%[4]q, "-listen", "0.0.0.0:%[5]d", "-dir", %[6]q]
    ready   = "127.0.0.1:%[5]d"
  }
  vip "%[7]s/24" { interface = %[8]q }
}
`, lab.Service, more, hook, filepath.Join(l.Programs(), "pet"), lab.Port, filepath.Join(l.Dir(), "shared"), lab.VIP, lab.Interface)
}

// watchful looks at a cluster after each storm.
type watchful struct {
	t     *testing.T
	s     *storm
	from  time.Duration // of what has not been judged yet
	index uint64        // applied when it was looked at last
	epoch uint64
}

// recovery is how long a cluster may take to be whole again.
const recovery = 90 * time.Second

// look checks what every storm must leave: a whole cluster that has lost
// nothing, one holder, nothing on those that do not hold, and never two.
func (w *watchful) look(what string) {
	w.t.Helper()
	s := w.s
	ctx, cancel := context.WithTimeout(s.ctx, recovery)
	defer cancel()
	s.round = ctx
	began := time.Now()
	holder, st := w.settled(ctx, what)
	_, epoch, _ := serviceOf(st, lab.Service)
	if st.Index < w.index || epoch < w.epoch {
		w.t.Errorf("after %s: entry %d and epoch %d are applied, and before were %d and %d: what was committed is lost", what, st.Index, epoch, w.index, w.epoch)
	}
	w.index, w.epoch = st.Index, epoch
	eventually(ctx, w.t, "what is left after "+what, func() error {
		for _, h := range s.f.Hosts() {
			if err := w.leftOn(h, h == holder); err != nil {
				return err
			}
		}
		return nil
	})
	w.acknowledged(ctx, what)
	to := s.l.Now()
	figures, err := s.l.Judge(w.from, to)
	must(w.t, err)
	if !figures.None() {
		w.t.Errorf("after %s: %s", what, figures)
	}
	w.from = to
	w.t.Logf("after %s: %s holds epoch %d, whole again %.1f s later", what, holder, epoch, time.Since(began).Seconds())
}

// settled waits until the cluster is whole, all three voters included.
func (w *watchful) settled(ctx context.Context, what string) (*lab.Host, lab.Status) {
	w.t.Helper()
	for {
		short, cancel := context.WithTimeout(ctx, 15*time.Second)
		holder, st, err := w.s.r.Settled(short)
		cancel()
		if err == nil && st.Voters >= 3 {
			return holder, st
		}
		if err == nil {
			for _, h := range w.s.f.Hosts() {
				if m := members(ctx, w.t, w.s.f)[h.Name()]; m.Role != "voter" || m.Vote != "voter" {
					_ = w.s.ctl("members", "promote", h.Name()) // an order that a storm has cut short
				}
			}
		}
		if st := w.barred(ctx); st != "" && w.s.ctl("cleanup", lab.Service) == nil {
			w.t.Errorf("after %s the service needs an operator: %s", what, st)
		}
		if lab.Wait(ctx, 50*time.Millisecond) != nil {
			w.t.Fatalf("after %s: %v", what, err)
		}
	}
}

// barred says why every node is barred from the service; empty when one is not.
func (w *watchful) barred(ctx context.Context) (why string) {
	st, err := w.s.f.Status(ctx)
	if err != nil {
		return ""
	}
	for _, v := range st.Services {
		for _, c := range v.Candidates {
			if !strings.Contains(c.Why, "failed to run it") {
				return ""
			}
			why += c.Node + " " + c.Why + "; "
		}
	}
	return why
}

// leftOn complains of what a host has and should not, or has not and should.
func (w *watchful) leftOn(h *lab.Host, holds bool) error {
	pets, err := h.Programs("pet")
	if err != nil {
		return err
	}
	want := 0
	if holds {
		want = 1
	}
	if len(pets) != want {
		return complain("%s has %d processes of the service, want %d", h, len(pets), want)
	}
	if _, err := os.Stat(filepath.Join(w.s.l.Programs(), "run."+h.Name())); (err == nil) != holds {
		return complain("%s: what the hooks keep is there: %v, want %v", h, err == nil, holds)
	}
	if has := slices.Contains(w.s.l.Holders(), h.Name()); has != holds {
		return complain("%s has the address: %v, want %v", h, has, holds)
	}
	open := 0
	inHost(w.t, h, func(c *nftables.Conn) error {
		open, err = openElements(c)
		return err
	})
	if (open > 0) != holds {
		return complain("%s has %d open elements in its gate; it holds: %v", h, open, holds)
	}
	return nil
}

// openElements counts what the gates of a host let through.
func openElements(c *nftables.Conn) (n int, err error) {
	list, err := c.ListTables()
	for _, table := range list {
		if err != nil || !strings.HasPrefix(table.Name, "failoverd") {
			continue
		}
		set, serr := c.GetSetByName(table, "open")
		if serr != nil {
			continue // a table of the gate without that set
		}
		elements, eerr := c.GetSetElements(set)
		n, err = n+len(elements), eerr
	}
	return n, err
}

// acknowledged holds the client's book against the service's: a write that was
// answered stands before every later answer.
func (w *watchful) acknowledged(ctx context.Context, what string) {
	w.t.Helper()
	now := w.s.l.Now()
	answer, err := w.s.r.Client.WaitAnswer(ctx, now)
	must(w.t, err)
	var most lab.Request
	for _, q := range w.s.r.Client.Requests(0, now) {
		if q.Outcome == lab.Answered && q.Got < now && q.Sequence > most.Sequence {
			most = q
		}
	}
	if answer.Sequence < most.Sequence {
		w.t.Errorf("after %s: the service is at write %d, and %d was acknowledged by %s under epoch %d", what, answer.Sequence, most.Sequence, most.Node, most.Epoch)
	}
}

// without removes a node that only one passage needed.
func (w *watchful) without(node string) {
	w.t.Helper()
	s := w.s
	ctx, cancel := context.WithTimeout(s.ctx, recovery)
	defer cancel()
	s.round = ctx
	eventually(ctx, w.t, "the removal of "+node, func() error {
		if _, there := members(ctx, w.t, s.f)[node]; !there {
			return nil
		}
		if err := s.ctl("members", "remove", node); err != nil {
			return err
		}
		return nil
	})
	must(w.t, s.more.Kill(s.more.Hosts()[0]))
	w.look("the removal of " + node)
}

// withoutService storms a cluster's founding.
func withoutService(ctx context.Context, t *testing.T, bin string) {
	l, err := lab.New(lab.Options{Log: t.Logf, Bin: bin, Keep: os.Getenv("KEEP") != ""})
	must(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	f, err := l.Failoverd(lab.FailoverdOptions{Hosts: l.Hosts(), Profile: "fast"})
	must(t, err)
	must(t, f.Start(l.Hosts()...))
	s := newStorm(ctx, t, l, f, nil)
	for _, p := range passages {
		if p.alone {
			each(t, s, p, func(what string) { founded(ctx, t, s, what) })
		}
	}
}

// founded checks that all nodes are in one cluster.
func founded(ctx context.Context, t *testing.T, s *storm, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	began := time.Now()
	eventually(ctx, t, "the cluster after "+what, func() error {
		short, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		_, _, err := s.f.Settled(short, "")
		return err
	})
	first := clusterOf(ctx, t, s.f, s.f.Hosts()[0])
	for _, h := range s.f.Hosts() {
		if c := clusterOf(ctx, t, s.f, h); c != first || c == "" {
			t.Errorf("after %s: %s is in cluster %q, and %s in %q", what, h, c, s.f.Hosts()[0], first)
		}
	}
	t.Logf("after %s: one cluster, %.1f s later", what, time.Since(began).Seconds())
}
