package state

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A script is a case file: paragraphs of commands, a line "----", and what they
// gave. The first paragraph is a comment that says what the case is about.
//
// Commands are those of the log, by their kind, with fields as key=value; some
// lines are for the script alone:
//
//	cluster a b c:witness   found a cluster x of these nodes, led by the first in
//	                        term 1, started, with sessions 11, 12, ... of those
//	                        that hold; the next index is 20
//	services [remove=x,y]   with a service on each indented line below it:
//	                        NAME key=value..., or a specification as JSON
//	term N, at N            the term and the index of the next entry
//	snapshot                go on from the encoded and decoded state
//	show                    print all of the state but its history
//	unknown, nil, pointer   commands that this version does not know
type script struct {
	s           *State
	index, term uint64
	out         strings.Builder
	refused     []*Refusal
	fail        func(format string, args ...any)
}

func newScript(fail func(string, ...any)) *script {
	return &script{s: New(), index: 1, term: 1, fail: fail}
}

// run runs one paragraph and returns what it printed.
func (r *script) run(lines []string) string {
	r.out.Reset()
	for len(lines) > 0 {
		n := 1
		for n < len(lines) && strings.HasPrefix(lines[n], " ") {
			n++
		}
		r.line(lines[0], lines[1:n])
		lines = lines[n:]
	}
	return r.out.String()
}

func (r *script) line(line string, block []string) {
	words := split(line)
	switch words[0] {
	case "cluster":
		r.cluster(words[1:])
	case "term":
		r.term = number(words[1])
	case "at":
		r.index = number(words[1])
	case "snapshot":
		r.snapshot()
	case "show":
		for _, l := range summary(r.s) {
			fmt.Fprintln(&r.out, l)
		}
	case "unknown":
		r.apply(strange{})
	case "nil":
		r.apply(nil)
	case "pointer":
		r.apply((*Released)(nil))
	default:
		r.apply(parse(words, block))
	}
}

// strange is a command of a later version.
type strange struct{}

func (strange) Kind() string { return "strange" }

// cluster sets up what most cases begin with.
func (r *script) cluster(nodes []string) {
	quiet := func(cmd Command) {
		if res := r.s.Apply(r.index, r.term, cmd); res.Refused != nil {
			r.fail("cluster: %T: %v", cmd, res.Refused)
		}
		r.index++
	}
	quiet(Found{ID: "x", Key: make([]byte, 32)})
	quiet(LeaderStart{Node: strings.Split(nodes[0], ":")[0]})
	for i, word := range nodes {
		name, role, _ := strings.Cut(word, ":")
		quiet(SetNode{Node: name, Role: Role(or(role, "voter")), Address: fmt.Sprintf("192.0.2.%d:7400", i+1)})
		quiet(Started{Node: name, Nonce: uint64(101 + i), Birth: "data-" + name, BootID: "boot-" + name, Version: "1.0"})
	}
	for i, word := range nodes {
		name, role, _ := strings.Cut(word, ":")
		r.index = uint64(11 + i)
		if role != "witness" {
			quiet(OpenSession{Node: name, BootID: "boot-" + name, TTL: 2 * time.Second, Kappa: 50 * time.Millisecond})
		}
	}
	r.index = 20
}

// apply applies a command and prints its result and every line of the summary that changed.
func (r *script) apply(cmd Command) {
	before, was := summary(r.s), r.s.Clone()
	index := r.index
	res := r.s.Apply(index, r.term, cmd)
	r.index = max(r.index, r.s.Index) + 1
	fmt.Fprintf(&r.out, "%d: ", index)
	switch {
	case res.Refused != nil:
		r.refused = append(r.refused, res.Refused)
		fmt.Fprintf(&r.out, "refused (%s): %s\n", res.Refused.Code, res.Refused.Why)
		if !sameButIndex(was, r.s) {
			r.fail("index %d: a refused %T changed the state", index, cmd)
		}
	case res.Session != 0:
		fmt.Fprintf(&r.out, "ok, session %d\n", res.Session)
	case res.Epoch != 0:
		fmt.Fprintf(&r.out, "ok, epoch %d\n", res.Epoch)
	default:
		fmt.Fprintln(&r.out, "ok")
	}
	for _, l := range changes(before, summary(r.s)) {
		fmt.Fprintln(&r.out, "  "+l)
	}
	for _, e := range r.s.History {
		if e.Index == index && res.Refused == nil {
			fmt.Fprintln(&r.out, "  event "+eventText(e))
		}
	}
	if err := r.s.Check(); err != nil {
		r.fail("index %d: %T: %v", index, cmd, err)
	}
}

func (r *script) snapshot() {
	data, err := r.s.Encode()
	if err != nil {
		r.fail("%v", err)
		return
	}
	back, err := Decode(data)
	if err != nil {
		r.fail("%v", err)
		return
	}
	if !reflect.DeepEqual(back, r.s) {
		r.fail("the state from the snapshot differs")
	}
	r.s = back
}

// sameButIndex reports whether two states differ in nothing but Index and Term.
func sameButIndex(a, b *State) bool {
	x, y := a.Clone(), b.Clone()
	x.Index, x.Term = y.Index, y.Term
	return reflect.DeepEqual(x, y)
}

// parse makes a command of a line.
func parse(words []string, block []string) Command {
	for _, zero := range commands {
		if zero.Kind() != words[0] {
			continue
		}
		v := reflect.New(reflect.TypeOf(zero)).Elem()
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			set(v, key, value)
		}
		if c, ok := v.Interface().(SetServices); ok {
			for _, l := range block {
				c.Services = append(c.Services, parseSpec(strings.TrimSpace(l)))
			}
			return c
		}
		return v.Interface().(Command)
	}
	panic("no such command: " + words[0])
}

// commands holds one of each.
var commands = []Command{
	Found{}, LeaderStart{}, SetNode{}, RemoveNode{}, Started{}, OpenSession{}, CloseSession{}, EndSession{}, StartFence{},
	GrantService{}, HandOver{}, Released{}, SetServices{}, SetPause{}, SetStandby{}, RequestMove{}, ReportFailure{}, ClearFailures{},
}

// set sets the field with a JSON name, found through embedded structs as well.
func set(v reflect.Value, key, value string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if f.Type == reflect.TypeOf(Stamp{}) && slices.Contains([]string{"at", "by", "why"}, key) {
				set(v.Field(i), key, value)
				return
			}
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != key {
			continue
		}
		field := v.Field(i)
		switch field.Interface().(type) {
		case time.Duration:
			d, err := time.ParseDuration(value)
			must(err)
			field.SetInt(int64(d))
		case []byte:
			field.SetBytes(make([]byte, number(value)))
		case []string:
			field.Set(reflect.ValueOf(strings.Split(value, ",")))
		default:
			switch field.Kind() {
			case reflect.String:
				field.SetString(value)
			case reflect.Uint64:
				field.SetUint(number(value))
			case reflect.Int64:
				field.SetInt(int64(number(value)))
			case reflect.Bool:
				field.SetBool(value == "" || value == "true")
			}
		}
		return
	}
	panic("no such field: " + key)
}

// parseSpec reads NAME key=value..., where vip=ADDRESS/BITS may come often.
func parseSpec(line string) Spec {
	var spec Spec
	if strings.HasPrefix(line, "{") {
		must(json.Unmarshal([]byte(line), &spec))
		return spec
	}
	words := split(line)
	spec.Name, spec.Takeover = words[0], TakeoverLease
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "takeover":
			spec.Takeover = Takeover(value)
		case "nodes":
			spec.Nodes = strings.Split(value, ",")
		case "vip":
			spec.Resources = append(spec.Resources, Resource{
				Kind: ResourceVIP, Name: fmt.Sprintf("vip%d", len(spec.Resources)+1), VIP: &VIP{Address: value, Interface: "eth0"},
			})
		default:
			panic("no such setting: " + key)
		}
	}
	return spec
}

// split splits at spaces; a double-quoted part is read as a Go string.
func split(line string) []string {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeftFunc(line, unicode.IsSpace) {
		end := strings.IndexFunc(line, func(c rune) bool { return unicode.IsSpace(c) || c == '"' })
		if end < 0 {
			end = len(line)
		}
		word := line[:end]
		line = line[end:]
		if strings.HasPrefix(line, `"`) {
			quoted, err := strconv.QuotedPrefix(line)
			must(err)
			text, err := strconv.Unquote(quoted)
			must(err)
			word += text
			line = line[len(quoted):]
		}
		words = append(words, word)
	}
	return words
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	must(err)
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
