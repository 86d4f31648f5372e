package main

import (
	"reflect"
	"strings"
	"testing"
)

func generated(seed uint64, nodes, n int) []item {
	g := newGenerator(seed, nodes)
	var out []item
	for range n {
		out = append(out, g.next())
	}
	return out
}

func text(items []item) string {
	var b strings.Builder
	for _, i := range items {
		b.WriteString(i.String() + "\n")
	}
	return b.String()
}

func TestAScheduleIsMadeOfItsSeedAlone(t *testing.T) {
	for seed := range uint64(20) {
		if one, other := text(generated(seed, 3, 300)), text(generated(seed, 3, 300)); one != other {
			t.Fatalf("seed %d makes two schedules", seed)
		}
	}
	if text(generated(1, 3, 50)) == text(generated(2, 3, 50)) {
		t.Error("two seeds make one schedule")
	}
}

func TestAScheduleIsReadAsItWasWritten(t *testing.T) {
	for seed := range uint64(20) {
		want := generated(seed, 5, 300)
		got, err := parseSchedule(strings.NewReader("# a comment\n\n" + text(want)))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d:\n%s\nread as\n%s", seed, text(want), text(got))
		}
	}
}

func TestSchedulesHaveEverything(t *testing.T) {
	seen, pairs, faults := map[string]bool{}, 0, 0
	for _, i := range generated(3, 5, 3000) {
		if len(i.faults) > 1 {
			pairs++
		}
		for _, f := range i.faults {
			faults++
			seen[f.kind], seen[strings.TrimRight(f.target, "01234")] = true, true
			k := kindOf(f.kind)
			if k.instant != (f.leases == 0) || f.leases > longest || !k.instant && f.leases < shortest {
				t.Fatalf("%s lasts %v leases", f.kind, f.leases)
			}
			if f.arg < k.low || f.arg > k.high {
				t.Fatalf("%s:%d is beyond %d to %d", f.kind, f.arg, k.low, k.high)
			}
		}
	}
	for _, k := range kinds {
		if k.weight > 0 && !seen[k.name] {
			t.Errorf("%s never comes", k.name)
		}
	}
	for _, word := range []string{targetHolder, targetLeader, targetOther, "#"} {
		if !seen[word] {
			t.Errorf("the target %s never comes", word)
		}
	}
	if share := 200 * pairs / faults; share < 30 {
		t.Errorf("%d %% of %d faults come in pairs", share, faults)
	}
}

func TestBadLinesAreRefused(t *testing.T) {
	for _, line := range []string{
		"cut holder 1", "+x cut holder 1", "+-1 cut holder 1", "+1", "+1 cut holder", "+1 nonsense holder 1",
		"+1 cut nobody 1", "+1 cut #x 1", "+1 cut #-1 1", "+1 cut holder -1", "+1 cut:x holder 1", "+1 cut holder 1 &",
	} {
		if _, err := parseSchedule(strings.NewReader(line)); err == nil {
			t.Errorf("%q was taken for a schedule", line)
		}
	}
}
