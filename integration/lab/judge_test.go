package lab

import (
	"testing"
	"time"
)

func at(sent, got int, node string, epoch uint64) Request {
	return Request{
		Sent: time.Duration(sent) * time.Millisecond, Got: time.Duration(got) * time.Millisecond,
		Outcome: Answered, Node: node, Epoch: epoch,
	}
}

func TestDataViewOrdersByRealTime(t *testing.T) {
	for name, c := range map[string]struct {
		answers []Request
		older   time.Duration // time of older after newer
		shared  time.Duration // time of one epoch at two nodes
	}{
		"one holder":      {answers: []Request{at(0, 1, "a", 1), at(2, 3, "a", 1)}},
		"a clean move":    {answers: []Request{at(0, 1, "a", 1), at(2, 3, "b", 2)}},
		"there and back":  {answers: []Request{at(0, 1, "a", 1), at(2, 3, "b", 2), at(4, 5, "a", 3)}},
		"old in flight":   {answers: []Request{at(0, 9, "a", 1), at(2, 3, "b", 2)}},
		"old after new":   {answers: []Request{at(0, 1, "b", 2), at(4, 5, "a", 1)}, older: 4 * time.Millisecond},
		"old for longer":  {answers: []Request{at(0, 1, "b", 2), at(4, 5, "a", 1), at(20, 21, "a", 1)}, older: 20 * time.Millisecond},
		"one epoch twice": {answers: []Request{at(0, 1, "a", 1), at(2, 3, "b", 1), at(4, 5, "a", 1), at(6, 7, "b", 1)}, shared: 2 * time.Millisecond},
		"barely shared":   {answers: []Request{at(0, 1, "a", 1), at(2, 3, "b", 1)}, shared: time.Millisecond},
		"no epochs known": {answers: []Request{at(0, 1, "a", 0), at(2, 3, "b", 0), at(4, 5, "a", 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := total(olderAfterNewer(c.answers)); got != c.older {
				t.Errorf("older after newer: %v, want %v", got, c.older)
			}
			if got := total(sharedEpochs(c.answers)); got != c.shared {
				t.Errorf("shared epochs: %v, want %v", got, c.shared)
			}
		})
	}
}

func TestMixedAnswersAreTwoHolders(t *testing.T) {
	for name, c := range map[string]struct {
		answers []Request
		want    time.Duration
	}{
		"a move":               {answers: []Request{at(0, 1, "a", 0), at(2, 3, "a", 0), at(4, 5, "b", 0)}},
		"a move in flight":     {answers: []Request{at(0, 6, "a", 0), at(2, 3, "a", 0), at(4, 5, "b", 0)}},
		"away and back slowly": {answers: []Request{at(0, 1, "a", 0), at(2, 3, "b", 0), at(102, 103, "a", 0)}},
		"mixed":                {answers: []Request{at(0, 1, "a", 0), at(2, 3, "b", 0), at(4, 5, "a", 0)}, want: 3 * time.Millisecond},
		"mixed for longer": {answers: []Request{
			at(0, 1, "a", 0), at(2, 3, "b", 0), at(4, 5, "a", 0), at(6, 7, "b", 0), at(8, 9, "a", 0)}, want: 7 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			if got := total(mixed(c.answers)); got != c.want {
				t.Errorf("%v, want %v: %s", got, c.want, show(mixed(c.answers)))
			}
		})
	}
}

func TestSilence(t *testing.T) {
	lost := at(4, 50, "", 0)
	lost.Outcome = Unanswered
	requests := []Request{at(0, 1, "a", 1), at(2, 3, "a", 1), lost, at(30, 31, "b", 2), at(32, 33, "b", 2)}
	for _, c := range []struct{ from, to, want, at time.Duration }{
		{0, 40, 28, 3},  // from the last answer to the next
		{10, 40, 28, 3}, // the answer before the window counts
		{0, 90, 57, 33}, // nothing any more until the end
		{32, 34, 2, 31},
	} {
		got, where := silence(requests, c.from*time.Millisecond, c.to*time.Millisecond)
		if got != c.want*time.Millisecond || where != c.at*time.Millisecond {
			t.Errorf("silence in %d..%d ms: %v at %v, want %d ms at %d ms", c.from, c.to, got, where, c.want, c.at)
		}
	}
}

func TestTotalCountsATimeOnce(t *testing.T) {
	const u = time.Millisecond
	for _, c := range []struct {
		in   []Interval
		want time.Duration
	}{
		{nil, 0},
		{[]Interval{{From: 5 * u, To: 5 * u}}, u}, // what was seen once is not nothing
		{[]Interval{{From: 10 * u, To: 20 * u}, {From: 5 * u, To: 12 * u}}, 15 * u},
		{[]Interval{{From: 5 * u, To: 50 * u}, {From: 10 * u, To: 20 * u}, {From: 60 * u, To: 61 * u}}, 46 * u},
	} {
		if got := total(c.in); got != c.want {
			t.Errorf("total of %v: %v, want %v", c.in, got, c.want)
		}
	}
}

func TestParseReply(t *testing.T) {
	const whole = "HTTP/1.1 200 OK\r\nContent-Type: a\r\ncontent-length: 2\r\n\r\n{}"
	for n := range len(whole) {
		if _, _, complete := parseReply([]byte(whole[:n])); complete {
			t.Fatalf("complete after %d of %d bytes", n, len(whole))
		}
	}
	body, status, complete := parseReply([]byte(whole))
	if string(body) != "{}" || status != 200 || !complete {
		t.Errorf("%q %d %v", body, status, complete)
	}
	if _, status, complete := parseReply([]byte("nonsense\r\n\r\n")); status != 0 || !complete {
		t.Errorf("nonsense: %d %v", status, complete)
	}
}
