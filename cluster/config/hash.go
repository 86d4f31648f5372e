package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// ProtocolVersion counts the incompatible changes of what nodes say to one
// another by gossip and renewals; it is part of Hash.
const ProtocolVersion = 1

// Hash is a short fingerprint of the settings that must not differ between the
// nodes of a cluster. What it covers is compared and shown, never enforced: the
// lease that counts is the one that a session carries. No secret goes into it.
func Hash(n *Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "protocol %d\n", ProtocolVersion)
	t := n.Timing
	for _, d := range t.durations() {
		fmt.Fprintf(&b, "%s %d\n", d.key, d.value.Nanoseconds())
	}
	fmt.Fprintf(&b, "gossip_suspicion %d\n", t.GossipSuspicion)
	fmt.Fprintf(&b, "tls %t\ngossip encrypted %t\n", n.TLS != nil, n.GossipKey != nil)
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:8])
}
