package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// observerName is the host from which the wire is watched. Partitions do not
// cut it off, so that it hears both sides.
const observerName = "observer"

const (
	arpEvery = 2 * time.Millisecond
	// arpAskers is how many sender addresses the observer asks under, in turn.
	// The answer names the one that asked, and so the very question.
	arpAskers = 16
	// arpTogether is how close two answers to one question must be to count as
	// two holders: further apart, the second host may have been handed the
	// address while the question lay in its queue.
	arpTogether = time.Millisecond
)

// wireView asks again and again who has the address (RFC 826) and notes whose
// hardware addresses answer the same question.
type wireView struct {
	lab      *Lab
	vip      netip.Addr
	observer *Host
	mac      net.HardwareAddr
	fd       int
	wake     waker
	done     chan struct{}

	mu       sync.Mutex
	stopped  bool
	names    map[string]string // hardware address to host name
	asked    [arpAskers]question
	answered []Interval // who answered, from when to when, joined
	doubles  []Interval
	alone    time.Duration // when the last question was asked that one host alone answered
	stall    time.Duration // longest delay between two questions beyond the plan
	failed   error
}

// question is one ARP request and who answered it first.
type question struct {
	at     time.Duration
	first  string
	firstT time.Duration
	second bool // another host answered too, however late
}

func newWireView(l *Lab, vip netip.Addr) (*wireView, error) {
	observer := l.Host(observerName)
	if observer == nil {
		var err error
		if observer, err = l.AddHost(observerName); err != nil {
			return nil, err
		}
	}
	w, err := newWaker()
	if err != nil {
		return nil, fmt.Errorf("watch the wire: %w", err)
	}
	v := &wireView{lab: l, vip: vip, observer: observer, mac: observer.mac, wake: w,
		done: make(chan struct{}), names: map[string]string{}}
	if err := observer.In(v.open); err != nil {
		w.close()
		return nil, fmt.Errorf("watch the wire: %w", err)
	}
	go v.run()
	return v, nil
}

func (v *wireView) open() error {
	ifi, err := net.InterfaceByName(Interface)
	if err != nil {
		return err
	}
	protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ARP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(protocol))
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: ifi.Index}); err != nil {
		_ = unix.Close(fd)
		return err
	}
	v.fd = fd
	return nil
}

func (v *wireView) stop() {
	v.mu.Lock()
	v.stopped = true
	v.mu.Unlock()
	v.wake.wake()
	<-v.done
	v.wake.close()
	_ = unix.Close(v.fd)
}

// learn says which host a hardware address belongs to.
func (v *wireView) learn(h *Host) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.names[string(h.mac)] = h.name
}

func (v *wireView) run() {
	defer close(v.done)
	runtime.LockOSThread() // never unlocked, since its priority is changed
	urgent()
	buffer := make([]byte, 256)
	next := v.lab.Now()
	for n := 0; ; {
		v.mu.Lock()
		stopped := v.stopped
		v.mu.Unlock()
		if stopped {
			return
		}
		now := v.lab.Now()
		if now >= next {
			v.ask(n%arpAskers, now)
			n++
			if late := now - next; late > arpEvery {
				v.late(late)
				next = now
			}
			next += arpEvery
		}
		poll([]unix.PollFd{{Fd: int32(v.fd), Events: unix.POLLIN}, {Fd: int32(v.wake.fd), Events: unix.POLLIN}}, next-v.lab.Now())
		for {
			size, _, err := unix.Recvfrom(v.fd, buffer, 0)
			if err != nil {
				break
			}
			v.answer(buffer[:size], v.lab.Now())
		}
	}
}

func (v *wireView) late(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stall = max(v.stall, d)
}

// asker is the n-th sender address: 10.77.0.224 and up.
func asker(n int) [4]byte {
	base := network.Addr().As4()
	base[3] = byte(224 + n)
	return base
}

func (v *wireView) ask(n int, now time.Duration) {
	v.mu.Lock()
	if q := v.asked[n]; q.first != "" && !q.second {
		v.alone = q.at
	}
	v.asked[n] = question{at: now}
	v.mu.Unlock()
	frame := arpRequest(v.mac, asker(n), v.vip.As4())
	if _, err := unix.Write(v.fd, frame); err != nil {
		v.mu.Lock()
		v.failed = fmt.Errorf("ask for the address: %w", err)
		v.mu.Unlock()
	}
}

// arpRequest is the frame that asks everybody who has the target (RFC 826).
func arpRequest(mac net.HardwareAddr, from, target [4]byte) []byte {
	frame := make([]byte, 0, 42)
	frame = append(frame, bytes.Repeat([]byte{0xff}, 6)...)
	frame = append(frame, mac...)
	frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1)
	frame = append(frame, mac...)
	frame = append(frame, from[:]...)
	frame = append(frame, 0, 0, 0, 0, 0, 0)
	return append(frame, target[:]...)
}

// answer takes in one ARP reply.
func (v *wireView) answer(frame []byte, now time.Duration) {
	const headerAndReply = 42
	if len(frame) < headerAndReply || frame[21] != 2 { // operation: reply
		return
	}
	vip := v.vip.As4()
	if !bytes.Equal(frame[28:32], vip[:]) || !bytes.Equal(frame[38:41], network.Addr().AsSlice()[:3]) {
		return
	}
	n := int(frame[41]) - 224
	if n < 0 || n >= arpAskers {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	name := v.names[string(frame[22:28])]
	if name == "" {
		name = net.HardwareAddr(frame[22:28]).String()
	}
	v.noteAnswer(name, now)
	q := &v.asked[n]
	switch {
	case q.first == "":
		q.first, q.firstT = name, now
	case q.first != name:
		q.second = true
		if now-q.firstT <= arpTogether {
			v.noteDouble(q.first, name, q.at, now)
		}
	}
}

// noteAnswer keeps who answered as spans: one for as long as the same host does.
func (v *wireView) noteAnswer(name string, now time.Duration) {
	for i := len(v.answered) - 1; i >= 0 && i >= len(v.answered)-4; i-- {
		if a := &v.answered[i]; a.What == name && now-a.To < 10*arpEvery {
			a.To = now
			return
		}
	}
	v.answered = append(v.answered, Interval{From: now, To: now, What: name})
}

func (v *wireView) noteDouble(one, other string, from, to time.Duration) {
	if other < one {
		one, other = other, one
	}
	what := "ARP answered by " + one + " and " + other
	// Until a question is answered by one alone there are still two.
	n := len(v.doubles)
	if n > 0 && v.doubles[n-1].What == what && v.alone < v.doubles[n-1].To && from-v.doubles[n-1].To < 100*arpEvery {
		v.doubles[n-1].To = to
		return
	}
	v.doubles = append(v.doubles, Interval{From: from, To: to, What: what})
}
