package guard

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// The program's exit codes, beside 0.
const (
	exitError = 1
	exitUsage = 2
	exitTaken = 3 // another guard lives
)

// MainOptions are what the program brings along.
type MainOptions struct {
	Version  string
	OpenGate func(table string) (Shutter, error)
	Delete   func([]Address) error
}

const usage = `failoverguard keeps services alive while their daemon restarts, and ends them with their lease.
It is started by failoverd; by hand:

  failoverguard run -dir DIR [-socket PATH] [-log FILE] [-realtime] [-no-cgroup] [-detach] [-idle 1m]
  failoverguard status -dir DIR [-socket PATH]
  failoverguard version

-idle is how long it stays without a daemon, a service and a lease (default: for ever; detached: 1m).
`

// Main is the program: it also serves as init and as a hook's runner.
func Main(args []string, o MainOptions) int {
	if code, handled := Helper(args); handled {
		return code
	}
	if len(args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		return exitUsage
	}
	switch args[1] {
	case "run":
		return run(args[2:], o)
	case "status":
		return status(args[2:])
	case "version":
		fmt.Printf("failoverguard %s, protocol %d to %d, %s\n", o.Version, MinProtocolVersion, ProtocolVersion, runtime.Version())
		return 0
	}
	fmt.Fprint(os.Stderr, usage)
	return exitUsage
}

type runFlags struct {
	dir, socket, log                   string
	realtime, noCgroup, detach, isBack bool
	idle                               time.Duration
}

func parseRun(args []string) (runFlags, error) {
	var f runFlags
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.dir, "dir", "", "")
	fs.StringVar(&f.socket, "socket", "", "")
	fs.StringVar(&f.log, "log", "", "")
	fs.BoolVar(&f.realtime, "realtime", false, "")
	fs.BoolVar(&f.noCgroup, "no-cgroup", false, "")
	fs.BoolVar(&f.detach, "detach", false, "")
	fs.BoolVar(&f.isBack, "detached", false, "")
	fs.DurationVar(&f.idle, "idle", 0, "")
	if err := fs.Parse(args); err != nil {
		return f, err
	}
	if fs.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if f.dir == "" {
		return f, errors.New("-dir is missing")
	}
	for _, p := range []*string{&f.dir, &f.socket, &f.log} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return f, err
		}
		*p = abs
	}
	return f, nil
}

func run(args []string, o MainOptions) int {
	f, err := parseRun(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "failoverguard run: %v\n\n%s", err, usage)
		return exitUsage
	}
	if f.detach {
		return detach(f)
	}
	var ready *os.File
	if f.isBack {
		ready = os.NewFile(controlFD, "ready")
		unix.CloseOnExec(controlFD)
	}
	code, err := serve(f, o, ready)
	if err != nil {
		slog.Error("guard ends", "error", err)
		if ready != nil { // no more than a hint for who waits: it may be gone
			_, _ = fmt.Fprintf(ready, "%d %v", code, err)
		}
	}
	return code
}

// serve is the guard's life.
func serve(f runFlags, o MainOptions, ready *os.File) (int, error) {
	failpoint.In(f.dir)
	closeInherited(ready)
	keepLittle()
	hurry()
	// Threads that wait in system calls must not keep the deadline's from running.
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	// Caught and dropped, not ignored: a program would inherit what is ignored.
	// INT: Ctrl-C in a terminal is not meant for the services. PIPE: a log that is gone.
	drop := make(chan os.Signal, 1)
	signal.Notify(drop, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)

	g, err := New(Options{
		Dir: f.dir, Socket: f.socket, Version: o.Version, OpenGate: o.OpenGate, Delete: o.Delete,
		Realtime: f.realtime, NoCgroup: f.noCgroup, Log: func(text string) { log.Warn(text) },
	})
	if errors.Is(err, ErrTaken) {
		return exitTaken, err
	}
	if err != nil {
		return exitError, err
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve() }()
	if err := g.awaitListening(served); err != nil {
		return exitError, errors.Join(err, g.Close())
	}
	failpoint.Here("guard.listening")
	if ready != nil {
		_, _ = ready.WriteString("ok")
		ready.Close()
	}
	info := g.Info()
	log.Info("guard serves", "pid", info.Pid, "dir", f.dir, "cgroup", info.Cgroup, "kernel_timer", info.KernelTimer,
		"realtime", info.Realtime, "memory_locked", info.MemoryLocked, "without", strings.Join(notEmpty(info.CgroupText, info.KernelTimerText, info.RealtimeText), "; "))
	idle, stopIdle := g.idleFor(f.idle)
	defer stopIdle()
	select {
	case <-idle:
		log.Info("no daemon, no service, no lease: ending", "for", f.idle)
	case <-term:
		log.Info("told to end: stopping everything")
		ctx, cancel := context.WithTimeout(context.Background(), g.longestStop())
		defer cancel()
		if err := g.StopAll(ctx); err != nil {
			log.Error("stop everything", "error", err)
		}
	case err = <-served:
	}
	if cerr := g.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return exitError, err
	}
	return 0, nil
}

func (g *Guard) longestStop() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	longest := time.Second
	for _, u := range g.units {
		longest = max(longest, u.spec.StopTimeout)
	}
	return longest + stopMargin
}

// awaitListening waits until Serve listens, or has failed.
func (g *Guard) awaitListening(served chan error) error {
	for {
		g.mu.Lock()
		up := g.srv != nil
		g.mu.Unlock()
		if up {
			return nil
		}
		select {
		case err := <-served:
			served <- err
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

func notEmpty(texts ...string) []string {
	var out []string
	for _, t := range texts {
		if t != "" {
			out = append(out, t)
		}
	}
	return out
}

// closeInherited closes what a careless parent left open, so that no pipe or
// socket of it lives as long as the guard does. The Go runtime's own are anonymous inodes.
func closeInherited(keep *os.File) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || keep != nil && fd == int(keep.Fd()) {
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:") {
			continue
		}
		_ = unix.Close(fd)
	}
}

// keepLittle drops the environment but for what programs need: no daemon's
// NOTIFY_SOCKET or secret reaches a service.
func keepLittle() {
	env := baseEnvironment()
	os.Clearenv()
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		_ = os.Setenv(k, v)
	}
}

// status prints what a guard supervises, as JSON.
func status(args []string) int {
	f, err := parseRun(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "failoverguard status: %v\n\n%s", err, usage)
		return exitUsage
	}
	if f.socket == "" {
		f.socket = filepath.Join(f.dir, SocketName)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := Dial(ctx, f.socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failoverguard status:", err)
		return exitError
	}
	defer c.Close()
	units, err := c.List(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failoverguard status:", err)
		return exitError
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(struct {
		Guard Info      `json:"guard"`
		Units []Running `json:"units"`
	}{c.Info(), units}); err != nil {
		return exitError
	}
	return 0
}
