package sim

import (
	"flag"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	seeds = flag.Int("sim.seeds", defaultSeeds, "how many seeds TestSeeds runs")
	first = flag.Uint64("sim.first", 1, "the first of them")
	story = flag.Bool("sim.trace", false, "print the whole story of the first seed, broken or not")
)

// TestSeeds runs worlds, each of one seed, and holds them against the
// invariants of LEASE.md.
func TestSeeds(t *testing.T) {
	if *story {
		res := Run(Options{Seed: *first, Trace: true})
		fmt.Println(strings.Join(res.Plan, "\n") + "\n" + strings.Join(res.Trace, "\n"))
		return
	}
	var mu sync.Mutex
	var total Stats
	ran := 0
	var work sync.WaitGroup
	next := make(chan uint64)
	enough := make(chan struct{}) // one broken seed says enough: to shorten it takes a while
	var once sync.Once
	// A world is small and makes much garbage: it is collected less often.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	begun, cpu := time.Now(), processorTime(t)
	for range 2 {
		work.Go(func() {
			for seed := range next {
				res := Run(Options{Seed: seed})
				mu.Lock()
				total.add(res.Stats)
				ran++
				mu.Unlock()
				if res.Bad != "" {
					once.Do(func() { close(enough) })
					t.Error(account(seed, res))
				}
			}
		})
	}
feed:
	for i := range uint64(*seeds) {
		select {
		case next <- *first + i:
		case <-enough:
			break feed
		}
	}
	close(next)
	work.Wait()
	took, cpu := time.Since(begun), processorTime(t)-cpu
	t.Logf("%d seeds from %d: %.1f h simulated in %.1f s, with %.1f s of processor time: %.0f times real time per core",
		ran, *first, total.Simulated.Hours(), took.Seconds(), cpu.Seconds(), total.Simulated.Seconds()/cpu.Seconds())
	t.Logf("%+v", total)
	if *seeds < 50 || t.Failed() {
		return
	}
	// A simulation in which nothing happens finds nothing.
	n := *seeds
	if total.Grants < 3*n || total.Handovers < n/2 || total.Expired < n/2 || total.Crashes < n || total.Faults < 10*n {
		t.Error("too little happens: the simulation has lost its bite")
	}
}

// processorTime is what this process has used of all cores, so that a ratio per
// core is right also on a machine that has other work.
func processorTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestQuiet: when nothing fails nothing moves, and neither when one message in
// twenty is lost.
func TestQuiet(t *testing.T) {
	for seed := range uint64(20) {
		for _, loss := range []int{0, 5} {
			res := Run(Options{Seed: 1 + seed, Quiet: 30 * time.Second, Loss: loss})
			if res.Bad != "" || res.Stats.Closed > 0 {
				t.Errorf("seed %d, loss %d: %d sessions closed; %s", 1+seed, loss, res.Stats.Closed, res.Bad)
			}
		}
	}
}

// TestSameSeedSameStory: a run is a function of its seed, to the last event.
func TestSameSeedSameStory(t *testing.T) {
	for seed := range uint64(5) {
		one, two := Run(Options{Seed: 1 + seed, Trace: true}), Run(Options{Seed: 1 + seed, Trace: true})
		if one.Stats != two.Stats || strings.Join(one.Trace, "\n") != strings.Join(two.Trace, "\n") {
			t.Errorf("seed %d: two runs, two stories", 1+seed)
		}
		if plain := Run(Options{Seed: 1 + seed}); plain.Stats != one.Stats {
			t.Errorf("seed %d: to be watched changes the story", 1+seed)
		}
	}
}

// account shows a broken run: the seed, the shortest plan that still breaks, and
// the end of its story.
func account(seed uint64, res Result) string {
	skip := shrink(seed, len(res.Plan))
	short := Run(Options{Seed: seed, Skip: skip, Trace: true})
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s\n", seed, res.Bad)
	fmt.Fprintf(&b, "with this much of its plan: %s\n%s\n", short.Bad, strings.Join(short.Plan, "\n"))
	const most = 120
	lines := short.Trace
	if len(lines) > most {
		fmt.Fprintf(&b, "(%d lines before; the whole story: go test ./cluster/sim -run=TestSeeds -sim.first=%d -sim.trace)\n", len(lines)-most, seed)
		lines = lines[len(lines)-most:]
	}
	b.WriteString(strings.Join(lines, "\n"))
	return b.String()
}

// shrink finds items of a seed's plan without which it breaks as well.
func shrink(seed uint64, items int) map[int]bool {
	skip := map[int]bool{}
	for place := range items {
		skip[place] = true
		if Run(Options{Seed: seed, Skip: skip}).Bad == "" {
			delete(skip, place)
		}
	}
	return skip
}
