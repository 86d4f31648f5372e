package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const samples = "../../docs/samples/"

func TestSamplesLoad(t *testing.T) {
	n, err := LoadNode(samples + "node.hcl")
	if err != nil {
		t.Fatal(err)
	}
	n.Path, n.Guard = "", ""
	want := load(t, minimal)
	want.Path, want.Guard = "", ""
	if diff := cmp.Diff(want, n); diff != "" {
		t.Errorf("the sample is more than the four lines: %s", diff)
	}
	specs, err := LoadServices(samples + "services.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"erp", "reports", "192.0.2.100"}, names(specs[0])); diff != "" {
		t.Error(diff)
	}
}

var commented = regexp.MustCompile(`(?m)^#((?:  )?[a-z_]+ +[={]|\}$)`)

// What is shown as a default is the default, and every shown line is right.
func TestSampleShowsTheDefaults(t *testing.T) {
	src, err := os.ReadFile(samples + "node.hcl")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, l := range strings.Split(commented.ReplaceAllString(string(src), "$1"), "\n") {
		if !strings.HasPrefix(l, "api ") && !strings.HasPrefix(l, "gossip_key") && !strings.HasPrefix(l, "guard") {
			kept = append(kept, l)
		}
	}
	text := regexp.MustCompile(`(?s)\ntls \{.*?\n\}`).ReplaceAllString(strings.Join(kept, "\n"), "")
	got, want := load(t, text), load(t, minimal)
	got.Path, want.Path = "", ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
	for _, l := range []string{"api = \"192.0.2.11:7409\"", "guard = \"/usr/sbin/failoverguard\"", "gossip_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\""} {
		if !strings.Contains(string(src), "\n#"+l+"\n") {
			t.Errorf("the sample lacks %s", l)
		}
		load(t, minimal+l)
	}
}

func TestSamplesNameEveryKey(t *testing.T) {
	for file, keys := range map[string][]string{
		"node.hcl":     slices.Concat(nodeKeys, logKeys, tlsKeys, timingKeys()),
		"services.hcl": slices.Concat(serviceKeys, vipKeys, processKeys, execKeys),
	} {
		src, err := os.ReadFile(samples + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if !regexp.MustCompile(`(?m)^[# ]*(vip .*\{ )?` + k + ` += `).Match(src) {
				t.Errorf("%s does not show %s", file, k)
			}
		}
	}
}
