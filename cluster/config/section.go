package config

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// section is one body of a file while it is read. Keys are asked for by name;
// what nobody asks for was reported as unknown when the section was opened.
type section struct {
	r      *report
	prefix string // "timing." within a block, for Problem.Key
	attrs  hcl.Attributes
	blocks hcl.Blocks // in the order of the file, types mixed
	end    hcl.Range  // where something that is missing would stand
	// meant holds the known keys that an unknown one was probably meant to be:
	// that they are missing goes without saying.
	meant map[string]bool
	// broken: the body could not be read as one, so nothing is missing from it.
	broken bool
}

// block describes a block that a section may have.
type block struct {
	name  string
	label string // what its label is called; empty: none
}

// open reads a body against the keys and blocks that it may have and reports
// all others, each with the nearest known one.
func open(r *report, prefix string, body hcl.Body, keys []string, blocks ...block) *section {
	schema := &hcl.BodySchema{}
	for _, k := range keys {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: k})
	}
	known := slices.Clone(keys)
	for _, b := range blocks {
		header := hcl.BlockHeaderSchema{Type: b.name}
		if b.label != "" {
			header.LabelNames = []string{b.label}
		}
		schema.Blocks = append(schema.Blocks, header)
		known = append(known, b.name)
	}
	content, remain, diags := body.PartialContent(schema)
	s := &section{
		r: r, prefix: prefix, attrs: content.Attributes, blocks: content.Blocks,
		end: content.MissingItemRange, meant: map[string]bool{}, broken: diags.HasErrors(),
	}
	if native, ok := body.(*hclsyntax.Body); ok {
		s.unknownNative(native, keys, blocks, known)
		return s // its diagnostics speak of labels alone, which unknownNative has looked at
	}
	r.diagnostics(diags)
	if s.broken {
		return s
	}
	rest, diags := remain.JustAttributes()
	r.diagnostics(diags)
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		r.at(rest[name].NameRange, prefix+name, "unknown key %q.%s", name, s.hint(name, known))
	}
	return s
}

// hint is suggest, remembering what was suggested.
func (s *section) hint(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		s.meant[near] = true
	}
	return suggest(name, known)
}

func (s *section) unknownNative(body *hclsyntax.Body, keys []string, blocks []block, known []string) {
	kind := func(name string) (block, bool) {
		i := slices.IndexFunc(blocks, func(b block) bool { return b.name == name })
		if i < 0 {
			return block{}, false
		}
		return blocks[i], true
	}
	for _, name := range slices.Sorted(maps.Keys(body.Attributes)) {
		if slices.Contains(keys, name) {
			continue
		}
		text := s.hint(name, known)
		if b, is := kind(name); is {
			text = " It is a block: write " + b.example() + " without the equals sign."
		}
		s.r.at(body.Attributes[name].NameRange, s.prefix+name, "unknown key %q.%s", name, text)
	}
	for _, b := range body.Blocks {
		k, is := kind(b.Type)
		switch {
		case is && k.label == "" && len(b.Labels) > 0:
			s.r.at(b.LabelRanges[0], s.prefix+b.Type, "%s has no name: write %s", b.Type, k.example())
		case is && k.label != "" && len(b.Labels) == 0:
			s.r.at(b.TypeRange, s.prefix+b.Type, "%s lacks its name in quotes: write %s", b.Type, k.example())
		case is && k.label != "" && len(b.Labels) > 1:
			s.r.at(b.LabelRanges[1], s.prefix+b.Type, "%s has more than one name: write %s", b.Type, k.example())
		case is:
		case slices.Contains(keys, b.Type):
			s.meant[b.Type] = true
			s.r.at(b.TypeRange, s.prefix+b.Type, "unknown block %q. It is a value: write %s = with an equals sign.", b.Type, b.Type)
		default:
			s.r.at(b.TypeRange, s.prefix+b.Type, "unknown block %q.%s", b.Type, s.hint(b.Type, known))
		}
	}
}

func (b block) example() string {
	if b.label == "" {
		return b.name + " { ... }"
	}
	return b.name + ` "` + b.label + `" { ... }`
}

// where is the place of a key's value, or of the section's end when it is not set.
func (s *section) where(key string) hcl.Range {
	if a, ok := s.attrs[key]; ok {
		return a.Expr.Range()
	}
	return s.end
}

func (s *section) has(key string) bool { _, ok := s.attrs[key]; return ok }

// missing reports that a key must be set, what it means and how it is written.
func (s *section) missing(key, meaning, example string) {
	if s.meant[key] || s.broken {
		return
	}
	s.r.at(s.end, s.prefix+key, "%s is missing, %s; write for example %s = %s", s.prefix+key, meaning, key, example)
}

// bad reports what is wrong with the value of a key.
func (s *section) bad(key, format string, args ...any) {
	s.r.at(s.where(key), s.prefix+key, format, args...)
}

// get evaluates a key; ok is false when it is not set or was reported.
func (s *section) get(key string) (cty.Value, hcl.Range, bool) {
	a, ok := s.attrs[key]
	if !ok {
		return cty.NilVal, hcl.Range{}, false
	}
	v, ok := plain(s.r, s.prefix+key, a.Expr)
	return v, a.Expr.Range(), ok
}

// The following set *into when the key is there and well formed, and leave it
// alone otherwise. They return whether it was set.

func (s *section) text(key string, into *string) bool {
	v, at, ok := s.get(key)
	if !ok {
		return false
	}
	got, ok := text(s.r, s.prefix+key, at, v)
	if ok {
		*into = got
	}
	return ok
}

func (s *section) yes(key string, into *bool) bool {
	v, at, ok := s.get(key)
	if !ok {
		return false
	}
	got, ok := yes(s.r, s.prefix+key, at, v)
	if ok {
		*into = got
	}
	return ok
}

func (s *section) whole(key string, into *int, low, high int) bool {
	v, at, ok := s.get(key)
	if !ok {
		return false
	}
	got, ok := whole(s.r, s.prefix+key, at, v, low, high)
	if ok {
		*into = got
	}
	return ok
}

func (s *section) list(key string, into *[]string) bool {
	v, at, ok := s.get(key)
	if !ok {
		return false
	}
	got, ok := list(s.r, s.prefix+key, at, v, s.items(key))
	if ok {
		*into = got
	}
	return ok
}

// items are the places of a list's items, none when the value is no list.
func (s *section) items(key string) []hcl.Range {
	a, ok := s.attrs[key]
	if !ok {
		return nil
	}
	exprs, diags := hcl.ExprList(a.Expr)
	if diags.HasErrors() {
		return nil
	}
	out := make([]hcl.Range, len(exprs))
	for i, e := range exprs {
		out[i] = e.Range()
	}
	return out
}

// badItem reports what is wrong with one item of a list.
func (s *section) badItem(key string, i int, format string, args ...any) {
	where := s.where(key)
	if items := s.items(key); i < len(items) {
		where = items[i]
	}
	s.r.at(where, s.prefix+key, format, args...)
}

func (s *section) period(key string, into *time.Duration) bool {
	v, at, ok := s.get(key)
	if !ok {
		return false
	}
	got, ok := period(s.r, s.prefix+key, at, v)
	if ok {
		*into = got
	}
	return ok
}

// one returns the only block of a kind that may stand once, or nil.
func (s *section) one(name string) *hcl.Block {
	var first *hcl.Block
	for _, b := range s.blocks {
		switch {
		case b.Type != name:
		case first == nil:
			first = b
		default:
			s.r.at(b.TypeRange, s.prefix+name, "%s stands here a second time; the first is in line %d", name, first.TypeRange.Start.Line)
		}
	}
	return first
}

func (s *section) hasBlock(name string) bool {
	return slices.ContainsFunc(s.blocks, func(b *hcl.Block) bool { return b.Type == name })
}
