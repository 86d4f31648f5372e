package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// script is a life of a journal, with epochs after base; it stops at the first
// error. after is told of each change that returned.
func script(j *Journal, base uint64, after func()) error {
	steps := []func() error{
		func() error { return j.SetSession(session(base + 7)) },
		func() error {
			return j.Active("erp", base+3, 40, []byte("vip and a process, "+strings.Repeat("n", 600)))
		},
		func() error { return j.Active("web", base+5, 41, nil) },
		func() error { return j.Releasing("erp", base+3) },
		func() error { return j.Erase("erp", base+3) },
		func() error { return j.SetSession(session(base + 8)) },
		func() error { return j.Releasing("web", base+5) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		after()
	}
	return nil
}

// history returns the bytes of a journal after the script, and for each length
// of the file what it says from there on.
func history(t *testing.T) (file []byte, says map[int]string) {
	d := newMemDisk()
	j := mustOpen(t, d, "boot1")
	note := func() { says[len(d.names[fileName].data)] = dump(j) }
	says = map[int]string{}
	note()
	must(t, script(j, 0, note))
	return d.names[fileName].data, says
}

func TestCutAtEveryByte(t *testing.T) {
	file, says := history(t)
	whole := ""
	for n := 0; n <= len(file); n++ {
		j, err := open(diskWith(file[:n]), "boot1")
		if n < len(magic) {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("cut at %d, within the file's first bytes: %v; want an error, never an empty journal", n, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if s, ok := says[n]; ok {
			whole = s
		}
		if got := dump(j); got != whole {
			t.Fatalf("cut at %d: says\n%swant\n%s", n, got, whole)
		}
	}
	if n := len(says); n != 8 {
		t.Errorf("%d lengths, want 8", n)
	}
}

// A file that grew before its contents arrived reads as zeros from some sector on.
func TestTornIntoZeros(t *testing.T) {
	file, says := history(t)
	start, before := len(magic), says[len(magic)]
	for n := len(magic) + 1; n <= len(file); n++ {
		s, ok := says[n]
		if !ok {
			continue
		}
		for edge := start; edge < n; edge = (edge/sector + 1) * sector {
			b := append([]byte(nil), file[:n]...)
			clear(b[edge:])
			j, err := open(diskWith(b), "boot1")
			if err != nil {
				t.Fatalf("record %d to %d, zeros from %d: %v", start, n, edge, err)
			}
			if got := dump(j); got != before {
				t.Fatalf("record %d to %d, zeros from %d: says\n%swant\n%s", start, n, edge, got, before)
			}
		}
		start, before = n, s
	}
}

func TestFlipAtEveryByte(t *testing.T) {
	file, _ := history(t)
	for at := range file {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			b := append([]byte(nil), file...)
			b[at] ^= mask
			_, err := open(diskWith(b), "boot1")
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Fatalf("byte %d flipped by %#x: %v; want a refusal", at, mask, err)
			}
			if !strings.Contains(err.Error(), "/mem/journal") {
				t.Fatalf("byte %d: error %q does not name the file", at, err)
			}
			if errors.Is(err, ErrNewer) && at >= len(magic) {
				t.Fatalf("byte %d: damage taken for a newer version: %v", at, err)
			}
		}
	}
}

func TestDamageBeforeATornRecordIsNoTear(t *testing.T) {
	file, _ := history(t)
	b := append([]byte(nil), file...)
	b[len(magic)] ^= 1                       // the first record's head
	b = append(b, make([]byte, 3*sector)...) // and an unwritten tail
	if _, err := open(diskWith(b), "boot1"); !errors.Is(err, ErrDamaged) {
		t.Errorf("head: %v", err)
	}
	b[len(magic)] ^= 1
	b[len(magic)+headSize] ^= 1 // its body
	if _, err := open(diskWith(b), "boot1"); !errors.Is(err, ErrDamaged) {
		t.Errorf("body: %v", err)
	}
}

func TestNewerFormatsAreRefused(t *testing.T) {
	for _, payload := range []string{
		`{"lease":{"id":1}}`, `{}`, `{"erase":{"service":"a","epoch":1},"entry":{"service":"a","epoch":1,"state":"active"}}`,
		`{"entry":{"service":"a","epoch":1,"state":"paused"}}`, `{"erase":{"service":"a","epoch":1}}{}`,
	} {
		b := []byte(magic)
		b = appendRaw(b, payload)
		if _, err := open(diskWith(b), "boot1"); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", payload, err)
		}
	}
	b := []byte(magic)
	b[len(b)-1] = 2
	if _, err := open(diskWith(b), "boot1"); !errors.Is(err, ErrNewer) {
		t.Errorf("format 2: %v", err)
	}
}

// The power fails at every operation on the disk; what was acknowledged is there
// afterwards, and besides it at most the change that was under way.
func TestPowerLossAtEveryStep(t *testing.T) {
	file, _ := history(t)
	for _, start := range []struct {
		name string
		disk func() *memDisk
		grow int64 // from which size the file is rewritten
	}{
		{"first start", newMemDisk, growTo},
		{"restart", func() *memDisk { return diskWith(file) }, growTo},
		{"rewriting", newMemDisk, 100},
	} {
		name := start.name
		// The same life without a fault: what the journal says after each change.
		d := start.disk()
		j := mustOpen(t, d, "boot1")
		j.file.grow = start.grow
		said := []string{dump(j)}
		must(t, script(j, 100, func() { said = append(said, dump(j)) }))
		total := d.ops
		for k := 1; k <= total; k++ {
			for _, partial := range []bool{false, true} {
				d := start.disk()
				d.failAt, d.crash, d.partial = k, true, partial
				acked := 0
				j, err := open(d, "boot1")
				if err == nil {
					j.file.grow = start.grow
					err = script(j, 100, func() { acked++ })
				}
				if !errors.Is(err, errCrash) {
					t.Fatalf("%s: %v at operation %d", name, err, k)
				}
				for i, s := range d.survivors() {
					j, err := open(s, "boot1")
					if err != nil {
						t.Fatalf("%s, operation %d (%s), survivor %d: %v", name, k, d.log[k-1], i, err)
					}
					if got := dump(j); got != said[acked] && got != said[acked+1] {
						t.Fatalf("%s, operation %d (%s), survivor %d says\n%swant\n%sor\n%s", name, k, d.log[k-1], i, got, said[acked], said[acked+1])
					}
				}
			}
		}
		if total < 15 {
			t.Errorf("%s: only %d operations", name, total)
		}
		if again := strings.Count(strings.Join(d.log, " "), "rename") > 1; again != (start.grow < growTo) {
			t.Errorf("%s: operations %v", name, d.log)
		}
	}
}

// A failed sync is never retried as if it were clean.
func TestAfterAFailedSyncEverythingFails(t *testing.T) {
	for _, op := range []string{"sync", "write"} {
		d := newMemDisk()
		j := mustOpen(t, d, "boot1")
		must(t, j.SetSession(session(7)), j.Active("erp", 1, 1, nil))
		before := dump(j)
		d.failAt = d.ops + 2 // the sync of the next record
		if op == "write" {
			d.failAt = d.ops + 1
		}
		err := j.Releasing("erp", 1)
		if !errors.Is(err, ErrFailed) || !errors.Is(err, errFaulty) {
			t.Fatalf("failed %s: %v, want both sentinels", op, err)
		}
		if got := dump(j); got != before {
			t.Errorf("what was not synced is shown:\n%s", got)
		}
		ops := d.ops
		for i, err := range []error{
			j.Releasing("erp", 1), j.SetSession(session(7)), j.SetSession(session(9)), j.Active("erp", 1, 1, nil),
			j.Active("new", 1, 1, nil), j.Erase("erp", 1), j.Erase("none", 1),
		} {
			if !errors.Is(err, ErrFailed) {
				t.Errorf("call %d after a failed %s: %v", i, op, err)
			}
		}
		if d.ops != ops {
			t.Errorf("the disk was used %d times after a failed %s", d.ops-ops, op)
		}
	}
}

// Opening writes the file anew, so that what is relied upon was synced by this
// process; each failure on the way is an error and leaves the old file.
func TestOpenSyncs(t *testing.T) {
	file, _ := history(t)
	d := diskWith(file)
	want := dump(mustOpen(t, d, "boot1"))
	ops := d.ops
	if got := strings.Join(d.log, " "); got != "create write sync rename syncdir" {
		t.Errorf("operations %q", got)
	}
	for k := 1; k <= ops; k++ {
		d := diskWith(file)
		d.failAt = k
		if _, err := open(d, "boot1"); !errors.Is(err, errFaulty) {
			t.Fatalf("operation %d: %v", k, err)
		}
		if got := dump(mustOpen(t, d, "boot1")); got != want {
			t.Errorf("operation %d failed, then:\n%s", k, got)
		}
	}
}

func TestAFullDiskPasses(t *testing.T) {
	for _, errno := range []error{unix.ENOSPC, unix.EROFS, unix.EDQUOT} {
		for _, partial := range []bool{false, true} {
			d := newMemDisk()
			j := mustOpen(t, d, "boot1")
			must(t, j.SetSession(session(7)))
			d.failAt, d.err, d.partial = d.ops+1, fmt.Errorf("write: %w", errno), partial
			if err := j.Active("erp", 1, 1, nil); !errors.Is(err, errno) || errors.Is(err, ErrFailed) {
				t.Fatalf("full disk: %v", err)
			}
			if len(j.Entries()) != 0 {
				t.Error("an entry that was not written is shown")
			}
			must(t, j.Active("erp", 2, 1, nil)) // there is room again
			want := dump(j)
			for _, s := range d.survivors() {
				if got := dump(mustOpen(t, s, "boot1")); got != want {
					t.Errorf("after a full disk (partial %v): %s", partial, got)
				}
			}
		}
	}
	// The torn bytes cannot be removed: nothing may follow them.
	d := newMemDisk()
	j := mustOpen(t, d, "boot1")
	must(t, j.SetSession(session(7)))
	d.failAt, d.err, d.partial, d.crash = d.ops+1, nil, true, false
	f := &noTruncate{j.file.f}
	j.file.f = f
	d.err = unix.ENOSPC
	if err := j.Active("erp", 1, 1, nil); !errors.Is(err, ErrFailed) {
		t.Errorf("torn bytes left in place: %v", err)
	}
}

type noTruncate struct{ diskFile }

func (noTruncate) Truncate(int64) error { return errFaulty }

func FuzzDecode(f *testing.F) {
	b, err := encode([]record{
		{Session: &Session{BootID: "b", ID: 1}},
		{Entry: &Entry{Service: "erp", Epoch: 1, State: StateActive}},
		{Erase: &erase{Service: "erp", Epoch: 1}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(records)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}

// appendRaw frames a payload that this version would not write.
func appendRaw(b []byte, payload string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum([]byte(payload), castagnoli))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[len(b)-8:], castagnoli))
	return append(b, payload...)
}
