package renew

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
)

// sealSize is how much of the HMAC is sent: half, as RFC 2104 (5) has it.
const sealSize = 16

// purpose keeps the authentication of renewals apart from any other use of the
// cluster's key.
const purpose = "failoverd renewals 1"

// sealer authenticates datagrams with HMAC-SHA256 (RFC 2104) under a key derived
// from the cluster's. It is for one goroutine and allocates only when the key changes.
type sealer struct {
	key []byte // of the cluster, a copy
	mac hash.Hash
	sum [sha256.Size]byte
}

// use sets the cluster's key and reports whether there is one.
func (s *sealer) use(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	if s.mac == nil || !bytes.Equal(s.key, key) {
		derived := hmac.New(sha256.New, key)
		derived.Write([]byte(purpose))
		s.key, s.mac = bytes.Clone(key), hmac.New(sha256.New, derived.Sum(nil))
	}
	return true
}

func (s *sealer) compute(b []byte) []byte {
	s.mac.Reset()
	s.mac.Write(b)
	return s.mac.Sum(s.sum[:0])[:sealSize]
}

// seal appends the authentication of all of b to it.
func (s *sealer) seal(b []byte) []byte { return append(b, s.compute(b)...) }

// open returns what was sealed, or false.
func (s *sealer) open(b []byte) ([]byte, bool) {
	n := len(b) - sealSize
	if n <= 0 || subtle.ConstantTimeCompare(b[n:], s.compute(b[:n])) != 1 {
		return nil, false
	}
	return b[:n], true
}
