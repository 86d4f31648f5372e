package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// Every kind of answer has its exit code, for every family of commands, and a
// message of a line or two.
func TestExitCodes(t *testing.T) {
	f, path := node(t)
	file := write(t, "s.hcl", goodServices)
	commands := []string{
		"explain pg", "history", "events", "members", "switchover pg", "failover pg --force --reason r --yes", "pause", "resume pg",
		"node standby b", "node unstandby b", "node restart b", "cleanup pg", "members add d 192.0.2.4", "members remove b",
		"members promote b", "members demote b", "members replace b d 192.0.2.4", "plan " + file, "apply " + file,
	}
	tests := map[string]struct {
		err  error
		code int
		text string
	}{
		"no quorum":   {fmt.Errorf("commit: %w", cluster.ErrNoQuorum), exitNoQuorum, "a majority must run"},
		"not leader":  {cluster.ErrNotLeader, exitNoQuorum, "not the leader"},
		"refused":     {fmt.Errorf("%w: pg is paused; resume it first", cluster.ErrRefused), exitRefused, "pg is paused; resume it first"},
		"refusal":     {&state.Refusal{Code: "x", Why: "epoch 3 is not over; wait for it"}, exitRefused, "epoch 3 is not over; wait for it"},
		"timeout":     {cluster.ErrTimeout, exitTimeout, "timed out"},
		"unknown":     {fmt.Errorf("%w: leadership was lost", cluster.ErrUnknown), exitTimeout, "look before asking again"},
		"not found":   {fmt.Errorf("%w: no service %q; there is: web", cluster.ErrNotFound, "pg"), exitError, "there is: web"},
		"invalid":     {fmt.Errorf("%w: no such change", cluster.ErrInvalid), exitUsage, "no such change"},
		"other":       {errors.New("disk full"), exitError, "disk full"},
		"many lines":  {errors.New("one\ntwo\n\n\nthree"), exitError, "one two three"},
		"both":        {fmt.Errorf("%w: %w", cluster.ErrNoQuorum, cluster.ErrUnknown), exitTimeout, "no quorum"},
		"refused too": {fmt.Errorf("%w: %w", cluster.ErrRefused, cluster.ErrTimeout), exitRefused, "refused"},
	}
	for name, test := range tests {
		f.set(func() { f.err = test.err })
		for _, line := range commands {
			code, out, errOut := ctl(path, strings.Fields(line)...)
			if code != test.code || !strings.Contains(errOut, test.text) {
				t.Errorf("%s, %s: exit %d, want %d; %q, want %q in it", name, line, code, test.code, errOut, test.text)
			}
			if n := strings.Count(errOut, "\n"); n < 1 || n > 2 || !strings.HasPrefix(errOut, "failoverctl: ") {
				t.Errorf("%s, %s: %d lines on standard error: %q", name, line, n, errOut)
			}
			if out != "" {
				t.Errorf("%s, %s: standard output has %q", name, line, out)
			}
		}
	}
	f.set(func() { f.err = nil; f.status.Quorum = false })
	code, out, errOut := ctl(path, "status")
	if code != exitNoQuorum || !strings.Contains(out, "Quorum: NO") || errOut != "" {
		t.Errorf("status without a quorum: exit %d, %q, %q", code, out, errOut)
	}
}

func TestWrongUsage(t *testing.T) {
	_, path := node(t)
	for line, want := range map[string]string{
		"":                                 "name a command: apply, cleanup",
		"statsu":                           "did you mean failoverctl status?",
		"switch":                           "did you mean failoverctl switchover?",
		"xyzzy":                            "--help lists the commands",
		"node":                             "name a command: restart, standby, unstandby",
		"node restrat b":                   "did you mean failoverctl node restart?",
		"members ad x":                     "did you mean failoverctl members add?",
		"node restart":                     "needs NODE",
		"members add x":                    "needs ADDRESS",
		"members add":                      "needs NAME and ADDRESS",
		"members replace a":                "needs NEW and ADDRESS",
		"members add x y:z:1":              "is no IP address",
		"members add x 192.0.2.1 --role x": "there is no role",
		"failover":                         "needs SERVICE",
		"failover pg --force":              "needs a --reason",
		"failover pg --force --reason r":   "no terminal to ask on",
		"explain a b c":                    "does not know what to do with",
		"status --nonsense":                "unknown flag: --nonsense",
		"status -o yaml":                   "has no output \"yaml\"",
		"status --timeout soon":            "invalid argument",
		"status --timeout -1s":             "is no time to wait",
		"status -w --interval 1ms":         "too short",
		"pause --for 0s":                   "is no time to pause",
		"pause pg web":                     "does not know what to do with \"web\"",
		"history -n -1":                    "is no number of events",
		"events -n -1":                     "is no number of events",
		"plan":                             "needs FILE",
		"apply":                            "needs FILE",
		"validate":                         "needs FILE...",
		"completion":                       "needs SHELL",
		"completion tcsh":                  "knows no shell",
		"help nonsense":                    "there is no command \"nonsense\"",
		"status --ca x":                    "a socket has no TLS",
		"status --address localhost:1":     "name two nodes",
	} {
		code, out, errOut := ctl(path, strings.Fields(line)...)
		if code != exitUsage || !strings.Contains(errOut, want) || out != "" {
			t.Errorf("%q: exit %d, want %d; %q, want %q in it; output %q", line, code, exitUsage, errOut, want, out)
		}
		if n := strings.Count(errOut, "\n"); n != 2 {
			t.Errorf("%q: %d lines: %q", line, n, errOut)
		}
	}
	if code, _, errOut := ctl(path, "explain", ""); code != exitUsage || !strings.Contains(errOut, "an argument is empty") {
		t.Errorf("an empty argument: exit %d, %q", code, errOut)
	}
}

// When nobody answers, it says which socket or address that was, and what to do.
func TestNobodyAnswers(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = tcp.Close()
	port := tcp.Addr().String()
	for name, test := range map[string]struct {
		args []string
		env  map[string]string
		want []string
	}{
		"no socket":       {[]string{"--socket", none}, nil, []string{"socket " + none, "start failoverd on this machine"}},
		"dead socket":     {[]string{"--socket", dead}, nil, []string{"socket " + dead, "its last run has left"}},
		"socket from env": {nil, map[string]string{"FAILOVERCTL_SOCKET": none}, []string{"socket " + none}},
		"address":         {[]string{"--address", port}, nil, []string{port, "connection refused", "api = "}},
		"address by env":  {nil, map[string]string{"FAILOVERCTL_ADDRESS": port}, []string{port}},
		"flag before env": {[]string{"--socket", none}, map[string]string{"FAILOVERCTL_ADDRESS": port}, []string{"socket " + none}},
	} {
		for _, command := range []string{"status", "switchover", "events -f", "status -w"} {
			c := &call{env: test.env}
			code := c.run(append(test.args, strings.Fields(command)...)...)
			if code != exitError {
				t.Errorf("%s, %s: exit %d", name, command, code)
			}
			for _, want := range test.want {
				if !strings.Contains(c.err.String(), want) {
					t.Errorf("%s, %s: %q, want %q in it", name, command, c.err.String(), want)
				}
			}
		}
	}
}

func TestSocketThatMayNotBeOpened(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root may open everything: the advice alone is checked.
		a := &app{target: "unix:///x"}
		if got := a.nextUnreachable(os.ErrPermission); !strings.Contains(got, "run it as root") {
			t.Errorf("got %q", got)
		}
		return
	}
	_, path := node(t)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := ctl(path, "status"); code != exitError || !strings.Contains(errOut, "run it as root") {
		t.Errorf("exit %d, %q", code, errOut)
	}
}

func TestTimeout(t *testing.T) {
	f, path := node(t)
	f.block = true
	begun := time.Now()
	code, _, errOut := ctl(path, "--timeout", "300ms", "pause")
	if code != exitTimeout || time.Since(begun) > 10*time.Second {
		t.Errorf("exit %d after %v: %q", code, time.Since(begun), errOut)
	}
	code, _, errOut = ctl(path, "switchover", "--wait", "300ms")
	if code != exitTimeout {
		t.Errorf("switchover --wait: exit %d: %q", code, errOut)
	}
}

// Ctrl-C ends a command at once and says what is or is not under way.
func TestInterrupt(t *testing.T) {
	f, path := node(t)
	f.set(func() { f.block, f.inside = true, make(chan struct{}, 1) })
	ctx, interrupt := context.WithCancel(context.Background())
	c := &call{ctx: ctx}
	ended := make(chan int, 1)
	go func() { ended <- c.run("--socket", path, "switchover", "pg") }()
	<-f.inside
	interrupt()
	if code := <-ended; code != exitInterrupted {
		t.Errorf("exit %d", code)
	}
	if got := c.err.String(); !strings.Contains(got, "the switchover of pg was asked for and may be under way or done") {
		t.Errorf("it says %q", got)
	}
	c = &call{ctx: ctx} // interrupted before it was sent
	if code := c.run("--socket", path, "pause", "pg"); code != exitInterrupted || !strings.Contains(c.err.String(), "the pause of pg was not asked for, nothing was changed") {
		t.Errorf("exit %d, %q", code, c.err.String())
	}
	c = &call{ctx: ctx}
	if code := c.run("--socket", path, "status"); code != exitInterrupted || !strings.Contains(c.err.String(), "interrupted; nothing was changed") {
		t.Errorf("exit %d, %q", code, c.err.String())
	}
}
