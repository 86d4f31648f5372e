package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

func measured(silence time.Duration) lab.Measurement {
	return lab.Measurement{Before: "a", After: "b", Silence: silence}
}

func TestResultsAreHeldAgainstTheirPromises(t *testing.T) {
	const u = time.Millisecond
	takes := bound{median: takeover, lease: true}
	for name, c := range map[string]struct {
		bound bound
		runs  []lab.Measurement
		err   error
		want  string // part of the failure; empty: passed
	}{
		"within":       {bound: takes, runs: []lab.Measurement{measured(600 * u), measured(650 * u)}},
		"median over":  {bound: takes, runs: []lab.Measurement{measured(710 * u)}, want: "median over 700"},
		"one run over": {bound: takes, runs: []lab.Measurement{measured(500 * u), measured(500 * u), measured(751 * u)}, want: "a run of 751 ms"},
		"two holders":  {bound: takes, runs: []lab.Measurement{{Figures: lab.Figures{Wire: 3 * u}}}, want: "two holders for 3 ms"},
		"data alone":   {bound: takes, runs: []lab.Measurement{{Figures: lab.Figures{Data: u}}}, want: "two holders for 1 ms"},
		"lost":         {bound: bound{lost: true}, runs: []lab.Measurement{{Lost: 2}}, want: "2 requests lost"},
		"moved":        {bound: bound{stay: true}, runs: []lab.Measurement{measured(0)}, want: "moved from a to b"},
		"late at heal": {bound: bound{heal: true}, runs: []lab.Measurement{{AfterHeal: 60 * u}}},
		"lost at heal": {bound: bound{heal: true}, runs: []lab.Measurement{{LostAfterHeal: 1}}, want: "after the heal 1 requests lost"},
		"a failed run": {bound: takes, runs: []lab.Measurement{measured(u)}, err: errors.New("x"), want: "1 of 1 runs failed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &result{Row: name, Profile: "fast", lease: 600 * u, row: row{bound: c.bound, fault: rows[0].fault}}
			for _, m := range c.runs {
				r.add(m, c.err)
			}
			got := strings.Join(r.failures(), "; ")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("failures %q, want %q", got, c.want)
			}
			if r.passed() != (c.want == "") {
				t.Errorf("passed %v with failures %q", r.passed(), got)
			}
			if line := r.line(); strings.Count(line, "|") != 11 {
				t.Errorf("a line of the table: %s", line)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	all := func(values ...float64) (s []sample) {
		for _, v := range values {
			s = append(s, sample{Silence: v})
		}
		return s
	}
	for _, c := range []struct {
		in                  []sample
		median, least, most float64
	}{
		{nil, 0, 0, 0},
		{all(5), 5, 5, 5},
		{all(9, 1), 5, 1, 9},
		{all(9, 1, 2), 2, 1, 9},
	} {
		median, least, most := spread(c.in, silenceOf)
		if median != c.median || least != c.least || most != c.most {
			t.Errorf("spread of %v: %v, %v, %v", c.in, median, least, most)
		}
	}
}
