package consensus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// bridge is raft's logger over slog. raft tells much that is of no use to an
// operator at info and warning: every vote, every peer that does not answer
// each time it does not. What matters of it is said by this package itself,
// so raft's info goes to debug; warnings and errors about a peer that cannot be
// reached come many times a second in an outage and go to debug too.
type bridge struct {
	to     *slog.Logger
	name   string
	fields []any
}

func newBridge(to *slog.Logger) hclog.Logger { return &bridge{to: to} }

// chatter begins the messages that repeat while a peer is away.
var chatter = []string{
	"failed to heartbeat to",
	"failed to appendEntries to",
	"failed to make requestVote RPC",
	"failed to contact",
	"failed to decode incoming command",
	"failed to flush response",
	"failed to get log",
	"failed to get previous log",
	"failed to send snapshot to",
	"failed to install snapshot",
	"rejecting pre-vote request",
	"rejecting vote request",
	"Election timeout reached",
	"heartbeat timeout reached",
	"not part of stable configuration",
	"no known peers",
	"found temporary snapshot",
	"skipping application of old log",
	"appendEntries rejected",
	"peer has newer term",
	"previous log term mis-match",
}

func (b *bridge) level(level hclog.Level, msg string) slog.Level {
	switch level {
	case hclog.Warn, hclog.Error:
		for _, c := range chatter {
			if strings.HasPrefix(msg, c) {
				return slog.LevelDebug
			}
		}
		if level == hclog.Error {
			return slog.LevelError
		}
		return slog.LevelWarn
	case hclog.Trace:
		return slog.LevelDebug - 4
	}
	return slog.LevelDebug
}

// Log writes one line.
func (b *bridge) Log(level hclog.Level, msg string, args ...any) {
	to := b.level(level, msg)
	if !b.to.Enabled(context.Background(), to) {
		return
	}
	fields := append(append([]any{}, b.fields...), args...)
	for i, f := range fields {
		// hclog's own way to defer formatting means nothing to slog.
		if f, ok := f.(hclog.Format); ok && len(f) > 0 {
			fields[i] = formatted(f)
		}
	}
	b.to.Log(context.Background(), to, msg, fields...)
}

func (b *bridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }
func (b *bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

func (b *bridge) IsTrace() bool { return b.GetLevel() == hclog.Trace }
func (b *bridge) IsDebug() bool { return b.to.Enabled(context.Background(), slog.LevelDebug) }
func (b *bridge) IsInfo() bool  { return b.IsDebug() } // raft's info is our debug
func (b *bridge) IsWarn() bool  { return b.to.Enabled(context.Background(), slog.LevelWarn) }
func (b *bridge) IsError() bool { return b.to.Enabled(context.Background(), slog.LevelError) }

func (b *bridge) ImpliedArgs() []any { return b.fields }

func (b *bridge) With(args ...any) hclog.Logger {
	return &bridge{to: b.to, name: b.name, fields: append(append([]any{}, b.fields...), args...)}
}

func (b *bridge) Name() string { return b.name }

func (b *bridge) Named(name string) hclog.Logger {
	return &bridge{to: b.to, name: name, fields: b.fields}
}

func (b *bridge) ResetNamed(name string) hclog.Logger { return b.Named(name) }

// SetLevel does nothing: slog's handler has the level.
func (b *bridge) SetLevel(hclog.Level) {}

func (b *bridge) GetLevel() hclog.Level {
	switch {
	case b.to.Enabled(context.Background(), slog.LevelDebug-4):
		return hclog.Trace
	case b.IsDebug():
		return hclog.Debug
	case b.IsWarn():
		return hclog.Warn
	}
	return hclog.Error
}

func (b *bridge) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(b.StandardWriter(opts), "", 0)
}

func (b *bridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lines{b} }

// lines logs what a library prints through package log.
type lines struct{ to *bridge }

func (l lines) Write(p []byte) (int, error) {
	l.to.Log(hclog.Debug, string(bytes.TrimSpace(p)))
	return len(p), nil
}

func formatted(f hclog.Format) string {
	layout, ok := f[0].(string)
	if !ok {
		return fmt.Sprint([]any(f)...)
	}
	return fmt.Sprintf(layout, f[1:]...)
}
