package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// summary prints a state as lines that can be compared, without its history.
func summary(s *State) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if s.Cluster.ID != "" {
		add("cluster %s", s.Cluster.ID)
	}
	if s.Leader != "" {
		add("leader %s of term %d", s.Leader, s.LeaderTerm)
	}
	if s.Paused != nil {
		add("paused%s", markText(s.Paused))
	}
	for _, name := range s.NodeNames() {
		n := s.Nodes[name]
		line := fmt.Sprintf("node %s %s %s, data %s, start %d in %s, session %d", n.Name, n.Role, n.Address, or(n.Birth, "-"), n.Started, or(n.BootID, "-"), n.Session)
		if n.Standby != nil {
			line += ", standby" + markText(n.Standby)
		}
		add("%s", line)
	}
	for _, id := range s.SessionIDs() {
		add("session %s", sessionText(s.Sessions[id]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		add("service %s", serviceText(s.Services[name]))
	}
	return out
}

func sessionText(sess *Session) string {
	line := fmt.Sprintf("%d %s %s, boot %s, replaces %d, lease %v, kappa %v", sess.ID, sess.Node, sess.Status, sess.BootID, sess.Replaces, sess.TTL, sess.Kappa)
	if sess.Closing != "" {
		line += fmt.Sprintf(", closed: %s", sess.Closing)
	}
	if sess.Fence != nil {
		line += fmt.Sprintf(", fence by %s at %d", sess.Fence.By, sess.Fence.Index)
	}
	for _, p := range sess.Proofs {
		line += fmt.Sprintf(", %s at %d", p.Kind, p.Index)
	}
	return line
}

func serviceText(svc *Service) string {
	var parts []string
	for _, g := range svc.Grants {
		part := fmt.Sprintf("%d on %s/%d", g.Epoch, g.Node, g.Session)
		if g.Kind == KindHandOver {
			part += fmt.Sprintf(" handed over from %d", g.From)
		}
		if g.Over != "" {
			part += fmt.Sprintf(" over at %d, %s", g.OverIndex, g.Over)
		}
		parts = append(parts, part)
	}
	line := fmt.Sprintf("%s, last epoch %d [%s]", svc.Name, svc.LastEpoch, strings.Join(parts, "; "))
	if svc.Spec.Name != "" {
		line += fmt.Sprintf(", generation %d, takeover %s", svc.Generation, svc.Spec.Takeover)
	} else {
		line += ", gone"
	}
	if len(svc.Spec.Nodes) > 0 {
		line += ", nodes " + strings.Join(svc.Spec.Nodes, " ")
	}
	for _, a := range svc.Spec.addresses() {
		line += ", vip " + a.String()
	}
	if svc.Removed {
		line += ", removed"
	}
	if svc.Paused != nil {
		line += ", paused" + markText(svc.Paused)
	}
	if svc.Move != nil {
		line += fmt.Sprintf(", move %d to %s by %s: %s", svc.Move.Index, or(svc.Move.To, "anybody"), svc.Move.By, svc.Move.Why)
	}
	for _, f := range svc.Failures {
		line += fmt.Sprintf(", failed on %s under %d: %s", f.Node, f.Epoch, f.Why)
	}
	return line
}

func markText(m *Mark) string {
	line := fmt.Sprintf(" at %d by %s: %s", m.Index, or(m.By, "-"), or(m.Reason, "-"))
	if m.Until != 0 {
		line += fmt.Sprintf(" until %d", m.Until)
	}
	return line
}

func eventText(e Event) string {
	line := e.Kind
	if e.Service != "" {
		line += " " + e.Service
	}
	if e.Node != "" {
		line += " " + e.Node
	}
	if e.Session != 0 {
		line += fmt.Sprintf("/%d", e.Session)
	}
	if e.Epoch != 0 {
		line += fmt.Sprintf(" epoch %d", e.Epoch)
	}
	if e.By != "" {
		line += " by " + e.By
	}
	return line + ": " + e.Why
}

// changes returns the lines of before that are gone and those of after that are new.
func changes(before, after []string) []string {
	var out []string
	for _, l := range before {
		if !slices.Contains(after, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			out = append(out, "+ "+l)
		}
	}
	return out
}
