package lease

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
)

// FuzzHolder lets a network do what it likes with a holder's answers: late,
// repeated, of voters that are none, for other sessions, while both clocks go
// at rates of their own. The deadline is never later than the sending of a
// request that a majority of its own voters has said OK to, plus the TTL.
func FuzzHolder(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 1, 1})
	f.Add([]byte{0, 0, 1, 0, 1, 1, 1, 2, 3, 9, 2, 50, 0, 1, 1, 32, 1, 33})
	f.Add([]byte{0, 4, 1, 0, 1, 1, 1, 2, 1, 3, 0, 1, 1, 16, 1, 17})
	f.Fuzz(func(t *testing.T, data []byte) {
		const ttl = time.Second
		names := []string{"a", "b", "c", "d", "e", "x"}
		h := NewHolder(7, ttl, 9)
		type request struct {
			at     clock.Reading
			voters int
			oks    uint
		}
		var sent []request // by number - 1
		now := clock.Reading{Boot: time.Hour, Raw: time.Minute}
		var best clock.Reading
		held := false
		for ; len(data) >= 2; data = data[2:] {
			arg := int(data[1])
			switch data[0] % 4 {
			case 0: // a request to the first one to five
				n := 1 + arg%5
				sent = append(sent, request{at: now, voters: n})
				if seq := h.Begin(now, NewConfiguration(names[:n])); seq != uint64(len(sent)) {
					t.Fatalf("request %d has number %d", len(sent), seq)
				}
			case 1: // an OK of one of six to one of the latest sixteen, in the right session
				who, back := arg%16, arg/16
				seq := len(sent) - back
				if who >= len(names) || seq < 1 {
					break
				}
				r := &sent[seq-1]
				if back < rounds && who < r.voters {
					r.oks |= 1 << who
				}
				h.OK(names[who], 7, 9, uint64(seq), now)
				if bits.OnesCount(r.oks) > r.voters/2 && back < rounds {
					if until := r.at.Add(ttl); !held || until.Boot >= best.Boot && until.Raw >= best.Raw {
						best, held = until, true
					}
				}
			case 2: // an OK of another session, another start, another number
				if h.OK(names[arg%6], 7+uint64(arg&1), 9+uint64(^arg&1), uint64(len(sent)), now) ||
					h.OK(names[arg%6], 7, 9, uint64(len(sent)+1+arg), now) || h.OK(names[arg%6], 7, 9, 0, now) {
					t.Fatal("an answer that is to nothing extends the lease")
				}
			case 3: // time passes, more of it by one clock
				now.Boot += time.Duration(arg) * time.Millisecond
				now.Raw += time.Duration(arg/2+1) * time.Millisecond
			}
			until, ok := h.Until()
			if ok != held || until != best {
				t.Fatalf("until %v, %v; the requests give %v, %v", until, ok, best, held)
			}
			if left := h.Left(now); held && left > min(best.Boot-now.Boot, best.Raw-now.Raw) || !held && left > 0 {
				t.Fatalf("%v left at %v of %v", left, now, best)
			}
		}
	})
}

// FuzzClosing lets voters answer anything at any time. A lease that is being
// closed is due only when a majority has answered, and never before the time
// that the least of all their answers leaves, by the slower clock.
func FuzzClosing(f *testing.F) {
	add := func(words ...uint32) {
		var b []byte
		for _, w := range words {
			b = binary.BigEndian.AppendUint32(b, w)
		}
		f.Add(uint8(2), b)
	}
	add(0, 100, 1, 200)
	add(0, 100, 1, 200, 2, 50, 5, 1<<31)
	add(1<<16, 1<<20, 0, 0, 1, 0, 2, 0)
	f.Fuzz(func(t *testing.T, voters uint8, data []byte) {
		type answer struct {
			age time.Duration
			at  clock.Reading
		}
		names := []string{"a", "b", "c", "d", "e", "x"}
		n := 1 + int(voters)%5
		conf := NewConfiguration(names[:n])
		c := NewClosing(1, time.Second, 50*time.Millisecond, 1)
		now := clock.Reading{Boot: time.Hour, Raw: time.Hour}
		answers := map[int][]answer{}
		for range 64 {
			if len(data) < 8 {
				break
			}
			who, age := int(data[3])%6, time.Duration(int32(binary.BigEndian.Uint32(data[4:])))*time.Millisecond
			now.Boot += time.Duration(data[0]) * time.Millisecond
			now.Raw += time.Duration(data[1]) * time.Millisecond
			data = data[8:]
			before, _ := c.Due(conf, now)
			knew := len(answers) > n/2
			c.Answer(names[who], age, now)
			if who < n && age >= 0 { // a negative age is none
				answers[who] = append(answers[who], answer{age, now})
			}
			got, known := c.Due(conf, now)
			if known != (len(answers) > n/2) {
				t.Fatalf("due in %v, %v, by answers of %d of %d voters", got, known, len(answers), n)
			}
			if !known {
				continue
			}
			if knew && got > before {
				t.Fatalf("an answer more makes it later: %v after %v", got, before)
			}
			// Of every voter the answer that leaves the least. No majority has a
			// longest that is shorter than the longest of the first majority of these.
			var best []time.Duration
			for _, all := range answers {
				least := time.Duration(1 << 62)
				for _, a := range all {
					least = min(least, Wait(time.Second, 50*time.Millisecond)-a.age-min(now.Boot-a.at.Boot, now.Raw-a.at.Raw))
				}
				best = append(best, least)
			}
			slices.Sort(best)
			if earliest := best[n/2]; got < earliest {
				t.Fatalf("due in %v, and no majority's answers leave less than %v", got, earliest)
			}
		}
	})
}
