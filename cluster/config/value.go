package config

import (
	"math/big"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// plain evaluates an expression that must be written out: text, number, true,
// false, a list or a map of those. ok is false when it was reported instead.
func plain(r *report, key string, expr hcl.Expression) (cty.Value, bool) {
	if e, native := expr.(hclsyntax.Expression); native && !plainSyntax(r, key, e) {
		return cty.NilVal, false
	}
	v, diags := expr.Value(nil)
	r.diagnostics(diags)
	if diags.HasErrors() || !v.IsWhollyKnown() {
		return cty.NilVal, false
	}
	if v.IsNull() {
		r.at(expr.Range(), key, "%s is null; leave it out instead", key)
		return cty.NilVal, false
	}
	return v, true
}

// plainSyntax reports everything in an expression that is more than a plain value.
func plainSyntax(r *report, key string, expr hclsyntax.Expression) bool {
	switch e := expr.(type) {
	case *hclsyntax.LiteralValueExpr:
		return true
	case *hclsyntax.ParenthesesExpr:
		return plainSyntax(r, key, e.Expression)
	case *hclsyntax.UnaryOpExpr:
		if lit, ok := e.Val.(*hclsyntax.LiteralValueExpr); ok && e.Op == hclsyntax.OpNegate && lit.Val.Type() == cty.Number {
			return true
		}
	case *hclsyntax.TemplateExpr:
		for _, part := range e.Parts {
			if _, ok := part.(*hclsyntax.LiteralValueExpr); !ok {
				r.at(part.Range(), key, `%s: nothing is put in for ${ } or %%{ } here; write $${ or %%%%{ when the text itself has them`, key)
				return false
			}
		}
		return true
	case *hclsyntax.TemplateWrapExpr:
		r.at(e.Range(), key, `%s: nothing is put in for ${ } here; write $${ when the text itself has it`, key)
		return false
	case *hclsyntax.TupleConsExpr:
		ok := true
		for _, item := range e.Exprs {
			ok = plainSyntax(r, key, item) && ok
		}
		return ok
	case *hclsyntax.ObjectConsExpr:
		ok := true
		for _, item := range e.Items {
			if wrap, is := item.KeyExpr.(*hclsyntax.ObjectConsKeyExpr); !is || wrap.ForceNonLiteral || hcl.ExprAsKeyword(wrap.Wrapped) == "" {
				ok = plainSyntax(r, key, item.KeyExpr) && ok
			}
			ok = plainSyntax(r, key, item.ValueExpr) && ok
		}
		return ok
	case *hclsyntax.ObjectConsKeyExpr:
		return plainSyntax(r, key, e.Wrapped)
	case *hclsyntax.ScopeTraversalExpr:
		if word := hcl.ExprAsKeyword(e); word != "" {
			r.at(e.Range(), key, "%s: text stands in quotes: write %q", key, word)
			return false
		}
	}
	r.at(expr.Range(), key, "%s: only a plain value may stand here: no variable, function or calculation", key)
	return false
}

// typeName is what a user would call the type of a value.
func typeName(v cty.Value) string {
	t := v.Type()
	switch {
	case t == cty.String:
		return "text"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		return "a list"
	case t.IsObjectType() || t.IsMapType():
		return "a map"
	}
	return "another kind of value"
}

// text, yes, whole, list and table take a value of exactly one type; nothing
// is converted, since "false" in quotes and 1 for true are mistakes.
func text(r *report, key string, at hcl.Range, v cty.Value) (string, bool) {
	if v.IsNull() || v.Type() != cty.String {
		r.at(at, key, "%s must be text in quotes, not %s", key, typeName(v))
		return "", false
	}
	s := v.AsString()
	for _, c := range s {
		if c == 0 {
			r.at(at, key, "%s has a zero byte in it", key)
			return "", false
		}
	}
	return s, true
}

func yes(r *report, key string, at hcl.Range, v cty.Value) (bool, bool) {
	if v.Type() != cty.Bool {
		r.at(at, key, "%s must be true or false without quotes, not %s", key, typeName(v))
		return false, false
	}
	return v.True(), true
}

func whole(r *report, key string, at hcl.Range, v cty.Value, low, high int) (int, bool) {
	if v.IsNull() || v.Type() != cty.Number {
		r.at(at, key, "%s must be a number without quotes, not %s", key, typeName(v))
		return 0, false
	}
	f := v.AsBigFloat()
	n, accuracy := f.Int64()
	if accuracy != big.Exact || n < int64(low) || n > int64(high) {
		r.at(at, key, "%s must be a whole number from %d to %d", key, low, high)
		return 0, false
	}
	return int(n), true
}

func list(r *report, key string, at hcl.Range, v cty.Value, items []hcl.Range) ([]string, bool) {
	if !v.Type().IsTupleType() {
		r.at(at, key, `%s must be a list, such as ["one", "two"], not %s`, key, typeName(v))
		return nil, false
	}
	out := []string{}
	good := true
	for it := v.ElementIterator(); it.Next(); {
		_, item := it.Element()
		where := at
		if len(out) < len(items) {
			where = items[len(out)]
		}
		s, ok := text(r, "each item of "+key, where, item)
		good = good && ok
		out = append(out, s)
	}
	return out, good
}

func table(r *report, key string, at hcl.Range, v cty.Value) (map[string]cty.Value, bool) {
	if !v.Type().IsObjectType() {
		r.at(at, key, `%s must be a map, such as { name = "value" }, not %s`, key, typeName(v))
		return nil, false
	}
	return v.AsValueMap(), true
}

func period(r *report, key string, at hcl.Range, v cty.Value) (time.Duration, bool) {
	if v.Type() != cty.String {
		r.at(at, key, `%s must be a time in quotes with its unit, such as "500ms" or "10s", not %s`, key, typeName(v))
		return 0, false
	}
	d, err := time.ParseDuration(v.AsString())
	if err != nil {
		r.at(at, key, `%s = %q is no time; write a number and ms, s, m or h, such as "500ms" or "10s"`, key, v.AsString())
		return 0, false
	}
	if d <= 0 {
		r.at(at, key, `%s = %q must be more than nothing`, key, v.AsString())
		return 0, false
	}
	return d, true
}
