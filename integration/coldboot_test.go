package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// bootOrders are all the orders in which three hosts can come up.
var bootOrders = [][3]string{
	{"a", "b", "c"}, {"a", "c", "b"}, {"b", "a", "c"}, {"b", "c", "a"}, {"c", "a", "b"}, {"c", "b", "a"},
}

// listening waits until the host's daemon answers at all.
func listening(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host) {
	t.Helper()
	eventually(ctx, t, "the daemon of "+h.Name(), func() error {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		_, err := f.Ctl(limited, h, "version")
		return err
	})
}

// After a power cut of the whole room the service comes back by itself, in
// whatever order the hosts boot: on one host, under a later epoch, and not
// before a majority is there.
func TestColdBoot(t *testing.T) {
	for half, orders := range [][][3]string{bootOrders[:3], bootOrders[3:]} {
		t.Run(fmt.Sprintf("half %d", half+1), func(t *testing.T) {
			ctx := limited(t, 40*time.Second)
			r := newRig(ctx, t, lab.RigOptions{})
			_, s, err := r.Settled(ctx)
			must(t, err)
			_, epoch, _ := serviceOf(s, lab.Service)
			for _, order := range orders {
				epoch = coldBoot(ctx, t, r, order, epoch)
			}
		})
	}
}

func coldBoot(ctx context.Context, t *testing.T, r *lab.Rig, order [3]string, before uint64) uint64 {
	t.Helper()
	var cuts []error
	done := make(chan error, len(order))
	for _, name := range order {
		go func() { done <- r.Lab.Host(name).PowerOff() }()
	}
	for range order {
		cuts = append(cuts, <-done)
	}
	must(t, errors.Join(cuts...))
	off := r.Lab.Now()
	for i, name := range order {
		h := r.Lab.Host(name)
		must(t, r.PowerOn(h))
		listening(ctx, t, r.Failoverd, h)
		if i == 0 {
			// One of three may wait for as long as it likes.
			steadily(ctx, t, r.Failoverd.Lease(), "alone after a power cut", func() error {
				if now := r.Lab.Holders(); len(now) > 0 {
					return fmt.Errorf("%v has the address", now)
				}
				return nil
			})
		}
	}
	holder, s, err := r.Settled(ctx)
	must(t, err)
	_, epoch, _ := serviceOf(s, lab.Service)
	t.Logf("booted in the order %s: %s holds under epoch %d, %.0f ms after the cut", strings.Join(order[:], ", "), holder, epoch,
		(r.Lab.Now()-off).Seconds()*1000)
	if epoch <= before {
		t.Errorf("epoch %d after %d: it must grow over a boot", epoch, before)
	}
	if now := r.Lab.Holders(); len(now) != 1 || now[0] != holder.Name() {
		t.Errorf("%v has the address, %s the grant", now, holder)
	}
	return epoch
}

// A holder that reboots faster than its lease runs out comes back without a
// claim: what it held before the boot is over only once the lease is.
func TestHolderRebootsWithinTheLease(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	_, s, err := r.Settled(ctx)
	must(t, err)
	_, before, _ := serviceOf(s, lab.Service)
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		cut := r.Lab.Now()
		must(t, holder.PowerOff())
		must(t, r.PowerOn(holder))
		listening(ctx, t, r.Failoverd, holder)
		if took := r.Lab.Now() - cut; took > r.Failoverd.Lease() {
			t.Logf("the boot took %v, longer than the lease of %v: this run shows less", took, r.Failoverd.Lease())
		}
		_, err := r.Client.WaitAnswer(ctx, r.Lab.Now())
		return err
	})
	must(t, err)
	if !m.Figures.None() {
		t.Error(m.Figures)
	}
	if _, epoch, _ := serviceOf(m.Status, lab.Service); epoch <= before {
		t.Errorf("epoch %d after %d: a grant does not outlive its host's boot", epoch, before)
	}
	t.Logf("from %s to %s, %v without an answer", m.Before, m.After, m.Silence)
	if limit := 5 * (r.Failoverd.Lease() + time.Second); m.Silence > limit {
		t.Errorf("%v without an answer, want less than %v", m.Silence, limit)
	}
}
