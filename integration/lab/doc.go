// Package lab builds hosts out of Linux namespaces, breaks them on purpose and
// watches what a client sees.
//
// A host is a network namespace with one interface, eth0, and a PID namespace
// whose init is this program executed again: when the init is killed, every
// process of the host is gone at once, as in a power cut. The hosts hang on a
// bridge that lives in a network namespace of its own; nothing touches the
// machine's own network. Everything is done by netlink, so that no package has
// to be installed, and it works as root as well as for an ordinary user, for
// whom the whole program is executed again in a user namespace.
//
//	func main() {
//		if err := lab.Enter(); err != nil { … }      // first, before anything else
//		l, err := lab.New(lab.Options{Hosts: []string{"a", "b", "c"}})
//		defer l.Close()
//		watch, err := l.Watch(netip.MustParseAddr("10.77.0.100"))
//		client, err := l.Client("client")
//		asking, err := client.Ask(lab.Ask{URL: "http://10.77.0.100:8080"})
//		l.Host("a").PowerOff()
//		…
//		figures := l.Judge(from, l.Now())
//	}
//
// All times are durations since the lab was made, on CLOCK_MONOTONIC, which all
// hosts share; they say how long something took, never what hour it was.
//
// Nothing is left behind: not by Close, not after Ctrl-C, and not when the lab
// itself is killed. The inits die with the lab (PR_SET_PDEATHSIG and the end of
// a pipe), their processes with them, and a janitor in a session of its own
// removes the directory and the control groups.
package lab
