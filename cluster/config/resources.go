package config

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/failoverd/failoverd/cluster/state"
)

// What a resource gets when the file does not say.
const (
	DefaultStartTimeout  = 30 * time.Second
	DefaultStopTimeout   = 10 * time.Second
	DefaultStatusTimeout = 10 * time.Second
	DefaultInterval      = 10 * time.Second
	DefaultRestarts      = 3
)

// Limits of what is replicated for a resource.
const (
	maxArguments   = 256
	maxArgument    = 4096 // bytes
	maxEnvironment = 128
	longestTimeout = time.Hour
)

// stopSignals are those that can ask a program to end; KILL follows by itself.
var stopSignals = []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "ABRT", "WINCH", "KILL"}

var (
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}\$?$`)
	envName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	ifName   = regexp.MustCompile(`^[!-~]{1,15}$`)
)

// readVIP reads a virtual address. Its name among the service's resources is
// the address without the prefix length.
func readVIP(r *report, b *hcl.Block) (*state.VIP, string) {
	label := b.Labels[0]
	vip := &state.VIP{Address: label}
	name := label
	if prefix, err := ParseVIP(label); err != nil {
		r.at(labelRange(b), "vip", "%s", err)
	} else {
		vip.Address, name = prefix.String(), prefix.Addr().String()
	}
	s := open(r, "vip.", b.Body, vipKeys)
	switch {
	case !s.has("interface"):
		s.missing("interface", "the network interface towards the clients", `"eth0"`)
	case s.text("interface", &vip.Interface):
		switch {
		case !ifName.MatchString(vip.Interface) || strings.ContainsAny(vip.Interface, "/:") || vip.Interface == "." || vip.Interface == "..":
			s.bad("interface", "interface = %q can be no interface's name: 1 to 15 characters without spaces, slashes and colons", vip.Interface)
		case vip.Interface == "lo":
			s.bad("interface", "interface = \"lo\": no other host reaches an address there; name the interface towards the clients")
		}
	}
	s.yes("keep_prefix", &vip.Prefix)
	return vip, name
}

// ParseVIP reads a virtual address with its network's prefix length, such as
// "192.0.2.100/24", and refuses what no host may have in that network.
func ParseVIP(text string) (netip.Prefix, error) {
	none := netip.Prefix{}
	if addr, err := netip.ParseAddr(text); err == nil {
		return none, fmt.Errorf(`vip %q lacks the prefix length of its network; write for example "%s/24"`, text, addr)
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return none, fmt.Errorf(`vip %q is no address with a prefix length; write for example "192.0.2.100/24"`, text)
	}
	addr := p.Addr()
	switch {
	case addr.Is6():
		return none, fmt.Errorf("vip %q is an IPv6 address; only IPv4 can be claimed so far", text)
	case p.Bits() == 0:
		return none, fmt.Errorf("vip %q: a network of /0 is the whole Internet; write the prefix length of the network that the address is in", text)
	case addr.IsLoopback(), addr.IsMulticast(), addr.IsUnspecified(), addr.As4()[0] == 0, addr.As4()[0] >= 240:
		return none, fmt.Errorf("vip %q is no address that a host on a network can have", text)
	}
	if p.Bits() <= 30 {
		network := p.Masked().Addr()
		if addr == network {
			return none, fmt.Errorf("vip %q is the address of the network itself, not of a host in it; choose one between %s and %s", text, network.Next(), lastOf(p).Prev())
		}
		if last := lastOf(p); addr == last {
			return none, fmt.Errorf("vip %q is the broadcast address of its network; choose one between %s and %s", text, network.Next(), last.Prev())
		}
	}
	return p, nil
}

// lastOf is the highest address of an IPv4 network.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(a)
}

func readProcess(r *report, b *hcl.Block) *state.Process {
	p := &state.Process{StopTimeout: DefaultStopTimeout, StartTimeout: DefaultStartTimeout, Restarts: DefaultRestarts}
	s := open(r, "process.", b.Body, processKeys)
	p.Command = s.command("command", true)
	p.Environment = s.environment("environment")
	if s.text("directory", &p.Directory) {
		if !filepath.IsAbs(p.Directory) {
			s.bad("directory", "process.directory = %q must be an absolute path", p.Directory)
		}
		p.Directory = filepath.Clean(p.Directory)
	}
	if s.text("user", &p.User) && !userName.MatchString(p.User) {
		s.bad("user", "process.user = %q can be no user's name", p.User)
	}
	if s.text("stop_signal", &p.StopSignal) {
		p.StopSignal = strings.TrimPrefix(strings.ToUpper(p.StopSignal), "SIG")
		if !slices.Contains(stopSignals, p.StopSignal) {
			s.bad("stop_signal", "process.stop_signal = %q must be one of: %s", p.StopSignal, strings.Join(stopSignals, ", "))
		}
	}
	s.timeout("stop_timeout", &p.StopTimeout)
	s.timeout("start_timeout", &p.StartTimeout)
	if s.text("ready", &p.Ready) {
		if _, err := netip.ParseAddrPort(p.Ready); err != nil {
			s.bad("ready", `process.ready = %q must be the TCP address that the program listens on, such as "127.0.0.1:8080"`, p.Ready)
		}
	}
	s.whole("restarts", &p.Restarts, 0, 1000)
	return p
}

func readExec(r *report, b *hcl.Block) *state.Exec {
	e := &state.Exec{
		StartTimeout: DefaultStartTimeout, StopTimeout: DefaultStopTimeout,
		StatusTimeout: DefaultStatusTimeout, Interval: DefaultInterval,
	}
	s := open(r, "exec.", b.Body, execKeys)
	e.Start = s.command("start", true)
	e.Stop = s.command("stop", true)
	e.Status = s.command("status", true)
	s.timeout("start_timeout", &e.StartTimeout)
	s.timeout("stop_timeout", &e.StopTimeout)
	s.timeout("status_timeout", &e.StatusTimeout)
	s.timeout("interval", &e.Interval)
	return e
}

func (s *section) timeout(key string, into *time.Duration) {
	if s.period(key, into) && *into > longestTimeout {
		s.bad(key, "%s%s = %s is too long: a failover would wait for it; use %s or less", s.prefix, key, *into, longestTimeout)
	}
}

// command reads a program and its arguments. Which directories a program may
// come from is each node's own decision and is not known here.
func (s *section) command(key string, required bool) []string {
	full := s.prefix + key
	if !s.has(key) {
		if required {
			s.missing(key, "a program and its arguments", fmt.Sprintf(`["/usr/local/bin/erp-%s", "-v"]`, key))
		}
		return nil
	}
	var argv []string
	if !s.list(key, &argv) {
		return nil
	}
	switch {
	case len(argv) == 0:
		s.bad(key, "%s is empty; name the program", full)
		return nil
	case !filepath.IsAbs(argv[0]):
		s.bad(key, "%s: %q must be the absolute path of a program, since nothing is looked up in PATH and no shell is run", full, argv[0])
	case filepath.Clean(argv[0]) != argv[0]:
		s.bad(key, "%s: write %q as %q", full, argv[0], filepath.Clean(argv[0]))
	case len(argv) > maxArguments:
		s.bad(key, "%s has more than %d arguments; put them into a script", full, maxArguments)
	}
	for _, a := range argv {
		if len(a) > maxArgument {
			s.bad(key, "%s has an argument of more than %d bytes; put it into a file", full, maxArgument)
			break
		}
	}
	return argv
}

func (s *section) environment(key string) map[string]string {
	v, at, ok := s.get(key)
	if !ok {
		return nil
	}
	full := s.prefix + key
	given, ok := table(s.r, full, at, v)
	if !ok {
		return nil
	}
	if len(given) > maxEnvironment {
		s.bad(key, "%s has more than %d names; put them into a file that the program reads", full, maxEnvironment)
		return nil
	}
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value, ok := text(s.r, full+"."+name, at, given[name])
		switch {
		case !ok:
		case !envName.MatchString(name):
			s.bad(key, "%s: %q can be no variable's name", full, name)
		case reserved(name):
			s.bad(key, "%s: %s is set by failoverd itself; choose a name without FAILOVER_ before it", full, name)
		case len(value) > maxArgument:
			s.bad(key, "%s.%s has more than %d bytes; put it into a file", full, name, maxArgument)
		default:
			out[name] = value
		}
	}
	return out
}
