package house

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	faultRow  = regexp.MustCompile(`^\| (\d+) \|.*\| (.*) \|$`)
	namedTest = regexp.MustCompile("`([a-z][a-z0-9/]*)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
)

// faults is how many there are to be survived.
const faults = 32

// TestFaultsAreTested holds docs/FAULTS.md against the tests: each of its rows
// is there once, in order, and names tests that exist or says that it has none.
func TestFaultsAreTested(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root, "docs", "FAULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range faultProblems(string(raw), testExists) {
		t.Error(problem)
	}
}

// faultProblems reads the page; exists tells whether a package has a test.
func faultProblems(page string, exists func(pkg, name string) bool) (problems []string) {
	row := 0
	for line := range strings.Lines(page) {
		for _, m := range namedTest.FindAllStringSubmatch(line, -1) {
			if !exists(m[1], m[2]) {
				problems = append(problems, fmt.Sprintf("%s has no %s", m[1], m[2]))
			}
		}
		m := faultRow.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		row++
		if m[1] != fmt.Sprint(row) {
			problems = append(problems, fmt.Sprintf("row %s stands where %d belongs", m[1], row))
		}
		if !namedTest.MatchString(m[2]) && !strings.Contains(m[2], "not yet tested") {
			problems = append(problems, fmt.Sprintf("row %s names no test, and does not say that it has none", m[1]))
		}
	}
	if row != faults {
		problems = append(problems, fmt.Sprintf("%d rows, want %d", row, faults))
	}
	return problems
}

func testExists(pkg, name string) bool {
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		return false
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(raw), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

func TestFaultProblemsAreSeen(t *testing.T) {
	page := "| 1 | x | y | `integration.TestA` |\n| 3 | x | y | `integration.TestGone` |\n| 3 | x | y | |\n| 4 | x | y | not yet tested |\n"
	got := faultProblems(page, func(_, name string) bool { return name == "TestA" })
	want := []string{"row 3 stands where 2 belongs", "has no TestGone", "row 3 names no test", "4 rows, want 32"}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n"), w) {
			t.Errorf("%q is not seen: %q", w, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("seen: %q", got)
	}
}
