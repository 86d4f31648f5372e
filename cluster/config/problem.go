package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Problem is one mistake in a configuration, and what to do about it.
type Problem struct {
	File   string // as it was given to the loader; empty when no file is behind it
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1, in characters
	Key    string // the setting that it is about, such as "timing.renew"; may be empty
	Text   string // complete: what is wrong and what to write instead
}

// String gives "file:line:column: text", leaving out what is not known.
func (p Problem) String() string {
	switch {
	case p.File == "":
		return p.Text
	case p.Line == 0:
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
}

// Error is every problem that was found, in the order of the file.
type Error struct{ Problems []Problem }

// Error gives one line per problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// report collects problems while a file is read.
type report struct {
	file     string
	problems []Problem
}

// at notes a problem at a place in the file.
func (r *report) at(where hcl.Range, key, format string, args ...any) {
	r.problems = append(r.problems, Problem{
		File: r.file, Line: where.Start.Line, Column: where.Start.Column,
		Key: key, Text: fmt.Sprintf(format, args...),
	})
}

// whole notes a problem of the file as a whole.
func (r *report) whole(key, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Key: key, Text: fmt.Sprintf(format, args...)})
}

// diagnostics takes over what the HCL parser found.
func (r *report) diagnostics(diags hcl.Diagnostics) {
	for _, d := range diags {
		text := d.Summary
		if d.Detail != "" {
			text += ": " + d.Detail
		}
		text = strings.Join(strings.Fields(text), " ")
		if d.Subject == nil {
			r.whole("", "%s", text)
			continue
		}
		r.at(*d.Subject, "", "%s", text)
	}
}

// err returns what was collected as one error, or nil. The order is that of
// the file, and the same for every run.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Text, b.Text))
	})
	return &Error{Problems: slices.Compact(r.problems)}
}

// nearest is the known word that was probably meant, or empty.
func nearest(written string, known []string) string {
	best, distance := "", len(written)/3+2
	for _, k := range known {
		if d := editDistance(strings.ToLower(written), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// suggest returns ` Did you mean "x"?` for the known word nearest to the one
// that was written, or the list of known words when none is near.
func suggest(written string, known []string) string {
	if near := suggestNear(written, known); near != "" || len(known) == 0 {
		return near
	}
	sorted := slices.Clone(known)
	slices.Sort(sorted)
	return " Known here: " + strings.Join(sorted, ", ") + "."
}

// suggestNear is suggest without the list of known words, for messages that
// have given it already.
func suggestNear(written string, known []string) string {
	if near := nearest(written, known); near != "" {
		return fmt.Sprintf(" Did you mean %q?", near)
	}
	return ""
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment). Very long words are
// not worth comparing: they count as entirely different.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
