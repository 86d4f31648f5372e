package renew

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/failoverd/failoverd/cluster/lease"
)

func anyMessage(t *rapid.T) message {
	n := rapid.Uint64()
	m := message{
		kind:    kind(rapid.IntRange(1, 5).Draw(t, "kind")),
		session: n.Draw(t, "session"), nonce: n.Draw(t, "nonce"), seq: n.Draw(t, "seq"),
		name: []byte(rapid.StringN(1, 60, maxName).Draw(t, "name")),
	}
	switch m.kind {
	case kindRenew:
		m.config = n.Draw(t, "config")
	case kindNo:
		m.reason = lease.Reason(rapid.Byte().Draw(t, "reason"))
	case kindAsk:
		m.question = Question(rapid.Byte().Draw(t, "question"))
	case kindAge:
		m.question, m.standing = Question(rapid.Byte().Draw(t, "question")), lease.Standing(rapid.Byte().Draw(t, "standing"))
		m.age = time.Duration(rapid.Int64().Draw(t, "age"))
	}
	return m
}

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMessage(t)
		b := m.encode(nil)
		if len(b)+sealSize > maxDatagram {
			t.Fatalf("%d bytes", len(b))
		}
		var got message
		if err := got.decode(b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.name, m.name) {
			t.Fatalf("name %q, want %q", got.name, m.name)
		}
		if !bytes.Equal(got.encode(nil), b) {
			t.Fatalf("%+v, want %+v", got, m)
		}
		// Nothing shorter or longer is taken for a message.
		for n := range b {
			if got.decode(b[:n]) == nil {
				t.Fatalf("%d of %d bytes were taken", n, len(b))
			}
		}
		if got.decode(append(b, 0)) == nil {
			t.Fatal("an additional byte was taken")
		}
	})
}

func TestASealedDatagramCannotBeAltered(t *testing.T) {
	var a, b, other sealer
	a.use([]byte("key"))
	b.use([]byte("key"))
	other.use([]byte("yek"))
	body := []byte("a message")
	sealed := a.seal(bytes.Clone(body))
	if got, ok := b.open(sealed); !ok || !bytes.Equal(got, body) {
		t.Fatalf("open: %q, %v", got, ok)
	}
	if _, ok := other.open(sealed); ok {
		t.Error("opened with another key")
	}
	for i := range sealed {
		for bit := range 8 {
			sealed[i] ^= 1 << bit
			if _, ok := b.open(sealed); ok {
				t.Fatalf("byte %d altered", i)
			}
			sealed[i] ^= 1 << bit
		}
		if _, ok := b.open(sealed[:i]); ok {
			t.Fatalf("cut to %d bytes", i)
		}
	}
	if a.use(nil) {
		t.Error("no key is a key")
	}
	a.use([]byte("yek"))
	if _, ok := a.open(sealed); ok {
		t.Error("the old key still opens")
	}
}

func FuzzDecode(f *testing.F) {
	for _, k := range []kind{kindRenew, kindOK, kindNo, kindAsk, kindAge} {
		m := message{kind: k, session: 1, nonce: 2, seq: 3, name: []byte("a")}
		f.Add(m.encode(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if m.decode(b) == nil && !bytes.Equal(m.encode(nil), b) {
			t.Fatalf("%x is not the encoding of %+v", b, m)
		}
	})
}
