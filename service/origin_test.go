package service

import (
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	o := Origin{Service: "erp", Node: "a", Epoch: 1, Previous: "b", Reason: "its lease ran out", Proof: "expired"}
	got := strings.Join(o.Environment(7), "\n")
	want := "FAILOVER_SERVICE=erp\nFAILOVER_EPOCH=7\nFAILOVER_NODE=a\nFAILOVER_PREVIOUS=b\nFAILOVER_REASON=its lease ran out\nFAILOVER_PROOF=expired"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTail(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " \n\n": "", "a\n": `; its output ends with "a"`,
		strings.Repeat("x", 1000) + "end\n": `; its output ends with "` + strings.Repeat("x", 397) + `end"`,
	} {
		if got := Tail([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
