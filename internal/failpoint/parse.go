//go:build failpoints

package failpoint

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// action is what happens at a point: a signal to oneself, or a pause. A number
// is none.
type action struct {
	sig    syscall.Signal
	sleep  time.Duration
	number uint64
	nth    int // from which time on; at least 1
}

// parse reads "label=action[@n]", divided by semicolons or line ends.
func parse(text string) (map[string]action, error) {
	out := map[string]action{}
	for _, item := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		label, what, ok := strings.Cut(item, "=")
		if !ok || label == "" {
			return nil, fmt.Errorf("%q is not label=action", item)
		}
		a, err := parseAction(what)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", label, err)
		}
		out[label] = a
	}
	return out, nil
}

func parseAction(text string) (action, error) {
	a := action{nth: 1}
	what, nth, counted := strings.Cut(text, "@")
	if counted {
		n, err := strconv.Atoi(nth)
		if err != nil || n < 1 {
			return a, fmt.Errorf("%q is no count from 1 on", nth)
		}
		a.nth = n
	}
	duration, sleeps := strings.CutPrefix(what, "sleep:")
	number, numbers := strings.CutPrefix(what, "number:")
	switch {
	case numbers:
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || n == 0 || counted {
			return a, fmt.Errorf("%q is no number from 1 on", text)
		}
		a.number = n
	case what == "crash":
		a.sig = syscall.SIGKILL
	case what == "stop":
		a.sig = syscall.SIGSTOP
	case sleeps:
		d, err := time.ParseDuration(duration)
		if err != nil || d <= 0 {
			return a, fmt.Errorf("%q is no duration", duration)
		}
		a.sleep = d
	default:
		return a, fmt.Errorf("%q is none of crash, stop, sleep:DURATION, number:N", what)
	}
	return a, nil
}
