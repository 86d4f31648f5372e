package gate

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// elements encodes set elements as the kernel lists them.
func elements(addr netip.Addr, expiration uint64, timeout bool) []byte {
	var b batch
	el := b.nest(1)
	key := b.nest(unix.NFTA_SET_ELEM_KEY)
	a := addr.As4()
	b.bytes(unix.NFTA_DATA_VALUE, a[:])
	b.unnest(key)
	if timeout {
		b.u64(unix.NFTA_SET_ELEM_EXPIRATION, expiration)
	}
	b.unnest(el)
	return b.buf
}

// What is left of an element is never less than nothing, however much it is: an
// element that somebody else has opened for centuries must not look shut.
func FuzzElement(f *testing.F) {
	f.Add(uint32(0xc0000264), uint64(1500), true, []byte{})
	f.Add(uint32(0xc0000264), uint64(0), false, []byte{4, 0, 1, 0})
	f.Add(uint32(0), uint64(1)<<44, true, []byte{12, 0, 5, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, ip uint32, expiration uint64, timeout bool, junk []byte) {
		var raw [4]byte
		binary.BigEndian.PutUint32(raw[:], ip)
		want := netip.AddrFrom4(raw)
		read := 0
		attrs(elements(want, expiration, timeout), func(_ uint16, el []byte) {
			read++
			addr, left, ok := parseElement(el)
			if !ok || addr != want {
				t.Fatalf("%v was read as %v, %v", want, addr, ok)
			}
			if exact := time.Duration(expiration) * time.Millisecond; timeout && expiration < 1<<43 && left != exact || !timeout && left != forever {
				t.Fatalf("%d ms (%v) was read as %v", expiration, timeout, left)
			}
		})
		if read != 1 {
			t.Fatalf("%d elements were read", read)
		}
		for _, el := range [][]byte{elements(want, expiration, timeout)[4:], junk} {
			if _, left, _ := parseElement(el); left < 0 {
				t.Fatalf("%v is left of an element", left)
			}
		}
	})
}

// FuzzAnswer has the kernel answer nonsense. Whatever it says, a call ends, and
// a transaction has succeeded only if its last message was acknowledged.
func FuzzAnswer(f *testing.F) {
	answer := func(typ, flags uint16, seq uint32, body ...byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(nlHeader+len(body)))
		b = binary.NativeEndian.AppendUint16(b, typ)
		b = binary.NativeEndian.AppendUint16(b, flags)
		b = binary.NativeEndian.AppendUint32(b, seq)
		return append(append(b, 0, 0, 0, 0), body...)
	}
	ok, perm := []byte{0, 0, 0, 0}, binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff))
	f.Add(answer(unix.NLMSG_ERROR, 0, 2, ok...), false)
	f.Add(answer(unix.NLMSG_ERROR, 0, 1, ok...), false)
	f.Add(answer(unix.NLMSG_ERROR, 0, 3, ok...), false)
	f.Add(answer(unix.NLMSG_ERROR, 0, 2, perm...), false)
	f.Add(append(answer(unix.NLMSG_ERROR, 0, 2, ok...), answer(unix.NLMSG_ERROR, 0, 1, perm...)...), false)
	f.Add(answer(unix.NLMSG_ERROR, 0, 2, 0, 0), false)
	f.Add(answer(unix.NLMSG_DONE, 0, 1), true)
	f.Add(answer(unix.NLMSG_ERROR, 0, 1, perm...), true)
	f.Add(append(answer(2573, unix.NLM_F_MULTI, 1, append([]byte{2, 0, 0, 0}, elements(testAddr[0], 1<<60, true)...)...), answer(unix.NLMSG_DONE, unix.NLM_F_MULTI, 1)...), true)
	f.Add(answer(2575, unix.NLM_F_MULTI|unix.NLM_F_DUMP_INTR, 1), true)
	f.Fuzz(func(t *testing.T, data []byte, read bool) {
		if len(data) == 0 || len(data) > 32<<10 {
			return // a netlink datagram is not empty, and no longer than what is read at once
		}
		c := answering(t, data, 2*time.Millisecond)
		if read {
			_, _ = c.readSet("t", unix.NFPROTO_INET, setOpen)
			return
		}
		b := c.start()
		b.begin(0)
		manage(b, "manage", "t", unix.NFPROTO_INET, unix.NFT_MSG_NEWSETELEM, testAddr[:1])
		b.commit()
		last := b.seq - 2
		acked, refused := false, false
		messages(data, func(typ, _ uint16, seq uint32, body []byte) {
			if typ != unix.NLMSG_ERROR || len(body) < 4 {
				return
			}
			zero := binary.NativeEndian.Uint32(body) == 0
			acked = acked || zero && seq == last
			refused = refused || !zero && seq >= b.first && seq < b.seq
		})
		err := c.transact()
		if errors.Is(err, errUnsure) && (acked || refused) {
			// This host is slow: the answer had not come yet.
			c = answering(t, data, 2*time.Second)
			again := c.start()
			*again = *b
			err = c.transact()
		}
		if (err == nil) != (acked && !refused) {
			t.Fatalf("acknowledged %v, refused %v: %v", acked, refused, err)
		}
	})
}

// answering returns a connection whose other end answers each datagram with
// data, and which waits so long for an answer.
func answering(t *testing.T, data []byte, wait time.Duration) *conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	tv := unix.NsecToTimeval(int64(wait))
	if err := unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	kernel := os.NewFile(uintptr(fds[1]), "kernel")
	c := &conn{fd: fds[0], rx: make([]byte, 64<<10)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 64<<10)
		for {
			if n, err := kernel.Read(buf); err != nil || n == 0 {
				return
			}
			if _, err := kernel.Write(data); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
		<-ended
		_ = kernel.Close()
	})
	return c
}
