package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/rpc"
)

// The exit codes, for scripts.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2
	exitNoQuorum = 3
	exitRefused  = 4
	// exitTimeout also stands for an outcome that is not known.
	exitTimeout     = 5
	exitInterrupted = 130
)

// usageError is a command line that makes no sense.
type usageError struct {
	text string
	next string // what to type instead
}

func (e *usageError) Error() string { return e.text }

func usagef(next, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), next: next}
}

// silent ends a command with a code whose reason stands in its output already.
type silent struct{ code int }

func (e silent) Error() string { return fmt.Sprintf("exit %d", e.code) }

// hinted adds to an error what to do next.
type hinted struct {
	error
	next string
}

func (e hinted) Unwrap() error { return e.error }

// exitCode is the code of an error. What is certain goes before what is not: a
// refusal is final, an unknown outcome must be looked at before anything else.
func exitCode(err error) int {
	var usage *usageError
	var done silent
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &done):
		return done.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, cluster.ErrRefused):
		return exitRefused
	case errors.Is(err, cluster.ErrInvalid):
		return exitUsage
	case errors.Is(err, cluster.ErrUnknown):
		return exitTimeout
	case errors.Is(err, cluster.ErrNoQuorum), errors.Is(err, cluster.ErrNotLeader):
		return exitNoQuorum
	case errors.Is(err, cluster.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return exitError
}

// explainError words an error for standard error: what and why, and in a line
// of its own what to do next. A configuration's mistakes keep a line each.
func (a *app) explainError(err error) string {
	var mistakes *config.Error
	if errors.As(err, &mistakes) {
		return mistakes.Error() + "\n"
	}
	text, next := err.Error(), a.next(err)
	if errors.Is(err, context.Canceled) {
		text = a.interrupted(err)
	}
	text = "failoverctl: " + strings.Join(strings.Fields(text), " ") + "\n"
	if next != "" {
		text += "next: " + next + "\n"
	}
	return text
}

// interrupted says what is or is not under way after Ctrl-C.
func (a *app) interrupted(err error) string {
	switch {
	case a.doing == "":
		return "interrupted; nothing was changed"
	case errors.Is(err, cluster.ErrUnknown):
		return fmt.Sprintf("interrupted; %s was asked for and may be under way or done", a.doing)
	}
	return fmt.Sprintf("interrupted; %s was not asked for, nothing was changed", a.doing)
}

// next is what to do about an error; empty when its text says it.
func (a *app) next(err error) string {
	var usage *usageError
	var hint hinted
	switch {
	case errors.As(err, &usage):
		return usage.next
	case errors.As(err, &hint):
		return hint.next
	case errors.Is(err, context.Canceled) && !errors.Is(err, cluster.ErrUnknown):
		return ""
	case errors.Is(err, cluster.ErrUnknown):
		return "failoverctl status and failoverctl history show what has become of it: look before asking again"
	case errors.Is(err, rpc.ErrUnreachable):
		return a.nextUnreachable(err)
	case errors.Is(err, cluster.ErrRefused), errors.Is(err, cluster.ErrInvalid), errors.Is(err, cluster.ErrNotFound):
		return "" // the node's text says what would do
	case errors.Is(err, cluster.ErrNoQuorum), errors.Is(err, cluster.ErrNotLeader):
		return "failoverctl status shows which voters answer; a majority must run and reach each other"
	case errors.Is(err, cluster.ErrTimeout):
		return "failoverctl status shows how things stand; --timeout gives it longer"
	}
	return ""
}

// nextUnreachable is what to do when nobody answers where we asked.
func (a *app) nextUnreachable(err error) string {
	if path, ok := strings.CutPrefix(a.target, "unix://"); ok {
		switch {
		case errors.Is(err, fs.ErrPermission):
			return "run it as root, or as a member of the group that the socket's directory belongs to"
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Sprintf("start failoverd on this machine (nothing listens on %s), or name another node with --socket or --address", path)
		case errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Sprintf("start failoverd on this machine (its last run has left %s behind), or name another node with --address", path)
		}
		return "look whether failoverd runs, or name another node with --address"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "look whether failoverd runs there and has api = \"HOST:PORT\" in its file, or name another node with --address"
	}
	if strings.Contains(err.Error(), "TLS handshake") {
		return "look at --ca, --cert and --key: both sides need certificates of the same authority"
	}
	return "look whether failoverd runs there and whether a firewall is between, or name another node with --address"
}
