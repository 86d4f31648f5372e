package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

const goodServices = `service "pg" {
  process "web" { command = ["/usr/bin/web"] }
  vip "192.0.2.100/24" { interface = "eth0" }
}
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every command that changes something asks for exactly that, in the name of
// who types, and says what it did.
func TestWhatCommandsAskFor(t *testing.T) {
	f, path := node(t)
	f.move = cluster.SwitchoverResult{Service: "pg", From: "a", To: "b", Epoch: 5, Took: 28 * time.Millisecond, Steps: []string{"a stops", "b starts"}}
	f.apply = cluster.ApplyResult{Index: 9, Changes: []string{"pg is new"}}
	tests := map[string]struct {
		want any
		out  string
	}{
		"switchover":                                  {cluster.SwitchoverRequest{By: "ann"}, "pg moved from a to b as epoch 5 in 28 ms"},
		"switchover pg --to b --reason r":             {cluster.SwitchoverRequest{Service: "pg", To: "b", By: "ann", Why: "r"}, "Done"},
		"switchover pg --dry-run":                     {cluster.SwitchoverRequest{Service: "pg", By: "ann", DryRun: true}, "Nothing was done. pg would move"},
		"failover pg --force --reason r --yes":        {cluster.FailoverRequest{Service: "pg", Force: true, By: "ann", Why: "r"}, "Done"},
		"failover pg --force --reason r --yes --to b": {cluster.FailoverRequest{Service: "pg", To: "b", Force: true, By: "ann", Why: "r"}, "Done"},
		"pause":                         {cluster.PauseRequest{On: true, By: "ann"}, "Paused: the whole cluster, until it is resumed"},
		"pause pg --for 30m --reason r": {cluster.PauseRequest{Service: "pg", On: true, For: 30 * time.Minute, By: "ann", Why: "r"}, "next: failoverctl resume pg"},
		"resume pg --reason r":          {cluster.PauseRequest{Service: "pg", By: "ann", Why: "r"}, "Resumed: pg"},
		"resume":                        {cluster.PauseRequest{By: "ann"}, "Resumed: the whole cluster"},
		"node standby b --reason r":     {cluster.StandbyRequest{Node: "b", On: true, By: "ann", Why: "r"}, "b stands by"},
		"node unstandby b":              {cluster.StandbyRequest{Node: "b", By: "ann"}, "b may hold services again"},
		"node restart b --reason r":     {[]string{"restart", "b", "ann", "r"}, "b restarts its daemon"},
		"cleanup pg":                    {[]string{"cleanup", "pg", "", "ann"}, "the failures of pg on every node"},
		"cleanup pg b":                  {[]string{"cleanup", "pg", "b", "ann"}, "the failures of pg on b"},
		"members add d 192.0.2.4":       {cluster.MemberRequest{Action: "add", Node: "d", Address: "192.0.2.4:7400", Role: "voter", By: "ann"}, "d is a voter"},
		"members add w 192.0.2.5:99 --role witness": {cluster.MemberRequest{Action: "add", Node: "w", Address: "192.0.2.5:99", Role: "witness", By: "ann"}, "w is a witness"},
		"members promote b --reason r":              {cluster.MemberRequest{Action: "promote", Node: "b", By: "ann", Why: "r"}, "b votes."},
		"members demote b":                          {cluster.MemberRequest{Action: "demote", Node: "b", By: "ann"}, "b votes no more"},
		"members remove b":                          {cluster.MemberRequest{Action: "remove", Node: "b", By: "ann"}, "b is no member"},
		"members replace b d [2001:db8::4]:1":       {cluster.MemberRequest{Action: "replace", Node: "d", Replaces: "b", Address: "[2001:db8::4]:1", By: "ann"}, "d has taken the place of b"},
	}
	for line, test := range tests {
		t.Run(line, func(t *testing.T) {
			code, out, errOut := ctl(path, strings.Fields(line)...)
			if code != exitOK || errOut != "" {
				t.Fatalf("exit %d: %s", code, errOut)
			}
			if diff := cmp.Diff([]any{test.want}, f.take()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if !strings.Contains(out, test.out) {
				t.Errorf("it says %q, want %q", out, test.out)
			}
		})
	}
}

func TestApplyAndPlan(t *testing.T) {
	f, path := node(t)
	f.apply = cluster.ApplyResult{Index: 9, Changes: []string{"pg is new: it is granted to the best candidate"}}
	file := write(t, "services.hcl", goodServices)
	for line, want := range map[string]cluster.ApplyRequest{
		"plan FILE":                           {DryRun: true},
		"plan FILE --prune":                   {DryRun: true, Prune: true},
		"apply FILE --dry-run":                {DryRun: true},
		"apply FILE --prune --yes --reason r": {Prune: true, Yes: true, Why: "r"},
		"apply FILE":                          {},
	} {
		code, out, errOut := ctl(path, strings.Fields(strings.ReplaceAll(line, "FILE", file))...)
		if code != exitOK || !strings.Contains(out, "- pg is new") || strings.Contains(out, "Nothing was done") != want.DryRun {
			t.Errorf("%s: exit %d, %q, %q", line, code, out, errOut)
		}
		asked := f.take()
		if len(asked) != 1 {
			t.Fatalf("%s: asked %d times", line, len(asked))
		}
		got := asked[0].(cluster.ApplyRequest)
		if len(got.Services) != 1 || got.Services[0].Name != "pg" || len(got.Services[0].Resources) != 2 || got.Services[0].Resources[1].VIP == nil {
			t.Errorf("%s: services %+v", line, got.Services)
		}
		want.By, got.Services = "ann", nil
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: asked (-want +got):\n%s", line, diff)
		}
	}
	// A mistake in the file is told with its line, and nobody is asked.
	bad := write(t, "bad.hcl", "service \"pg\" {\n  vipp \"192.0.2.1/24\" {}\n}\n")
	for _, command := range []string{"plan", "apply", "validate"} {
		code, _, errOut := ctl(path, command, bad)
		if code != exitError || !strings.Contains(errOut, bad+":2:") || len(f.take()) != 0 {
			t.Errorf("%s of a bad file: exit %d, %q", command, code, errOut)
		}
	}
}

func TestValidate(t *testing.T) {
	services := write(t, "services.hcl", goodServices)
	good := write(t, "node.hcl", "node = \"a\"\naddress = \"127.0.0.1\"\npeers = [\"127.0.0.1\"]\ninsecure = true\n")
	bad := write(t, "node.hcl", "node = \"a\"\naddress = \"127.0.0.1\"\npeers = [\"127.0.0.1\"]\ninsecur = true\n")
	asJSON := write(t, "node.json", `{"node": "a", "address": "127.0.0.1", "peers": ["127.0.0.1"], "profil": "fast"}`)
	c := &call{}
	if code := c.run("validate", services); code != exitOK || !strings.Contains(c.out.String(), "good, 1 service(s)") {
		t.Errorf("services: exit %d, %s%s", code, c.out.String(), c.err.String())
	}
	c = &call{}
	if code := c.run("validate", good); code != exitOK || !strings.Contains(c.out.String(), "good, node a") {
		t.Errorf("node: exit %d, %s%s", code, c.out.String(), c.err.String())
	}
	// All files are looked at, and all mistakes told.
	c = &call{}
	if code := c.run("validate", bad, services, asJSON, "/nonexistent/x.hcl"); code != exitError {
		t.Errorf("bad files: exit %d", code)
	}
	for _, want := range []string{bad + ":4:", "insecure", asJSON, "profil", "/nonexistent/x.hcl"} {
		if !strings.Contains(c.err.String(), want) {
			t.Errorf("no word of %s in:\n%s", want, c.err.String())
		}
	}
	if !strings.Contains(c.out.String(), "good, 1 service(s)") {
		t.Errorf("the good file among bad ones: %s", c.out.String())
	}
}

func TestReads(t *testing.T) {
	f, path := node(t)
	for i := range uint64(5) {
		f.events = append(f.events, state.Event{Index: i + 1, Kind: "grant", Service: []string{"pg", "web"}[i%2], Why: "reason"})
	}
	check := func(line, want string, lines int) {
		t.Helper()
		code, out, errOut := ctl(path, strings.Fields(line)...)
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, %q, %q", line, code, out, errOut)
		}
		if got := strings.Count(out, "\n"); lines > 0 && got != lines {
			t.Errorf("%s: %d lines, want %d:\n%s", line, got, lines, out)
		}
	}
	check("status", "Service pg", 0)
	check("status -o wide", "ADDRESS", 0)
	check("explain pg b", "explained: pg b", 1)
	check("explain", "explained:", 1)
	check("history", "grant", 5)
	check("history pg", "pg", 3)
	check("history -n 2", "grant", 2)
	check("history --node nowhere", "Nothing has happened yet", 1)
	check("events -n 3", "grant", 3)
	check("events web -n 0", "", 0)
	check("events -o json -n 2", `"kind":"grant"`, 2)
	check("members", "192.0.2.1:7400", 2)
	check("members list", "192.0.2.1:7400", 2)
	check("version", "node a: failoverd 1.2.3", 2)
	check("version --client", "failoverctl ", 1)
	for _, line := range []string{"status --local", "explain --local", "history --local"} {
		check(line, "", 0)
		if !f.local {
			t.Errorf("%s asked the leader", line)
		}
	}
	check("status", "", 0)
	if f.local {
		t.Error("status without --local asked for the node's own view")
	}
}

// What programs read is JSON of the types in package cluster, whole.
func TestJSON(t *testing.T) {
	f, path := node(t)
	var st cluster.Status
	read := func(into any, args ...string) {
		t.Helper()
		code, out, errOut := ctl(path, args...)
		if code != exitOK {
			t.Fatalf("%v: exit %d: %s", args, code, errOut)
		}
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatalf("%v: %v in %s", args, err, out)
		}
		if strings.Contains(out, "null") {
			t.Errorf("%v: an empty list is null in %s", args, out)
		}
	}
	read(&st, "status", "-o", "json")
	if st.Services[0].Name != "pg" || st.Services[0].LeaseLeft != time.Second || !st.At.Equal(f.status.At) {
		t.Errorf("status came as %+v", st)
	}
	var events []state.Event
	read(&events, "history", "-o", "json")
	if events == nil || len(events) != 0 {
		t.Errorf("no history came as %#v", events)
	}
	var e cluster.Explanation
	read(&e, "explain", "pg", "-o", "json")
	var members []cluster.Member
	read(&members, "members", "-o", "json")
	read(&members, "members", "list", "-o", "json")
	var v versions
	read(&v, "version", "-o", "json")
	if v.Node == nil || v.Node.Version != "1.2.3" {
		t.Errorf("version came as %+v", v)
	}
	var move cluster.SwitchoverResult
	read(&move, "switchover", "pg", "-o", "json")
	var plan cluster.ApplyResult
	read(&plan, "plan", write(t, "s.hcl", goodServices), "-o", "json")
}

func TestWhatIsANodesFile(t *testing.T) {
	for text, want := range map[string]bool{
		"node = \"a\"\n":                 true,
		"# node = 1\nservice \"x\" {}\n": false,
		"service \"x\" {\n process \"p\" { environment = {\n address = \"y\" } } }\n": false,
		"peers = [\"unclosed\n":         true,
		"service \"x\" {}\naddress = 1": true,
		"nodes = [\"a\"]":               false,
		strings.Repeat("[", 1<<20):      false,
		"":                              false,
	} {
		if got := isNodeFile(write(t, "f.hcl", text)); got != want {
			t.Errorf("%.60q: %v", text, got)
		}
	}
}

// A pipe can be read once, which must do.
func TestValidateReadsAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(goodServices); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := &call{}
	if code := c.run("validate", fmt.Sprintf("/dev/fd/%d", r.Fd())); code != exitOK || !strings.Contains(c.out.String(), "1 service(s)") {
		t.Errorf("exit %d, %s%s", code, c.out.String(), c.err.String())
	}
}
