package config

import "testing"

func TestPortsAreCountedFromTheBase(t *testing.T) {
	for base, want := range map[string][4]string{
		"192.0.2.11:7400":    {"192.0.2.11:7400", "192.0.2.11:7401", "192.0.2.11:7402", "192.0.2.11:7403"},
		"[2001:db8::1]:9000": {"[2001:db8::1]:9000", "[2001:db8::1]:9001", "[2001:db8::1]:9002", "[2001:db8::1]:9003"},
		"nonsense":           {"nonsense", "nonsense", "nonsense", "nonsense"},
		"192.0.2.11:65535":   {"192.0.2.11:65535", "192.0.2.11:65535", "192.0.2.11:65535", "192.0.2.11:65535"},
	} {
		got := [4]string{RaftAddress(base), PeerAddress(base), GossipAddress(base), RenewAddress(base)}
		if got != want {
			t.Errorf("%s: %v", base, got)
		}
	}
}

// Peers are compared as text between nodes: one address has one spelling.
func TestAddressesHaveOneSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.11":               "192.0.2.11:7400",
		"192.0.2.11:7400":          "192.0.2.11:7400",
		"::ffff:192.0.2.11":        "192.0.2.11:7400",
		"[::ffff:192.0.2.11]:7400": "192.0.2.11:7400",
		"2001:DB8:0:0::1":          "[2001:db8::1]:7400",
		"[2001:db8::1]:7400":       "[2001:db8::1]:7400",
	} {
		if got, err := ParseAddress(text, DefaultPort); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"[2001:db8::1]", "192.0.2.011", "1.2.3", "192.0.2.11:0", "192.0.2.11:-1", ":7400", "a\x00b"} {
		if got, err := ParseAddress(text, DefaultPort); err == nil {
			t.Errorf("%q was accepted as %s", text, got)
		}
	}
}
