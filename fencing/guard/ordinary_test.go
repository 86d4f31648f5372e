package guard

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The guard without root: the same tests, run again by an ordinary user, once
// as it is and once as root of a user namespace, which is how `make demo` runs
// for ordinary users. Neither can write cgroups.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the tests are run by an ordinary user already")
	}
	needNamespaces(t)
	exe := copySelf(t)
	const nobody = 65534
	for name, attr := range map[string]*syscall.SysProcAttr{
		"user": {Credential: &syscall.Credential{Uid: nobody, Gid: nobody}},
		"root of a user namespace": {
			Cloneflags:  syscall.CLONE_NEWUSER,
			Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			openWay(t, tmp)
			if err := os.Chown(tmp, nobody, nobody); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "-test.v", "-test.run",
				"^(TestStartListStop|TestStopIsProven|TestDeadlineOfAGuardThatRuns|TestDeadlineOfAGuardThatIsStopped|TestKillOfTheGuard|TestStartHookLeavesADaemon|TestHookTimeout)$/^(cgroup|cgroup_0)$")
			cmd.Env = []string{"TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
			cmd.Dir = tmp
			cmd.SysProcAttr = attr
			out, err := cmd.CombinedOutput()
			text := string(out)
			if err != nil && strings.Contains(text, "operation not permitted") && len(out) < 200 {
				t.Skipf("no user namespaces for ordinary users here: %s", text)
			}
			if err != nil || strings.Contains(text, "--- SKIP") || !strings.Contains(text, "--- PASS: TestHookTimeout") {
				t.Errorf("%v\n%s", err, out)
			}
			for _, line := range strings.Split(text, "\n") {
				if strings.Contains(line, "last served") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}
