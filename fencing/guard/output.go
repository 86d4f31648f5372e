package guard

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// keptOutput is how much of a unit's output status can show.
const keptOutput = 64 << 10

// queuedOutput bounds what waits for the disk; what exceeds it is counted and dropped.
const queuedOutput = 512 << 10

// tail keeps the last bytes of a stream.
type tail struct {
	max   int
	buf   []byte
	total uint64
}

func (t *tail) write(p []byte) {
	t.total += uint64(len(p))
	if len(p) >= t.max {
		t.buf = append(t.buf[:0], p[len(p)-t.max:]...)
		return
	}
	// Twice the size before it is cut: a copy for every max bytes, not for every write.
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.max {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.max:]...)
	}
}

func (t *tail) bytes() []byte {
	b := t.buf
	if len(b) > t.max {
		b = b[len(b)-t.max:]
	}
	return append([]byte(nil), b...)
}

func (t *tail) cut() uint64 { return t.total - uint64(min(len(t.buf), t.max)) }

// outputLog is where a unit's output goes: a tail in memory and a file that is
// rotated once. The file is written by a goroutine of its own behind a bounded
// queue, so that a disk that hangs never blocks the service.
type outputLog struct {
	unit   string
	path   string
	max    int64
	events *eventLog

	mu      sync.Mutex
	tail    tail
	queue   []byte
	dropped uint64
	closed  bool
	wake    chan struct{}
	done    chan struct{}
	shown   time.Time // last output event
}

// openOutput starts the writer. The path's directory must exist.
func openOutput(unit, path string, max int64, events *eventLog) *outputLog {
	if max <= 0 {
		max = DefaultLogBytes
	}
	o := &outputLog{
		unit: unit, path: path, max: max, events: events,
		tail: tail{max: keptOutput}, wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go o.write()
	return o
}

// Write never blocks and never fails.
func (o *outputLog) Write(p []byte) (int, error) {
	o.mu.Lock()
	o.tail.write(p)
	room := queuedOutput - len(o.queue)
	n := max(min(room, len(p)), 0)
	o.queue = append(o.queue, p[:n]...)
	o.dropped += uint64(len(p) - n)
	var show []byte
	if now := time.Now(); o.events != nil && now.Sub(o.shown) > 100*time.Millisecond {
		o.shown = now
		show = append(show, p[max(0, len(p)-4096):]...)
	}
	o.mu.Unlock()
	if show != nil {
		o.events.add(Event{Kind: EventOutput, Unit: o.unit, Output: show})
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *outputLog) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.bytes()
}

func (o *outputLog) droppedBytes() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

// write empties the queue into the file until close.
func (o *outputLog) write() {
	defer close(o.done)
	var f *os.File
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	var size int64
	var spare []byte
	for range o.wake {
		for {
			o.mu.Lock()
			chunk, closed := o.queue, o.closed
			o.queue = spare[:0]
			o.mu.Unlock()
			spare = chunk
			if len(chunk) == 0 {
				if closed {
					return
				}
				break
			}
			if f == nil || size+int64(len(chunk)) > o.max {
				f, size = o.rotate(f, size)
			}
			if f == nil {
				o.drop(len(chunk))
				break // try again with the next output
			}
			n, err := f.Write(chunk)
			size += int64(n)
			if err != nil {
				o.drop(len(chunk) - n)
			}
		}
	}
}

func (o *outputLog) drop(n int) {
	o.mu.Lock()
	o.dropped += uint64(n)
	o.mu.Unlock()
}

// rotate opens the file, after moving a full one aside.
func (o *outputLog) rotate(f *os.File, size int64) (*os.File, int64) {
	if f != nil {
		f.Close()
	}
	if f != nil || fileSize(o.path) >= o.max {
		if err := os.Rename(o.path, o.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			// It cannot be moved: begin anew rather than grow without bound.
			if err := os.Truncate(o.path, 0); err != nil {
				return nil, 0
			}
		}
	}
	n, err := os.OpenFile(o.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, 0
	}
	return n, fileSize(o.path)
}

func fileSize(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// close writes what is queued, and waits at most a second for a slow disk.
func (o *outputLog) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	select {
	case <-o.done:
	case <-time.After(time.Second):
	}
}

// pump reads a pipe until its last writer is gone, and hands on what comes.
type pump struct {
	f    *os.File
	mu   sync.Mutex // held from a read to the end of its delivery
	sink func([]byte)
	done chan struct{}
}

// newPump makes a pipe and reads it. The caller closes the returned write end
// when the child has it.
func newPump(sink func([]byte)) (*pump, *os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make an output pipe: %w", err)
	}
	// Only our end: the flag belongs to the open file, and programs expect a blocking one.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("make an output pipe: %w", err)
	}
	p := &pump{f: os.NewFile(uintptr(fds[0]), "output"), sink: sink, done: make(chan struct{})}
	go p.run()
	return p, os.NewFile(uintptr(fds[1]), "output"), nil
}

func (p *pump) run() {
	defer close(p.done)
	defer p.f.Close()
	rc, err := p.f.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for {
		var n int
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			for n, rerr = unix.Read(int(fd), buf); errors.Is(rerr, unix.EINTR); {
				n, rerr = unix.Read(int(fd), buf)
			}
			if errors.Is(rerr, unix.EAGAIN) {
				return false
			}
			if n > 0 {
				p.sink(buf[:n])
			}
			return true
		})
		if err != nil || rerr != nil || n <= 0 {
			return
		}
	}
}

// drain waits, at most d, until everything written so far was handed on.
func (p *pump) drain(d time.Duration) {
	for deadline := time.Now().Add(d); time.Now().Before(deadline); {
		select {
		case <-p.done:
			return
		case <-time.After(500 * time.Microsecond):
		}
		if p.idle() {
			return
		}
	}
}

func (p *pump) idle() bool {
	rc, err := p.f.SyscallConn()
	if err != nil {
		return true
	}
	left := 0
	cerr := rc.Control(func(fd uintptr) {
		p.mu.Lock()
		defer p.mu.Unlock()
		left, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	})
	return cerr != nil || err != nil || left == 0
}

// close ends the reading, also while writers are left.
func (p *pump) close() {
	p.f.Close()
	<-p.done
}

var _ io.Writer = (*outputLog)(nil)
