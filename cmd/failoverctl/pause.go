package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
)

func (a *app) pauseCommand() *cobra.Command {
	r := cluster.PauseRequest{On: true}
	cmd := &cobra.Command{
		Use:   "pause [SERVICE]",
		Short: "Let nothing move by itself, of a service or of the whole cluster",
		Long: `Let nothing move by itself, of a service or, without SERVICE, of the whole
cluster. Leases go on: a holder that dies is then not replaced.`,
		Args:              needs(0, 1),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("for") && r.For <= 0 {
				return usagef("write for example --for 30m", "--for %v is no time to pause", r.For)
			}
			if err := a.pause(cmd, args, &r); err != nil {
				return fmt.Errorf("pause: %w", err)
			}
			until := "until it is resumed"
			if r.For > 0 {
				until = "until " + a.style().Clock(time.Now().Add(r.For), time.Now())
			}
			return a.say("Paused: %s, %s.\nnext: failoverctl resume%s", whatOf(r.Service), until, spaced(r.Service))
		},
	}
	cmd.Flags().DurationVar(&r.For, "for", 0, "end the pause by itself after so long, for example 30m")
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, shown in status and history")
	return cmd
}

func (a *app) resumeCommand() *cobra.Command {
	var r cluster.PauseRequest
	cmd := &cobra.Command{
		Use:               "resume [SERVICE]",
		Short:             "End a pause of a service or of the whole cluster",
		Args:              needs(0, 1),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.pause(cmd, args, &r); err != nil {
				return fmt.Errorf("resume: %w", err)
			}
			return a.say("Resumed: %s.", whatOf(r.Service))
		},
	}
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, for the history")
	return cmd
}

func (a *app) pause(cmd *cobra.Command, args []string, r *cluster.PauseRequest) error {
	r.Service, _ = twoArgs(args)
	r.By = a.user()
	doing := "the pause of "
	if !r.On {
		doing = "the resumption of "
	}
	return a.change(cmd, timeoutChange, doing+whatOf(r.Service), func(ctx context.Context, c *rpc.Client) error { return c.Pause(ctx, *r) })
}

func whatOf(service string) string { return orElse(service, "the whole cluster") }

func spaced(service string) string {
	if service == "" {
		return ""
	}
	return " " + service
}

func (a *app) cleanupCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "cleanup SERVICE [NODE]",
		Short:             "Forget failures, so that a node may try again",
		Args:              needs(1, 2),
		ValidArgsFunction: a.completeServiceNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			service, node := twoArgs(args)
			err := a.change(cmd, timeoutChange, "the cleanup of "+service, func(ctx context.Context, c *rpc.Client) error {
				return c.Cleanup(ctx, service, node, a.user())
			})
			if err != nil {
				return fmt.Errorf("cleanup: %w", err)
			}
			return a.say("Forgotten: the failures of %s on %s.", service, orElse(node, "every node"))
		},
	}
}
