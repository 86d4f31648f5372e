package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// print writes the table in the form of docs/BENCHMARKS.md.
func (b *bench) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", machine())
	fmt.Fprintln(w, "| fault | profile | runs | silence median (min to max), ms | of it the machine's own, at most | after the heal | lost | two holders, ms: address / wire / data | promised | kept |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range b.results {
		fmt.Fprintln(w, r.line())
	}
	for _, note := range b.notes {
		fmt.Fprintf(w, "\n%s\n", note)
	}
}

func (r *result) line() string {
	good := r.good()
	median, least, most := spread(good, silenceOf)
	silence := "-"
	if len(good) > 0 {
		silence = fmt.Sprintf("%.0f (%.0f to %.0f)", median, least, most)
	}
	heal := "-"
	if r.row.bound.heal && len(good) > 0 {
		_, _, most := spread(good, func(s sample) float64 { return s.AfterHeal })
		heal = fmt.Sprintf("%.0f", most)
	}
	lost, most3 := 0, [3]float64{}
	for _, s := range r.Runs {
		lost = max(lost, s.Lost)
		most3 = [3]float64{max(most3[0], s.Address), max(most3[1], s.Wire), max(most3[2], s.Data)}
	}
	kept := "yes"
	if bad := r.failures(); len(bad) > 0 {
		kept = "**no**: " + strings.Join(bad, "; ")
	}
	if r.row.fault == nil {
		kept = "-" // a peer, measured for comparison
	}
	_, _, noise := spread(good, func(s sample) float64 { return s.Noise })
	return fmt.Sprintf("| %s | %s | %d | %s | %.0f | %s | %d | %.0f / %.0f / %.0f | %s | %s |", r.Row, r.Profile, len(r.Runs),
		silence, noise, heal, lost, most3[0], most3[1], most3[2], r.promise(), kept)
}

// machine says on what it was measured, and when.
func machine() string {
	kernel := "unknown kernel"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	line := fmt.Sprintf("%s, %d cores (%s), %s, %s", kernel, runtime.NumCPU(), processor(), runtime.Version(),
		time.Now().UTC().Format("2006-01-02"))
	if out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		line += ", failoverd " + strings.TrimSpace(string(out))
	}
	return line
}

func processor() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// writeJSON keeps every single measurement.
func (b *bench) writeJSON(path string) error {
	raw, err := json.MarshalIndent(struct {
		Machine string    `json:"machine"`
		Results []*result `json:"results"`
		Notes   []string  `json:"notes,omitempty"`
	}{machine(), b.results, b.notes}, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("write measurements: %w", err)
	}
	return nil
}
