package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// world is a mount namespace with a disk in it.
type world struct {
	t    *testing.T
	disk *Disk
	ns   *os.File

	mu   sync.Mutex
	stop chan struct{} // ends the thread that the namespace is of
	pid  int
}

// newWorld mounts a disk in a namespace of its own, or skips.
func newWorld(t *testing.T, volatile bool) *world {
	t.Helper()
	d, err := New(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, disk: d}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		w.off()
	})
	if volatile {
		if err := d.Volatile(true); err != nil {
			t.Fatal(err)
		}
	}
	w.on()
	return w
}

// on makes a namespace and mounts the disk in it.
func (w *world) on() {
	w.t.Helper()
	ready := make(chan error, 1)
	w.stop = make(chan struct{})
	go func(stop chan struct{}) {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			w.ns, err = os.Open("/proc/thread-self/ns/mnt")
			w.pid = unix.Gettid()
		}
		ready <- err
		if err == nil {
			<-stop
		}
	}(w.stop)
	if err := <-ready; err != nil {
		w.t.Skipf("no mount namespace can be made here: %v", err)
	}
	if err := w.disk.Mount(w.pid); errors.Is(err, ErrDenied) {
		w.t.Skip(err)
	} else if err != nil {
		w.t.Fatal(err)
	}
}

// off ends the namespace, as the end of a host does.
func (w *world) off() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ns == nil {
		return nil
	}
	close(w.stop)
	err := w.ns.Close()
	w.ns = nil
	return err
}

// in runs fn on a thread inside.
func (w *world) in(fn func() error) error {
	w.mu.Lock()
	fd, err := unix.FcntlInt(w.ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	w.mu.Unlock()
	if err != nil {
		return err
	}
	ns := os.NewFile(uintptr(fd), "mnt")
	defer ns.Close()
	return (&mount{ns: ns}).within(fn)
}

// try does the same in the background.
func (w *world) try(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- w.in(fn) }()
	return done
}

func (w *world) path(name string) string { return filepath.Join(w.disk.Dir(), name) }

func (w *world) must(fn func() error) {
	w.t.Helper()
	if err := w.in(fn); err != nil {
		w.t.Fatal(err)
	}
}

// put writes a whole file inside, synced or not.
func (w *world) put(name, text string, sync bool) func() error {
	return func() error {
		f, err := os.OpenFile(w.path(name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			return err
		}
		if sync {
			return f.Sync()
		}
		return nil
	}
}

func (w *world) syncDir(name string) func() error {
	return func() error {
		f, err := os.Open(w.path(name))
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	}
}

// below is what is stored.
func (w *world) below(name string) string {
	raw, err := os.ReadFile(w.path(name))
	if err != nil {
		return "no " + name
	}
	return string(raw)
}

func (w *world) cut() {
	w.t.Helper()
	if err := w.disk.Cut(w.off, nil); err != nil {
		w.t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

func TestPassesThrough(t *testing.T) {
	w := newWorld(t, false)
	w.must(w.put("a", "hello", true))
	if got := w.below("a"); got != "hello" {
		t.Errorf("below: %q", got)
	}
	w.must(func() error {
		return errors.Join(os.Mkdir(w.path("d"), 0o700), os.Rename(w.path("a"), w.path("d/b")), os.Truncate(w.path("d/b"), 4))
	})
	if got := w.below("d/b"); got != "hell" {
		t.Errorf("below: %q", got)
	}
	if info, err := os.Stat(w.path("d/b")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	w.must(func() error { return os.RemoveAll(w.path("d")) })
	if got := w.below("d/b"); got != "no d/b" {
		t.Errorf("below: %q", got)
	}
	raw, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil || strings.Contains(string(raw), w.disk.Dir()) {
		t.Errorf("it is mounted outside too (%v)", err)
	}
}

// bbolt maps its file and writes beside the mapping, and locks it. A page fault
// holds up Go's runtime, so this cannot be the process that serves the disk.
func TestBoltLivesOnIt(t *testing.T) {
	w := newWorld(t, false)
	w.must(func() error {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), boltVariable+"="+w.path("raft.db"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err := useBolt(w.path("raft.db"), 50); err != nil {
		t.Errorf("what is stored below: %v", err)
	}
}

// boltVariable makes the test program use the bbolt file of that name, and end.
const boltVariable = "FAILOVERD_DISK_TEST_BOLT"

func TestMain(m *testing.M) {
	if path := os.Getenv(boltVariable); path != "" {
		if err := useBolt(path, 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// useBolt puts 50 entries into a file that has so many already.
func useBolt(path string, already int) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 20 * time.Millisecond}); err == nil {
		return errors.New("a second opening took the lock")
	}
	for i := range 50 {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			if n := b.Stats().KeyN; n != already+i {
				return fmt.Errorf("%d entries, want %d", n, already+i)
			}
			return b.Put([]byte{byte(already), byte(i)}, make([]byte, 3000))
		})
		if err != nil {
			return err
		}
	}
	return db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	})
}

func TestHang(t *testing.T) {
	w := newWorld(t, false)
	w.must(w.put("a", "before", true))
	w.must(w.put("b", "before", true))
	f := w.disk.Hang(On(Writes|Sync, "a"))
	done := w.try(w.put("a", "after!", true))
	eventually(t, "write that hangs", func() bool { return f.Held() == 1 })
	w.must(w.put("b", "after!", true)) // others go on
	select {
	case err := <-done:
		t.Fatalf("it did not hang: %v", err)
	default:
	}
	if got := w.below("a"); got != "before" {
		t.Errorf("it was written: %q", got)
	}
	f.End()
	if err := <-done; err != nil || w.below("a") != "after!" {
		t.Errorf("%v, %q", err, w.below("a"))
	}
}

// Whatever hangs, the disk can be taken away and what hangs ends.
func TestAbortWhileItHangs(t *testing.T) {
	w := newWorld(t, false)
	f := w.disk.Hang(On(Everything))
	done := w.try(w.put("a", "x", true))
	eventually(t, "operation that hangs", func() bool { return f.Held() > 0 })
	if err := w.disk.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("no error")
	}
	// What is mounted over is there again.
	w.must(w.put("a", "y", true))
}

// A process that hangs in the disk ends with the power, not before.
func TestCutWhileItHangs(t *testing.T) {
	w := newWorld(t, true)
	f := w.disk.Hang(On(Writes | Sync))
	done := w.try(w.put("a", "x", true))
	eventually(t, "operation that hangs", func() bool { return f.Held() > 0 })
	w.cut()
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

func TestSlow(t *testing.T) {
	w := newWorld(t, false)
	w.disk.Slow(On(Sync), 100*time.Millisecond, 150*time.Millisecond)
	began := time.Now()
	w.must(w.put("a", "x", false))
	quick := time.Since(began)
	began = time.Now()
	w.must(w.put("a", "x", true))
	if took := time.Since(began); took < 100*time.Millisecond || quick >= 100*time.Millisecond {
		t.Errorf("a sync took %v, without it %v", took, quick)
	}
}

func TestFails(t *testing.T) {
	w := newWorld(t, false)
	w.must(w.put("a", "before", true))
	is := func(want syscall.Errno, what string, fn func() error) {
		t.Helper()
		if err := w.in(fn); want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	f := w.disk.Fail(On(Sync, "a"), syscall.EIO)
	is(syscall.EIO, "fsync", w.put("a", "before", true))
	is(0, "write", w.put("a", "before", false))
	is(0, "fsync of another", w.put("b", "x", true))
	is(syscall.EIO, "O_DSYNC", func() error {
		f, err := os.OpenFile(w.path("a"), os.O_RDWR|unix.O_DSYNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write([]byte("before"))
		return err
	})
	f.End()
	is(0, "fsync when it is over", w.put("a", "before", true))

	f = w.disk.NoSpace()
	is(syscall.ENOSPC, "write", w.put("a", "after!", false))
	is(syscall.ENOSPC, "create", w.put("c", "x", false))
	is(0, "remove", func() error { return os.Remove(w.path("b")) })
	f.End()

	w.disk.ReadOnly()
	is(syscall.EROFS, "open for writing", w.put("a", "after!", false))
	is(syscall.EROFS, "create", w.put("c", "x", false))
	is(syscall.EROFS, "rename", func() error { return os.Rename(w.path("a"), w.path("b")) })
	is(syscall.EROFS, "remove", func() error { return os.Remove(w.path("a")) })
	is(0, "read", func() error { _, err := os.ReadFile(w.path("a")); return err })
	w.disk.Heal()
	if got := w.below("a"); got != "before" {
		t.Errorf("a failed write had an effect: %q", got)
	}
	is(0, "write when it is over", w.put("a", "after!", true))
}
