package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// pageSize is that of the machine, in which bbolt writes.
var pageSize = os.Getpagesize()

// victim stops the daemon of a node that neither leads nor holds, for good, and
// gives the node and its data directory.
func victim(ctx context.Context, t *testing.T, r *lab.Rig) (*lab.Host, string) {
	t.Helper()
	holder, s, err := r.Settled(ctx)
	must(t, err)
	for _, h := range r.Failoverd.Hosts() {
		if h != holder && h.Name() != s.Leader {
			must(t, r.Failoverd.Terminate(ctx, h))
			return h, filepath.Join(h.Dir(), "data")
		}
	}
	h := other(r, holder)
	must(t, r.Failoverd.Terminate(ctx, h))
	return h, filepath.Join(h.Dir(), "data")
}

// refusesData starts the host's daemon on data that is damaged. It must end by
// itself with a clear word and without a crash, and change none of the files.
// It reports whether the daemon took the data for good instead, which the caller
// judges; the daemon is stopped then.
func refusesData(ctx context.Context, t *testing.T, r *lab.Rig, h *lab.Host, what, path string, words ...string) (took bool) {
	t.Helper()
	before := read(path)
	log := r.Failoverd.LogFile(h)
	must(t, os.Truncate(log, 0))
	must(t, r.Failoverd.Start(h))
	d := r.Failoverd.Daemon(h)
	for {
		said := read(log)
		select {
		case <-d.Done():
			said = read(log)
			if slices.ContainsFunc(strings.Split(said, "\n"), func(line string) bool {
				return strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.HasPrefix(line, "goroutine ") || strings.HasPrefix(line, "unexpected fault")
			}) {
				t.Errorf("%s: it crashed: %s", what, last(said, 12))
			}
			for _, w := range words {
				if !strings.Contains(last(said, 3), w) {
					t.Errorf("%s: want %q in: %s", what, w, last(said, 3))
				}
			}
			if code := exitCode(d); code != codeError {
				t.Errorf("%s: exit code %d, want %d", what, code, codeError)
			}
			if after := read(path); after != before {
				t.Errorf("%s: the damaged file was changed", what)
			}
			return false
		default:
		}
		if strings.Contains(said, "msg=running") {
			d.Kill()
			return true
		}
		if lab.Wait(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("%s: neither a word nor an end: %s", what, last(said, 5))
		}
	}
}

func exitCode(d *lab.Running) int {
	var code int
	err := d.Wait()
	if err == nil {
		return 0
	}
	if _, scanErr := fmt.Sscanf(err.Error(), "exit status %d", &code); scanErr != nil {
		return -1
	}
	return code
}

// pages are the pages of a file that are tried: all of them when figures are
// asked for, else the roots, the free list and a few more.
func pages(file string, few int) []int {
	n := len(file) / pageSize
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	if os.Getenv(longVariable) != "" || n <= few {
		return all
	}
	chosen := all[:few/2]
	for i := range few - few/2 {
		chosen = append(chosen, few/2+i*(n-few/2)/(few-few/2))
	}
	return chosen
}

// A page of the log's file that is damaged is noticed before the node takes
// part; one that nothing leads to may be anything.
func TestDamagedLogFile(t *testing.T) {
	ctx := limited(t, 4*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	h, data := victim(ctx, t, r)
	path := filepath.Join(data, "raft.db")
	good := read(path)
	put := func(text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }
	// A daemon that takes the data writes to it: what was there before is an old
	// copy then, and must not come back.
	try := func(what, text string) bool {
		put(text)
		if !refusesData(ctx, t, r, h, what, path, "raft.db", "members replace") {
			return false
		}
		good = read(path)
		return true
	}
	var free []int
	tried := pages(good, 4)
	for _, page := range tried {
		broken := []byte(good)
		for i := page * pageSize; i < (page+1)*pageSize; i++ {
			broken[i] ^= 0xff
		}
		if try(fmt.Sprintf("page %d flipped", page), string(broken)) {
			free = append(free, page)
		}
	}
	t.Logf("%d of %d pages flipped; nothing led to pages %v", len(tried), len(good)/pageSize, free)
	if slices.Contains(free, 0) || slices.Contains(free, 1) || len(free) == len(tried) {
		t.Errorf("taken though damaged: %v", free)
	}
	tried, free = pages(good, 2), nil
	for _, page := range tried {
		if try(fmt.Sprintf("cut at page %d", page), good[:min(len(good), page*pageSize)]) {
			free = append(free, page)
		}
	}
	t.Logf("cut at %d pages; nothing was missing when cut at %v", len(tried), free)
	if slices.Contains(free, 0) || slices.Contains(free, 1) || slices.Contains(free, 2) {
		t.Errorf("taken though cut: %v", free)
	}
	put(good)
	must(t, r.Failoverd.Start(h))
	_, _, err := r.Settled(ctx)
	must(t, err)
}

// The journal of what may be running is never taken for empty: damage in it is
// refused with what to do, and only a record torn at its end is dropped.
func TestDamagedJournal(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	holder, _, err := r.Settled(ctx)
	must(t, err)
	path := filepath.Join(holder.Dir(), "data", "journal")
	since := r.Lab.Now()
	must(t, holder.PowerOff())
	_, err = r.Moved(ctx, holder, since)
	must(t, err)
	must(t, holder.PowerOn())
	good := read(path)
	if !strings.Contains(good, "active") {
		t.Fatalf("the journal of a holder names nothing active: %q", good)
	}
	for at, what := range map[int]string{0: "first byte", len(good) / 4: "first quarter", len(good) / 2: "middle"} {
		broken := []byte(good)
		broken[at] ^= 0xff
		must(t, os.WriteFile(path, broken, 0o600))
		if refusesData(ctx, t, r, holder, what+" flipped", path, "journal", "make sure that none of the cluster's services runs here") {
			t.Fatalf("%s flipped: taken though damaged", what)
		}
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if refusesData(ctx, t, r, holder, "emptied", path, "journal", "start again") {
		t.Fatal("emptied: taken for one that was never written")
	}
	must(t, os.WriteFile(path, []byte(good), 0o600))
	must(t, r.Failoverd.Start(holder))
	_, _, err = r.Settled(ctx)
	must(t, err)
}
