// Command failoverguard owns the processes of a node's services, so that they
// survive a crash, a freeze and an upgrade of failoverd, and ends them when
// their lease ends. See package fencing/guard.
package main

import (
	"os"

	"github.com/failoverd/failoverd/fencing/guard"
)

// version is set when a release is built (-ldflags "-X main.version=1.2.3").
var version = "devel"

func main() {
	os.Exit(guard.Main(os.Args, guard.MainOptions{Version: version, OpenGate: openGate, Delete: deleteAddresses}))
}
