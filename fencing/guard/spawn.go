package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// SpawnOptions say how a guard is started.
type SpawnOptions struct {
	Binary string // failoverguard, by absolute path
	Dir    string // its directory; one guard each
	Socket string // default Dir/guard.sock
	// Log is the file for the guard's own words, not for those of its services;
	// default Dir/guard.log.
	Log      string
	Realtime bool // ask for real-time priority and locked memory
	NoCgroup bool
}

// spawnTimeout bounds the start of a guard; it may have to wait for the end of
// what a dead one left.
const spawnTimeout = 15 * time.Second

// Spawn connects to the directory's living guard, or starts one that outlives
// this process: in a session of its own, with no descriptor of ours. A guard
// that holds the directory but does not answer, stopped or frozen, is killed
// first: that ends what it supervises, which by then no deadline could be
// extended for.
func Spawn(ctx context.Context, o SpawnOptions) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, spawnTimeout)
	defer cancel()
	if o.Socket == "" {
		o.Socket = filepath.Join(o.Dir, SocketName)
	}
	if o.Log == "" {
		o.Log = filepath.Join(o.Dir, "guard.log")
	}
	c, err := Dial(ctx, o.Socket)
	if err == nil || !errors.Is(err, ErrGuardLost) {
		return c, err
	}
	if err := endFrozen(ctx, o.Socket); err != nil {
		return nil, err
	}
	serr := start(ctx, o)
	if serr != nil && !errors.Is(serr, ErrTaken) {
		return nil, serr
	}
	// Taken: another one was faster than we, and will be listening in a moment.
	for {
		c, err := Dial(ctx, o.Socket)
		if err == nil || !errors.Is(err, ErrGuardLost) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("start the guard: %w", errors.Join(serr, err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// start runs the program until it has detached and serves, or has said why not.
func start(ctx context.Context, o SpawnOptions) error {
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	args := []string{"run", "-detach", "-dir", o.Dir, "-socket", o.Socket, "-log", o.Log}
	if o.Realtime {
		args = append(args, "-realtime")
	}
	if o.NoCgroup {
		args = append(args, "-no-cgroup")
	}
	cmd := exec.CommandContext(ctx, o.Binary, args...)
	cmd.Env = baseEnvironment()
	cmd.Dir = "/"
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	text := string(bytes.TrimSpace(said.Bytes()))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitTaken {
		return fmt.Errorf("start the guard: %w", ErrTaken)
	}
	if text == "" {
		return fmt.Errorf("start the guard %s: %w", o.Binary, err)
	}
	return fmt.Errorf("start the guard %s: %w: %s", o.Binary, err, text)
}

// endFrozen kills the guard that listens on the socket without answering. Who
// listens the kernel tells (SO_PEERCRED on a connection gives who called listen).
func endFrozen(ctx context.Context, path string) error {
	pid, ok := listener(ctx, path)
	if !ok || pid <= 1 || pid == os.Getpid() {
		return nil // nobody listens
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end a guard that does not answer, process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// Still the listener, so the descriptor is of that process and not of a later one.
	if again, ok := listener(ctx, path); !ok || again != pid {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end a guard that does not answer, process %d: %w", pid, err)
	}
	// Readable once the process has ended (pidfd_open(2)).
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the end of process %d: %w", pid, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: it does not answer and does not end, process %d", ErrGuardLost, pid)
		}
	}
}

func listener(ctx context.Context, path string) (int, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := connect(ctx, path)
	if err != nil {
		return 0, false
	}
	defer c.Close()
	cred, err := peer(c)
	if err != nil {
		return 0, false
	}
	return int(cred.Pid), true
}
