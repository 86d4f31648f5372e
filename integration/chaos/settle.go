package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// settled ends all faults, waits until the cluster is whole and serves again,
// and looks at the window that has ended.
func (r *run) settled(ctx context.Context) error {
	if err := r.in.endAll(); err != nil {
		return err
	}
	if err := r.glance(); err != nil {
		return err
	}
	began := r.rig.Lab.Now()
	err := r.whole(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	took := r.rig.Lab.Now() - began
	if err != nil {
		r.findings = append(r.findings, fmt.Sprintf("not whole again within %v of the end of all faults: %v\n%s",
			r.settle, err, r.states(ctx)))
		return errors.Join(r.verdict(), r.examine(ctx))
	}
	r.settles.Count++
	r.settles.Sum += took
	r.settles.Longest = max(r.settles.Longest, took)
	if err := r.examine(ctx); err != nil {
		return err
	}
	n := len(r.in.faults())
	passed := r.rig.Lab.Now() - r.begun
	r.sayf("settled in %.1f s; %d faults, one in %.2f s; %d operations, epoch %d; two holders: none", took.Seconds(), n,
		passed.Seconds()/float64(max(n, 1)), r.history.figures().Acknowledged, r.epoch())
	return nil
}

// attempt is how long to wait for a whole cluster before daemons that have
// ended are looked for.
const attempt = 5 * time.Second

// patience is how often the limit for being whole begins anew when the machine
// itself stalled in it.
const patience = 5

// whole waits until the cluster is whole and serves. Time in which the machine
// stalled longer than a lease can bear does not count.
func (r *run) whole(ctx context.Context) error {
	var err error
	for range patience {
		from := r.rig.Lab.Now()
		limited, cancel := context.WithTimeout(ctx, r.settle)
		err = r.wholeWithin(limited)
		cancel()
		stall := r.rig.Noise(from, r.rig.Lab.Now())
		if err == nil || ctx.Err() != nil || stall < r.rig.Failoverd.Lease()/4 {
			return err
		}
		r.in.warn("not whole within %v, in which the machine stalled for %v", r.settle, stall)
	}
	return err
}

func (r *run) wholeWithin(ctx context.Context) error {
	err := r.in.takeAllBack(ctx)
	for ctx.Err() == nil {
		if err = r.in.supervise(); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, attempt)
		_, _, err = r.rig.Settled(limited)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// examine ends the window and checks it, by every view there is.
func (r *run) examine(ctx context.Context) error {
	closing, cancel := context.WithTimeout(ctx, r.settle)
	defer cancel()
	key, err := r.crowd.nextWindow(closing)
	if err != nil {
		return err
	}
	if err := r.crowd.closing(closing, r.in.outside, key); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.findings = append(r.findings, fmt.Sprintf("the service does not answer after all faults have ended: %v", err))
	}
	r.windows++
	ops := r.history.window(key)
	r.findings = append(r.findings, linearizable(ops, r.decide)...)
	r.findings = append(r.findings, r.windowed(ops)...)
	figures, err := r.rig.Lab.Judge(r.begun, r.rig.Lab.Now())
	if err != nil {
		return err
	}
	if !figures.None() {
		r.findings = append(r.findings, figures.String())
	}
	return r.verdict()
}

// windowed runs the checks without a search over this window, the one before,
// and the newest of all before those.
func (r *run) windowed(ops []op) []string {
	both := append(slices.Clone(r.previous), ops...)
	if r.older.Epoch != 0 {
		both = append(both, r.older)
	}
	for _, o := range r.previous {
		if o.known() && o.Epoch >= r.older.Epoch && o.Sequence >= r.older.Sequence {
			r.older = o
			r.older.Action, r.older.Key = readRegister, 0 // only its numbers count
		}
	}
	r.previous = ops
	return direct(both)
}

// epoch is the newest that answered in the last window.
func (r *run) epoch() uint64 {
	newest := r.older.Epoch
	for _, o := range r.previous {
		newest = max(newest, o.Epoch)
	}
	return newest
}

// conclude reads every set again at the very end: what was ever acknowledged
// must still be there. And it looks for epochs shared over the whole run.
func (r *run) conclude(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, r.settle)
	defer cancel()
	if err := r.crowd.stop(); err != nil {
		return err
	}
	var all []op
	for _, key := range r.history.keys() {
		if err := r.crowd.closing(limited, r.in.outside, key); err != nil {
			return fmt.Errorf("read everything again: %w", err)
		}
		ops := r.history.window(key)
		all = append(all, ops...)
		r.findings = append(r.findings, lostAdds(ops)...)
		r.findings = append(r.findings, linearizable(ops, r.decide)...)
	}
	r.findings = append(r.findings, sharedEpochs(all)...)
	r.findings = append(r.findings, epochsGoBack(all)...)
	return r.verdict()
}

// states asks every node by itself, for people to read.
func (r *run) states(ctx context.Context) string {
	var b strings.Builder
	for _, h := range r.in.nodes {
		one, cancel := context.WithTimeout(ctx, 3*time.Second)
		text, err := r.rig.Failoverd.Ctl(one, h, "status", "--local")
		cancel()
		fmt.Fprintf(&b, "--- %s says:\n%s", h, text)
		if err != nil {
			fmt.Fprintf(&b, "(%v)\n", err)
		}
	}
	if text, err := r.rig.Failoverd.AnyCtl(ctx, "explain", "pet"); err == nil {
		fmt.Fprintf(&b, "--- explain\n%s", text)
	}
	return b.String()
}
