package sim

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestCases replays the worlds of testdata. Each shows a fault of the protocol
// that is none any more, and names it; with the fault put back it must fail.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.sim")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d case files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".sim"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Parse(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(text), "# ") {
				t.Error("the file does not begin with what it shows")
			}
			for range max(s.Tries, 1) {
				if res := Run(s, false); res.Bad != "" {
					t.Fatalf("with seed %d: %s\n%s", s.Seed, res.Bad, strings.Join(Run(s, true).Trace, "\n"))
				}
				s.Seed++
			}
		})
	}
}

// TestScriptIsTheWorld: what is written down and read again runs as it ran.
func TestScriptIsTheWorld(t *testing.T) {
	for seed := range uint64(60) {
		s := Draw(seed)
		read, err := Parse(s.String())
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, s)
		}
		if read.String() != s.String() {
			t.Fatalf("seed %d: written\n%s\nread\n%s", seed, s, read)
		}
		if seed < 10 && !reflect.DeepEqual(Run(s, true), Run(read, true)) {
			t.Errorf("seed %d: the script that was read tells another story", seed)
		}
	}
}

// TestBadScripts: a script with a mistake in it is refused with the line.
func TestBadScripts(t *testing.T) {
	good := Draw(1).String()
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	for old, bad := range map[string]string{
		"expect holds":   "expect breaks",
		"seed 1\n":       "seed one\n",
		"timing ttl=":    "timing tt=",
		"machine a ":     "machine x ",
		"service db ":    "service d ",
		"end ":           "end of ",
		" node=":         " knot=",
		" draw=":         " drawn=",
		"voters ":        "voters 1",
		"\nend":          "\nonce upon a time\nend",
		"at 4":           "at x4",
		" lasts=":        " lasts=x",
		"crystal=":       "crystal=x",
		"takeover=lease": "",
	} {
		text := strings.Replace(good, old, bad, 1)
		if old == "takeover=lease" || text == good {
			text = strings.Replace(good, "takeover=", "takeover=x,", 1)
		}
		if _, err := Parse(text); err == nil && old != "takeover=lease" {
			t.Errorf("%q for %q is taken", bad, old)
		}
	}
}
