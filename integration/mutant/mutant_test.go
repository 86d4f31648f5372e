package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/failoverd/failoverd/integration/internal/batch"
)

const head = "why: because\nfile: cluster/clock/clock.go\ntests: ./cluster/clock -run=TestElapsed\n"

func TestParse(t *testing.T) {
	m, err := parse("x", head+"\n--- old\na\nb\n--- new\nc\n--- old\nd\n--- new\n")
	if err != nil {
		t.Fatal(err)
	}
	if m.why != "because" || len(m.tests) != 2 || len(m.swaps) != 2 || m.swaps[0] != (swap{"a\nb", "c"}) || m.swaps[1] != (swap{"d", ""}) {
		t.Errorf("parsed %+v", m)
	}
	got, err := m.mutate("1 a\nb 2 d 3")
	if err != nil || got != "1 c 2  3" {
		t.Errorf("mutated %q, %v", got, err)
	}
	for _, source := range []string{"", "a\nb", "a\nb a\nb d", "d"} {
		if _, err := m.mutate(source); err == nil {
			t.Errorf("%q was mutated", source)
		}
	}
	for what, text := range map[string]string{
		"no old":        head,
		"no new":        head + "--- old\na\n",
		"two new":       head + "--- old\na\n--- new\nb\n--- new\nc\n",
		"no why":        "file: a.go\ntests: ./a\n--- old\na\n--- new\nb\n",
		"unknown key":   head + "because: x\n--- old\na\n--- new\nb\n",
		"a test":        strings.Replace(head, "clock.go", "clock_test.go", 1) + "--- old\na\n--- new\nb\n",
		"outside":       strings.Replace(head, "cluster", "../cluster", 1) + "--- old\na\n--- new\nb\n",
		"changes not":   "",
		"nothing at al": "why: x\n",
	} {
		if _, err := parse("x", text); err == nil {
			t.Errorf("%s: parsed", what)
		}
	}
	same, err := parse("x", head+"--- old\na\n--- new\na\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := same.mutate("a"); err == nil {
		t.Error("a mutant that changes nothing was made")
	}
}

func TestFailure(t *testing.T) {
	for want, events := range map[string]string{
		"cluster/lease TestA": `{"Action":"run","Test":"TestA"}
{"Action":"fail","Package":"github.com/failoverd/failoverd/cluster/lease","Test":"TestA/sub"}
{"Action":"fail","Package":"github.com/failoverd/failoverd/cluster/lease","Test":"TestA"}
{"Action":"pass","Test":"TestB"}
{"Action":"fail","Test":"TestC"}
not an event
{"Action":"fail","Package":"p"}
`,
		"p the whole package (hung)": `{"Action":"output","Output":"panic: test timed out after 1s\n"}
{"Action":"fail","Package":"p"}
`,
	} {
		// However the output is cut, it says the same, and says it once.
		for _, size := range []int{1, 7, len(events)} {
			var f failure
			var keep bytes.Buffer
			calls := 0
			w := &watcher{keep: &keep, failure: &f, first: func() { calls++ }}
			for part := range slices.Chunk([]byte(events), size) {
				if _, err := w.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			if got := f.text(); got != want || calls != 1 || keep.String() != events {
				t.Errorf("by %d bytes: %q with %d calls, not %q", size, got, calls, want)
			}
		}
	}
	var f failure
	f.line([]byte(`{"Action":"build-fail","ImportPath":"p"}`))
	if !f.build || !f.seen {
		t.Error("a failed build is not noticed")
	}
}

func TestTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "table.md")
	all := []result{
		{mutant: mutant{name: "lease-a", why: "a | b", file: "cluster/lease/holder.go", tests: []string{"./cluster/lease"}}, verdict: caught, by: "cluster/lease TestA"},
		{mutant: mutant{name: "sim-b", why: "b", file: "x.go", tests: []string{"./cluster/sim"}}, verdict: caught, by: "cluster/sim TestSeeds"},
		{mutant: mutant{name: "x-c", why: "c", file: "x.go"}, verdict: survived},
	}
	if err := writeTable(file, all); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 of 3 caught: 1 by a test, 1 by the simulation",
		"| `lease-a` | a \\| b | test: `cluster/lease` TestA |\n",
		"| `sim-b` | b | simulation: `cluster/sim` TestSeeds |\n",
		"| `x-c` | c | **SURVIVED** |\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// The runner must itself be seen to tell apart what is caught, what survives,
// what does not compile and what no longer fits.
func TestVerdicts(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the compiler several times; leave out -short to run it")
	}
	dir := t.TempDir()
	for name, pair := range map[string]string{
		"1-caught":   "--- old\n	return max(to.Boot-from.Boot, to.Raw-from.Raw)\n--- new\n	return min(to.Boot-from.Boot, to.Raw-from.Raw)\n",
		"2-survives": "--- old\nReadings mean\n--- new\nReadings meant\n",
		"3-broken":   "--- old\nfunc System() Clock { return system{} }\n--- new\nfunc System() Clock { return nothing{} }\n",
		"4-gone":     "--- old\nno such text\n--- new\nx\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".mutant"), []byte(head+pair), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"-dir", dir, "-j", "2"}, &out, &errs); code != 1 {
		t.Errorf("exit code %d\n%s", code, errs.String())
	}
	text := out.String()
	for _, want := range []string{"1-caught    caught", "TestElapsed", "2-survives  SURVIVED", "3-broken    DOES NOT COMPILE", "4-gone      DOES NOT FIT", "1 of 4 caught", "undefined: nothing", "occurs 0 times"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	out.Reset()
	if code := run(context.Background(), []string{"-dir", dir, "-run", "caught"}, &out, &errs); code != 0 {
		t.Errorf("exit code %d when all are caught\n%s%s", code, out.String(), errs.String())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if code := run(ctx, []string{"-dir", dir, "-run", "caught"}, &out, &errs); code == 0 {
		t.Error("an interrupted run counts as a success")
	}
	for _, args := range [][]string{{"-j", "3"}, {"-run", "("}, {"extra"}, {"-nonsense"}} {
		if code := run(context.Background(), args, &out, &errs); code != 2 {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	if code := run(context.Background(), []string{"-dir", dir, "-run", "nosuch"}, &out, &errs); code != 1 {
		t.Error("no mutant at all counts as a success")
	}
}

// A test that fails by itself would seem to catch everything.
func TestTestsMustPassWithoutAMutant(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the compiler; leave out -short to run it")
	}
	dir := t.TempDir()
	text := "why: x\nfile: cluster/clock/clock.go\ntests: ./cluster/nosuchpackage\n--- old\na\n--- new\nb\n"
	if err := os.WriteFile(filepath.Join(dir, "a.mutant"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"-dir", dir}, &out, &errs); code != 1 || !strings.Contains(out.String(), "without a mutant") || !strings.Contains(out.String(), "0 of 1 caught") {
		t.Errorf("exit code %d, %s%s", code, out.String(), errs.String())
	}
}

// Every mutant of the repository can be read and fits the code as it is.
func TestMutantsFit(t *testing.T) {
	root, err := batch.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("mutants/*.mutant")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no mutants: %v", err)
	}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		m, err := parse(filepath.Base(p), string(text))
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if _, err := m.mutate(string(source)); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// Each fault of the protocol's list is put into the code by a mutant that exists.
func TestEveryFaultOfTheProtocolHasAMutant(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range protocol {
		if len(f.mutants) == 0 || seen[f.name] {
			t.Errorf("%s: %d mutants, or twice in the list", f.name, len(f.mutants))
		}
		seen[f.name] = true
		for _, m := range f.mutants {
			if _, err := os.Stat(filepath.Join("mutants", m+".mutant")); err != nil {
				t.Errorf("%s: %v", f.name, err)
			}
		}
	}
	if len(protocol) != 33 {
		t.Errorf("the list has 33 faults, not %d", len(protocol))
	}
}
