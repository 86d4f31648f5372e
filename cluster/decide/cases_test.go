package decide

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
			got := runCase(t, string(want))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if strings.Contains(got, "REFUSED") {
				t.Error("the leader proposes what the state machine refuses")
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

// runCase runs a file and returns it with what it gave.
func runCase(t *testing.T, text string) string {
	t.Helper()
	paragraph := ""
	r := newScript(func(format string, args ...any) {
		t.Helper()
		t.Errorf(paragraph+"\n"+format, args...)
	})
	var out []string
	for _, paragraph = range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		input, _, _ := strings.Cut(paragraph, "\n----")
		var comments, lines []string
		for l := range strings.SplitSeq(input, "\n") {
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
	return strings.Join(out, "\n\n") + "\n"
}

// cannotBe are sentences about states that the state machine never makes
// (State.Check complains of them); they are there because nothing is better said
// by silence.
var cannotBe = map[string]bool{
	"there is no such node":                                   true, // an order's target left: the order went with it
	"%s holds it under session %d, which is not its newest":   true, // an open session is its node's newest
	"epoch %d belongs to session %d, which is not known here": true, // a session is kept until its epochs are over
}

// TestEveryReasonHasACase fails for a sentence of the source that no case file
// shows: what is said to an operator is never untried.
func TestEveryReasonHasACase(t *testing.T) {
	var seen strings.Builder
	for _, path := range caseFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		seen.WriteString(runCase(t, string(text)))
	}
	sentences := sentencesInSource(t)
	if len(sentences) < 70 {
		t.Fatalf("found only %d sentences: does the search still fit the source?", len(sentences))
	}
	for s, at := range sentences {
		if _, ok := cannotBe[s]; ok {
			continue
		}
		if !pattern(s).MatchString(seen.String()) {
			t.Errorf("%s: no case shows %q", at, s)
		}
	}
}

// sentencesInSource finds the string literals with a space in them.
func sentencesInSource(t *testing.T) map[string]token.Position {
	t.Helper()
	out := map[string]token.Position{}
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
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(strings.TrimSpace(s), " ") {
					out[s] = fset.Position(lit.Pos())
				}
			}
			return true
		})
	}
	return out
}

var verb = regexp.MustCompile(`%[a-zA-Z]`)

func pattern(format string) *regexp.Regexp {
	parts := verb.Split(format, -1)
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile(strings.Join(parts, ".*"))
}
