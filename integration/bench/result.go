package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// result is what the runs of one row and profile gave.
type result struct {
	Row     string   `json:"row"`
	Profile string   `json:"profile"`
	Runs    []sample `json:"runs"`
	row     row
	lease   time.Duration
}

// sample is one run; times are in ms.
type sample struct {
	Before    string   `json:"before"`
	After     string   `json:"after"`
	Silence   float64  `json:"silence_ms"`
	AfterHeal float64  `json:"silence_after_heal_ms,omitempty"`
	Lost      int      `json:"lost"`
	LostHeal  int      `json:"lost_after_heal,omitempty"`
	Address   float64  `json:"two_address_ms"`
	Wire      float64  `json:"two_wire_ms"`
	Data      float64  `json:"two_data_ms"`
	Seen      []string `json:"seen,omitempty"`
	Stall     float64  `json:"client_stall_ms"`
	Noise     float64  `json:"machine_noise_ms"`
	Kappa     float64  `json:"kappa_ms"`
	Error     string   `json:"error,omitempty"`
}

func (r *result) add(m lab.Measurement, err error) {
	s := sample{
		Before: m.Before, After: m.After, Silence: ms(m.Silence), AfterHeal: ms(m.AfterHeal),
		Lost: m.Lost, LostHeal: m.LostAfterHeal,
		Address: ms(m.Figures.Address), Wire: ms(m.Figures.Wire), Data: ms(m.Figures.Data),
		Stall: ms(m.Stall), Noise: ms(m.Noise), Kappa: ms(m.Status.Kappa(lab.Service)),
	}
	for _, i := range m.Figures.Seen {
		s.Seen = append(s.Seen, i.String())
	}
	if err != nil {
		s.Error = err.Error()
	}
	r.Runs = append(r.Runs, s)
}

// good are the runs that came to their end.
func (r *result) good() []sample {
	return slices.DeleteFunc(slices.Clone(r.Runs), func(s sample) bool { return s.Error != "" })
}

// spread gives the median, the least and the most of a figure.
func spread(all []sample, of func(sample) float64) (median, least, most float64) {
	if len(all) == 0 {
		return 0, 0, 0
	}
	var values []float64
	for _, s := range all {
		values = append(values, of(s))
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]
}

func silenceOf(s sample) float64 { return s.Silence }

// two is the longest time of two holders that any view saw in any run.
func (r *result) two() float64 {
	most := 0.0
	for _, s := range r.Runs {
		most = max(most, s.Address, s.Wire, s.Data)
	}
	return most
}

// failures says which promises were not kept; empty: all were.
func (r *result) failures() []string {
	var bad []string
	if failed := len(r.Runs) - len(r.good()); failed > 0 {
		bad = append(bad, fmt.Sprintf("%d of %d runs failed", failed, len(r.Runs)))
	}
	if two := r.two(); two > 0 {
		bad = append(bad, fmt.Sprintf("two holders for %.0f ms", two))
	}
	b := r.row.bound
	if b.median != nil && len(r.good()) > 0 {
		median, _, _ := spread(r.good(), silenceOf)
		if limit := ms(b.median(r.Profile)); median > limit {
			bad = append(bad, fmt.Sprintf("median over %.0f ms", limit))
		}
	}
	for _, s := range r.good() {
		if limit := ms(r.lease) + s.Kappa + 100; b.lease && s.Silence > limit {
			bad = append(bad, fmt.Sprintf("a run of %.0f ms over lease + κ + 100 ms = %.0f ms", s.Silence, limit))
		}
		if b.lost && s.Lost > 0 {
			bad = append(bad, fmt.Sprintf("%d requests lost", s.Lost))
		}
		// A silence in which nothing is lost is a busy machine's, not an outage:
		// no lost frame is made up for within the client's patience.
		if b.heal && s.LostHeal > 0 {
			bad = append(bad, fmt.Sprintf("after the heal %d requests lost", s.LostHeal))
		}
		if b.stay && s.After != s.Before {
			bad = append(bad, fmt.Sprintf("moved from %s to %s", s.Before, s.After))
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

// passed reports whether all promises were kept; a peer has made none.
func (r *result) passed() bool { return r.row.fault == nil || len(r.failures()) == 0 }

// promise puts the row's bound in words.
func (r *result) promise() string {
	var parts []string
	b := r.row.bound
	if b.median != nil {
		parts = append(parts, fmt.Sprintf("≤ %.0f ms median", ms(b.median(r.Profile))))
	}
	if b.lease {
		parts = append(parts, "no run over lease + κ + 100 ms")
	}
	if b.heal {
		parts = append(parts, "none after the heal")
	}
	if b.lost {
		parts = append(parts, "0 lost")
	}
	if b.stay {
		parts = append(parts, "no failover")
	}
	return strings.Join(parts, ", ")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
