package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/vip"
	"github.com/failoverd/failoverd/vip/gate"
)

func TestALateDriverIsNoFailure(t *testing.T) {
	for _, err := range []error{guard.ErrNoLease, vip.ErrNotArmed, vip.ErrLapsed, gate.ErrLapsed} {
		got := lapsed(fmt.Errorf("start it: %w", err))
		if !errors.Is(got, cluster.ErrLapsed) || !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
	for _, err := range []error{guard.ErrGuardLost, guard.ErrRefused, vip.ErrNoInterface, context.Canceled} {
		if got := lapsed(err); errors.Is(got, cluster.ErrLapsed) || !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if lapsed(nil) != nil {
		t.Error("nothing wrong became something")
	}
}

// An address that was never armed, and one that is armed with a deadline in the
// past, say that the lease is over.
func TestAnAddressWithoutALeaseSaysSo(t *testing.T) {
	v, err := vip.New(vip.Options{Name: "v", Address: netip.MustParsePrefix("192.0.2.1/24"), Interface: "lo"})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := (address{v}).Start(t.Context(), 1); !errors.Is(err, cluster.ErrLapsed) {
		t.Errorf("start: %v", err)
	}
	if err := (address{v}).Arm(clock.Reading{Boot: 1, Raw: 1}); !errors.Is(err, cluster.ErrLapsed) {
		t.Errorf("arm: %v", err)
	}
}

// A guard that is lost under a start interrupts it: no failure of the service.
func TestALostGuardInterrupts(t *testing.T) {
	err := lapsed(fmt.Errorf("start it: %w", guard.ErrGuardLost))
	if !errors.Is(err, cluster.ErrInterrupted) || !errors.Is(err, guard.ErrGuardLost) {
		t.Errorf("it became %v", err)
	}
	if err := lapsed(guard.ErrRefused); errors.Is(err, cluster.ErrInterrupted) {
		t.Errorf("a refusal became %v", err)
	}
}
