package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// programsVariable names another directory of programs to test than bin.
const programsVariable = "FAILOVERD_BIN"

// Failoverctl's exit codes, as the README lists them.
const (
	codeError   = 1
	codeUsage   = 2
	codeRefused = 4
)

// limited is how long a test may take in all.
func limited(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// needLab skips the test where there can be no lab.
func needLab(t *testing.T) {
	t.Helper()
	if denial != nil {
		t.Skip(denial)
	}
}

// newRig makes a rig that is torn down after the test. Whatever the test is
// about, nobody may ever have seen two holders during it.
func newRig(ctx context.Context, t *testing.T, o lab.RigOptions) *lab.Rig {
	t.Helper()
	needLab(t)
	if o.Profile == "" {
		o.Profile = "fast"
	}
	o.Log, o.Bin, o.Keep = t.Logf, os.Getenv(programsVariable), os.Getenv("KEEP") != ""
	r, err := lab.NewRig(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		figures, err := r.Lab.Judge(0, r.Lab.Now())
		if err != nil {
			t.Errorf("judge: %v", err)
		} else if !figures.None() {
			t.Errorf("the test saw %s", figures)
		}
		if t.Failed() {
			tell(t, r.Failoverd)
		}
		if err := r.Close(); err != nil {
			t.Errorf("close rig: %v", err)
		}
	})
	return r
}

// newLab makes hosts without daemons.
func newLab(t *testing.T, hosts ...string) *lab.Lab {
	t.Helper()
	needLab(t)
	l, err := lab.New(lab.Options{Hosts: hosts, Log: t.Logf, Bin: os.Getenv(programsVariable)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

// tell shows what the daemons logged last and the history, for a test that failed.
func tell(t *testing.T, f *lab.Failoverd) {
	t.Helper()
	for _, h := range f.Hosts() {
		t.Logf("--- log of %s\n%s", h, last(read(f.LogFile(h)), 40))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, args := range [][]string{{"history", "-n", "30"}, {"status"}} {
		if text, err := f.AnyCtl(ctx, args...); err == nil {
			t.Logf("--- %s\n%s", args[0], text)
		}
	}
}

func last(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// read gives a file's text, or nothing.
func read(path string) string {
	raw, _ := os.ReadFile(path) // whoever looks for words in it finds none
	return string(raw)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks again until there is no complaint any more.
func eventually(ctx context.Context, t *testing.T, what string, complaint func() error) {
	t.Helper()
	for {
		err := complaint()
		if err == nil {
			return
		}
		if lab.Wait(ctx, 50*time.Millisecond) != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// steadily asks again and again for that long and fails with the first complaint.
func steadily(ctx context.Context, t *testing.T, d time.Duration, what string, complaint func() error) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := complaint(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		must(t, lab.Wait(ctx, 50*time.Millisecond))
	}
}

// outcome is what a program left behind.
type outcome struct {
	code        int
	out, errors string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", o.code, o.out, o.errors)
}

// program runs one of the product's programs outside of all hosts.
func program(ctx context.Context, t *testing.T, name string, args ...string) outcome {
	t.Helper()
	return finish(ctx, t, exec.CommandContext(ctx, programPath(t, name), args...), nil)
}

// on runs one of the product's programs on a host.
func on(ctx context.Context, t *testing.T, h *lab.Host, name string, args ...string) outcome {
	t.Helper()
	return finish(ctx, t, exec.Command(programPath(t, name), args...), h)
}

func programPath(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv(programsVariable)
	if dir == "" {
		root, err := lab.ModuleRoot()
		must(t, err)
		dir = filepath.Join(root, "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is %v: run make build", name, lab.ErrNotBuilt)
	}
	return path
}

// finish runs a command to its end, which it must reach while ctx lasts.
func finish(ctx context.Context, t *testing.T, cmd *exec.Cmd, h *lab.Host) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var err error
	if h == nil {
		err = cmd.Run()
	} else {
		var r *lab.Running
		r, err = h.Start(cmd)
		must(t, err)
		select {
		case <-r.Done():
		case <-ctx.Done():
			r.Kill()
			t.Fatalf("%s did not end:\n%s\n%s", cmd, stdout.String(), stderr.String())
		}
		err = r.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v (%v)\n%s\n%s", cmd, err, ctx.Err(), stdout.String(), stderr.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ctl runs failoverctl against a host's daemon.
func ctl(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host, args ...string) outcome {
	t.Helper()
	return program(ctx, t, lab.Control, append([]string{"--socket", f.Socket(h)}, args...)...)
}

// refused checks an outcome's code and that each of the words stands in what it says.
func (o outcome) mustSay(t *testing.T, code int, words ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("want exit code %d: %s", code, o)
	}
	for _, w := range words {
		if !strings.Contains(o.out+o.errors, w) {
			t.Errorf("want %q in: %s", w, o)
		}
	}
}

// status asks one host's daemon for the whole account. One without a quorum
// behind it is an account too, though failoverctl says so with its exit code.
func status(ctx context.Context, f *lab.Failoverd, h *lab.Host, flags ...string) (lab.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var s lab.Status
	out, err := f.Ctl(ctx, h, append([]string{"status", "-o", "json"}, flags...)...)
	if out == "" {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// serviceOf gives the rig's service as status shows it.
func serviceOf(s lab.Status, name string) (holder string, epoch uint64, state string) {
	for _, v := range s.Services {
		if v.Name == name {
			return v.Holder, v.Epoch, v.State
		}
	}
	return "", 0, ""
}
