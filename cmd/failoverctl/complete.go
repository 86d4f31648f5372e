package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
)

// completionLimit is how long a shell waits for names when Tab is pressed.
const completionLimit = time.Second

// names of what exists, for the shell; nothing when no node answers.
func (a *app) existing(cmd *cobra.Command, pick func(cluster.Status) []string) ([]string, cobra.ShellCompDirective) {
	a.timeout = completionLimit
	var out []string
	err := a.ask(cmd, completionLimit, func(ctx context.Context, c *rpc.Client) error {
		st, err := c.Status(rpc.WithLocal(ctx))
		if err == nil {
			out = pick(st)
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func services(st cluster.Status) (out []string) {
	for _, s := range st.Services {
		out = append(out, s.Name)
	}
	return out
}

func nodes(st cluster.Status) (out []string) {
	for _, n := range st.Nodes {
		out = append(out, n.Name)
	}
	return out
}

func (a *app) completeService(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.existing(cmd, services)
}

func (a *app) completeNode(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.existing(cmd, nodes)
}

func (a *app) completeServiceNode(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.existing(cmd, services)
	case 1:
		return a.existing(cmd, nodes)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeNodeFlag(cmd *cobra.Command, flag string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.existing(cmd, nodes)
	}) // fails only for a flag that is not there
}
