package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CheckHost asks what only the host can tell: whether the node's address is
// one of this host, its ports are free, its directories can be written and its
// guard is there. It changes nothing that stays and returns every problem at
// once as an *Error. Ports that are free now can be taken a moment later: who
// listens must still say so.
func (n *Node) CheckHost() error {
	r := &report{file: n.Path}
	n.checkDirectories(r)
	n.checkPorts(r)
	n.checkPrograms(r)
	if n.TLS != nil {
		if _, _, err := n.TLS.load(); err != nil {
			r.whole("tls", "%s", err)
		}
	}
	return r.err()
}

func (n *Node) checkDirectories(r *report) {
	if err := writable(n.DataDir); err != nil {
		r.whole("data_dir", "data_dir = %q cannot be written: %s", n.DataDir, reason(err))
	}
	dir := filepath.Dir(n.Socket)
	if err := writable(dir); err != nil {
		r.whole("socket", "the directory of socket = %q cannot be written: %s", n.Socket, reason(err))
		return
	}
	info, err := os.Lstat(n.Socket)
	if err != nil {
		return // nothing is there, or the directory is not there yet
	}
	if info.Mode()&fs.ModeSocket == 0 {
		r.whole("socket", "socket = %q is there already and is no socket; remove it or choose another path", n.Socket)
		return
	}
	conn, err := net.DialTimeout("unix", n.Socket, time.Second)
	if err == nil {
		conn.Close()
		r.whole("socket", "another failoverd answers at socket = %q; stop it first, or give this node a socket of its own", n.Socket)
	}
}

// writable reports whether files can be made in a directory, or whether the
// directory itself could be made. It tries, and removes what it made again:
// permissions alone do not show a full, broken or read-only disk.
func writable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("it is no directory; choose another path")
	case err == nil:
		return tryWrite(dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	first := dir // the topmost directory that is missing
	for parent := filepath.Dir(dir); ; first, parent = parent, filepath.Dir(parent) {
		info, err := os.Stat(parent)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s is no directory; choose another path", parent)
		case err == nil:
			if err := os.Mkdir(first, 0o700); err != nil {
				return fmt.Errorf("%s is not there and cannot be made in %s: %s", first, parent, reason(err))
			}
			return os.Remove(first)
		case !errors.Is(err, fs.ErrNotExist), parent == "/", parent == ".":
			return err
		}
	}
}

func tryWrite(dir string) (err error) {
	f, err := os.CreateTemp(dir, ".failoverd-check-*")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	if _, err := f.WriteString("check\n"); err != nil {
		return err
	}
	return f.Sync()
}

// checkPorts listens on each of the node's ports for a moment.
func (n *Node) checkPorts(r *report) {
	if host := hostOf(n.Address); !isLocal(host) {
		r.whole("address", "address = %q belongs to no interface of this host; it has %s", n.Address, localAddresses())
		return // every port would say the same again
	}
	for _, p := range []struct{ network, address, use string }{
		{"tcp", RaftAddress(n.Address), "Raft"},
		{"tcp", PeerAddress(n.Address), "other nodes"},
		{"tcp", GossipAddress(n.Address), "gossip"},
		{"udp", GossipAddress(n.Address), "gossip"},
		{"udp", RenewAddress(n.Address), "renewals"},
	} {
		if err := tryListen(p.network, p.address); err != nil {
			r.whole("address", "%s port %s for %s: %s", p.network, p.address, p.use, portReason(p.network, err))
		}
	}
	if n.API != "" {
		if err := tryListen("tcp", n.API); err != nil {
			r.whole("api", "api = %q: %s", n.API, portReason("tcp", err))
		}
	}
}

func tryListen(network, address string) error {
	if network == "udp" {
		conn, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

func portReason(network string, err error) string {
	letter := "t"
	if network == "udp" {
		letter = "u"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program has it; `ss -" + letter + "lnp` names which. Stop that one, or choose another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "the address belongs to no interface of this host; correct it, or bring the interface up first"
	case errors.Is(err, syscall.EACCES):
		return "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return err.Error()
}

// isLocal reports whether this host has the address. The whole of 127.0.0.0/8
// is local although interfaces list only a part of it.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() && addr.Is4() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return true // unknown is not no: the listen itself will tell
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

func localAddresses() string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return "addresses that cannot be listed"
	}
	out := ""
	for _, a := range list {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback() {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += p.Addr().String()
	}
	if out == "" {
		return "only loopback addresses"
	}
	return out
}

// checkPrograms looks at the guard and at who else could put a program into a
// directory that commands are run from.
func (n *Node) checkPrograms(r *report) {
	if err := unix.Access(n.Guard, unix.X_OK); err != nil {
		r.whole("guard", "guard = %q cannot be run: %s", n.Guard, reason(err))
	} else if info, err := os.Stat(n.Guard); err == nil && !info.Mode().IsRegular() {
		r.whole("guard", "guard = %q is no program; name the file failoverguard", n.Guard)
	}
	for _, dir := range n.HookDirs {
		if err := ownOnly(followed(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.whole("hook_dirs", "hook_dirs: %s", err)
		}
	}
}
