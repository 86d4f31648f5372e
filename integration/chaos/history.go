package main

import (
	"math"
	"slices"
	"sync"
	"time"
)

// action is what a client asks for.
type action byte

const (
	readRegister action = iota
	writeRegister
	readSet
	addToSet
)

// String names the action.
func (a action) String() string { return [...]string{"read", "write", "members", "add"}[a] }

// changes reports whether the action changes something.
func (a action) changes() bool { return a == writeRegister || a == addToSet }

// never is the return of an operation whose outcome is unknown: it may take
// effect at any time after its call.
const never = time.Duration(math.MaxInt64)

// op is one operation of a client.
type op struct {
	Client   int           `json:"client"`
	Action   action        `json:"action"`
	Key      uint32        `json:"key"`
	N        uint64        `json:"n"` // what was written or added
	Call     time.Duration `json:"call"`
	Return   time.Duration `json:"return"` // never: nobody knows whether it was done
	Node     string        `json:"node"`
	Epoch    uint64        `json:"epoch"`
	Sequence uint64        `json:"sequence"`
	Value    uint64        `json:"value"`
	Members  []uint64      `json:"members"`
}

// known reports whether the operation was answered.
func (o op) known() bool { return o.Return != never }

// history is what all clients did.
type history struct {
	mu      sync.Mutex
	windows map[uint32][]op // by key
	counts  counts
}

// counts are the operations by what became of them.
type counts struct {
	Acknowledged int `json:"acknowledged"`
	Unknown      int `json:"unknown"`  // changes whose outcome nobody knows
	Failed       int `json:"failed"`   // changes that never reached the service
	NoAnswer     int `json:"unread"`   // reads without an answer
	Rejected     int `json:"rejected"` // answered with an error
}

func newHistory() *history { return &history{windows: map[uint32][]op{}} }

func (h *history) add(o op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.windows[o.Key] = append(h.windows[o.Key], o)
	if o.known() {
		h.counts.Acknowledged++
	} else {
		h.counts.Unknown++
	}
}

func (h *history) count(edit func(*counts)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit(&h.counts)
}

func (h *history) figures() counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// window gives the operations on a key.
func (h *history) window(key uint32) []op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.windows[key])
}

// keys gives the keys in order.
func (h *history) keys() []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []uint32
	for k := range h.windows {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
