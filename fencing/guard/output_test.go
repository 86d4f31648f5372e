package guard

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestTailKeepsTheLast(t *testing.T) {
	tl := tail{max: 10}
	var all []byte
	for i := range 200 {
		p := []byte(strings.Repeat(string(rune('a'+i%26)), i%17))
		tl.write(p)
		all = append(all, p...)
		want := all[max(0, len(all)-10):]
		if !bytes.Equal(tl.bytes(), want) {
			t.Fatalf("after %d writes: %q, want %q", i, tl.bytes(), want)
		}
		if tl.cut() != uint64(len(all)-len(want)) {
			t.Fatalf("after %d writes: cut %d of %d", i, tl.cut(), len(all))
		}
	}
}

func TestOutputRotatesOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	o := openOutput("a", path, 1000, newEventLog())
	for i := range 100 {
		fmt.Fprintf(o, "line %04d of output that is long enough\n", i)
		if i%10 == 9 { // let the writer come after: it writes what is queued at a time
			eventually(t, "the queue to be written", func() bool {
				o.mu.Lock()
				defer o.mu.Unlock()
				return len(o.queue) == 0
			})
		}
	}
	o.close()
	now, old := fileSize(path), fileSize(path+".1")
	if now == 0 || now > 1000 || old == 0 || old > 1000 {
		t.Errorf("sizes %d and %d, bound 1000 each", now, old)
	}
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(b), "line 0099 of output that is long enough\n") {
		t.Errorf("the file ends with %q, %v", b[max(0, len(b)-50):], err)
	}
}

// A disk that takes nothing costs output, and neither time nor memory.
func TestOutputWithoutADisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gone", "a.log") // its directory does not exist
	o := openOutput("a", path, 1000, nil)
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	began := time.Now()
	for range 1000 {
		if _, err := o.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("64 MB took %v", took)
	}
	o.close()
	if o.droppedBytes() == 0 {
		t.Error("nothing was counted as dropped")
	}
	if cap(o.queue) > 4*queuedOutput {
		t.Errorf("the queue grew to %d bytes", cap(o.queue))
	}
}

// A service that floods its output neither blocks nor fills memory or disk,
// and the deadline of the lease is kept meanwhile.
func TestFlood(t *testing.T) {
	r := startRig(t)
	r.lease(time.Second)
	r.start(Spec{Name: "flood", LogBytes: 1 << 20, Command: sh("while :; do head -c 1000000 /dev/zero; echo; done")})
	served, d := r.serveUnder(time.Second, "a")
	served.check("beside a flood of output", d, 0)
	u := r.await("flood", UnitKilled)
	out, err := r.Output(ctx(t), "flood")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(r.dir, logDir, "flood.log")
	if len(out) != keptOutput || fileSize(log) > 1<<20+queuedOutput || fileSize(log+".1") > 1<<20+queuedOutput {
		t.Errorf("kept %d bytes, files of %d and %d", len(out), fileSize(log), fileSize(log+".1"))
	}
	rss := residentBytes(t, r.Pid())
	t.Logf("guard after the flood: %d MB resident; %d MB dropped", rss>>20, u.Dropped>>20)
	if rss > 120<<20 {
		t.Errorf("the guard grew to %d MB", rss>>20)
	}
}

func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, rss int64
	if _, err := fmt.Sscan(string(b), &size, &rss); err != nil {
		t.Fatal(err)
	}
	return rss * int64(os.Getpagesize())
}

// A fork bomb stays within its bound, and is stopped, proven.
func TestForkBomb(t *testing.T) {
	for name, opts := range map[string][]rigOption{"cgroup": nil, "namespace alone": {withoutCgroup}} {
		t.Run(name, func(t *testing.T) {
			if !kernelAtLeast(release(t), 6, 14) && (opts != nil || !pidsController()) {
				t.Skipf("no bound on tasks here: kernel %s is older than 6.14 and there is no pids controller of cgroup v2", release(t))
			}
			r := startRig(t, opts...)
			r.lease(time.Minute)
			r.start(Spec{Name: "bomb", Tasks: 100, StopTimeout: time.Millisecond, Command: sh(
				`f() { while :; do (setsid sleep 1000 &) 2>/dev/null || echo full; done; }; f & f & wait`)})
			u := r.await("bomb", UnitRunning)
			most := 0
			eventually(t, "the bound to be reached", func() bool {
				most = max(most, len(tree(u.Pid)))
				out, _ := r.Output(ctx(t), "bomb")
				return bytes.Contains(out, []byte("full"))
			})
			if most > 100+300+10 { // the IDs up to 300 come on top; and our own look takes time
				t.Errorf("%d processes, bound 100", most)
			}
			deaths := watchDeaths(t, []int{u.Pid})
			began := time.Now()
			if err := r.Stop(ctx(t), "bomb"); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d processes stopped, proven, in %v", most, time.Since(began))
			deaths.last(t)
			if u.Cgroup != "" && openGroup(u.Cgroup).Exists() {
				t.Error("the cgroup is left")
			}
		})
	}
}

func pidsController() bool {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return err == nil && strings.Contains(string(b), "pids")
}

// The pump hands on everything that was written before its end, and no
// goroutine stays.
func TestPumpDrain(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 50 {
		var got bytes.Buffer
		p, w, err := newPump(func(b []byte) { got.Write(b) })
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("0123456789"), 3000)
		if _, err := w.Write(want); err != nil {
			t.Fatal(err)
		}
		p.drain(long)
		p.mu.Lock()
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("drained %d of %d bytes", got.Len(), len(want))
		}
		p.mu.Unlock()
		w.Close()
		<-p.done
		p.close()
	}
	eventually(t, "the goroutines' end", func() bool { return runtime.NumGoroutine() <= before })
}
