package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
)

const (
	// maxFileSize bounds a configuration file; the largest sensible one is a few tens of KiB.
	maxFileSize = 1 << 20
	// maxNesting bounds brackets within brackets, and operators before
	// operators, since the parser recurses on each.
	maxNesting = 64
)

// readRegular reads a key or a certificate. What is no regular file is refused
// before it is opened, since a pipe would keep the daemon waiting.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil, errors.New("this is no regular file; name one")
	}
	return readFile(path)
}

// readFile reads a configuration file, refusing what cannot be one. Pipes are
// welcome, so that a file can come from another program.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no such file: %w", fs.ErrNotExist)
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("this is a directory; name the file")
	}
	src, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	return src, nil
}

// parse turns the text of a file into a body, or reports why it is none. The
// name decides the language: JSON when it ends in .json, HCL else.
func parse(r *report, src []byte) hcl.Body {
	if len(src) > maxFileSize {
		r.whole("", "the file is larger than %d KiB, more than a configuration can need", maxFileSize>>10)
		return nil
	}
	if line := tooDeep(src); line > 0 {
		r.at(hcl.Range{Start: hcl.Pos{Line: line, Column: 1}}, "", "more than %d brackets or operators stand within one another", maxNesting)
		return nil
	}
	var file *hcl.File
	var diags hcl.Diagnostics
	if isJSON(r.file) {
		file, diags = json.Parse(src, r.file)
	} else {
		file, diags = hclsyntax.ParseConfig(src, r.file, hcl.InitialPos)
	}
	r.diagnostics(diags)
	if diags.HasErrors() || file == nil {
		return nil // what the parser made of the rest would only give mistakes that are none
	}
	return file.Body
}

func isJSON(path string) bool { return strings.HasSuffix(path, ".json") }

// tooDeep returns the line at which the nesting passes maxNesting, or 0. It
// counts without regard to quotes and comments, which is why the limit is far
// from what a configuration needs.
func tooDeep(src []byte) int {
	depth, run, line := 0, 0, 1
	for _, c := range src {
		switch c {
		case '\n':
			line++
			continue
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		switch c {
		case '!', '-', '?', ':':
			run++
		case ' ', '\t', '\r':
		case '#', '/', '*', '=':
			run = 0 // a line that is drawn in a comment
		default:
			run = 0
		}
		if depth > maxNesting || run > 4*maxNesting {
			return line
		}
	}
	return 0
}
