package decide

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// args are the words of a line: plain ones in order, and key=value.
type args struct {
	plain []string
	key   map[string]string
}

func arguments(list []string) args {
	a := args{key: map[string]string{}}
	for _, w := range list {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.key[k] = v
		} else {
			a.plain = append(a.plain, w)
		}
	}
	return a
}

func (a args) at(i int) string {
	if i < len(a.plain) {
		return a.plain[i]
	}
	return ""
}

// after is the plain word that follows another.
func (a args) after(word string) string {
	if v, ok := a.key[word]; ok {
		return v
	}
	return a.at(slices.Index(a.plain, word) + 1)
}

func (a args) has(word string) bool {
	_, ok := a.key[word]
	return ok || slices.Contains(a.plain, word)
}

func (a args) list(key string) []string {
	if a.key[key] == "" {
		return nil
	}
	return strings.Split(a.key[key], ",")
}

func (a args) number(key string) uint64 {
	n, err := strconv.ParseUint(a.key[key], 10, 64)
	must(err)
	return n
}

func (a args) duration(key string) time.Duration {
	d, err := time.ParseDuration(a.key[key])
	must(err)
	return d
}

// words splits a line at spaces; what stands in double quotes stays together.
func words(line string) []string {
	quoted := false
	list := strings.FieldsFunc(line, func(c rune) bool {
		if c == '"' {
			quoted = !quoted
		}
		return !quoted && unicode.IsSpace(c)
	})
	for i := range list {
		list[i] = strings.ReplaceAll(list[i], `"`, "")
	}
	return list
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
