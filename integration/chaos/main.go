// Chaos lets things go wrong for real daemons, all the time and at random, and
// looks whether anybody ever sees two holders or loses what was acknowledged.
//
//	go run ./integration/chaos -minutes 25 -seed 7
//	go run ./integration/chaos -schedule FILE
//
// Hosts are network namespaces (package integration/lab). A schedule, made of
// the seed alone, says which fault begins when, on whom and for how long; most
// begin while the cluster is still busy with the last, two may overlap. Every
// so often all faults end, and the cluster must be whole and serve again.
//
// Meanwhile clients write and read a register and a set, kept by a service that
// trusts failoverd (package integration/pet). Three views must never see two
// holders: addresses in the kernels, answers on the wire, and the data, which
// must be linearizable (by porcupine) and whose epochs must never go back.
//
// It exits with 1 when something happened that must not, and then says where
// the schedule so far, the logs and every operation are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

func main() {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
	o, err := parseFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err = carryOut(ctx, o)
	switch {
	case err == nil:
		return
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "chaos: interrupted; everything is cleaned up")
		os.Exit(130)
	}
	fmt.Fprintln(os.Stderr, "chaos:", err)
	os.Exit(1)
}

func parseFlags() (options, error) {
	o := options{say: os.Stdout}
	minutes := flag.Float64("minutes", 3, "how long to go on; 0: until -faults are done or the schedule ends")
	path := flag.String("schedule", "", "file with the schedule, instead of the seed's")
	list := flag.Int("print", 0, "print so many items of the seed's schedule, and the kinds of fault, and do nothing")
	flag.Uint64Var(&o.seed, "seed", 1, "what the schedule is made of")
	flag.IntVar(&o.nodes, "nodes", 3, "3 to 7")
	flag.StringVar(&o.profile, "profile", "fast", "profile of the daemons: fast or default")
	flag.IntVar(&o.faults, "faults", 0, "stop when so many faults were done; 0: go on until the time is over")
	flag.StringVar(&o.bin, "bin", "", "directory of the programs (default: bin beside go.mod)")
	flag.StringVar(&o.out, "out", "", "directory for the evidence (default: one below "+os.TempDir()+", and only when something is wrong)")
	flag.DurationVar(&o.settle, "settle", time.Minute, "how long the cluster may take to be whole again after all faults")
	flag.DurationVar(&o.decide, "decide", 30*time.Second, "how long porcupine may take for one window")
	flag.Parse()
	o.duration = time.Duration(*minutes * float64(time.Minute))
	if *path != "" {
		f, err := os.Open(*path)
		if err != nil {
			return o, fmt.Errorf("open schedule: %w", err)
		}
		defer f.Close()
		if o.schedule, err = parseSchedule(f); err != nil {
			return o, err
		}
		if len(o.schedule) == 0 {
			return o, errors.New("the schedule is empty")
		}
		o.duration = 0
	}
	if o.nodes < 3 || o.nodes > 7 {
		return o, fmt.Errorf("-nodes %d: must be 3 to 7", o.nodes)
	}
	if o.profile != "fast" && o.profile != "default" {
		return o, fmt.Errorf("-profile %s: must be fast or default", o.profile)
	}
	if o.duration == 0 && o.faults == 0 && *path == "" {
		return o, errors.New("-minutes 0 needs -faults or -schedule, or it would never end")
	}
	if *list > 0 {
		printSchedule(o, *list)
		os.Exit(0)
	}
	return o, nil
}

func printSchedule(o options, n int) {
	for _, k := range kinds {
		fmt.Printf("# %-10s %s\n", k.name, k.what)
	}
	g := newGenerator(o.seed, o.nodes)
	for range n {
		fmt.Println(g.next())
	}
}

// carryOut makes the run, plays it, tells what it has shown and ends it.
func carryOut(ctx context.Context, o options) (err error) {
	r, err := newRun(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	problem := r.play(ctx)
	if err := r.in.endAll(); err != nil && ctx.Err() == nil {
		problem = errors.Join(problem, err)
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	e, err := r.evidence(after)
	if err != nil {
		problem = errors.Join(problem, err)
	}
	e.Interrupted = ctx.Err() != nil
	e.print(o.say)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	dir, err := r.keep(e, problem)
	if dir != "" {
		fmt.Fprintf(o.say, "evidence in %s\n", dir)
	}
	if problem != nil {
		fmt.Fprintf(o.say, "\nthe schedule so far, for -schedule (nodes %d, profile %s):\n", o.nodes, o.profile)
		for _, t := range r.trace {
			fmt.Fprintf(o.say, "%s\n", t.item)
		}
	}
	return errors.Join(problem, err)
}
