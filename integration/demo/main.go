// Demo shows in under 90 seconds what failoverd does: three hosts in network
// namespaces, a small HTTP service that moves between them, a client that asks
// every 2 ms, and five things that go wrong. It needs no package and no rights
// beyond user namespaces.
//
//	make demo          plays the five scenarios
//	make demo KEEP=1   leaves the cluster up until Ctrl-C and says how to talk to it
//
// It exits with 1 if two hosts ever held the service at once, as seen in the
// kernel, on the wire or in the data, or if a scenario did not recover.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// limit is how long a single scenario may take before it counts as not recovered.
const limit = 45 * time.Second

func main() {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	d := &demo{out: os.Stdout, start: time.Now()}
	flag.StringVar(&d.profile, "profile", "fast", "profile of the daemons: fast or default")
	flag.StringVar(&d.bin, "bin", "", "directory of the programs (default: bin beside go.mod)")
	flag.BoolVar(&d.keep, "keep", keepAsked(), "leave the cluster up until Ctrl-C, as KEEP=1")
	flag.Parse()
	err := d.run(ctx)
	switch {
	case err == nil:
		return
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything is cleaned up")
		os.Exit(130)
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	os.Exit(1)
}

// keepAsked reads KEEP as make passes it on: anything but empty, 0 and no.
func keepAsked() bool {
	switch strings.ToLower(os.Getenv("KEEP")) {
	case "", "0", "no", "false":
		return false
	}
	return true
}

type demo struct {
	out     io.Writer
	start   time.Time
	profile string
	bin     string
	keep    bool
	rows    []row
}

// row is a scenario and what it cost.
type row struct {
	name string
	m    lab.Measurement
	err  error
}

// say prints a line of progress.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%5.1f s  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context) (err error) {
	setup, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	rig, err := lab.NewRig(setup, lab.RigOptions{Profile: d.profile, Bin: d.bin, Log: d.say})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.Close()) }()

	d.play(ctx, rig)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.table()
	if err := d.history(ctx, rig); err != nil {
		return err
	}
	if d.keep {
		d.explainKeep(rig)
		<-ctx.Done()
		d.say("cleaning up")
		return d.verdict()
	}
	return d.verdict()
}

// play runs the scenarios one after the other; after one that does not recover
// the others would measure nothing.
func (d *demo) play(ctx context.Context, rig *lab.Rig) {
	lease := rig.Failoverd.Lease()
	for _, scenario := range []struct {
		name  string
		fault func(context.Context) lab.Fault
	}{
		{"planned switchover", rig.Switchover},
		{"daemon killed, restarted", rig.KillDaemon},
		{"power-off of the holder", rig.PowerCut},
		{"daemon frozen, 10 leases", func(ctx context.Context) lab.Fault { return rig.Freeze(ctx, 10*lease, false) }},
		{"partition, healed", func(ctx context.Context) lab.Fault { return rig.Partition(ctx, 3*lease) }},
	} {
		one, cancel := context.WithTimeout(ctx, limit)
		m, err := rig.Measure(one, scenario.fault(one))
		cancel()
		if ctx.Err() != nil {
			return
		}
		d.rows = append(d.rows, row{scenario.name, m, err})
		if err != nil {
			d.say("%s: not recovered: %v", scenario.name, err)
			return
		}
		d.say("%s: longest silence %.0f ms, %s", scenario.name, ms(m.Silence), twoHolders(m.Figures))
	}
}

func twoHolders(f lab.Figures) string {
	if f.None() {
		return "never two holders"
	}
	return f.String()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (d *demo) table() {
	fmt.Fprintln(d.out)
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	// Columns are aligned to the right, names to the left: all of one width.
	const name = "%-26s"
	fmt.Fprintf(w, name+"\tholder before\tafter\tlongest silence\ttwo holders: address\twire\tdata\t\n", "scenario")
	for _, r := range d.rows {
		if r.err != nil {
			fmt.Fprintf(w, name+"\t%s\t-\tnot recovered\t-\t-\t-\t\n", r.name, r.m.Before)
			continue
		}
		f := r.m.Figures
		fmt.Fprintf(w, name+"\t%s\t%s\t%.0f ms\t%.0f ms\t%.0f ms\t%.0f ms\t\n", r.name, r.m.Before, r.m.After,
			ms(r.m.Silence), ms(f.Address), ms(f.Wire), ms(f.Data))
	}
	_ = w.Flush() // to standard output
}

// history shows what the cluster says of it all.
func (d *demo) history(ctx context.Context, rig *lab.Rig) error {
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	text, err := rig.Failoverd.AnyCtl(ask, "history", lab.Service, "-n", "0")
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nfailoverctl history %s\n\n%s\n", lab.Service, text)
	return nil
}

// verdict is the error that the demo ends with.
func (d *demo) verdict() error {
	var bad []string
	for _, r := range d.rows {
		switch {
		case r.err != nil:
			bad = append(bad, r.name+" did not recover")
		case !r.m.Figures.None():
			bad = append(bad, r.name+": "+r.m.Figures.String())
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// explainKeep prints how to talk to the cluster.
func (d *demo) explainKeep(rig *lab.Rig) {
	f := rig.Failoverd
	fmt.Fprintln(d.out, "The cluster stays up until Ctrl-C. In another terminal:")
	fmt.Fprintln(d.out)
	first := f.Hosts()[0]
	for _, line := range []string{"status -w", "explain " + lab.Service, "switchover " + lab.Service, "events -f"} {
		fmt.Fprintf(d.out, "  %s --socket %s %s\n", f.Control(), f.Socket(first), line)
	}
	fmt.Fprintln(d.out)
	client := rig.Lab.Host("client")
	fmt.Fprintf(d.out, "  nsenter -t %d %s-n curl -s http://%s:%d/get    # what a client sees\n",
		client.Pid(), userFlags(), lab.VIP, lab.Port)
	for _, h := range f.Hosts() {
		fmt.Fprintf(d.out, "  nsenter -t %d %s-n -p -m -u sh    # a shell on host %s; its log is %s\n",
			h.Pid(), userFlags(), h, f.LogFile(h))
	}
	fmt.Fprintln(d.out)
}

// userFlags lead nsenter into the user namespace that an ordinary user's lab lives in.
func userFlags() string {
	if lab.Inner() {
		return "-U --preserve-credentials "
	}
	return ""
}
