package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The programs of the product as the lab finds them in Lab.Bin.
const (
	Daemon  = "failoverd"
	Guard   = "failoverguard"
	Control = "failoverctl"
)

// ErrNotBuilt says that the programs to test are not there.
var ErrNotBuilt = errors.New("not built")

// Failoverd is a cluster of real daemons on some of the lab's hosts.
type Failoverd struct {
	lab     *Lab
	bin     string
	profile string
	extra   string
	hosts   []*Host

	mu      sync.Mutex
	running map[string]*Running
	frozen  map[string]bool
}

// FailoverdOptions say how the daemons are configured.
type FailoverdOptions struct {
	Hosts   []*Host
	Profile string // default, fast
	Extra   string // further lines for every node's file
}

// Failoverd prepares a cluster on the hosts: every node's own file, nothing started.
func (l *Lab) Failoverd(o FailoverdOptions) (*Failoverd, error) {
	bin, err := l.Bin()
	if err != nil {
		return nil, err
	}
	for _, program := range []string{Daemon, Guard, Control} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return nil, fmt.Errorf("%s is %w: run make build in the repository (%w)", program, ErrNotBuilt, err)
		}
	}
	if o.Profile == "" {
		o.Profile = "default"
	}
	f := &Failoverd{lab: l, bin: bin, profile: o.Profile, extra: o.Extra, hosts: o.Hosts,
		running: map[string]*Running{}, frozen: map[string]bool{}}
	if err := os.MkdirAll(l.Programs(), 0o755); err != nil {
		return nil, fmt.Errorf("prepare cluster: %w", err)
	}
	for _, h := range o.Hosts {
		if err := f.configure(h); err != nil {
			return nil, fmt.Errorf("configure %s: %w", h, err)
		}
	}
	return f, nil
}

// Programs is the directory from which services may run programs.
func (l *Lab) Programs() string { return filepath.Join(l.dir, "programs") }

// InstallProgram copies a program to where services may run it, and gives its path.
func (l *Lab) InstallProgram(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("install program: %w", err)
	}
	target := filepath.Join(l.Programs(), filepath.Base(path))
	if err := errors.Join(os.MkdirAll(l.Programs(), 0o755), os.WriteFile(target, raw, 0o755)); err != nil {
		return "", fmt.Errorf("install program: %w", err)
	}
	return target, nil
}

// Pet gives the path of the pet service, built if it is not among the programs.
func (l *Lab) Pet(ctx context.Context) (string, error) {
	bin, err := l.Bin()
	if err != nil {
		return "", err
	}
	if path := filepath.Join(bin, "pet"); fileExists(path) {
		return l.InstallProgram(path)
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(l.Programs(), 0o755); err != nil {
		return "", fmt.Errorf("build pet: %w", err)
	}
	target := filepath.Join(l.Programs(), "pet")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", target, "./integration/pet")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pet: %w: %s", err, bytes.TrimSpace(out))
	}
	return target, nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (f *Failoverd) configure(h *Host) error {
	var peers []string
	for _, p := range f.hosts {
		peers = append(peers, fmt.Sprintf("%q", p.Address()))
	}
	text := fmt.Sprintf(`node      = %q
address   = %q
peers     = [%s]
insecure  = true
profile   = %q
data_dir  = %q
socket    = %q
hook_dirs = [%q]
%s`, h.name, h.address, strings.Join(peers, ", "), f.profile, filepath.Join(h.Dir(), "data"),
		f.Socket(h), f.lab.Programs(), f.extra)
	return os.WriteFile(f.ConfigFile(h), []byte(text), 0o600)
}

// ConfigFile is the node's own file.
func (f *Failoverd) ConfigFile(h *Host) string { return filepath.Join(h.Dir(), "node.hcl") }

// Socket is where failoverctl reaches the host's daemon, from anywhere on this machine.
func (f *Failoverd) Socket(h *Host) string { return filepath.Join(h.Dir(), "run", "failoverd.sock") }

// LogFile is what the host's daemon writes.
func (f *Failoverd) LogFile(h *Host) string { return filepath.Join(h.Dir(), "failoverd.log") }

// Control is the path of failoverctl.
func (f *Failoverd) Control() string { return filepath.Join(f.bin, Control) }

// Hosts are the cluster's hosts.
func (f *Failoverd) Hosts() []*Host { return f.hosts }

// Lease is the profile's lease.
func (f *Failoverd) Lease() time.Duration {
	if f.profile == "fast" {
		return 600 * time.Millisecond
	}
	return 2 * time.Second
}

// Start starts the daemon on each of the hosts.
func (f *Failoverd) Start(hosts ...*Host) error {
	for _, h := range hosts {
		if err := f.startOne(h); err != nil {
			return err
		}
	}
	return nil
}

func (f *Failoverd) startOne(h *Host) error {
	out, err := os.OpenFile(f.LogFile(h), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	defer out.Close()
	if err := os.MkdirAll(filepath.Dir(f.Socket(h)), 0o750); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	cmd := exec.Command(filepath.Join(f.bin, Daemon), "--config", f.ConfigFile(h))
	cmd.Stdout, cmd.Stderr = out, out
	r, err := h.Start(cmd)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[h.name] = r
	f.frozen[h.name] = false
	return nil
}

// Daemon gives the host's daemon, or nil when it was never started.
func (f *Failoverd) Daemon(h *Host) *Running {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[h.name]
}

// Kill kills the host's daemon (SIGKILL) and nothing else.
func (f *Failoverd) Kill(h *Host) error {
	r := f.Daemon(h)
	if r == nil {
		return fmt.Errorf("kill the daemon of %s: it was never started", h)
	}
	r.Kill()
	return nil
}

// Stop freezes the host's daemon with SIGSTOP, with its guard or without.
func (f *Failoverd) Stop(h *Host, guardToo bool) error {
	return f.freeze(h, guardToo, syscall.SIGSTOP)
}

// Cont lets the daemon and the guard go on.
func (f *Failoverd) Cont(h *Host) error { return f.freeze(h, true, syscall.SIGCONT) }

func (f *Failoverd) freeze(h *Host, guardToo bool, signal syscall.Signal) error {
	programs := []string{Daemon}
	if guardToo {
		programs = append(programs, Guard)
	}
	n, err := h.Signal(signal, programs...)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("signal %v to the daemon of %s: it does not run", signal, h)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen[h.name] = signal == syscall.SIGSTOP
	return nil
}

// Deaf says that a host's daemon cannot be asked for now, or can be again: a
// host that was frozen as a whole.
func (f *Failoverd) Deaf(h *Host, deaf bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen[h.name] = deaf
}

// Terminate asks the host's daemon to end (SIGTERM) and waits for it.
func (f *Failoverd) Terminate(ctx context.Context, h *Host) error {
	r := f.Daemon(h)
	if r == nil {
		return fmt.Errorf("stop the daemon of %s: it was never started", h)
	}
	if err := r.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the daemon of %s: %w", h, err)
	}
	select {
	case <-r.Done():
		return r.Wait()
	case <-ctx.Done():
		return fmt.Errorf("stop the daemon of %s: %w", h, ctx.Err())
	}
}

// answering are the hosts whose daemon can be asked.
func (f *Failoverd) answering() []*Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.hosts), func(h *Host) bool {
		r := f.running[h.name]
		if r == nil || f.frozen[h.name] {
			return true
		}
		select {
		case <-r.Done():
			return true
		default:
			return false
		}
	})
}

// Ctl runs failoverctl against the host's daemon and gives what it wrote.
func (f *Failoverd) Ctl(ctx context.Context, h *Host, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, f.Control(), append([]string{"--socket", f.Socket(h)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the lab to handle
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s on %s: %w: %s", Control, strings.Join(args, " "), h, err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// refused is failoverctl's exit status when the cluster understood and refused.
const refused = 4

// AnyCtl runs failoverctl against the first host that can be asked and answers.
// A refusal is an answer.
func (f *Failoverd) AnyCtl(ctx context.Context, args ...string) (string, error) {
	problem := errors.New("no daemon runs")
	for _, h := range f.answering() {
		out, err := f.Ctl(ctx, h, args...)
		if err == nil {
			return out, nil
		}
		problem = err
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == refused {
			break
		}
	}
	return "", problem
}

// Apply puts services in force.
func (f *Failoverd) Apply(ctx context.Context, services string) error {
	path := filepath.Join(f.lab.dir, "services.hcl")
	if err := os.WriteFile(path, []byte(services), 0o600); err != nil {
		return fmt.Errorf("apply services: %w", err)
	}
	_, err := f.AnyCtl(ctx, "apply", path)
	return err
}

// Switchover moves the service as an operator would and waits for failoverctl
// to say that it is done. An empty to leaves the choice to the cluster.
func (f *Failoverd) Switchover(ctx context.Context, service, to string) (string, error) {
	args := []string{"switchover", service, "--reason", "asked for by the lab"}
	if to != "" {
		args = append(args, "--to", to)
	}
	return f.AnyCtl(ctx, args...)
}
