package main

import (
	"bytes"
	"encoding/json"
	"strings"
)

// failure is what go test -json has said of a failure so far.
type failure struct {
	seen  bool   // something failed
	build bool   // the code does not compile
	pkg   string // of the test that failed first, below the module
	test  string // without subtests; empty: the package as a whole
	hung  bool
}

// text names the test that failed.
func (f *failure) text() string {
	text := strings.TrimSpace(f.pkg + " " + f.test)
	if f.test == "" {
		text = strings.TrimSpace(f.pkg + " the whole package")
	}
	if f.hung {
		text += " (hung)"
	}
	return text
}

// line takes one line of output.
func (f *failure) line(line []byte) {
	var e struct{ Action, Package, Test, Output string }
	if json.Unmarshal(line, &e) != nil {
		return
	}
	switch {
	case strings.HasPrefix(e.Output, "panic: test timed out"):
		f.hung = true
	case e.Action == "build-fail":
		f.seen, f.build = true, true
	case e.Action == "fail" && (!f.seen || f.test == ""):
		f.seen = true
		f.pkg = strings.TrimPrefix(e.Package, modulePath)
		f.test, _, _ = strings.Cut(e.Test, "/")
	}
}

// modulePath is left out of the names of packages.
const modulePath = "github.com/failoverd/failoverd/"

// watcher reads the output as it comes and calls first at the first failure.
type watcher struct {
	keep    *bytes.Buffer
	part    []byte // a line that has not ended
	failure *failure
	first   func()
}

func (w *watcher) Write(b []byte) (int, error) {
	w.keep.Write(b)
	w.part = append(w.part, b...)
	for {
		line, rest, whole := bytes.Cut(w.part, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		before := w.failure.seen
		w.failure.line(line)
		w.part = rest
		if w.failure.seen && !before {
			w.first()
		}
	}
}

// plain is the text in the events of go test -json.
func plain(out []byte) []byte {
	var text []byte
	for line := range bytes.Lines(out) {
		var e struct{ Output string }
		if json.Unmarshal(line, &e) != nil {
			text = append(text, line...)
			continue
		}
		text = append(text, e.Output...)
	}
	return text
}
