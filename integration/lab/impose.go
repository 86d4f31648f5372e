package lab

import "slices"

// Rule is one thing that the network does to frames from one host to another.
type Rule struct {
	From, To *Host
	Percent  int    // of the frames that are dropped; 0 counts as 100: all of them
	Protocol byte   // TCP, UDP, or 0 for every frame
	Port     uint16 // destination port of Protocol; 0: every port
}

// Both gives the rules for both ways between each of some hosts and each of others.
func Both(some, others []*Host) []Rule {
	var rules []Rule
	for _, a := range some {
		for _, b := range others {
			rules = append(rules, Rule{From: a, To: b}, Rule{From: b, To: a})
		}
	}
	return rules
}

// Imposed is a set of rules that can be lifted by itself, while others stay.
type Imposed struct{ lab *Lab }

// Impose adds the rules to whatever the network suffers already. Heal ends
// them too.
func (l *Lab) Impose(rules ...Rule) (*Imposed, error) {
	i := &Imposed{lab: l}
	err := l.change(func(f *faults) {
		for _, r := range rules {
			c := cut{from: r.From.name, to: r.To.name, percent: uint32(r.Percent), protocol: r.Protocol, port: r.Port, by: i}
			if r.Percent <= 0 {
				c.percent = 100
			}
			f.cuts = append(f.cuts, c)
		}
	})
	return i, err
}

// Lift ends the rules. It can be called twice.
func (i *Imposed) Lift() error {
	return i.lab.change(func(f *faults) {
		f.cuts = slices.DeleteFunc(f.cuts, func(c cut) bool { return c.by == i })
	})
}
