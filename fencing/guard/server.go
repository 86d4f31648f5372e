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

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
)

const (
	maxConns    = 64
	maxRequests = 64               // at a time on one connection
	helloWithin = 5 * time.Second  // of connecting
	writeWithin = 2 * time.Second  // then a client that does not read is cut off
	stopMargin  = 10 * time.Second // for the proof, beyond a stop's own timeout
)

// server is the guard's end of the socket.
type server struct {
	g  *Guard
	ln *net.UnixListener

	mu    sync.Mutex
	conns map[*serverConn]struct{}
	ended bool
	wg    sync.WaitGroup

	shutdown func() // a client asked for the guard's end
}

// Serve listens on the socket until Close, or until a client asks for the
// guard's end; then it returns nil.
func (g *Guard) Serve() error {
	ln, err := listen(g.opts.Socket)
	if err != nil {
		return err
	}
	end := make(chan struct{})
	var once sync.Once
	s := &server{g: g, ln: ln, conns: map[*serverConn]struct{}{}, shutdown: func() { once.Do(func() { close(end) }) }}
	g.mu.Lock()
	select {
	case <-g.closing:
		g.mu.Unlock()
		ln.Close()
		return nil
	default:
	}
	g.srv = s
	g.mu.Unlock()
	s.wg.Go(s.accept)
	select {
	case <-end:
	case <-g.closing:
	}
	return nil
}

// listen makes the socket under another name first, so that nobody reaches it
// before its mode is set. What is there under the name is dead: we hold the lock.
func listen(path string) (*net.UnixListener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer dir.Close()
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: shortPath(dir, filepath.Base(tmp)), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
}

// shortPath names a file of an open directory in few bytes: a socket's path
// has room for 107.
func shortPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

func (s *server) accept() {
	for {
		c, err := s.ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		if err := checkPeer(c); err != nil {
			s.g.trouble(err.Error())
			c.Close()
			continue
		}
		sc := &serverConn{g: s.g, s: s, c: c, slots: make(chan struct{}, maxRequests)}
		s.mu.Lock()
		if s.ended || len(s.conns) >= maxConns {
			s.mu.Unlock()
			c.Close()
			continue
		}
		s.conns[sc] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() {
			sc.serve()
			s.mu.Lock()
			delete(s.conns, sc)
			s.mu.Unlock()
		})
	}
}

// checkPeer lets in whoever runs as the same user, or root (SO_PEERCRED, unix(7)).
func checkPeer(c *net.UnixConn) error {
	cred, err := peer(c)
	if err != nil {
		return err
	}
	if int(cred.Uid) != os.Geteuid() && cred.Uid != 0 {
		return fmt.Errorf("refused a connection of process %d: it runs as user %d", cred.Pid, cred.Uid)
	}
	return nil
}

func peer(c *net.UnixConn) (*unix.Ucred, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var cerr error
	if err := rc.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, fmt.Errorf("read peer credentials: %w", err)
	}
	if cerr != nil {
		return nil, fmt.Errorf("read peer credentials: %w", cerr)
	}
	return cred, nil
}

// close ends listener and connections. What they began in the units goes on.
func (s *server) close() {
	s.ln.Close()
	s.mu.Lock()
	s.ended = true
	for c := range s.conns {
		c.c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// clients counts connections.
func (s *server) clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// serverConn is one client. What is quick is answered in order on its own
// goroutine; what may take time gets one of its own, so that an Extend never
// waits behind it.
type serverConn struct {
	g     *Guard
	s     *server
	c     *net.UnixConn
	wmu   sync.Mutex
	slots chan struct{}
	wg    sync.WaitGroup
	proto int
}

func (sc *serverConn) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	defer sc.wg.Wait()
	defer cancel()
	defer sc.c.Close()
	_ = sc.c.SetReadDeadline(time.Now().Add(helloWithin))
	var first request
	if err := readFrame(sc.c, &first); err != nil {
		return
	}
	if first.Op != opHello {
		sc.answer(first.ID, nil, fmt.Errorf("%w: a connection begins with hello", ErrRefused))
		return
	}
	info, err := sc.hello(first.Body)
	sc.answer(first.ID, info, err)
	if err != nil {
		return
	}
	_ = sc.c.SetReadDeadline(time.Time{})
	for {
		var r request
		if err := readFrame(sc.c, &r); err != nil {
			return
		}
		sc.handle(ctx, r)
	}
}

func (sc *serverConn) hello(body json.RawMessage) (*Info, error) {
	var h hello
	if err := decode(body, &h); err != nil {
		return nil, err
	}
	now, err := Now()
	if err != nil {
		return nil, err
	}
	sc.proto = min(h.Max, ProtocolVersion)
	if sc.proto < h.Min || sc.proto < MinProtocolVersion {
		return nil, fmt.Errorf("%w: the client speaks versions %d to %d of the protocol, this guard %d to %d; stop its services, then end the guard, and the next one will be of the new version",
			ErrUnsupported, h.Min, h.Max, MinProtocolVersion, ProtocolVersion)
	}
	if h.BootID != sc.g.boot {
		return nil, fmt.Errorf("%w: boot id %s, ours is %s", ErrClocks, h.BootID, sc.g.boot)
	}
	if err := sameClocks(h.Now, now); err != nil {
		return nil, err
	}
	info := sc.g.Info()
	info.Protocol = sc.proto
	return &info, nil
}

// handle answers the quick itself and sends the rest off.
func (sc *serverConn) handle(ctx context.Context, r request) {
	g := sc.g
	switch r.Op {
	case opExtend:
		var b extendBody
		err := decode(r.Body, &b)
		if err == nil {
			err = g.Extend(b.Session, b.Deadline)
		}
		failpoint.Here("guard.extend.reply")
		sc.answer(r.ID, nil, err)
	case opPing:
		sc.answer(r.ID, nil, nil)
	case opList:
		sc.answer(r.ID, g.List(), nil)
	case opGates:
		var b gatesBody
		err := decode(r.Body, &b)
		if err == nil {
			err = g.SetGates(b.Gates)
		}
		sc.answer(r.ID, nil, err)
	case opRelease:
		sc.answer(r.ID, nil, g.Release())
	case opOutput:
		var b nameBody
		err := decode(r.Body, &b)
		var out []byte
		if err == nil {
			out, err = g.Output(b.Name)
		}
		sc.answer(r.ID, outputReply{out}, err)
	case opShutdown:
		err := sc.mayShutdown()
		sc.answer(r.ID, nil, err)
		if err == nil {
			sc.s.shutdown()
		}
	case opStart, opStop, opSignal, opRun, opWatch:
		select {
		case sc.slots <- struct{}{}:
		default:
			sc.answer(r.ID, nil, fmt.Errorf("%w: more than %d requests at a time", ErrRefused, maxRequests))
			return
		}
		sc.wg.Go(func() {
			defer func() { <-sc.slots }()
			sc.slow(ctx, r)
		})
	default:
		sc.answer(r.ID, nil, fmt.Errorf("%w: %q", ErrUnsupported, r.Op))
	}
}

func (sc *serverConn) mayShutdown() error {
	for _, r := range sc.g.List() {
		if !r.State.Gone() {
			return fmt.Errorf("%w: %s is %s; stop it first", ErrConflict, r.Name, r.State)
		}
	}
	return nil
}

// slow handles what may take time. ctx ends with the connection; a start, a
// stop or a hook goes on all the same, and the next client finds it by List.
func (sc *serverConn) slow(ctx context.Context, r request) {
	g := sc.g
	switch r.Op {
	case opStart:
		var s Spec
		err := decode(r.Body, &s)
		var rep startReply
		if err == nil {
			wctx, cancel := context.WithTimeout(ctx, 2*setupTimeout)
			rep.Unit, rep.Adopted, err = g.Start(wctx, s)
			cancel()
		}
		failpoint.Here("guard.start.reply")
		sc.answer(r.ID, rep, err)
	case opStop:
		var b nameBody
		err := decode(r.Body, &b)
		if err == nil {
			wctx, cancel := context.WithTimeout(ctx, g.stopBound(b))
			err = g.Stop(wctx, b.Name, b.Timeout)
			cancel()
		}
		failpoint.Here("guard.stop.reply")
		sc.answer(r.ID, nil, err)
	case opSignal:
		var b nameBody
		err := decode(r.Body, &b)
		if err == nil {
			err = g.Signal(b.Name, b.Signal)
		}
		sc.answer(r.ID, nil, err)
	case opRun:
		var h Hook
		err := decode(r.Body, &h)
		var res HookResult
		if err == nil {
			res, err = g.Run(ctx, h)
		}
		failpoint.Here("guard.run.reply")
		sc.answer(r.ID, res, err)
	case opWatch:
		sc.watch(ctx, r)
	}
}

func (g *Guard) stopBound(b nameBody) time.Duration {
	bound := b.Timeout
	if bound <= 0 {
		bound = DefaultStopTimeout
		g.mu.Lock()
		if u := g.units[b.Name]; u != nil {
			bound = u.spec.StopTimeout
		}
		g.mu.Unlock()
	}
	return bound + stopMargin
}

// watch sends events until the connection ends.
func (sc *serverConn) watch(ctx context.Context, r request) {
	var b watchBody
	if err := decode(r.Body, &b); err != nil {
		sc.answer(r.ID, nil, err)
		return
	}
	sub := sc.g.events.subscribe(b.Since, b.Output)
	defer sc.g.events.unsubscribe(sub)
	sc.answer(r.ID, nil, nil)
	for {
		select {
		case e := <-sub.ch:
			sc.send(reply{Event: &e})
		case <-ctx.Done():
			return
		}
	}
}

func (sc *serverConn) answer(id uint64, body any, err error) {
	rep := reply{ID: id, Error: toWire(err)}
	if err == nil && body != nil {
		b, merr := json.Marshal(body)
		if merr != nil {
			rep.Error = toWire(merr)
		}
		rep.Body = b
	}
	sc.send(rep)
}

// send writes one frame. A client that does not read is cut off: it would hold
// up the answers behind.
func (sc *serverConn) send(rep reply) {
	sc.wmu.Lock()
	defer sc.wmu.Unlock()
	_ = sc.c.SetWriteDeadline(time.Now().Add(writeWithin))
	if err := writeFrame(sc.c, rep); err != nil {
		sc.c.Close()
	}
}

func decode(body json.RawMessage, v any) error {
	if len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %v", ErrRefused, err)
	}
	return nil
}
