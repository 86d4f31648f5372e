package rpc

import (
	"slices"

	"github.com/failoverd/failoverd/cluster/state"
)

// cursor is a place in the history: everything before index was seen, and of
// index itself the events in at. One entry may give several events, so an
// index alone does not say what was seen.
type cursor struct {
	index uint64
	at    []state.Event
}

// cursorAfter is the place behind all of the events.
func cursorAfter(events []state.Event) cursor {
	var c cursor
	for _, e := range events {
		c.take(e)
	}
	return c
}

// take moves the cursor behind e and reports whether e was new. Events must
// come in the order of the log.
func (c *cursor) take(e state.Event) bool {
	switch {
	case e.Index < c.index:
		return false
	case e.Index > c.index:
		c.index, c.at = e.Index, nil
	case slices.Contains(c.at, e):
		return false
	}
	c.at = append(c.at, e)
	return true
}

// reach moves the cursor to an index before which everything was seen.
func (c *cursor) reach(index uint64) {
	if index > c.index {
		c.index, c.at = index, nil
	}
}

// fresh returns the events behind the cursor, in the order of the log and each
// once, and moves the cursor behind them. The lists may overlap.
func (c *cursor) fresh(lists ...[]state.Event) []state.Event {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b state.Event) int {
		switch {
		case a.Index < b.Index:
			return -1
		case a.Index > b.Index:
			return 1
		}
		return 0
	})
	var out []state.Event
	for _, e := range all {
		if c.take(e) {
			out = append(out, e)
		}
	}
	return out
}
