// Command failoverctl asks a failoverd node, and tells it what an operator wants.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = ""

// lastWord is how long a command may take to say what is under way when it is
// interrupted. A command that waits for a file or a terminal has nothing to say.
const lastWord = 500 * time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second Ctrl-C ends the process by itself
		time.Sleep(lastWord)
		// Calls to a node end at once, so this is a read of a file or a pipe.
		fmt.Fprintln(os.Stderr, "failoverctl: interrupted; nothing was changed")
		os.Exit(exitInterrupted)
	})
	os.Exit(run(ctx, os.Args[1:], hostEnvironment()))
}
