package guard

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

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

// What a guard's process would do to the network, written down instead. The
// directory is that of the table's or interface's name.
func shutToFile(table string) error {
	return appendLine(table, "shut")
}

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
