package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/failoverd/failoverd/integration/internal/batch"
)

// target is one fuzz test.
type target struct {
	pkg  string // its directory below the module, with slashes
	name string
}

func (t target) String() string { return t.pkg + "." + t.name }

// find reads the fuzz tests of a module, sorted.
func find(root string, match *regexp.Regexp) ([]target, error) {
	var out []target
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		names, err := declared(path)
		for _, name := range names {
			if t := (target{filepath.ToSlash(dir), name}); match.MatchString(t.String()) {
				out = append(out, t)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for fuzz tests: %w", err)
	}
	slices.SortFunc(out, func(a, b target) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// declared returns the fuzz tests that a file declares.
func declared(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") || len(f.Type.Params.List) != 1 {
			continue
		}
		if p, ok := f.Type.Params.List[0].Type.(*ast.StarExpr); ok {
			if s, ok := p.X.(*ast.SelectorExpr); ok && s.Sel.Name == "F" {
				out = append(out, f.Name.Name)
			}
		}
	}
	return out, nil
}

type verdict string

const (
	passed       verdict = "ok"
	failing      verdict = "FAILS"
	doesNotBuild verdict = "DOES NOT COMPILE"
	interrupted  verdict = "INTERRUPTED"
)

type result struct {
	target  target
	verdict verdict
	inputs  int
	output  string
	took    time.Duration
}

// runner builds and runs fuzz tests.
type runner struct {
	root, tmp, corpus string
	each              time.Duration

	mu  sync.Mutex
	log io.Writer // nil: quiet
}

// all builds each package once and runs the tests, a few at a time.
func (r *runner) all(ctx context.Context, targets []target, jobs int) []result {
	var pkgs []string
	for _, t := range targets {
		pkgs = append(pkgs, t.pkg)
	}
	pkgs = slices.Compact(pkgs)
	built := make([]error, len(pkgs))
	batch.InTurn(len(pkgs), jobs, func(i int) { built[i] = r.build(ctx, pkgs[i]) })

	results := make([]result, len(targets))
	batch.InTurn(len(targets), jobs, func(i int) {
		t := targets[i]
		if err := built[slices.Index(pkgs, t.pkg)]; err != nil {
			results[i] = result{target: t, verdict: doesNotBuild, output: err.Error()}
			return
		}
		results[i] = r.run(ctx, t)
	})
	return results
}

func (r *runner) binary(pkg string) string {
	return filepath.Join(r.tmp, strings.ReplaceAll(pkg, "/", "-")+".test")
}

// build compiles a package's tests with the counters that guide the search.
func (r *runner) build(ctx context.Context, pkg string) error {
	out, err := r.command(ctx, r.root, 10*time.Minute, "go", "test", "-c", "-fuzz=.", "-o", r.binary(pkg), "./"+pkg)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

var executions = regexp.MustCompile(`execs: (\d+)`)

// run fuzzes one test for the time that was set. A test that finds nothing but
// goes on a minute longer hangs. Little time goes into making inputs shorter: by
// default Go would spend most of a short run on that.
func (r *runner) run(ctx context.Context, t target) result {
	res := result{target: t, verdict: passed}
	began := time.Now()
	exact := "^" + t.name + "$"
	out, err := r.command(ctx, filepath.Join(r.root, filepath.FromSlash(t.pkg)), r.each+time.Minute, r.binary(t.pkg),
		"-test.run="+exact, "-test.fuzz="+exact, "-test.fuzztime="+r.each.String(), "-test.parallel=1", "-test.fuzzminimizetime=50x",
		"-test.fuzzcachedir="+filepath.Join(r.corpus, filepath.FromSlash(t.pkg)))
	res.took = time.Since(began)
	if all := executions.FindAllSubmatch(out, -1); len(all) > 0 {
		res.inputs, _ = strconv.Atoi(string(all[len(all)-1][1])) // digits; too many for an int would be a good day
	}
	switch {
	case ctx.Err() != nil:
		res.verdict = interrupted
	case err != nil && !merelyLate(out):
		res.verdict, res.output = failing, string(out)+err.Error()
	}
	return res
}

// merelyLate reports whether a test failed only because Go's fuzzer ended while an
// input was being tried, which it then calls a failure (golang/go issue 75804).
func merelyLate(out []byte) bool {
	_, failure, found := bytes.Cut(out, []byte("--- FAIL: "))
	lines := strings.Split(strings.TrimSpace(string(failure)), "\n")
	return found && len(lines) >= 2 && strings.TrimSpace(lines[1]) == "context deadline exceeded" &&
		!bytes.Contains(out, []byte("Failing input"))
}

// command runs a program in a process group of its own, so that what hangs can
// be ended with the workers that it started.
func (r *runner) command(ctx context.Context, dir string, limit time.Duration, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("not over after %v: %w", limit, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log != nil {
		fmt.Fprintf(r.log, "$ %s %s\n%s", name, strings.Join(args, " "), out.Bytes())
	}
	return out.Bytes(), err
}
