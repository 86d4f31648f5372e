package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/failoverd/failoverd/cluster/state"
)

const minimal = `
node    = "a"
address = "192.0.2.11"
peers   = ["192.0.2.13", "192.0.2.11", "192.0.2.12"]
insecure = true
`

// write puts a file that only its owner can read into a directory of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, text string) *Node {
	t.Helper()
	n, err := LoadNode(write(t, "node.hcl", text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFourLinesAreEnough(t *testing.T) {
	got := load(t, minimal)
	want := &Node{
		Path: got.Path, Name: "a", Address: "192.0.2.11:7400",
		Peers: []string{"192.0.2.11:7400", "192.0.2.12:7400", "192.0.2.13:7400"},
		Role:  state.RoleVoter, Insecure: true, Profile: "default",
		DataDir: "/var/lib/failoverd", Socket: "/run/failoverd/failoverd.sock",
		Guard: got.Guard, HookDirs: []string{"/etc/failoverd/hooks"},
		Log: Log{Level: "info", Format: "text"}, Timing: Default(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if filepath.Base(got.Guard) != "failoverguard" || !filepath.IsAbs(got.Guard) {
		t.Errorf("guard is %q", got.Guard)
	}
}

func TestEverySettingReachesItsField(t *testing.T) {
	got := load(t, `
node        = "db-1"
address     = "[2001:db8::11]:7500"
peers       = ["2001:db8::11", "2001:db8::12", "[2001:db8::13]:7600"]
port        = 7500
role        = "witness"
insecure    = true
profile     = "fast"
data_dir    = "/srv/fo/"
socket      = "/run/fo/fo.sock"
api         = "127.0.0.1:7409"
guard       = "/opt/fo/failoverguard"
hook_dirs   = ["/opt/hooks", "/usr/sbin/"]
gossip_key  = "MDEyMzQ1Njc4OWFiY2RlZg=="
log { 
  level  = "debug"
  format = "json"
}
timing {
  lease            = "1s"
  renew            = "100ms"
  gossip_suspicion = 5
}
`)
	timing := Fast()
	timing.Lease, timing.Renew, timing.GossipSuspicion = time.Second, 100*time.Millisecond, 5
	want := &Node{
		Path: got.Path, Name: "db-1", Address: "[2001:db8::11]:7500",
		Peers: []string{"[2001:db8::11]:7500", "[2001:db8::12]:7500", "[2001:db8::13]:7600"},
		Role:  state.RoleWitness, Insecure: true, Profile: "fast",
		DataDir: "/srv/fo", Socket: "/run/fo/fo.sock", API: "127.0.0.1:7409",
		Guard: "/opt/fo/failoverguard", HookDirs: []string{"/opt/hooks", "/usr/sbin"},
		GossipKey: []byte("0123456789abcdef"), Log: Log{Level: "debug", Format: "json"}, Timing: timing,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestJSONIsTheSameLanguage(t *testing.T) {
	fromJSON, err := LoadNode(write(t, "node.json", `{
  "//": "a comment",
  "node": "a", "address": "192.0.2.11", "insecure": true,
  "peers": ["192.0.2.11", "192.0.2.12", "192.0.2.13"],
  "timing": {"lease": "3s"}, "log": {"level": "warn"}
}`))
	if err != nil {
		t.Fatal(err)
	}
	fromHCL := load(t, minimal+"timing { lease = \"3s\" }\nlog { level = \"warn\" }")
	fromHCL.Path = fromJSON.Path
	if diff := cmp.Diff(fromHCL, fromJSON); diff != "" {
		t.Error(diff)
	}
}

func TestMarshalCanBeReadAgain(t *testing.T) {
	n := load(t, minimal+`profile = "fast"
api = "192.0.2.11:7410"
hook_dirs = ["/a \"b\" $${c} %%{d}", "/e\\f"]
`)
	again, err := LoadNode(write(t, "again.hcl", string(n.Marshal())))
	if err != nil {
		t.Fatalf("%v\n%s", err, n.Marshal())
	}
	again.Path = n.Path
	if diff := cmp.Diff(n, again); diff != "" {
		t.Error(diff)
	}
}

func TestMarshalKeepsSecrets(t *testing.T) {
	n := load(t, minimal+`gossip_key = "MDEyMzQ1Njc4OWFiY2RlZg=="`)
	out := string(n.Marshal())
	if strings.Contains(out, "MDEy") || strings.Contains(out, "0123456789abcdef") {
		t.Errorf("the key is shown:\n%s", out)
	}
	if !strings.Contains(out, `"(16 bytes, not shown)"`) {
		t.Errorf("nothing says that a key is set:\n%s", out)
	}
}

func TestHashSeesWhatMustNotDiffer(t *testing.T) {
	base := Hash(load(t, minimal))
	same := Hash(load(t, strings.NewReplacer(`"a"`, `"b"`, `= "192.0.2.11"`, `= "192.0.2.12"`).Replace(minimal)+`data_dir = "/x"`))
	if base != same {
		t.Error("two nodes of one cluster have different hashes")
	}
	for name, extra := range map[string]string{
		"profile": `profile = "fast"`,
		"lease":   `timing { lease = "2100ms" }`,
		"gossip":  `timing { gossip_suspicion = 5 }`,
		"key":     `gossip_key = "MDEyMzQ1Njc4OWFiY2RlZg=="`,
	} {
		if Hash(load(t, minimal+extra)) == base {
			t.Errorf("%s does not change the hash", name)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{minimal, "whoever reaches 192.0.2.11:7400"},
		{minimal + `api = "192.0.2.11:80"`, "can steer this cluster"},
		{minimal + `timing { 
heartbeat = "100ms" 
leader_lease = "50ms"
}`, "elections without need"},
		{strings.Replace(minimal, `["`, `["192.0.2.14", "`, 1), "4 peers survive no more losses than 3"},
		{"node = \"a\"\naddress = \"127.0.0.1\"\npeers = [\"127.0.0.1\"]", "only peer"},
	} {
		if got := strings.Join(load(t, c.text).Warnings(), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("no %q in %q", c.want, got)
		}
	}
}
