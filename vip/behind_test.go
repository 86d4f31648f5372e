package vip_test

import (
	"testing"
	"time"

	"github.com/failoverd/failoverd/vip/internal/nettest"
)

// The gate first: an address whose gate could not be armed has no lease, and is
// not claimed.
func TestAddressIsNotArmedBehindAGateThatIsNot(t *testing.T) {
	nettest.NeedNet(t)
	n := newNode(t, nettest.NewNet(t).Host(), true, nil)
	if err := n.gate.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Arm(10 * time.Second); err == nil {
		t.Error("armed behind a gate that is closed for good")
	}
	if err := n.VIP.Start(ctx, 1); err == nil {
		t.Error("claimed without a gate")
	}
	if n.running(t) {
		t.Error("the address is there")
	}
}
