package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

func (a *app) switchoverCommand() *cobra.Command {
	var r cluster.SwitchoverRequest
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "switchover [SERVICE]",
		Short: "Move a service to another node as planned",
		Long: `Move a service to another node as planned: the new node is made ready first, the
old one stops, and the new one starts. SERVICE may be left out when there is only one.`,
		Args:              needs(0, 1),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Service, _ = twoArgs(args)
			r.By = a.user()
			if !r.DryRun {
				a.doing = "the switchover of " + orElse(r.Service, "the service")
			}
			var result cluster.SwitchoverResult
			err := a.ask(cmd, wait, func(ctx context.Context, c *rpc.Client) (err error) {
				result, err = c.Switchover(ctx, r)
				return err
			})
			if err != nil {
				return fmt.Errorf("switchover: %w", err)
			}
			return a.print(result, func() string {
				if r.DryRun {
					return render.WouldMove(result)
				}
				return render.Moved(result, a.style())
			})
		},
	}
	cmd.Flags().StringVar(&r.To, "to", "", "the node to move to (default: the best candidate)")
	cmd.Flags().StringVar(&r.Why, "reason", "", "why, for the history")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().DurationVar(&wait, "wait", timeoutMove, "how long to wait for its end; the move itself goes on")
	a.completeNodeFlag(cmd, "to")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func (a *app) failoverCommand() *cobra.Command {
	var r cluster.FailoverRequest
	var yes bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "failover SERVICE",
		Short: "Take a service from a holder that you know to be off",
		Long: `Take a service from a holder that you know to be off.

A failover needs nobody: the cluster takes a service over by itself once it has
proof that the holder is gone. With --force your word is that proof. If the
holder still runs, two nodes then serve at once, and data may be lost.`,
		Args:              needs(1, 1),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Service, r.By = args[0], a.user()
			if r.Force && strings.TrimSpace(r.Why) == "" {
				return usagef("say how you know that the holder is off: --reason \"power cord pulled\"", "failover --force needs a --reason, which goes into the history beside your name")
			}
			a.doing = "the failover of " + r.Service
			if r.Force && !yes {
				if err := a.confirmOff(cmd, r.Service); err != nil {
					return err
				}
			}
			var result cluster.SwitchoverResult
			err := a.ask(cmd, wait, func(ctx context.Context, c *rpc.Client) (err error) {
				result, err = c.Failover(ctx, r)
				return err
			})
			if err != nil && !r.Force && errors.Is(err, cluster.ErrRefused) {
				return hinted{fmt.Errorf("failover: %w", err), fmt.Sprintf("failoverctl explain %s says what the cluster waits for", r.Service)}
			}
			if err != nil {
				return fmt.Errorf("failover: %w", err)
			}
			return a.print(result, func() string { return render.Moved(result, a.style()) })
		},
	}
	cmd.Flags().BoolVar(&r.Force, "force", false, "swear that the holder is powered off")
	cmd.Flags().StringVar(&r.To, "to", "", "the node to move to (default: the best candidate)")
	cmd.Flags().StringVar(&r.Why, "reason", "", "how you know it, for the history")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().DurationVar(&wait, "wait", timeoutMove, "how long to wait for its end; the failover itself goes on")
	a.completeNodeFlag(cmd, "to")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

// confirmOff asks for the word that a holder is off, naming it and all that it holds.
func (a *app) confirmOff(cmd *cobra.Command, service string) error {
	if !a.inTerminal {
		return usagef("call it from a terminal, or add --yes", "failover --force asks for a yes, and there is no terminal to ask on")
	}
	var st cluster.Status
	err := a.ask(cmd, timeoutRead, func(ctx context.Context, c *rpc.Client) (err error) {
		st, err = c.Status(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("failover: ask who holds %s: %w", service, err)
	}
	fmt.Fprint(a.err, forceQuestion(st, service))
	line, err := a.readLine(cmd.Context())
	if err != nil {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("failover: not done, since the answer was not yes")
	}
	return nil
}

// forceQuestion says what a yes means.
func forceQuestion(st cluster.Status, service string) string {
	holder, others := "", ""
	for _, svc := range st.Services {
		if svc.Name == service {
			holder = svc.Holder
		}
	}
	for _, n := range st.Nodes {
		if n.Name != holder {
			continue
		}
		for _, held := range n.Holds {
			if held != service {
				others += " It also ends its hold of " + render.Plain(held) + "."
			}
		}
		if n.Alive == "yes" {
			others += " It ANSWERS now."
		}
	}
	who := render.Plain(holder)
	if who == "" {
		who = "whoever holds it"
	}
	return fmt.Sprintf("By saying yes you swear that %s, which holds %s, is powered off and stays off.%s\nIf it is not, two nodes serve %s at once. Type yes to go on: ",
		who, render.Plain(service), others, render.Plain(service))
}

// readLine reads a line from standard input, or ends with ctx: a read from a
// terminal cannot be called back, so it is left to end with the process.
func (a *app) readLine(ctx context.Context) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(a.in).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-got:
		if r.err != nil && r.line == "" {
			return "", errors.New("failover: not done, since no answer came")
		}
		return r.line, nil
	}
}
