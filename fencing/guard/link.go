package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// link is one connection, with many calls at a time.
type link struct {
	c       *net.UnixConn
	onEvent func(Event)

	wmu sync.Mutex

	mu    sync.Mutex
	next  uint64
	calls map[uint64]chan reply
	err   error
}

// dialLink connects and says hello.
func dialLink(ctx context.Context, path string) (*link, Info, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	c, err := connect(ctx, path)
	if err != nil {
		return nil, Info{}, fmt.Errorf("%w: %w", ErrGuardLost, err)
	}
	l := &link{c: c, calls: map[uint64]chan reply{}, next: 1}
	info, err := l.hello(ctx)
	if err != nil {
		c.Close()
		return nil, Info{}, err
	}
	return l, info, nil
}

func connect(ctx context.Context, path string) (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("connect to the guard: %w", err)
	}
	defer dir.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", shortPath(dir, filepath.Base(path)))
	if err != nil {
		return nil, fmt.Errorf("connect to the guard: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("connect to the guard: %T is no Unix socket", c)
	}
	return u, nil
}

func (l *link) hello(ctx context.Context) (Info, error) {
	boot, err := bootID()
	if err != nil {
		return Info{}, err
	}
	now, err := Now()
	if err != nil {
		return Info{}, err
	}
	body, err := json.Marshal(hello{Min: MinProtocolVersion, Max: ProtocolVersion, BootID: boot, Now: now})
	if err != nil {
		return Info{}, fmt.Errorf("encode hello: %w", err)
	}
	if d, ok := ctx.Deadline(); ok {
		_ = l.c.SetDeadline(d)
	}
	var rep reply
	if err := writeFrame(l.c, request{ID: 1, Op: opHello, Body: body}); err != nil {
		return Info{}, fmt.Errorf("%w: say hello: %w", ErrGuardLost, err)
	}
	if err := readFrame(l.c, &rep); err != nil {
		return Info{}, fmt.Errorf("%w: no answer to hello: %w", ErrGuardLost, err)
	}
	_ = l.c.SetDeadline(time.Time{})
	if rep.Error != nil {
		return Info{}, rep.Error.err()
	}
	var info Info
	return info, decode(rep.Body, &info)
}

// call sends a request and waits for its answer or the end of ctx. The answer
// to a call that was given up is thrown away when it comes.
func (l *link) call(ctx context.Context, op string, body, out any) error {
	r := request{Op: op}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode %s: %w", op, err)
		}
		r.Body = b
	}
	ch := make(chan reply, 1)
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	l.next++
	r.ID = l.next
	l.calls[r.ID] = ch
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.calls, r.ID)
		l.mu.Unlock()
	}()
	if err := l.write(ctx, r); err != nil {
		return err
	}
	select {
	case rep, ok := <-ch:
		if !ok {
			return l.failure()
		}
		if rep.Error != nil {
			return rep.Error.err()
		}
		if out == nil {
			return nil
		}
		return decode(rep.Body, out)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
}

// write sends one frame. A frame that went out in part would spoil the rest,
// so then the connection ends.
func (l *link) write(ctx context.Context, r request) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", r.Op, ctx.Err()) // nothing was written yet
	}
	d, ok := ctx.Deadline()
	if !ok {
		d = time.Now().Add(writeWithin)
	}
	_ = l.c.SetWriteDeadline(d)
	if err := writeFrame(l.c, r); err != nil {
		if errors.Is(err, errFrameTooLong) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		l.c.Close()
		return fmt.Errorf("%w: %w", ErrGuardLost, err)
	}
	return nil
}

// read hands answers to their calls until the connection ends.
func (l *link) read() {
	for {
		var rep reply
		if err := readFrame(l.c, &rep); err != nil {
			l.mu.Lock()
			l.err = fmt.Errorf("%w: %w", ErrGuardLost, err)
			for _, ch := range l.calls {
				close(ch)
			}
			l.calls = map[uint64]chan reply{}
			l.mu.Unlock()
			l.c.Close()
			return
		}
		if rep.Event != nil {
			if l.onEvent != nil {
				l.onEvent(*rep.Event)
			}
			continue
		}
		l.mu.Lock()
		ch := l.calls[rep.ID]
		delete(l.calls, rep.ID)
		l.mu.Unlock()
		if ch != nil {
			ch <- rep
		}
	}
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
