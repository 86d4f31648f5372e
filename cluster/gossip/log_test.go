package gossip

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogLinesAreBridged(t *testing.T) {
	var out strings.Builder
	w := newLogBridge(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Unix(0, 0).Add(time.Hour)
	w.now = func() time.Time { return now }
	for _, line := range []string{
		"[DEBUG] memberlist: not shown", "[INFO] memberlist: info", "[WARN] memberlist: warn", "[ERR] memberlist: error",
		"without a level", "[ERR] memberlist: " + strings.Repeat("x", 5000), "[WARN] line\nbreak \xff",
	} {
		if n, err := w.Write([]byte(line + "\n")); err != nil || n != len(line)+1 {
			t.Fatal(n, err)
		}
	}
	for _, want := range []string{
		`level=INFO msg="gossip: info"`, `level=WARN msg="gossip: warn"`, `level=WARN msg="gossip: error"`,
		`level=WARN msg="gossip: without a level"`, `xxx ..."`, `line\nbreak ?`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "not shown") || len(out.String()) > 2000 {
		t.Errorf("too much: %s", out.String())
	}
	for range 1000 {
		_, _ = w.Write([]byte("[WARN] flood"))
	}
	if n := strings.Count(out.String(), "flood"); n > lineBurst {
		t.Errorf("%d lines of a flood", n)
	}
	now = now.Add(lineEvery)
	_, _ = w.Write([]byte("[WARN] later"))
	if !strings.Contains(out.String(), "lines=9") || !strings.Contains(out.String(), "gossip: later") {
		t.Errorf("nothing says that lines were left out: %s", out.String())
	}
	w.close()
	_, _ = w.Write([]byte("[WARN] after the end"))
	if strings.Contains(out.String(), "after the end") {
		t.Error("a line after the end")
	}
}
