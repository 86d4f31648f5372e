package gate

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// tableDormant is NFT_TABLE_F_DORMANT: the table is there and does nothing.
const tableDormant = 1

// readTable returns the flags of our table in family, ENOENT when it is missing.
func (c *conn) readTable(name string, family uint8) (flags uint32, err error) {
	b := c.start()
	b.nft("read table", unix.NFT_MSG_GETTABLE, 0, family)
	b.text(unix.NFTA_TABLE_NAME, name)
	b.end()
	err = c.query(func(_ uint16, body []byte) {
		if len(body) < nfHeader {
			return
		}
		attrs(body[nfHeader:], func(typ uint16, v []byte) {
			if typ == unix.NFTA_TABLE_FLAGS && len(v) == 4 {
				flags = binary.BigEndian.Uint32(v)
			}
		})
	})
	return flags, err
}

// readRules returns the handles of the rules of a chain, in their order. A
// handle is never given twice in the life of a table: equal handles are rules
// that nobody has touched, in a chain that nobody has made anew. A chain that
// is missing has none.
func (c *conn) readRules(name string, ch chain) (handles []uint64, err error) {
	err = c.dump("read rules", unix.NFT_MSG_GETRULE, ch.family, func(b *batch) {
		b.text(unix.NFTA_RULE_TABLE, name)
		b.text(unix.NFTA_RULE_CHAIN, ch.name)
		handles = handles[:0]
	}, func(body []byte) {
		attrs(body, func(typ uint16, v []byte) {
			if typ == unix.NFTA_RULE_HANDLE && len(v) == 8 {
				handles = append(handles, binary.BigEndian.Uint64(v))
			}
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return handles, err
}

// forever is the time left of an element that has no timeout.
const forever = time.Duration(1<<63 - 1)

// readSet returns a set's elements that are alive, with the time that the
// kernel still gives them: forever for those without a timeout.
func (c *conn) readSet(name string, family uint8, set string) (map[netip.Addr]time.Duration, error) {
	out := map[netip.Addr]time.Duration{}
	err := c.dump("read set", unix.NFT_MSG_GETSETELEM, family, func(b *batch) {
		b.text(unix.NFTA_SET_ELEM_LIST_TABLE, name)
		b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
		clear(out)
	}, func(body []byte) {
		attrs(body, func(typ uint16, list []byte) {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return
			}
			attrs(list, func(_ uint16, el []byte) {
				if addr, left, ok := parseElement(el); ok {
					out[addr] = left
				}
			})
		})
	})
	return out, err
}

func parseElement(el []byte) (addr netip.Addr, left time.Duration, ok bool) {
	left = forever
	attrs(el, func(typ uint16, v []byte) {
		switch {
		case typ == unix.NFTA_SET_ELEM_KEY:
			attrs(v, func(typ uint16, v []byte) {
				if typ == unix.NFTA_DATA_VALUE && len(v) == 4 {
					addr, ok = netip.AddrFrom4([4]byte(v)), true
				}
			})
		case typ == unix.NFTA_SET_ELEM_EXPIRATION && len(v) == 8:
			// The kernel takes timeouts of up to 584 years; a Duration ends at 292.
			ms := min(binary.BigEndian.Uint64(v), uint64(forever/time.Millisecond))
			left = time.Duration(ms) * time.Millisecond
		}
	})
	return addr, left, ok
}

// dump asks for a list until the kernel gives it without interruption.
func (c *conn) dump(what string, typ uint16, family uint8, ask func(*batch), fn func(body []byte)) error {
	var err error
	for range 5 {
		b := c.start()
		b.nft(what, typ, unix.NLM_F_DUMP, family)
		ask(b)
		b.end()
		err = c.query(func(_ uint16, body []byte) {
			if len(body) >= nfHeader {
				fn(body[nfHeader:])
			}
		})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return err
}
