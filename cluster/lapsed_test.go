package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
)

// refusing is a resource that cannot be started, and its own builder.
type refusing struct{ err error }

func (r refusing) Build(state.Spec, Origin) ([]Resource, error) { return []Resource{r}, nil }
func (r refusing) Able(state.Spec) error                        { return nil }
func (r refusing) Name() string                                 { return "r" }
func (r refusing) Start(context.Context, uint64) error          { return r.err }
func (r refusing) Stop(context.Context) error                   { return nil }
func (r refusing) Running(context.Context) (bool, error)        { return false, nil }

type noRecords struct{}

func (noRecords) Active(string, uint64, uint64, []byte) error { return nil }
func (noRecords) Releasing(string, uint64) error              { return nil }

// A start that came too late for a lease that has been renewed since says
// nothing against the service: the guard's deadline and the gate's had passed,
// as after a freeze, and go on with the next renewal. Taken for a failure it
// would keep the service from that node until an operator has looked.
func TestALapseIsNoFailureThoughTheLeaseIsBack(t *testing.T) {
	for what, c := range map[string]struct {
		err    error
		failed bool
	}{
		"lapsed": {fmt.Errorf("start pet: %w", ErrLapsed), false},
		"broken": {errors.New("no such program"), true},
	} {
		t.Run(what, func(t *testing.T) {
			now := time.Unix(1, 0)
			u := newUnit("pet", &unitHost{
				ctx: t.Context(), builder: refusing{c.err}, records: noRecords{},
				left:  func() time.Duration { return time.Second },
				until: func() (clock.Reading, bool) { return clock.Reading{Boot: 2 * time.Hour, Raw: 2 * time.Hour}, true },
				wake:  func() {}, now: func() time.Time { return now },
			}, testLog("a"))
			check := func(how string) {
				t.Helper()
				l := u.local(0, false)
				if l.Phase != decide.PhaseStopped || (l.Failed != "") != c.failed {
					t.Errorf("%s: %+v, want a failure: %v", how, l, c.failed)
				}
			}
			u.activate(1, 1, state.Spec{Name: "pet"}, Origin{Service: "pet", Epoch: 1})
			u.wg.Wait()
			check("a start")
			if !c.failed && u.begin(decide.PhaseStarting) {
				t.Fatal("tried again at once")
			}
			now = now.Add(2 * retryStart)
			u.fail(t.Context(), u.check(t.Context(), refusing{c.err}, 1, map[string]int{}))
			check("a restart in place")
		})
	}
}
