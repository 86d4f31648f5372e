package house

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/failoverd/failoverd/"

// rules names, for each package or tree (ending in /...), the packages of this
// module that it may import directly. The first rule that matches counts.
var rules = []struct {
	of    string
	allow []string
}{
	{"cmd/failoverd", []string{"cluster/daemon"}},
	{"cmd/failoverguard", []string{"fencing/guard", "vip/gate", "service/cgroup"}},
	{"cmd/failoverctl/...", []string{"cmd/failoverctl/...", "cluster", "cluster/state", "cluster/rpc", "cluster/config", "cluster/consensus", "cluster/daemon"}},
	{"cluster/state", nil},
	{"cluster/clock/...", []string{"cluster/clock"}},
	{"cluster/journal", nil},
	{"cluster/decide", []string{"cluster/state"}},
	{"cluster/lease", []string{"cluster/state", "cluster/clock"}},
	{"cluster/evidence", []string{"cluster/state", "cluster/decide", "cluster/lease", "cluster/clock"}},
	{"cluster/sim/...", []string{"cluster/sim/...", "cluster/state", "cluster/decide", "cluster/lease", "cluster/clock", "cluster/evidence"}},
	{"cluster/renew", []string{"cluster/lease", "cluster/clock", "cluster/state"}},
	{"cluster/consensus/...", []string{"cluster/consensus/...", "cluster", "cluster/state"}},
	{"cluster/gossip", []string{"cluster", "cluster/state", "cluster/config", "cluster/decide"}},
	{"cluster/rpc", []string{"cluster", "cluster/state", "proto/failover/v1"}},
	{"cluster/config", []string{"cluster", "cluster/state"}},
	{"cluster/daemon/...", []string{"cluster/...", "vip/...", "fencing/...", "service/..."}},
	{"cluster", []string{"cluster/state", "cluster/decide", "cluster/lease", "cluster/clock", "cluster/journal", "cluster/evidence"}},
	{"vip/...", []string{"vip/..."}},
	{"service/...", []string{"service/...", "fencing/guard"}},
	{"fencing/...", []string{"fencing/...", "service/cgroup", "vip/gate"}},
	{"proto/...", []string{"proto/..."}},
	{"internal/failpoint", nil},
	{"integration/...", []string{"..."}},
}

// pure are the packages that see no time, no chance, no disk and no network, and
// that nothing may interrupt half way.
var pure = []string{"cluster/state", "cluster/decide", "cluster/lease"}

// anywhere may be imported by every package but the pure ones.
const anywhere = "internal/failpoint"

func matches(pattern, path string) bool {
	if tree, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(path, tree) || path == strings.TrimSuffix(tree, "/")
	}
	return path == pattern
}

func allowed(of, imported string) (ok, known bool) {
	for _, r := range rules {
		if !matches(r.of, of) {
			continue
		}
		if imported == anywhere && !slices.Contains(pure, of) {
			return true, true
		}
		for _, a := range r.allow {
			if matches(a, imported) {
				return true, true
			}
		}
		return false, true
	}
	return false, false
}

type listed struct {
	ImportPath string
	Imports    []string
}

// TestImportDirections holds the direction of ARCHITECTURE.md: commands know the
// daemon, the daemon knows drivers and adapters, these know the node, the node
// knows the pure core, and nothing knows what stands above it.
func TestImportDirections(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		seen++
		of := strings.TrimPrefix(p.ImportPath, module)
		for _, i := range p.Imports {
			imported, own := strings.CutPrefix(i, module)
			if !own {
				continue
			}
			switch ok, known := allowed(of, imported); {
			case !known:
				t.Errorf("%s has no rule: say in rules what it may import", of)
			case !ok:
				t.Errorf("%s imports %s: against the direction", of, imported)
			}
		}
	}
	if seen < 15 {
		t.Fatalf("only %d packages listed: the check looked at nothing", seen)
	}
}

// TestStateIsPure: the replicated state machine and the decisions see no time, no
// chance, no disk and no network.
func TestStateIsPure(t *testing.T) {
	impure := map[string]bool{"os": true, "net": true, "net/http": true, "math/rand": true, "math/rand/v2": true, "crypto/rand": true, "io/fs": true, "os/exec": true, "log": true, "log/slog": true, "syscall": true}
	for _, pkg := range pure {
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./"+pkg)
		cmd.Dir = "../.."
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list %s: %v", pkg, err)
		}
		var p listed
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Imports {
			if impure[i] {
				t.Errorf("%s imports %s", pkg, i)
			}
		}
	}
}
