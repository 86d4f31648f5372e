package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// outputFlag adds -o to a command.
func (a *app) outputFlag(cmd *cobra.Command, kinds ...string) {
	help := "output: " + strings.Join(kinds, ", ") + " (in JSON, durations are nanoseconds)"
	cmd.Flags().StringVarP(&a.output, "output", "o", "text", help)
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(kinds, a.output) {
			return usagef("write -o "+strings.Join(kinds, ", or -o "), "%s has no output %q", title(cmd, ""), a.output)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
}

// print writes a text, or the value behind it when -o json was given.
func (a *app) print(value any, text func() string) error {
	if a.output == "json" {
		return a.printJSON(value, "  ")
	}
	_, err := fmt.Fprint(a.out, text())
	return err
}

// printJSON writes one value; with no indent it takes one line.
func (a *app) printJSON(value any, indent string) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(value)
}

// say writes a sentence that a person reads.
func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}
