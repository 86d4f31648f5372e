package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/failoverd/failoverd/cluster/state"
)

// Where things are when the file does not say.
const (
	DefaultDataDir = "/var/lib/failoverd"
	DefaultSocket  = "/run/failoverd/failoverd.sock"
	DefaultHookDir = "/etc/failoverd/hooks"
	guardName      = "failoverguard"
)

// Node is a node's own configuration with every default filled in.
type Node struct {
	Path string // the file it was read from

	Name    string
	Address string   // host:port; the port is the base that RaftAddress and its like count from
	Peers   []string // host:port of every founding node, this one among them, sorted
	Role    state.Role

	Insecure bool // may listen without certificates on addresses other than loopback
	Profile  string
	DataDir  string
	Socket   string // Unix socket for operators; its directory gets mode 0750
	API      string // host:port for operators over TCP; empty: none
	Guard    string // path of failoverguard
	HookDirs []string

	TLS       *TLS   // nil: none
	GossipKey []byte // 16, 24 or 32 bytes; nil: gossip is not encrypted
	Log       Log
	Timing    Timing
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// The keys of a node's file, its blocks apart.
var (
	nodeKeys = []string{
		"node", "address", "port", "peers", "role", "insecure", "profile", "data_dir", "socket", "api",
		"guard", "hook_dirs", "gossip_key", "gossip_key_file",
	}
	logKeys = []string{"level", "format"}
	tlsKeys = []string{"ca", "cert", "key"}
)

// LoadNode reads a node's own file. The error is an *Error with every mistake
// that was found, unless the file could not be read at all.
func LoadNode(path string) (*Node, error) {
	r := &report{file: path}
	src, err := readFile(path)
	if err != nil {
		r.whole("", "%s", reason(err))
		return nil, r.err()
	}
	return parseNode(r, src)
}

// parseNode reads the text of a node's file; relative paths in it count from
// the file's directory.
func parseNode(r *report, src []byte) (*Node, error) {
	body := parse(r, src)
	if body == nil {
		return nil, r.err()
	}
	n := &Node{
		Path: r.file, Role: state.RoleVoter, Profile: ProfileDefault,
		DataDir: DefaultDataDir, Socket: DefaultSocket, Guard: besideSelf(guardName),
		HookDirs: []string{DefaultHookDir}, Log: Log{Level: "info", Format: "text"},
	}
	s := open(r, "", body, nodeKeys, block{name: "log"}, block{name: "tls"}, block{name: "timing"})

	n.readName(s)
	n.readAddresses(s)
	understood := s.yes("insecure", &n.Insecure) || !s.has("insecure")
	n.readPaths(s)
	n.readLog(s)
	n.readGossipKey(s)
	n.readTLS(s)
	n.readTiming(s)
	if understood {
		n.checkExposure(s)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return n, nil
}

var (
	nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
)

const nameRule = "a name has 1 to 63 letters, digits, dots, dashes or underscores, and begins and ends with a letter or digit"

func (n *Node) readName(s *section) {
	switch {
	case !s.has("node"):
		s.missing("node", "the name of this node", `"a"`)
	case s.text("node", &n.Name) && !nodeName.MatchString(n.Name):
		s.bad("node", "node = %q: %s", n.Name, nameRule)
	}
	var role string
	if s.text("role", &role) {
		n.Role = state.Role(role)
		roles := []string{string(state.RoleVoter), string(state.RoleWitness), string(state.RoleMember)}
		if !slices.Contains(roles, role) {
			s.bad("role", `role = %q is none: "voter" votes and may hold, "witness" only votes, "member" may hold without a vote.%s`, role, suggestNear(role, roles))
		}
	}
}

func (n *Node) readPaths(s *section) {
	for _, p := range []struct {
		key  string
		into *string
	}{{"data_dir", &n.DataDir}, {"socket", &n.Socket}, {"guard", &n.Guard}} {
		if s.text(p.key, p.into) {
			*p.into = n.absolute(s, p.key, *p.into)
		}
	}
	if len(n.Socket) > 107 {
		s.bad("socket", "socket = %q is longer than the 107 bytes that a Unix socket may have; choose a shorter path", n.Socket)
	}
	if s.list("hook_dirs", &n.HookDirs) {
		for i, dir := range n.HookDirs {
			if !filepath.IsAbs(dir) {
				s.badItem("hook_dirs", i, "hook_dirs: %q must be an absolute path", dir)
			}
			n.HookDirs[i] = filepath.Clean(dir)
			if n.HookDirs[i] == "/" {
				s.badItem("hook_dirs", i, `hook_dirs must not hold "/": every program of the host could then be run as root by whoever can apply services`)
			}
		}
	}
}

// absolute accepts an absolute path and cleans it.
func (n *Node) absolute(s *section, key, path string) string {
	if !filepath.IsAbs(path) {
		s.bad(key, "%s = %q must be an absolute path, since the daemon's working directory is not yours", s.prefix+key, path)
		return path
	}
	return filepath.Clean(path)
}

func (n *Node) readLog(s *section) {
	b := s.one("log")
	if b == nil {
		return
	}
	l := open(s.r, "log.", b.Body, logKeys)
	for _, c := range []struct {
		key   string
		into  *string
		known []string
	}{
		{"level", &n.Log.Level, []string{"debug", "info", "warn", "error"}},
		{"format", &n.Log.Format, []string{"text", "json"}},
	} {
		if l.text(c.key, c.into) && !slices.Contains(c.known, *c.into) {
			l.bad(c.key, "log.%s = %q must be one of: %s.%s", c.key, *c.into, strings.Join(c.known, ", "), suggestNear(*c.into, c.known))
		}
	}
}

func (n *Node) readTiming(s *section) {
	if s.text("profile", &n.Profile) && !slices.Contains(Profiles(), n.Profile) {
		s.bad("profile", "profile = %q is none of: %s.%s", n.Profile, strings.Join(Profiles(), ", "), suggestNear(n.Profile, Profiles()))
		return // without a profile there is nothing to compare single values with
	}
	n.Timing, _ = ProfileTiming(n.Profile)
	t, b := s, s.one("timing")
	before := len(s.r.problems)
	if b != nil {
		t = open(s.r, "timing.", b.Body, timingKeys())
		for _, d := range n.Timing.durations() {
			t.period(d.key, d.value)
		}
		t.whole("gossip_suspicion", &n.Timing.GossipSuspicion, 0, 1000)
	}
	if len(s.r.problems) > before {
		return
	}
	// Whether this host has the kernel's gate is not known here: CheckHost and
	// the daemon ask again with what they find.
	for _, p := range n.Timing.Check(true) {
		key := strings.TrimPrefix(p.Key, "timing.")
		s.r.at(timingPlace(t, key), p.Key, "%s", p.Text)
	}
}

// timingPlace is where a timing problem is shown: at the key itself, or at any
// key of the block when the value came from the profile.
func timingPlace(t *section, key string) hcl.Range {
	if t.has(key) {
		return t.where(key)
	}
	place := t.end
	for _, k := range timingKeys() {
		if t.has(k) && (place == t.end || t.where(k).Start.Byte < place.Start.Byte) {
			place = t.where(k)
		}
	}
	return place
}

// besideSelf is a program in the directory of the running one.
func besideSelf(name string) string {
	self, err := os.Executable()
	if err != nil {
		return filepath.Join("/usr/sbin", name)
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	return filepath.Join(filepath.Dir(self), name)
}
