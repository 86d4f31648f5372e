// Bench measures what the faults of docs/BENCHMARKS.md cost: real daemons on
// three hosts in network namespaces, a client that asks every 2 ms, and the
// three views of two holders.
//
//	make bench                                        every row, 10 runs each, both profiles
//	make bench BENCH="-runs 3 -only power -profiles fast"
//	make bench BENCH="-long"                          with the idle rows
//	make bench BENCH="-only keepalived"               the same work by keepalived, where installed
//
// It exits with 1 if a figure is over its bound.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// errBounds says that a figure is over its bound.
var errBounds = errors.New("not every figure is within its bound")

func main() {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	runs     int
	only     *regexp.Regexp
	profiles []string
	json     string
	long     bool
	bin      string
	verbose  bool
	keep     bool
}

func parseFlags() (options, error) {
	var o options
	var only, profiles string
	flag.IntVar(&o.runs, "runs", 10, "runs of each row")
	flag.StringVar(&only, "only", "", "only rows whose name this regular expression matches")
	flag.StringVar(&profiles, "profiles", "default,fast", "the profiles to measure")
	flag.StringVar(&o.json, "json", "", "write every single measurement to this file")
	flag.BoolVar(&o.long, "long", false, "with the rows that take minutes in which nothing may happen")
	flag.StringVar(&o.bin, "bin", "", "directory of the programs (default: bin beside go.mod)")
	flag.BoolVar(&o.keep, "keep", false, "have the daemons log everything, and leave the logs behind")
	flag.BoolVar(&o.verbose, "v", false, "say what happens in each run")
	flag.Parse()
	if o.runs < 1 {
		return o, fmt.Errorf("-runs %d: must be 1 or more", o.runs)
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	for name := range strings.SplitSeq(profiles, ",") {
		if name != "default" && name != "fast" {
			return o, fmt.Errorf("-profiles: %q is none; there are default and fast", name)
		}
		o.profiles = append(o.profiles, name)
	}
	return o, nil
}

func run(ctx context.Context) error {
	o, err := parseFlags()
	if err != nil {
		return err
	}
	b := &bench{options: o}
	for _, profile := range o.profiles {
		for _, alone := range []bool{false, true} {
			if err := b.measure(ctx, profile, alone); err != nil {
				break // interrupted: what was measured is still shown
			}
		}
	}
	if ctx.Err() == nil {
		b.keepalived(ctx)
	}
	fmt.Println()
	b.print(os.Stdout)
	if o.json != "" {
		if err := b.writeJSON(o.json); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case slices.ContainsFunc(b.results, func(r *result) bool { return !r.passed() }):
		return errBounds
	}
	return nil
}

// bench is a whole measurement.
type bench struct {
	options options
	results []*result
	notes   []string
}

// patience is how long one run may take beyond the time that its row lasts.
const patience = 60 * time.Second

// measure runs all rows that want such a rig. An error ends the bench: it was
// interrupted. A run that fails is part of the result.
func (b *bench) measure(ctx context.Context, profile string, alone bool) error {
	rig := &rigKeeper{bench: b, profile: profile, alone: alone}
	defer rig.close()
	for _, row := range rows {
		if row.alone != alone || row.long && !b.options.long || !b.options.only.MatchString(row.name) {
			continue
		}
		if row.profile != "" && row.profile != profile {
			continue
		}
		result := &result{Row: row.name, Profile: profile, row: row, lease: leaseOf(profile)}
		b.results = append(b.results, result)
		runs := b.options.runs
		if row.long {
			runs = 1
		}
		for n := range runs {
			m, err := b.one(ctx, rig, row)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			result.add(m, err)
			b.report(result, n, runs, m, err)
		}
	}
	return nil
}

func leaseOf(profile string) time.Duration {
	if profile == "fast" {
		return 600 * time.Millisecond
	}
	return 2 * time.Second
}

// one is a single run; after one that failed the rig is made anew.
func (b *bench) one(ctx context.Context, keeper *rigKeeper, row row) (lab.Measurement, error) {
	limit, cancel := context.WithTimeout(ctx, row.lasts(leaseOf(keeper.profile))+patience)
	defer cancel()
	rig, err := keeper.get(limit)
	if err != nil {
		return lab.Measurement{}, err
	}
	if row.prepare != nil {
		if err := row.prepare(limit, rig); err != nil {
			keeper.close()
			return lab.Measurement{}, err
		}
	}
	m, err := rig.Measure(limit, row.fault(limit, rig))
	if err != nil {
		keeper.close()
		return m, err
	}
	one := &result{Profile: keeper.profile, row: row, lease: leaseOf(keeper.profile)}
	one.add(m, nil)
	bad := one.failures()
	if b.options.verbose && m.AfterHeal > 50*time.Millisecond {
		bad = append(bad, "late after the heal")
	}
	if len(bad) > 0 {
		fmt.Fprintf(os.Stderr, "%s: %s\n%s", row.name, strings.Join(bad, "; "), rig.Account(limit, m))
	}
	return m, nil
}

func (b *bench) report(r *result, n, runs int, m lab.Measurement, err error) {
	where := fmt.Sprintf("%-7s %-40s %2d/%d", r.Profile, r.Row, n+1, runs)
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s  failed: %v\n", where, err)
	case m.Figures.None():
		fmt.Fprintf(os.Stderr, "%s  %s to %s, silence %7.1f ms (machine %.0f), lost %d\n", where, m.Before, m.After, ms(m.Silence), ms(m.Noise), m.Lost)
	default:
		fmt.Fprintf(os.Stderr, "%s  silence %7.1f ms, %v\n", where, ms(m.Silence), m.Figures)
	}
}

// rigKeeper makes a rig when one is needed and remakes it after a failure.
type rigKeeper struct {
	bench   *bench
	profile string
	alone   bool
	rig     *lab.Rig
}

func (k *rigKeeper) get(ctx context.Context) (*lab.Rig, error) {
	if k.rig != nil {
		return k.rig, nil
	}
	o := lab.RigOptions{Profile: k.profile, Alone: k.alone, Bin: k.bench.options.bin, Keep: k.bench.options.keep}
	if o.Keep {
		o.Extra = "log { level = \"debug\" }\n"
	}
	if k.bench.options.verbose {
		o.Log = func(format string, args ...any) { fmt.Fprintf(os.Stderr, "        "+format+"\n", args...) }
	}
	rig, err := lab.NewRig(ctx, o)
	if err != nil {
		return nil, err
	}
	if o.Keep {
		fmt.Fprintln(os.Stderr, "logs in", rig.Lab.Dir())
	}
	k.rig = rig
	return rig, nil
}

func (k *rigKeeper) close() {
	if k.rig == nil {
		return
	}
	if err := k.rig.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
	k.rig = nil
}
