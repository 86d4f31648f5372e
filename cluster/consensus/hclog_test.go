package consensus

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestRaftsLogArrivesAtTheRightLevel(t *testing.T) {
	var out bytes.Buffer
	to := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b := newBridge(to).With("node", "a")
	for _, c := range []struct {
		say  func()
		want string
	}{
		{func() { b.Error("failed to commit logs", "error", io.EOF) }, `level=ERROR msg="failed to commit logs" node=a error=EOF`},
		{func() { b.Error("failed to heartbeat to", "peer", "b") }, `level=DEBUG msg="failed to heartbeat to"`},
		{func() { b.Warn("clearing log suffix", "from", 3) }, `level=WARN msg="clearing log suffix" node=a from=3`},
		{func() { b.Info("entering follower state") }, `level=DEBUG`},
		{func() { b.Info("servers", "servers", hclog.Fmt("%d of %d", 1, 3)) }, `servers="1 of 3"`},
		{func() { b.Debug("x") }, `level=DEBUG`},
		{func() { b.Trace("never seen") }, ``},
		{func() { b.StandardLogger(nil).Print("from package log") }, `msg="from package log"`},
		{func() { b.Named("raft-net").Debug("named") }, `msg=named`},
	} {
		out.Reset()
		c.say()
		if got := out.String(); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if !b.IsDebug() || b.IsTrace() || !b.IsInfo() || !b.IsWarn() || !b.IsError() || b.GetLevel() != hclog.Debug {
		t.Error("levels")
	}
	quiet := newBridge(slog.New(slog.DiscardHandler))
	if quiet.IsDebug() || quiet.GetLevel() != hclog.Error {
		t.Error("a discarded log is worth formatting for")
	}
}
