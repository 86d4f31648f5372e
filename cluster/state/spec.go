package state

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Kinds of resource.
const (
	ResourceVIP     = "vip"
	ResourceProcess = "process"
	ResourceExec    = "exec"
)

// maxInterface is the kernel's longest interface name (IFNAMSIZ - 1), in bytes.
const maxInterface = 15

// stopSignals are the signals that a process may be asked to stop with. KILL is
// no asking: it follows by itself when the stop takes too long.
var stopSignals = []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "ABRT"}

// Validate reports everything that is wrong with a specification, joined. It
// looks at the text alone: whether nodes, interfaces and programs exist is for
// others to find out, and may change. Since replicas refuse by it, what it
// accepts belongs to the version of the log.
func (s Spec) Validate() error {
	c := &complaints{}
	if err := ValidName(s.Name); err != nil {
		c.add("service: %v", err)
	}
	c.at = "service " + short(s.Name)
	if s.Takeover != TakeoverLease && s.Takeover != TakeoverFence {
		c.add("takeover %q is neither %q nor %q", short(string(s.Takeover)), TakeoverLease, TakeoverFence)
	}
	s.validateNodes(c)
	names := map[string]bool{}
	owners := map[netip.Addr]string{}
	for i, r := range s.Resources {
		c.at = fmt.Sprintf("service %s: resource %d", short(s.Name), i+1)
		if err := ValidName(r.Name); err != nil {
			c.add("%v", err)
		} else {
			c.at = fmt.Sprintf("service %s: %s", short(s.Name), r.Name)
		}
		if names[r.Name] {
			c.add("the name is used twice in this service")
		}
		names[r.Name] = true
		r.validate(c)
		if r.VIP == nil {
			continue
		}
		if a, ok := r.VIP.addr(); ok {
			if other := owners[a]; other != "" {
				c.add("the address %s is that of %s as well", a, other)
			}
			owners[a] = or(r.Name, "another resource")
		}
	}
	return errors.Join(c.errs...)
}

func (s Spec) validateNodes(c *complaints) {
	listed := map[string]bool{}
	for _, n := range s.Nodes {
		if err := ValidName(n); err != nil {
			c.add("nodes: %v", err)
		} else if listed[n] {
			c.add("nodes names %s twice", n)
		}
		listed[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(s.Priorities)) {
		if err := ValidName(n); err != nil {
			c.add("priorities: %v", err)
		} else if len(s.Nodes) > 0 && !listed[n] {
			c.add("priorities names %s, which nodes leaves out", n)
		}
	}
}

// validate checks one resource.
func (r Resource) validate(c *complaints) {
	given := map[string]bool{ResourceVIP: r.VIP != nil, ResourceProcess: r.Process != nil, ResourceExec: r.Exec != nil}
	set := 0
	for _, is := range given {
		if is {
			set++
		}
	}
	if _, known := given[r.Kind]; !known {
		c.add("the kind %q is none of vip, process, exec", short(r.Kind))
	} else if set != 1 || !given[r.Kind] {
		c.add("a %s must have the settings of a %s and no others", r.Kind, r.Kind)
	}
	if r.VIP != nil {
		r.VIP.validate(c)
	}
	if r.Process != nil {
		r.Process.validate(c)
	}
	if r.Exec != nil {
		r.Exec.validate(c)
	}
}

func (v *VIP) validate(c *complaints) {
	if _, ok := v.addr(); !ok {
		c.add("%q is not a host's address with the prefix length of its network, such as 192.0.2.100/24", short(v.Address))
	}
	bad := func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r >= 0x7f }
	if n := v.Interface; n == "" || len(n) > maxInterface || n == "." || n == ".." || strings.ContainsFunc(n, bad) {
		c.add("%q is not the name of a network interface", short(n))
	}
}

// addr returns the address that the VIP claims. An address that no host can
// have is none: the network's own, its broadcast address, a group's.
func (v *VIP) addr() (netip.Addr, bool) {
	p, err := netip.ParsePrefix(v.Address)
	if err != nil {
		return netip.Addr{}, false
	}
	a := p.Addr()
	if a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
		return netip.Addr{}, false
	}
	if hosts := a.BitLen() - p.Bits(); hosts > 1 && (a == p.Masked().Addr() || a.Is4() && isBroadcast(a, hosts)) {
		return netip.Addr{}, false
	}
	return a, true
}

// isBroadcast reports whether all of the last bits of an IPv4 address are ones.
func isBroadcast(a netip.Addr, bits int) bool {
	b := a.As4()
	n := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	mask := uint64(1)<<bits - 1
	return n&mask == mask
}

// addresses returns the addresses of all VIPs of a valid specification.
func (s Spec) addresses() []netip.Addr {
	var out []netip.Addr
	for _, r := range s.Resources {
		if r.VIP == nil {
			continue
		}
		if a, ok := r.VIP.addr(); ok {
			out = append(out, a)
		}
	}
	return out
}

func (p *Process) validate(c *complaints) {
	c.command("command", p.Command)
	for _, k := range slices.Sorted(maps.Keys(p.Environment)) {
		if k == "" || strings.Contains(k, "=") {
			c.add("environment: %q is not the name of a variable", short(k))
		}
		c.text("environment", k)
		c.text("environment", p.Environment[k])
	}
	if p.Directory != "" && !path.IsAbs(p.Directory) {
		c.add("directory %q is not absolute", short(p.Directory))
	}
	c.text("directory", p.Directory)
	c.text("user", p.User)
	if p.StopSignal != "" && !slices.Contains(stopSignals, p.StopSignal) {
		c.add("stop_signal %q is none of %s", short(p.StopSignal), strings.Join(stopSignals, ", "))
	}
	if p.Ready != "" {
		if err := validHostPort(p.Ready); err != nil {
			c.add("ready: %v", err)
		}
	}
	c.positive("start_timeout", p.StartTimeout)
	c.positive("stop_timeout", p.StopTimeout)
	if p.Restarts < 0 {
		c.add("restarts %d is below 0", p.Restarts)
	}
}

func (e *Exec) validate(c *complaints) {
	c.command("start", e.Start)
	c.command("stop", e.Stop)
	c.command("status", e.Status)
	c.positive("start_timeout", e.StartTimeout)
	c.positive("stop_timeout", e.StopTimeout)
	c.positive("status_timeout", e.StatusTimeout)
	c.positive("interval", e.Interval)
}

// complaints gathers what is wrong, each with the place where it is.
type complaints struct {
	at   string
	errs []error
}

func (c *complaints) add(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if c.at != "" {
		text = c.at + ": " + text
	}
	c.errs = append(c.errs, errors.New(text))
}

func (c *complaints) command(what string, argv []string) {
	if len(argv) == 0 {
		c.add("%s is missing", what)
		return
	}
	if !path.IsAbs(argv[0]) {
		c.add("%s %q is not an absolute path", what, short(argv[0]))
	}
	for _, a := range argv {
		c.text(what, a)
	}
}

// text refuses what cannot be an argument or would not survive a snapshot.
func (c *complaints) text(what, s string) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		c.add("%s %q is not UTF-8 text", what, short(s))
	}
}

func (c *complaints) positive(what string, d time.Duration) {
	if d <= 0 {
		c.add("%s %v is not above 0", what, d)
	}
}
