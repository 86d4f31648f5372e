package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is one machine of the lab.
type Host struct {
	lab     *Lab
	name    string
	address netip.Addr
	mac     net.HardwareAddr

	mu      sync.Mutex
	on      bool
	frozen  bool
	init    *exec.Cmd
	pipe    io.Closer
	ns      *namespaces
	boots   int
	watches []hostWatcher
}

// hostWatcher is told when a host's namespaces come and go.
type hostWatcher interface {
	hostOn(h *Host, net *os.File) error
	hostOff(h *Host, at time.Duration)
}

// AddHost makes one more host and switches it on.
func (l *Lab) AddHost(name string) (*Host, error) {
	l.mu.Lock()
	n := len(l.hosts)
	_, taken := l.order[name]
	l.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("add host %s: the name is taken", name)
	}
	if len(name) > 10 || name == "" || strings.ContainsAny(name, "/ ") {
		return nil, fmt.Errorf("add host %q: a name has 1 to 10 characters, no slash, no space", name)
	}
	last := byte(firstHost + n)
	base := network.Addr().As4()
	base[3] = last
	h := &Host{
		lab: l, name: name, address: netip.AddrFrom4(base),
		mac: net.HardwareAddr{0x02, 0xfa, 0x11, 0, 0, last},
	}
	if err := os.Mkdir(h.Dir(), 0o755); err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	if l.cgroups != "" {
		if _, err := makeCgroup(l.cgroups, h.cgroup("system")); err != nil {
			return nil, fmt.Errorf("add host %s: %w", name, err)
		}
	}
	if err := h.PowerOn(); err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.order[name] = h
	l.mu.Unlock()
	return h, l.include(h)
}

// Name is the host's name in the lab and its host name.
func (h *Host) Name() string { return h.name }

// Address is the host's own address.
func (h *Host) Address() netip.Addr { return h.address }

// MAC is the hardware address of eth0; it survives power cycles.
func (h *Host) MAC() net.HardwareAddr { return h.mac }

// Dir is the host's directory, its disk: it survives power cycles.
func (h *Host) Dir() string { return filepath.Join(h.lab.dir, h.name) }

// String is the name.
func (h *Host) String() string { return h.name }

// port is the name of the host's port on the bridge.
func (h *Host) port() string { return "p-" + h.name }

// cgroup is the name of a control group of this host and no other.
func (h *Host) cgroup(part string) string {
	return filepath.Base(h.lab.dir) + "-" + h.name + "-" + part
}

// On reports whether the host is switched on.
func (h *Host) On() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on
}

// Pid is the host's init as the machine sees it, for nsenter(1); 0 when off.
func (h *Host) Pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return 0
	}
	return h.init.Process.Pid
}

// PowerOn boots the host: new namespaces, a new boot id, the old disk.
func (h *Host) PowerOn() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on {
		return nil
	}
	if err := h.boot(); err != nil {
		return fmt.Errorf("power on %s: %w", h.name, err)
	}
	h.on = true
	for _, w := range h.watches {
		if err := w.hostOn(h, h.ns.net); err != nil {
			return fmt.Errorf("watch %s: %w", h.name, err)
		}
	}
	return nil
}

func (h *Host) boot() error {
	h.boots++
	bootFile := filepath.Join(h.Dir(), "boot_id")
	if err := os.WriteFile(bootFile, []byte(newBootID()), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", h.name, bootFile)
	cmd.Args[0] = roleInit
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a Ctrl-C is for the lab to handle, not for its hosts
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.lab.spawner.start(cmd); err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	h.init, h.pipe = cmd, stdin
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if strings.TrimSpace(line) != readyLine {
		h.kill()
		return fmt.Errorf("init: %s", strings.TrimSpace(line))
	}
	if h.ns, err = openNamespaces(cmd.Process.Pid); err != nil {
		h.kill()
		return err
	}
	if err := h.connect(); err != nil {
		h.kill()
		h.ns.close()
		return err
	}
	return nil
}

func (h *Host) connect() error {
	if err := quiet(h.ns.net); err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP: h.address.AsSlice(), Mask: net.CIDRMask(network.Bits(), 32),
	}}
	return h.lab.fabric.plug(h.port(), h.ns.net, h.mac, addr)
}

// kill ends the init and everything in its PID namespace, and waits for it.
func (h *Host) kill() {
	_ = h.init.Process.Kill() // it may be gone already
	_ = h.pipe.Close()
	_ = h.init.Wait() // "signal: killed" is what was asked for
}

// PowerOff cuts the power: the link goes down and every process is killed. It
// returns when the last of them is gone.
func (h *Host) PowerOff() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return nil
	}
	h.on = false
	linkErr := h.lab.fabric.port(h.port(), false)
	at := h.lab.Now()
	h.kill()
	for _, w := range h.watches {
		w.hostOff(h, at)
	}
	h.ns.close()
	return errors.Join(linkErr, h.lab.fabric.unplug(h.port()))
}

// watch registers w and tells it of the host as it is.
func (h *Host) watch(w hostWatcher) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches = append(h.watches, w)
	if !h.on {
		return nil
	}
	return w.hostOn(h, h.ns.net)
}

// In runs fn on a thread inside the host's network namespace: sockets that it
// opens belong to the host.
func (h *Host) In(fn func() error) error {
	h.mu.Lock()
	if !h.on {
		h.mu.Unlock()
		return fmt.Errorf("%s is off", h.name)
	}
	fd, err := unix.FcntlInt(h.ns.net.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("keep namespace of %s: %w", h.name, err)
	}
	ns := os.NewFile(uintptr(fd), "net")
	defer ns.Close()
	return inNet(ns, fn)
}

// Dial connects from the host, as net.Dialer.DialContext does from here.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.In(func() (err error) {
		// A literal address is dialled on the calling thread, which is inside.
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Running is a process that the lab started on a host.
type Running struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Pid is the process id as the machine sees it.
func (r *Running) Pid() int { return r.cmd.Process.Pid }

// Done is closed when the process has ended.
func (r *Running) Done() <-chan struct{} { return r.done }

// Wait waits for the end of the process and says how it ended.
func (r *Running) Wait() error {
	<-r.done
	return r.err
}

// Signal sends a signal to the process.
func (r *Running) Signal(s syscall.Signal) error { return r.cmd.Process.Signal(s) }

// Kill kills the process (SIGKILL) and waits for its end.
func (r *Running) Kill() {
	_ = r.cmd.Process.Kill() // it may have ended already
	<-r.done
}

// Start starts the command as a process of the host; it dies with the host. The
// lab waits for it, the caller must not: use what Start gives. Output goes to
// cmd.Stdout and cmd.Stderr; pipes out of the command cannot be used.
func (h *Host) Start(cmd *exec.Cmd) (*Running, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return nil, fmt.Errorf("start %s: %s is off", cmd.Path, h.name)
	}
	if h.frozen {
		return nil, fmt.Errorf("start %s: %s is frozen", cmd.Path, h.name)
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if h.lab.cgroups != "" {
		group, err := os.Open(filepath.Join(h.lab.cgroups, h.cgroup("system")))
		if err != nil {
			return nil, fmt.Errorf("open control group: %w", err)
		}
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(group.Fd())
	}
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = 5 * time.Second // a grandchild may hold the output open
	}
	if err := onThread(h.ns.enter, cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", filepath.Base(cmd.Path), h.name, err)
	}
	r := &Running{cmd: cmd, done: make(chan struct{})}
	// The process is the lab's own child, though in the host's PID namespace:
	// the namespace is not gone before the lab has waited for it.
	go func() {
		defer close(r.done)
		r.err = cmd.Wait()
	}()
	return r, nil
}

// Run runs a program of the host to its end and gives what it wrote to
// standard output; what it wrote to standard error is in the error.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r, err := h.Start(cmd)
	if err != nil {
		return "", err
	}
	if err := r.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("%s on %s: %w: %s", filepath.Base(name), h.name, err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func newBootID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x\n", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
