package lease

import (
	"math/bits"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
)

// rounds is how many requests a Holder remembers. An OK to an older one is
// dropped; with three or more renewals in a lease it would come too late anyway.
const rounds = 32

// maxVoters is how many voters of a configuration a Holder can count.
const maxVoters = 64

// Holder is the holder's side of one session: it remembers when requests were
// sent and which voters said OK to each, and from that how long the session may
// be believed in. It holds nothing else and does nothing else: asking and
// answering, stopping in time and the journal are its caller's.
//
// One Holder serves one session of one start of the daemon: its lease begins
// empty and is never shared with another session (R10). It is not safe for
// concurrent use.
type Holder struct {
	session uint64
	nonce   uint64
	ttl     time.Duration

	seq    uint64
	rounds [rounds]round // by seq % rounds

	until clock.Reading
	held  bool // until has a value
}

// round is one request, sent to every voter.
type round struct {
	seq    uint64 // 0: never used
	sent   clock.Reading
	config Configuration // that this request carried
	oks    uint64        // a bit for each voter's place in config
}

// NewHolder begins the holder's side of a session with the TTL that the session
// was opened with (H). The nonce is drawn anew at each start of the daemon. For a
// second Holder of the same session and nonce, After keeps their requests apart.
func NewHolder(session uint64, ttl time.Duration, nonce uint64) *Holder {
	return &Holder{session: session, ttl: ttl, nonce: nonce}
}

// After makes the numbers of further requests greater than seq. Without it an OK
// to a request of an earlier Holder of this session in the same process could be
// taken for one to a request of the same number that was sent later.
func (h *Holder) After(seq uint64) { h.seq = max(h.seq, seq) }

// Seq returns the number of the latest request; zero before the first.
func (h *Holder) Seq() uint64 { return h.seq }

// Session returns the session that is held.
func (h *Holder) Session() uint64 { return h.session }

// Nonce returns the nonce that every request of this holder carries.
func (h *Holder) Nonce() uint64 { return h.nonce }

// TTL returns H.
func (h *Holder) TTL() time.Duration { return h.ttl }

// Begin notes a request that is sent to every voter of c after now was read:
// the lease is counted from here, never from an answer's receipt. The caller
// reads the clock first, calls Begin, and sends only then. It returns the
// number of the request, which is not zero and grows by one.
func (h *Holder) Begin(now clock.Reading, c Configuration) (seq uint64) {
	h.seq++
	h.rounds[h.seq%rounds] = round{seq: h.seq, sent: now, config: c}
	return h.seq
}

// OK takes a voter's answer, with the session, nonce and number that it echoes,
// received when the clock showed now. It reports whether the lease reaches
// further than before and is not over at now.
//
// A lease is extended by a majority of the configuration that the request
// carried, all for that one request (R6). Answers of another session or nonce,
// to a request forgotten or never made, from a node that is no voter of that
// configuration, and repeated ones count for nothing.
func (h *Holder) OK(voter string, session, nonce, seq uint64, now clock.Reading) (extended bool) {
	if session != h.session || nonce != h.nonce || seq == 0 {
		return false
	}
	r := &h.rounds[seq%rounds]
	if r.seq != seq {
		return false
	}
	place := r.config.index(voter)
	if place < 0 || place >= maxVoters {
		return false
	}
	r.oks |= 1 << place
	if bits.OnesCount64(r.oks) < r.config.Majority() {
		return false
	}
	until := r.sent.Add(h.ttl)
	if h.held && !later(until, h.until) {
		return false // an older request, or one that was counted
	}
	h.until, h.held = until, true
	return clock.Left(now, until) > 0
}

// later reports whether a deadline reaches further in one clock and not less far
// in the other: a deadline is replaced as a whole, never mixed from two requests.
func later(a, b clock.Reading) bool {
	return a != b && a.Boot >= b.Boot && a.Raw >= b.Raw
}

// Until returns the absolute deadline: the session may be believed in only
// while both clocks are before their values. ok is false as long as no request
// has had a majority.
func (h *Holder) Until() (deadline clock.Reading, ok bool) { return h.until, h.held }

// Left returns what is left of the lease at now. Zero or less: lapsed, or not
// begun. A lapse is not final; a later majority resumes the session.
func (h *Holder) Left(now clock.Reading) time.Duration {
	if !h.held {
		return 0
	}
	return clock.Left(now, h.until)
}

// Answered reports whether a voter has said OK to one of the latest n requests.
// A rolling restart asks it of every voter but the one to be stopped.
func (h *Holder) Answered(voter string, n int) bool {
	for seq := h.seq; seq > 0 && n > 0 && h.seq-seq < rounds; seq, n = seq-1, n-1 {
		r := &h.rounds[seq%rounds]
		if place := r.config.index(voter); place >= 0 && place < maxVoters && r.oks&(1<<place) != 0 {
			return true
		}
	}
	return false
}
