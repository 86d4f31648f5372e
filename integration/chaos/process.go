package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/failoverd/failoverd/integration/lab"
)

// termLimit is how long a daemon may take to end after SIGTERM.
const termLimit = 30 * time.Second

func kill(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	in.expect(h, true)
	defer in.expect(h, false)
	return nil, errors.Join(in.rig.Failoverd.Kill(h), in.rig.Failoverd.Start(h))
}

func killLate(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	in.expect(h, true)
	return in.startAgain(h), in.rig.Failoverd.Kill(h)
}

// startAgain gives what starts the daemon, which the lab expects to run from then on.
func (in *injector) startAgain(h *lab.Host) func() error {
	return func() error {
		err := in.rig.Failoverd.Start(h)
		in.expect(h, false)
		return err
	}
}

func terminate(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	daemon := in.rig.Failoverd.Daemon(h)
	in.expect(h, true)
	if err := daemon.Signal(syscall.SIGTERM); err != nil {
		in.expect(h, false)
		return nil, fmt.Errorf("stop the daemon of %s: %w", h, err)
	}
	return func() error {
		select {
		case <-daemon.Done():
			// One that has only just been started knows no signal yet.
			if err := daemon.Wait(); err != nil && !endedBy(err, syscall.SIGTERM) {
				in.warn("the daemon of %s was told to end and ended badly: %v", h, err)
			}
		case <-time.After(termLimit):
			in.warn("the daemon of %s did not end within %v of SIGTERM", h, termLimit)
			daemon.Kill()
		}
		return in.startAgain(h)()
	}, nil
}

// endedBy reports whether a process ended by that signal.
func endedBy(err error, signal syscall.Signal) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == signal
}

// stop freezes programs with SIGSTOP.
func stop(programs ...string) func(context.Context, *injector, *lab.Host, fault) (func() error, error) {
	return func(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
		deaf := slices.Contains(programs, lab.Daemon)
		if deaf {
			in.rig.Failoverd.Deaf(h, true)
		}
		n, err := h.Stop(programs...)
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: no %v on %s", errNothingThere, programs, h)
		}
		return func() error {
			_, err := h.Cont(programs...)
			if deaf {
				in.rig.Failoverd.Deaf(h, false)
			}
			return err
		}, err
	}
}

func freeze(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	if !h.CanFreeze() {
		return nil, fmt.Errorf("%w: no control group of %s can be frozen", errNothingThere, h)
	}
	in.rig.Failoverd.Deaf(h, true)
	return func() error {
		err := h.Thaw()
		in.rig.Failoverd.Deaf(h, false)
		return err
	}, h.Freeze()
}

// killGuard kills the outermost guard: the kernel must do the rest.
func killGuard(_ context.Context, _ *injector, h *lab.Host, _ fault) (func() error, error) {
	all, err := h.Programs(lab.Guard)
	if err != nil {
		return nil, err
	}
	var own []int
	for _, p := range all {
		if !p.Nested {
			own = append(own, p.Pid)
		}
	}
	if len(own) == 0 {
		return nil, fmt.Errorf("%w: no guard on %s", errNothingThere, h)
	}
	if err := syscall.Kill(slices.Min(own), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, fmt.Errorf("kill the guard of %s: %w", h, err)
	}
	return nil, nil
}

// flush is somebody's nft flush ruleset.
func flush(_ context.Context, _ *injector, h *lab.Host, _ fault) (func() error, error) {
	return nil, h.In(func() error {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("flush nftables of %s: %w", h, err)
		}
		c.FlushRuleset()
		return errors.Join(c.Flush(), c.CloseLasting())
	})
}

// removeAddress is somebody's ip addr del.
func removeAddress(_ context.Context, _ *injector, h *lab.Host, _ fault) (func() error, error) {
	return nil, h.In(func() error {
		handle, err := netlink.NewHandle()
		if err != nil {
			return fmt.Errorf("remove address of %s: %w", h, err)
		}
		defer handle.Close()
		link, err := handle.LinkByName(lab.Interface)
		if err != nil {
			return fmt.Errorf("remove address of %s: %w", h, err)
		}
		all, err := handle.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("remove address of %s: %w", h, err)
		}
		for _, a := range all {
			if a.IP.Equal(lab.VIP.AsSlice()) {
				err := handle.AddrDel(link, &a)
				if errors.Is(err, syscall.EADDRNOTAVAIL) {
					return nil // the daemon was faster
				}
				return err
			}
		}
		return fmt.Errorf("%w: %s has no virtual address", errNothingThere, h)
	})
}

// busy runs loops that want all of the processors.
func busy(_ context.Context, _ *injector, h *lab.Host, f fault) (func() error, error) {
	var loops []*lab.Running
	end := func() error {
		for _, r := range loops {
			r.Kill()
		}
		return nil
	}
	for range f.arg {
		r, err := h.Start(exec.Command("/bin/sh", "-c", "while :; do :; done"))
		if err != nil {
			return nil, errors.Join(err, end())
		}
		loops = append(loops, r)
	}
	return end, nil
}
