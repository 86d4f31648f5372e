package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echo answers every datagram on port 9 of the host until the test ends.
func echo(t *testing.T, h *Host) {
	t.Helper()
	var conn *net.UDPConn
	must(t, h.In(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 9})
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(b[:n], from)
		}
	}()
}

// answers counts how many of n datagrams from one host to another come back.
func answers(t *testing.T, from, to *Host, n int, patience time.Duration) int {
	t.Helper()
	var conn *net.UDPConn
	must(t, from.In(func() (err error) {
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Address(), 9)))
		return err
	}))
	defer conn.Close()
	count := 0
	for i := range n {
		if _, err := conn.Write([]byte{byte(i)}); err != nil {
			continue
		}
		must(t, conn.SetReadDeadline(time.Now().Add(patience)))
		if _, err := conn.Read(make([]byte, 64)); err == nil {
			count++
		}
	}
	return count
}

// reach reports whether a datagram comes back at all.
func reach(t *testing.T, from, to *Host) bool {
	t.Helper()
	return answers(t, from, to, 2, 100*time.Millisecond) > 0
}

// reaches waits until reach is as wanted, for a busy machine's sake.
func reaches(t *testing.T, from, to *Host, want bool) bool {
	t.Helper()
	return wait(5*time.Second, time.Millisecond, func() error {
		if reach(t, from, to) != want {
			return errors.New("not as wanted")
		}
		return nil
	}) == nil
}

func TestHostsReachEachOtherUntilTheyAreCutOff(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	for _, h := range l.Hosts() {
		echo(t, h)
	}
	check := func(what string, from, to *Host, want bool) {
		t.Helper()
		if !reaches(t, from, to, want) {
			t.Errorf("%s: %s reaches %s: %v, want %v", what, from, to, !want, want)
		}
	}
	check("at first", a, b, true)
	check("at first", b, c, true)

	must(t, l.Partition(a))
	check("partition of a", a, b, false)
	check("partition of a", b, a, false)
	check("partition of a", b, c, true)
	if !carrier(t, a) {
		t.Error("a partition took the carrier")
	}
	must(t, l.Heal())
	check("healed", a, b, true)

	must(t, b.Unplug())
	check("b unplugged", a, b, false)
	if carrier(t, b) {
		t.Error("an unplugged host has a carrier")
	}
	must(t, b.Plug())
	check("b plugged in again", a, b, true)

	must(t, l.Split([]*Host{a, b}, []*Host{c}))
	check("split", a, b, true)
	check("split", a, c, false)
	must(t, l.Heal())
}

func TestOneWayCutsPortsAndLoss(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	for _, h := range l.Hosts() {
		echo(t, h)
	}
	// Addresses are resolved first: ARP is to be neither cut nor counted.
	for _, h := range []*Host{b, c} {
		if !reaches(t, a, h, true) {
			t.Fatalf("a does not reach %s", h)
		}
	}
	must(t, l.Cut(b, a))
	if reach(t, a, b) {
		t.Error("answers of b came through a cut from b to a")
	}
	if !reaches(t, a, c, true) || !reaches(t, b, c, true) {
		t.Error("a cut from b to a cut others too")
	}
	must(t, l.Heal())

	must(t, l.CutPort(a, b, UDP, 9))
	if reach(t, a, b) {
		t.Error("a reaches the port that was cut")
	}
	if !reaches(t, b, a, true) {
		t.Error("the port was cut for the other direction too")
	}
	must(t, l.Heal())
	must(t, l.CutPort(a, b, TCP, 9))
	if !reaches(t, a, b, true) {
		t.Error("a cut of a TCP port stopped UDP")
	}
	must(t, l.Heal())

	must(t, l.Lose(40, a, b))
	// There and back both pass with 0.36: of 200, some 72 with a deviation of 7.
	if n := answers(t, a, b, 200, 25*time.Millisecond); n < 30 || n > 114 {
		t.Errorf("%d of 200 came back with 40 %% loss each way, want about 72", n)
	}
	must(t, l.Heal())
	if n := answers(t, a, b, 50, time.Second); n != 50 {
		t.Errorf("%d of 50 came back after healing", n)
	}
}

func carrier(t *testing.T, h *Host) bool {
	t.Helper()
	up := false
	must(t, h.In(func() error {
		handle, err := handleIn(h.ns.net)
		if err != nil {
			return err
		}
		defer handle.Close()
		link, err := handle.LinkByName(Interface)
		if err != nil {
			return err
		}
		up = link.Attrs().RawFlags&syscall.IFF_RUNNING != 0
		return nil
	}))
	return up
}

func TestAHostIsAMachineOfItsOwn(t *testing.T) {
	l := newLab(t, "a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	read := func(h *Host, path string) string {
		t.Helper()
		out, err := h.Run(ctx, "/bin/cat", path)
		must(t, err)
		return strings.TrimSpace(out)
	}
	a, b := l.Host("a"), l.Host("b")
	const boot = "/proc/sys/kernel/random/boot_id"
	first := read(a, boot)
	if first == read(b, boot) || first == mustRead(t, boot) {
		t.Error("hosts share a boot id")
	}
	if again := read(a, boot); again != first {
		t.Errorf("the boot id changed from %s to %s without a reboot", first, again)
	}
	if name := read(a, "/proc/sys/kernel/hostname"); name != "a" {
		t.Errorf("host name %q", name)
	}
	if comm := read(a, "/proc/1/cmdline"); !strings.HasPrefix(comm, roleInit) {
		t.Errorf("process 1 of the host is %q", comm)
	}
	must(t, a.PowerOff())
	if _, err := a.Run(ctx, "/bin/true"); err == nil {
		t.Error("a program ran on a host that is off")
	}
	must(t, a.PowerOn())
	if second := read(a, boot); second == first {
		t.Error("a power cycle kept the boot id")
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	return strings.TrimSpace(string(raw))
}

func TestPowerOffKillsEverythingAtOnce(t *testing.T) {
	l := newLab(t, "a")
	a := l.Host("a")
	// A shell with children that left its session: nothing but the power switch finds them all.
	cmd := exec.Command("/bin/sh", "-c", "setsid sleep 1000 & setsid sh -c 'sleep 1001 & sleep 1002' & wait")
	shell, err := a.Start(cmd)
	must(t, err)
	var before []Process
	must(t, wait(10*time.Second, 5*time.Millisecond, func() (err error) {
		if before, err = a.Programs("sleep"); err == nil && len(before) < 3 {
			err = context.DeadlineExceeded
		}
		return err
	}))
	must(t, a.PowerOff())
	if err := shell.Wait(); err == nil {
		t.Error("the shell ended well")
	}
	for _, p := range before {
		if err := syscall.Kill(p.Pid, 0); err == nil {
			t.Errorf("process %d (%s) survived the power-off", p.Pid, p.Program)
		}
	}
	if all, err := a.Processes(); err != nil || len(all) != 0 {
		t.Errorf("processes of a host that is off: %v, %v", all, err)
	}
}

func TestStopFreezesAndContContinues(t *testing.T) {
	l := newLab(t, "a")
	a := l.Host("a")
	sleep, err := a.Start(exec.Command("/bin/sleep", "1000"))
	must(t, err)
	status := func() string {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(sleep.Pid()) + "/stat")
		must(t, err)
		_, rest, _ := strings.Cut(string(raw), ") ")
		return rest[:1]
	}
	waitStatus := func(want string) {
		t.Helper()
		must(t, wait(5*time.Second, time.Millisecond, func() error {
			if got := status(); !strings.Contains(want, got) {
				return &statusError{got, want}
			}
			return nil
		}))
	}
	// The name of the program is known once it has been executed.
	must(t, wait(5*time.Second, time.Millisecond, func() error {
		n, err := a.Stop("sleep")
		if err == nil && n != 1 {
			err = context.DeadlineExceeded
		}
		return err
	}))
	waitStatus("T")
	if n, err := a.Cont("sleep"); err != nil || n != 1 {
		t.Fatalf("continued %d, %v", n, err)
	}
	waitStatus("SR")
	if a.CanFreeze() {
		must(t, a.Freeze())
		// The kernel would not let go of the thread that starts it.
		if _, err := a.Start(exec.Command("/bin/true")); err == nil {
			t.Error("something was started on a frozen host")
		}
		must(t, a.Thaw())
		if _, err := a.Run(t.Context(), "/bin/true"); err != nil {
			t.Error(err)
		}
	}
	sleep.Kill()
}

type statusError struct{ got, want string }

func (e *statusError) Error() string { return "process state " + e.got + ", want " + e.want }
