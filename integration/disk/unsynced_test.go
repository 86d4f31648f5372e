package disk

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func TestCutForgetsWhatIsNotSynced(t *testing.T) {
	w := newWorld(t, true)
	w.must(w.put("a", "synced", true))
	w.must(w.put("a", "unsync", false))
	w.must(w.put("new", "x", false))
	w.must(w.put("kept", "x", true))
	if got := w.below("a"); got != "unsync" {
		t.Fatalf("readers do not see what was written: %q", got)
	}
	if w.disk.Unsynced() == 0 {
		t.Error("nothing is unsynced")
	}
	w.cut()
	for name, want := range map[string]string{"a": "synced", "new": "no new", "kept": "x"} {
		if got := w.below(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if n := w.disk.Unsynced(); n != 0 {
		t.Errorf("%d changes are left", n)
	}
	// The disk goes on after the boot.
	w.on()
	w.must(w.put("a", "again!", true))
	w.cut()
	if got := w.below("a"); got != "again!" {
		t.Errorf("%q", got)
	}
}

func TestCutForgetsNames(t *testing.T) {
	replace := func(w *world) func() error {
		return func() error {
			return errors.Join(w.put("a.new", "second", true)(), os.Rename(w.path("a.new"), w.path("a")))
		}
	}
	for _, c := range []struct {
		name  string
		do    func(w *world) func() error
		wants map[string]string
	}{
		{"rename without a sync of the directory", replace, map[string]string{"a": "first", "a.new": "second"}},
		{"rename with one", func(w *world) func() error {
			return func() error { return errors.Join(replace(w)(), w.syncDir(".")()) }
		}, map[string]string{"a": "second", "a.new": "no a.new"}},
		{"appended after the rename", func(w *world) func() error {
			return func() error {
				f, err := os.OpenFile(w.path("a.new"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.WriteString("one ")
				err = errors.Join(err, f.Sync(), os.Rename(w.path("a.new"), w.path("a")), w.syncDir(".")())
				_, werr := f.WriteString("two ")
				err = errors.Join(err, werr, f.Sync())
				_, werr = f.WriteString("three")
				return errors.Join(err, werr)
			}
		}, map[string]string{"a": "one two "}},
		{"remove", func(w *world) func() error {
			return func() error { return os.Remove(w.path("a")) }
		}, map[string]string{"a": "first"}},
		{"remove, synced", func(w *world) func() error {
			return func() error { return errors.Join(os.Remove(w.path("a")), w.syncDir(".")()) }
		}, map[string]string{"a": "no a"}},
		{"truncate", func(w *world) func() error {
			return func() error { return os.Truncate(w.path("a"), 2) }
		}, map[string]string{"a": "first"}},
		{"longer", func(w *world) func() error { return w.put("a", "first and more", false) }, map[string]string{"a": "first"}},
		{"a new directory with a synced file", func(w *world) func() error {
			return func() error { return errors.Join(os.Mkdir(w.path("d"), 0o700), w.put("d/f", "x", true)()) }
		}, map[string]string{"d/f": "x"}},
		{"a new directory with an unsynced file", func(w *world) func() error {
			return func() error { return errors.Join(os.Mkdir(w.path("d"), 0o700), w.put("d/f", "x", false)()) }
		}, map[string]string{"d/f": "no d/f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, true)
			w.must(w.put("a", "first", true))
			w.must(w.syncDir("."))
			w.must(c.do(w))
			w.cut()
			for name, want := range c.wants {
				if got := w.below(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// With a source of chance some of what was not synced is there nevertheless.
func TestCutKeepsSome(t *testing.T) {
	w := newWorld(t, true)
	w.must(w.put("a", strings.Repeat(".", 64), true))
	w.must(func() error {
		f, err := os.OpenFile(w.path("a"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for i := range 64 {
			if _, err := f.WriteAt([]byte("x"), int64(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := w.disk.Cut(w.off, rand.New(rand.NewPCG(1, 2))); err != nil {
		t.Fatal(err)
	}
	got := w.below("a")
	if n := strings.Count(got, "x"); n == 0 || n == 64 || len(got) != 64 {
		t.Errorf("%q: want some of it", got)
	}
}
