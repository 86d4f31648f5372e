package state

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is kept of strings, in bytes.
const (
	maxName  = 63   // a node's, service's or resource's name
	maxIdent = 128  // boot id, birth, cluster id
	maxText  = 1024 // a reason in words
)

// ValidName reports why a name of a node, a service or a resource cannot be
// used. A name has 1 to 63 of the ASCII letters, digits, dot, hyphen and
// underscore, and begins with a letter or a digit: it goes into file names,
// labels and command lines unquoted.
func ValidName(name string) error {
	if name == "" {
		return errors.New("the name is empty")
	}
	if len(name) > maxName {
		return fmt.Errorf("the name %q is longer than %d characters", short(name), maxName)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return fmt.Errorf("the name %q must be letters, digits, '.', '-' or '_' and begin with a letter or digit", short(name))
		}
	}
	return nil
}

// validIdent reports whether s can be compared as an identity: unlike a reason
// it must never be cut or cleaned, since two would become one.
func validIdent(s string) bool {
	if s == "" || len(s) > maxIdent || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) })
}

// validHostPort reports why an address is not host:port.
func validHostPort(address string) error {
	// By hand: package net would be the state machine's only door to the world.
	at := strings.LastIndexByte(address, ':')
	if at <= 0 {
		return fmt.Errorf("%q is not host:port", short(address))
	}
	host, port := address[:at], address[at+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(inner, "]")
		if !ok {
			host = ""
		}
	} else if strings.Contains(host, ":") {
		host = ""
	}
	if host == "" || !validIdent(host) || strings.ContainsAny(host, "[]") {
		return fmt.Errorf("%q is not host:port", short(address))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no port from 1 to 65535", short(address))
	}
	return nil
}

// tidy makes a stamp storable: replicas that restored it from a snapshot must
// hold the same bytes as those that applied the entry, so nothing is kept that
// JSON would change.
func (st Stamp) tidy() Stamp {
	st.By, st.Why = tidyText(st.By), tidyText(st.Why)
	return st
}

// tidyText returns s as one line of valid UTF-8 of at most maxText bytes.
func tidyText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
	return cut(strings.TrimSpace(s), maxText)
}

// short is for names in refusals: whatever came in is not repeated at length.
func short(s string) string { return cut(s, 80) }

// cut returns at most limit bytes of s, at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const more = "…"
	end := limit - len(more)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.TrimSpace(s[:end]) + more
}

// or returns the first that says something.
func or(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
