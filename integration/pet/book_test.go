package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

func openTestBook(t *testing.T, dir, node string, epoch uint64) *book {
	t.Helper()
	b, err := openBook(dir, node, epoch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

func change(t *testing.T, b *book, op byte, key uint32, value uint64) uint64 {
	t.Helper()
	n, err := b.change(op, key, value)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheNextBookHasWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	a := openTestBook(t, dir, "a", 1)
	change(t, a, opWrite, 1, 10)
	change(t, a, opAdd, 2, 5)
	change(t, a, opAdd, 2, 3)
	change(t, a, opWrite, 1, 11)
	b := openTestBook(t, dir, "b", 2)
	if n, v, _ := b.read(1); n != 4 || v != 11 {
		t.Errorf("read %d at %d", v, n)
	}
	if _, m, _ := b.members(2); !slices.Equal(m, []uint64{3, 5}) {
		t.Errorf("members %v", m)
	}
	if _, v, _ := b.read(7); v != 0 {
		t.Errorf("a register that was never written has %d", v)
	}
}

func TestManyChangesAtOnceGetTheirOwnPlaces(t *testing.T) {
	dir := t.TempDir()
	a := openTestBook(t, dir, "a", 1)
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for i := range uint64(50) {
		group.Go(func() {
			n, err := a.change(opAdd, 1, i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[n] {
				t.Errorf("place %d, %v", n, err)
			}
			seen[n] = true
		})
	}
	group.Wait()
	if _, m, _ := openTestBook(t, dir, "b", 2).members(1); len(m) != 50 {
		t.Errorf("%d members", len(m))
	}
}

// Two books at once do the damage that a legacy service would.
func TestTwoBooksAtOnceDoDamage(t *testing.T) {
	dir := t.TempDir()
	a, b := openTestBook(t, dir, "a", 1), openTestBook(t, dir, "b", 2)
	change(t, b, opAdd, 1, 20)
	if _, m, _ := a.members(1); len(m) != 0 {
		t.Errorf("the older one reads from its memory, which has %v", m)
	}
	if n := change(t, a, opAdd, 1, 10); n != 1 {
		t.Errorf("written to place %d, want 1, over the other's", n)
	}
	if _, m, _ := openTestBook(t, dir, "c", 3).members(1); !slices.Equal(m, []uint64{10}) {
		t.Errorf("after both: %v, want what the older one wrote last", m)
	}
}

func TestATornEntryEndsTheBook(t *testing.T) {
	dir := t.TempDir()
	a := openTestBook(t, dir, "a", 1)
	change(t, a, opWrite, 1, 10)
	change(t, a, opWrite, 1, 11)
	path := filepath.Join(dir, "book")
	for cut := int64(1); cut < entryBytes; cut++ {
		if err := os.Truncate(path, 2*entryBytes-cut); err != nil {
			t.Fatal(err)
		}
		if n, v, _ := openTestBook(t, dir, "b", 2).read(1); n != 1 || v != 10 {
			t.Fatalf("cut by %d: read %d at %d", cut, v, n)
		}
	}
}

func TestABookWhoseDiskFailedWritesNoMore(t *testing.T) {
	a := openTestBook(t, t.TempDir(), "a", 1)
	_ = a.file.Close()
	for range 2 {
		if _, err := a.change(opWrite, 1, 10); err == nil {
			t.Error("written to a closed file")
		}
	}
	if _, v, err := a.read(1); err == nil || v != 0 {
		t.Errorf("read %d, %v", v, err)
	}
}

func TestBookOverHTTP(t *testing.T) {
	s := &service{node: "a", epoch: 4, book: openTestBook(t, t.TempDir(), "a", 4)}
	handler := s.handler()
	call := func(method, path string) (int, reply) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		var r reply
		_ = json.Unmarshal(w.Body.Bytes(), &r) // an error's body is no reply
		return w.Code, r
	}
	for _, c := range []struct {
		method, path string
		value        int64
		members      []uint64
	}{
		{"POST", "/register?key=1&n=7", 7, nil},
		{"GET", "/register?key=1", 7, nil},
		{"GET", "/register?key=2", 0, nil},
		{"POST", "/set?key=1&n=9", 9, nil},
		{"POST", "/set?key=1&n=8", 8, nil},
		{"GET", "/set?key=1", 0, []uint64{8, 9}},
	} {
		code, r := call(c.method, c.path)
		if code != http.StatusOK || r.Node != "a" || r.Epoch != 4 || r.Value != c.value || !slices.Equal(r.Members, c.members) {
			t.Errorf("%s %s: %d %+v", c.method, c.path, code, r)
		}
	}
	for _, path := range []string{"/register?n=1", "/register?key=1", "/set?key=x&n=1", "/set?key=1&n=-1"} {
		if code, _ := call("POST", path); code != http.StatusBadRequest {
			t.Errorf("POST %s: %d", path, code)
		}
	}
}
