package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// verdict is what became of a mutant.
type verdict string

const (
	caught       verdict = "caught"
	survived     verdict = "SURVIVED"
	doesNotBuild verdict = "DOES NOT COMPILE"
	doesNotFit   verdict = "DOES NOT FIT"
	interrupted  verdict = "INTERRUPTED"
)

type result struct {
	name, why string
	verdict   verdict
	by        string // the tests that failed
	detail    string
	took      time.Duration
}

// hunt runs mutants.
type hunt struct {
	root, tmp string
	timeout   time.Duration

	mu  sync.Mutex
	log io.Writer // nil: quiet
}

// baseline runs each set of tests once without a mutant: one that fails by
// itself would seem to catch everything.
func (h *hunt) baseline(ctx context.Context, all []mutant) error {
	done := map[string]bool{}
	for _, m := range all {
		key := strings.Join(m.tests, " ")
		if done[key] {
			continue
		}
		done[key] = true
		// The build cache spares the work when nothing has changed since.
		out, err := h.goTest(ctx, m.tests)
		if err != nil {
			return fmt.Errorf("without a mutant, go test %s: %w\n%s", key, err, tail(out))
		}
	}
	return nil
}

// run breaks the code in one way and looks whether its tests fail.
func (h *hunt) run(ctx context.Context, m mutant) (r result) {
	r = result{name: m.name, why: m.why}
	began := time.Now()
	defer func() { r.took = time.Since(began) }()

	overlay, err := h.overlay(m)
	if err != nil {
		r.verdict, r.detail = doesNotFit, err.Error()+"\n"
		return r
	}
	build := append([]string{"-run=^$", overlay}, packages(m.tests)...)
	if out, err := h.goTest(ctx, build); ctx.Err() != nil {
		r.verdict = interrupted
		return r
	} else if err != nil {
		r.verdict, r.detail = doesNotBuild, tail(out)
		return r
	}
	out, err := h.goTest(ctx, append([]string{"-count=1", "-json", overlay}, m.tests...))
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.verdict = interrupted
	case err == nil:
		r.verdict = survived
	case errors.As(err, &exit):
		r.verdict, r.by = caught, failed(out)
	default:
		r.verdict, r.detail = doesNotBuild, err.Error()+"\n"
	}
	return r
}

// overlay writes the broken file and what tells the compiler of it.
func (h *hunt) overlay(m mutant) (flag string, err error) {
	path := filepath.Join(h.root, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	broken, err := m.mutate(string(source))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(h.tmp, m.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	copied := filepath.Join(dir, filepath.Base(m.file))
	b, err := json.Marshal(map[string]map[string]string{"Replace": {path: copied}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := errors.Join(os.WriteFile(copied, []byte(broken), 0o600), os.WriteFile(list, b, 0o600)); err != nil {
		return "", err
	}
	return "-overlay=" + list, nil
}

// goTest runs go test in a process group of its own, so that what hangs can be
// ended with everything that it started.
func (h *hunt) goTest(ctx context.Context, args []string) ([]byte, error) {
	// Go's own timeout comes first: it says which test hung.
	ctx, cancel := context.WithTimeout(ctx, h.timeout+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-vet=off", "-timeout=" + h.timeout.String()}, args...)...)
	cmd.Dir = h.root
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log != nil {
		fmt.Fprintf(h.log, "$ go %s\n%s", strings.Join(cmd.Args[1:], " "), out)
	}
	return out, err
}

// packages takes the packages out of the arguments of go test.
func packages(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "-") })
}

// failed names the tests that failed, from the events of go test -json.
func failed(out []byte) string {
	var names []string
	hung := ""
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		if strings.HasPrefix(e.Output, "panic: test timed out") {
			hung = " (hung)"
		}
		if e.Action == "fail" && e.Test != "" && !strings.Contains(e.Test, "/") {
			names = append(names, e.Test)
		}
	}
	if len(names) == 0 {
		return "the whole package" + hung
	}
	text := names[0]
	if len(names) > 1 {
		text += fmt.Sprintf(" and %d more", len(names)-1)
	}
	return text + hung
}

// tail is the end of an output, indented.
func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	lines = lines[max(0, len(lines)-15):]
	return "  " + strings.Join(lines, "\n  ") + "\n"
}
