package main

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

// start runs a command that goes on until it is interrupted.
func start(c *call, args ...string) (interrupt func(), ended <-chan int) {
	ctx, cancel := context.WithCancel(context.Background())
	c.ctx = ctx
	code := make(chan int, 1)
	go func() { code <- c.run(args...) }()
	return cancel, code
}

// restartable is a node whose server can be stopped and started again.
func restartable(t *testing.T, f *fakeNode) (path string, startAgain func() *rpc.Server) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sock")
	return path, func() *rpc.Server {
		s := rpc.NewServer(rpc.ServerOptions{Operator: f, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Grace: 200 * time.Millisecond})
		if err := s.ServeUnix(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		return s
	}
}

func TestEventsFollow(t *testing.T) {
	f := &fakeNode{status: cluster.Status{Quorum: true}, events: []state.Event{{Index: 1, Kind: "found", Why: "first"}, {Index: 2, Kind: "grant", Service: "pg", Why: "second"}}}
	path, startAgain := restartable(t, f)
	s := startAgain()
	c := &call{}
	interrupt, ended := start(c, "--socket", path, "events", "-f", "-n", "1", "-o", "json")
	has := func(part string) func() bool { return func() bool { return strings.Contains(c.out.String(), part) } }
	eventually(t, "the newest event is shown", has("second"))
	f.set(func() { f.events = append(f.events, state.Event{Index: 3, Kind: "pause", Why: "third"}) })
	eventually(t, "the next event is shown", has("third"))
	s.Stop()
	eventually(t, "the break is told", func() bool { return strings.Contains(c.err.String(), "-- the stream broke") })
	f.set(func() { f.events = append(f.events, state.Event{Index: 4, Kind: "resume", Why: "fourth"}) })
	startAgain()
	eventually(t, "what happened meanwhile is shown", has("fourth"))
	if !strings.Contains(c.err.String(), "-- the node answers again") {
		t.Errorf("standard error: %q", c.err.String())
	}
	f.set(func() { f.status.Quorum = false })
	eventually(t, "the loss of the quorum is told", func() bool { return strings.Contains(c.err.String(), "-- no quorum stands behind") })
	f.set(func() { f.status.Quorum = true })
	eventually(t, "its return is told", func() bool { return strings.Contains(c.err.String(), "stands behind the events again") })
	interrupt()
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d", code)
	}
	if out := c.out.String(); strings.Count(out, "\n") != 3 || strings.Contains(out, "first") {
		t.Errorf("each event once, and those before -n not at all: %q", out)
	}
}

func TestStatusWatch(t *testing.T) {
	f := &fakeNode{status: cluster.Status{Node: "a", Quorum: true, Cluster: "c1", Leader: "a", At: time.Now()}}
	path, startAgain := restartable(t, f)
	s := startAgain()
	c := &call{screen: [2]int{80, 24}, env: map[string]string{"NO_COLOR": "1"}}
	interrupt, ended := start(c, "--socket", path, "status", "-w", "--interval", "100ms")
	eventually(t, "two answers are drawn", func() bool { return strings.Count(c.out.String(), "Last answer: ") >= 2 })
	s.Stop()
	eventually(t, "it says that nobody answers", func() bool { return strings.Contains(c.out.String(), "NO ANSWER since") })
	if late := c.out.String(); !strings.Contains(late[strings.LastIndex(late, "NO ANSWER"):], "Cluster: c1") {
		t.Error("the last answer is gone from the screen")
	}
	startAgain()
	before := len(c.out.String())
	eventually(t, "it goes on", func() bool { return strings.Contains(c.out.String()[before:], "Last answer: ") })
	interrupt()
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d: %s", code, c.err.String())
	}
	out := c.out.String()
	if !strings.HasPrefix(out, "\x1b[?1049h\x1b[?25l\x1b[H") || !strings.HasSuffix(out, "\x1b[?25h\x1b[?1049l") {
		t.Errorf("the terminal is not taken and given back: %q ... %q", out[:20], out[len(out)-20:])
	}
	if strings.Contains(out, "\x1b[2J") {
		t.Error("the screen is cleared, which flickers")
	}
}

func TestStatusWatchElsewhere(t *testing.T) {
	f := &fakeNode{status: cluster.Status{Node: "a", Quorum: true, At: time.Now()}}
	path, startAgain := restartable(t, f)
	startAgain()
	for _, output := range []string{"text", "json"} {
		c := &call{}
		interrupt, ended := start(c, "--socket", path, "status", "-w", "--interval", "100ms", "-o", output)
		eventually(t, "two answers are written", func() bool {
			return strings.Count(c.out.String(), "Last answer: ") >= 2 || strings.Count(c.out.String(), "\n{") >= 1
		})
		interrupt()
		<-ended
		if strings.Contains(c.out.String(), "\x1b") {
			t.Errorf("%s: escapes where there is no terminal", output)
		}
	}
}

// What does not fit is said to be missing.
func TestScreenCutsWhatDoesNotFit(t *testing.T) {
	c := &call{}
	a := &app{environment: environment{out: &c.out, outTerminal: func() (int, int, bool) { return 80, 5, true }}}
	if err := newScreen(a).show("1\n2\n3\n4\n5\n6\n7\n"); err != nil {
		t.Fatal(err)
	}
	if got := c.out.String(); strings.Contains(got, "5\x1b") || !strings.Contains(got, "... 3 more lines") || strings.Count(got, "\r\n") != 4 {
		t.Errorf("got %q", got)
	}
}

func TestWatchHead(t *testing.T) {
	at := time.Date(2026, 3, 14, 14, 5, 0, 0, time.UTC)
	style := render.Style{Location: time.UTC}
	if got := watchHead(cluster.Status{Node: "a"}, at, at, nil, style); got != "Last answer: 14:05:00 from a\n\n" {
		t.Errorf("got %q", got)
	}
	got := watchHead(cluster.Status{Node: "a"}, at, at.Add(7*time.Second), io.ErrUnexpectedEOF, style)
	if got != "NO ANSWER since 14:05:00 (7.0 s ago): unexpected EOF\nWhat stands below is that old.\n\n" {
		t.Errorf("got %q", got)
	}
}
