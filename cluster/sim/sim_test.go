package sim

import (
	"flag"
	"fmt"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
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
		s := Draw(*first)
		fmt.Println(s.String() + "\n" + strings.Join(Run(s, true).Trace, "\n"))
		return
	}
	var mu sync.Mutex
	var total Stats
	seen := map[string]int{}
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
				res := Run(Draw(seed), false)
				mu.Lock()
				total.add(res.Stats)
				for name, n := range res.Seen {
					seen[name] += n
				}
				ran++
				mu.Unlock()
				if res.Bad != "" {
					once.Do(func() { close(enough) })
					t.Error(account(Draw(seed), res))
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
	t.Log(strings.Join(table(seen), "\n"))
	if *seeds < 50 || t.Failed() {
		return
	}
	// A simulation in which nothing happens finds nothing.
	n := *seeds
	if total.Grants < 3*n || total.Handovers < n/2 || total.Expired < n/2 || total.Crashes < n || total.Faults < 10*n {
		t.Error("too little happens: the simulation has lost its bite")
	}
	if n < manySeeds {
		return
	}
	for _, name := range slices.Compact(Everything()) {
		if seen[name] == 0 {
			t.Errorf("%q never happened in %d seeds: the simulation has lost its bite", name, n)
		}
	}
}

// manySeeds is how many seeds must have all of Everything among them.
const manySeeds = 20000

func table(seen map[string]int) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		out = append(out, fmt.Sprintf("%9d %s", seen[name], name))
	}
	return out
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
			res := Run(Quiet(1+seed, 30*time.Second, loss), false)
			if res.Bad != "" || res.Stats.Closed > 0 {
				t.Errorf("seed %d, loss %d: %d sessions closed; %s", 1+seed, loss, res.Stats.Closed, res.Bad)
			}
		}
	}
}

// TestSameSeedSameStory: a run is a function of its script, to the last event.
func TestSameSeedSameStory(t *testing.T) {
	for seed := range uint64(5) {
		one, two := Run(Draw(1+seed), true), Run(Draw(1+seed), true)
		if !reflect.DeepEqual(one, two) {
			t.Errorf("seed %d: two runs, two stories", 1+seed)
		}
		if plain := Run(Draw(1+seed), false); plain.Stats != one.Stats || !maps.Equal(plain.Seen, one.Seen) {
			t.Errorf("seed %d: to be watched changes the story", 1+seed)
		}
	}
}

// account shows a broken run: the shortest script that still breaks, as a case
// file, and the end of its story.
func account(s Script, res Result) string {
	short := shrink(s, res.Bad)
	again := Run(short, true)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s\n", s.Seed, res.Bad)
	fmt.Fprintf(&b, "It breaks as well with less: %s\nPut this in cluster/sim/testdata/NAME.sim (go test ./cluster/sim -run=TestCases/NAME):\n", again.Bad)
	fmt.Fprintf(&b, "---\n# %s\n%s---\n", again.Bad, short)
	const most = 120
	lines := again.Trace
	if len(lines) > most {
		fmt.Fprintf(&b, "(%d lines before; the whole story of the seed: go test ./cluster/sim -run=TestSeeds -sim.first=%d -sim.trace)\n", len(lines)-most, s.Seed)
		lines = lines[len(lines)-most:]
	}
	b.WriteString(strings.Join(lines, "\n"))
	return b.String()
}

// shrink leaves out what a script breaks without as well, in the same way, until
// nothing more can go.
func shrink(s Script, bad string) Script {
	broken := func(c Script) bool { return rule(Run(c, false).Bad) == rule(bad) }
	for smaller := true; smaller; {
		smaller = false
		for i := s.Items() - 1; i >= 0; i-- {
			if c := s.Without(i); broken(c) {
				s, smaller = c, true
			}
		}
		for _, c := range s.Simpler() {
			if broken(c) {
				s, smaller = c, true
				break
			}
		}
	}
	return s
}

// rule is the rule that a failure names, such as I1, without when and how.
func rule(bad string) string {
	_, what, _ := strings.Cut(bad, " s: ")
	name, _, _ := strings.Cut(what, ": ")
	return name
}
