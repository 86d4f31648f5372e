package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/failoverd/failoverd/cluster"
)

func TestFailoverWithoutForceExplains(t *testing.T) {
	f, path := node(t)
	f.refuseUnforced = fmt.Errorf("%w: a may still run pg; only when you have seen that a is off: failoverctl failover pg --force --reason ...", cluster.ErrRefused)
	code, out, errOut := ctl(path, "failover", "pg")
	if code != exitRefused || out != "" {
		t.Errorf("exit %d, %q", code, out)
	}
	for _, want := range []string{"a may still run pg", "failoverctl explain pg", "--force", "--reason"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q, want %q in it", errOut, want)
		}
	}
}

func TestFailoverAsksForAYes(t *testing.T) {
	f, path := node(t)
	for answer, code := range map[string]int{"yes\n": exitOK, " yes \n": exitOK, "yes": exitOK, "y\n": exitError, "YES\n": exitError, "\n": exitError, "": exitError, "no\nyes\n": exitError} {
		c := &call{in: strings.NewReader(answer), terminal: true}
		if got := c.run("--socket", path, "failover", "pg", "--force", "--reason", "burnt"); got != code {
			t.Errorf("answer %q: exit %d, want %d: %s", answer, got, code, c.err.String())
		}
		if asked := len(f.take()); (asked == 1) != (code == exitOK) {
			t.Errorf("answer %q: asked %d times", answer, asked)
		}
		// It names the holder, what else it holds, and that it answers.
		for _, want := range []string{"you swear that a, which holds pg, is powered off", "ends its hold of web", "It ANSWERS now"} {
			if !strings.Contains(c.err.String(), want) {
				t.Errorf("the question is %q, want %q in it", c.err.String(), want)
			}
		}
	}
}

// Ctrl-C at the question leaves everything as it was.
func TestInterruptAtTheQuestion(t *testing.T) {
	f, path := node(t)
	in, typed := io.Pipe()
	defer typed.Close()
	ctx, interrupt := context.WithCancel(context.Background())
	c := &call{ctx: ctx, in: in, terminal: true}
	ended := make(chan int, 1)
	go func() { ended <- c.run("--socket", path, "failover", "pg", "--force", "--reason", "burnt") }()
	eventually(t, "the question stands", func() bool { return strings.Contains(c.err.String(), "Type yes") })
	interrupt()
	if code := <-ended; code != exitInterrupted || len(f.take()) != 0 {
		t.Errorf("exit %d", code)
	}
	if !strings.Contains(c.err.String(), "the failover of pg was not asked for, nothing was changed") {
		t.Errorf("it says %q", c.err.String())
	}
}
