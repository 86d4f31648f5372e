package render

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Style is how text is to look.
type Style struct {
	Color    bool
	Width    int            // of the screen in characters; 0: 100
	Wide     bool           // more columns, whole names
	Location *time.Location // of clock times; nil: local
}

func (s Style) width() int {
	if s.Width <= 0 {
		return 100
	}
	return s.Width
}

// paint is a colour or weight (ECMA-48 SGR).
type paint string

const (
	bold   paint = "1"
	red    paint = "31;1"
	green  paint = "32"
	yellow paint = "33"
	dim    paint = "2"
)

func (s Style) paint(p paint, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + string(p) + "m" + text + "\x1b[0m"
}

// Plain makes text harmless for a terminal: line breaks become "; ", other
// control and direction characters are shown as their code.
func Plain(text string) string {
	clean := true
	for _, r := range text {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var b strings.Builder
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		for _, r := range strings.TrimSpace(line) {
			switch {
			case r == '\t':
				b.WriteByte(' ')
			case unicode.IsPrint(r):
				b.WriteRune(r)
			case r < 0x10000:
				fmt.Fprintf(&b, `\u%04x`, r)
			default:
				fmt.Fprintf(&b, `\U%08x`, r)
			}
		}
	}
	return b.String()
}

// visible counts the characters of text that take a place on the screen.
func visible(text string) int {
	n, escape := 0, false
	for _, r := range text {
		switch {
		case escape:
			escape = r != 'm'
		case r == '\x1b':
			escape = true
		case unicode.In(r, unicode.Mn, unicode.Me): // combining marks
		case wide(r):
			n += 2
		default:
			n++
		}
	}
	return n
}

// wide reports whether a character takes two places: the main blocks of East
// Asian scripts and emoji (Unicode TR 11).
func wide(r rune) bool {
	return r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0x1f300 && r <= 0x1f9ff)
}

// Span writes a duration as people say it: two units at most.
func Span(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	const day = 24 * time.Hour
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%s%.1f ms", sign, float64(d)/float64(time.Millisecond))
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%s%d ms", sign, d/time.Millisecond)
	case d < 10*time.Second:
		return fmt.Sprintf("%s%.1f s", sign, d.Truncate(100*time.Millisecond).Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%s%d s", sign, d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%s%d min", sign, d/time.Minute)
	case d < day:
		return sign + two(d/time.Hour, "h", d%time.Hour/time.Minute, "min")
	}
	return sign + two(d/day, "d", d%day/time.Hour, "h")
}

func two(a time.Duration, aUnit string, b time.Duration, bUnit string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, aUnit)
	}
	return fmt.Sprintf("%d %s %d %s", a, aUnit, b, bUnit)
}

// Ago says how long before now something was. Clocks of two machines differ:
// what seems to lie in the future was just now.
func Ago(at, now time.Time) string {
	d := now.Sub(at)
	if d < time.Second {
		return "just now"
	}
	return Span(d) + " ago"
}

// Clock writes a time of day, with the date when it is not today's.
func (s Style) Clock(at, now time.Time) string {
	at, now = s.local(at), s.local(now)
	if at.Year() == now.Year() && at.YearDay() == now.YearDay() {
		return at.Format("15:04")
	}
	return at.Format("2006-01-02 15:04")
}

func (s Style) local(t time.Time) time.Time {
	if s.Location == nil {
		return t.Local()
	}
	return t.In(s.Location)
}

// flow joins parts with wide gaps, into as many lines as the width needs; all
// but the first are indented.
func (s Style) flow(parts []string) string {
	const gap, indent = "   ", "    "
	var b strings.Builder
	used := 0
	for _, part := range parts {
		if part == "" {
			continue
		}
		n := visible(part)
		switch {
		case used == 0:
		case used+len(gap)+n > s.width():
			b.WriteString("\n" + indent)
			used = len(indent)
		default:
			b.WriteString(gap)
			used += len(gap)
		}
		b.WriteString(part)
		used += n
	}
	return b.String()
}

// count is a number with its noun in the right form.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
