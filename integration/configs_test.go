package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// differing are the nodes whose settings differ from those of the host asked,
// as its status says.
func differing(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host) (names []string, err error) {
	t.Helper()
	out, err := f.Ctl(ctx, h, "status", "--local", "-o", "json")
	if out == "" {
		return nil, err
	}
	var s struct {
		Nodes []struct {
			Name    string
			Differs bool `json:"config_differs"`
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return nil, err
	}
	for _, n := range s.Nodes {
		if n.Differs {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// sessionEnded reports whether a history tells of the end of a node's session.
func sessionEnded(history, node string) bool {
	return slices.ContainsFunc(strings.Split(history, "\n"), func(line string) bool {
		return strings.Contains(line, " session-end ") && strings.Contains(line, " "+node+", session ")
	})
}

// TestTimingsThatDiffer gives one node a lease three times as long as the
// others'. Everybody shows it. Nothing depends on its being noticed: a session
// carries its lease, so that the others wait for the long one when it counts,
// which the judge of two holders watches.
func TestTimingsThatDiffer(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	f := r.Failoverd
	holder, _, err := r.Settled(ctx)
	must(t, err)
	h := other(r, holder)
	for _, each := range f.Hosts() {
		if names, err := differing(ctx, t, f, each); err != nil || len(names) > 0 {
			t.Fatalf("%s sees %v differ where nobody does (%v)", each, names, err)
		}
	}
	halt(ctx, t, f, h)
	// A daemon that comes back within its lease goes on with its session, which
	// keeps the lease that it was opened with.
	eventually(ctx, t, "the end of "+h.Name()+"'s session", func() error {
		text, err := f.AnyCtl(ctx, "history")
		if err == nil && !sessionEnded(text, h.Name()) {
			err = fmt.Errorf("it goes on:\n%s", text)
		}
		return err
	})
	edit(t, f.ConfigFile(h), `profile   = "fast"`, `profile   = "default"`)
	must(t, f.Start(h))
	for _, each := range f.Hosts() {
		want := []string{h.Name()}
		if each == h {
			want = nil
			for _, o := range others(r, h) {
				want = append(want, o.Name())
			}
		}
		eventually(ctx, t, "what "+each.Name()+" shows", func() error {
			names, err := differing(ctx, t, f, each)
			if err == nil && !slices.Equal(names, want) {
				err = fmt.Errorf("%v differ, want %v", names, want)
			}
			return err
		})
	}
	if text, err := f.AnyCtl(ctx, "status"); err != nil || !strings.Contains(text, "differ") {
		t.Errorf("status does not say it (%v):\n%s", err, text)
	}

	moveTo(ctx, t, r, h)
	cut := r.Lab.Now()
	must(t, r.Lab.Partition(h)) // it goes on holding as long as its own lease lasts
	answer, err := r.Moved(ctx, h, cut)
	must(t, err)
	if took := answer.Got - cut; took < time.Second {
		t.Errorf("taken over %v after the cut, and the lease is 2s", took)
	}
	must(t, r.Lab.Heal())
	if _, _, err := r.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}
