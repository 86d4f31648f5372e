package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/failoverd/failoverd/integration/disk"
	"github.com/failoverd/failoverd/integration/lab"
)

// options say what a run is.
type options struct {
	seed     uint64
	nodes    int
	profile  string
	duration time.Duration
	faults   int    // enough when so many were done; 0: never
	schedule []item // instead of the seed's
	bin      string
	out      string        // directory for the evidence; empty: only when something is wrong
	settle   time.Duration // at most, until the cluster must be whole again
	decide   time.Duration // at most, for porcupine with one window
	say      io.Writer
}

// setupLimit is how long the lab may take until the first client is answered.
const setupLimit = 2 * time.Minute

// run is one run of chaos.
type run struct {
	options
	rig      *lab.Rig
	in       *injector
	disks    *disks
	crowd    *crowd
	history  *history
	trace    []traced
	begun    time.Duration // by the lab's clock
	next     func() (item, bool)
	previous []op // of the window before
	older    op   // the newest epoch and place of all windows before that
	windows  int
	settles  settles
	findings []string
}

// traced is an item that was begun.
type traced struct {
	at   time.Duration
	text string
	item item
}

// settles are how long the cluster took to be whole again.
type settles struct {
	Count   int           `json:"count"`
	Longest time.Duration `json:"longest_ns"`
	Sum     time.Duration `json:"sum_ns"`
}

// errViolated says that something happened that must never happen.
var errViolated = errors.New("violated")

// newRun makes the lab and starts daemons and clients. Close it.
func newRun(ctx context.Context, o options) (_ *run, err error) {
	r := &run{options: o, history: newHistory(), disks: &disks{of: map[*lab.Host]*disk.Disk{}}}
	names := strings.Split("abcdefg", "")[:o.nodes]
	setup, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	r.rig, err = lab.NewRig(setup, lab.RigOptions{Profile: o.profile, Hosts: names, Every: 10 * time.Millisecond, Bin: o.bin,
		Boot: r.disks.boot, Log: func(format string, args ...any) { r.sayf(format, args...) }})
	if err != nil {
		return nil, err // the disks went with the hosts
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	inside, err := r.rig.Lab.Client("inside")
	if err != nil {
		return nil, err
	}
	outside := r.rig.Lab.Host("client")
	r.in = newInjector(r.rig, r.disks, inside, outside)
	r.crowd = newCrowd(r.rig.Lab, r.history, r.rig.Failoverd.Lease()*2/3, 3, inside, outside)
	r.begun = r.rig.Lab.Now()
	r.next = r.source()
	return r, nil
}

// source gives the items, of the file or of the seed.
func (r *run) source() func() (item, bool) {
	if r.schedule == nil {
		g := newGenerator(r.seed, r.nodes)
		return func() (item, bool) { return g.next(), true }
	}
	n := 0
	return func() (item, bool) {
		if n == len(r.schedule) {
			return item{}, false
		}
		n++
		return r.schedule[n-1], true
	}
}

// close ends everything. It can be called twice.
func (r *run) close() error {
	var err error
	if r.crowd != nil {
		err = r.crowd.stop()
	}
	return errors.Join(err, r.disks.close(), r.rig.Close())
}

func (r *run) sayf(format string, args ...any) {
	at := time.Duration(0)
	if r.rig != nil {
		at = r.rig.Lab.Now()
	}
	fmt.Fprintf(r.say, "%7.1f s  %s\n", at.Seconds(), fmt.Sprintf(format, args...))
}

// play follows the schedule until its end, the end of the time, or a violation,
// which it gives as errViolated. It always ends settled, unless it was cut off.
func (r *run) play(ctx context.Context) error {
	lease := r.rig.Failoverd.Lease()
	last := r.rig.Lab.Now()
	settled := false
	for !r.enough() {
		i, more := r.next()
		if !more {
			break
		}
		settled = i.settle
		if i.settle {
			if err := r.settled(ctx); err != nil {
				return err
			}
			last = r.rig.Lab.Now()
			continue
		}
		wait := time.Duration(i.gap*float64(lease)) - (r.rig.Lab.Now() - last)
		if err := lab.Wait(ctx, wait); err != nil {
			return err
		}
		text, err := r.in.start(ctx, i.faults, lease)
		if err != nil {
			return err
		}
		last = r.rig.Lab.Now()
		r.trace = append(r.trace, traced{at: last, text: text, item: i})
		r.sayf("#%d  %s", len(r.trace), text)
		if err := r.glance(); err != nil {
			return err
		}
	}
	if !settled {
		if err := r.settled(ctx); err != nil {
			return err
		}
	}
	return r.conclude(ctx)
}

// enough reports whether the time is over or the faults are done.
func (r *run) enough() bool {
	if r.duration > 0 && r.rig.Lab.Now()-r.begun >= r.duration {
		return true
	}
	return r.faults > 0 && len(r.in.faults()) >= r.faults
}

// glance looks at what is cheap to see, while faults go on.
func (r *run) glance() error {
	if err := r.in.supervise(); err != nil {
		return err
	}
	r.findings = append(r.findings, r.in.wrong()...)
	return r.verdict()
}

// verdict gives the findings as an error.
func (r *run) verdict() error {
	if len(r.findings) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errViolated, strings.Join(r.findings, "\n  "))
}
