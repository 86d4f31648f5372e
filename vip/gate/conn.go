package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// callTimeout bounds one send or receive on the netlink socket. The kernel
// answers a batch before sendmsg returns, so that this is for a kernel in
// trouble only.
const callTimeout = 500 * time.Millisecond

// conn is one lasting netlink socket of the namespace it was opened in. It is
// not safe for concurrent use.
type conn struct {
	fd    int
	seq   uint32
	batch batch
	rx    []byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &conn{fd: fd, rx: make([]byte, 64<<10)}
	tv := unix.NsecToTimeval(int64(callTimeout))
	for _, err := range []error{
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		// An error's answer then holds the header of what failed, not all of it.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
	} {
		if err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("prepare netlink socket: %w", err)
		}
	}
	return c, nil
}

func (c *conn) close() error {
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// start empties the batch and draws its sequence numbers.
func (c *conn) start() *batch {
	c.batch.reset(c.seq + 1)
	return &c.batch
}

func (c *conn) send() error {
	c.seq = c.batch.seq - 1
	for {
		n, err := unix.Write(c.fd, c.batch.buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("send to nftables: %w", err)
		case n != len(c.batch.buf):
			return fmt.Errorf("send to nftables: %w", unix.EMSGSIZE)
		default:
			return nil
		}
	}
}

// recv reads one datagram; with wait unset it returns EAGAIN when there is none.
func (c *conn) recv(wait bool) ([]byte, error) {
	flags := unix.MSG_DONTWAIT
	if wait {
		flags = 0
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.rx, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return c.rx[:n], nil
	}
}

// transact sends the batch, whose last message but one must ask for an
// acknowledgement, and returns the first error that the kernel reports.
// Whatever it returns, the kernel has done all of the batch or nothing; an
// error that is no refused message leaves open which (see errUnsure).
func (c *conn) transact() error {
	c.drain()
	if err := c.send(); err != nil {
		return err
	}
	last := c.batch.seq - 2 // the last message before the commit
	var refusal error
	acked := false
	for wait := true; ; wait = !acked && refusal == nil {
		data, err := c.recv(wait)
		if err != nil {
			if !wait && errors.Is(err, unix.EAGAIN) {
				break
			}
			return fmt.Errorf("%w: read nftables' answer: %w", errUnsure, err)
		}
		messages(data, func(typ, _ uint16, seq uint32, body []byte) {
			if typ != unix.NLMSG_ERROR || len(body) < 4 || seq < c.batch.first || seq >= c.batch.seq {
				return // an answer to an earlier call that was given up
			}
			if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
				if refusal == nil {
					refusal = refused{c.batch.steps[seq-c.batch.first], unix.Errno(errno)}
				}
			} else if seq == last {
				acked = true
			}
		})
	}
	return refusal
}

// errUnsure says that the outcome of a transaction is not known.
var errUnsure = errors.New("outcome unknown")

// drain throws away what an abandoned call has left in the socket.
func (c *conn) drain() {
	for {
		if _, err := c.recv(false); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

// query sends the single message of the batch and calls fn for each message of
// the answer. An interrupted dump is an error (EINTR), to be asked again.
func (c *conn) query(fn func(typ uint16, body []byte)) error {
	c.drain()
	if err := c.send(); err != nil {
		return err
	}
	var failed error
	for done := false; !done; {
		data, err := c.recv(true)
		if err != nil {
			return fmt.Errorf("%s: %w", c.batch.steps[0].text, err)
		}
		messages(data, func(typ, flags uint16, seq uint32, body []byte) {
			switch {
			case seq != c.batch.first || done:
			case typ == unix.NLMSG_DONE:
				done = true
			case typ == unix.NLMSG_ERROR:
				done = true
				if len(body) >= 4 {
					if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
						failed = unix.Errno(errno)
					}
				}
			case flags&unix.NLM_F_DUMP_INTR != 0:
				failed = unix.EINTR
			default:
				fn(typ, body)
				// The answer to a question that is no dump is one message.
				done = flags&unix.NLM_F_MULTI == 0
			}
		})
	}
	if failed != nil {
		return fmt.Errorf("%s: %w", c.batch.steps[0].text, failed)
	}
	return nil
}

// generation asks for the number that every committed change of the
// namespace's ruleset raises by one.
func (c *conn) generation() (uint32, error) {
	b := c.start()
	b.nft("read generation", unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC)
	b.end()
	var gen uint32
	err := c.query(func(_ uint16, body []byte) {
		if len(body) < nfHeader {
			return
		}
		attrs(body[nfHeader:], func(typ uint16, v []byte) {
			if typ == genID && len(v) == 4 {
				gen = binary.BigEndian.Uint32(v)
			}
		})
	})
	if err == nil && gen == 0 {
		err = fmt.Errorf("read generation: %w", unix.EPROTO)
	}
	return gen, err
}

// nextGeneration is what the kernel makes of gen at a commit: it skips 0.
func nextGeneration(gen uint32) uint32 {
	if gen++; gen == 0 {
		gen = 1
	}
	return gen
}
