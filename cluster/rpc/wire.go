package rpc

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/failoverd/failoverd/cluster"
)

// mapList converts a list. It gives an empty list, not nil, so that the JSON
// that users read says [] and not null.
func mapList[A, B any](in []A, f func(A) B) []B {
	out := make([]B, 0, len(in))
	for _, v := range in {
		out = append(out, f(v))
	}
	return out
}

// list is the same for strings.
func list(in []string) []string { return append(make([]string, 0, len(in)), in...) }

func timeToWire(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeFromWire(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// Wall clocks in the replicated state are Unix milliseconds, 0 for none.
func millisToWire(ms int64) *timestamppb.Timestamp {
	if ms == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(ms))
}

func millisFromWire(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMilli()
}

// unknownable reads a duration whose absence means unknown, as a negative does.
func unknownable(d *durationpb.Duration) time.Duration {
	if d == nil {
		return -1
	}
	return d.AsDuration()
}

// checkRequest refuses a request that this node would understand only in
// part: with fields of a newer version, or with text that is not UTF-8.
func checkRequest(m proto.Message) error {
	var problem string
	walk(m.ProtoReflect(), func(m protoreflect.Message) {
		if problem == "" && len(m.GetUnknown()) > 0 {
			problem = fmt.Sprintf("%s carries a setting that this node's version does not know: upgrade the node, or use the failoverctl of its version", m.Descriptor().Name())
		}
	}, nil)
	if problem != "" {
		return fmt.Errorf("%s: %w", problem, cluster.ErrInvalid)
	}
	return nil
}

// checkText refuses a request with text that protobuf cannot carry.
func checkText(m proto.Message) error {
	var problem string
	walk(m.ProtoReflect(), nil, func(where protoreflect.FieldDescriptor, text string) string {
		if problem == "" && !utf8.ValidString(text) {
			problem = fmt.Sprintf("%s is not valid UTF-8: %q", where.Name(), cut(text, 80))
		}
		return text
	})
	if problem != "" {
		return fmt.Errorf("%s: %w", problem, cluster.ErrInvalid)
	}
	return nil
}

// cleanText replaces what is not UTF-8 in an answer, such as the output of a
// hook: one bad byte must not hide the whole status.
func cleanText(m proto.Message) {
	walk(m.ProtoReflect(), nil, func(_ protoreflect.FieldDescriptor, text string) string {
		return strings.ToValidUTF8(text, "\uFFFD")
	})
}

// walk visits a message and everything in it. each, when set, sees every
// message; text, when set, sees every string value and returns what it is to be.
func walk(m protoreflect.Message, each func(protoreflect.Message), text func(protoreflect.FieldDescriptor, string) string) {
	if each != nil {
		each(m)
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			walkMap(value.Map(), field.MapValue(), each, text)
		case field.IsList():
			walkList(value.List(), field, each, text)
		case field.Kind() == protoreflect.MessageKind:
			walk(value.Message(), each, text)
		case field.Kind() == protoreflect.StringKind && text != nil:
			if now := text(field, value.String()); now != value.String() {
				m.Set(field, protoreflect.ValueOfString(now))
			}
		}
		return true
	})
}

func walkList(l protoreflect.List, field protoreflect.FieldDescriptor, each func(protoreflect.Message), text func(protoreflect.FieldDescriptor, string) string) {
	for i := range l.Len() {
		switch {
		case field.Kind() == protoreflect.MessageKind:
			walk(l.Get(i).Message(), each, text)
		case field.Kind() == protoreflect.StringKind && text != nil:
			if now := text(field, l.Get(i).String()); now != l.Get(i).String() {
				l.Set(i, protoreflect.ValueOfString(now))
			}
		}
	}
}

func walkMap(m protoreflect.Map, value protoreflect.FieldDescriptor, each func(protoreflect.Message), text func(protoreflect.FieldDescriptor, string) string) {
	m.Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
		switch {
		case value.Kind() == protoreflect.MessageKind:
			walk(v.Message(), each, text)
		case value.Kind() == protoreflect.StringKind && text != nil:
			if now := text(value, v.String()); now != v.String() {
				m.Set(key, protoreflect.ValueOfString(now))
			}
		}
		if text != nil {
			if k, ok := key.Interface().(string); ok {
				text(value, k) // a key is looked at, never changed
			}
		}
		return true
	})
}
