package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

func TestErrorsKeepTheirIdentity(t *testing.T) {
	op := &fakeOperator{}
	_, path := serveUnix(t, op)
	c := dial(t, "unix://"+path)
	all := []error{
		cluster.ErrNoQuorum, cluster.ErrNotLeader, cluster.ErrUnknown, cluster.ErrRefused,
		cluster.ErrNotFound, cluster.ErrInvalid, cluster.ErrTimeout, context.DeadlineExceeded,
	}
	refusal := &state.Refusal{Code: "epoch-not-over", Why: "epoch 3 of pg is not over"}
	long := strings.Repeat("é long reason ", 20000)
	cases := map[string]struct {
		err  error
		is   []error
		text string // when it differs from err's own
	}{
		"no quorum":        {err: fmt.Errorf("apply: %w", cluster.ErrNoQuorum), is: []error{cluster.ErrNoQuorum}},
		"not leader":       {err: cluster.ErrNotLeader, is: []error{cluster.ErrNotLeader}},
		"unknown":          {err: fmt.Errorf("%w: leadership was lost", cluster.ErrUnknown), is: []error{cluster.ErrUnknown}},
		"refused":          {err: fmt.Errorf("%w: pg is paused", cluster.ErrRefused), is: []error{cluster.ErrRefused}},
		"not found":        {err: fmt.Errorf("%w: no service %q", cluster.ErrNotFound, "pq"), is: []error{cluster.ErrNotFound}},
		"invalid":          {err: cluster.ErrInvalid, is: []error{cluster.ErrInvalid}},
		"timeout":          {err: cluster.ErrTimeout, is: []error{cluster.ErrTimeout}},
		"passed deadline":  {err: fmt.Errorf("wait for the move: %w", context.DeadlineExceeded), is: []error{cluster.ErrTimeout}},
		"two at once":      {err: fmt.Errorf("%w: %w", cluster.ErrNoQuorum, cluster.ErrUnknown), is: []error{cluster.ErrNoQuorum, cluster.ErrUnknown}},
		"a refusal":        {err: fmt.Errorf("grant pg: %w", refusal), is: []error{cluster.ErrRefused}},
		"none of them":     {err: errors.New("disk full")},
		"a text too long":  {err: fmt.Errorf("%w: %s", cluster.ErrRefused, long), is: []error{cluster.ErrRefused}},
		"several lines":    {err: errors.New("one\ntwo\ttabbed % percent")},
		"text not in UTF8": {err: errors.New("hook: \xff"), text: "hook: \uFFFD"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			op.set(func() { op.err = test.err })
			_, err := c.Status(testContext(t))
			want := test.text
			if want == "" {
				want = test.err.Error()
			}
			if err == nil || err.Error() != want {
				t.Fatalf("got %.200v, want %.200v", err, want)
			}
			for _, sentinel := range all {
				if got, want := errors.Is(err, sentinel), contains(test.is, sentinel); got != want {
					t.Errorf("errors.Is(err, %v) = %v, want %v", sentinel, got, want)
				}
			}
			var got *state.Refusal
			if has := errors.As(err, &got); has != (name == "a refusal") {
				t.Fatalf("errors.As refusal = %v", has)
			} else if has && *got != *refusal {
				t.Errorf("refusal became %+v", got)
			}
		})
	}
}

func contains(list []error, e error) bool {
	for _, x := range list {
		if x == e {
			return true
		}
	}
	return false
}

// An error that went through two nodes is the same as through one.
func TestErrorsKeepTheirIdentityOverTwoHops(t *testing.T) {
	far := &fakeOperator{err: fmt.Errorf("grant: %w", &state.Refusal{Code: "c", Why: "w"})}
	_, farPath := serveUnix(t, far)
	_, nearPath := serveUnix(t, dial(t, "unix://"+farPath))
	err := dial(t, "unix://"+nearPath).Pause(testContext(t), cluster.PauseRequest{})
	var refusal *state.Refusal
	if !errors.Is(err, cluster.ErrRefused) || !errors.As(err, &refusal) || refusal.Code != "c" || err.Error() != "grant: w" {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	free := listen(t)
	_ = free.Close()
	frozen := listen(t) // its queue takes connections, and nobody ever speaks
	cases := map[string]struct {
		target string
		cause  error
	}{
		"no socket":     {"unix://" + filepath.Join(t.TempDir(), "none"), fs.ErrNotExist},
		"a closed port": {free.Addr().String(), syscall.ECONNREFUSED},
		"a frozen node": {frozen.Addr().String(), nil},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			c := dial(t, test.target)
			begun := time.Now()
			err := c.Pause(testContext(t), cluster.PauseRequest{})
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if !errors.Is(err, ErrUnreachable) || errors.Is(err, cluster.ErrUnknown) {
				t.Errorf("got %v: want unreachable, and nothing unknown", err)
			}
			if test.cause != nil && !errors.Is(err, test.cause) {
				t.Errorf("got %v: want the cause %v", err, test.cause)
			}
			if err != nil && !strings.Contains(err.Error(), strings.TrimPrefix(test.target, "unix://")) {
				t.Errorf("got %v: want the target named", err)
			}
		})
	}
}

// A node that dies in the middle of a call leaves a change unknown, and a read
// merely unanswered.
func TestNodeDiesInTheMiddle(t *testing.T) {
	op := &fakeOperator{block: make(chan struct{}), inside: make(chan struct{}, 2)}
	defer close(op.block)
	l := listen(t)
	relay := newRelay(t, l)
	s := NewServer(ServerOptions{Operator: op, Log: quiet()})
	if err := s.ServeTCP(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := dial(t, relay.address())
	changed, read := make(chan error, 1), make(chan error, 1)
	ctx := testContext(t)
	go func() { changed <- c.Pause(ctx, cluster.PauseRequest{}) }()
	go func() { _, err := c.Status(ctx); read <- err }()
	<-op.inside
	<-op.inside
	relay.cut()
	if err := <-changed; !errors.Is(err, cluster.ErrUnknown) || errors.Is(err, ErrUnreachable) {
		t.Errorf("a change: %v, want unknown", err)
	}
	if err := <-read; errors.Is(err, cluster.ErrUnknown) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("a read: %v, want unreachable", err)
	}
}

func TestDeadline(t *testing.T) {
	// A node that ignores its context, and so cannot give a last word.
	op := &fakeOperator{inside: make(chan struct{})}
	_, path := serveUnix(t, op)
	c := dial(t, "unix://"+path)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err := c.Pause(ctx, cluster.PauseRequest{})
	if !errors.Is(err, cluster.ErrTimeout) || !errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("got %v, want a timeout with an unknown outcome", err)
	}
	<-op.inside

	// One that watches it says itself how things stand.
	op.set(func() { op.inside, op.block = nil, make(chan struct{}) })
	ctx, cancel = context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := c.Pause(ctx, cluster.PauseRequest{}); !errors.Is(err, cluster.ErrTimeout) || errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("got %v, want the node's own word", err)
	}
}

func TestCancel(t *testing.T) {
	op := &fakeOperator{block: make(chan struct{}), inside: make(chan struct{}, 1)}
	_, path := serveUnix(t, op)
	c := dial(t, "unix://"+path)
	ctx, cancel := context.WithCancel(testContext(t))
	got := make(chan error, 1)
	go func() { got <- c.Pause(ctx, cluster.PauseRequest{}) }()
	<-op.inside
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) || !errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("after it was sent: %v", err)
	}
	if err := c.Pause(ctx, cluster.PauseRequest{}); !errors.Is(err, context.Canceled) || errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("before it was sent: %v", err)
	}
}

func TestWrongTargets(t *testing.T) {
	for _, target := range []string{"", "host", "host:", ":70", "unix:", "unix:///", "a:b:c"} {
		if c, err := Dial(target, nil); err == nil {
			_ = c.Close()
			t.Errorf("Dial(%q) took it", target)
		}
	}
}
