package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who holds what, who could take over, and what is wrong",
		Long: `Show who holds what, who could take over, and what is wrong.

The first line says who answered, how old the answer is, and whether a quorum
stands behind it. Without a quorum the exit code is 3, and what is shown is
what the asked node knows by itself.`,
		Args: needs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watchStatus(cmd, interval)
			}
			var st cluster.Status
			err := a.ask(cmd, timeoutRead, func(ctx context.Context, c *rpc.Client) (err error) {
				st, err = c.Status(ctx)
				return err
			})
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			if err := a.print(st, func() string { return render.Status(st, a.style()) }); err != nil {
				return err
			}
			if !st.Quorum {
				return silent{exitNoQuorum}
			}
			return nil
		},
	}
	a.outputFlag(cmd, "text", "wide", "json")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again, until Ctrl-C")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two answers of --watch")
	a.localFlag(cmd)
	return cmd
}

func (a *app) localFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.local, "local", false, "what the asked node knows by itself, without asking the leader")
}

// watchStatus shows the status until the command is interrupted, which is its
// proper end.
func (a *app) watchStatus(cmd *cobra.Command, interval time.Duration) error {
	if interval < 100*time.Millisecond {
		return usagef("write for example --interval 1s", "--interval %v is too short: 100ms at least", interval)
	}
	if _, err := a.connect(); err != nil {
		return err
	}
	s := newScreen(a)
	defer s.end()
	var last cluster.Status
	var answered time.Time
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		var st cluster.Status
		err := a.ask(cmd, watchLimit(interval), func(ctx context.Context, c *rpc.Client) (err error) {
			st, err = c.Status(ctx)
			return err
		})
		switch {
		case cmd.Context().Err() != nil:
			return nil
		case err != nil && answered.IsZero():
			return fmt.Errorf("status: %w", err) // a wrong address is no reason to wait
		case err == nil:
			last, answered = st, time.Now()
		}
		if err := a.showWatched(s, last, answered, err); err != nil {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-ticker.C:
		}
	}
}

// watchLimit is how long a watch waits for one answer before it says that
// there is none.
func watchLimit(interval time.Duration) time.Duration {
	return max(2*interval, 3*time.Second)
}

func (a *app) showWatched(s *screen, st cluster.Status, answered time.Time, problem error) error {
	if a.output == "json" {
		if problem != nil {
			_, err := fmt.Fprint(a.err, a.explainError(problem))
			return err
		}
		return a.printJSON(st, "")
	}
	return s.show(watchHead(st, answered, time.Now(), problem, a.style()) + render.Status(st, a.style()))
}

// watchHead says when the answer below it came, and that no newer one does.
func watchHead(st cluster.Status, answered, now time.Time, problem error, style render.Style) string {
	if style.Location != nil {
		answered = answered.In(style.Location)
	}
	if problem == nil {
		return fmt.Sprintf("Last answer: %s from %s\n\n", answered.Format("15:04:05"), render.Plain(st.Node))
	}
	return fmt.Sprintf("NO ANSWER since %s (%s): %s\nWhat stands below is that old.\n\n",
		answered.Format("15:04:05"), render.Ago(answered, now), render.Plain(problem.Error()))
}

// screen draws texts over each other on a terminal, and below each other elsewhere.
type screen struct {
	a     *app
	drawn bool
}

func newScreen(a *app) *screen { return &screen{a: a} }

// show draws the text in one write: every line is overwritten and its rest
// erased, so that nothing flickers (ECMA-48 CUP, EL, ED).
func (s *screen) show(text string) error {
	_, height, terminal := s.a.outTerminal()
	if !terminal {
		if s.drawn {
			text = "\n" + text
		}
		s.drawn = true
		_, err := fmt.Fprint(s.a.out, text)
		return err
	}
	var b strings.Builder
	if !s.drawn {
		b.WriteString("\x1b[?1049h\x1b[?25l") // a screen of its own, no cursor
		s.drawn = true
	}
	b.WriteString("\x1b[H\x1b[?7l") // from the top, lines are cut and not wrapped
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > height {
		more := len(lines) - height + 1
		lines = append(lines[:height-1], fmt.Sprintf("... %d more lines: make the window higher than %d lines", more, height))
	}
	b.WriteString(strings.Join(lines, "\x1b[K\r\n") + "\x1b[K\x1b[J\x1b[?7h")
	_, err := fmt.Fprint(s.a.out, b.String())
	return err
}

// end gives the terminal back as it was.
func (s *screen) end() {
	if _, _, terminal := s.a.outTerminal(); terminal && s.drawn {
		fmt.Fprint(s.a.out, "\x1b[?25h\x1b[?1049l")
	}
}
