package guard

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The talk between the guard and an init: one JSON message per packet of a
// SOCK_SEQPACKET pair, descriptors beside it. Commands with their environment
// may be long, so the buffers are made to fit.
const maxPacket = 512 << 10

// order is what the guard tells an init.
type order struct {
	Op string `json:"op"` // setup, stop, signal, run

	// setup, once, first
	Kind        UnitKind `json:"kind,omitempty"`
	Program     *program `json:"program,omitempty"` // of a process
	StopSignal  int      `json:"stop_signal,omitempty"`
	Tasks       int      `json:"tasks,omitempty"`
	FirstPid    int      `json:"first_pid,omitempty"` // of the namespace, after the init's
	ShareMounts bool     `json:"share_mounts,omitempty"`

	Timeout time.Duration `json:"timeout,omitempty"` // stop
	Signal  int           `json:"signal,omitempty"`  // signal

	// run: descriptors are output, link to the runner, and the cgroup's directory if there is one
	ID uint64 `json:"id,omitempty"`
}

// news is what an init tells the guard.
type news struct {
	Ev     string `json:"ev"`             // up, ran, exited, error
	Pid    int    `json:"pid,omitempty"`  // inside
	Proc   bool   `json:"proc,omitempty"` // has its own /proc
	Text   string `json:"text,omitempty"`
	Status string `json:"status,omitempty"` // of the program, in words
	ID     uint64 `json:"id,omitempty"`
}

// program is a command, resolved: no look-ups are left to the child.
type program struct {
	Argv []string    `json:"argv"`
	Env  []string    `json:"env"`
	Dir  string      `json:"dir"`
	Cred *credential `json:"cred,omitempty"`
}

type credential struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// spawn starts the program with the given standard descriptors, from this
// thread. Ambient capabilities must have been cleared on it.
func (p *program) spawn(files []uintptr, attr *syscall.SysProcAttr) (int, error) {
	if len(p.Argv) == 0 {
		return 0, fmt.Errorf("%w: no command", ErrStart)
	}
	attr.Setsid = true
	if p.Cred != nil {
		attr.Credential = &syscall.Credential{Uid: p.Cred.UID, Gid: p.Cred.GID, Groups: p.Cred.Groups}
	}
	dir := p.Dir
	if dir == "" {
		dir = "/"
	}
	// Looked at first, since the error of a fork does not say which of the two is missing.
	if fi, err := os.Stat(dir); err != nil {
		return 0, fmt.Errorf("%w %s: directory: %v", ErrStart, p.Argv[0], err)
	} else if !fi.IsDir() {
		return 0, fmt.Errorf("%w %s: %s is no directory", ErrStart, p.Argv[0], dir)
	}
	pid, err := syscall.ForkExec(p.Argv[0], p.Argv, &syscall.ProcAttr{Dir: dir, Env: p.Env, Files: files, Sys: attr})
	if err != nil {
		return 0, fmt.Errorf("%w %s: %v", ErrStart, p.Argv[0], err)
	}
	return pid, nil
}

// packetPair makes a connected pair: ours as a net.UnixConn, theirs as a file
// for the child. Both close on exec.
func packetPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	for _, fd := range fds {
		// Refused above net.core.wmem_max; then long commands are refused by the send.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, maxPacket)
	}
	theirs = os.NewFile(uintptr(fds[1]), "control")
	ours, err = packetConn(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// packetConn takes a file over as a connection.
func packetConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use a socket pair: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("use a socket pair: %T is no Unix socket", c)
	}
	return u, nil
}

// sendPacket sends v and descriptors as one packet, waiting at most a second.
func sendPacket(c *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > maxPacket {
		return fmt.Errorf("%w: command and environment of %d bytes are too long", ErrRefused, len(b))
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	if _, _, err := c.WriteMsgUnix(b, rights, nil); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// recvPacket receives one packet; buf is of maxPacket bytes. The caller closes the files.
func recvPacket(c *net.UnixConn, buf []byte, v any) ([]*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(8*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 && oobn == 0 {
		return nil, net.ErrClosed // the other end is gone
	}
	var files []*os.File
	if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, m := range cmsgs {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				continue
			}
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "received"))
			}
		}
	}
	if flags&unix.MSG_TRUNC != 0 {
		closeAll(files)
		return nil, fmt.Errorf("receive message: cut")
	}
	if err := json.Unmarshal(buf[:n], v); err != nil {
		closeAll(files)
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// statusText says in words how a process ended.
func statusText(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		text := "killed by " + unix.SignalName(ws.Signal())
		if ws.CoreDump() {
			text += " (core dumped)"
		}
		return text
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}
