package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// magic opens the file; its last two bytes are the version of the format.
const magic = "fojournl\x00\x01"

const (
	headSize  = 12      // of a record: length, checksum of the payload, checksum of these two
	maxRecord = 1 << 20 // bytes of payload; a note is a few kilobytes
	sector    = 512     // what a disk writes whole
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one change. Exactly one of the pointers is set.
type record struct {
	Session *Session `json:"session,omitempty"`
	Entry   *Entry   `json:"entry,omitempty"`
	Erase   *erase   `json:"erase,omitempty"`
}

type erase struct {
	Service string `json:"service"`
	Epoch   uint64 `json:"epoch"`
}

// valid reports whether a record read back is one that this version writes.
func (r record) valid() bool {
	n := 0
	if r.Session != nil {
		n++
	}
	if r.Entry != nil {
		n++
		if r.Entry.State != StateActive && r.Entry.State != StateReleasing {
			return false
		}
	}
	if r.Erase != nil {
		n++
	}
	return n == 1
}

// appendRecord encodes a record at the end of b. Its payload ends with a brace,
// so a whole record never ends with a zero byte.
func appendRecord(b []byte, r record) ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if len(payload) > maxRecord {
		return nil, fmt.Errorf("encode record: %d bytes are more than %d: shorten the note", len(payload), maxRecord)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[len(b)-8:], castagnoli))
	return append(b, payload...), nil
}

// decode reads a whole file. A record that a crash has torn off at the end is
// left out: its change had not returned. Everything else that does not fit is
// an error.
func decode(b []byte) ([]record, error) {
	if len(b) < len(magic) || string(b[:len(magic)-2]) != magic[:len(magic)-2] {
		// The first bytes were in place before the file got its name.
		return nil, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	if string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: format %d, this one writes %d", ErrNewer, binary.BigEndian.Uint16(b[len(magic)-2:]), magic[len(magic)-1])
	}
	var out []record
	for at := len(magic); at < len(b); {
		rest := b[at:]
		if len(rest) < headSize {
			return out, nil // torn
		}
		size := int(binary.BigEndian.Uint32(rest))
		if crc32.Checksum(rest[:8], castagnoli) != binary.BigEndian.Uint32(rest[8:]) {
			if torn(b, at, at+headSize) {
				return out, nil
			}
			return nil, fmt.Errorf("%w at byte %d: the head of a record", ErrDamaged, at)
		}
		if size > maxRecord {
			return nil, fmt.Errorf("%w at byte %d: a record of %d bytes", ErrDamaged, at, size)
		}
		if len(rest) < headSize+size {
			return out, nil // torn
		}
		payload := rest[headSize : headSize+size]
		if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(rest[4:]) {
			if len(rest) == headSize+size && torn(b, at, len(b)) {
				return out, nil
			}
			return nil, fmt.Errorf("%w at byte %d: the body of a record", ErrDamaged, at)
		}
		r, err := decodePayload(payload)
		if err != nil {
			return nil, fmt.Errorf("record at byte %d: %w", at, err)
		}
		out = append(out, r)
		at += headSize + size
	}
	return out, nil
}

func decodePayload(payload []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrNewer, err) // its checksum is right, so it was meant
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r, fmt.Errorf("%w: more than one value in a record", ErrNewer)
	}
	if !r.valid() {
		return r, fmt.Errorf("%w: a kind of record that is unknown here", ErrNewer)
	}
	return r, nil
}

// torn reports whether the bytes from a record's start to the file's end look
// like a file that grew before its contents arrived: nothing but zeros from that
// start, or from a sector's edge that lies before the end of what does not fit.
func torn(b []byte, start, end int) bool {
	for edge := start; edge < end; edge = (edge/sector + 1) * sector {
		if zeros(b[edge:]) {
			return true
		}
	}
	return false
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
