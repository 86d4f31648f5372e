package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// evidence is what a run has shown, for people and programs.
type evidence struct {
	Seed        uint64         `json:"seed"`
	Nodes       int            `json:"nodes"`
	Profile     string         `json:"profile"`
	Version     string         `json:"version"`
	Began       time.Time      `json:"began"`
	Minutes     float64        `json:"minutes"`
	Faults      int            `json:"faults"` // done; those that found nothing to break or were refused are not among them
	Pairs       int            `json:"pairs"`  // items with two faults at once
	ByKind      map[string]int `json:"by_kind"`
	Refused     int            `json:"refused"`
	Nothing     int            `json:"nothing_to_break"`
	Operations  counts         `json:"operations"`
	Failovers   int            `json:"failovers"`
	LongestMS   float64        `json:"longest_silence_ms"`
	Settles     settles        `json:"settles"`
	AddressMS   float64        `json:"two_holders_address_ms"`
	WireMS      float64        `json:"two_holders_wire_ms"`
	DataMS      float64        `json:"two_holders_data_ms"`
	Windows     int            `json:"windows"`
	Porcupine   string         `json:"porcupine"`
	Findings    []string       `json:"findings"`
	Warnings    []string       `json:"warnings"`         // what may be on a machine that stalls
	StallMS     float64        `json:"longest_stall_ms"` // of the machine itself: a host to which nothing happened was silent
	Interrupted bool           `json:"interrupted,omitempty"`
}

// evidence gathers what the run has shown so far.
func (r *run) evidence(ctx context.Context) (evidence, error) {
	now := r.rig.Lab.Now()
	e := evidence{Seed: r.seed, Nodes: r.nodes, Profile: r.profile, Began: r.rig.Lab.Clock(r.begun).UTC(),
		Minutes: (now - r.begun).Minutes(), ByKind: map[string]int{}, Operations: r.history.figures(),
		Settles: r.settles, Windows: r.windows, Findings: r.findings, Warnings: r.in.warned(),
		StallMS: ms(r.rig.Noise(r.begun, now)), Porcupine: "linearizable"}
	for _, d := range r.in.faults() {
		switch {
		case d.nothing:
			e.Nothing++
		case d.refused:
			e.Refused++
		case d.problems == nil:
			e.Faults++
			e.ByKind[d.fault.kind]++
		}
	}
	for _, t := range r.trace {
		if len(t.item.faults) > 1 {
			e.Pairs++
		}
	}
	for _, f := range r.findings {
		if strings.Contains(f, "linearizable") || strings.Contains(f, "porcupine") {
			e.Porcupine = f
		}
	}
	silence, _ := r.rig.Client.Silence(r.begun, now)
	e.LongestMS = ms(silence)
	epochs := map[uint64]bool{}
	for _, q := range r.rig.Client.Requests(r.begun, now) {
		if q.Outcome == lab.Answered {
			epochs[q.Epoch] = true
		}
	}
	e.Failovers = max(0, len(epochs)-1)
	figures, err := r.rig.Lab.Judge(r.begun, now)
	e.AddressMS, e.WireMS, e.DataMS = ms(figures.Address), ms(figures.Wire), ms(figures.Data)
	if version, err := r.rig.Failoverd.AnyCtl(ctx, "version"); err == nil {
		e.Version, _, _ = strings.Cut(version, "\n")
	}
	return e, err
}

// print writes the summary.
func (e evidence) print(w io.Writer) {
	fmt.Fprintf(w, "\nseed %d, %d nodes, profile %s: %d faults in %.1f minutes, %d of them in pairs; %d orders refused, %d found nothing to break\n",
		e.Seed, e.Nodes, e.Profile, e.Faults, e.Minutes, 2*e.Pairs, e.Refused, e.Nothing)
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(e.ByKind)) {
		words = append(words, fmt.Sprintf("%s %d", kind, e.ByKind[kind]))
	}
	fmt.Fprintf(w, "by kind: %s\n", strings.Join(words, ", "))
	o := e.Operations
	fmt.Fprintf(w, "operations: %d acknowledged, %d of unknown outcome, %d never sent, %d reads unanswered, %d rejected\n",
		o.Acknowledged, o.Unknown, o.Failed, o.NoAnswer, o.Rejected)
	average := e.Settles.Sum.Seconds() / float64(max(1, e.Settles.Count))
	fmt.Fprintf(w, "service moved or restarted %d times; longest silence %.0f ms; whole again %d times, in %.1f s on the average, %.1f s at most\n",
		e.Failovers, e.LongestMS, e.Settles.Count, average, e.Settles.Longest.Seconds())
	fmt.Fprintf(w, "the machine itself stalled for up to %.0f ms; %d warnings\n", e.StallMS, len(e.Warnings))
	for _, text := range e.Warnings[:min(10, len(e.Warnings))] {
		fmt.Fprintf(w, "  %s\n", text)
	}
	fmt.Fprintf(w, "two holders: address %.0f ms, wire %.0f ms, data %.0f ms\n", e.AddressMS, e.WireMS, e.DataMS)
	fmt.Fprintf(w, "porcupine, %d windows of a register and a set: %s\n", e.Windows, e.Porcupine)
}

// keep writes the evidence, and, when something is wrong, everything that helps
// to find out why. It gives the directory, or "" when there is nothing to write.
func (r *run) keep(e evidence, problem error) (string, error) {
	dir := r.out
	if dir == "" && problem == nil {
		return "", nil
	}
	var err error
	if dir == "" {
		if dir, err = os.MkdirTemp("", "failoverd-chaos-"); err != nil {
			return "", fmt.Errorf("keep evidence: %w", err)
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("keep evidence: %w", err)
	}
	name := fmt.Sprintf("chaos-%d-%d-%s", r.nodes, r.seed, r.profile)
	raw, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return dir, fmt.Errorf("keep evidence: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(raw, '\n'), 0o644); err != nil {
		return dir, fmt.Errorf("keep evidence: %w", err)
	}
	if problem == nil {
		return dir, nil
	}
	return dir, r.keepAll(filepath.Join(dir, name), problem)
}

// keepAll keeps logs, schedule, operations and what the cluster says.
func (r *run) keepAll(dir string, problem error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep logs: %w", err)
	}
	var schedule, trace strings.Builder
	for _, t := range r.trace {
		fmt.Fprintf(&schedule, "%s\n", t.item)
		fmt.Fprintf(&trace, "%10.1f ms  %s  %s\n", ms(t.at), r.rig.Lab.Clock(t.at).UTC().Format("15:04:05.000"), t.text)
	}
	fmt.Fprintf(&trace, "\nfaults as they were:\n")
	for _, d := range r.in.faults() {
		fmt.Fprintf(&trace, "%10.1f ms  %s on %s for %.1f ms, refused %v, nothing %v, %v\n",
			ms(d.at), d.fault, d.host, ms(d.lasted), d.refused, d.nothing, d.problems)
	}
	ask, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	now := r.rig.Lab.Now()
	account := r.rig.Account(ask, lab.Measurement{From: max(0, now-3*time.Minute), To: now})
	var ops strings.Builder
	for _, key := range r.history.keys() {
		for _, o := range r.history.window(key) {
			line, err := json.Marshal(o)
			if err != nil {
				return fmt.Errorf("keep operations: %w", err)
			}
			fmt.Fprintf(&ops, "%s\n", line)
		}
	}
	problems := []error{
		os.WriteFile(filepath.Join(dir, "problem.txt"), []byte(problem.Error()+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "schedule.txt"), []byte(schedule.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "trace.txt"), []byte(trace.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "account.txt"), []byte(account), 0o644),
		os.WriteFile(filepath.Join(dir, "operations.jsonl"), []byte(ops.String()), 0o644),
	}
	for _, h := range r.in.nodes {
		raw, err := os.ReadFile(r.rig.Failoverd.LogFile(h))
		problems = append(problems, err, os.WriteFile(filepath.Join(dir, h.Name()+".log"), raw, 0o644))
	}
	return errors.Join(problems...)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
