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

	"github.com/failoverd/failoverd/integration/internal/batch"
)

// verdict is what became of a mutant.
type verdict string

const (
	caught       verdict = "caught"
	survived     verdict = "SURVIVED"
	doesNotBuild verdict = "DOES NOT COMPILE"
	doesNotFit   verdict = "DOES NOT FIT"
	interrupted  verdict = "INTERRUPTED"
	failsAnyway  verdict = "TESTS FAIL WITHOUT IT"
)

type result struct {
	mutant
	verdict verdict
	by      string // the test that failed first
	detail  string
	took    time.Duration
}

// hunt runs mutants.
type hunt struct {
	root, tmp string
	timeout   time.Duration

	progress io.Writer

	mu  sync.Mutex
	log io.Writer // nil: quiet
}

// baseline runs each set of tests without a mutant: one that fails by itself
// would seem to catch everything. It returns what is wrong, by set. A set that
// fails is tried once more: a busy machine can make a test late.
func (h *hunt) baseline(ctx context.Context, all []mutant, jobs int) map[string]string {
	var keys []string
	for _, m := range all {
		keys = append(keys, m.set())
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	wrong := make([]string, len(keys))
	batch.InTurn(len(keys), jobs, func(i int) {
		for range 2 {
			// The build cache spares the work when nothing has changed since.
			out, err := h.goTest(ctx, nil, "LC_ALL=C", strings.Fields(keys[i]))
			if err == nil {
				wrong[i] = ""
				return
			}
			wrong[i] = fmt.Sprintf("  without a mutant, go test %s: %v\n%s", keys[i], err, tail(out))
		}
	})
	out := map[string]string{}
	for i, text := range wrong {
		if text != "" {
			out[keys[i]] = text
		}
	}
	return out
}

// run breaks the code in one way and looks whether its tests fail. One call of
// go test builds and runs them; it is ended soon after the first failure, which
// is all that must be known.
func (h *hunt) run(ctx context.Context, m mutant) (r result) {
	r = result{mutant: m}
	began := time.Now()
	defer func() { r.took = time.Since(began) }()

	dir := filepath.Join(h.tmp, m.name)
	overlay, err := h.overlay(m, dir)
	if err != nil {
		r.verdict, r.detail = doesNotFit, err.Error()+"\n"
		return r
	}
	// What tests that are ended leave behind goes with this directory, of a short
	// name, since tests have sockets in it.
	tmp, err := os.MkdirTemp("", "fm")
	if err != nil {
		r.verdict, r.detail = doesNotBuild, err.Error()+"\n"
		return r
	}
	defer os.RemoveAll(tmp)

	var failure failure
	out, err := h.goTest(ctx, &failure, "TMPDIR="+tmp, append([]string{"-count=1", "-failfast", "-json", overlay}, m.tests...))
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.verdict = interrupted
	case failure.build:
		r.verdict, r.detail = doesNotBuild, tail(plain(out))
	case err == nil:
		r.verdict = survived
	case failure.seen || errors.As(err, &exit):
		r.verdict, r.by = caught, failure.text()
	default:
		r.verdict, r.detail = doesNotBuild, err.Error()+"\n"
	}
	return r
}

// overlay writes the broken file and what tells the compiler of it.
func (h *hunt) overlay(m mutant, dir string) (flag string, err error) {
	path := filepath.Join(h.root, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	broken, err := m.mutate(string(source))
	if err != nil {
		return "", err
	}
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

// failGrace is how long tests may clean up once one of them has failed.
const failGrace = 3 * time.Second

// goTest runs go test in a process group of its own, so that what hangs can be
// ended with everything that it started. With a failure to fill in, the output
// is that of -json, and the run ends at the first failure.
func (h *hunt) goTest(ctx context.Context, f *failure, env string, args []string) ([]byte, error) {
	// Go's own timeout comes first: it says which test hung.
	ctx, cancel := context.WithTimeout(ctx, h.timeout+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-vet=off", "-timeout=" + h.timeout.String()}, args...)...)
	cmd.Dir = h.root
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout = &out
	if f != nil {
		var timer *time.Timer
		cmd.Stdout = &watcher{keep: &out, failure: f, first: func() {
			if !f.build {
				timer = time.AfterFunc(failGrace, cancel)
			}
		}}
		defer func() {
			if timer != nil {
				timer.Stop()
			}
		}()
	}
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log != nil {
		fmt.Fprintf(h.log, "$ go %s\n%s", strings.Join(cmd.Args[1:], " "), out.Bytes())
	}
	return out.Bytes(), err
}

// tail is the end of an output, indented.
func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	lines = lines[max(0, len(lines)-15):]
	return "  " + strings.Join(lines, "\n  ") + "\n"
}
