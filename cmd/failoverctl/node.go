package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
)

func (a *app) nodeCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "node",
		Short: "Make a node stand by, serve again, or restart its daemon",
		Args:  cobra.ArbitraryArgs,
		RunE:  a.group,
	}
	group.AddCommand(a.standbyCommand("standby", true), a.standbyCommand("unstandby", false), a.restartCommand())
	return group
}

func (a *app) standbyCommand(name string, on bool) *cobra.Command {
	r := cluster.StandbyRequest{On: on}
	short, doing, done := "Let a node hold services again", "the end of the standby of ", "%s may hold services again."
	if on {
		short, doing = "Move every service off a node, and let it hold none", "the standby of "
		done = "%s stands by: what it holds moves away, and it gets nothing.\nnext: failoverctl status -w"
	}
	cmd := &cobra.Command{
		Use:               name + " NODE",
		Short:             short,
		Args:              needs(1, 1),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Node, r.By = args[0], a.user()
			err := a.change(cmd, timeoutChange, doing+r.Node, func(ctx context.Context, c *rpc.Client) error { return c.Standby(ctx, r) })
			if err != nil {
				return fmt.Errorf("node %s: %w", name, err)
			}
			return a.say(done, r.Node)
		},
	}
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, shown in status and history")
	return cmd
}

func (a *app) restartCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "restart NODE",
		Short: "Restart a node's daemon; its services go on under their lease",
		Long: `Restart a node's daemon, for example after an upgrade of its program. Its services
go on under their lease meanwhile. One node at a time: it is refused while the
voters without this one would be no majority.`,
		Args:              needs(1, 1),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			node := args[0]
			err := a.change(cmd, timeoutChange, "the restart of "+node, func(ctx context.Context, c *rpc.Client) error {
				return c.RestartNode(ctx, node, a.user(), why)
			})
			if err != nil {
				return fmt.Errorf("node restart: %w", err)
			}
			return a.say("%s restarts its daemon; its services go on under their lease.\nnext: failoverctl status -w, until it is ready again", node)
		},
	}
	cmd.Flags().StringVar(&why, "reason", "", "why, for the log")
	return cmd
}
