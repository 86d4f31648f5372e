package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func session(id uint64) Session {
	return Session{
		ID: id, TTL: 2 * time.Second, Kappa: 50 * time.Millisecond, Key: []byte{1, 2, 3}, Incarnation: 9,
		Voters: []VoterAddr{{"a", "192.0.2.1:7102"}, {"b", "192.0.2.2:7102"}},
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsRecordedIsReadBack(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, "boot1")
	must(t, err)
	if _, ok := j.Session(); ok || len(j.Entries()) != 0 {
		t.Fatal("a new journal is not empty")
	}
	must(t,
		j.SetSession(session(7)),
		j.Active("erp", 3, 40, []byte("vip, process")),
		j.Active("mail", 1, 41, nil),
		j.Active("web", 5, 42, []byte{0, 0, 0}),
		j.Releasing("mail", 1),
		j.Releasing("unused", 2),
		j.Erase("web", 5),
		j.Erase("never", 1),
	)
	want := dump(j)
	must(t, j.Close())
	j, err = Open(dir, "boot1")
	must(t, err)
	if diff := cmp.Diff(want, dump(j)); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	s, ok := j.Session()
	exp := session(7)
	exp.BootID = "boot1"
	if diff := cmp.Diff(exp, s); !ok || diff != "" {
		t.Errorf("session:\n%s", diff)
	}
	for _, e := range j.Entries() {
		if !j.Mine(e) {
			t.Errorf("%s/%d is not ours after a restart in the same boot", e.Service, e.Epoch)
		}
	}
	must(t, j.Close())

	// Nothing is in the directory but the one file, which is its owner's alone.
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 1 || files[0].Name() != fileName {
		t.Errorf("directory has %v", files)
	}
	info, err := files[0].Info()
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600: the key is in it", info.Mode())
	}

	j, err = Open(dir, "boot2")
	must(t, err)
	for _, e := range j.Entries() {
		if j.Mine(e) {
			t.Errorf("%s/%d is ours after a reboot", e.Service, e.Epoch)
		}
	}
	must(t, j.Close())
}

func TestRules(t *testing.T) {
	j := mustOpen(t, newMemDisk(), "boot1")
	if err := j.Active("erp", 1, 1, nil); !errors.Is(err, ErrNoSession) {
		t.Errorf("active without a session: %v", err)
	}
	if err := j.SetSession(Session{BootID: "boot0", ID: 1}); err == nil {
		t.Error("a session of another boot was taken")
	}
	if err := j.SetSession(Session{}); err == nil {
		t.Error("a session without an id was taken")
	}
	must(t, j.SetSession(session(7)), j.Active("erp", 1, 1, nil))
	must(t, j.Active("erp", 1, 2, []byte("changed")))
	if got := j.Entries()[0]; got.Generation != 2 || string(got.Note) != "changed" {
		t.Errorf("entry %+v: the change is missing", got)
	}
	must(t, j.Releasing("erp", 1), j.Releasing("erp", 1))
	if err := j.Active("erp", 1, 2, nil); !errors.Is(err, ErrReleasing) {
		t.Errorf("a releasing epoch was activated again: %v", err)
	}
	// A new session of the same boot: what the old one has is foreign.
	must(t, j.Active("web", 1, 1, nil), j.SetSession(session(8)))
	if err := j.Active("web", 1, 1, nil); !errors.Is(err, ErrForeign) {
		t.Errorf("an epoch of another session was activated: %v", err)
	}
	must(t, j.Releasing("web", 1))
	for _, e := range j.Entries() {
		if e.Service == "web" && (e.Session != 7 || e.State != StateReleasing || j.Mine(e)) {
			t.Errorf("entry %+v: want releasing and still of session 7", e)
		}
	}
	if err := j.Active("big", 1, 1, make([]byte, maxRecord)); err == nil {
		t.Error("an oversized note was taken")
	}
	must(t, j.Active("small", 1, 1, nil)) // and did no harm
	must(t, j.Close(), j.Close())
	for _, err := range []error{j.SetSession(session(8)), j.Active("a", 1, 1, nil), j.Releasing("a", 1), j.Erase("a", 1)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if _, err := Open(t.TempDir(), ""); err == nil {
		t.Error("opened without a boot id")
	}
}

func TestWhatIsReturnedIsACopy(t *testing.T) {
	j := mustOpen(t, newMemDisk(), "boot1")
	in, note := session(7), []byte("note")
	must(t, j.SetSession(in), j.Active("erp", 1, 1, note))
	want := dump(j)
	in.Key[0], in.Voters[0].ID, note[0] = 9, "x", 'X'
	out, _ := j.Session()
	out.Key[0], out.Voters[0].ID = 9, "x"
	j.Entries()[0].Note[0] = 'X'
	if diff := cmp.Diff(want, dump(j)); diff != "" {
		t.Error(diff)
	}
}

func TestRepeatedCallsCostNoSync(t *testing.T) {
	d := newMemDisk()
	j := mustOpen(t, d, "boot1")
	must(t, j.SetSession(session(7)), j.Active("erp", 1, 1, nil), j.Releasing("web", 1))
	before := d.ops
	must(t, j.SetSession(session(7)), j.Active("erp", 1, 1, nil), j.Releasing("web", 1), j.Erase("none", 1))
	if d.ops != before {
		t.Errorf("%d operations on the disk for what was recorded", d.ops-before)
	}
}

func TestEveryChangeIsSyncedBeforeItReturns(t *testing.T) {
	d := newMemDisk()
	j := mustOpen(t, d, "boot1")
	for i, change := range []func() error{
		func() error { return j.SetSession(session(7)) },
		func() error { return j.Active("erp", 1, 1, []byte("x")) },
		func() error { return j.Releasing("erp", 1) },
		func() error { return j.Erase("erp", 1) },
	} {
		must(t, change())
		want := dump(j)
		for _, s := range d.survivors() {
			if diff := cmp.Diff(want, dump(mustOpen(t, s, "boot1"))); diff != "" {
				t.Errorf("change %d is lost with the power:\n%s", i, diff)
			}
		}
	}
}

func TestTheFileStaysSmall(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, "boot1")
	must(t, err, j.SetSession(session(7)))
	note := []byte(strings.Repeat("n", 2000))
	for epoch := uint64(1); epoch <= 100; epoch++ {
		must(t, j.Active("erp", epoch, 1, note), j.Releasing("erp", epoch))
		if epoch > 1 {
			must(t, j.Erase("erp", epoch-1))
		}
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	must(t, err)
	if info.Size() > 2*growTo {
		t.Errorf("%d bytes after 300 records with one entry left", info.Size())
	}
	want := dump(j)
	must(t, j.Close())
	j, err = Open(dir, "boot1")
	must(t, err)
	if diff := cmp.Diff(want, dump(j)); diff != "" {
		t.Error(diff)
	}
	must(t, j.Close())
}

// A disk that hangs in a sync must not keep the daemon from knowing what runs.
func TestReadersDoNotWaitForTheDisk(t *testing.T) {
	d := newMemDisk()
	j := mustOpen(t, d, "boot1")
	must(t, j.SetSession(session(7)), j.Active("erp", 1, 1, nil))
	hang := &hangingFile{diskFile: j.file.f, entered: make(chan struct{}), release: make(chan struct{})}
	j.file.f = hang
	done := make(chan error, 1)
	go func() { done <- j.Releasing("erp", 1) }()
	select {
	case <-hang.entered:
	case err := <-done:
		t.Fatalf("returned without a sync: %v", err)
	}
	if e := j.Entries(); len(e) != 1 || e[0].State != StateActive {
		t.Errorf("entries %+v: want what was synced last", e)
	}
	if _, ok := j.Session(); !ok {
		t.Error("no session")
	}
	close(hang.release)
	must(t, <-done)
	if e := j.Entries(); e[0].State != StateReleasing {
		t.Errorf("entries %+v after the disk went on", e)
	}
}

type hangingFile struct {
	diskFile
	entered, release chan struct{}
}

func (f *hangingFile) Sync() error {
	close(f.entered)
	<-f.release
	return f.diskFile.Sync()
}
