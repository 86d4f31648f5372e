// Command model searches every state that the lease and take-over protocol can
// reach within bounds. It is written from the protocol's page alone and shares
// no code with the product.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	broken := flag.String("break", "", "leave out a rule, by `name`; \"list\" names them")
	only := flag.String("scope", "", "search only these, names separated by commas")
	long := flag.Bool("long", false, "search the long scopes too")
	limit := flag.Duration("limit", 10*time.Minute, "end a search after this")
	states := flag.Int("states", 150e6, "end a search after so many states")
	flag.Parse()

	if *broken == "list" {
		for _, f := range allFaults {
			fmt.Printf("%-26s %-16s %s\n", f.name, f.scope, f.words)
		}
		return
	}
	f := faults{}
	if *broken != "" {
		known := false
		for _, k := range allFaults {
			if k.name == *broken {
				known = true
				if *only == "" {
					*only = k.scope
				}
			}
		}
		if !known {
			fmt.Fprintf(os.Stderr, "model: no fault %q; -break list names them\n", *broken)
			os.Exit(2)
		}
		f[*broken] = true
	}
	wanted := map[string]bool{}
	for _, name := range strings.Split(*only, ",") {
		if name == "" {
			continue
		}
		if scopeOf(name) == nil {
			fmt.Fprintf(os.Stderr, "model: no scope %q\n", name)
			os.Exit(2)
		}
		wanted[name] = true
	}
	worst := 0
	for _, s := range scopes {
		if len(wanted) > 0 && !wanted[s.name] || len(wanted) == 0 && s.long && !*long {
			continue
		}
		o := s.run(f, bounds{states: *states, time: *limit})
		fmt.Printf("%-16s %v\n", s.name, o)
		if o.Broken != "" {
			fmt.Print(numbered(o.Trace))
			worst = 1
		} else if !o.Complete {
			worst = max(worst, 3)
		}
	}
	os.Exit(worst)
}
