package vip

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
)

var (
	testMAC  = hwAddr{0x02, 0, 0, 0, 0, 1}
	testAddr = netip.MustParseAddr("192.0.2.100")
)

// The frames byte by byte, by RFC 826 and RFC 5227.
func TestARPFrames(t *testing.T) {
	a := announcements(testMAC, testAddr)
	for name, c := range map[string]struct {
		p    arpPacket
		want string
	}{
		"probe":        {probe(testMAC, testAddr), "0001080006040001" + "020000000001" + "00000000" + "000000000000" + "c0000264"},
		"announcement": {a[0], "0001080006040001" + "020000000001" + "c0000264" + "000000000000" + "c0000264"},
		"reply":        {a[1], "0001080006040002" + "020000000001" + "c0000264" + "020000000001" + "c0000264"},
	} {
		got := c.p.append(nil)
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%s: %x, want %s", name, got, c.want)
		}
		back, err := parseARP(got)
		if err != nil || back != c.p {
			t.Errorf("%s: read back as %+v, %v", name, back, err)
		}
	}
}

func TestARPRefused(t *testing.T) {
	good := probe(testMAC, testAddr).append(nil)
	for i := range len(good) {
		if _, err := parseARP(good[:i]); !errors.Is(err, errShortARP) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	for _, i := range []int{0, 1, 2, 3, 4, 5} {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if _, err := parseARP(bad); !errors.Is(err, errForeignARP) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if _, err := parseARP(append(good, make([]byte, 18)...)); err != nil {
		t.Errorf("padded to the least Ethernet frame: %v", err)
	}
}

func FuzzARP(f *testing.F) {
	a := announcements(testMAC, testAddr)
	f.Add(a[0].append(nil))
	f.Add(a[1].append(nil))
	f.Add(probe(testMAC, testAddr).append(nil)[:20])
	f.Add([]byte{0, 1, 8, 0, 6, 4})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseARP(data)
		if err != nil {
			return
		}
		if got := p.append(nil); !bytes.Equal(got, data[:arpLen]) {
			t.Errorf("%x encodes again to %x", data, got)
		}
	})
}
