package state

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReadHelpers(t *testing.T) {
	s := rich(t)
	if got := s.NodeNames(); !slices.Equal(got, []string{"a", "b", "c", "w"}) {
		t.Errorf("nodes %v", got)
	}
	if got := s.ServiceNames(); !slices.Equal(got, []string{"db", "erp"}) {
		t.Errorf("services %v: the one that is gone is left out", got)
	}
	for node, want := range map[string]uint64{"a": 35, "b": 12, "c": 0, "w": 0, "z": 0} {
		got := uint64(0)
		if sess := s.OpenSession(node); sess != nil {
			got = sess.ID
		}
		if got != want {
			t.Errorf("open session of %s is %d, not %d", node, got, want)
		}
	}
	if got := s.UnendedSessions("a"); len(got) != 2 || got[0].ID != 11 || got[1].ID != 35 {
		t.Errorf("unended sessions of a: %v", got)
	}
	if got := s.HeldBy("a"); len(got) != 1 || got[0].Service != "erp" || got[0].Grant.Epoch != 1 {
		t.Errorf("held by a: %+v", got)
	}
	if got := s.HeldUnder(13); len(got) != 1 || got[0].Service != "db" {
		t.Errorf("held under 13: %+v", got)
	}
	if got := s.PausedBy("erp"); got == nil || got.Reason != "switch" {
		t.Errorf("erp is paused by %+v", got)
	}
	s.Paused = nil
	if got := s.PausedBy("db"); got == nil || got.Reason != "index" {
		t.Errorf("db is paused by %+v", got)
	}
	if got := s.PausedBy("erp"); got != nil {
		t.Errorf("erp is paused by %+v", got)
	}
}

func TestAccepted(t *testing.T) {
	s := rich(t)
	db := s.Services["db"]
	g := db.Grants[0]
	if kind, over := s.Accepted(db, g); over {
		t.Errorf("expiry ended a grant that wants fencing: %s", kind)
	}
	easy := db.clone()
	easy.Spec.Takeover = TakeoverLease
	if kind, over := s.Accepted(easy, g); !over || kind != ProofExpired {
		t.Errorf("got %q, %v", kind, over)
	}
	// A mark stands by itself, whatever became of the policy or the session.
	g.Over, g.Session = ProofExpired, 999
	if kind, over := s.Accepted(db, g); !over || kind != ProofExpired {
		t.Errorf("got %q, %v", kind, over)
	}
	if _, over := s.Accepted(nil, Grant{Session: 13}); over {
		t.Error("no service, no policy")
	}
	if _, over := s.Accepted(easy, Grant{Session: 11}); over {
		t.Error("a closing session proves nothing")
	}
}

func TestValidateJoins(t *testing.T) {
	err := Spec{Name: "erp", Resources: []Resource{{Kind: "vip", Name: "v", VIP: &VIP{Address: "10.0.0.0/8"}}}}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 3 {
		t.Errorf("want three problems joined, got %v", err)
	}
	if err := (Spec{Name: "erp", Takeover: TakeoverFence}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain":             "plain",
		" a\r\nb\tc ":       "a  b c",
		"\xff":              "\uFFFD",
		"\u0085x":           "x",
		string([]byte{0}):   "",
		"ünïcödé stays":     "ünïcödé stays",
		"\x1b[2Jwiped line": "[2Jwiped line",
	} {
		if got := tidyText(in); got != want {
			t.Errorf("tidyText(%q) = %q, want %q", in, got, want)
		}
	}
	long := tidyText(strings.Repeat("ü", maxText))
	if len(long) > maxText || !utf8.ValidString(long) || !strings.HasSuffix(long, "…") {
		t.Errorf("%d bytes, %q", len(long), long[len(long)-8:])
	}
	if again := tidyText(long); again != long {
		t.Error("a tidy text is not left alone")
	}
	for _, name := range []string{"a", "Node-1.example.org", "7", "a_b", strings.Repeat("x", maxName)} {
		if err := ValidName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "-a", "_a", "a b", "a/b", "ä", "a\x00", strings.Repeat("x", maxName+1)} {
		if ValidName(name) == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}
