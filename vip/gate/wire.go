package gate

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The message encoding of nfnetlink and nf_tables (linux/netfilter/nfnetlink.h,
// nf_tables.h): a netlink header, four bytes of nfgenmsg, attributes. Netlink's
// own fields are in host order, everything of nf_tables is big-endian.

const (
	nlHeader  = 16 // struct nlmsghdr
	nfHeader  = 4  // struct nfgenmsg
	attrAlign = 4

	batchGenID = 1 // NFNL_BATCH_GENID, be32: refuse the batch unless this is the ruleset's generation
	genID      = 1 // NFTA_GEN_ID

	// NFTNL_UDATA_RULE_COMMENT: type of the comment that nft(8) shows with a rule.
	udataRuleComment = 0
)

// batch builds netlink messages in a buffer that is used again and again.
type batch struct {
	buf   []byte
	msg   int    // where the current message starts
	seq   uint32 // sequence number of the next message
	first uint32 // of the first message
	steps []step // what each message does
}

// step is what one message of a batch does, so that a refusal can name it.
type step struct {
	text  string
	chain string // of a chain or a rule
	rule  bool
}

// refused is the kernel's refusal of one message, and so of the whole batch.
type refused struct {
	step  step
	errno unix.Errno
}

func (r refused) Error() string {
	if r.step.chain != "" {
		return r.step.text + " " + r.step.chain + ": " + r.errno.Error()
	}
	return r.step.text + ": " + r.errno.Error()
}

func (r refused) Unwrap() error { return r.errno }

func (b *batch) reset(seq uint32) {
	b.buf, b.steps = b.buf[:0], b.steps[:0]
	b.seq, b.first = seq, seq
}

// message starts a message; everything up to the next end belongs to it.
func (b *batch) message(what step, typ, flags uint16, family uint8, resID uint16) {
	b.msg = len(b.buf)
	b.buf = append(b.buf, 0, 0, 0, 0) // length, filled in by end
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, unix.NLM_F_REQUEST|flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, b.seq)
	b.buf = append(b.buf, 0, 0, 0, 0) // port, filled in by the kernel
	b.buf = append(b.buf, family, unix.NFNETLINK_V0)
	b.buf = binary.BigEndian.AppendUint16(b.buf, resID)
	b.steps = append(b.steps, what)
	b.seq++
}

// nft starts a message of the nf_tables subsystem.
func (b *batch) nft(what string, typ, flags uint16, family uint8) {
	b.nftStep(step{text: what}, typ, flags, family)
}

func (b *batch) nftStep(what step, typ, flags uint16, family uint8) {
	b.message(what, unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, family, 0)
}

func (b *batch) end() {
	binary.NativeEndian.PutUint32(b.buf[b.msg:], uint32(len(b.buf)-b.msg))
}

// begin starts a transaction that the kernel refuses with ERESTART unless the
// ruleset's generation is gen. 0 asks for no such check.
func (b *batch) begin(gen uint32) {
	b.message(step{text: "begin"}, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	if gen != 0 {
		b.u32(batchGenID, gen)
	}
	b.end()
}

func (b *batch) commit() {
	b.message(step{text: "commit"}, unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	b.end()
}

func (b *batch) nest(typ uint16) int {
	at := len(b.buf)
	b.buf = append(b.buf, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ|unix.NLA_F_NESTED)
	return at
}

func (b *batch) unnest(at int) {
	binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

func (b *batch) attr(typ uint16, n int) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(4+n))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
}

func (b *batch) pad() {
	for len(b.buf)%attrAlign != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *batch) bytes(typ uint16, v []byte) {
	b.attr(typ, len(v))
	b.buf = append(b.buf, v...)
	b.pad()
}

func (b *batch) text(typ uint16, v string) {
	b.attr(typ, len(v)+1)
	b.buf = append(b.buf, v...)
	b.buf = append(b.buf, 0)
	b.pad()
}

func (b *batch) u32(typ uint16, v uint32) {
	b.attr(typ, 4)
	b.buf = binary.BigEndian.AppendUint32(b.buf, v)
}

func (b *batch) u64(typ uint16, v uint64) {
	b.attr(typ, 8)
	b.buf = binary.BigEndian.AppendUint64(b.buf, v)
}

// attrs calls fn for each attribute in data, with its type freed of flags, and
// stops at the first that is cut off.
func attrs(data []byte, fn func(typ uint16, value []byte)) {
	for len(data) >= 4 {
		n := int(binary.NativeEndian.Uint16(data))
		typ := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if n < 4 || n > len(data) {
			return
		}
		fn(typ, data[4:n])
		n = (n + attrAlign - 1) &^ (attrAlign - 1)
		if n > len(data) {
			return
		}
		data = data[n:]
	}
}

// messages calls fn for each netlink message in data.
func messages(data []byte, fn func(typ, flags uint16, seq uint32, body []byte)) {
	for len(data) >= nlHeader {
		n := int(binary.NativeEndian.Uint32(data))
		if n < nlHeader || n > len(data) {
			return
		}
		fn(binary.NativeEndian.Uint16(data[4:]), binary.NativeEndian.Uint16(data[6:]),
			binary.NativeEndian.Uint32(data[8:]), data[nlHeader:n])
		n = (n + attrAlign - 1) &^ (attrAlign - 1)
		if n > len(data) {
			return
		}
		data = data[n:]
	}
}
