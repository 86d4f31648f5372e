package gate

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/vip/internal/nettest"
)

// What was shut is shut in the gate's own book too: a repair opens from the book.
func TestRepairOpensNothingThatWasShut(t *testing.T) {
	nettest.NeedNet(t)
	g, _ := openInside(t)
	if err := g.Arm(testAddr, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := g.Shut(testAddr); err != nil {
		t.Fatal(err)
	}
	if left := g.Left(testAddr[0]); left != 0 {
		t.Errorf("%v left of an address that is shut", left)
	}
	if err := g.Repair(); err != nil {
		t.Fatal(err)
	}
	if err := g.runFor("read", opTimeout, func() error {
		open, err := g.c.readSet(g.name, unix.NFPROTO_INET, setOpen)
		if len(open) > 0 {
			t.Errorf("the repair has opened %v", open)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
