package lab

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Watch starts the address view and the wire view for one address. They go on
// until the lab's end.
func (l *Lab) Watch(vip netip.Addr) error {
	if !vip.Is4() || !network.Contains(vip) {
		return fmt.Errorf("watch %s: must be an address of %s", vip, network)
	}
	l.mu.Lock()
	taken := l.address != nil
	l.mu.Unlock()
	if taken {
		return errors.New("watch: one address is watched already")
	}
	wire, err := newWireView(l, vip)
	if err != nil {
		return err
	}
	l.onClose(func() error { wire.stop(); return nil })
	address, err := newAddressView(l, vip)
	if err != nil {
		return err
	}
	l.onClose(func() error { address.stop(); return nil })
	l.mu.Lock()
	l.address, l.wire = address, wire
	l.mu.Unlock()
	for _, h := range l.Hosts() {
		if err := l.include(h); err != nil {
			return err
		}
	}
	return nil
}

// include makes the views look at the host.
func (l *Lab) include(h *Host) error {
	l.mu.Lock()
	address, wire := l.address, l.wire
	l.mu.Unlock()
	if address == nil || h == wire.observer {
		return nil
	}
	wire.learn(h)
	return h.watch(address)
}

// WatchData makes the data view read what the services wrote into the
// directory that they share (package integration/pet).
func (l *Lab) WatchData(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = append(l.data, dir)
}

// Figures is how long two hosts held the service, as each view saw it.
type Figures struct {
	Address time.Duration // two kernels had the address, gate open
	Wire    time.Duration // two hardware addresses, or two nodes, answered
	Data    time.Duration // an older epoch was served beside or after a newer
	// Seen are the single observations.
	Seen []Interval
}

// None reports whether nobody ever saw two holders.
func (f Figures) None() bool { return f.Address == 0 && f.Wire == 0 && f.Data == 0 }

// String gives the three figures in ms, and what was seen.
func (f Figures) String() string {
	s := fmt.Sprintf("two holders: address %.0f ms, wire %.0f ms, data %.0f ms", ms(f.Address), ms(f.Wire), ms(f.Data))
	for _, i := range f.Seen {
		s += "\n  " + i.String()
	}
	return s
}

// Judge gives the figures of [from, to]. Of the data view, what clients learned
// before counts too: an epoch never comes back.
func (l *Lab) Judge(from, to time.Duration) (Figures, error) {
	l.mu.Lock()
	address, wire, askings, dirs := l.address, l.wire, slices.Clone(l.askings), slices.Clone(l.data)
	l.mu.Unlock()
	var f Figures
	if address != nil {
		address.mu.Lock()
		seen := clip(address.doubles, from, to)
		address.mu.Unlock()
		f.Address, f.Seen = total(seen), append(f.Seen, seen...)
	}
	var wireSeen []Interval
	if wire != nil {
		wire.mu.Lock()
		wireSeen = clip(wire.doubles, from, to)
		failed := wire.failed
		wire.mu.Unlock()
		if failed != nil {
			return f, failed
		}
	}
	var answers []Request
	for _, a := range askings {
		mine := answered(a.Requests(0, to))
		wireSeen = append(wireSeen, clip(mixed(mine), from, to)...)
		answers = append(answers, mine...)
	}
	f.Wire, f.Seen = total(wireSeen), append(f.Seen, wireSeen...)
	data := append(olderAfterNewer(answers), sharedEpochs(answers)...)
	for _, dir := range dirs {
		told, err := l.violations(dir)
		if err != nil {
			return f, err
		}
		data = append(data, told...)
	}
	data = clip(data, from, to)
	f.Data, f.Seen = total(data), append(f.Seen, data...)
	return f, nil
}

func answered(all []Request) []Request {
	return slices.DeleteFunc(all, func(r Request) bool { return r.Outcome != Answered })
}

// mixedWithin is how close together two answers of one node must be for another
// node's between them to mean two holders. A service needs longer to move away
// and back.
const mixedWithin = 50 * time.Millisecond

// mixed finds where another node answered between two answers of one node, by
// one client, none overlapping the other.
func mixed(answers []Request) []Interval {
	answers = slices.Clone(answers)
	slices.SortFunc(answers, func(a, b Request) int { return cmp.Compare(a.Got, b.Got) })
	var out []Interval
	latest := map[string]Request{}
	for i, r := range answers {
		before, known := latest[r.Node]
		latest[r.Node] = r
		if i == 0 || !known || answers[i-1].Node == r.Node || r.Got-before.Got > mixedWithin {
			continue
		}
		for j := i - 1; j >= 0 && answers[j].Got > before.Got; j-- {
			if other := answers[j]; other.Node != r.Node && other.Sent > before.Got && other.Got < r.Sent {
				out = join(out, Interval{From: other.Sent, To: r.Got, What: "answers mixed of " + pair(other.Node, r.Node)})
				break
			}
		}
	}
	return out
}

// olderAfterNewer finds answers under an older epoch to requests that were sent
// after an answer under a newer one had come.
func olderAfterNewer(answers []Request) []Interval {
	bySending := slices.Clone(answers)
	slices.SortFunc(bySending, func(a, b Request) int { return cmp.Compare(a.Sent, b.Sent) })
	byAnswer := slices.Clone(answers)
	slices.SortFunc(byAnswer, func(a, b Request) int { return cmp.Compare(a.Got, b.Got) })
	var out []Interval
	var newest Request
	i := 0
	for _, r := range bySending {
		for ; i < len(byAnswer) && byAnswer[i].Got < r.Sent; i++ {
			if byAnswer[i].Epoch > newest.Epoch {
				newest = byAnswer[i]
			}
		}
		if r.Epoch != 0 && r.Epoch < newest.Epoch {
			out = join(out, Interval{From: newest.Got, To: r.Got, What: fmt.Sprintf(
				"%s answered under epoch %d after %s under %d", r.Node, r.Epoch, newest.Node, newest.Epoch)})
		}
	}
	return out
}

// sharedEpochs finds epochs under which two nodes answered.
func sharedEpochs(answers []Request) []Interval {
	type span struct {
		node     string
		from, to time.Duration
	}
	spans := map[uint64][]span{}
	for _, r := range answers {
		if r.Epoch == 0 {
			continue
		}
		of := spans[r.Epoch]
		i := slices.IndexFunc(of, func(s span) bool { return s.node == r.Node })
		if i < 0 {
			spans[r.Epoch] = append(of, span{r.Node, r.Got, r.Got})
			continue
		}
		of[i].from, of[i].to = min(of[i].from, r.Got), max(of[i].to, r.Got)
	}
	var out []Interval
	for epoch, of := range spans {
		for i, one := range of {
			for _, other := range of[:i] {
				from, to := max(one.from, other.from), min(one.to, other.to)
				out = append(out, Interval{From: from, To: max(from, to), What: fmt.Sprintf(
					"epoch %d served by %s", epoch, pair(one.node, other.node))})
			}
		}
	}
	return out
}

// join appends next, or lengthens the last when it speaks of the same.
func join(all []Interval, next Interval) []Interval {
	if n := len(all); n > 0 && all[n-1].What == next.What && next.From <= all[n-1].To+mixedWithin {
		all[n-1].To = max(all[n-1].To, next.To)
		return all
	}
	return append(all, next)
}

func pair(a, b string) string {
	if b < a {
		a, b = b, a
	}
	return a + " and " + b
}

// violation is a line that a service writes when it finds that it is not alone.
type violation struct {
	At    int64  `json:"at"`    // CLOCK_MONOTONIC in ns
	Since int64  `json:"since"` // when the newer one began
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Other string `json:"other"`
	Newer uint64 `json:"newer"`
}

// violations reads what the services of a directory found.
func (l *Lab) violations(dir string) ([]Interval, error) {
	f, err := os.Open(filepath.Join(dir, "violations"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read violations: %w", err)
	}
	defer f.Close()
	var out []Interval
	s := bufio.NewScanner(f)
	for s.Scan() {
		var v violation
		if strings.TrimSpace(s.Text()) == "" {
			continue
		}
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			continue // cut off by a power failure: the lines before it stand
		}
		out = join(out, Interval{From: l.at(v.Since), To: l.at(v.At), What: fmt.Sprintf(
			"%s still ran under epoch %d beside %s under %d", v.Node, v.Epoch, v.Other, v.Newer)})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read violations: %w", err)
	}
	return out, nil
}

// Holders gives the hosts whose kernel has the watched address now.
func (l *Lab) Holders() []string {
	l.mu.Lock()
	address := l.address
	l.mu.Unlock()
	if address == nil {
		return nil
	}
	return address.holders()
}

// AddressEvents gives who got and lost the watched address in [from, to].
func (l *Lab) AddressEvents(from, to time.Duration) []AddressEvent {
	l.mu.Lock()
	address := l.address
	l.mu.Unlock()
	if address == nil {
		return nil
	}
	address.mu.Lock()
	defer address.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(address.events), func(e AddressEvent) bool { return e.At < from || e.At > to })
}

// WireAnswers gives who answered for the watched address on the wire in [from, to].
func (l *Lab) WireAnswers(from, to time.Duration) []Interval {
	l.mu.Lock()
	wire := l.wire
	l.mu.Unlock()
	if wire == nil {
		return nil
	}
	wire.mu.Lock()
	defer wire.mu.Unlock()
	return clip(wire.answered, from, to)
}
