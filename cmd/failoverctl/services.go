package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

func (a *app) planCommand() *cobra.Command {
	r := cluster.ApplyRequest{DryRun: true}
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "Say what applying a file of services would change",
		Args:  needs(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.apply(cmd, args[0], r) },
	}
	cmd.Flags().BoolVar(&r.Prune, "prune", false, "with the removal of services that the file does not name")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

func (a *app) applyCommand() *cobra.Command {
	var r cluster.ApplyRequest
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Put a file of services in force",
		Long: `Put a file of services in force, all of it or nothing. Services that the file does
not name stay as they are, unless --prune removes them; --yes removes even one
that is running.`,
		Args: needs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.apply(cmd, args[0], r) },
	}
	cmd.Flags().BoolVar(&r.Prune, "prune", false, "remove services that the file does not name")
	cmd.Flags().BoolVar(&r.Yes, "yes", false, "stop and remove even services that are running")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only say what would change, as plan does")
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, for the history")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

// apply checks a file before it asks anybody, so that a mistake in it is shown
// with its line even when no daemon runs.
func (a *app) apply(cmd *cobra.Command, path string, r cluster.ApplyRequest) error {
	specs, err := config.LoadServices(path)
	if err != nil {
		return err
	}
	r.Services, r.By = specs, a.user()
	if !r.DryRun {
		a.doing = "the application of " + path
	}
	var result cluster.ApplyResult
	err = a.ask(cmd, timeoutChange, func(ctx context.Context, c *rpc.Client) (err error) {
		result, err = c.Apply(ctx, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.Name(), err)
	}
	return a.print(result, func() string { return render.Plan(result, r.DryRun, a.style()) })
}

func (a *app) validateCommand() *cobra.Command {
	var host bool
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check files of services and nodes' own files, without a daemon",
		Long: `Check files of services and nodes' own files, without a daemon. Every mistake is
shown with its file and line. Of a node's file and files of services that are
given together, it is also checked that the node may run the services' commands.`,
		Args: needs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			v := validation{app: a, host: host}
			for _, path := range args {
				v.file(path)
			}
			v.together()
			return v.result()
		},
	}
	cmd.Flags().BoolVar(&host, "host", false, "also look at this machine: interfaces, directories, ports (the daemon must not run)")
	return cmd
}

// validation collects what is wrong with several files.
type validation struct {
	app      *app
	host     bool
	nodes    []*config.Node
	specs    []state.Spec
	problems []string
}

func (v *validation) bad(err error) {
	if err != nil {
		v.problems = append(v.problems, err.Error())
	}
}

func (v *validation) file(path string) {
	if !isNodeFile(path) {
		specs, err := config.LoadServices(path)
		if err == nil && v.host {
			err = config.CheckInterfaces(specs)
		}
		if err != nil {
			v.bad(err)
			return
		}
		v.specs = append(v.specs, specs...)
		v.bad(v.app.say("%s: good, %d service(s)", path, len(specs)))
		return
	}
	node, err := config.LoadNode(path)
	if err == nil && v.host {
		err = node.CheckHost()
	}
	if err != nil {
		v.bad(err)
		return
	}
	v.nodes = append(v.nodes, node)
	v.bad(v.app.say("%s: good, node %s", path, node.Name))
	for _, w := range node.Warnings() {
		v.bad(v.app.say("%s: note: %s", path, w))
	}
}

// together checks what one file says against another.
func (v *validation) together() {
	for _, n := range v.nodes {
		v.bad(n.CheckCommands(v.specs))
	}
}

func (v *validation) result() error {
	if len(v.problems) == 0 {
		return nil
	}
	fmt.Fprintln(v.app.err, strings.Join(v.problems, "\n"))
	return silent{exitError}
}

// nodeKeys are settings that only a node's own file has.
var nodeKeys = []string{"node", "address", "peers"}

// isNodeFile tells a node's own file from one of services, also when the file
// has mistakes: they are to be told in the right terms. A pipe can be read only
// once, and counts as services.
func isNodeFile(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	if filepath.Ext(path) == ".json" {
		var top map[string]json.RawMessage
		_ = json.Unmarshal(src, &top) // the loader reports what is wrong
		return slices.ContainsFunc(nodeKeys, func(key string) bool { return top[key] != nil })
	}
	return setsAtTop(src, nodeKeys)
}

// setsAtTop reports whether HCL text sets one of the keys outside all blocks. It
// looks at words only, since a parser gives up at the mistakes to be reported.
func setsAtTop(src []byte, keys []string) bool {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	depth := 0
	for i, token := range tokens {
		switch token.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen:
			depth--
		case hclsyntax.TokenIdent:
			if depth == 0 && i+1 < len(tokens) && tokens[i+1].Type == hclsyntax.TokenEqual && slices.Contains(keys, string(token.Bytes)) {
				return true
			}
		}
	}
	return false
}
