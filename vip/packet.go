package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// arpSocket sends ARP packets on any device and hears, from every device of
// its network namespace, those that are sent in the name of one address. It is
// bound to no device, so that it survives one that goes and comes back.
type arpSocket struct {
	file *os.File
	buf  [256]byte // of receive
}

// packetIgnoreOutgoing is PACKET_IGNORE_OUTGOING of linux/if_packet.h (Linux 4.20).
const packetIgnoreOutgoing = 23

func openARP(addr netip.Addr) (*arpSocket, error) {
	// SOCK_DGRAM leaves the frame's header to the kernel. Protocol 0 hears
	// nothing until the filter is in place and bind names ARP.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EPERM) {
			hint = " (CAP_NET_RAW is needed)"
		}
		return nil, fmt.Errorf("open packet socket: %w%s", err, hint)
	}
	prog := senderFilter(addr)
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("filter packet socket: %w", err)
	}
	// Where the kernel does not know it, our own packets are told by their sender.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, packetIgnoreOutgoing, 1)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	return &arpSocket{file: os.NewFile(uintptr(fd), "arp")}, nil
}

// senderFilter accepts ARP packets whose sender protocol address is addr.
func senderFilter(addr netip.Addr) []unix.SockFilter {
	ip := addr.As4()
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 14},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: binary.BigEndian.Uint32(ip[:])},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// send broadcasts packets on a device. A packet socket does not wait for the wire.
func (s *arpSocket) send(index int, packets ...arpPacket) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("send ARP: %w", err)
	}
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: index, Halen: uint8(len(broadcast))}
	copy(to.Addr[:], broadcast[:])
	var serr error
	// Control, not Write: with a full queue the packet is better lost than late.
	err = raw.Control(func(fd uintptr) {
		var b [arpLen]byte
		for _, p := range packets {
			serr = errors.Join(serr, unix.Sendto(int(fd), p.append(b[:0]), unix.MSG_DONTWAIT, to))
		}
	})
	if err = errors.Join(err, serr); err != nil {
		return fmt.Errorf("send ARP: %w", err)
	}
	return nil
}

// receive waits for a packet in the name of the address, and the device that
// it came in on. It returns os.ErrClosed after close.
func (s *arpSocket) receive() (p arpPacket, index int, err error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return arpPacket{}, 0, err
	}
	var n int
	var from unix.Sockaddr
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		n, from, rerr = unix.Recvfrom(int(fd), s.buf[:], 0)
		return !errors.Is(rerr, unix.EAGAIN)
	})
	if err = errors.Join(err, rerr); err != nil {
		return arpPacket{}, 0, err
	}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		index = ll.Ifindex
	}
	p, err = parseARP(s.buf[:n])
	return p, index, err
}

func (s *arpSocket) close() error { return s.file.Close() }

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
