package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The names under which the lab executes its own program again.
const (
	roleInit    = "failoverd-lab-host"
	roleJanitor = "failoverd-lab-janitor"
)

// innerVariable marks the process that already lives in a user namespace of
// the lab's own.
const innerVariable = "FAILOVERD_LAB_INNER"

// ErrDenied says that this process cannot have namespaces; the error that
// wraps it names the setting that stands in the way.
var ErrDenied = errors.New("namespaces are denied")

var (
	roles      = map[string]func(){roleInit: runInit, roleJanitor: runJanitor}
	rolesMutex sync.Mutex
	entered    bool
)

// Enter prepares the process for a lab and must be the first thing that main
// (or TestMain) does. In a process that the lab started to be a host's init it
// never returns. With the rights for it (root) it returns nil; without, it
// executes the program again in a user namespace of its own, waits, and exits
// with that one's status. Where that is denied too, it returns an error that
// wraps ErrDenied and says which setting to change.
func Enter() error {
	rolesMutex.Lock()
	role := roles[os.Args[0]]
	entered = true
	rolesMutex.Unlock()
	if role != nil {
		role()
		os.Exit(0)
	}
	// A measuring thread that comes back from the kernel must find a processor
	// of Go's free, whatever else this program does.
	runtime.GOMAXPROCS(max(8, 2*runtime.NumCPU()))
	probe := tryNamespaces()
	if probe == nil {
		return nil
	}
	if os.Getenv(innerVariable) != "" {
		return denied(fmt.Errorf("inside a user namespace: %w", probe))
	}
	code, err := runInUserNamespace()
	if err != nil {
		return denied(err)
	}
	os.Exit(code)
	return nil
}

// Inner reports whether this process is root of a user namespace of the lab's
// own only, hence an ordinary user to the machine.
func Inner() bool { return os.Getenv(innerVariable) != "" }

// tryNamespaces makes a network namespace on a thread that is thrown away.
func tryNamespaces() error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
			result <- fmt.Errorf("unshare a network namespace: %w", err)
			return
		}
		result <- nil
	}()
	return <-result
}

// runInUserNamespace executes this program again as root of a new user
// namespace and gives its exit status.
func runInUserNamespace() (int, error) {
	// PR_SET_PDEATHSIG watches the thread that forks, so that thread must stay.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), innerVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		Pdeathsig:   syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	// A Ctrl-C reaches the whole foreground group, the inner process included:
	// this one only has to stay for its exit status. TERM and HUP are passed on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("create a user namespace: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGINT {
					_ = cmd.Process.Signal(s) // it may have ended just now
				}
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, fmt.Errorf("wait for the process in the user namespace: %w", err)
}

// userNamespaceSettings are the switches that deny user namespaces, the value
// that denies, and what to do about it.
var userNamespaceSettings = []struct {
	path, denies, advice string
}{
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
}

// denied explains err by the settings of this machine.
func denied(err error) error {
	var advice []string
	for _, s := range userNamespaceSettings {
		raw, readErr := os.ReadFile(s.path)
		if readErr == nil && strings.TrimSpace(string(raw)) == s.denies {
			advice = append(advice, s.advice)
		}
	}
	if _, statErr := os.Stat("/proc/self/ns/user"); statErr != nil {
		advice = append(advice, "a kernel with CONFIG_USER_NS")
	}
	if len(advice) == 0 {
		return fmt.Errorf("%w: %w; run as root, or look at kernel.unprivileged_userns_clone, "+
			"kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces, "+
			"or at the seccomp profile when this is a container", ErrDenied, err)
	}
	return fmt.Errorf("%w: %w; run as root, or allow user namespaces with: %s",
		ErrDenied, err, strings.Join(advice, "; "))
}
