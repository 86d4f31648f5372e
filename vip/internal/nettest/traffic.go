package nettest

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Echo answers UDP datagrams on a port of every address of the host, from the
// address that was asked.
func (h *Host) Echo(port int) {
	h.t.Helper()
	h.Do(func() error {
		pc, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		if err := setPktinfo(pc); err != nil {
			return err
		}
		h.t.Cleanup(func() { pc.Close() })
		go func() {
			buf, oob := make([]byte, 2048), make([]byte, 256)
			for {
				n, on, _, from, err := pc.ReadMsgUDP(buf, oob)
				if err != nil {
					return
				}
				// The control message that came, without its interface, sends
				// the answer from where the question went to.
				for i := unix.CmsgLen(0); i < unix.CmsgLen(4); i++ {
					oob[i] = 0
				}
				_, _, _ = pc.WriteMsgUDP(buf[:n], oob[:on], from)
			}
		}()
		return nil
	})
}

func setPktinfo(pc *net.UDPConn) error {
	raw, err := pc.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}); err != nil {
		return err
	}
	return serr
}

// Client asks an address over UDP, as often as it is told.
type Client struct {
	h  *Host
	pc *net.UDPConn
}

// Dial makes a client on the host for addr:port.
func (h *Host) Dial(addr string, port int) *Client {
	h.t.Helper()
	c := &Client{h: h}
	h.Do(func() error {
		var err error
		c.pc, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.ParseIP(addr), Port: port})
		return err
	})
	h.t.Cleanup(func() { c.pc.Close() })
	return c
}

// Ask sends one datagram and reports whether an answer came in time.
func (c *Client) Ask(timeout time.Duration) bool {
	buf := make([]byte, 16)
	q := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
	end := time.Now().Add(timeout)
	if err := c.pc.SetReadDeadline(end); err != nil {
		return false
	}
	if _, err := c.pc.Write(q); err != nil {
		return false // unreachable, by an ICMP that came meanwhile
	}
	for {
		n, err := c.pc.Read(buf)
		if err != nil {
			return false
		}
		if n == len(q) && string(buf[:n]) == string(q) {
			return true
		}
	}
}

// Answers asks until there is an answer, for five seconds: a fresh bridge port
// or a lost ARP request costs one.
func (c *Client) Answers() bool {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if c.Ask(50 * time.Millisecond) {
			return true
		}
	}
	return false
}

// Answered asks every millisecond until until, and returns when the last
// question that was answered had been sent: at that moment at the earliest the
// address was still open. However busy the machine, it names no later one.
func (c *Client) Answered(until time.Time) (last time.Time) {
	answered := make(chan time.Time, 1)
	if err := c.pc.SetReadDeadline(until.Add(20 * time.Millisecond)); err != nil {
		return last
	}
	go func() {
		var newest int64
		buf := make([]byte, 16)
		for {
			n, err := c.pc.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err == nil && n == 8 { // else an ICMP error that came meanwhile
				newest = max(newest, int64(binary.BigEndian.Uint64(buf)))
			}
		}
		if newest == 0 {
			answered <- time.Time{}
			return
		}
		answered <- time.Unix(0, newest)
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for now := time.Now(); now.Before(until); now = <-tick.C {
		_, _ = c.pc.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
	}
	return <-answered
}

// Ping sends ICMP echo requests and reports whether one was answered in time.
func (h *Host) Ping(addr string, timeout time.Duration) bool {
	h.t.Helper()
	answered := false
	h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(int64(timeout))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		dst := netip.MustParseAddr(addr).As4()
		echo := []byte{8, 0, 0, 0, byte(os.Getpid()), 7, 0, 1}
		sum := uint32(8)<<8 + uint32(echo[4])<<8 + 7 + 1 // RFC 1071
		binary.BigEndian.PutUint16(echo[2:], ^uint16(sum+sum>>16))
		if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: dst}); err != nil {
			return nil // EHOSTUNREACH and the like: no answer
		}
		buf := make([]byte, 1500)
		for end := time.Now().Add(timeout); time.Now().Before(end); {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err == nil && n >= 28 && [4]byte(buf[12:16]) == dst && buf[20] == 0 {
				answered = true
				return nil
			}
		}
		return nil
	})
	return answered
}

// Frame is an ARP packet that a Tap has seen, decoded by RFC 826.
type Frame struct {
	At       time.Time
	Op       uint16
	SHA, THA net.HardwareAddr
	SPA, TPA netip.Addr
	From     net.HardwareAddr // sender of the frame itself
	Outgoing bool
}

// Tap records the ARP packets that pass eth0 of a host.
type Tap struct {
	mu     sync.Mutex
	frames []Frame
}

// Tap starts recording.
func (h *Host) Tap() *Tap {
	h.t.Helper()
	tap := &Tap{}
	h.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ARP)))
		if err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(20 * time.Millisecond))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			unix.Close(fd)
			return err
		}
		stop, done := make(chan struct{}), make(chan struct{})
		h.t.Cleanup(func() { close(stop); <-done })
		go func() {
			defer close(done)
			defer unix.Close(fd)
			tap.record(fd, stop)
		}()
		return nil
	})
	return tap
}

func (tap *Tap) record(fd int, stop <-chan struct{}) {
	buf := make([]byte, 1500)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(fd, buf, 0)
		sll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || n < 28 || !ok {
			continue
		}
		tap.mu.Lock()
		tap.frames = append(tap.frames, Frame{
			At: time.Now(), Op: binary.BigEndian.Uint16(buf[6:]),
			SHA: append(net.HardwareAddr{}, buf[8:14]...), SPA: netip.AddrFrom4([4]byte(buf[14:18])),
			THA: append(net.HardwareAddr{}, buf[18:24]...), TPA: netip.AddrFrom4([4]byte(buf[24:28])),
			From: append(net.HardwareAddr{}, sll.Addr[:6]...), Outgoing: sll.Pkttype == unix.PACKET_OUTGOING,
		})
		tap.mu.Unlock()
	}
}

// Frames returns those recorded so far that match.
func (tap *Tap) Frames(match func(Frame) bool) []Frame {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	var out []Frame
	for _, f := range tap.frames {
		if match(f) {
			out = append(out, f)
		}
	}
	return out
}

// SendARP sends one ARP packet from eth0 as a raw program would, broadcast.
func (h *Host) SendARP(op uint16, sha net.HardwareAddr, spa, tpa string) {
	h.t.Helper()
	h.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		p := []byte{0, 1, 8, 0, 6, 4}
		p = binary.BigEndian.AppendUint16(p, op)
		p = append(p, sha...)
		p = append(p, netip.MustParseAddr(spa).AsSlice()...)
		p = append(p, make([]byte, 6)...)
		p = append(p, netip.MustParseAddr(tpa).AsSlice()...)
		to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: h.Link, Halen: 6,
			Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		// A hook that drops what a packet socket sends says ENOBUFS.
		if err := unix.Sendto(fd, p, 0, to); !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		return nil
	})
}

// ForgetNeighbour drops what the host knows of the MAC behind an address.
func (h *Host) ForgetNeighbour(addr string) {
	h.t.Helper()
	h.Do(func() error {
		err := netlink.NeighDel(&netlink.Neigh{LinkIndex: h.Link, IP: net.ParseIP(addr), Family: netlink.FAMILY_V4})
		if err == unix.ENOENT {
			return nil
		}
		return err
	})
}

// Neighbour returns the MAC that the host believes to be behind an address.
func (h *Host) Neighbour(addr string) net.HardwareAddr {
	h.t.Helper()
	var mac net.HardwareAddr
	h.Do(func() error {
		ns, err := netlink.NeighList(h.Link, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, n := range ns {
			if n.IP.Equal(net.ParseIP(addr)) {
				mac = n.HardwareAddr
			}
		}
		return nil
	})
	return mac
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
