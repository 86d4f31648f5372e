package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

func (a *app) membersCommand() *cobra.Command {
	list := a.membersListCommand()
	group := &cobra.Command{
		Use:   "members",
		Short: "List the members, or change who they are",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return a.group(cmd, args)
			}
			return list.RunE(cmd, nil)
		},
	}
	a.outputFlag(group, "text", "wide", "json")
	group.AddCommand(list, a.memberAddCommand(),
		a.memberCommand("promote", "Give a member a vote", "%s votes."),
		a.memberCommand("demote", "Take a voter's vote; it may still hold services", "%s votes no more."),
		a.memberCommand("remove", "Remove a node that holds nothing", "%s is no member any more."),
		a.memberReplaceCommand())
	return group
}

func (a *app) membersListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the members and who asks to be one",
		Args:  needs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var members []cluster.Member
			err := a.ask(cmd, timeoutRead, func(ctx context.Context, c *rpc.Client) (err error) {
				members, err = c.Members(ctx)
				return err
			})
			if err != nil {
				return fmt.Errorf("members: %w", err)
			}
			return a.print(members, func() string { return render.Members(members, a.style()) })
		},
	}
	a.outputFlag(cmd, "text", "wide", "json")
	return cmd
}

// changeMember asks for one change of the membership, which waits for leases
// and may take a while.
func (a *app) changeMember(cmd *cobra.Command, r cluster.MemberRequest, doing string) error {
	r.By = a.user()
	err := a.change(cmd, timeoutMove, doing, func(ctx context.Context, c *rpc.Client) error { return c.ChangeMember(ctx, r) })
	if err != nil {
		return fmt.Errorf("members %s: %w", r.Action, err)
	}
	return nil
}

// memberRole checks a role that was typed.
func memberRole(name string) (state.Role, error) {
	switch role := state.Role(name); role {
	case state.RoleVoter, state.RoleWitness, state.RoleMember:
		return role, nil
	}
	return "", usagef("write --role voter (votes and may hold), witness (votes only) or member (may hold only)", "there is no role %q", name)
}

// memberAddress completes an address with the usual port, as a node's file does.
func memberAddress(text string) (string, error) {
	address, err := config.ParseAddress(text, config.DefaultPort)
	if err != nil {
		return "", usagef("write the address as it stands in the node's own file", "%v", err)
	}
	return address, nil
}

func (a *app) memberAddCommand() *cobra.Command {
	r := cluster.MemberRequest{Action: "add"}
	var role string
	cmd := &cobra.Command{
		Use:   "add NAME ADDRESS",
		Short: "Let a node in whose daemon is running",
		Args:  needs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r.Node = args[0]
			if r.Role, err = memberRole(role); err != nil {
				return err
			}
			if r.Address, err = memberAddress(args[1]); err != nil {
				return err
			}
			if err := a.changeMember(cmd, r, "the admission of "+r.Node); err != nil {
				return err
			}
			return a.say("%s is a %s.", r.Node, r.Role)
		},
	}
	cmd.Flags().StringVar(&role, "role", string(state.RoleVoter), "voter, witness or member")
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, for the history")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"voter", "witness", "member"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	return cmd
}

func (a *app) memberCommand(action, short, done string) *cobra.Command {
	r := cluster.MemberRequest{Action: action}
	cmd := &cobra.Command{
		Use:               action + " NODE",
		Short:             short,
		Args:              needs(1, 1),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Node = args[0]
			if err := a.changeMember(cmd, r, "to "+action+" "+r.Node); err != nil {
				return err
			}
			return a.say(done, r.Node)
		},
	}
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, for the history")
	return cmd
}

func (a *app) memberReplaceCommand() *cobra.Command {
	r := cluster.MemberRequest{Action: "replace"}
	cmd := &cobra.Command{
		Use:               "replace OLD NEW ADDRESS",
		Short:             "Let a new node in, and remove the old one it stands for",
		Args:              needs(3, 3),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r.Replaces, r.Node = args[0], args[1]
			if r.Address, err = memberAddress(args[2]); err != nil {
				return err
			}
			if err := a.changeMember(cmd, r, "the replacement of "+r.Replaces); err != nil {
				return err
			}
			return a.say("%s has taken the place of %s.", r.Node, r.Replaces)
		},
	}
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, for the history")
	return cmd
}
