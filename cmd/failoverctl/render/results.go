package render

import (
	"fmt"
	"strings"

	"github.com/failoverd/failoverd/cluster"
)

// Moved writes what a switchover or failover did.
func Moved(r cluster.SwitchoverResult, s Style) string {
	return fmt.Sprintf("%s %s in %s.\n", s.paint(green, "Done:"), way(r, "moved"), Span(r.Took))
}

// WouldMove writes what a switchover would do, step by step.
func WouldMove(r cluster.SwitchoverResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Nothing was done. %s:\n", way(r, "would move"))
	for i, step := range r.Steps {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, Plain(step))
	}
	return b.String()
}

func way(r cluster.SwitchoverResult, verb string) string {
	text := Plain(r.Service) + " " + verb
	if r.From != "" {
		text += " from " + Plain(r.From)
	}
	if r.To != "" {
		text += " to " + Plain(r.To)
	}
	if r.Epoch != 0 {
		text += fmt.Sprintf(" as epoch %d", r.Epoch)
	}
	return text
}

// Plan writes what an apply did or, when dry, would do.
func Plan(r cluster.ApplyResult, dry bool, s Style) string {
	if len(r.Changes) == 0 {
		return "Nothing to do: the services are in force as the file has them.\n"
	}
	var b strings.Builder
	if dry {
		fmt.Fprintf(&b, "Nothing was done. %s:\n", count(len(r.Changes), "change"))
	} else {
		fmt.Fprintf(&b, "%s %s, in force from log index %d:\n", s.paint(green, "Done:"), count(len(r.Changes), "change"), r.Index)
	}
	for _, c := range r.Changes {
		b.WriteString("  - " + Plain(c) + "\n")
	}
	return b.String()
}

// Members writes the members, and those that ask to become one.
func Members(members []cluster.Member, s Style) string {
	t := table{head: []string{"NODE", "ROLE", "VOTE", "STATE", "ADDRESS"}}
	if s.Wide {
		t.head = append(t.head, "BIRTH")
	}
	v := statusView{Style: s}
	waiting := ""
	for _, m := range members {
		row := []string{Plain(m.Name), Plain(string(m.Role)), Plain(m.Vote), v.alive(cluster.NodeStatus{Alive: m.Alive}), Plain(m.Address)}
		if s.Wide {
			row = append(row, Plain(m.Birth))
		}
		t.add(row...)
		if m.Waiting != "" {
			waiting += s.paint(red, "!") + " " + Plain(m.Name) + ": " + Plain(m.Waiting) + "\n"
		}
	}
	return t.String() + waiting
}
