package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// mutant is one way to break the code.
type mutant struct {
	name  string // of its file, without the ending
	why   string
	file  string   // below the module's root
	tests []string // arguments of go test: packages and flags
	swaps []swap
}

// set names the mutant's tests.
func (m mutant) set() string { return strings.Join(m.tests, " ") }

type swap struct{ old, new string }

// loadAll reads the mutants of a directory whose names match, in order.
func loadAll(dir string, match *regexp.Regexp) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.mutant"))
	if err != nil {
		return nil, err
	}
	var out []mutant
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".mutant")
		if !match.MatchString(name) {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		m, err := parse(name, string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// parse reads one mutant.
func parse(name, text string) (mutant, error) {
	m := mutant{name: name}
	head, body, ok := strings.Cut(text, "--- old\n")
	if !ok {
		return m, errors.New(`no line "--- old"`)
	}
	for line := range strings.Lines(head) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "why":
			m.why = value
		case "file":
			m.file = value
		case "tests":
			m.tests = strings.Fields(value)
		default:
			return m, fmt.Errorf("%q begins with none of why, file and tests", line)
		}
	}
	for part := range strings.SplitSeq(body, "--- old\n") {
		from, to, ok := strings.Cut(part, "--- new\n")
		if !ok || strings.Contains(to, "--- new\n") {
			return m, errors.New(`each "--- old" needs one "--- new"`)
		}
		m.swaps = append(m.swaps, swap{strings.TrimSuffix(from, "\n"), strings.TrimSuffix(to, "\n")})
	}
	switch {
	case m.why == "" || m.file == "" || len(m.tests) == 0:
		return m, errors.New("why, file and tests are all needed")
	case !filepath.IsLocal(m.file) || strings.HasSuffix(m.file, "_test.go"):
		return m, fmt.Errorf("%s: name a file of the module that is no test", m.file)
	}
	return m, nil
}

// mutate returns the broken source.
func (m mutant) mutate(source string) (string, error) {
	for _, s := range m.swaps {
		if s.old == "" || s.old == s.new {
			return "", errors.New("a pair that changes nothing")
		}
		if n := strings.Count(source, s.old); n != 1 {
			return "", fmt.Errorf("the old text occurs %d times in %s, not once: adapt the mutant to the code\n%s", n, m.file, s.old)
		}
		source = strings.Replace(source, s.old, s.new, 1)
	}
	return source, nil
}
