package clock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestElapsed(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name            string
		from, to        Reading
		longer, shorter time.Duration
	}{
		{"both run", Reading{1 * s, 10 * s}, Reading{3 * s, 12 * s}, 2 * s, 2 * s},
		{"suspended for 5 s", Reading{1 * s, 10 * s}, Reading{7 * s, 11 * s}, 6 * s, 1 * s},
		{"slewed down", Reading{0, 0}, Reading{920 * time.Millisecond, s}, s, 920 * time.Millisecond},
		{"slewed up", Reading{0, 0}, Reading{1080 * time.Millisecond, s}, 1080 * time.Millisecond, s},
		{"nothing passed", Reading{4, 5}, Reading{4, 5}, 0, 0},
	} {
		if got := Longer(c.from, c.to); got != c.longer {
			t.Errorf("%s: Longer = %v, want %v", c.name, got, c.longer)
		}
		if got := Shorter(c.from, c.to); got != c.shorter {
			t.Errorf("%s: Shorter = %v, want %v", c.name, got, c.shorter)
		}
	}
}

func TestLeftEndsWithTheFirstClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.Int64Range(-1<<40, 1<<40)
		r := func(n string) Reading {
			return Reading{time.Duration(d.Draw(t, n+" boot")), time.Duration(d.Draw(t, n+" raw"))}
		}
		now, deadline := r("now"), r("deadline")
		over := now.Boot >= deadline.Boot || now.Raw >= deadline.Raw
		if (Left(now, deadline) <= 0) != over {
			t.Fatalf("Left(%v, %v) = %v, over = %v", now, deadline, Left(now, deadline), over)
		}
		// A deadline H after s is over exactly when the longer reading says H.
		h := time.Duration(d.Draw(t, "h"))
		if got, want := Left(now, deadline.Add(h)), h-Longer(deadline, now); got != want {
			t.Fatalf("Left = %v, h - Longer = %v", got, want)
		}
	})
}

func TestSystem(t *testing.T) {
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	c := System()
	last := c.Now()
	if last.Boot <= 0 || last.Raw <= 0 {
		t.Fatalf("reading %v is not positive", last)
	}
	for range 1000 {
		now := c.Now()
		if now.Boot < last.Boot || now.Raw < last.Raw {
			t.Fatalf("went back from %v to %v", last, now)
		}
		last = now
	}
	if n := testing.AllocsPerRun(100, func() { last = c.Now() }); n != 0 {
		t.Errorf("a reading allocates %v times", n)
	}
}

func TestBootID(t *testing.T) {
	a, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	b, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	if a != b || len(a) != 36 {
		t.Errorf("boot ids %q and %q: want one UUID", a, b)
	}
	empty := filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, filepath.Join(t.TempDir(), "absent")} {
		if _, err := readBootID(path); err == nil || !strings.Contains(err.Error(), "/proc") {
			t.Errorf("%s: error %v, want one that names /proc", path, err)
		}
	}
}

func BenchmarkSystem(b *testing.B) {
	c := System()
	b.ReportAllocs()
	for b.Loop() {
		c.Now()
	}
}
