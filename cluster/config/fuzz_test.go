package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// addFiles gives every file of that name below testdata to a fuzz test.
func addFiles(f *testing.F, pattern string) {
	for _, glob := range []string{"testdata/bad/*/" + pattern, "../../docs/samples/" + pattern} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			src, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src, strings.HasSuffix(name, ".json"))
		}
	}
	for _, src := range []string{
		strings.Repeat("[", 1000), strings.Repeat("{", 1000), "a = " + strings.Repeat("!", 5000),
		"a = " + strings.Repeat("- ", 5000), "a = <<E\n" + strings.Repeat("${", 100), "\xff\xfe", "a=1;b=2",
		`{"service":[{"a":[{"vip":null}]}]}`, `{"service":{"a":{"resources":[[]]}}}`, `{"node":1e999999999}`,
	} {
		f.Add([]byte(src), false)
		f.Add([]byte(src), true)
	}
}

func fileName(base string, isJSON bool) string {
	if isJSON {
		return base + ".json"
	}
	return base + ".hcl"
}

// wellFormed: an error lists problems, each with words and a place in the file.
func wellFormed(t *testing.T, err error) {
	t.Helper()
	var problems *Error
	if !errors.As(err, &problems) || len(problems.Problems) == 0 {
		t.Fatalf("an error without problems: %v", err)
	}
	for _, p := range problems.Problems {
		if p.Text == "" || p.Line < 0 || p.Column < 0 || strings.ContainsAny(p.Text, "\n") {
			t.Fatalf("a problem that cannot be shown: %#v", p)
		}
	}
}

func FuzzNode(f *testing.F) {
	addFiles(f, "node*")
	f.Fuzz(func(t *testing.T, src []byte, isJSON bool) {
		name := fileName("node", isJSON)
		n, err := parseNode(&report{file: name}, src)
		if err != nil {
			wellFormed(t, err)
			return
		}
		if n.GossipKey != nil || n.TLS != nil {
			return // the print masks the key, and files come and go
		}
		again, err := parseNode(&report{file: "again.hcl"}, n.Marshal())
		if err != nil {
			t.Fatalf("the effective configuration is refused: %v\n%s", err, n.Marshal())
		}
		again.Path = n.Path
		if diff := cmp.Diff(n, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzServices(f *testing.F) {
	addFiles(f, "services*")
	f.Fuzz(func(t *testing.T, src []byte, isJSON bool) {
		specs, err := ParseServices(fileName("services", isJSON), src)
		if err != nil {
			wellFormed(t, err)
			return
		}
		for _, s := range specs {
			if err := s.Validate(); err != nil || len(s.Resources) == 0 {
				t.Fatalf("accepted: %+v, %v", s, err)
			}
			for _, r := range s.Resources {
				if r.Name == "" || (r.VIP == nil) == (r.Process == nil && r.Exec == nil) {
					t.Fatalf("accepted: %+v", r)
				}
			}
		}
	})
}

func TestDeepNestingIsRefused(t *testing.T) {
	for _, src := range []string{
		"a = " + strings.Repeat("[", 1<<19), "a = " + strings.Repeat("!", 1<<19), "a = " + strings.Repeat("-\t", 1<<18),
		strings.Repeat("a {\n", 1<<17), "a = \"" + strings.Repeat("${\"", 1<<17), "a = " + strings.Repeat("b?c:", 1<<17),
		strings.Repeat("x", 1<<21),
	} {
		for _, isJSON := range []bool{false, true} {
			_, err := parseNode(&report{file: fileName("node", isJSON)}, []byte(src))
			wellFormed(t, err)
		}
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "gone.hcl"): "there is no such file; check the path",
		t.TempDir():                            "this is a directory; name the file",
	} {
		if _, err := LoadNode(path); err == nil || err.Error() != path+": "+want {
			t.Errorf("got %v", err)
		}
		if _, err := LoadServices(path); err == nil || err.Error() != path+": "+want {
			t.Errorf("got %v", err)
		}
	}
}
