package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The client is one thread with an epoll descriptor: nothing that a Go program
// does elsewhere delays a request, and a thousand may wait at once.

// flight is a request on its way.
type flight struct {
	fd    int
	place int // in Asking.requests
	sent  time.Duration
	asked bool
	text  []byte
	reply []byte
}

type engine struct {
	asking  *Asking
	epoll   int
	flights map[int]*flight // by descriptor
	queue   []*flight       // in the order they were sent
	buffer  [4096]byte
	names   map[string]string // one string for each node
}

func (a *Asking) run(started chan<- error) error {
	urgent()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	e := &engine{asking: a, epoll: epoll, flights: map[int]*flight{}, names: map[string]string{}}
	defer e.close()
	started <- nil
	return e.loop()
}

func (e *engine) close() {
	for fd, f := range e.flights {
		e.finish(f, Unanswered)
		_ = unix.Close(fd)
	}
	_ = unix.Close(e.epoll)
}

func (e *engine) loop() error {
	a := e.asking
	events := make([]unix.EpollEvent, 128)
	next := a.lab.Now()
	for n := uint64(1); ; {
		a.mu.Lock()
		stopped := a.stopped
		a.mu.Unlock()
		if stopped {
			return nil
		}
		now := a.lab.Now()
		if now-next > a.ask.Every {
			a.late(next, now)
			next = now // what was missed is not made up for in a burst
		}
		if now >= next {
			if err := e.send(n, now); err != nil {
				return err
			}
			n++
			next += a.ask.Every
		}
		e.expire(now)
		poll([]unix.PollFd{{Fd: int32(e.epoll), Events: unix.POLLIN}, {Fd: int32(a.wake.fd), Events: unix.POLLIN}},
			next-a.lab.Now())
		count, err := unix.EpollWait(e.epoll, events, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, event := range events[:max(count, 0)] {
			if f := e.flights[int(event.Fd)]; f != nil {
				e.advance(f, event.Events)
			}
		}
	}
}

func (a *Asking) late(planned, now time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stalls = append(a.stalls, Interval{From: planned, To: now, What: "client late"})
}

// send starts the n-th request.
func (e *engine) send(n uint64, now time.Duration) error {
	a := e.asking
	write := a.ask.WriteEvery > 0 && n%uint64(a.ask.WriteEvery) == 0
	a.mu.Lock()
	place := len(a.requests)
	a.requests = append(a.requests, Request{Number: n, Sent: now, Write: write})
	a.mu.Unlock()

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	f := &flight{fd: fd, place: place, sent: now, text: requestText(a.ask, n, write)}
	e.flights[fd] = f
	e.queue = append(e.queue, f)
	// Closing resets the connection: no port waits a minute for its next use.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: a.ask.Target.Addr().As4(), Port: int(a.ask.Target.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		e.end(f, outcomeOf(err))
		return nil
	}
	err = unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(fd),
	})
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func requestText(ask Ask, n uint64, write bool) []byte {
	method, path := "GET", "/get"
	if write {
		method, path = "POST", "/add"
	}
	text := make([]byte, 0, 128)
	text = append(text, method...)
	text = append(text, ' ')
	text = append(text, path...)
	text = append(text, "?n="...)
	text = strconv.AppendUint(text, n, 10)
	text = append(text, " HTTP/1.1\r\nHost: "...)
	text = append(text, ask.Target.String()...)
	return append(text, "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"...)
}

// expire gives up on those that have waited too long.
func (e *engine) expire(now time.Duration) {
	for len(e.queue) > 0 {
		f := e.queue[0]
		if e.flights[f.fd] == f {
			if now-f.sent < e.asking.ask.Patience {
				return
			}
			e.end(f, Unanswered)
		}
		e.queue = e.queue[1:]
	}
}

// advance does what the connection is ready for.
func (e *engine) advance(f *flight, events uint32) {
	if !f.asked && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if code, err := unix.GetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			e.end(f, outcomeOf(unix.Errno(code)))
			return
		}
		if _, err := unix.Write(f.fd, f.text); err != nil {
			e.end(f, outcomeOf(err))
			return
		}
		f.asked = true
	}
	for f.asked {
		n, err := unix.Read(f.fd, e.buffer[:])
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			e.end(f, outcomeOf(err))
			return
		}
		f.reply = append(f.reply, e.buffer[:n]...)
		body, status, complete := parseReply(f.reply)
		switch {
		case complete:
			e.answer(f, status, body)
			return
		case n == 0:
			e.end(f, Refused)
			return
		}
	}
}

// answerBody is what the service says of itself.
type answerBody struct {
	Node     string `json:"node"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Value    int64  `json:"value"`
}

func (e *engine) answer(f *flight, status int, body []byte) {
	var b answerBody
	if status != 200 {
		e.end(f, Rejected)
		return
	}
	if !e.asking.ask.Plain && (json.Unmarshal(body, &b) != nil || b.Node == "") {
		e.end(f, Rejected)
		return
	}
	name, known := e.names[b.Node]
	if !known {
		name = b.Node
		e.names[name] = name
	}
	e.asking.record(f.place, func(r *Request) {
		r.Node, r.Epoch, r.Sequence, r.Value = name, b.Epoch, b.Sequence, b.Value
	})
	e.end(f, Answered)
}

func (e *engine) end(f *flight, o Outcome) {
	e.finish(f, o)
	delete(e.flights, f.fd)
	_ = unix.Close(f.fd)
}

func (e *engine) finish(f *flight, o Outcome) {
	at := e.asking.lab.Now()
	e.asking.record(f.place, func(r *Request) { r.Outcome, r.Got = o, at })
	f.text, f.reply = nil, nil
}

// parseReply takes apart an HTTP reply with a Content-Length.
func parseReply(b []byte) (body []byte, status int, complete bool) {
	head, body, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found {
		return nil, 0, false
	}
	first, rest, _ := bytes.Cut(head, []byte("\r\n"))
	fields := bytes.Fields(first)
	if len(fields) < 2 {
		return nil, 0, true
	}
	status, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return nil, 0, true
	}
	length := 0
	for line := range bytes.SplitSeq(rest, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return nil, 0, true
			}
		}
	}
	if len(body) < length {
		return nil, status, false
	}
	return body[:length], status, true
}
