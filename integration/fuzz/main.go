// Fuzz runs every fuzz test of the module for a short time each. The tests are
// found by reading the source, so that a new one is run without being listed
// anywhere. What go test -fuzz does for one test of one package at a time, and
// with a build for each, this does for all of them with one build a package.
//
//	go run ./integration/fuzz [-time 3s] [-run REGEXP] [-j 1|2] [-corpus DIR] [-list] [-v]
//
// An input that fails a test is written to testdata/fuzz of its package, where
// the ordinary tests find it from then on: mend the code and commit the file.
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
	"runtime"
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

// run is the program: 0 nothing found, 1 something is wrong, 2 wrong usage.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	flags.SetOutput(errs)
	pattern := flags.String("run", "", "only the tests whose package and name match this expression, as in cluster/state.FuzzDecode")
	each := flags.Duration("time", 3*time.Second, "for each test")
	jobs := flags.Int("j", min(2, runtime.NumCPU()), "how many tests at a time: 1 or 2")
	corpus := flags.String("corpus", "", "directory in which inputs of interest are kept from run to run (default: not kept)")
	dir := flags.String("dir", "", "directory of the module (default: the one around the working directory)")
	list := flags.Bool("list", false, "print the tests and end")
	verbose := flags.Bool("v", false, "show the output of every test")
	if flags.Parse(args) != nil {
		return 2
	}
	match, err := regexp.Compile(*pattern)
	if err != nil || flags.NArg() > 0 || *jobs < 1 || *jobs > 2 || *each <= 0 {
		fmt.Fprintln(errs, "fuzz: use -run REGEXP, -time over 0, -j 1 or 2, and no other arguments:", err)
		return 2
	}
	if *dir == "" {
		if *dir, err = batch.ModuleRoot(); err != nil {
			fmt.Fprintln(errs, "fuzz:", err)
			return 1
		}
	}
	targets, err := find(*dir, match)
	if err != nil {
		fmt.Fprintln(errs, "fuzz:", err)
		return 1
	}
	if len(targets) == 0 {
		fmt.Fprintf(errs, "fuzz: no test matches %q\n", *pattern)
		return 1
	}
	if *list {
		for _, t := range targets {
			fmt.Fprintln(out, t)
		}
		return 0
	}
	tmp, err := os.MkdirTemp("", "failoverd-fuzz-")
	if err != nil {
		fmt.Fprintln(errs, "fuzz:", err)
		return 1
	}
	defer os.RemoveAll(tmp)
	r := &runner{root: *dir, tmp: tmp, corpus: *corpus, each: *each}
	if *verbose {
		r.log = errs
	}
	if r.corpus == "" {
		r.corpus = filepath.Join(tmp, "corpus")
	}
	return report(out, r.all(ctx, targets, *jobs))
}

// report prints the table and returns the exit code.
func report(out io.Writer, results []result) int {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "TEST\tVERDICT\tINPUTS\tSECONDS")
	bad := 0
	for _, r := range results {
		if r.verdict != passed {
			bad++
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.1f\n", r.target, r.verdict, r.inputs, r.took.Seconds())
	}
	if err := t.Flush(); err != nil {
		return 1
	}
	for _, r := range results {
		if r.verdict != passed {
			fmt.Fprintf(out, "\n%s: %s\n%s\n", r.target, r.verdict, r.output)
		}
	}
	fmt.Fprintf(out, "%d of %d found nothing\n", len(results)-bad, len(results))
	if bad > 0 {
		return 1
	}
	return 0
}
