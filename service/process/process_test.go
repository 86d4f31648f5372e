package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/service"
)

var _ GuardPort = (*guard.Client)(nil)

// The test binary is also the guard's program, and the service.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "run", "init", "hook":
			os.Exit(guard.Main(os.Args, guard.MainOptions{Version: "test"}))
		case "web":
			os.Exit(web(os.Args[2], os.Args[3]))
		}
	}
	os.Exit(m.Run())
}

// web is a service: it says under which epoch it runs, after a while.
func web(address, delay string) int {
	d, err := time.ParseDuration(delay)
	if err != nil {
		return 2
	}
	time.Sleep(d)
	err = http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/crash" {
			os.Exit(3)
		}
		fmt.Fprintf(w, "%s %s %s %s %s %s %d", os.Getenv("FAILOVER_SERVICE"), os.Getenv("FAILOVER_EPOCH"), os.Getenv("FAILOVER_NODE"),
			os.Getenv("FAILOVER_PREVIOUS"), os.Getenv("FAILOVER_PROOF"), os.Getenv("COLOUR"), os.Getpid())
	}))
	fmt.Println(err)
	return 1
}

const long = 15 * time.Second

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	return c
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// newGuard spawns a guard with a lease of a minute under session 1.
func newGuard(t *testing.T) *guard.Client {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, err := guard.Spawn(ctx(t), guard.SpawnOptions{Binary: exe, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endGuard(t, c) })
	c.Use(1)
	extend(t, c, time.Minute)
	return c
}

func endGuard(t *testing.T, c *guard.Client) {
	pid := c.Pid()
	c.Close()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	// Its own orderly end leaves nothing behind.
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(long.Milliseconds())); n != 1 {
		t.Errorf("the guard does not end: %v", err)
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

func extend(t *testing.T, c *guard.Client, left time.Duration) {
	t.Helper()
	var err error
	eventually(t, "the guard to take a deadline", func() bool {
		var d guard.Deadline
		if d, err = guard.Now(); err != nil {
			t.Fatal(err)
		}
		d = d.Add(left)
		err = c.Extend(d.Boot, d.Raw)
		return err == nil || !errors.Is(err, guard.ErrGuardLost)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func options(t *testing.T, c GuardPort, address, delay string) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Name: "web", Guard: c, Ready: address, StartTimeout: long, StopTimeout: time.Second,
		Origin:      service.Origin{Service: "erp", Node: "a", Previous: "b", Reason: "b is gone", Proof: "expired"},
		Command:     []string{exe, "web", address, delay},
		Environment: map[string]string{"COLOUR": "green"},
	}
}

func newProcess(t *testing.T, o Options) *Process {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(t *testing.T, address string) string {
	t.Helper()
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + address)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b := make([]byte, 1000)
	n, _ := r.Body.Read(b)
	return string(b[:n])
}

func TestStartIsReadyAndStopIsProven(t *testing.T) {
	c := newGuard(t)
	addr := freePort(t)
	p := newProcess(t, options(t, c, addr, "200ms"))
	if running, err := p.Running(ctx(t)); running || err != nil {
		t.Errorf("before the start: %v %v", running, err)
	}
	if err := p.Adopt(ctx(t), 4); !errors.Is(err, ErrEnded) {
		t.Errorf("adopted what is not there: %v", err)
	}
	if err := p.Start(ctx(t), 4); err != nil {
		t.Fatal(err)
	}
	answer := get(t, addr) // at once: it is ready
	if !strings.HasPrefix(answer, "erp 4 a b expired green ") {
		t.Fatalf("the service says %q", answer)
	}
	if running, err := p.Running(ctx(t)); !running || err != nil {
		t.Errorf("running: %v %v", running, err)
	}
	// Again, by another daemon: the same one goes on.
	again := newProcess(t, options(t, c, addr, "0s"))
	if err := again.Start(ctx(t), 4); err != nil {
		t.Fatal(err)
	}
	if err := again.Adopt(ctx(t), 4); err != nil {
		t.Error(err)
	}
	if got := get(t, addr); got != answer {
		t.Errorf("now says %q, before %q", got, answer)
	}
	if err := again.Start(ctx(t), 5); !errors.Is(err, ErrOtherEpoch) {
		t.Errorf("another epoch: %v", err)
	}
	if err := again.Adopt(ctx(t), 5); !errors.Is(err, ErrOtherEpoch) {
		t.Errorf("adopted another epoch: %v", err)
	}
	if err := again.Stop(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if running, err := p.Running(ctx(t)); running || err != nil {
		t.Errorf("after the stop: %v %v", running, err)
	}
	if got := get(t, addr); !strings.Contains(got, "refused") {
		t.Errorf("after the stop it says %q", got)
	}
	if err := p.Stop(ctx(t)); err != nil {
		t.Errorf("stopped twice: %v", err)
	}
	// And the next epoch, here.
	if err := p.Start(ctx(t), 5); err != nil {
		t.Fatal(err)
	}
	if got := get(t, addr); !strings.HasPrefix(got, "erp 5 ") {
		t.Errorf("it says %q", got)
	}
}

func TestStartSaysWhyNot(t *testing.T) {
	c := newGuard(t)
	exits := options(t, c, freePort(t), "0s")
	exits.Command = []string{"/bin/sh", "-c", "echo the disk is full >&2; exit 4"}
	never := options(t, c, freePort(t), "1h")
	never.Name, never.StartTimeout = "never", 300*time.Millisecond
	missing := options(t, c, freePort(t), "0s")
	missing.Name, missing.Command = "missing", []string{"/no/such/program"}
	for _, x := range []struct {
		o    Options
		want error
		text string
	}{
		{exits, ErrEnded, "the disk is full"},
		{never, ErrNotReady, "does not accept"},
		{missing, guard.ErrStart, "/no/such/program"},
	} {
		p := newProcess(t, x.o)
		err := p.Start(ctx(t), 1)
		if !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.text) {
			t.Errorf("%s: %v, want %v with %q", x.o.Name, err, x.want, x.text)
		}
		if err := p.Stop(ctx(t)); err != nil {
			t.Errorf("%s: %v", x.o.Name, err)
		}
	}
	extendNothing := newProcess(t, options(t, c, freePort(t), "0s"))
	c.Use(2) // another session has no deadline here
	if err := extendNothing.Start(ctx(t), 1); !errors.Is(err, guard.ErrSession) {
		t.Errorf("started under another session: %v", err)
	}
}

func TestCrashIsRestartedUntilItIsNot(t *testing.T) {
	c := newGuard(t)
	addr := freePort(t)
	o := options(t, c, addr, "0s")
	o.Restarts = 1
	p := newProcess(t, o)
	if err := p.Start(ctx(t), 1); err != nil {
		t.Fatal(err)
	}
	_ = get(t, addr+"/crash")
	eventually(t, "the restart", func() bool {
		if running, err := p.Running(ctx(t)); !running || err != nil {
			t.Fatalf("given up at the first crash: %v %v", running, err)
		}
		return strings.HasPrefix(get(t, addr), "erp 1 ")
	})
	_ = get(t, addr+"/crash")
	eventually(t, "the end of patience", func() bool { running, err := p.Running(ctx(t)); return !running && err == nil })
	if state, text, err := p.State(ctx(t)); err != nil || state != "failed" || !strings.Contains(text, "exit status 3") {
		t.Errorf("%s %q %v", state, text, err)
	}
}

func TestLostGuardIsUnknown(t *testing.T) {
	c := newGuard(t)
	p := newProcess(t, options(t, c, freePort(t), "0s"))
	if err := p.Start(ctx(t), 1); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(p.Guarantee(), p.Kappa()), "[guard kernel timer] 50ms"; got != want {
		t.Errorf("guarantee %s, want %s", got, want)
	}
	if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.Lost()
	if running, err := p.Running(ctx(t)); err == nil {
		t.Errorf("known without a guard: %v", running)
	}
	if err := p.Stop(ctx(t)); !errors.Is(err, guard.ErrGuardLost) {
		t.Errorf("proven without a guard: %v", err)
	}
}

func TestOptions(t *testing.T) {
	good := Options{Name: "p", Origin: service.Origin{Service: "s"}, Guard: &guard.Client{}, Command: []string{"/bin/true"}}
	if p, err := New(good); err != nil || p.Unit() != "s:p" || p.Name() != "p" {
		t.Errorf("%v", err)
	}
	for name, change := range map[string]func(*Options){
		"name":     func(o *Options) { o.Name = "" },
		"service":  func(o *Options) { o.Origin.Service = "" },
		"guard":    func(o *Options) { o.Guard = nil },
		"command":  func(o *Options) { o.Command = nil },
		"signal":   func(o *Options) { o.StopSignal = "FOO" },
		"ready":    func(o *Options) { o.Ready = "localhost" },
		"restarts": func(o *Options) { o.Restarts = -1 },
		"timeout":  func(o *Options) { o.StopTimeout = -1 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A program that writes much and ends is told with its last words, not all of them.
func TestLastWords(t *testing.T) {
	c := newGuard(t)
	o := options(t, c, freePort(t), "0s")
	o.Command = []string{"/bin/sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo last words; exit 1"}
	err := newProcess(t, o).Start(ctx(t), 1)
	if err == nil || !strings.Contains(err.Error(), `last words"`) || len(err.Error()) > 2000 {
		t.Errorf("%.300v", err)
	}
}
