package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
)

// A guard that dies under a start says nothing against the service: the next
// guard starts it. With a guard that dies each time the service is better off
// on another node, and an operator has to look.
func TestALostGuardIsNoFailureOfTheServiceAtFirst(t *testing.T) {
	now := time.Unix(1, 0)
	woken := make(chan struct{}, 16)
	u := newUnit("pet", &unitHost{
		ctx: t.Context(), builder: refusing{fmt.Errorf("start hooks: %w", ErrInterrupted)}, records: noRecords{},
		left:  func() time.Duration { return time.Second },
		until: func() (clock.Reading, bool) { return clock.Reading{Boot: 2 * time.Hour, Raw: 2 * time.Hour}, true },
		wake:  func() { woken <- struct{}{} }, now: func() time.Time { return now },
	}, testLog("a"))
	for try := 1; try <= maxInterrupted+1; try++ {
		u.activate(1, 1, state.Spec{Name: "pet"}, Origin{Service: "pet", Epoch: 1})
		<-woken
		l := u.local(0, false)
		if l.Phase != decide.PhaseStopped || (l.Failed != "") != (try > maxInterrupted) {
			t.Fatalf("after try %d: %+v", try, l)
		}
		if try <= maxInterrupted && u.begin(decide.PhaseStarting) {
			t.Fatal("tried again at once")
		}
		now = now.Add(2 * retryStart)
	}
}

// An operator who has the failure forgotten gives all tries back.
func TestForgottenFailureGivesAllTriesBack(t *testing.T) {
	u := newUnit("pet", &unitHost{now: time.Now}, testLog("a"))
	u.failed, u.reported, u.interrupted = "lost", 5, maxInterrupted
	if l := u.local(6, false); l.Failed != "" || u.interrupted != 0 {
		t.Errorf("%+v, interrupted %d times", l, u.interrupted)
	}
	if errors.Is(ErrInterrupted, ErrLapsed) {
		t.Error("two things are one")
	}
}
