package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// someOrders are the orders of boot that are tried without FAILOVERD_LONG: both
// directions, and the one that lags in the middle of what comes up first.
var someOrders = []string{"abcde", "edcba", "cadbe", "becda"}

// everyOrder gives all orders of some names.
func everyOrder(names string) []string {
	if len(names) < 2 {
		return []string{names}
	}
	var all []string
	for i, n := range names {
		for _, rest := range everyOrder(names[:i] + names[i+1:]) {
			all = append(all, string(n)+rest)
		}
	}
	return all
}

// TestEveryOrderOfBoot cuts the power of a whole site of five and boots it in
// one order after the other. The host that comes up first had its daemon dead
// while the last entries were committed, so that the best data is never first.
// An order is right when nobody has the address before a majority is up, and
// then exactly one host serves, under a later epoch, with every write that was
// acknowledged and every order that was committed before the cut.
func TestEveryOrderOfBoot(t *testing.T) {
	orders, limit := someOrders, 90*time.Second
	if os.Getenv("FAILOVERD_LONG") != "" {
		orders, limit = everyOrder("abcde"), 40*time.Minute
	}
	ctx := limited(t, limit)
	r := newRig(ctx, t, lab.RigOptions{Hosts: []string{"a", "b", "c", "d", "e"}, Every: 5 * time.Millisecond})
	_, s := settledAtLast(ctx, t, r)
	_, epoch, _ := serviceOf(s, lab.Service)
	var took []time.Duration
	right := 0
	for i, order := range orders {
		b := siteBoot{rig: r, order: order, mark: fmt.Sprintf("power cut %d", i), epoch: epoch}
		if err := b.run(ctx, t); err != nil {
			t.Errorf("order %s: %v", order, err)
			_, s = settledAtLast(ctx, t, r)
			_, epoch, _ = serviceOf(s, lab.Service)
			continue
		}
		right, epoch, took = right+1, b.epoch, append(took, b.took)
		t.Logf("%s: %s serves under epoch %d, %.0f ms after the third host was switched on", order, b.holder, b.epoch, b.took.Seconds()*1000)
	}
	if len(took) == 0 {
		t.Fatal("no order was right")
	}
	slices.Sort(took)
	t.Logf("%d of %d right; from the third host's power to the first answer: median %v, max %v",
		right, len(orders), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// siteBoot is one power cut of the whole site and the boot after it.
type siteBoot struct {
	rig    *lab.Rig
	order  string // one letter per host
	mark   string // stands in the history if the last order was not lost
	epoch  uint64 // before the cut, then after the boot
	holder string
	took   time.Duration
}

func (b *siteBoot) hosts() (all []*lab.Host) {
	for _, name := range b.order {
		all = append(all, b.rig.Lab.Host(string(name)))
	}
	return all
}

// run reports what is not right.
func (b *siteBoot) run(ctx context.Context, t *testing.T) error {
	t.Helper()
	r, hosts := b.rig, b.hosts()
	// The first to come up misses the last entries.
	must(t, r.Failoverd.Kill(hosts[0]))
	for _, args := range [][]string{{"pause", "--reason", b.mark}, {"resume"}} {
		eventually(ctx, t, args[0], func() error {
			_, err := r.Failoverd.AnyCtl(ctx, args...)
			return err
		})
	}
	must(t, powerOff(hosts))
	cut := r.Lab.Now()
	written := lastWrite(r, cut)

	majority := len(hosts)/2 + 1
	for _, h := range hosts[:majority-1] {
		must(t, r.PowerOn(h))
	}
	for _, h := range hosts[:majority-1] {
		listening(ctx, t, r.Failoverd, h)
	}
	must(t, lab.Wait(ctx, r.Failoverd.Lease()/2))
	third := r.Lab.Now()
	for _, e := range r.Lab.AddressEvents(cut, third) {
		if e.Held {
			return fmt.Errorf("%s had the address with %d of %d hosts up", e.Host, majority-1, len(hosts))
		}
	}
	for _, h := range hosts[majority-1:] {
		must(t, r.PowerOn(h))
	}
	answer, err := r.Client.WaitAnswer(ctx, third)
	must(t, err)
	b.took = answer.Got - third
	holder, s := settledAtLast(ctx, t, r)
	b.holder = holder.Name()
	_, epoch, _ := serviceOf(s, lab.Service)
	defer func() { b.epoch = epoch }()
	return errors.Join(b.serves(cut, epoch, answer, written), b.remembers(ctx))
}

// serves checks the one holder and its data.
func (b *siteBoot) serves(cut time.Duration, epoch uint64, answer, written lab.Request) error {
	r := b.rig
	figures, err := r.Lab.Judge(cut, r.Lab.Now())
	switch now := r.Lab.Holders(); {
	case err != nil:
		return err
	case !figures.None():
		return errors.New(figures.String())
	case len(now) != 1 || now[0] != b.holder:
		return fmt.Errorf("%v has the address, %s the grant", now, b.holder)
	case epoch <= b.epoch:
		return fmt.Errorf("epoch %d after %d: it must grow over a boot", epoch, b.epoch)
	case answer.Sequence < written.Sequence:
		return fmt.Errorf("the service has %d writes, and %d were acknowledged", answer.Sequence, written.Sequence)
	}
	return nil
}

// remembers checks that the last order before the cut stands in the history.
func (b *siteBoot) remembers(ctx context.Context) error {
	text, err := b.rig.Failoverd.AnyCtl(ctx, "history", "-o", "json", "-n", "0")
	if err != nil {
		return err
	}
	var events []struct{ Why string }
	if err := json.Unmarshal([]byte(text), &events); err != nil {
		return err
	}
	for _, e := range events {
		if strings.Contains(e.Why, b.mark) {
			return nil
		}
	}
	return fmt.Errorf("nothing is known of %q, which was committed before the cut", b.mark)
}

// settledAtLast waits until all is well. On a busy machine a start may take too
// long and count as the node's failure: that is forgotten, as an operator would.
func settledAtLast(ctx context.Context, t *testing.T, r *lab.Rig) (*lab.Host, lab.Status) {
	t.Helper()
	for {
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		holder, s, err := r.Settled(limited)
		cancel()
		if err == nil {
			return holder, s
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		out, cerr := r.Failoverd.AnyCtl(ctx, "cleanup", lab.Service)
		t.Logf("not settled in 20 s; failures forgotten: %s (%v)", strings.TrimSpace(out), cerr)
	}
}

// powerOff cuts the power of all hosts at once.
func powerOff(hosts []*lab.Host) error {
	done := make(chan error, len(hosts))
	for _, h := range hosts {
		go func() { done <- h.PowerOff() }()
	}
	var all error
	for range hosts {
		all = errors.Join(all, <-done)
	}
	return all
}

// lastWrite is the newest answer to the client before an instant.
func lastWrite(r *lab.Rig, before time.Duration) (newest lab.Request) {
	for _, q := range r.Client.Requests(0, before) {
		if q.Outcome == lab.Answered && q.Got < before && q.Sequence >= newest.Sequence {
			newest = q
		}
	}
	return newest
}
