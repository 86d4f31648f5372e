package lab

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// addressMessage is one RTM_NEWADDR or RTM_DELADDR (rtnetlink(7)).
type addressMessage struct {
	address netip.Addr
	label   string // tells the same address on two interfaces apart
	deleted bool
}

// addressRequest is an RTM_GETADDR for every IPv4 address.
func addressRequest() []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETADDR)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[unix.SizeofNlMsghdr] = unix.AF_INET
	return b
}

// parseAddresses gives the messages about IPv4 addresses in what a routing
// netlink socket delivered; everything else is passed over.
func parseAddresses(b []byte) []addressMessage {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil
	}
	var out []addressMessage
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR {
			continue
		}
		if len(m.Data) < unix.SizeofIfAddrmsg || m.Data[0] != unix.AF_INET {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		index := binary.NativeEndian.Uint32(m.Data[4:8])
		found := addressMessage{label: strconv.Itoa(int(index)), deleted: m.Header.Type == unix.RTM_DELADDR}
		for _, a := range attributes {
			if a.Attr.Type == unix.IFA_LOCAL && len(a.Value) == 4 {
				found.address = netip.AddrFrom4([4]byte(a.Value))
			}
		}
		if found.address.IsValid() {
			out = append(out, found)
		}
	}
	return out
}
