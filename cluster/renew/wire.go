package renew

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/failoverd/failoverd/cluster/lease"
)

// version is the first byte of every datagram. Another one is not understood.
const version = 1

const (
	// maxDatagram is more than any message takes: the fixed part, a name of 255
	// bytes and the authentication.
	maxDatagram = 512
	maxName     = 255
)

// kind is a message's second byte.
type kind byte

const (
	kindRenew kind = 1 // holder to voter: session, config, nonce, seq, node
	kindOK    kind = 2 // voter to holder: session, nonce, seq, voter
	kindNo    kind = 3 // voter to holder: session, nonce, seq, reason, voter
	kindAsk   kind = 4 // leader to voter: session, nonce, seq, question, node
	kindAge   kind = 5 // voter to leader: session, nonce, seq, question, age, standing, voter
)

// message is any message. Not every field is on the wire for every kind. The
// clock reading s of LEASE.md is not sent: nonce and seq name the request, and
// the holder remembers when it sent it, so that nothing which comes back can
// alter that.
type message struct {
	kind     kind
	session  uint64
	nonce    uint64 // of the one who asks
	seq      uint64 // counted by the one who asks
	config   uint64
	reason   lease.Reason
	question Question
	standing lease.Standing
	age      time.Duration
	name     []byte // of the sender; when decoded, part of the datagram
}

var errMessage = errors.New("malformed message")

// encode appends a message to b, which is of a capacity that makes this free of
// allocations.
func (m *message) encode(b []byte) []byte {
	b = append(b, version, byte(m.kind))
	b = binary.BigEndian.AppendUint64(b, m.session)
	b = binary.BigEndian.AppendUint64(b, m.nonce)
	b = binary.BigEndian.AppendUint64(b, m.seq)
	switch m.kind {
	case kindRenew:
		b = binary.BigEndian.AppendUint64(b, m.config)
	case kindNo:
		b = append(b, byte(m.reason))
	case kindAsk:
		b = append(b, byte(m.question))
	case kindAge:
		b = append(b, byte(m.question), byte(m.standing))
		b = binary.BigEndian.AppendUint64(b, uint64(m.age))
	}
	b = append(b, byte(len(m.name)))
	return append(b, m.name...)
}

// decode reads a message whose authentication has been checked and taken off.
// It keeps m.name as a part of b.
func (m *message) decode(b []byte) error {
	if len(b) < 26 || b[0] != version {
		return errMessage
	}
	*m = message{
		kind:    kind(b[1]),
		session: binary.BigEndian.Uint64(b[2:]),
		nonce:   binary.BigEndian.Uint64(b[10:]),
		seq:     binary.BigEndian.Uint64(b[18:]),
	}
	b = b[26:]
	size := ownSize(m.kind)
	if size < 0 || len(b) < size+1 {
		return errMessage
	}
	switch m.kind {
	case kindRenew:
		m.config = binary.BigEndian.Uint64(b)
	case kindNo:
		m.reason = lease.Reason(b[0])
	case kindAsk:
		m.question = Question(b[0])
	case kindAge:
		m.question, m.standing = Question(b[0]), lease.Standing(b[1])
		m.age = time.Duration(binary.BigEndian.Uint64(b[2:]))
	}
	b = b[size:]
	if int(b[0]) == 0 || int(b[0]) != len(b)-1 {
		return errMessage
	}
	m.name = b[1:]
	return nil
}

// ownSize is the size of what a kind has between the common part and the name, or
// -1 for a kind that is unknown.
func ownSize(k kind) int {
	switch k {
	case kindRenew:
		return 8
	case kindOK:
		return 0
	case kindNo, kindAsk:
		return 1
	case kindAge:
		return 10
	}
	return -1
}
