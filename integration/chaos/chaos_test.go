package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

var (
	testMinutes = flag.Float64("chaos.minutes", 3, "how long TestChaos lets things go wrong")
	testSeed    = flag.Uint64("chaos.seed", 1, "of the schedule of TestChaos")
	testNodes   = flag.Int("chaos.nodes", 3, "of TestChaos")
	testProfile = flag.String("chaos.profile", "fast", "of TestChaos")
)

// denial is why this process cannot have a lab; nil when it can.
var denial error

func TestMain(m *testing.M) {
	denial = lab.Enter()
	os.Exit(m.Run())
}

func needLab(t *testing.T) {
	t.Helper()
	if denial != nil {
		t.Skip(denial)
	}
}

// lines makes the test's log a writer.
type lines struct{ t *testing.T }

func (l lines) Write(p []byte) (int, error) {
	l.t.Helper()
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// TestChaos plays a seed's schedule: nobody may see two holders, nothing that was
// acknowledged may be lost, and after faults have ended the cluster must be whole.
func TestChaos(t *testing.T) {
	needLab(t)
	// The limits for being whole are wide: others may have the processors.
	err := carryOut(t.Context(), options{seed: *testSeed, nodes: *testNodes, profile: *testProfile,
		duration: time.Duration(*testMinutes * float64(time.Minute)), settle: 90 * time.Second, decide: time.Minute, say: lines{t}})
	if err != nil {
		t.Fatal(err)
	}
}

// tenfold breaks a daemon: it believes in its lease ten times longer than it is,
// and so do the gate, the guard and the kernel's timers, which it arms.
var tenfold = struct{ file, old, new string }{
	"cluster/lease/holder.go", "until := r.sent.Add(h.ttl)", "until := r.sent.Add(10 * h.ttl)",
}

// TestChaosFindsTwoHolders cuts off a holder whose lease lasts too long. Every
// view must see it: a check that never failed proves nothing.
func TestChaosFindsTwoHolders(t *testing.T) {
	needLab(t)
	bin := brokenBuild(t)
	schedule, err := parseSchedule(strings.NewReader("+2 cut holder 6\n+5 no-gossip other 0.1\nsettle\n"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := newRun(ctx, options{nodes: 3, profile: "fast", schedule: schedule, bin: bin,
		settle: 30 * time.Second, decide: 10 * time.Second, say: lines{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.play(ctx); !errors.Is(err, errViolated) {
		t.Fatalf("chaos says %v of a build that has two holders", err)
	}
	figures, err := r.rig.Lab.Judge(r.begun, r.rig.Lab.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(figures)
	if figures.Address == 0 || figures.Wire == 0 || figures.Data == 0 {
		t.Errorf("a view saw nothing: %s", figures)
	}
	for _, word := range []string{"two holders", "linearizable", "epoch back", "stale", "place shared"} {
		if !slices.ContainsFunc(r.findings, func(f string) bool { return strings.Contains(f, word) }) {
			t.Errorf("nothing that was found says %q:\n%s", word, strings.Join(r.findings, "\n"))
		}
	}
}

// brokenBuild builds the programs with the fault in.
func brokenBuild(t *testing.T) string {
	t.Helper()
	root, err := lab.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, tenfold.file)
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), tenfold.old); n != 1 {
		t.Fatalf("%q occurs %d times in %s, not once: adapt the test to the code", tenfold.old, n, tenfold.file)
	}
	dir := t.TempDir()
	copied, list, bin := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "bin")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: copied}})
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(source), tenfold.old, tenfold.new, 1)
	if err := errors.Join(os.WriteFile(copied, []byte(broken), 0o600), os.WriteFile(list, overlay, 0o600),
		os.Mkdir(bin, 0o755)); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-o", bin+"/", "./cmd/...", "./integration/pet")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}
