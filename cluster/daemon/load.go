package daemon

import (
	"io"
	"log/slog"
	"os"

	"github.com/failoverd/failoverd/cluster/config"
)

// Loaded is a node's file that was read and checked against this host.
type Loaded struct{ cfg *config.Node }

// Load reads a node's own file and checks what only this host can tell. Every
// problem is in the error, with file and line where there is one.
func Load(path string) (Loaded, error) {
	cfg, err := config.LoadNode(path)
	if err != nil {
		return Loaded{}, err
	}
	if err := cfg.CheckHost(); err != nil {
		return Loaded{}, err
	}
	return Loaded{cfg}, nil
}

// Settings are the settings in force, in the language of the file.
func (l Loaded) Settings() []byte { return l.cfg.Marshal() }

// Options are those of a daemon that logs to w.
func (l Loaded) Options(w io.Writer) Options {
	level := slog.LevelInfo
	switch l.cfg.Log.Level {
	case "debug":
		level = slog.LevelDebug
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if l.cfg.Log.Format == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	log := slog.New(h).With("node", l.cfg.Name, "pid", os.Getpid())
	for _, warning := range l.cfg.Warnings() {
		log.Warn(warning)
	}
	return Options{Config: l.cfg, Log: log}
}
