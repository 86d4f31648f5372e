package lab

import "testing"

// TestImposedRulesEndByThemselves lets two cuts overlap and lifts one of them.
func TestImposedRulesEndByThemselves(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	for _, h := range l.Hosts() {
		echo(t, h)
	}
	check := func(what string, to *Host, want bool) {
		t.Helper()
		if !reaches(t, a, to, want) {
			t.Errorf("%s: a reaches %s: %v, want %v", what, to, !want, want)
		}
	}
	first, err := l.Impose(Both([]*Host{a}, []*Host{b})...)
	must(t, err)
	second, err := l.Impose(Rule{From: b, To: a, Protocol: UDP}, Rule{From: c, To: a, Percent: 100})
	must(t, err)
	check("both", b, false)
	check("both", c, false)
	must(t, second.Lift())
	check("the second lifted", b, false)
	check("the second lifted", c, true)
	must(t, first.Lift())
	must(t, first.Lift())
	check("both lifted", b, true)
	_, err = l.Impose(Rule{From: a, To: b})
	must(t, err)
	check("imposed again", b, false)
	must(t, l.Heal())
	check("healed", b, true)
}
