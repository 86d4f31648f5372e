package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

func (a *app) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain SERVICE [NODE]",
		Short: "Say why a service is where it is, and what would move it",
		Long: `Say why a service is where it is, and what would move it; with NODE, why that
node could or could not take it over. SERVICE may be left out when there is only one.`,
		Args:              needs(0, 2),
		ValidArgsFunction: a.completeServiceNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			service, node := twoArgs(args)
			var e cluster.Explanation
			err := a.ask(cmd, timeoutRead, func(ctx context.Context, c *rpc.Client) (err error) {
				e, err = c.Explain(ctx, service, node)
				return err
			})
			if err != nil {
				return fmt.Errorf("explain: %w", err)
			}
			return a.print(e, func() string { return render.Explain(e, a.style()) })
		},
	}
	a.outputFlag(cmd, "text", "json")
	a.localFlag(cmd)
	return cmd
}

// twoArgs are the first two arguments, empty where there are none.
func twoArgs(args []string) (first, second string) {
	if len(args) > 0 {
		first = args[0]
	}
	if len(args) > 1 {
		second = args[1]
	}
	return first, second
}

func (a *app) historyCommand() *cobra.Command {
	var q cluster.HistoryQuery
	cmd := &cobra.Command{
		Use:               "history [SERVICE]",
		Short:             "Show what happened, oldest first, each with its reason",
		Args:              needs(0, 1),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Service, _ = twoArgs(args)
			if q.Limit < 0 {
				return usagef("write for example -n 20", "-n %d is no number of events", q.Limit)
			}
			events, err := a.history(cmd, q)
			if err != nil {
				return fmt.Errorf("history: %w", err)
			}
			if len(events) == 0 && a.output != "json" {
				return a.say("Nothing has happened yet.")
			}
			return a.print(events, func() string { return eventLines(events, a.style()) })
		},
	}
	a.outputFlag(cmd, "text", "json")
	cmd.Flags().IntVarP(&q.Limit, "number", "n", 50, "show at most so many, the newest; 0: all that are kept")
	cmd.Flags().StringVar(&q.Node, "node", "", "only what concerns this node")
	a.localFlag(cmd)
	return cmd
}

func (a *app) history(cmd *cobra.Command, q cluster.HistoryQuery) (events []state.Event, err error) {
	err = a.ask(cmd, timeoutRead, func(ctx context.Context, c *rpc.Client) (err error) {
		events, err = c.History(ctx, q)
		return err
	})
	return events, err
}

func eventLines(events []state.Event, style render.Style) string {
	text := ""
	for _, e := range events {
		text += render.Event(e, style) + "\n"
	}
	return text
}

func (a *app) eventsCommand() *cobra.Command {
	var q cluster.HistoryQuery
	var follow bool
	cmd := &cobra.Command{
		Use:   "events [SERVICE]",
		Short: "Show events, and with -f go on as they happen",
		Long: `Show events, and with -f go on as they happen, over restarts of the node and
changes of the leader, each event once. With -o json every event is one line.`,
		Args:              needs(0, 1),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Service, _ = twoArgs(args)
			if q.Limit < 0 {
				return usagef("write for example -n 20", "-n %d is no number of events", q.Limit)
			}
			// One node for both: what it has shown is what it goes on after.
			a.local = a.local || follow
			all := cluster.HistoryQuery{Service: q.Service, Node: q.Node}
			seen, err := a.history(cmd, all)
			if err != nil {
				return fmt.Errorf("events: %w", err)
			}
			for _, e := range seen[max(0, len(seen)-q.Limit):] {
				if err := a.printEvent(e); err != nil {
					return err
				}
			}
			if !follow {
				return nil
			}
			return a.followEvents(cmd, all, seen)
		},
	}
	a.outputFlag(cmd, "text", "json")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	cmd.Flags().IntVarP(&q.Limit, "number", "n", 10, "begin with so many of the newest")
	cmd.Flags().StringVar(&q.Node, "node", "", "only what concerns this node")
	return cmd
}

func (a *app) printEvent(e state.Event) error {
	if a.output == "json" {
		return a.printJSON(e, "")
	}
	_, err := fmt.Fprintln(a.out, render.Event(e, a.style()))
	return err
}

// followEvents prints events until the command is interrupted, which is its
// proper end. What disturbs the stream goes to standard error.
func (a *app) followEvents(cmd *cobra.Command, q cluster.HistoryQuery, seen []state.Event) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	n := &notices{a: a}
	watched := make(chan struct{})
	ctx, cancel := context.WithCancel(cmd.Context())
	go func() {
		defer close(watched)
		n.watchQuorum(ctx, client)
	}()
	err = client.Follow(ctx, rpc.Follow{Query: q, Resume: true, Seen: seen, Broken: n.broken}, a.printEvent)
	cancel()
	<-watched
	if cmd.Context().Err() != nil {
		return nil
	}
	return fmt.Errorf("events: %w", err)
}

// notices are the lines between events that say how far they can be trusted.
type notices struct {
	a    *app
	down bool // the stream is broken
}

// broken hears of each break, and nil when the stream goes on.
func (n *notices) broken(err error) {
	switch {
	case err == nil:
		n.down = false
		fmt.Fprintln(n.a.err, "-- the node answers again; what happened meanwhile follows")
	case !n.down:
		n.down = true
		fmt.Fprintf(n.a.err, "-- the stream broke: %s; trying again\n", render.Plain(err.Error()))
	}
}

// quorumEvery is how often a follower asks whether the node is cut off.
const quorumEvery = 3 * time.Second

// watchQuorum says when the node loses its majority and when it has it again: a
// node that is cut off is silent, and silence looks like peace.
func (n *notices) watchQuorum(ctx context.Context, client *rpc.Client) {
	ticker := time.NewTicker(quorumEvery)
	defer ticker.Stop()
	had := true
	for {
		limited, cancel := context.WithTimeout(ctx, quorumEvery)
		st, err := client.Status(limited) // not local: only the leader knows of a majority
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, rpc.ErrUnreachable): // the stream says that itself
		case err == nil && st.Quorum && !had:
			had = true
			fmt.Fprintln(n.a.err, "-- a quorum stands behind the events again")
		case (err != nil || !st.Quorum) && had:
			had = false
			fmt.Fprintln(n.a.err, "-- no quorum stands behind the node that is asked: newer events may be missing until it is back")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
