package integration

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// halt ends a host's daemon and all that it runs, and leaves its data.
func halt(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host) {
	t.Helper()
	must(t, f.Kill(h))
	_, err := h.Signal(syscall.SIGKILL, lab.Guard)
	must(t, err)
	eventually(ctx, t, "the end of "+h.Name(), func() error { return nothingLeft(h, lab.Guard, "pet") })
}

// copyData copies a host's data directory to a directory beside it, the host's
// own or another's.
func copyData(t *testing.T, from, to *lab.Host, name string) string {
	t.Helper()
	target := filepath.Join(to.Dir(), name)
	must(t, os.RemoveAll(target))
	source := filepath.Join(from.Dir(), "data")
	must(t, filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(target, strings.TrimPrefix(path, source))
		switch {
		case e.IsDir():
			return os.MkdirAll(to, 0o700)
		case !e.Type().IsRegular():
			return nil // the guard's socket
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, raw, 0o600)
	}))
	return target
}

// ends waits until a daemon has ended by itself and gives what it said.
func ends(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host, from int) string {
	t.Helper()
	eventually(ctx, t, "the end of the daemon of "+h.Name(), func() error {
		select {
		case <-f.Daemon(h).Done():
			return nil
		default:
			return fmt.Errorf("it runs: %s", last(read(f.LogFile(h))[from:], 3))
		}
	})
	return read(f.LogFile(h))[from:]
}

// says checks that each of the words stands in a text.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("want %q in:\n%s", w, last(text, 5))
		}
	}
}

// TestStaleCopyOfTheDataIsRefused puts an old copy of a data directory back, as
// a restored backup would: the node has voted, held and acknowledged since, and
// knows nothing of it. Neither its votes nor its old claims may count. It stops
// by itself, says so, does not start from that data again, and is a member again
// once an operator has admitted it with none.
func TestStaleCopyOfTheDataIsRefused(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	f := r.Failoverd
	h, _, err := r.Settled(ctx) // the holder: its copy has a session and a grant in it
	must(t, err)
	halt(ctx, t, f, h)
	old := copyData(t, h, h, "backup")
	must(t, f.Start(h))
	now, _, err := r.Settled(ctx)
	must(t, err)
	moveTo(ctx, t, r, other(r, now))
	halt(ctx, t, f, h)
	data := filepath.Join(h.Dir(), "data")
	must(t, os.RemoveAll(data))
	must(t, os.Rename(old, data))

	from := len(read(f.LogFile(h)))
	must(t, f.Start(h))
	says(t, ends(ctx, t, f, h, from), "older copy", "members replace")
	eventually(ctx, t, "the word of the others", func() error {
		s, err := f.Status(ctx)
		if text := strings.Join(s.Alarms, "\n"); err == nil && !strings.Contains(text, "no connection with "+h.Name()) {
			err = fmt.Errorf("status has no alarm about it: %q", text)
		}
		return err
	})
	from = len(read(f.LogFile(h)))
	must(t, f.Start(h))
	says(t, ends(ctx, t, f, h, from), "older copy", "members replace")

	must(t, os.RemoveAll(data))
	must(t, f.Start(h))
	advised(ctx, t, f, waits(ctx, t, f, h, "has no data", "failoverctl members replace"), "members replace")
	if m := members(ctx, t, f)[h.Name()]; m.Vote != "voter" {
		t.Errorf("after the replacement: %+v", m)
	}
	if _, _, err := r.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestStaleCopyMakesNoMajority is what a stale copy could do worst: the node
// that knows what was committed is gone for a moment, and an old copy together
// with a node that lags would be a majority that never heard of it. As soon as
// one that knows better is there, the copy is out, and nothing committed is lost.
func TestStaleCopyMakesNoMajority(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	f := r.Failoverd
	knows, _, err := r.Settled(ctx)
	must(t, err)
	rest := others(r, knows)
	copied, lags := rest[0], rest[1]
	halt(ctx, t, f, copied)
	old := copyData(t, copied, copied, "backup")
	must(t, f.Start(copied))
	_, _, err = f.Settled(ctx, "")
	must(t, err)
	halt(ctx, t, f, lags)
	const mark = "committed without the one that lags"
	for _, args := range [][]string{{"pause", "--reason", mark}, {"resume"}} {
		eventually(ctx, t, args[0], func() error {
			_, err := f.AnyCtl(ctx, args...)
			return err
		})
	}
	halt(ctx, t, f, copied)
	data := filepath.Join(copied.Dir(), "data")
	must(t, os.RemoveAll(data))
	must(t, os.Rename(old, data))
	from := len(read(f.LogFile(copied)))
	must(t, f.Start(lags, copied)) // and the third runs
	says(t, ends(ctx, t, f, copied, from), "older copy")
	eventually(ctx, t, "the others", func() error {
		text, err := f.AnyCtl(ctx, "history", "-n", "0")
		if err == nil && !strings.Contains(text, mark) {
			err = fmt.Errorf("what was committed is lost:\n%s", text)
		}
		return err
	})
	if _, err := r.Client.WaitAnswer(ctx, r.Lab.Now()); err != nil {
		t.Fatal(err)
	}
}

// TestSecondNodeOfOneName starts a copy of a running node's data directory on
// another machine, with more and more of it made to fit. It is refused each
// time and says why, and the first one goes on as if nothing were.
func TestSecondNodeOfOneName(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	f := r.Failoverd
	holder, before, err := r.Settled(ctx)
	must(t, err)
	d, one := newcomer(t, r, "d")
	copyData(t, holder, d, "data")
	name := fmt.Sprintf("node      = %q", "d")
	attempt := func(what string, words ...string) {
		t.Helper()
		from := len(read(one.LogFile(d)))
		must(t, one.Start(d))
		said := ends(ctx, t, one, d, from)
		t.Logf("%s: %s", what, last(said, 1))
		says(t, said, words...)
	}
	attempt("a copy under another name", fmt.Sprintf("data of node \"%s\"", holder), "this node is \"d\"")
	edit(t, one.ConfigFile(d), name, fmt.Sprintf("node      = %q", holder.Name()))
	attempt("a copy at another address", "at "+holder.Address().String(), "members replace")
	identity := filepath.Join(d.Dir(), "data", "identity.json")
	raw := read(identity)
	must(t, os.WriteFile(identity, []byte(strings.ReplaceAll(raw, holder.Address().String()+":", d.Address().String()+":")), 0o600))
	attempt("a copy whose identity was edited", "copy of another machine's data directory", "members replace")

	// With no data it is a newcomer under a name that is taken.
	must(t, os.RemoveAll(filepath.Join(d.Dir(), "data")))
	must(t, one.Start(d))
	why := waits(ctx, t, one, d, "has a node "+holder.Name()+" already")
	t.Logf("without data: %s", why)
	holds(ctx, t, r, holder)
	after, err := f.Status(ctx)
	must(t, err)
	_, was, _ := serviceOf(before, lab.Service)
	if _, is, _ := serviceOf(after, lab.Service); is != was {
		t.Errorf("epoch %d after %d: a second node of one name moved something", is, was)
	}
}

// TestTwoDaemonsOnOneHost: one node's directory, or a copy of it, cannot be in
// use twice on one host.
func TestTwoDaemonsOnOneHost(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	f := r.Failoverd
	h, before, err := r.Settled(ctx)
	must(t, err)
	path := copyData(t, h, h, "copy")
	second := filepath.Join(h.Dir(), "second.hcl")
	text := read(f.ConfigFile(h))
	must(t, os.WriteFile(second, []byte(strings.Replace(text, "/run/failoverd.sock", "/run/second.sock", 1)), 0o600))
	attempt := func(what string, words ...string) {
		t.Helper()
		o := on(ctx, t, h, lab.Daemon, "--config", second)
		if o.code == 0 {
			t.Errorf("%s runs beside the first: %s", what, o)
		}
		says(t, o.errors, words...)
	}
	attempt("the same file", "another program has it")
	own := fmt.Sprintf("%q", h.Address())
	must(t, os.WriteFile(second, []byte(strings.ReplaceAll(read(second), own, fmt.Sprintf("%q", h.Address().String()+":7500"))), 0o600))
	attempt("other ports", "is in use", "held by process")
	edit(t, second, filepath.Join(h.Dir(), "data"), path)
	attempt("other ports and a copy", "data of node", h.Address().String()+":7400")
	holds(ctx, t, r, h)
	after, err := f.Status(ctx)
	must(t, err)
	_, was, _ := serviceOf(before, lab.Service)
	if _, is, _ := serviceOf(after, lab.Service); is != was {
		t.Errorf("epoch %d after %d: a second daemon moved something", is, was)
	}
}
