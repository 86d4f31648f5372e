package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// fault is one thing that goes wrong.
type fault struct {
	kind   string
	arg    int     // what the kind makes of it; 0: nothing
	target string  // holder, leader, other, or #n: the n-th host, counted from 0
	leases float64 // how long, in leases; 0 for what happens at an instant
}

// item is one line of a schedule: after a gap, counted from the start of the
// item before, a fault begins, or two at once; or all faults end and the
// cluster must be whole again.
type item struct {
	gap    float64 // in leases
	faults []fault
	settle bool
}

// The words for a target.
const (
	targetHolder = "holder"
	targetLeader = "leader"
	targetOther  = "other"
	settleWord   = "settle"
)

// String writes the fault as a schedule has it.
func (f fault) String() string {
	name := f.kind
	if f.arg != 0 {
		name += ":" + strconv.Itoa(f.arg)
	}
	return fmt.Sprintf("%s %s %.2f", name, f.target, f.leases)
}

// String writes the item as a schedule has it.
func (i item) String() string {
	if i.settle {
		return settleWord
	}
	var parts []string
	for _, f := range i.faults {
		parts = append(parts, f.String())
	}
	return fmt.Sprintf("+%.2f %s", i.gap, strings.Join(parts, " & "))
}

// parseSchedule reads a schedule: an item a line, # begins a comment at the
// start of a line.
func parseSchedule(r io.Reader) ([]item, error) {
	var out []item
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		i, err := parseItem(line)
		if err != nil {
			return nil, fmt.Errorf("line %d of the schedule: %w", n, err)
		}
		out = append(out, i)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read schedule: %w", err)
	}
	return out, nil
}

func parseItem(line string) (item, error) {
	if line == settleWord {
		return item{settle: true}, nil
	}
	first, rest, _ := strings.Cut(line, " ")
	gap, err := strconv.ParseFloat(strings.TrimPrefix(first, "+"), 64)
	if err != nil || !strings.HasPrefix(first, "+") || gap < 0 {
		return item{}, fmt.Errorf("%q: begin with the gap in leases, for example +0.50, or write settle", line)
	}
	i := item{gap: gap}
	for part := range strings.SplitSeq(rest, "&") {
		f, err := parseFault(part)
		if err != nil {
			return item{}, err
		}
		i.faults = append(i.faults, f)
	}
	return i, nil
}

func parseFault(text string) (fault, error) {
	words := strings.Fields(text)
	if len(words) != 3 {
		return fault{}, fmt.Errorf("%q: a fault is a kind, a target and a length in leases", strings.TrimSpace(text))
	}
	f := fault{target: words[1]}
	name, arg, has := strings.Cut(words[0], ":")
	f.kind = name
	var err error
	if has {
		if f.arg, err = strconv.Atoi(arg); err != nil {
			return f, fmt.Errorf("%q: what follows the colon must be a number", words[0])
		}
	}
	if kindOf(name) == nil {
		return f, fmt.Errorf("there is no kind of fault %q", name)
	}
	if f.leases, err = strconv.ParseFloat(words[2], 64); err != nil || f.leases < 0 {
		return f, fmt.Errorf("%q: a length is a number of leases", words[2])
	}
	switch f.target {
	case targetHolder, targetLeader, targetOther:
		return f, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(f.target, "#"))
	if err != nil || n < 0 || !strings.HasPrefix(f.target, "#") {
		return f, fmt.Errorf("%q: a target is holder, leader, other, or #0 and so on", f.target)
	}
	return f, nil
}
