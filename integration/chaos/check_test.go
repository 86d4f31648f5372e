package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// at builds an operation of a hand-made history; times are in ms.
func at(call, back int, o op) op {
	o.Call, o.Return = time.Duration(call)*time.Millisecond, time.Duration(back)*time.Millisecond
	if o.Key == 0 {
		o.Key = 1
	}
	if o.Node == "" {
		o.Node, o.Epoch = "a", 1
	}
	return o
}

// open is an operation that got no answer.
func open(call int, o op) op {
	o = at(call, call, o)
	o.Return, o.Node, o.Epoch = never, "", 0
	return o
}

func write(n, sequence uint64) op { return op{Action: writeRegister, N: n, Sequence: sequence} }
func read(v, sequence uint64) op  { return op{Action: readRegister, Value: v, Sequence: sequence} }
func add(n, sequence uint64) op   { return op{Action: addToSet, N: n, Sequence: sequence} }
func members(sequence uint64, m ...uint64) op {
	return op{Action: readSet, Members: m, Sequence: sequence}
}

func by(node string, epoch uint64, o op) op {
	o.Node, o.Epoch = node, epoch
	return o
}

// histories are what each checker must say of hand-made histories: for a word,
// that one of the complaints has it; for none, that there is no complaint.
var histories = []struct {
	name   string
	ops    []op
	search string // of porcupine
	direct string // of the checks without a search
}{
	{name: "nothing at all"},
	{name: "all in order", ops: []op{
		at(0, 10, write(5, 1)), at(20, 30, read(5, 1)), at(40, 50, add(7, 2)), at(60, 70, members(2, 7)),
		at(80, 90, by("b", 2, write(6, 3))), at(100, 110, by("b", 2, read(6, 3))),
	}},
	{name: "at the same time either order is right", ops: []op{
		at(0, 100, write(5, 1)), at(50, 60, read(0, 0)), at(70, 80, read(5, 1)),
	}},
	{name: "an unknown write may have been done", ops: []op{
		at(0, 10, write(5, 1)), open(20, write(6, 0)), at(500, 510, read(5, 1)), at(600, 610, read(6, 2)),
	}},
	{name: "an unknown write may never have been done", ops: []op{
		at(0, 10, write(5, 1)), open(20, write(6, 0)), at(500, 510, read(5, 1)),
	}},
	{name: "an unknown addition may come late", ops: []op{
		open(0, add(5, 0)), at(10, 20, members(0)), at(30, 40, members(1, 5)), at(50, 60, members(1, 5)),
	}},
	{name: "a stale read", search: "register 1 is not linearizable", direct: "stale", ops: []op{
		at(0, 10, write(5, 1)), at(20, 30, write(6, 2)), at(40, 50, read(5, 1)),
	}},
	{name: "a lost write", search: "register 1 is not linearizable", direct: "place shared", ops: []op{
		at(0, 10, write(5, 1)), at(20, 30, write(6, 2)), at(40, 50, by("b", 2, write(7, 2))),
		at(60, 70, by("b", 2, read(6, 2))),
	}},
	{name: "an unknown write that comes and goes", search: "register 1 is not linearizable", ops: []op{
		at(0, 10, write(5, 1)), open(20, write(6, 0)), at(30, 40, read(6, 2)), at(50, 60, read(5, 2)),
	}},
	{name: "read before it was written", search: "register 1 is not linearizable", ops: []op{
		at(0, 10, read(5, 1)), at(20, 30, write(5, 1)),
	}},
	{name: "epoch back", direct: "epoch back", ops: []op{
		at(0, 10, by("b", 2, read(0, 0))), at(20, 30, by("a", 1, read(0, 0))),
	}},
	{name: "epochs at the same time", ops: []op{
		at(0, 100, by("a", 1, read(0, 0))), at(20, 30, by("b", 2, read(0, 0))),
	}},
	{name: "two nodes in one epoch", direct: "epoch shared", ops: []op{
		at(0, 10, by("a", 2, read(0, 0))), at(20, 30, by("b", 2, read(0, 0))),
	}},
	{name: "a lost addition", search: "set 1 is not linearizable", direct: "lost", ops: []op{
		at(0, 10, add(5, 1)), at(20, 30, add(6, 2)), at(40, 50, members(2, 6)),
	}},
	{name: "an addition that comes and goes", search: "set 1 is not linearizable", ops: []op{
		open(0, add(5, 0)), at(10, 20, members(1, 5)), at(30, 40, members(1)),
	}},
	{name: "a phantom", search: "set 1 is not linearizable", direct: "phantom", ops: []op{
		at(0, 10, add(5, 1)), at(20, 30, members(1, 5, 6)),
	}},
	{name: "two readers who see two additions in opposite order", search: "set 1 is not linearizable", ops: []op{
		at(0, 100, add(5, 1)), at(0, 100, add(6, 2)), at(10, 20, members(1, 5)), at(30, 40, members(1, 6)),
	}},
	{name: "keys are checked apart", search: "register 2 is not linearizable", ops: []op{
		at(0, 10, write(5, 1)), at(20, 30, read(5, 1)), at(40, 50, op{Action: readRegister, Key: 2, Value: 5, Sequence: 1}),
	}},
}

func TestCheckersOnHandMadeHistories(t *testing.T) {
	for _, h := range histories {
		t.Run(h.name, func(t *testing.T) {
			expect(t, "porcupine", linearizable(h.ops, 10*time.Second), h.search)
			expect(t, "the direct checks", direct(h.ops), h.direct)
		})
	}
}

func expect(t *testing.T, who string, complaints []string, word string) {
	t.Helper()
	switch {
	case word == "" && len(complaints) > 0:
		t.Errorf("%s found %q in a history that is right", who, complaints)
	case word != "" && !slices.ContainsFunc(complaints, func(c string) bool { return strings.Contains(c, word) }):
		t.Errorf("%s found %q, want %q", who, complaints, word)
	}
}

// A history that cannot be decided in time is no pass.
func TestUndecidedIsSaid(t *testing.T) {
	var ops []op
	// Writers at the same time, each shown, and one answer that fits no order.
	for i := range 40 {
		ops = append(ops, at(i, 10000, write(uint64(100+i), 0)), at(i, 10000, read(uint64(100+i), 0)))
	}
	ops = append(ops, at(20000, 20001, read(999, 0)))
	expect(t, "porcupine", linearizable(ops, 50*time.Millisecond), "could not decide")
}

// What is left out before the search changes nothing of what is found: many open
// changes are decided at once.
func TestManyOpenChangesAreDecided(t *testing.T) {
	var ops []op
	for i := range 200 {
		ops = append(ops, open(i, write(uint64(1000+i), 0)), open(i, add(uint64(5000+i), 0)))
	}
	ops = append(ops, at(300, 310, read(1007, 1)), at(320, 330, members(2, 5003, 5100)))
	expect(t, "porcupine", linearizable(ops, 20*time.Second), "")
	ops = append(ops, at(400, 410, read(1008, 1)), at(420, 430, read(1007, 1)))
	expect(t, "porcupine", linearizable(ops, 20*time.Second), "register 1 is not linearizable")
}

// What earlier windows showed binds later ones.
func TestWindowsAreCheckedTogether(t *testing.T) {
	r := &run{}
	expect(t, "the first window", r.windowed([]op{at(0, 10, by("b", 3, write(5, 7)))}), "")
	expect(t, "the second window", r.windowed([]op{at(20, 30, by("b", 3, read(5, 7)))}), "")
	expect(t, "the third window", r.windowed([]op{at(40, 50, by("a", 2, read(5, 7)))}), "epoch back")
	r = &run{}
	expect(t, "the first window", r.windowed([]op{at(0, 10, by("b", 3, write(5, 7)))}), "")
	expect(t, "the second window", r.windowed(nil), "")
	expect(t, "the third window", r.windowed([]op{at(40, 50, by("b", 3, read(5, 6)))}), "stale")
}
