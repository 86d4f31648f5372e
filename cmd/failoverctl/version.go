package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

// versions is what -o json of version prints.
type versions struct {
	Client string           `json:"client"`
	Go     string           `json:"go"`
	Node   *cluster.Version `json:"node,omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	var clientOnly bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program and of the asked node",
		Args:  needs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: clientVersion(), Go: runtime.Version()}
			var problem error
			if !clientOnly {
				problem = a.ask(cmd, timeoutRead, func(ctx context.Context, c *rpc.Client) error {
					node, err := c.Version(ctx)
					if err == nil {
						v.Node = &node
					}
					return err
				})
			}
			// Our own version is known even when the node does not answer.
			if err := a.print(v, func() string { return versionText(v) }); err != nil {
				return err
			}
			if problem != nil {
				return fmt.Errorf("version of the node: %w", problem)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "ask no node")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

func versionText(v versions) string {
	text := fmt.Sprintf("failoverctl %s (%s)\n", v.Client, v.Go)
	if v.Node != nil {
		text += fmt.Sprintf("node %s: failoverd %s (%s), log protocol %d\n",
			render.Plain(v.Node.Node), render.Plain(v.Node.Version), render.Plain(v.Node.Go), v.Node.Protocol)
	}
	return text
}

// clientVersion is the build's, or what Go knows of it.
func clientVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "of unknown version"
}
