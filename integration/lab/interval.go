package lab

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Interval is a span of the lab's time.
type Interval struct {
	From, To time.Duration
	// What happened in it, in words.
	What string
}

// String gives it in ms.
func (i Interval) String() string {
	return fmt.Sprintf("%s at %.1f ms for %.1f ms", i.What, ms(i.From), ms(i.length()))
}

// length is never nothing: what was seen once is at least a millisecond, the
// resolution of every view.
func (i Interval) length() time.Duration { return max(i.To-i.From, time.Millisecond) }

// clip gives the parts of the intervals that lie in [from, to].
func clip(all []Interval, from, to time.Duration) []Interval {
	var out []Interval
	for _, i := range all {
		if i.To < from || i.From > to {
			continue
		}
		i.From, i.To = max(i.From, from), min(i.To, to)
		out = append(out, i)
	}
	return out
}

// total is the time that the intervals cover together.
func total(all []Interval) time.Duration {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b Interval) int { return cmp.Compare(a.From, b.From) })
	var sum, covered time.Duration
	for n, i := range sorted {
		end := i.From + i.length()
		if n == 0 || i.From > covered {
			covered = i.From
		}
		sum += max(end-covered, 0)
		covered = max(covered, end)
	}
	return sum
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
