package house

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// documents gives every page, by its path from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "deploy/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			pages[name] = string(raw)
		}
	}
	if len(pages) < 5 {
		t.Fatalf("only %d pages found: the check looks at nothing", len(pages))
	}
	return pages
}

// fence is a fenced block of a page.
type fence struct {
	kind, text string
	line       int
}

var (
	fencePattern  = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	inlinePattern = regexp.MustCompile("`([^`\n]+)`")
	indented      = regexp.MustCompile(`(?m)^    (.+)$`)
)

func fences(page string) (all []fence) {
	for _, m := range fencePattern.FindAllStringSubmatchIndex(page, -1) {
		all = append(all, fence{page[m[2]:m[3]], page[m[4]:m[5]], strings.Count(page[:m[0]], "\n") + 1})
	}
	return all
}

// typed gives the lines that a page says to type, without prompt and sudo.
func typed(page string) (lines []string) {
	for _, f := range fences(page) {
		if f.kind != "console" && f.kind != "sh" && f.kind != "" {
			continue
		}
		for line := range strings.Lines(f.text) {
			if rest, ok := strings.CutPrefix(line, "$ "); ok {
				lines = append(lines, strings.TrimSpace(rest))
			}
		}
	}
	prose := fencePattern.ReplaceAllString(page, "")
	for _, m := range indented.FindAllStringSubmatch(prose, -1) {
		lines = append(lines, strings.TrimSpace(m[1]))
	}
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "sudo ")
	}
	return lines
}

// mentions gives the commands that a page's prose and tables name in code
// style, those of one line together: the first in full, others shortened.
func mentions(page string) (groups [][]string) {
	for line := range strings.Lines(fencePattern.ReplaceAllString(page, "")) {
		var group []string
		for _, m := range inlinePattern.FindAllStringSubmatch(line, -1) {
			program := strings.HasPrefix(m[1], "failoverctl ") || strings.HasPrefix(m[1], "failoverd ")
			if program || len(group) > 0 && strings.HasPrefix(line, "|") {
				group = append(group, strings.ReplaceAll(m[1], `\|`, "|"))
			}
		}
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// tool runs the two programs as a reader of the pages would, with nobody
// listening anywhere.
type tool struct{ bin, dir string }

func newTool(t *testing.T) tool {
	t.Helper()
	p := tool{bin: t.TempDir(), dir: t.TempDir()}
	cmd := exec.Command("go", "build", "-o", p.bin, "./cmd/failoverctl", "./cmd/failoverd")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, name := range []string{"services.hcl", "node.hcl"} {
		raw, err := os.ReadFile(filepath.Join(root, "docs/samples", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p tool) run(t *testing.T, args ...string) (code int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, args[0]), args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "FAILOVERCTL_SOCKET=/nonexistent/failoverd.sock")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", args, err)
	}
	if ctx.Err() != nil {
		return 0, "it goes on until it is interrupted"
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

var optional = regexp.MustCompile(`\[[^\]]*\]`)

// forms turns a synopsis into what could be typed: with everything that stands
// in brackets, and without.
func forms(synopsis string) []string {
	with := strings.NewReplacer("[", "", "]", "", "...", "because", "ADDRESS", "192.0.2.14", "FILE", "services.hcl").Replace(synopsis)
	without := strings.NewReplacer("...", "because", "ADDRESS", "192.0.2.14", "FILE", "services.hcl").Replace(optional.ReplaceAllString(synopsis, ""))
	if with == without {
		return []string{with}
	}
	return []string{with, without}
}

var quoted = regexp.MustCompile(`"[^"]*"|\S+`)

// words splits a line as a shell would, as far as the pages need it.
func words(line string) (all []string) {
	line, _, _ = strings.Cut(line, " #")
	for _, w := range quoted.FindAllString(line, -1) {
		all = append(all, strings.Trim(w, `"`))
	}
	return all
}

// complaint is why a command line makes no sense to its program, or empty. One
// that only lacks its arguments names a command, which must then have help.
func (p tool) complaint(t *testing.T, line string, complete bool) string {
	t.Helper()
	for _, form := range forms(line) {
		args := words(form)
		switch {
		case args[0] == "failoverd":
			args = append(args, "--check")
			if _, text := p.run(t, args...); strings.Contains(text, "flag") || strings.Contains(text, "unexpected argument") {
				return text
			}
			continue
		case slices.Contains(args, "--force"):
			args = append(args, "--yes") // nobody is at the terminal
		}
		code, text := p.run(t, args...)
		if code == 2 && !complete && strings.Contains(text, " needs ") {
			code, text = p.run(t, append(args, "--help")...)
			if !strings.Contains(text, strings.Join(args, " ")) {
				code = 2
			}
		}
		if code == 2 || code < 0 {
			return text
		}
	}
	return ""
}

// TestCommandsInDocuments: whatever the pages tell a reader to type, the
// programs understand.
func TestCommandsInDocuments(t *testing.T) {
	p := newTool(t)
	for _, nonsense := range []string{"failoverctl statuss", "failoverctl switchover erp --tto b", "failoverctl members ad", "failoverd --konfig x"} {
		if p.complaint(t, nonsense, false) == "" {
			t.Fatalf("%s passes: the check notices nothing", nonsense)
		}
	}
	seen := 0
	for name, page := range documents(t) {
		for _, line := range typed(page) {
			if program, _, _ := strings.Cut(line, " "); program != "failoverctl" && program != "failoverd" {
				continue
			}
			seen++
			if text := p.complaint(t, line, true); text != "" {
				t.Errorf("%s: %s\n%s", name, line, text)
			}
		}
		for _, group := range mentions(page) {
			first := words(group[0])
			for i, line := range group {
				seen++
				full := line
				if i > 0 && !strings.HasPrefix(line, "failover") {
					full = "failoverctl " + line // shortened: the command alone,
				}
				text := p.complaint(t, full, false)
				if text != "" && full != line && len(first) > 2 {
					text = p.complaint(t, "failoverctl "+first[1]+" "+line, false) // or one of the first one's family
				}
				if text != "" {
					t.Errorf("%s: %s\n%s", name, line, text)
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d commands found: the check looks at nothing", seen)
	}
}

// TestConfigurationInDocuments: what the pages show can be written so.
func TestConfigurationInDocuments(t *testing.T) {
	p := newTool(t)
	seen := 0
	check := func(name, text string) {
		seen++
		path := filepath.Join(t.TempDir(), "shown.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out := p.run(t, "failoverctl", "validate", path); code != 0 {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
	for name, page := range documents(t) {
		for _, f := range fences(page) {
			if f.kind == "hcl" {
				check(name, f.text)
			}
		}
	}
	samples, err := filepath.Glob(filepath.Join(root, "docs/samples/*"))
	if err != nil || len(samples) < 2 {
		t.Fatalf("samples: %v (%v)", samples, err)
	}
	for _, path := range samples {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		check(path, string(raw))
	}
	if seen < 4 {
		t.Errorf("only %d files found: the check looks at nothing", seen)
	}
}

var target = regexp.MustCompile("(?m)(?:^\\$ |`)make ([a-z]+)")

// TestTargetsInDocuments: every make target that a page names is there.
func TestTargetsInDocuments(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name, page := range documents(t) {
		for _, m := range target.FindAllStringSubmatch(page, -1) {
			seen++
			if !regexp.MustCompile("(?m)^" + m[1] + ":").Match(raw) {
				t.Errorf("%s: there is no target %s", name, m[1])
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d targets found: the check looks at nothing", seen)
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinksInDocuments: every relative link leads to a file, and one with an
// anchor to a heading of it.
func TestLinksInDocuments(t *testing.T) {
	pages := documents(t)
	seen := 0
	for name, page := range pages {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			seen++
			path := name
			if to != "" {
				path = filepath.Join(filepath.Dir(name), to)
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(pages[path]), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading: %v", name, m[1], path, anchors(pages[path]))
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d links found: the check looks at nothing", seen)
	}
}

var (
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the names of a page's headings as links spell them.
func anchors(page string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		all = append(all, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}
