package render

import (
	"fmt"
	"strings"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// nodeTable lists the nodes as one service sees them.
func (v *statusView) nodeTable(svc cluster.ServiceStatus) string {
	// The reasons come last: they are as long as they need to be.
	t := table{head: []string{"NODE", "ROLE", "STATE", "SINCE"}}
	if v.Wide {
		t.head = append(t.head, "ADDRESS", "VERSION", "SESSION", "RENEWED")
	}
	t.head = append(t.head, "CAN TAKE OVER")
	for _, n := range v.st.Nodes {
		role, state, can, since := "spare", v.alive(n), v.canTakeOver(svc, n), ""
		switch {
		case n.Name == svc.Holder:
			role, state, can = v.paint(bold, "holder"), v.holderState(svc, n), "-"
			if !svc.Since.IsZero() {
				since = Span(max(v.now.Sub(svc.Since), 0))
			}
		case !n.Role.Holds():
			role, can = Plain(string(n.Role)), "votes only"
		}
		row := []string{Plain(n.Name), role, state, since}
		if v.Wide {
			row = append(row, v.wideCells(n)...)
		}
		t.add(append(row, can)...)
	}
	return t.String()
}

// nodesAlone lists the nodes when there is no service to list them for.
func (v *statusView) nodesAlone() string {
	t := table{head: []string{"NODE", "ROLE", "STATE", "ADDRESS", "VERSION"}}
	for _, n := range v.st.Nodes {
		t.add(Plain(n.Name), Plain(string(n.Role)), v.alive(n), Plain(n.Address), Plain(n.Version))
	}
	return "No services.\n" + t.String()
}

func (v *statusView) wideCells(n cluster.NodeStatus) []string {
	session, renewed := "none", "unknown"
	if n.Session != 0 {
		session = fmt.Sprintf("%d %s", n.Session, Plain(n.SessionState))
	}
	if n.Renewed >= 0 {
		renewed = Span(n.Renewed) + " ago"
	}
	return []string{Plain(n.Address), Plain(n.Version), session, renewed}
}

// holderState is the service's state, and what is wrong with the node that holds it.
func (v *statusView) holderState(svc cluster.ServiceStatus, n cluster.NodeStatus) string {
	text := v.stateText(svc.State)
	if n.Alive != "yes" {
		text += ", " + v.alive(n)
	} else {
		text += v.marks(n)
	}
	return text
}

// marks are what an operator or the leader has decided about a node.
func (v *statusView) marks(n cluster.NodeStatus) string {
	text := ""
	if n.Standby != nil {
		text += v.paint(yellow, ", on standby")
	}
	if n.SessionState == string(state.SessionClosing) {
		text += v.paint(yellow, ", session closing")
	}
	return text
}

// alive is whether a node answers, and what keeps it from counting in full.
func (v *statusView) alive(n cluster.NodeStatus) string {
	var text string
	switch n.Alive {
	case "yes":
		text = "alive"
		if n.Role.Votes() && !n.Ready && v.st.Quorum {
			text = v.paint(yellow, "alive, not ready to vote yet")
		}
	case "no":
		text = v.paint(red, "NOT ANSWERING")
	case "suspect":
		text = v.paint(yellow, "suspect")
	default:
		text = v.paint(yellow, "unknown")
	}
	text += v.marks(n)
	if n.Leader {
		text += ", leads"
	}
	return text
}

// canTakeOver is the leader's word on a node, in full.
func (v *statusView) canTakeOver(svc cluster.ServiceStatus, n cluster.NodeStatus) string {
	for _, c := range svc.Candidates {
		if c.Node == n.Name {
			return v.candidate(c)
		}
	}
	return v.paint(yellow, "unknown")
}

func (s Style) candidate(c cluster.Candidate) string {
	if !c.Can {
		return s.paint(yellow, "no") + because(c.Why)
	}
	text := s.paint(green, "yes")
	if c.Priority != 0 {
		text += fmt.Sprintf(", priority %d", c.Priority)
	}
	return text
}

// because is a reason behind a colon; "yes" is none.
func because(why string) string {
	if why == "" || why == "yes" {
		return ""
	}
	return ": " + strings.TrimRight(Plain(why), ".")
}
