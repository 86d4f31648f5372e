// Mutant breaks the code on purpose, one small way at a time, and checks that a
// test notices. Each file mutants/*.mutant is one way:
//
//	why: what would go wrong, in a sentence
//	file: cluster/lease/holder.go
//	tests: ./cluster/lease -run=TestHolder
//	--- old
//	text that occurs exactly once in the file
//	--- new
//	what takes its place
//
// Further pairs of old and new may follow. Nothing in the work tree is changed:
// the compiler is given the broken file by an overlay. A mutant that no test
// catches, or that does not compile, is a failure, and so is a test that fails
// without one.
//
// The tests of a mutant are ended at the first that fails, so name those first
// that are cheap. With -table the result is also written as a table in Markdown.
//
//	go run ./integration/mutant [-run REGEXP] [-table FILE] [-v] [-j 1|2] [-timeout 2m]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/failoverd/failoverd/integration/internal/batch"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program: 0 all caught, 1 not so, 2 wrong usage.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("mutant", flag.ContinueOnError)
	flags.SetOutput(errs)
	pattern := flags.String("run", "", "only the mutants whose name matches this expression")
	verbose := flags.Bool("v", false, "show the output of the tests")
	jobs := flags.Int("j", 1, "how many mutants at a time: 1 or 2")
	timeout := flags.Duration("timeout", 2*time.Minute, "for the tests of one mutant; a test that hangs has caught it")
	table := flags.String("table", "", "write who caught which mutant to this file, in Markdown")
	dir := flags.String("dir", "", "directory of the mutants (default integration/mutant/mutants of the module)")
	if flags.Parse(args) != nil {
		return 2
	}
	match, err := regexp.Compile(*pattern)
	if err != nil || flags.NArg() > 0 || *jobs < 1 || *jobs > 2 {
		fmt.Fprintln(errs, "mutant: use -run REGEXP, -j 1 or 2, and no other arguments:", err)
		return 2
	}
	root, err := batch.ModuleRoot()
	if err != nil {
		fmt.Fprintln(errs, "mutant:", err)
		return 1
	}
	if *dir == "" {
		*dir = filepath.Join(root, "integration", "mutant", "mutants")
	}
	all, err := loadAll(*dir, match)
	if err != nil {
		fmt.Fprintln(errs, "mutant:", err)
		return 1
	}
	if len(all) == 0 {
		fmt.Fprintf(errs, "mutant: none in %s matches %q\n", *dir, *pattern)
		return 1
	}
	tmp, err := os.MkdirTemp("", "failoverd-mutant-")
	if err != nil {
		fmt.Fprintln(errs, "mutant:", err)
		return 1
	}
	defer os.RemoveAll(tmp)

	h := &hunt{root: root, tmp: tmp, timeout: *timeout, progress: errs}
	if *verbose {
		h.log = errs
	}
	wrong := h.baseline(ctx, all, *jobs)
	results := h.runAll(ctx, all, wrong, *jobs)
	code := report(out, results)
	if *table != "" {
		if err := writeTable(*table, results); err != nil {
			fmt.Fprintln(errs, "mutant:", err)
			return 1
		}
	}
	return code
}

// runAll runs the mutants, a few at a time, and returns the results in their order.
// Wrong has the sets of tests that fail without a mutant: they show nothing.
func (h *hunt) runAll(ctx context.Context, all []mutant, wrong map[string]string, jobs int) []result {
	results := make([]result, len(all))
	batch.InTurn(len(all), jobs, func(i int) {
		if text := wrong[all[i].set()]; text != "" {
			results[i] = result{mutant: all[i], verdict: failsAnyway, detail: text}
			return
		}
		results[i] = h.run(ctx, all[i])
		h.say(results[i])
	})
	return results
}

// say tells of a result at once: the table comes only at the end.
func (h *hunt) say(r result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(h.progress, "%-40s %s in %.1f s\n", r.name, r.verdict, r.took.Seconds())
}

// report prints the table and returns the exit code.
func report(out io.Writer, results []result) int {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "MUTANT\tVERDICT\tCAUGHT BY\tSECONDS")
	missed := 0
	for _, r := range results {
		if r.verdict != caught {
			missed++
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f\n", r.name, r.verdict, r.by, r.took.Seconds())
	}
	if err := t.Flush(); err != nil {
		return 1
	}
	for _, r := range results {
		if r.verdict != caught {
			fmt.Fprintf(out, "\n%s: %s\n  %s\n%s", r.name, r.verdict, r.why, r.detail)
		}
	}
	fmt.Fprintf(out, "%d of %d caught\n", len(results)-missed, len(results))
	if missed > 0 {
		return 1
	}
	return 0
}
