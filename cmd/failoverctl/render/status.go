package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// Status writes a whole status. Ages and spans count from the moment of the
// answer by the answering node's clock, so the client's clock does not matter.
func Status(st cluster.Status, s Style) string {
	v := statusView{st: st, Style: s, now: st.At}
	if v.now.IsZero() {
		v.now = time.Now()
	}
	var b strings.Builder
	b.WriteString(v.head())
	for _, svc := range st.Services {
		b.WriteString("\n" + v.service(svc))
	}
	if len(st.Services) == 0 && len(st.Nodes) > 0 {
		b.WriteString("\n" + v.nodesAlone())
	}
	if tail := v.tail(); tail != "" {
		b.WriteString("\n" + tail)
	}
	return b.String()
}

// statusView is a status that is being written.
type statusView struct {
	st cluster.Status
	Style
	now time.Time
}

// head is what concerns the whole cluster.
func (v *statusView) head() string {
	var b strings.Builder
	if v.st.Waiting != "" {
		b.WriteString(v.flow([]string{"Cluster: " + v.paint(yellow, "none yet"), "Node: " + Plain(v.st.Node)}) + "\n")
		b.WriteString(v.flow([]string{v.paint(yellow, "Waiting:") + " " + Plain(v.st.Waiting)}) + "\n")
		return b.String()
	}
	b.WriteString(v.flow([]string{"Cluster: " + v.clusterID(), "Quorum: " + v.quorum(), "Leader: " + v.leader(), "Read: " + v.source()}) + "\n")
	if v.st.Paused != nil {
		b.WriteString(v.pausedLine("everything", v.st.Paused) + "\n")
	}
	return b.String()
}

// clusterID is short: it tells clusters apart, nobody types it.
func (v *statusView) clusterID() string {
	id := Plain(v.st.Cluster)
	if id == "" {
		return "unknown"
	}
	if !v.Wide && len(id) > 8 {
		return id[:8]
	}
	return id
}

func (v *statusView) quorum() string {
	text := fmt.Sprintf("%d/%d", v.st.VotersUp, v.st.Voters)
	witnesses := 0
	for _, n := range v.st.Nodes {
		if n.Role == state.RoleWitness {
			witnesses++
		}
	}
	if witnesses > 0 {
		text += fmt.Sprintf(" (%d witness)", witnesses)
	}
	if v.st.Quorum {
		return v.paint(green, "YES") + " " + text
	}
	return v.paint(red, "NO") + " " + text
}

func (v *statusView) leader() string {
	if v.st.Leader == "" {
		return v.paint(yellow, "none known")
	}
	return v.paint(bold, Plain(v.st.Leader))
}

// source says who answered, and how old and how sure the answer is.
func (v *statusView) source() string {
	node := Plain(v.st.Node)
	switch {
	case v.st.Quorum && v.st.Age < 10*time.Millisecond:
		return fmt.Sprintf("quorum, just now (%s)", node)
	case v.st.Quorum:
		return fmt.Sprintf("quorum, %s old (%s)", Span(v.st.Age), node)
	case v.st.Age < 0:
		return v.paint(yellow, node+" alone, of unknown age")
	}
	return v.paint(yellow, fmt.Sprintf("%s alone, last word of a leader %s ago", node, Span(v.st.Age)))
}

func (v *statusView) pausedLine(what string, m *state.Mark) string {
	text := "PAUSED: " + what
	if m.Until != 0 {
		text += " until " + v.Clock(time.UnixMilli(m.Until), v.now)
	}
	return v.paint(yellow, text) + byWhom(m)
}

// byWhom is ` (by ann: "kernel patch")`.
func byWhom(m *state.Mark) string {
	switch {
	case m.By == "" && m.Reason == "":
		return ""
	case m.Reason == "":
		return fmt.Sprintf(" (by %s)", Plain(m.By))
	}
	return fmt.Sprintf(" (by %s: %q)", Plain(m.By), Plain(m.Reason))
}

// service is a service's header, the table of nodes, and what there is to say.
func (v *statusView) service(svc cluster.ServiceStatus) string {
	var b strings.Builder
	b.WriteString(v.flow(v.serviceHead(svc)) + "\n")
	if svc.Paused != nil {
		b.WriteString(v.pausedLine(Plain(svc.Name), svc.Paused) + "\n")
	}
	b.WriteString(v.nodeTable(svc))
	if m := svc.Move; m != nil {
		to := Plain(m.To)
		if to == "" {
			to = "the best candidate"
		}
		line := fmt.Sprintf("Move ordered: to %s by %s, %s", to, Plain(m.By), Ago(time.UnixMilli(m.At), v.now))
		if m.Why != "" {
			line += ": " + Plain(m.Why)
		}
		b.WriteString(v.paint(yellow, line) + "\n")
	}
	if e := svc.Last; e != nil {
		b.WriteString("Last move: " + v.lastMove(*e) + "\n")
	}
	if svc.Next != "" {
		b.WriteString("Now: " + Plain(svc.Next) + "\n")
	}
	for _, f := range svc.Failures {
		fmt.Fprintf(&b, "%s %s failed on %s under epoch %d, %s: %s; next: failoverctl cleanup %s %s\n", v.paint(red, "!"),
			Plain(svc.Name), Plain(f.Node), f.Epoch, Ago(time.UnixMilli(f.At), v.now), Plain(f.Why), Plain(svc.Name), Plain(f.Node))
	}
	return b.String()
}

func (v *statusView) serviceHead(svc cluster.ServiceStatus) []string {
	name := "Service " + v.paint(bold, Plain(svc.Name))
	if svc.Holder == "" {
		name += "   " + v.paint(red, "held by nobody") + ", " + v.stateText(svc.State)
	}
	parts := []string{name, fmt.Sprintf("epoch %d", svc.Epoch)}
	if svc.Holder != "" {
		parts = append(parts, v.lease(svc.LeaseLeft))
	}
	for _, r := range svc.Resources {
		parts = append(parts, v.resource(r))
	}
	if svc.Holder != "" {
		guarantee := v.paint(yellow, "unknown")
		if len(svc.Guarantee) > 0 {
			guarantee = Plain(strings.Join(svc.Guarantee, ", "))
			if svc.Kappa > 0 {
				guarantee += " (" + Span(svc.Kappa) + ")"
			}
		}
		parts = append(parts, "guarantee: "+guarantee)
	}
	if svc.Takeover == state.TakeoverFence {
		parts = append(parts, "takeover: fence only")
	}
	return parts
}

func (v *statusView) lease(left time.Duration) string {
	if left < 0 {
		return v.paint(yellow, "lease unknown")
	}
	if left == 0 {
		return v.paint(red, "lease over")
	}
	return "lease " + Span(left) + " left"
}

func (v *statusView) resource(r cluster.ResourceStatus) string {
	text := Plain(r.Kind) + " " + Plain(r.Name) + " "
	switch r.State {
	case "running":
		text += v.paint(green, "ok")
	case "failed":
		text += v.paint(red, "FAILED")
	default:
		text += v.paint(yellow, Plain(r.State))
	}
	if r.Text != "" {
		text += " (" + Plain(r.Text) + ")"
	}
	return text
}

func (v *statusView) stateText(state string) string {
	switch state {
	case "running":
		return v.paint(green, "running")
	case "failed":
		return v.paint(red, "FAILED")
	case "":
		return v.paint(yellow, "unknown")
	}
	return v.paint(yellow, Plain(state))
}

// lastMove is a line such as `9 d ago to db1, epoch 42, by ann: kernel patch`.
func (v *statusView) lastMove(e state.Event) string {
	text := Ago(time.UnixMilli(e.At), v.now)
	if e.Kind == (state.HandOver{}).Kind() {
		text += ", handed over"
	}
	if e.Node != "" {
		text += " to " + Plain(e.Node)
	}
	if e.Epoch != 0 {
		text += fmt.Sprintf(", epoch %d", e.Epoch)
	}
	if e.By != "" {
		text += ", by " + Plain(e.By)
	}
	if e.Why != "" {
		text += ": " + Plain(e.Why)
	}
	return text
}

// tail is the alarms of all, and what to do next.
func (v *statusView) tail() string {
	var b strings.Builder
	for _, a := range v.alarms() {
		b.WriteString(v.paint(red, "!") + " " + Plain(a) + "\n")
	}
	for _, next := range v.next() {
		b.WriteString(v.paint(dim, "next: ") + next + "\n")
	}
	return b.String()
}

// alarms are those of the cluster and of every node, once each.
func (v *statusView) alarms() []string {
	out := slices.Clone(v.st.Alarms)
	add := func(text string) {
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	for _, n := range v.st.Nodes {
		for _, a := range n.Alarms {
			if n.Name != v.st.Node || !slices.Contains(v.st.Alarms, a) { // a node says its own without its name
				add(n.Name + ": " + a)
			}
		}
		if n.ConfigDiffers {
			add(n.Name + ": its settings differ from the others' where they must not; compare the nodes' files")
		}
	}
	return out
}

// next are the commands that the status calls for.
func (v *statusView) next() []string {
	switch {
	case v.st.Waiting != "":
		return []string{"start the daemons that it waits for, or correct peers in the nodes' files"}
	case !v.st.Quorum:
		return []string{"failoverctl status on the other nodes; a majority of the voters must run and reach each other"}
	case len(v.st.Services) == 0:
		return []string{"failoverctl apply FILE puts services in force"}
	}
	var out []string
	for _, svc := range v.st.Services {
		if svc.State != "running" {
			out = append(out, "failoverctl explain "+Plain(svc.Name))
		}
		if svc.Paused != nil {
			out = append(out, "failoverctl resume "+Plain(svc.Name))
		}
	}
	if v.st.Paused != nil {
		out = append(out, "failoverctl resume")
	}
	return out
}
