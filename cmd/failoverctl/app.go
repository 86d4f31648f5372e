package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

// environment is what a command needs of its host; tests give their own.
type environment struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	// terminal reports whether in, or out, is a terminal, and out's size.
	inTerminal  bool
	outTerminal func() (width, height int, ok bool)
	user        func() string // who types
	location    *time.Location
}

func hostEnvironment() environment {
	return environment{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv,
		inTerminal:  isTerminal(os.Stdin),
		outTerminal: func() (int, int, bool) { return terminalSize(os.Stdout) },
		user:        whoTypes,
	}
}

// whoTypes is the name that goes into the history: the Unix user, and behind
// sudo the one who called it.
func whoTypes() string {
	name := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if caller := os.Getenv("SUDO_USER"); os.Geteuid() == 0 && caller != "" && caller != name {
		return caller
	}
	return name
}

// app is one run of failoverctl.
type app struct {
	environment
	client *rpc.Client
	target string // unix:///path or host:port, once connected
	// doing names the change that a command asks for; empty for those that only read.
	doing string

	socket, address, ca, cert, key string
	insecure, local                bool
	timeout                        time.Duration
	output                         string
}

// How long a command waits when --timeout does not say.
const (
	timeoutRead   = 10 * time.Second
	timeoutChange = 30 * time.Second
	timeoutMove   = time.Minute // a service may take its time to stop and start
)

// run carries out a command line and returns the exit code.
func run(ctx context.Context, args []string, env environment) int {
	a := &app{environment: env}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.client != nil {
		if closeErr := a.client.Close(); err == nil {
			err = closeErr
		}
	}
	var done silent
	if err != nil && !errors.As(err, &done) {
		fmt.Fprint(a.err, a.explainError(err))
	}
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "failoverctl",
		Short: "Ask a failover cluster how it is, and tell it what to do",
		Long: `failoverctl asks any node of the cluster; what only the leader can do, the node passes on.

Exit codes: 0 done, 1 error, 2 wrong usage, 3 no quorum, 4 refused by a safety
rule, 5 timeout or unknown outcome, 130 interrupted.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          a.group,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef(cmd.CommandPath()+" --help lists its flags", "%s%v", title(cmd, ": "), err)
	})
	root.CompletionOptions.DisableDefaultCmd = true // ours refuses a shell that it does not know
	root.SetHelpCommand(a.helpCommand())
	f := root.PersistentFlags()
	f.StringVar(&a.socket, "socket", "", "Unix socket of the node on this machine (default "+config.DefaultSocket+", or FAILOVERCTL_SOCKET)")
	f.StringVar(&a.address, "address", "", "host:port of any node's api (or FAILOVERCTL_ADDRESS)")
	f.StringVar(&a.ca, "ca", "", "file with the authority's certificate, for --address (or FAILOVERCTL_CA)")
	f.StringVar(&a.cert, "cert", "", "file with our certificate (or FAILOVERCTL_CERT)")
	f.StringVar(&a.key, "key", "", "file with our key (or FAILOVERCTL_KEY)")
	f.BoolVar(&a.insecure, "insecure", false, "talk to another machine without TLS")
	f.DurationVar(&a.timeout, "timeout", 0, "how long to wait for an answer (default 10s; 30s for changes, 1m for moves)")
	root.AddCommand(
		a.statusCommand(), a.explainCommand(), a.historyCommand(), a.eventsCommand(),
		a.switchoverCommand(), a.failoverCommand(),
		a.pauseCommand(), a.resumeCommand(), a.nodeCommand(), a.cleanupCommand(),
		a.membersCommand(), a.planCommand(), a.applyCommand(), a.validateCommand(), a.versionCommand(), a.completionCommand(),
	)
	return root
}

// group is what a command does that only holds others.
func (a *app) group(cmd *cobra.Command, args []string) error {
	next := cmd.CommandPath() + " --help lists the commands"
	if len(args) == 0 {
		return usagef(next, "%sname a command: %s", title(cmd, ": "), strings.Join(names(cmd), ", "))
	}
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		next = "did you mean " + cmd.CommandPath() + " " + strings.Join(like, " or ") + "?"
	}
	return usagef(next, "%sthere is no command %q", title(cmd, ": "), render.Plain(args[0]))
}

// title is a command's path behind failoverctl, which stands before every
// message already, and the text after it; nothing for failoverctl itself.
func title(cmd *cobra.Command, after string) string {
	_, path, found := strings.Cut(cmd.CommandPath(), " ")
	if !found {
		return ""
	}
	return path + after
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show how a command is used",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return a.group(about, rest)
			}
			return about.Help()
		},
	}
}

func names(cmd *cobra.Command) []string {
	var out []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			out = append(out, c.Name())
		}
	}
	return out
}

// needs checks the number of arguments and names the one that is missing. The
// arguments are named as in the command's Use line.
func needs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			named := strings.Fields(cmd.Use)[1:]
			return usagef(cmd.CommandPath()+" --help shows how", "%s needs %s", title(cmd, ""), strings.Join(named[len(args):least], " and "))
		case most >= 0 && len(args) > most:
			return usagef(cmd.CommandPath()+" --help shows how", "%s does not know what to do with %q", title(cmd, ""), render.Plain(args[most]))
		}
		for _, arg := range args {
			if arg == "" {
				return usagef(cmd.CommandPath()+" --help shows how", "%s: an argument is empty", title(cmd, ""))
			}
		}
		return nil
	}
}

// connect prepares the client that the flags and the environment ask for.
func (a *app) connect() (*rpc.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	target, err := a.chooseTarget()
	if err != nil {
		return nil, err
	}
	a.target = target
	tlsConfig, err := a.tlsConfig()
	if err != nil {
		return nil, err
	}
	if a.client, err = rpc.Dial(target, tlsConfig); err != nil {
		return nil, usagef("write --address HOST:PORT, or --socket /PATH", "%v", err)
	}
	return a.client, nil
}

// chooseTarget takes a flag before the environment, and the socket before nothing.
func (a *app) chooseTarget() (string, error) {
	if a.socket != "" && a.address != "" {
		return "", usagef("leave one of them out", "--socket and --address name two nodes")
	}
	socket, address := a.socket, a.address
	if socket == "" && address == "" {
		socket, address = a.getenv("FAILOVERCTL_SOCKET"), a.getenv("FAILOVERCTL_ADDRESS")
		if socket != "" && address != "" {
			return "", usagef("unset one of them, or name the node with a flag", "FAILOVERCTL_SOCKET and FAILOVERCTL_ADDRESS name two nodes")
		}
	}
	if address != "" {
		return address, nil
	}
	if socket == "" {
		socket = config.DefaultSocket
	}
	if !strings.HasPrefix(socket, "/") {
		dir, err := os.Getwd()
		if err != nil {
			return "", fmt.Errorf("find the socket %s: %w", socket, err)
		}
		socket = dir + "/" + socket
	}
	return "unix://" + socket, nil
}

// orEnv is a flag's value, or the environment's.
func (a *app) orEnv(flag, name string) string {
	if flag != "" {
		return flag
	}
	return a.getenv(name)
}

// tlsConfig is nil for a socket, and for an address where no TLS is meant.
func (a *app) tlsConfig() (*tls.Config, error) {
	ca, cert, key := a.orEnv(a.ca, "FAILOVERCTL_CA"), a.orEnv(a.cert, "FAILOVERCTL_CERT"), a.orEnv(a.key, "FAILOVERCTL_KEY")
	if strings.HasPrefix(a.target, "unix://") {
		if a.ca != "" || a.cert != "" || a.key != "" {
			return nil, usagef("leave them out, or name a node with --address", "--ca, --cert and --key are for --address: a socket has no TLS")
		}
		return nil, nil
	}
	if ca == "" && cert == "" && key == "" {
		if !a.insecure && a.getenv("FAILOVERCTL_INSECURE") == "" && !isLoopback(a.target) {
			return nil, usagef("give --ca, --cert and --key, or --insecure if nobody else is on that network",
				"%s is another machine, and without certificates anybody on the way can read and give orders", a.target)
		}
		return nil, nil
	}
	if ca == "" || cert == "" || key == "" {
		return nil, usagef("give all of --ca, --cert and --key", "TLS needs all three files: the authority's certificate, ours, and our key")
	}
	files := config.TLS{CA: ca, Cert: cert, Key: key} // the same check as between nodes
	tlsConfig, err := files.Client()
	if err != nil {
		return nil, fmt.Errorf("read --ca, --cert and --key: %w", err)
	}
	return tlsConfig, nil
}

// within is the context of one call: the command's, with its time limit.
func (a *app) within(cmd *cobra.Command, usual time.Duration) (context.Context, context.CancelFunc, error) {
	switch {
	case a.timeout < 0:
		return nil, nil, usagef("write for example --timeout 30s", "--timeout %v is no time to wait", a.timeout)
	case a.timeout > 0:
		usual = a.timeout
	}
	ctx := cmd.Context()
	if a.local {
		ctx = rpc.WithLocal(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, usual)
	return ctx, cancel, nil
}

// ask connects and runs one call within its time.
func (a *app) ask(cmd *cobra.Command, usual time.Duration, call func(context.Context, *rpc.Client) error) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	ctx, cancel, err := a.within(cmd, usual)
	if err != nil {
		return err
	}
	defer cancel()
	return call(ctx, client)
}

// change is ask for what changes something; doing names it as in "the pause of pg".
func (a *app) change(cmd *cobra.Command, usual time.Duration, doing string, call func(context.Context, *rpc.Client) error) error {
	a.doing = doing
	return a.ask(cmd, usual, call)
}
