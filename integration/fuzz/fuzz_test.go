package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/failoverd/failoverd/integration/internal/batch"
)

// module writes a small module.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.org/small\n\ngo 1.24\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const fuzzTest = `package small

import "testing"

func FuzzGood(f *testing.F) {
	f.Add([]byte("a"))
	f.Fuzz(func(t *testing.T, b []byte) {})
}

func FuzzBad(f *testing.F) {
	f.Add([]byte("a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1 {
			t.Fatal("an input that fails")
		}
	})
}

func TestFuzzNothing(t *testing.T) {}
`

// The runner must itself be seen to find what fails, and to pass what does not.
func TestVerdicts(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the compiler; leave out -short to run it")
	}
	dir := module(t, map[string]string{
		"good/good_test.go":   fuzzTest,
		"broken/bad_test.go":  strings.Replace(fuzzTest, `t.Fatal(`, `nothing(`, 1),
		"testdata/x_test.go":  fuzzTest,
		".hidden/x_test.go":   fuzzTest,
		"good/ordinary.go":    "package small\n\n// func FuzzNot(f *testing.F)\n",
		"good/other_test.go":  "package small\n",
		"good/other_tests.go": "package small\n",
	})
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"-dir", dir, "-list"}, &out, &errs); code != 0 ||
		out.String() != "broken.FuzzBad\nbroken.FuzzGood\ngood.FuzzBad\ngood.FuzzGood\n" {
		t.Fatalf("exit code %d: %s%s", code, out.String(), errs.String())
	}
	out.Reset()
	if code := run(context.Background(), []string{"-dir", dir, "-time", "1s", "-j", "2"}, &out, &errs); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{`broken\.FuzzGood +DOES NOT COMPILE`, `good\.FuzzBad +FAILS`, `good\.FuzzGood +ok +[1-9]`, "an input that fails", "undefined: nothing", "1 of 4 found nothing"} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if found, err := filepath.Glob(filepath.Join(dir, "good/testdata/fuzz/FuzzBad/*")); err != nil || len(found) != 1 {
		t.Errorf("the input is not kept: %v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if code := run(ctx, []string{"-dir", dir, "-run", "good.FuzzGood"}, &out, &errs); code == 0 {
		t.Error("an interrupted run counts as a success")
	}
	for _, args := range [][]string{{"-j", "3"}, {"-run", "("}, {"extra"}, {"-nonsense"}, {"-time", "0s"}} {
		if code := run(context.Background(), args, &out, &errs); code != 2 {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	if code := run(context.Background(), []string{"-dir", dir, "-run", "nosuch"}, &out, &errs); code != 1 {
		t.Error("no test at all counts as a success")
	}
}

// Only the end of the time itself is no failure.
func TestMerelyLate(t *testing.T) {
	const late = "fuzz: elapsed: 9s\n--- FAIL: FuzzX (9.05s)\n    context deadline exceeded\nFAIL\n"
	for text, want := range map[string]bool{
		late:     true,
		"":       false,
		"PASS\n": false,
		"--- FAIL: FuzzX (9.05s)\n    x_test.go:1: context deadline exceeded\nFAIL\n":         false,
		late + "Failing input written to x\n":                                                 false,
		"--- FAIL: FuzzX (9.05s)\n    --- FAIL: FuzzX (0.00s)\n    context deadline exceeded": false,
	} {
		if merelyLate([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// Every fuzz test has a name of its own in its package, and the search finds
// at least those that have always been there.
func TestEveryFuzzTestIsFound(t *testing.T) {
	root, err := batch.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	all, err := find(root, regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, x := range all {
		if seen[x.String()] {
			t.Errorf("%s is declared twice", x)
		}
		seen[x.String()] = true
	}
	for _, want := range []string{"cluster/state.FuzzDecode", "cluster/config.FuzzNode", "vip.FuzzARP", "cluster/journal.FuzzDecode"} {
		if !seen[want] {
			t.Errorf("%s is not found", want)
		}
	}
}
