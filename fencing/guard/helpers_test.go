package guard

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/service/cgroup"
)

func openGroup(path string) *cgroup.Group { return cgroup.Open(path) }

// needNamespaces skips where no PID namespace can be made at all.
func needNamespaces(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	if err := cmd.Run(); err != nil {
		t.Skipf("no PID namespaces here: %v; run as root, or allow user namespaces (user.max_user_namespaces)", err)
	}
}

// needCgroup skips where cgroup v2 cannot be written.
func needCgroup(t *testing.T) *cgroup.Group {
	t.Helper()
	own, err := cgroup.Own()
	if err == nil {
		err = own.Writable()
	}
	if err != nil {
		t.Skipf("%v; run as root on a host with cgroup v2", err)
	}
	return own
}

// What a guard's process would do to the network is written into files whose
// paths are given as the names of table and interface.
type fileGate string

func gateToFile(table string) (Shutter, error) { return fileGate(table), nil }

func (f fileGate) Shut(as []Address) error {
	return appendLine(string(f), fmt.Sprint("shut ", len(as)))
}
func (f fileGate) Close() error { return nil }

func deleteToFile(as []Address) error {
	for _, a := range as {
		if err := appendLine(a.Interface, "delete "+a.CIDR); err != nil {
			return err
		}
	}
	return nil
}

func appendLine(path, text string) error {
	d, err := Now()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s %d\n", text, int64(d.Boot))
	return err
}

// fakeDaemon extends a lease every third of it until it is killed:
// DIR SESSION LEASE.
func fakeDaemon(args []string) int {
	left, err := time.ParseDuration(args[2])
	if err != nil {
		return 1
	}
	session, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return 1
	}
	c, err := Dial(longContext(), filepath.Join(args[0], SocketName))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	c.Use(session)
	for {
		d, err := Now()
		if err != nil {
			return 1
		}
		d = d.Add(left)
		if err := c.Extend(d.Boot, d.Raw); err != nil {
			fmt.Println(err)
		} else {
			fmt.Printf("extended %d %d\n", int64(d.Boot), int64(d.Raw))
		}
		time.Sleep(left / 3)
	}
}

// beat serves: it writes both clocks into a file, again and again, for as long
// as it gets to run. What stands there at last is when it served last.
func beat(path string) int {
	f, err := os.Create(path)
	if err != nil {
		return 1
	}
	buf := make([]byte, 16)
	for {
		d, err := Now()
		if err != nil {
			return 1
		}
		binary.BigEndian.PutUint64(buf, uint64(d.Boot))
		binary.BigEndian.PutUint64(buf[8:], uint64(d.Raw))
		if _, err := f.WriteAt(buf, 0); err != nil {
			return 1
		}
		time.Sleep(300 * time.Microsecond)
	}
}

// lastBeat reads it.
func lastBeat(t *testing.T, path string) (Deadline, bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 16 {
		return Deadline{}, false
	}
	return Deadline{
		Boot: time.Duration(binary.BigEndian.Uint64(b)),
		Raw:  time.Duration(binary.BigEndian.Uint64(b[8:])),
	}, true
}

func release(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Release[:])
}
