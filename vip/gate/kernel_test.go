package gate

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/vip/internal/nettest"
)

var testAddr = []netip.Addr{netip.MustParseAddr("192.0.2.100")}

func openInside(t *testing.T) (*Gate, *nettest.NS) {
	t.Helper()
	nettest.NeedNet(t)
	ns := nettest.New(t)
	var g *Gate
	ns.Do(func() (err error) { g, err = Open(""); return err })
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, ns
}

// transactNow sends a re-arming as a process does that was held up after it
// had decided everything: no look at any clock, nor at the generation.
func transactNow(t *testing.T, g *Gate, renew bool) error {
	t.Helper()
	var result error
	if err := g.runFor("test", opTimeout, func() error {
		result = g.transactArm(testAddr, []element{{testAddr[0], time.Second}}, renew)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return result
}

// A process that wakes up after the guard has shut the gate cannot open it any
// more with what it had in its hands.
func TestKernelRefusesAfterShutAll(t *testing.T) {
	for _, renew := range []bool{true, false} {
		g, ns := openInside(t)
		g.watch.close() // so that only this test looks at the generation
		g.watch = &watcher{stop: make(chan struct{})}
		if err := g.Arm(testAddr, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		ns.Do(func() error { return ShutAll("") })
		if err := transactNow(t, g, renew); !errors.Is(err, unix.ERESTART) {
			t.Errorf("renew %v: err = %v, want ERESTART", renew, err)
		}
		g.runFor("read", opTimeout, func() error {
			open, err := g.c.readSet(g.name, unix.NFPROTO_INET, setOpen)
			if err != nil || len(open) != 0 {
				t.Errorf("open: %v, %v", open, err)
			}
			return nil
		})
	}
}

// A renewal that comes after the element has expired is refused by the kernel,
// without a guard and without a clock.
func TestKernelRefusesRenewalAfterExpiry(t *testing.T) {
	g, _ := openInside(t)
	if err := g.Arm(testAddr, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := transactNow(t, g, true); err != nil {
		t.Fatalf("renewal in time: %v", err)
	}
	g.gen = nextGeneration(g.gen)
	if err := g.Arm(testAddr, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "expiry", func() bool { return g.Left(testAddr[0]) == 0 })
	nettest.Eventually(t, "refusal", func() bool {
		err := transactNow(t, g, true)
		if err == nil {
			t.Fatal("renewed after expiry")
		}
		return errors.Is(err, unix.ENOENT)
	})
}

// In the steady state one renewal is one transaction: nothing is read back.
func TestRenewalIsOneTransaction(t *testing.T) {
	g, _ := openInside(t)
	if err := g.Arm(testAddr, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	gen, seq := g.gen, g.c.seq
	for range 10 {
		if err := g.Arm(testAddr, 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if g.gen != gen+10 {
		t.Errorf("generation rose by %d in 10 renewals", g.gen-gen)
	}
	// begin, delete and add in two tables, commit
	if n := g.c.seq - seq; n != 60 {
		t.Errorf("%d messages in 10 renewals", n)
	}
}

func TestGenerationSkipsZero(t *testing.T) {
	if g := nextGeneration(^uint32(0)); g != 1 {
		t.Errorf("after the last comes %d", g)
	}
}

// Suspend: the process's clock has moved on, the kernel's timers have not.
func TestSweepShutsWhatTheKernelStillHoldsOpen(t *testing.T) {
	g, _ := openInside(t)
	if err := g.Arm(testAddr, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	e := g.entries[testAddr[0]]
	e.at.Boot -= time.Hour
	g.entries[testAddr[0]] = e
	g.mu.Unlock()
	nettest.Eventually(t, "the sweep", func() bool {
		empty := false
		if err := g.runFor("read", opTimeout, func() error {
			open, err := g.c.readSet(g.name, unix.NFPROTO_INET, setOpen)
			empty = len(open) == 0
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return empty
	})
}

// The parsers meet whatever comes.
func FuzzParse(f *testing.F) {
	var b batch
	b.reset(1)
	b.begin(7)
	manage(&b, "manage", "t", unix.NFPROTO_INET, unix.NFT_MSG_NEWSETELEM, testAddr)
	addOpen(&b, "t", unix.NFPROTO_INET, []element{{testAddr[0], time.Second}})
	b.commit()
	f.Add(b.buf)
	f.Add(b.buf[:len(b.buf)-3])
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		messages(data, func(_, _ uint16, _ uint32, body []byte) {
			attrs(body, func(_ uint16, v []byte) {
				attrs(v, func(_ uint16, v []byte) { parseElement(v) })
			})
		})
	})
}

// Somebody who merely sits on the name of the lock holds up nobody.
func TestLockOfAStranger(t *testing.T) {
	nettest.NeedNet(t)
	nettest.New(t).Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@failoverd gate " + DefaultName}); err != nil {
			return err
		}
		g, err := Open("")
		if err != nil {
			return err
		}
		return g.Close()
	})
}
