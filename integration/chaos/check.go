package main

import (
	"cmp"
	"fmt"
	"slices"
)

// The checks of this file need no search: every answer names the node, the
// epoch and the place of the last change, and by those alone it is wrong or
// right. They are a second way to what porcupine finds, and say it plainly.

// epochsGoBack finds answers under an older epoch to requests that were made
// after an answer under a newer one had come.
func epochsGoBack(ops []op) []string {
	return backwards(ops, func(o op) uint64 { return o.Epoch }, func(o, newest op) string {
		return fmt.Sprintf("epoch back: %s, after epoch %d of %s had answered", describe(o), newest.Epoch, newest.Node)
	})
}

// sequencesGoBack finds answers from a state that is older than one shown before.
func sequencesGoBack(ops []op) []string {
	return backwards(ops, func(o op) uint64 { return o.Sequence }, func(o, newest op) string {
		return fmt.Sprintf("stale: %s, after %s had answered from place %d", describe(o), newest.Node, newest.Sequence)
	})
}

// backwards finds answers whose number is less than one that had been answered
// before the request was made.
func backwards(ops []op, number func(op) uint64, say func(o, newest op) string) []string {
	answered := slices.DeleteFunc(slices.Clone(ops), func(o op) bool { return !o.known() })
	byCall := slices.Clone(answered)
	slices.SortFunc(byCall, func(a, b op) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(answered, func(a, b op) int { return cmp.Compare(a.Return, b.Return) })
	var out []string
	var newest op
	i := 0
	for _, o := range byCall {
		for ; i < len(answered) && answered[i].Return < o.Call; i++ {
			if number(answered[i]) > number(newest) {
				newest = answered[i]
			}
		}
		if number(o) < number(newest) {
			out = append(out, say(o, newest))
		}
	}
	return out
}

// sharedEpochs finds epochs under which two nodes answered.
func sharedEpochs(ops []op) []string {
	var out []string
	first := map[uint64]op{}
	for _, o := range ops {
		if !o.known() {
			continue
		}
		one, known := first[o.Epoch]
		if !known {
			first[o.Epoch] = o
		} else if one.Node != o.Node {
			out = append(out, fmt.Sprintf("epoch shared: %s, and %s", describe(o), describe(one)))
		}
	}
	return out
}

// sharedPlaces finds changes that were acknowledged with the same place: the
// later one wrote over the earlier.
func sharedPlaces(ops []op) []string {
	var out []string
	first := map[uint64]op{}
	for _, o := range ops {
		if !o.known() || !o.Action.changes() {
			continue
		}
		if one, known := first[o.Sequence]; known {
			out = append(out, fmt.Sprintf("place shared: %s, and %s", describe(o), describe(one)))
			continue
		}
		first[o.Sequence] = o
	}
	return out
}

// lostAdds finds what was acknowledged before a set was asked for, and is not
// among its members; and members that nobody ever added.
func lostAdds(ops []op) []string {
	var out []string
	of := map[uint32][]op{}
	tried := map[uint32]map[uint64]bool{}
	for _, o := range ops {
		if o.Action == addToSet {
			of[o.Key] = append(of[o.Key], o)
			if tried[o.Key] == nil {
				tried[o.Key] = map[uint64]bool{}
			}
			tried[o.Key][o.N] = true
		}
	}
	for _, o := range ops {
		if o.Action != readSet || !o.known() {
			continue
		}
		has := map[uint64]bool{}
		for _, m := range o.Members {
			has[m] = true
			if !tried[o.Key][m] {
				out = append(out, fmt.Sprintf("phantom: %d in %s", m, describe(o)))
			}
		}
		for _, a := range of[o.Key] {
			if a.known() && a.Return < o.Call && !has[a.N] {
				out = append(out, fmt.Sprintf("lost: %s is not in %s", describe(a), describe(o)))
			}
		}
	}
	return out
}

func describe(o op) string {
	text := fmt.Sprintf("%s of key %d at %.1f ms by %s under epoch %d, place %d", o.Action, o.Key, ms(o.Call), o.Node, o.Epoch, o.Sequence)
	if o.Action.changes() {
		text += fmt.Sprintf(", value %d", o.N)
	}
	return text
}

// enoughOfOne is how many complaints of one check are told; the others say no more.
const enoughOfOne = 5

// direct runs every check that needs no search.
func direct(ops []op) []string {
	var out []string
	for _, check := range []func([]op) []string{epochsGoBack, sharedEpochs, sequencesGoBack, sharedPlaces, lostAdds} {
		found := check(ops)
		if n := len(found) - enoughOfOne; n > 0 {
			found = append(found[:enoughOfOne], fmt.Sprintf("and %d more of that kind", n))
		}
		out = append(out, found...)
	}
	return out
}
