package state

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite what the case files expect; read the difference before you keep it")

// TestCases runs every case file. Each opens with a sentence of intent.
func TestCases(t *testing.T) {
	for _, path := range caseFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			intent, _, _ := strings.Cut(string(want), "\n\n")
			if !strings.HasPrefix(intent, "# ") || !strings.HasSuffix(intent, ".") {
				t.Error("the file must open with a comment that says in a sentence what the case is about")
			}
			got, _ := runCase(t, string(want))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func caseFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no case files: %v", err)
	}
	return paths
}

// runCase runs a file and returns it with what it gave, and every refusal in it.
func runCase(t *testing.T, text string) (string, []*Refusal) {
	t.Helper()
	r := newScript(func(format string, args ...any) { t.Helper(); t.Errorf(format, args...) })
	var out []string
	for _, paragraph := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		input, _, _ := strings.Cut(paragraph, "\n----")
		var comments, lines []string
		for _, l := range strings.Split(input, "\n") {
			if strings.HasPrefix(l, "#") {
				comments = append(comments, l)
			} else if l != "" {
				lines = append(lines, l)
			}
		}
		whole := append(comments, lines...)
		if len(lines) > 0 {
			if got := r.run(lines); got != "" {
				whole = append(whole, "----", strings.TrimRight(got, "\n"))
			}
		}
		out = append(out, strings.Join(whole, "\n"))
	}
	return strings.Join(out, "\n\n") + "\n", r.refused
}

// TestEveryRefusalHasACase fails for a code that no case file is refused with,
// and for a sentence of the source that no case file shows.
func TestEveryRefusalHasACase(t *testing.T) {
	var seen []*Refusal
	for _, path := range caseFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, refused := runCase(t, string(text))
		seen = append(seen, refused...)
	}
	codes, sentences := refusalsInSource(t)
	if len(codes) < 30 || len(sentences) < 40 {
		t.Fatalf("found only %d codes and %d sentences: does the search still fit the source?", len(codes), len(sentences))
	}
	for name, code := range codes {
		if !shown(seen, func(r *Refusal) bool { return r.Code == code }) {
			t.Errorf("no case is refused with %s (%s)", code, name)
		}
	}
	for _, s := range sentences {
		pattern := sentencePattern(s.format)
		if !shown(seen, func(r *Refusal) bool { return r.Code == codes[s.code] && pattern.MatchString(r.Why) }) {
			t.Errorf("%s: no case shows the refusal %s: %q", s.at, s.code, s.format)
		}
	}
	for _, r := range seen {
		if !strings.Contains(r.Why, ": ") {
			t.Errorf("%s: a refusal says what to do next: %q", r.Code, r.Why)
		}
	}
}

func shown(seen []*Refusal, match func(*Refusal) bool) bool {
	for _, r := range seen {
		if match(r) {
			return true
		}
	}
	return false
}

// sentence is a call of refuse in the source.
type sentence struct {
	at           token.Position
	code, format string
}

// refusalsInSource reads the constants of codes.go and every call of refuse.
func refusalsInSource(t *testing.T) (codes map[string]string, sentences []sentence) {
	t.Helper()
	codes = map[string]string{}
	fset := token.NewFileSet()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if name := n.Names[0].Name; strings.HasPrefix(name, "Code") && len(n.Values) == 1 {
					codes[name] = literal(t, n.Values[0])
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "refuse" {
					code, ok := n.Args[0].(*ast.Ident)
					if !ok {
						t.Fatalf("%s: refuse wants the name of a code", fset.Position(n.Pos()))
					}
					sentences = append(sentences, sentence{at: fset.Position(n.Pos()), code: code.Name, format: literal(t, n.Args[1])})
				}
			}
			return true
		})
	}
	return codes, sentences
}

func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatal("codes and sentences of refusals are plain string literals")
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var verb = regexp.MustCompile(`%[a-zA-Z]`)

func sentencePattern(format string) *regexp.Regexp {
	parts := verb.Split(format, -1)
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
}
