package lease

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/failoverd/failoverd/cluster/clock"
)

const ms = time.Millisecond

func at(d time.Duration) clock.Reading { return clock.Reading{Boot: d, Raw: d + time.Hour} }

func TestConfigurationIDIsOfTheNames(t *testing.T) {
	a := NewConfiguration([]string{"c", "a", "b", "a"})
	if b := NewConfiguration([]string{"a", "b", "c"}); a.ID != b.ID || len(a.Voters) != 3 {
		t.Errorf("%v and %v differ", a, b)
	}
	seen := map[uint64][]string{}
	for _, voters := range [][]string{
		nil, {""}, {"a"}, {"b"}, {"a", "b"}, {"ab"}, {"a", "b", "c"}, {"a", "b", "d"}, {"a", "bc"}, {"ab", "c"},
		{"a", "b", "c", "d"}, {"a", "b", "c", "d", "e"}, {"a\x00b"}, {"a", "b", "e"}, {"a", "c", "d"},
	} {
		c := NewConfiguration(voters)
		if other, dup := seen[c.ID]; dup {
			t.Errorf("%q and %q have the same ID", voters, other)
		}
		seen[c.ID] = voters
	}
	for n, want := range []int{1, 1, 2, 2, 3, 3} {
		if got := NewConfiguration([]string{"a", "b", "c", "d", "e"}[:n]).Majority(); got != want {
			t.Errorf("majority of %d is %d, want %d", n, got, want)
		}
	}
}

func TestHolder(t *testing.T) {
	three := NewConfiguration([]string{"a", "b", "c"})
	five := NewConfiguration([]string{"a", "b", "c", "d", "e"})
	const session, nonce = 7, 99
	type ok struct {
		voter               string
		session, nonce, seq uint64
		now                 time.Duration
		extends             bool
	}
	for _, c := range []struct {
		name  string
		begin []Configuration // one each 100 ms from 0
		oks   []ok
		until time.Duration // 0: none
	}{
		{"one answer is no majority", []Configuration{three}, []ok{{"a", session, nonce, 1, 1 * ms, false}}, 0},
		{"two of three, counted from the sending", []Configuration{three},
			[]ok{{"a", session, nonce, 1, 50 * ms, false}, {"c", session, nonce, 1, 90 * ms, true}}, 1000 * ms},
		{"one voter twice", []Configuration{three},
			[]ok{{"a", session, nonce, 1, 1 * ms, false}, {"a", session, nonce, 1, 2 * ms, false}}, 0},
		{"the third changes nothing", []Configuration{three},
			[]ok{{"a", session, nonce, 1, 1 * ms, false}, {"b", session, nonce, 1, 2 * ms, true}, {"c", session, nonce, 1, 3 * ms, false}}, 1000 * ms},
		{"answers to two requests", []Configuration{three, three},
			[]ok{{"a", session, nonce, 1, 101 * ms, false}, {"b", session, nonce, 2, 102 * ms, false}}, 0},
		{"the older request later", []Configuration{three, three}, []ok{
			{"a", session, nonce, 2, 101 * ms, false}, {"b", session, nonce, 2, 102 * ms, true},
			{"a", session, nonce, 1, 103 * ms, false}, {"b", session, nonce, 1, 104 * ms, false}}, 1100 * ms},
		{"another session", []Configuration{three},
			[]ok{{"a", session, nonce, 1, 1 * ms, false}, {"b", session + 1, nonce, 1, 2 * ms, false}}, 0},
		{"another start", []Configuration{three},
			[]ok{{"a", session, nonce, 1, 1 * ms, false}, {"b", session, nonce + 1, 1, 2 * ms, false}}, 0},
		{"a request never made", []Configuration{three},
			[]ok{{"a", session, nonce, 2, 1 * ms, false}, {"b", session, nonce, 2, 2 * ms, false}, {"c", session, nonce, 0, 2 * ms, false}}, 0},
		{"no voter", []Configuration{three},
			[]ok{{"a", session, nonce, 1, 1 * ms, false}, {"d", session, nonce, 1, 2 * ms, false}, {"", session, nonce, 1, 2 * ms, false}}, 0},
		{"the request's own configuration counts", []Configuration{five, three}, []ok{
			{"a", session, nonce, 1, 1 * ms, false}, {"b", session, nonce, 1, 2 * ms, false},
			{"c", session, nonce, 1, 120 * ms, true}}, 1000 * ms},
		{"two of five are none", []Configuration{five},
			[]ok{{"a", session, nonce, 1, 1 * ms, false}, {"b", session, nonce, 1, 2 * ms, false}}, 0},
		{"too late to help", []Configuration{three},
			[]ok{{"a", session, nonce, 1, 999 * ms, false}, {"b", session, nonce, 1, 1000 * ms, false}}, 1000 * ms},
		{"no voters at all", []Configuration{{}}, []ok{{"a", session, nonce, 1, 1 * ms, false}}, 0},
	} {
		h := NewHolder(session, time.Second, nonce)
		for i, conf := range c.begin {
			if seq := h.Begin(at(time.Duration(i)*100*ms), conf); seq != uint64(i+1) {
				t.Fatalf("%s: request %d has number %d", c.name, i+1, seq)
			}
		}
		for i, o := range c.oks {
			if got := h.OK(o.voter, o.session, o.nonce, o.seq, at(o.now)); got != o.extends {
				t.Errorf("%s: answer %d extends: %v", c.name, i, got)
			}
		}
		until, held := h.Until()
		if held != (c.until != 0) || held && until != at(c.until) {
			t.Errorf("%s: until %v, %v; want %v", c.name, until, held, c.until)
		}
	}
}

func TestHolderIsOverWhenEitherClockSaysSo(t *testing.T) {
	three := NewConfiguration([]string{"a", "b", "c"})
	h := NewHolder(1, time.Second, 1)
	if h.Left(at(0)) > 0 {
		t.Error("a lease that was never granted has time left")
	}
	seq := h.Begin(at(0), three)
	h.OK("a", 1, 1, seq, at(0))
	h.OK("b", 1, 1, seq, at(0))
	for _, c := range []struct{ boot, raw, left time.Duration }{
		{0, 0, time.Second},
		{900 * ms, 100 * ms, 100 * ms},
		{100 * ms, 900 * ms, 100 * ms},
		{1000 * ms, 100 * ms, 0},
		{100 * ms, 1000 * ms, 0},
		{100 * ms, 3000 * ms, -2 * time.Second},
	} {
		now := at(0)
		now.Boot, now.Raw = now.Boot+c.boot, now.Raw+c.raw
		if got := h.Left(now); got != c.left {
			t.Errorf("%v: left %v, want %v", c, got, c.left)
		}
	}
}

func TestHolderForgetsOldRequests(t *testing.T) {
	three := NewConfiguration([]string{"a", "b", "c"})
	h := NewHolder(1, time.Hour, 1)
	first := h.Begin(at(0), three)
	h.OK("a", 1, 1, first, at(0))
	for i := 1; i <= rounds; i++ {
		h.Begin(at(time.Duration(i)), three)
	}
	if h.OK("b", 1, 1, first, at(0)) {
		t.Error("a forgotten request was counted")
	}
	// The request that took its place has not inherited the answer.
	if h.OK("b", 1, 1, first+rounds, at(0)) {
		t.Error("an answer to an old request counts for a new one")
	}
	if !h.Answered("b", 1) || h.Answered("a", rounds) || h.Answered("c", rounds) {
		t.Error("Answered does not tell who did")
	}
	if n := testing.AllocsPerRun(100, func() {
		s := h.Begin(at(0), three)
		h.OK("a", 1, 1, s, at(0))
		h.OK("b", 1, 1, s, at(0))
	}); n != 0 {
		t.Errorf("%v allocations per renewal", n)
	}
}

// Two holders of one session and nonce, as when renewals were dropped and begun
// again: an answer to the first one's request says nothing of the second one's.
func TestHoldersDoNotShareNumbers(t *testing.T) {
	three := NewConfiguration([]string{"a", "b", "c"})
	old := NewHolder(1, time.Second, 1)
	seq := old.Begin(at(0), three)
	h := NewHolder(1, time.Second, 1)
	h.After(old.Seq())
	h.Begin(at(5*time.Second), three)
	h.OK("a", 1, 1, seq, at(5*time.Second))
	if h.OK("b", 1, 1, seq, at(5*time.Second)) || h.Left(at(5*time.Second)) > 0 {
		t.Error("an answer to an old holder's request gave a new one a lease")
	}
}

func TestWait(t *testing.T) {
	for _, c := range []struct{ ttl, kappa, want time.Duration }{
		{0, 0, 0},
		{999 * ms, 0, 1001 * ms},
		{999 * time.Second, 50 * ms, 1001*time.Second + 50*ms + 50*time.Microsecond},
		{1, 0, 2}, {1, 1, 4},
		{2 * time.Second, 50 * ms, 2004004005 + 50050000},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64},
		{-1, -1, 0},
	} {
		if got := Wait(c.ttl, c.kappa); got != c.want {
			t.Errorf("Wait(%v, %v) = %d, want %d", c.ttl, c.kappa, got, c.want)
		}
	}
}

// The formula by exact fractions, as a second route.
func TestWaitIsTheFormulaRoundedUp(t *testing.T) {
	rho := new(big.Rat).SetFloat64(Rho)
	rho.SetFrac64(1, 1000)
	if f, _ := rho.Float64(); f != Rho {
		t.Fatalf("Rho = %v", Rho)
	}
	one := big.NewRat(1, 1)
	up, down := new(big.Rat).Add(one, rho), new(big.Rat).Sub(one, rho)
	rapid.Check(t, func(t *rapid.T) {
		ttl := rapid.Int64Range(0, math.MaxInt64/4).Draw(t, "ttl")
		kappa := rapid.Int64Range(0, math.MaxInt64/4).Draw(t, "kappa")
		h, k := new(big.Rat).SetInt64(ttl), new(big.Rat).SetInt64(kappa)
		page := new(big.Rat).Quo(new(big.Rat).Mul(h, up), down)
		exact := new(big.Rat).Add(page, new(big.Rat).Mul(k, up))
		page.Add(page, k)
		got := new(big.Rat).SetInt64(int64(Wait(time.Duration(ttl), time.Duration(kappa))))
		if got.Cmp(exact) < 0 || got.Cmp(page) < 0 {
			t.Fatalf("Wait = %v is less than %v", got, exact)
		}
		if got.Cmp(new(big.Rat).Add(exact, big.NewRat(2, 1))) >= 0 {
			t.Fatalf("Wait = %v is more than %v rounded up", got, exact)
		}
	})
}

func TestClosing(t *testing.T) {
	three := NewConfiguration([]string{"a", "b", "c"})
	five := NewConfiguration([]string{"a", "b", "c", "d", "e"})
	w := Wait(time.Second, 50*ms)
	type answer struct {
		voter   string
		age, at time.Duration
	}
	for _, c := range []struct {
		name    string
		conf    Configuration
		answers []answer
		now     time.Duration
		left    time.Duration
		known   bool
	}{
		{"none", three, nil, time.Hour, w, false},
		{"one is no majority", three, []answer{{"a", time.Hour, 0}}, time.Hour, w, false},
		{"the later of two renewals counts", three, []answer{{"a", 800 * ms, 0}, {"b", 100 * ms, 0}}, 0, w - 100*ms, true},
		{"the two earlier of three", three, []answer{{"a", 800 * ms, 0}, {"b", 100 * ms, 0}, {"c", 700 * ms, 0}}, 0, w - 700*ms, true},
		{"time passes", three, []answer{{"a", 800 * ms, 0}, {"b", 100 * ms, 0}}, 500 * ms, w - 600*ms, true},
		{"until it is over", three, []answer{{"a", 800 * ms, 0}, {"b", 0, 0}}, w, 0, true},
		{"answers age from their receipt", three, []answer{{"a", 500 * ms, 100 * ms}, {"b", 100 * ms, 400 * ms}}, 400 * ms, w - 100*ms, true},
		{"a better answer counts", three, []answer{{"a", 0, 0}, {"b", 0, 0}, {"a", 700 * ms, 100 * ms}, {"b", 650 * ms, 100 * ms}}, 100 * ms, w - 650*ms, true},
		{"a worse one does not undo it", three, []answer{{"a", 700 * ms, 0}, {"b", 700 * ms, 0}, {"a", 0, 100 * ms}, {"b", 0, 100 * ms}}, 100 * ms, w - 800*ms, true},
		{"an old age is enough at once", three, []answer{{"a", time.Hour, 0}, {"b", math.MaxInt64, 0}}, 0, 0, true},
		{"nobody's age is negative", three, []answer{{"a", time.Hour, 0}, {"b", -1, 0}}, 0, w, false},
		{"strangers do not count", three, []answer{{"a", time.Hour, 0}, {"x", time.Hour, 0}, {"", time.Hour, 0}}, 0, w, false},
		{"two of five are none", five, []answer{{"a", time.Hour, 0}, {"b", time.Hour, 0}}, 0, w, false},
		{"three of five", five, []answer{{"a", 10 * ms, 0}, {"b", 30 * ms, 0}, {"c", 20 * ms, 0}, {"e", 40 * ms, 0}}, 0, w - 20*ms, true},
	} {
		closing := NewClosing(7, time.Second, 50*ms, 3)
		for _, a := range c.answers {
			closing.Answer(a.voter, a.age, at(a.at))
		}
		left, known := closing.Due(c.conf, at(c.now))
		if left != c.left || known != c.known {
			t.Errorf("%s: due in %v, %v; want %v, %v", c.name, left, known, c.left, c.known)
		}
	}
}

func TestClosingCountsTheShorterTime(t *testing.T) {
	conf := NewConfiguration([]string{"a"})
	c := NewClosing(7, time.Second, 0, 3)
	c.Answer("a", 0, clock.Reading{})
	for _, now := range []clock.Reading{{Boot: time.Hour}, {Raw: time.Hour}} {
		if left, _ := c.Due(conf, now); left <= 0 {
			t.Errorf("at %v one clock alone made it due", now)
		}
	}
	if got := c.Missing(NewConfiguration([]string{"a", "b", "c"})); len(got) != 2 || got[0] != "b" || got[1] != "c" {
		t.Errorf("missing %v", got)
	}
	if c.Session() != 7 || c.Term() != 3 {
		t.Errorf("closing of session %d in term %d", c.Session(), c.Term())
	}
}

// By a second route: over all majorities, the smallest of their largest bounds.
func TestDueIsTheBestMajority(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	rapid.Check(t, func(t *rapid.T) {
		conf := NewConfiguration(names[:rapid.IntRange(1, 5).Draw(t, "voters")])
		c := NewClosing(1, time.Second, 50*ms, 1)
		now := clock.Reading{Boot: time.Minute, Raw: time.Minute}
		left := map[string]time.Duration{}
		for _, v := range names {
			if !rapid.Bool().Draw(t, v+" answers") {
				continue
			}
			d := rapid.Int64Range(0, int64(time.Second))
			age, r := time.Duration(d.Draw(t, "age")), now
			r.Boot -= time.Duration(d.Draw(t, "boot"))
			r.Raw -= time.Duration(d.Draw(t, "raw"))
			c.Answer(v, age, r)
			left[v] = Wait(time.Second, 50*ms) - age - min(now.Boot-r.Boot, now.Raw-r.Raw)
		}
		best, found := time.Duration(math.MaxInt64), false
		for set := range 1 << len(conf.Voters) {
			n, worst, all := 0, time.Duration(math.MinInt64), true
			for i, v := range conf.Voters {
				if set&(1<<i) == 0 {
					continue
				}
				n++
				l, ok := left[v]
				all = all && ok
				worst = max(worst, l)
			}
			if n*2 > len(conf.Voters) && all {
				best, found = min(best, worst), true
			}
		}
		got, known := c.Due(conf, now)
		if known != found || found && got != best {
			t.Fatalf("due in %v, %v; want %v, %v", got, known, best, found)
		}
	})
}
