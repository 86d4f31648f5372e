package guard

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// detach starts the guard again in a session of its own, waits until it
// serves, and ends: so the guard is no child of the daemon, gets no signal
// from its terminal, and keeps none of its descriptors.
func detach(f runFlags) int {
	r, w, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, "detach:", err)
		return exitError
	}
	if f.idle <= 0 {
		f.idle = defaultIdle
	}
	args := []string{"run", "-detached", "-dir", f.dir, "-idle", f.idle.String()}
	for name, v := range map[string]string{"-socket": f.socket, "-log": f.log} {
		if v != "" {
			args = append(args, name, v)
		}
	}
	for name, on := range map[string]bool{"-realtime": f.realtime, "-no-cgroup": f.noCgroup} {
		if on {
			args = append(args, name)
		}
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if f.log != "" {
		log, err := os.OpenFile(f.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			fmt.Fprintln(os.Stderr, "open the guard's log:", err)
			return exitError
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "detach:", err)
		return exitError
	}
	w.Close()
	said, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err == nil && string(said) == "ok" {
		return 0
	}
	code := exitError
	head, rest, _ := strings.Cut(string(said), " ")
	if n, nerr := strconv.Atoi(head); nerr == nil {
		code = n
	}
	if rest == "" {
		rest = "the guard ended before it served; see its log"
	}
	fmt.Fprintln(os.Stderr, rest)
	return code
}
