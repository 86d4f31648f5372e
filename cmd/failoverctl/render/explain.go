package render

import (
	"fmt"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// Explain writes an explanation: the sentences, the candidates, what led here.
func Explain(e cluster.Explanation, s Style) string {
	var b strings.Builder
	for _, line := range e.Lines {
		b.WriteString(s.wrap(Plain(line)) + "\n")
	}
	if len(e.Candidates) > 0 {
		t := table{head: []string{"NODE", "CAN TAKE OVER"}}
		for _, c := range e.Candidates {
			text := s.candidate(c)
			if c.Can {
				text += because(c.Why)
			}
			t.add(Plain(c.Node), text)
		}
		b.WriteString("\n" + t.String())
	}
	if len(e.History) > 0 {
		b.WriteString("\nWhat led here:\n")
		for _, event := range e.History {
			b.WriteString(Event(event, s) + "\n")
		}
	}
	return b.String()
}

// wrap breaks a sentence at spaces to the width; later lines are indented.
func (s Style) wrap(text string) string {
	const indent = "  "
	var b strings.Builder
	used := 0
	for _, word := range strings.Fields(text) {
		n := visible(word)
		switch {
		case used == 0:
		case used+1+n > s.width():
			b.WriteString("\n" + indent)
			used = len(indent)
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}

// Event writes a line of the history, without its end. The columns have fixed
// places, so that a stream of lines stays readable.
func Event(e state.Event, s Style) string {
	at := "-"
	if e.At != 0 {
		at = s.local(time.UnixMilli(e.At)).Format("2006-01-02 15:04:05.000")
	}
	kind := fmt.Sprintf("%-13s", Plain(e.Kind))
	switch e.Kind {
	case (state.GrantService{}).Kind(), (state.HandOver{}).Kind():
		kind = s.paint(bold, kind)
	case (state.StartFence{}).Kind(), (state.ReportFailure{}).Kind(), (state.CloseSession{}).Kind():
		kind = s.paint(yellow, kind)
	}
	line := fmt.Sprintf("%-23s  %7d  %s  %s", at, e.Index, kind, subject(e))
	if e.By != "" {
		line += "  by " + Plain(e.By)
	}
	if e.Why != "" {
		line += ": " + Plain(e.Why)
	}
	return line
}

// subject is what an event is about: `pg on db1, epoch 42`.
func subject(e state.Event) string {
	var parts []string
	switch {
	case e.Service != "" && e.Node != "":
		parts = append(parts, Plain(e.Service)+" on "+Plain(e.Node))
	case e.Service != "" || e.Node != "":
		parts = append(parts, Plain(e.Service+e.Node))
	}
	if e.Epoch != 0 {
		parts = append(parts, fmt.Sprintf("epoch %d", e.Epoch))
	}
	if e.Session != 0 {
		parts = append(parts, fmt.Sprintf("session %d", e.Session))
	}
	if len(parts) == 0 {
		return "cluster"
	}
	return strings.Join(parts, ", ")
}
