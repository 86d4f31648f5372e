package guard

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A program inherits nothing of the daemon, the guard or its init: neither
// descriptors, nor environment, signals, priority, mask or capabilities.
func TestProgramStartsClean(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/secret")
	t.Setenv("TZ", "UTC")
	leak, err := unix.Open("/dev/zero", unix.O_RDONLY, 0) // no O_CLOEXEC: every child gets it
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	// Whoever starts a daemon may ignore signals: Go's own handling knows the
	// first of these, and leaves the others as it finds them.
	for _, sig := range []uintptr{uintptr(unix.SIGTSTP), 32, 64} {
		was := handlerOf(sig)
		setHandler(sig, handlerIgnore)
		defer setHandler(sig, was)
	}
	r := startRig(t)
	r.lease(time.Minute)
	script := `echo "fds $(cd /proc/self/fd; echo *)"
echo "env $(tr '\0' ' ' < /proc/$$/environ)"
grep -E '^(SigBlk|SigIgn|CapAmb|Umask)' /proc/$$/status
echo "nice $(cut -d' ' -f19 /proc/$$/stat)"
echo "session $(($(cut -d' ' -f6 /proc/$$/stat) - $$)) dir $PWD in $(readlink /proc/$$/fd/0)"
echo "processes $(ls -d /proc/[0-9]* | wc -l)"
echo over`
	check := func(what, out string) {
		t.Helper()
		for _, want := range []string{
			"fds 0 1 2 3\n", // 3 is the listing's own
			"env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ",
			"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "CapAmb:\t0000000000000000", "Umask:\t0022",
			"nice 0\n", "session 0 dir / in /dev/null\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", what, want, out)
			}
		}
		if strings.Contains(out, "secret") || strings.Contains(out, "HOME=") {
			t.Errorf("%s: inherited\n%s", what, out)
		}
	}
	r.start(Spec{Name: "a", Command: sh(script + "; exec sleep 100")})
	check("process", r.awaitOutput("a", "over"))
	r.start(Spec{Name: "h", Kind: KindHooks})
	res := r.hook("start", script, long)
	check("hook", string(res.Output))
}

// The way to a running program and back is short.
func TestStartIsQuick(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	var start, stop, hook time.Duration
	const n = 10
	r.start(Spec{Name: "h", Kind: KindHooks})
	for range n {
		began := time.Now()
		r.start(Spec{Name: "a", Command: []string{"/bin/sleep", "100"}})
		start += time.Since(began)
		began = time.Now()
		if err := r.Stop(ctx(t), "a"); err != nil {
			t.Fatal(err)
		}
		stop += time.Since(began)
		began = time.Now()
		r.hook("status", "exit 0", long)
		hook += time.Since(began)
	}
	t.Logf("mean of %d: start %v, proven stop %v, hook %v", n, start/n, stop/n, hook/n)
	if start/n > 500*time.Millisecond || stop/n > 500*time.Millisecond || hook/n > 500*time.Millisecond {
		t.Error("too slow")
	}
}
