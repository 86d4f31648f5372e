package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
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

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print what makes a shell complete commands and names: bash, zsh, fish, powershell",
		Long: `Print what makes a shell complete commands, and the names of services and nodes. For bash:

  failoverctl completion bash > /etc/bash_completion.d/failoverctl`,
		Args:      needs(1, 1),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			}
			return usagef("write one of: "+strings.Join(shells, ", "), "completion knows no shell %q", render.Plain(args[0]))
		},
	}
}
