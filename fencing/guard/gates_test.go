package guard

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// bookedGate writes down what is done to it.
type bookedGate struct{ do func(string) }

func (b bookedGate) Shut(as []Address) error { b.do(fmt.Sprint("shut ", len(as))); return nil }
func (b bookedGate) Close() error            { return nil }

// At the deadline the gates are shut and then the addresses deleted, also when
// nothing is supervised that could be killed.
func TestGuardShutsItsGates(t *testing.T) {
	var mu sync.Mutex
	var did []string
	do := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		did = append(did, what)
	}
	g, err := New(Options{
		Dir: t.TempDir(), NoCgroup: true,
		OpenGate: func(string) (Shutter, error) { return bookedGate{do}, nil },
		Delete:   func(as []Address) error { do(fmt.Sprint("delete ", len(as))); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := g.SetGates([]Gate{{Table: "x", Addresses: []Address{{CIDR: "192.0.2.1/32", Interface: "eth0"}}}}); err != nil {
		t.Fatal(err)
	}
	if err := g.Extend(1, now(t).Add(100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deadline's work", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(did) >= 2
	})
	mu.Lock()
	defer mu.Unlock()
	if len(did) != 2 || did[0] != "shut 1" || did[1] != "delete 1" {
		t.Errorf("did %v", did)
	}
	if i := g.Info(); i.Lapses != 1 {
		t.Errorf("%d lapses", i.Lapses)
	}
}
