package main

import (
	"fmt"
	"os"
	"strings"
)

// writeTable writes who caught which mutant, in Markdown.
func writeTable(file string, results []result) error {
	var rows strings.Builder
	count := map[string]int{}
	missed := 0
	for _, r := range results {
		by := "**" + string(r.verdict) + "**"
		if r.verdict == caught {
			kind := catcher(r.by)
			count[kind]++
			pkg, test, _ := strings.Cut(r.by, " ")
			by = fmt.Sprintf("%s: `%s` %s", kind, pkg, test)
		} else {
			missed++
		}
		fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", r.name, strings.ReplaceAll(r.why, "|", `\|`), by)
	}
	text := fmt.Sprintf(`# Mutants

What each file of integration/mutant/mutants breaks, and the first test that
notices; the others of its tests were not run any more. Made by

    go run ./integration/mutant -table docs/MUTANTS.md

%d of %d caught: %d by a test, %d by the simulation.

| Mutant | What it breaks | Caught by |
|---|---|---|
%s
## The faults that the lease protocol is written against

Each gave two holders in a search over a model of the protocol, and each is put
into the code by one mutant at least.

| Fault | Mutants |
|---|---|
%s`, len(results)-missed, len(results), count["test"], count["simulation"], rows.String(), faults())
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// faults are the rows of the protocol's list.
func faults() string {
	var rows strings.Builder
	for _, f := range protocol {
		fmt.Fprintf(&rows, "| %s | `%s` |\n", f.name, strings.Join(f.mutants, "`, `"))
	}
	return rows.String()
}

// catcher is the kind of test that by names.
func catcher(by string) string {
	if strings.HasPrefix(by, "cluster/sim ") {
		return "simulation"
	}
	return "test"
}
