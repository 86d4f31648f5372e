package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// linearizable checks the registers and the sets of the operations by
// porcupine. It gives a complaint for each that is not linearizable, or that
// could not be decided within the limit.
func linearizable(ops []op, limit time.Duration) []string {
	var out []string
	for key, of := range byKey(ops) {
		for _, one := range []struct {
			what  string
			model porcupine.Model
			ops   []op
		}{
			{"register", registerModel, only(of, readRegister, writeRegister)},
			{"set", setModel, only(of, readSet, addToSet)},
		} {
			switch porcupine.CheckOperationsTimeout(one.model, decisive(one.ops), limit) {
			case porcupine.Illegal:
				out = append(out, fmt.Sprintf("%s %d is not linearizable, %d operations", one.what, key, len(one.ops)))
			case porcupine.Unknown:
				out = append(out, fmt.Sprintf("%s %d: porcupine could not decide %d operations within %v; this is not a violation found, "+
					"but none excluded either: check the window again with more time", one.what, key, len(one.ops), limit))
			}
		}
	}
	slices.Sort(out)
	return out
}

func byKey(ops []op) map[uint32][]op {
	of := map[uint32][]op{}
	for _, o := range ops {
		of[o.Key] = append(of[o.Key], o)
	}
	return of
}

func only(ops []op, actions ...action) []op {
	return slices.DeleteFunc(slices.Clone(ops), func(o op) bool { return !slices.Contains(actions, o.Action) })
}

// decisive turns operations into porcupine's, without those that decide
// nothing. All values are written and added once. A change of unknown outcome
// that no answer shows may be left out: whatever order explains the others
// explains them without it too. One that some answers show took effect before
// the first of them returned. Without that each open change would double what
// is to be searched.
func decisive(ops []op) []porcupine.Operation {
	shown := map[uint64]time.Duration{}
	for _, o := range ops {
		for _, v := range append([]uint64{o.Value}, o.Members...) {
			if !o.Action.changes() && (shown[v] == 0 || o.Return < shown[v]) {
				shown[v] = o.Return
			}
		}
	}
	// Porcupine's set of members is a set of places in this order.
	places := map[uint64]int{}
	for _, o := range ops {
		if o.Action == addToSet {
			places[o.N] = len(places)
		}
	}
	var out []porcupine.Operation
	for _, o := range ops {
		first, seen := shown[o.N]
		switch {
		case !o.known() && !o.Action.changes(), !o.known() && !seen:
			continue
		case !o.known():
			o.Return = max(first, o.Call)
		}
		out = append(out, porcupine.Operation{ClientId: o.Client, Input: input{o.Action, o.N, places[o.N], len(places)},
			Output: output{o.Value, membersOf(o, places)}, Call: int64(o.Call), Return: int64(o.Return)})
	}
	slices.SortFunc(out, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return out
}

// input is what porcupine's models are given of an operation.
type input struct {
	action action
	n      uint64
	place  int // of n among all that are added
	places int
}

type output struct {
	value   uint64
	members string
}

// impossible are members that no adding explains.
const impossible = "members that nobody added"

// membersOf writes the members as a bit for each place.
func membersOf(o op, places map[uint64]int) string {
	if o.Action != readSet {
		return ""
	}
	bits := make([]byte, (len(places)+7)/8)
	for _, m := range o.Members {
		place, added := places[m]
		if !added {
			return impossible
		}
		bits[place/8] |= 1 << (place % 8)
	}
	return string(bits)
}

// registerModel is a register that holds what was written last, 0 at first.
var registerModel = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, in, out any) (bool, any) {
		if i := in.(input); i.action == writeRegister {
			return true, i.n
		}
		return out.(output).value == state.(uint64), state
	},
}

// setModel is a set that only grows; who asks for its members gets all of them.
var setModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		i, has := in.(input), state.(string)
		if has == "" {
			has = string(make([]byte, (i.places+7)/8))
		}
		if i.action == readSet {
			return out.(output).members == has, has
		}
		bits := []byte(has)
		bits[i.place/8] |= 1 << (i.place % 8)
		return true, string(bits)
	},
}
