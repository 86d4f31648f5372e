package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/cluster/state"
)

// AllowCommand decides whether this node runs a program that a replicated
// service names: it must lie, links followed, in one of the node's own
// hook_dirs, and nobody but root and the daemon's user may be able to change
// it. Ask right before each run: files change.
func (n *Node) AllowCommand(program string) error {
	if !filepath.IsAbs(program) || filepath.Clean(program) != program {
		return fmt.Errorf("command %q is not allowed: it must be a clean absolute path", program)
	}
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		return fmt.Errorf("command %q cannot be run on this node: %s", program, reason(err))
	}
	if !n.inHookDirs(real) {
		return fmt.Errorf("command %q is not allowed on this node: %s is in none of hook_dirs (%s); add its directory to the node's file, or move the program",
			program, real, strings.Join(n.HookDirs, ", "))
	}
	if err := ownOnly(real); err != nil {
		return fmt.Errorf("command %q is not allowed: %w", program, err)
	}
	if err := unix.Access(real, unix.X_OK); err != nil {
		return fmt.Errorf("command %q cannot be run on this node: it is not executable: chmod +x %s", program, real)
	}
	return nil
}

func (n *Node) inHookDirs(real string) bool {
	for _, dir := range n.HookDirs {
		// The directory may itself be a link, as /bin is on many systems.
		for _, d := range []string{dir, followed(dir)} {
			if strings.HasPrefix(real, strings.TrimSuffix(d, "/")+"/") {
				return true
			}
		}
	}
	return false
}

func followed(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// CheckCommands says what this node would refuse to run, or could not, of the
// services given: one problem per command. A node that never holds need not ask.
func (n *Node) CheckCommands(specs []state.Spec) error {
	r := &report{}
	for _, spec := range specs {
		for _, res := range spec.Resources {
			for _, argv := range commandsOf(res) {
				if len(argv) == 0 {
					continue
				}
				if err := n.AllowCommand(argv[0]); err != nil {
					r.whole("command", "service %s, %s %s: %s", spec.Name, res.Kind, res.Name, err)
				}
			}
		}
	}
	return r.err()
}

func commandsOf(res state.Resource) [][]string {
	switch {
	case res.Process != nil:
		return [][]string{res.Process.Command}
	case res.Exec != nil:
		return [][]string{res.Exec.Start, res.Exec.Stop, res.Exec.Status}
	}
	return nil
}

// CheckInterfaces says which interfaces that the services' addresses name are
// not on this host. The nodes of a cluster may differ: ask on each.
func CheckInterfaces(specs []state.Spec) error {
	there, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, i := range there {
		names = append(names, i.Name)
	}
	return checkInterfaces(specs, names)
}

func checkInterfaces(specs []state.Spec, there []string) error {
	r := &report{}
	for _, spec := range specs {
		for _, res := range spec.Resources {
			if res.VIP == nil || slices.Contains(there, res.VIP.Interface) {
				continue
			}
			r.whole("interface", "service %s, vip %s: this host has no interface %q.%s",
				spec.Name, res.VIP.Address, res.VIP.Interface, suggest(res.VIP.Interface, there))
		}
	}
	return r.err()
}
