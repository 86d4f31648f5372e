package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// FuzzOpen opens any file as a journal, and one whose checksums fit but whose
// records are anything. Either it is refused, or what it says is the same after
// every further start, and what is recorded on top of it is kept.
func FuzzOpen(f *testing.F) {
	whole, err := encode([]record{
		{Session: &Session{BootID: "boot1", ID: 7}},
		{Entry: &Entry{BootID: "boot1", Session: 7, Service: "erp", Epoch: 1, State: StateActive, Note: []byte("n")}},
		{Entry: &Entry{BootID: "boot0", Session: 3, Service: "web", Epoch: 2, State: StateReleasing}},
		{Erase: &erase{Service: "erp", Epoch: 9}},
	})
	if err != nil {
		f.Fatal(err)
	}
	other, err := encode([]record{
		{Session: &Session{BootID: "boot0", ID: 7}},
		{Entry: &Entry{BootID: "boot0", Session: 7, Service: "erp", Epoch: 1, State: StateActive}},
		{Entry: &Entry{BootID: "boot1", Session: 7, Service: "web", Epoch: 1, State: StateActive}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(other, []byte{})
	f.Add(whole, []byte{})
	f.Add(whole[:len(whole)-3], []byte(`{"erase":{"service":"erp","epoch":1}}`))
	f.Add([]byte(magic), []byte(`{"entry":{"boot":"boot1","service":"erp","epoch":1,"state":"active"}}`))
	f.Add([]byte(magic), []byte(`{"session":null}`))
	f.Add(append([]byte(magic), make([]byte, 600)...), []byte{})
	f.Fuzz(func(t *testing.T, file, payload []byte) {
		if len(payload) > 0 {
			// Nobody draws a checksum by chance.
			file = binary.BigEndian.AppendUint32(bytes.Clone(file), uint32(len(payload)))
			file = binary.BigEndian.AppendUint32(file, crc32.Checksum(payload, castagnoli))
			file = binary.BigEndian.AppendUint32(file, crc32.Checksum(file[len(file)-8:], castagnoli))
			file = append(file, payload...)
		}
		d := diskWith(file)
		j, err := open(d, "boot1")
		if err != nil {
			if got := d.names[fileName].data; !bytes.Equal(got, file) {
				t.Fatalf("what was refused (%v) was changed: %q", err, got)
			}
			return
		}
		says := dump(j)
		// A whole file that grew before the next record arrived.
		if got, err := decode(append(bytes.Clone(d.names[fileName].data), 0, 0, 0)); err != nil || len(got) != len(j.live()) {
			t.Fatalf("a file that grew by zeros has %d records and not %d: %v", len(got), len(j.live()), err)
		}
		if n := len(file) - 1; len(payload) > 0 && n > len(magic) {
			// Torn within its last record, it says what it said before that.
			torn, err := decode(file[:n])
			before, berr := decode(file[:len(file)-headSize-len(payload)])
			if err != nil || berr != nil || len(torn) != len(before) {
				t.Fatalf("torn: %d records, %v; without its end %d, %v", len(torn), err, len(before), berr)
			}
		}
		for range 2 {
			if j, err = open(d, "boot1"); err != nil || dump(j) != says {
				t.Fatalf("after a start (%v) it says\n%sand before\n%s", err, dump(j), says)
			}
		}
		for _, e := range j.Entries() {
			s, ok := j.Session()
			if j.Mine(e) && (!ok || s.BootID != "boot1" || e.BootID != "boot1" || e.Session != s.ID) {
				t.Fatalf("%+v is taken for this boot's, in session %+v", e, s)
			}
			// Whatever it was, it can be given up, and then is never begun again.
			if err := j.Releasing(e.Service, e.Epoch); err != nil {
				t.Fatalf("%+v cannot be given up: %v", e, err)
			}
			if err := j.Active(e.Service, e.Epoch, 1, nil); err == nil {
				t.Fatalf("%+v is activated again", e)
			}
		}
		says = dump(j)
		if j, err = open(d, "boot1"); err != nil || dump(j) != says {
			t.Fatalf("%v: it says\n%sand not\n%s", err, dump(j), says)
		}
	})
}
