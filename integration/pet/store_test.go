package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, dir, node string, epoch uint64) *store {
	t.Helper()
	s, err := openStore(dir, node, epoch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func add(t *testing.T, s *store, value int64) uint64 {
	t.Helper()
	n, err := s.add(value)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func violations(t *testing.T, dir string) []violation {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "violations"))
	if err != nil {
		t.Fatal(err)
	}
	var out []violation
	for _, line := range bytes.Split(bytes.TrimSpace(raw), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var v violation
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func TestTheNextInstanceContinuesWhereTheLastOneStopped(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, "a", 1)
	for i := range int64(10) {
		if n := add(t, a, i*7); n != uint64(i)+1 {
			t.Fatalf("write %d got sequence %d", i, n)
		}
	}
	b := open(t, dir, "b", 2)
	if n, v, err := b.read(); n != 10 || v != 63 || err != nil {
		t.Errorf("read %d, %d, %v", n, v, err)
	}
	if n := add(t, b, 1); n != 11 {
		t.Errorf("sequence %d, want 11", n)
	}
	if v := violations(t, dir); len(v) != 0 {
		t.Errorf("violations of a stopped instance: %v", v)
	}
}

func TestManyWritersAtOnceGetTheirOwnNumbers(t *testing.T) {
	s := open(t, t.TempDir(), "a", 1)
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var group sync.WaitGroup
	for i := range int64(50) {
		group.Go(func() {
			n, err := s.add(i)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[n] {
				t.Errorf("sequence %d given twice", n)
			}
			seen[n] = true
		})
	}
	group.Wait()
	if len(seen) != 50 || !seen[1] || !seen[50] {
		t.Errorf("numbers given: %v", seen)
	}
}

func TestAnInstanceThatIsNotAloneSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		node  string
		epoch uint64
	}{"a newer epoch": {"b", 2}, "the same epoch elsewhere": {"b", 1}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := open(t, dir, "a", 1)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				a.guard(ctx)
			}()
			open(t, dir, c.node, c.epoch)
			deadline := time.Now().Add(10 * time.Second)
			for len(violations(t, dir)) < 3 { // it goes on saying so
				if time.Now().After(deadline) {
					t.Fatal("no violation noted")
				}
				time.Sleep(time.Millisecond)
			}
			cancel()
			<-done
			byA := slices.DeleteFunc(violations(t, dir), func(v violation) bool { return v.Node != "a" })
			if len(byA) == 0 {
				t.Fatalf("a noted nothing: %+v", violations(t, dir))
			}
			v := byA[0]
			if v.Epoch != 1 || v.Other != "b" || v.Newer != c.epoch || v.At < v.Since || v.Since == 0 {
				t.Errorf("noted: %+v", v)
			}
		})
	}
}

func TestARestartUnderTheSameEpochIsNoViolation(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, "a", 1)
	s := open(t, dir, "a", 1)
	add(t, s, 1)
	if v := violations(t, dir); len(v) != 0 {
		t.Errorf("violations: %v", v)
	}
}

func TestHalfALineIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	add(t, open(t, dir, "a", 1), 5)
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"op":"add","sequ` + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, "b", 2)
	if n := add(t, s, 6); n != 2 {
		t.Errorf("sequence %d after a torn line, want 2", n)
	}
}

func TestHTTP(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{node: "a", epoch: 4, store: open(t, dir, "a", 4), refuse: true}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, listener, s.handler()) }()
	url := "http://" + listener.Addr().String()
	call := func(method, path string) (int, reply) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var r reply
		_ = json.NewDecoder(response.Body).Decode(&r) // an error's body is no reply
		return response.StatusCode, r
	}
	if code, r := call("POST", "/add?n=9"); code != 200 || !reflect.DeepEqual(r, reply{Node: "a", Epoch: 4, Sequence: 1, Value: 9}) {
		t.Errorf("add: %d %+v", code, r)
	}
	if code, r := call("GET", "/get?n=2"); code != 200 || !reflect.DeepEqual(r, reply{Node: "a", Epoch: 4, Sequence: 1, Value: 9}) {
		t.Errorf("get: %d %+v", code, r)
	}
	if code, _ := call("POST", "/add?n=x"); code != 400 {
		t.Errorf("add of a word: %d", code)
	}
	if code, _ := call("GET", "/health"); code != 200 {
		t.Errorf("health: %d", code)
	}
	open(t, dir, "b", 5)
	if code, _ := call("GET", "/get?n=3"); code != 503 {
		t.Errorf("with -refuse and a newer epoch: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
	if s := fmt.Sprint(violations(t, dir)); s == "[]" {
		t.Error("a refusal hid the violation")
	}
}
