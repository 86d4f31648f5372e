package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/vip/gate"
)

func TestLifetime(t *testing.T) {
	for _, c := range []struct {
		left  time.Duration
		gated bool
		want  int
	}{
		{100 * time.Millisecond, true, 2},
		{600 * time.Millisecond, true, 2},
		{2 * time.Second, true, 3},
		{2001 * time.Millisecond, true, 4},
		{3 * time.Second, false, 2},
		{10 * time.Second, false, 9},
		{1112 * time.Millisecond, false, 1},
	} {
		got, err := lifetimeFor(gate.Now(), c.left, c.gated)
		if err != nil || got.seconds != c.want {
			t.Errorf("%s, gate %v: %d s, %v; want %d", c.left, c.gated, got.seconds, err, c.want)
		}
	}
	if _, err := lifetimeFor(gate.Now(), 1100*time.Millisecond, false); !errors.Is(err, ErrLeaseTooShort) {
		t.Errorf("err = %v", err)
	}
}

func TestLabel(t *testing.T) {
	for _, c := range []struct{ device, owner, want string }{
		{"eth0", "", "eth0:fod"},
		{"eth0", "failoverd", "eth0:fod"},
		{"enp129s0f1n", "", "enp129s0f1n:fod"},
		{"enp129s0f1np", "", "enp129s0f1np"}, // no room: IFNAMSIZ is 16 with its zero
	} {
		if got := label(c.device, c.owner); got != c.want {
			t.Errorf("%s of %q: %q, want %q", c.device, c.owner, got, c.want)
		}
	}
	if a, b := label("eth0", "blue"), label("eth0", "green"); a == b || a == "eth0:fod" {
		t.Errorf("two owners: %q and %q", a, b)
	}
}

// The parsers of kernel events meet whatever comes.
func FuzzEvents(f *testing.F) {
	msg := func(typ uint16, body []byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
		b = binary.NativeEndian.AppendUint16(b, typ)
		return append(append(b, make([]byte, 10)...), body...)
	}
	name := append([]byte{9, 0, unix.IFLA_IFNAME, 0}, "eth0\x00\x00\x00\x00"...)
	f.Add(msg(unix.RTM_NEWLINK, append(make([]byte, unix.SizeofIfInfomsg), name...)))
	f.Add(msg(unix.RTM_DELADDR, append([]byte{unix.AF_INET, 32, 0, 0, 1, 0, 0, 0}, 8, 0, unix.IFA_LOCAL, 0, 192, 0, 2, 100)))
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		v := &VIP{o: Options{Interface: "eth0"}, addr: testAddr, kick: make(chan struct{}, 1),
			links: make(chan linkChange, 1), stop: make(chan struct{})}
		close(v.stop)
		eachMessage(data, v.event)
	})
}

// An operation that the kernel does not finish holds up nobody for longer than
// the bound, and no second one begins beside it.
func TestStuckKernel(t *testing.T) {
	r, err := openRTNL()
	if err != nil {
		t.Fatal(err)
	}
	release, ended := make(chan struct{}), make(chan struct{})
	begin := time.Now()
	err = r.run(context.Background(), func(*netlink.Handle) error {
		<-release
		close(ended)
		return nil
	})
	if !errors.Is(err, ErrStuck) || time.Since(begin) < rtnlTimeout {
		t.Errorf("after %s: %v, want ErrStuck after %s", time.Since(begin), err, rtnlTimeout)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := r.run(short, func(*netlink.Handle) error {
		t.Error("ran beside the one that is stuck")
		return nil
	}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want the caller's deadline", err)
	}
	close(release)
	<-ended
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
