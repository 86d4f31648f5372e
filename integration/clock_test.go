package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// programs is the directory of the programs under test.
func programs(t *testing.T) string {
	t.Helper()
	return filepath.Dir(programPath(t, lab.Daemon))
}

// wrapped makes the programs under test those of a directory in which the daemon is a script that
// executes the given one, after the line that set laid down for its host, as a
// service manager would. The line may set $with, a command that the daemon is
// run by.
func wrapped(t *testing.T, daemon string) (bin string, set func(host, line string)) {
	t.Helper()
	bin = t.TempDir()
	real := programs(t)
	for _, name := range []string{lab.Guard, lab.Control, "pet"} {
		must(t, os.Symlink(filepath.Join(real, name), filepath.Join(bin, name)))
	}
	lines := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nwith=\nlines=%q/$(uname -n)\n[ -r \"$lines\" ] && . \"$lines\"\nexec $with %q \"$@\"\n", lines, daemon)
	must(t, os.WriteFile(filepath.Join(bin, lab.Daemon), []byte(script), 0o755))
	// The daemon looks for its guard beside itself.
	t.Setenv(programsVariable, bin)
	beside := filepath.Join(filepath.Dir(daemon), lab.Guard)
	if _, err := os.Stat(beside); err != nil {
		must(t, os.Symlink(filepath.Join(real, lab.Guard), beside))
	}
	return bin, func(host, line string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(lines, host), []byte(line+"\n"), 0o644))
	}
}

// unmoved lets something happen that must change nothing: not the holder, not
// its epoch, and no request may be lost.
func unmoved(ctx context.Context, t *testing.T, r *lab.Rig, happen func(holder *lab.Host, s lab.Status)) {
	t.Helper()
	var before uint64
	m := measured(ctx, t, r, func(holder *lab.Host, s lab.Status) error {
		_, before, _ = serviceOf(s, lab.Service)
		happen(holder, s)
		return nil
	})
	stays(ctx, t, r, m)
	if _, after, _ := serviceOf(m.Status, lab.Service); after != before {
		t.Errorf("epoch %d before, %d after\n%s", before, after, r.Account(ctx, m))
	}
}

// wallVariable names the directory that holds, for every host, by how many
// seconds the wall clock of its daemon is wrong.
const wallVariable = "FAILOVERD_LAB_WALL"

// jumpSource is a part of package time for daemons whose wall clock can be made
// to jump: the seconds that Now adds, as they stand in a file at that moment.
const jumpSource = `package time

import (
	"syscall"
	"unsafe"
)

var jumpPage = openJump()

func openJump() *int64 {
	dir, ok := syscall.Getenv("` + wallVariable + `")
	if !ok {
		return new(int64)
	}
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		panic("jump: uname: " + err.Error())
	}
	path := []byte(dir + "/")
	for _, c := range u.Nodename {
		if c == 0 {
			break
		}
		path = append(path, byte(c))
	}
	fd, err := syscall.Open(string(path), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("jump: open " + string(path) + ": " + err.Error())
	}
	defer syscall.Close(fd)
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("jump: map " + string(path) + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}
`

// wallDaemonVariable names a daemon that was built by buildJumping before.
const wallDaemonVariable = "FAILOVERD_WALL_DAEMON"

// buildJumping builds a daemon with a time.Now whose wall clock jumps. The
// monotonic clock is left as it is, as the kernel leaves it when somebody sets
// the time. The whole standard library is compiled for it, which takes a while.
func buildJumping(ctx context.Context, t *testing.T) string {
	t.Helper()
	if path := os.Getenv(wallDaemonVariable); path != "" {
		return path
	}
	if !patient() {
		t.Skip("a daemon with another time.Now takes minutes to build: set FAILOVERD_LONG")
	}
	root, err := lab.ModuleRoot()
	must(t, err)
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	must(t, err)
	goTime := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	const now = "sec, nsec, mono := runtimeNow()\n"
	head, tail, found := strings.Cut(read(filepath.Join(goTime, "time.go")), "func Now() Time {\n")
	if !found || !strings.HasPrefix(strings.TrimSpace(tail), strings.TrimSpace(now)) {
		t.Fatalf("time.Now in %s does not begin as this test knows it: adapt the overlay", goTime)
	}
	dir := t.TempDir()
	text := head + "func Now() Time {\n" + strings.Replace(tail, now, now+"\tsec += *jumpPage\n", 1)
	must(t, os.WriteFile(filepath.Join(dir, "time.go"), []byte(text), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "jump.go"), []byte(jumpSource), 0o644))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(goTime, "time.go"): filepath.Join(dir, "time.go"),
		filepath.Join(goTime, "jump.go"): filepath.Join(dir, "jump.go"),
	}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644))
	started := time.Now()
	daemon := filepath.Join(dir, "bin", lab.Daemon)
	build := exec.CommandContext(ctx, "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", daemon, "./cmd/failoverd")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a daemon whose wall clock jumps: %v\n%s", err, out)
	}
	t.Logf("a daemon whose wall clock jumps was built in %v", time.Since(started))
	return daemon
}

// jumping gives programs with such a daemon, and makes a host's wall clock wrong
// by so much from now on.
func jumping(ctx context.Context, t *testing.T) (bin string, jump func(by time.Duration, hosts ...*lab.Host)) {
	t.Helper()
	bin, _ = wrapped(t, buildJumping(ctx, t))
	walls := t.TempDir()
	t.Setenv(wallVariable, walls)
	set := func(host string, by time.Duration) {
		// Written in place: the daemon has the file mapped. x86 and arm64 store
		// their least byte first, and a daemon that reads between two bytes has a
		// clock that is wrong by another while for a moment.
		f, err := os.OpenFile(filepath.Join(walls, host), os.O_CREATE|os.O_WRONLY, 0o644)
		must(t, err)
		defer f.Close()
		seconds := uint64(int64(by / time.Second))
		var raw [8]byte
		for i := range raw {
			raw[i] = byte(seconds >> (8 * i))
		}
		_, err = f.Write(raw[:])
		must(t, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		set(name, 0)
	}
	return bin, func(by time.Duration, hosts ...*lab.Host) {
		t.Helper()
		for _, h := range hosts {
			t.Logf("the wall clock of %s is wrong by %v", h, by)
			set(h.Name(), by)
		}
	}
}

// wallOf reads a daemon's wall clock: the newest time in its log.
func wallOf(ctx context.Context, t *testing.T, r *lab.Rig, h *lab.Host) time.Time {
	t.Helper()
	_, _, err := r.Settled(ctx) // one restart at a time
	must(t, err)
	before := len(read(r.Failoverd.LogFile(h)))
	// A restart by word makes the daemon say something, as the very first thing.
	ctl(ctx, t, r.Failoverd, h, "node", "restart", h.Name(), "--reason", "to look at its clock").mustSay(t, 0)
	var at time.Time
	eventually(ctx, t, "a line in the log of "+h.Name(), func() error {
		text := read(r.Failoverd.LogFile(h))[before:]
		_, rest, found := strings.Cut(text, "time=")
		if !found {
			return complain("%q", text)
		}
		stamp, _, _ := strings.Cut(rest, " ")
		parsed, err := time.Parse(time.RFC3339Nano, stamp)
		at = parsed
		return err
	})
	return at
}

// TestWallClockJumps sets the wall clock of the holder, of the leader and of all
// by an hour forth and back while they run. Nothing comes of it: not a move, not
// a lost request. A failure, a restart and a planned move go on as ever.
func TestWallClockJumps(t *testing.T) {
	ctx := limited(t, 8*time.Minute)
	bin, jump := jumping(ctx, t)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default", Bin: bin})
	all := r.Failoverd.Hosts()
	apart(ctx, t, r)
	for _, who := range []string{"holder", "leader", "all"} {
		for _, by := range []time.Duration{time.Hour, -time.Hour} {
			t.Run(fmt.Sprintf("%s by %v", who, by), func(t *testing.T) {
				unmoved(ctx, t, r, func(holder *lab.Host, s lab.Status) {
					hosts := map[string][]*lab.Host{"holder": {holder}, "leader": {r.Lab.Host(s.Leader)}, "all": all}[who]
					jump(by, hosts...)
					must(t, lab.Wait(ctx, 2*r.Failoverd.Lease()))
					jump(0, hosts...)
					must(t, lab.Wait(ctx, r.Failoverd.Lease()))
				})
			})
		}
	}
	// The clocks stay wrong, each in its own way, and life goes on.
	jump(time.Hour, all[0])
	jump(-time.Hour, all[1])
	unmoved(ctx, t, r, func(holder *lab.Host, _ lab.Status) {
		if off := time.Until(wallOf(ctx, t, r, all[0])); off < 50*time.Minute {
			t.Errorf("the clock of %s is only %v ahead: this test tests nothing", all[0], off)
		}
		if off := time.Until(wallOf(ctx, t, r, all[1])); off > -50*time.Minute {
			t.Errorf("the clock of %s is only %v behind: this test tests nothing", all[1], off)
		}
	})
	stays(ctx, t, r, measured(ctx, t, r, r.KillDaemon(ctx)))
	moves(t, measured(ctx, t, r, r.Switchover(ctx)))
	moves(t, measured(ctx, t, r, r.PowerCut(ctx)))
}

// offset makes the boot clocks of a host's daemon, and of all that it starts,
// other than the machine's, by a time namespace (time_namespaces(7)).
func offset(boot, monotonic time.Duration) string {
	return fmt.Sprintf("with='unshare --time --boottime %d --monotonic %d'", boot/time.Second, monotonic/time.Second)
}

// needTimeNamespaces skips the test where there are none, and gives how long
// the machine is up, below which no clock can be set back.
func needTimeNamespaces(ctx context.Context, t *testing.T) time.Duration {
	t.Helper()
	needLab(t)
	out, err := exec.CommandContext(ctx, "unshare", "--time", "--boottime", "100000", "cat", "/proc/uptime").CombinedOutput()
	if err != nil {
		t.Skipf("time namespaces cannot be had here (CONFIG_TIME_NS, unshare of util-linux): %v: %s", err, out)
	}
	var up, there float64
	if _, err := fmt.Sscan(read("/proc/uptime"), &up); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(out), &there); err != nil {
		t.Fatal(err)
	}
	if there < up+99000 {
		t.Skipf("unshare --time does not move the clock of the program that it executes: uptime %v there, %v here", there, up)
	}
	return time.Duration(up) * time.Second
}

// TestBootClocksDiffer gives every host another boot clock, a day and more
// apart. Nothing changes: no reading is ever compared between hosts.
func TestBootClocksDiffer(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	up := needTimeNamespaces(ctx, t)
	for name, c := range map[string]struct {
		options          lab.RigOptions
		monotonic, early time.Duration
	}{
		// The service's own records are in the machine's CLOCK_MONOTONIC.
		"boot time, with a process": {},
		// Both clocks; what answers is no child of the daemon, and keeps no records.
		"boot time and monotonic, address alone": {lab.RigOptions{Alone: true}, 100000 * time.Second, up / 2},
	} {
		t.Run(name, func(t *testing.T) {
			bin, set := wrapped(t, filepath.Join(programs(t), lab.Daemon))
			set("a", offset(86400*time.Second, c.monotonic))
			set("b", offset(-up/2, -c.early))
			c.options.Bin = bin
			r := newRig(ctx, t, c.options)
			for _, h := range []string{"a", "b"} {
				inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", r.Failoverd.Daemon(r.Lab.Host(h)).Pid()))
				must(t, err)
				if own, err := os.Readlink("/proc/self/ns/time"); err != nil || own == inside {
					t.Fatalf("the daemon of %s has the machine's clocks (%v): this test tests nothing", h, err)
				}
			}
			moves(t, measured(ctx, t, r, r.Switchover(ctx)))
			moves(t, measured(ctx, t, r, r.PowerCut(ctx)))
			m, err := r.Measure(ctx, r.KillDaemon(ctx))
			must(t, err)
			t.Logf("restarted: %s to %s, silence %v", m.Before, m.After, m.Silence)
			if !c.options.Alone {
				moves(t, measured(ctx, t, r, r.Freeze(ctx, 2*r.Failoverd.Lease(), true)))
			}
		})
	}
}

// TestWallClockAndCertificates sets the clock of the holder beyond the end of
// everybody's certificates, and before their begin: who comes anew is refused; the
// service, whose lease needs no certificate, stays. With the right time all is well again.
func TestWallClockAndCertificates(t *testing.T) {
	ctx := limited(t, 6*time.Minute)
	bin, jump := jumping(ctx, t)
	l, err := lab.New(lab.Options{Log: t.Logf, Bin: bin, Hosts: []string{"a", "b", "c", "desk"}})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	must(t, l.Watch(lab.VIP))
	nodes, desk := l.Hosts()[:3], l.Host("desk")
	f, err := l.Failoverd(lab.FailoverdOptions{Hosts: nodes, Profile: "default"})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			tell(t, f)
		}
	})
	a := newAuthority(t, "ours")
	for _, h := range nodes {
		secure(t, f, h, a, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	}
	must(t, f.Start(nodes...))
	_, _, err = f.Settled(ctx, "")
	must(t, err)
	must(t, f.Apply(ctx, fmt.Sprintf("service %q {\n  vip \"%s/24\" { interface = %q }\n}\n", lab.Service, lab.VIP, lab.Interface)))
	holder, s, err := f.Settled(ctx, lab.Service)
	must(t, err)
	_, epoch, _ := serviceOf(s, lab.Service)
	cert, key := a.issue(t, "operator", nil)
	ask := func() outcome {
		return on(ctx, t, desk, lab.Control, "--address", api(holder), "--ca", a.path, "--cert", cert, "--key", key, "status")
	}
	ask().mustSay(t, 0, holder.Name())
	// issue gives certificates that have been good for an hour and stay so for 1000.
	for _, by := range []time.Duration{1001 * time.Hour, -2 * time.Hour} {
		jump(by, holder)
		o := ask()
		if o.code == 0 || !strings.Contains(o.errors, "certificate") {
			t.Errorf("with the clock of %s wrong by %v: want a refusal that names the certificate: %s", holder, by, o)
		}
		steadily(ctx, t, 2*f.Lease(), "with certificates out of date", func() error {
			if now := l.Holders(); len(now) != 1 || now[0] != holder.Name() {
				return complain("%v have the address, %s had it", now, holder)
			}
			return nil
		})
		jump(0, holder)
		eventually(ctx, t, "with the right time", func() error {
			if o := ask(); o.code != 0 {
				return complain("%s", o)
			}
			return nil
		})
	}
	_, s, err = f.Settled(ctx, lab.Service)
	must(t, err)
	if name, e, _ := serviceOf(s, lab.Service); name != holder.Name() || e != epoch {
		t.Errorf("%s held it under epoch %d, now %s does under %d", holder, epoch, name, e)
	}
}
