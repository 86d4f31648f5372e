package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/failoverd/failoverd/cluster/state"
)

func loadServices(t *testing.T, name, text string) []state.Spec {
	t.Helper()
	specs, err := LoadServices(write(t, name, text))
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

func TestServicesFillEveryField(t *testing.T) {
	got := loadServices(t, "services.hcl", `
service "erp" {
  takeover   = "fence"
  nodes      = ["a", "b"]
  priorities = { a = 100, "b" = -5 }
  failback   = true

  process "erp" {
    command       = ["/usr/local/bin/erp", "--price=5$${x}"]
    environment   = { LANG = "C", "PORT" = "8080" }
    directory     = "/srv/erp/"
    user          = "erp"
    stop_signal   = "sigint"
    stop_timeout  = "20s"
    ready         = "127.0.0.1:8080"
    start_timeout = "1m"
    restarts      = 0
  }
  vip "192.0.2.100/24" {
    interface   = "eth0"
    keep_prefix = true
  }
  exec "mail" {
    start          = ["/opt/mail", "start"]
    stop           = ["/opt/mail", "stop"]
    status         = ["/opt/mail", "status"]
    start_timeout  = "1s"
    stop_timeout   = "2s"
    status_timeout = "3s"
    interval       = "4s"
  }
}
service "crm" {
  vip "10.0.0.1/31" { interface = "br-lan.5" }
  process "crm" { command = ["/usr/bin/crm"] }
  exec "x" {
    start  = ["/x"]
    stop   = ["/x"]
    status = ["/x"]
  }
}
`)
	want := []state.Spec{{
		Name: "erp", Takeover: state.TakeoverFence, Nodes: []string{"a", "b"},
		Priorities: map[string]int{"a": 100, "b": -5}, Failback: true,
		Resources: []state.Resource{
			{Kind: "process", Name: "erp", Process: &state.Process{
				Command: []string{"/usr/local/bin/erp", "--price=5${x}"}, Environment: map[string]string{"LANG": "C", "PORT": "8080"},
				Directory: "/srv/erp", User: "erp", StopSignal: "INT", StopTimeout: 20 * time.Second,
				Ready: "127.0.0.1:8080", StartTimeout: time.Minute,
			}},
			{Kind: "vip", Name: "192.0.2.100", VIP: &state.VIP{Address: "192.0.2.100/24", Interface: "eth0", Prefix: true}},
			{Kind: "exec", Name: "mail", Exec: &state.Exec{
				Start: []string{"/opt/mail", "start"}, Stop: []string{"/opt/mail", "stop"}, Status: []string{"/opt/mail", "status"},
				StartTimeout: time.Second, StopTimeout: 2 * time.Second, StatusTimeout: 3 * time.Second, Interval: 4 * time.Second,
			}},
		},
	}, {
		Name: "crm", Takeover: state.TakeoverLease,
		Resources: []state.Resource{
			{Kind: "vip", Name: "10.0.0.1", VIP: &state.VIP{Address: "10.0.0.1/31", Interface: "br-lan.5"}},
			{Kind: "process", Name: "crm", Process: &state.Process{
				Command: []string{"/usr/bin/crm"}, StopTimeout: DefaultStopTimeout, StartTimeout: DefaultStartTimeout, Restarts: DefaultRestarts,
			}},
			{Kind: "exec", Name: "x", Exec: &state.Exec{
				Start: []string{"/x"}, Stop: []string{"/x"}, Status: []string{"/x"},
				StartTimeout: DefaultStartTimeout, StopTimeout: DefaultStopTimeout, StatusTimeout: DefaultStatusTimeout, Interval: DefaultInterval,
			}},
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func names(spec state.Spec) (out []string) {
	for _, r := range spec.Resources {
		out = append(out, r.Name)
	}
	return out
}

// The order of the file is the start order, whatever the types of the blocks.
func TestOrderOfTheFileIsKept(t *testing.T) {
	want := []string{"192.0.2.9", "one", "two", "192.0.2.8", "three"}
	for name, text := range map[string]string{
		"services.hcl": `service "s" {
  vip "192.0.2.9/24" { interface = "eth0" }
  process "one" { command = ["/1"] }
  exec "two" {
    start  = ["/2"]
    stop   = ["/2"]
    status = ["/2"]
  }
  vip "192.0.2.8/24" { interface = "eth0" }
  process "three" { command = ["/3"] }
}`,
		"list.json": `{"service": {"s": {"resources": [
  {"vip": {"192.0.2.9/24": {"interface": "eth0"}}},
  {"process": {"one": {"command": ["/1"]}}},
  {"exec": {"two": {"start": ["/2"], "stop": ["/2"], "status": ["/2"]}}},
  {"vip": {"192.0.2.8/24": {"interface": "eth0"}}},
  {"process": {"three": {"command": ["/3"]}}}
]}}}`,
	} {
		if diff := cmp.Diff(want, names(loadServices(t, name, text)[0])); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// Without a list, the order of the properties.
	got := names(loadServices(t, "props.json", `{"service": {"s": {
  "vip": {"192.0.2.9/24": {"interface": "eth0"}},
  "process": {"b": {"command": ["/1"]}, "a": {"command": ["/1"]}},
  "exec": {"c": {"start": ["/2"], "stop": ["/2"], "status": ["/2"]}}
}}}`)[0])
	if diff := cmp.Diff([]string{"192.0.2.9", "b", "a", "c"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNoServicesIsAFileToo(t *testing.T) {
	if got := loadServices(t, "services.hcl", "# none yet\n"); got == nil || len(got) != 0 {
		t.Errorf("got %#v", got)
	}
}

// The names are used in places where the type of the block is not at hand.
func TestParseVIP(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.100/24": "192.0.2.100/24", "192.0.2.100/32": "192.0.2.100/32",
		"10.0.0.0/31": "10.0.0.0/31", "10.0.0.1/31": "10.0.0.1/31", "10.1.8.255/21": "10.1.8.255/21", "172.16.0.1/1": "172.16.0.1/1",
	} {
		p, err := ParseVIP(text)
		if err != nil || p.String() != want {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "/", "10.0.0.4/30", "10.0.0.7/30", "0.0.0.1/24", "255.255.255.255/32", "10.0.0.1/-1", "10.0.0.1/024", "::ffff:10.0.0.1/120"} {
		if p, err := ParseVIP(text); err == nil {
			t.Errorf("%q was accepted as %v", text, p)
		}
	}
}

func TestCheckInterfaces(t *testing.T) {
	specs := loadServices(t, "services.hcl", `service "s" {
  vip "192.0.2.9/24" { interface = "eth0" }
  vip "192.0.2.8/24" { interface = "ethO" }
}`)
	err := checkInterfaces(specs, []string{"lo", "eth0"})
	want := `service s, vip 192.0.2.8/24: this host has no interface "ethO". Did you mean "eth0"?`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if err := checkInterfaces(specs[:0], nil); err != nil {
		t.Error(err)
	}
	if err := CheckInterfaces(specs[:0]); err != nil {
		t.Error(err)
	}
}
