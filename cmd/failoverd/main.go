// Command failoverd is a node of a failover cluster: see README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/failoverd/failoverd/cluster/daemon"
)

// Exit codes: 1 the daemon could not start or go on, 2 wrong usage or configuration.
func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	flags := flag.NewFlagSet("failoverd", flag.ContinueOnError)
	path := flags.String("config", "/etc/failoverd/node.hcl", "the node's own file")
	check := flags.Bool("check", false, "check the file and this host, print the settings in force, and exit")
	version := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	switch {
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "failoverd: unexpected argument %q; failoverd --config FILE\n", flags.Arg(0))
		return 2
	case *version:
		fmt.Println("failoverd", daemon.Version)
		return 0
	}
	loaded, err := daemon.Load(*path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if *check {
		os.Stdout.Write(loaded.Settings())
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// To leave in good order takes time; a second signal ends the daemon at once,
	// and what runs here ends with its lease.
	context.AfterFunc(ctx, stop)
	err = daemon.Run(ctx, loaded.Options(os.Stderr))
	switch {
	case errors.Is(err, daemon.ErrRestart):
		// The same process goes on as a new daemon: its services stay under
		// their lease, and whoever supervises it sees no exit.
		err = restart()
	case err == nil:
		return 0
	}
	fmt.Fprintln(os.Stderr, "failoverd:", err)
	return 1
}

func restart() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program to restart: %w", err)
	}
	return fmt.Errorf("execute %s anew: %w", self, syscall.Exec(self, os.Args, os.Environ()))
}
