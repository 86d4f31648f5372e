package guard

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hookArg is the first argument of the program when it is to run one hook.
const hookArg = "hook"

// hookOrder is what a runner is told, and hookNews what it answers.
type hookOrder struct {
	Program program       `json:"program"`
	Timeout time.Duration `json:"timeout"`
	// Keep lets what the hook leaves behind live on: only a start hook's.
	Keep bool `json:"keep"`
}

type hookNews struct {
	Exit     int    `json:"exit"`
	Signal   string `json:"signal,omitempty"`
	TimedOut bool   `json:"timed_out,omitempty"`
	Killed   int    `json:"killed,omitempty"` // processes
	Error    string `json:"error,omitempty"`  // it could not be run
}

// hookMain runs one hook. It is a child subreaper (prctl(2)), so that whatever
// the hook starts, by double fork or in a session of its own, stays below it in
// the tree and can be found when the time is up, without any cgroup. What a
// start hook leaves behind goes to the namespace's init when the runner ends.
func hookMain() int {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "hook:", err)
		return 1
	}
	heedSignals()
	unix.CloseOnExec(controlFD)
	ctl, err := packetConn(os.NewFile(controlFD, "control"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "hook:", err, "(it is started by the guard, never by hand)")
		return 1
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)

	var o hookOrder
	if _, err := recvPacket(ctl, make([]byte, maxPacket), &o); err != nil {
		return 1
	}
	over := time.After(o.Timeout)
	pid, err := o.Program.spawn([]uintptr{0, 1, 2}, &syscall.SysProcAttr{})
	if err != nil {
		_ = sendPacket(ctl, hookNews{Error: err.Error()})
		return 1
	}
	for {
		if ws, ok := reapUntil(pid); ok {
			n := hookNews{Exit: ws.ExitStatus()}
			if ws.Signaled() {
				n.Signal = unix.SignalName(ws.Signal())
			}
			if !o.Keep {
				n.Killed = killBelow(time.Second)
			}
			_ = sendPacket(ctl, n)
			return 0
		}
		select {
		case <-children:
		case <-over:
			n := hookNews{TimedOut: true, Exit: -1}
			n.Killed = killBelow(time.Second)
			_ = sendPacket(ctl, n)
			return 0
		}
	}
}

// reapUntil collects the dead and reports the status of pid if it is among them.
func reapUntil(pid int) (status syscall.WaitStatus, found bool) {
	for {
		var ws syscall.WaitStatus
		p, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || p == 0 {
			return status, found
		}
		if p == pid {
			status, found = ws, true
		}
	}
}

// killBelow kills every descendant of this process, and says how many there were.
// First all are stopped, until a look finds no new one, so that what forks
// cannot outrun it; SIGSTOP and SIGKILL cannot be caught.
func killBelow(limit time.Duration) int {
	end := time.Now().Add(limit)
	seen := map[int]bool{}
	for time.Now().Before(end) {
		fresh := 0
		for _, pid := range descendants() {
			if !seen[pid] {
				seen[pid] = true
				fresh++
				_ = unix.Kill(pid, unix.SIGSTOP)
			}
		}
		if fresh == 0 {
			break
		}
	}
	for time.Now().Before(end) {
		pids := descendants()
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			seen[pid] = true
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		reapUntil(0)
		time.Sleep(time.Millisecond)
	}
	reapUntil(0)
	return len(seen)
}
