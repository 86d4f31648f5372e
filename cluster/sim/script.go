package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

// Script is a whole world before it begins: the machines, the profile, the
// services, and what befalls them. Draw makes one of a seed; String writes it
// down and Parse reads it, so that a world outlives the code that drew it.
type Script struct {
	// Seed is for all that is not planned: how long each message takes, which is
	// lost, who is first.
	Seed uint64
	// Tries is how many seeds, from Seed on, a case file runs the same plan with;
	// 0 and 1: Seed alone.
	Tries int

	timing   timing
	machines []machine
	voters   int  // the first so many vote
	witness  bool // the last of these holds nothing
	services []state.Spec
	fencing  fencing
	items    []item
	end      ending
}

// machine is a node as the world begins.
type machine struct {
	name     string
	crystal  int64 // how wrong its clocks go, in parts of a million
	suspends bool
	read     clock.Reading // what the clocks show at first
	devices  []device
}

// ending is what stays broken when the plan is over.
type ending string

const (
	endWhole ending = "whole" // nothing
	endBury  ending = "bury"  // a minority is dead for good
	endMaim  ending = "maim"  // one node is half deaf for good
)

var endings = []ending{endWhole, endBury, endMaim}

// Items is how many things the script makes happen.
func (s Script) Items() int { return len(s.items) }

// Without is the script without one of its items.
func (s Script) Without(i int) Script {
	s.items = slices.Delete(slices.Clone(s.items), i, i+1)
	return s
}

// Simpler is the script with less of a world around its items, one step in each.
func (s Script) Simpler() []Script {
	var out []Script
	try := func(change func(*Script)) {
		c := s
		change(&c)
		out = append(out, c)
	}
	if s.end != endWhole && s.end != "" {
		try(func(c *Script) { c.end = endWhole })
	}
	if len(s.services) > 1 {
		for i := range s.services {
			try(func(c *Script) { c.services = slices.Delete(slices.Clone(s.services), i, i+1) })
		}
	}
	if s.witness {
		try(func(c *Script) { c.witness = false })
	}
	if s.fencing.on {
		try(func(c *Script) { c.fencing.on = false })
	}
	return out
}

// String writes the script; Parse reads it again.
func (s Script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "expect holds\nseed %d\n", s.Seed)
	if s.Tries > 1 {
		fmt.Fprintf(&b, "tries %d\n", s.Tries)
	}
	t := s.timing
	fmt.Fprintf(&b, "timing ttl=%s kappa=%s renew=%s election=%s beat=%s\n", t.ttl, t.kappa, t.renew, t.election, t.beat)
	for _, m := range s.machines {
		fmt.Fprintf(&b, "machine %s crystal=%d boot=%s raw=%s", m.name, m.crystal, m.read.Boot, m.read.Raw)
		if m.suspends {
			b.WriteString(" suspends=yes")
		}
		if len(m.devices) > 0 {
			fmt.Fprintf(&b, " devices=%s", joined(m.devices))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "voters %d\n", s.voters)
	if s.witness {
		b.WriteString("witness yes\n")
	}
	if s.fencing.on {
		fmt.Fprintf(&b, "fencing confirmations=%d delay=%s\n", s.fencing.confirmations, s.fencing.delay)
	}
	for _, svc := range s.services {
		fmt.Fprintf(&b, "service %s takeover=%s", svc.Name, svc.Takeover)
		if len(svc.Nodes) > 0 {
			fmt.Fprintf(&b, " nodes=%s", strings.Join(svc.Nodes, ","))
		}
		for _, n := range slices.Sorted(maps.Keys(svc.Priorities)) {
			fmt.Fprintf(&b, " priority=%s:%d", n, svc.Priorities[n])
		}
		if svc.Failback {
			b.WriteString(" failback=yes")
		}
		b.WriteByte('\n')
	}
	for _, it := range s.items {
		fmt.Fprintf(&b, "%s\n", it)
	}
	fmt.Fprintf(&b, "end %s\n", s.end)
	return b.String()
}

func joined[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, e := range list {
		words[i] = string(e)
	}
	return strings.Join(words, ",")
}

// String is the item as a line of a script.
func (it item) String() string {
	s := fmt.Sprintf("at %s %s node=%s lasts=%s arg=%d", it.at, strings.ReplaceAll(it.what, " ", "-"), names[it.node], it.lasts, it.arg)
	if it.word != "" {
		s += " service=" + it.word
	}
	if it.step != "" {
		s += " step=" + strings.ReplaceAll(strings.ReplaceAll(it.step, ",", ""), " ", "-")
	}
	return s + fmt.Sprintf(" draw=%d", it.draw)
}

// Parse reads a script. Empty lines and lines that begin with # are left out.
func Parse(text string) (Script, error) {
	s := Script{end: endWhole}
	place := 0
	for line := range strings.Lines(text) {
		place++
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := s.line(words); err != nil {
			return Script{}, fmt.Errorf("line %d: %w", place, err)
		}
	}
	return s, s.sound()
}

// sound says why such a world cannot be.
func (s Script) sound() error {
	size := len(s.machines)
	switch {
	case size < 3 || size > len(names):
		return fmt.Errorf("%d machines: a script has 3 to %d", size, len(names))
	case s.voters < 3 || s.voters > size:
		return fmt.Errorf("%d voters of %d machines", s.voters, size)
	case s.timing.ttl <= 0 || s.timing.kappa <= 0 || s.timing.renew <= 0 || s.timing.election <= 0 || s.timing.beat <= 0:
		return errors.New("the line timing is missing or not complete")
	case len(s.services) == 0:
		return errors.New("there is no service")
	case !slices.Contains(endings, s.end):
		return fmt.Errorf("end %q is none of %v", s.end, endings)
	case s.fencing.on && s.fencing.confirmations < 1:
		return errors.New("fencing needs one confirmation at least")
	}
	for i, m := range s.machines {
		if m.name != names[i] {
			return fmt.Errorf("machine %d is %s, not %s", i+1, m.name, names[i])
		}
	}
	for _, it := range s.items {
		if it.node >= size {
			return fmt.Errorf("%s: there is no such machine", it)
		}
	}
	return nil
}

// line takes one line, in words.
func (s *Script) line(words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("%q says too little", words[0])
	}
	r := reader{values: words[2:]}
	switch words[0] {
	case "expect":
		if words[1] != "holds" {
			return fmt.Errorf("expect %q: only a world that holds can be expected", words[1])
		}
	case "seed":
		s.Seed = r.number(words[1])
	case "tries":
		s.Tries = int(r.number(words[1]))
	case "voters":
		s.voters = int(r.number(words[1]))
	case "witness":
		s.witness = words[1] == "yes"
	case "end":
		s.end = ending(words[1])
	case "timing":
		r.values = words[1:]
		s.timing = timing{ttl: r.time("ttl"), kappa: r.time("kappa"), renew: r.time("renew"), election: r.time("election"), beat: r.time("beat")}
	case "fencing":
		r.values = words[1:]
		s.fencing = fencing{on: true, confirmations: int(r.number(r.get("confirmations"))), delay: r.time("delay")}
	case "machine":
		s.machines = append(s.machines, r.machine(words[1]))
	case "service":
		s.services = append(s.services, r.service(words[1]))
	case "at":
		r.values = words[2:]
		s.items = append(s.items, r.item(words[1]))
	default:
		return fmt.Errorf("%q begins no line of a script", words[0])
	}
	return r.done()
}

// reader takes key=value words of a line, and keeps the first that is wrong.
type reader struct {
	values []string
	err    error
}

// all takes every value of a key.
func (r *reader) all(key string) []string {
	var out, rest []string
	for _, v := range r.values {
		if k, value, ok := strings.Cut(v, "="); ok && k == key {
			out = append(out, value)
		} else {
			rest = append(rest, v)
		}
	}
	r.values = rest
	return out
}

func (r *reader) get(key string) string {
	if list := r.all(key); len(list) > 0 {
		return list[0]
	}
	return ""
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) number(word string) uint64 {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("%q is no number", word))
	}
	return n
}

func (r *reader) duration(word string) time.Duration {
	d, err := time.ParseDuration(word)
	if err != nil {
		r.fail(fmt.Errorf("%q is no time", word))
	}
	return d
}

func (r *reader) time(key string) time.Duration { return r.duration(r.get(key)) }

func (r *reader) machine(name string) machine {
	m := machine{name: name, read: clock.Reading{Boot: r.time("boot"), Raw: r.time("raw")}, suspends: r.get("suspends") == "yes"}
	crystal, err := strconv.ParseInt(r.get("crystal"), 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("machine %s: its crystal is no number", name))
	}
	m.crystal = crystal
	if list := r.get("devices"); list != "" {
		for word := range strings.SplitSeq(list, ",") {
			d := device(word)
			if !slices.Contains(devices, d) {
				r.fail(fmt.Errorf("device %q is none of %v", word, devices))
			}
			m.devices = append(m.devices, d)
		}
	}
	return m
}

func (r *reader) service(name string) state.Spec {
	s := state.Spec{Name: name, Takeover: state.Takeover(r.get("takeover")), Failback: r.get("failback") == "yes"}
	if !slices.Contains(services, name) {
		r.fail(fmt.Errorf("service %q is none of %v", name, services))
	}
	if list := r.get("nodes"); list != "" {
		s.Nodes = strings.Split(list, ",")
	}
	for _, p := range r.all("priority") {
		node, n, _ := strings.Cut(p, ":")
		if s.Priorities == nil {
			s.Priorities = map[string]int{}
		}
		s.Priorities[node] = int(r.number(n))
	}
	return s
}

func (r *reader) item(at string) item {
	it := item{at: r.duration(at)}
	if len(r.values) == 0 {
		r.fail(errors.New("nothing happens then"))
		return it
	}
	it.what = strings.ReplaceAll(r.values[0], "-", " ")
	if _, ok := actions[it.what]; !ok {
		r.fail(fmt.Errorf("%q is nothing that can happen", r.values[0]))
	}
	r.values = r.values[1:]
	it.node = slices.Index(names, r.get("node"))
	if it.node < 0 {
		r.fail(errors.New("node= names none"))
	}
	it.lasts = r.time("lasts")
	it.arg = int(r.number(r.get("arg")))
	it.draw = r.number(r.get("draw"))
	if it.word = r.get("service"); it.word != "" && !slices.Contains(services, it.word) {
		r.fail(fmt.Errorf("service %q is none of %v", it.word, services))
	}
	if word := r.get("step"); word != "" {
		i := slices.IndexFunc(steps, func(s string) bool {
			return strings.ReplaceAll(strings.ReplaceAll(s, ",", ""), " ", "-") == word
		})
		if i < 0 {
			r.fail(fmt.Errorf("step %q is none at which a daemon can die", word))
			return it
		}
		it.step = steps[i]
	}
	return it
}

// done is the first thing that was wrong with the line.
func (r *reader) done() error {
	if r.err == nil && len(r.values) > 0 {
		return fmt.Errorf("%q means nothing here", r.values[0])
	}
	return r.err
}
