package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	maxLine   = 400 // bytes of one line that are kept
	lineBurst = 20  // lines per lineEvery, for hostile packets make a line each
	lineEvery = 10 * time.Second
)

// logBridge takes the lines that memberlist writes through package log and
// gives them to slog, cut and limited in number.
type logBridge struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	since   time.Time
	lines   int
	dropped int
	closed  bool
}

func newLogBridge(l *slog.Logger) *logBridge { return &logBridge{log: l, now: time.Now} }

// Write takes one line.
func (w *logBridge) Write(line []byte) (int, error) {
	n := len(line)
	level, text := splitLevel(bytes.TrimSpace(line))
	if !w.log.Enabled(context.Background(), level) {
		return n, nil
	}
	dropped, ok := w.allow()
	if dropped > 0 {
		w.log.Warn("gossip: lines were left out", "lines", dropped)
	}
	if ok {
		if len(text) > maxLine {
			text = text[:maxLine] + " ..."
		}
		w.log.Log(context.Background(), level, "gossip: "+strings.ToValidUTF8(text, "?"))
	}
	return n, nil
}

// close makes every later line vanish.
func (w *logBridge) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// allow counts a line and returns how many were left out in the window that
// has just ended.
func (w *logBridge) allow() (dropped int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.now(); !w.closed && now.Sub(w.since) >= lineEvery {
		w.since, w.lines = now, 0
		dropped, w.dropped = w.dropped, 0
	}
	if w.closed {
		return 0, false
	}
	if w.lines >= lineBurst {
		w.dropped++
		return dropped, false
	}
	w.lines++
	return dropped, true
}

// splitLevel reads "[WARN] memberlist: text". What memberlist calls an error
// is a peer that cannot be reached: a warning at the most here.
func splitLevel(line []byte) (slog.Level, string) {
	text := string(line)
	level := slog.LevelWarn
	if word, rest, ok := strings.Cut(text, "] "); ok && strings.HasPrefix(word, "[") {
		text = rest
		switch word[1:] {
		case "DEBUG":
			level = slog.LevelDebug
		case "INFO":
			level = slog.LevelInfo
		}
	}
	return level, strings.TrimPrefix(text, "memberlist: ")
}
