package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// Marshal prints the configuration in effect, every default written out and
// every secret masked, as a file that could be read again but for the secret.
func (n *Node) Marshal() []byte {
	var b strings.Builder
	var lines []line
	add := func(key, value string) { lines = append(lines, line{key, value}) }
	add("node", quote(n.Name))
	add("address", quote(n.Address))
	add("peers", quoteList(n.Peers))
	add("role", quote(string(n.Role)))
	add("insecure", strconv.FormatBool(n.Insecure))
	add("profile", quote(n.Profile))
	add("data_dir", quote(n.DataDir))
	add("socket", quote(n.Socket))
	if n.API != "" {
		add("api", quote(n.API))
	}
	add("guard", quote(n.Guard))
	add("hook_dirs", quoteList(n.HookDirs))
	if n.GossipKey != nil {
		add("gossip_key", quote(fmt.Sprintf("(%d bytes, not shown)", len(n.GossipKey))))
	}
	writeLines(&b, "", lines)
	writeBlock(&b, "log", []line{{"level", quote(n.Log.Level)}, {"format", quote(n.Log.Format)}})
	if n.TLS != nil {
		writeBlock(&b, "tls", []line{{"ca", quote(n.TLS.CA)}, {"cert", quote(n.TLS.Cert)}, {"key", quote(n.TLS.Key)}})
	}
	t := n.Timing
	lines = nil
	for _, d := range t.durations() {
		add(d.key, quote(d.value.String()))
	}
	add("gossip_suspicion", strconv.Itoa(t.GossipSuspicion))
	writeBlock(&b, "timing", lines)
	return []byte(b.String())
}

// Warnings says what is allowed and yet probably not meant.
func (n *Node) Warnings() []string {
	var out []string
	if n.Insecure && !hostOf(n.Address).IsLoopback() {
		out = append(out, fmt.Sprintf("insecure = true: whoever reaches %s can act as a node of this cluster", n.Address))
	}
	if n.Insecure && n.API != "" && !hostOf(n.API).IsLoopback() {
		out = append(out, fmt.Sprintf("insecure = true: whoever reaches %s can steer this cluster", n.API))
	}
	if n.TLS != nil && n.GossipKey == nil {
		out = append(out, "tls { } does not cover gossip: set gossip_key_file, or anybody on the network can claim that a node is dead")
	}
	if len(n.Peers) == 1 {
		out = append(out, "this node is the only peer: nothing takes over when it fails")
	}
	if len(n.Peers) > 2 && len(n.Peers)%2 == 0 && n.Role != state.RoleMember {
		out = append(out, fmt.Sprintf("%d peers survive no more losses than %d would, if all of them vote", len(n.Peers), len(n.Peers)-1))
	}
	if n.Timing.Heartbeat <= 100*time.Millisecond {
		out = append(out, fmt.Sprintf("heartbeat = %s: elections without need were seen at 100ms and below on busy hosts", n.Timing.Heartbeat))
	}
	return out
}

type line struct{ key, value string }

func writeLines(b *strings.Builder, indent string, lines []line) {
	width := 0
	for _, l := range lines {
		width = max(width, len(l.key))
	}
	for _, l := range lines {
		fmt.Fprintf(b, "%s%-*s = %s\n", indent, width, l.key, l.value)
	}
}

func writeBlock(b *strings.Builder, name string, lines []line) {
	fmt.Fprintf(b, "\n%s {\n", name)
	writeLines(b, "  ", lines)
	b.WriteString("}\n")
}

// quote writes text as HCL reads it.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, c := range s {
		next := i+1 < len(s) && s[i+1] == '{'
		switch {
		case c == '"', c == '\\':
			b.WriteRune('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case (c == '$' || c == '%') && next:
			b.WriteRune(c)
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quoteList(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
