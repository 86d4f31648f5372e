package consensus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster"
)

// FoundingOptions is what RunFounding needs.
type FoundingOptions struct {
	Directory *Directory
	// Ask asks the node at a configured peer's address who it is. It is called
	// from several goroutines, with a deadline.
	Ask func(ctx context.Context, address string) (cluster.Identity, error)
	// Progress is told why there is no cluster yet, each time the reason changes. May be nil.
	Progress func(why string)
	// Interval lies between two rounds of questions; default 1 s.
	Interval time.Duration
	// Patience bounds one question; default 2 s.
	Patience time.Duration
}

// Founded says which cluster the directory belongs to.
type Founded struct {
	Cluster  string
	Founders []cluster.Founder
	Why      string
}

// RunFounding returns when the directory belongs to a cluster: because it did
// already, because this node founded one, or because a peer's cluster counts
// this node as its own. Until then it asks the configured peers, again and
// again, and tells Progress whom it waits for. What only an operator can
// resolve keeps it waiting too: a node that is admitted later joins then.
//
// Meanwhile other nodes must be able to ask this one: the answer is
// Directory.Identity, taken anew each time.
func RunFounding(ctx context.Context, o FoundingOptions) (Founded, error) {
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	told := ""
	for {
		self, _ := o.Directory.look()
		if self.Cluster == "" && !slices.Contains(self.Peers, self.Address) {
			d := NextFounding(self, nil)
			return Founded{}, fmt.Errorf("found cluster: %w: %s", cluster.ErrInvalid, d.Why)
		}
		d, done, err := o.round(ctx)
		if err != nil {
			return Founded{}, fmt.Errorf("found cluster: %w", err)
		}
		if done {
			return Founded{Cluster: d.Cluster, Founders: d.Founders, Why: d.Why}, nil
		}
		if d.Why != told && o.Progress != nil {
			o.Progress(d.Why)
		}
		told = d.Why
		if err := pause(ctx, o.Interval); err != nil {
			return Founded{}, fmt.Errorf("found cluster: %w: %s", err, told)
		}
	}
}

// round asks everybody and acts on the answers. What it is about to write down
// is confirmed by asking once more those on whose word it rests: see settle.
func (o FoundingOptions) round(ctx context.Context) (d Decision, done bool, err error) {
	self, _ := o.Directory.look()
	d = NextFounding(self, o.ask(ctx, others(self)))
	if self.Cluster != "" {
		return d, true, nil
	}
	if d.Verb != Found && d.Verb != Join {
		return d, false, nil
	}
	for range 10 {
		again, settled, err := o.settle(ctx, d)
		if err != nil || settled {
			return again, settled, err
		}
		if again.Verb != d.Verb || again.Cluster != d.Cluster {
			return again, false, nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return d, false, err
		}
	}
	return d, false, nil
}

// settle asks again and writes the decision down, unless somebody was told in
// between that this node has no data. That word must stay true until whoever
// got it has asked again: without this, a node could join the old cluster of a
// peer that was wiped meanwhile, and has been told by this very node that
// nobody has data.
func (o FoundingOptions) settle(ctx context.Context, d Decision) (Decision, bool, error) {
	self, said := o.Directory.look()
	whom := others(self)
	if d.Verb == Join {
		whom = []string{d.From}
	}
	again := NextFounding(self, o.ask(ctx, whom))
	if again.Verb != d.Verb || again.Cluster != d.Cluster {
		return again, false, nil
	}
	settled, err := o.Directory.settle(said, again)
	return again, settled, err
}

// ask asks peers at the same time, each bounded.
func (o FoundingOptions) ask(ctx context.Context, addresses []string) map[string]Answer {
	answers := make(map[string]Answer, len(addresses))
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, address := range addresses {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, o.Patience)
			defer cancel()
			id, err := o.Ask(ctx, address)
			slices.Sort(id.Peers)
			mu.Lock()
			defer mu.Unlock()
			answers[address] = Answer{Identity: id, Err: err}
		})
	}
	wait.Wait()
	return answers
}

// pause waits for between half and the whole of d, so that the nodes do not
// ask each other in step.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
