package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/failoverd/failoverd/integration/disk"
	"github.com/failoverd/failoverd/integration/lab"
)

// disks are the breakable file systems that hold the daemons' data, one for
// each host. Without FUSE there are none, and faults of disks find nothing to break.
type disks struct {
	mu     sync.Mutex
	of     map[*lab.Host]*disk.Disk
	denied error // why there are none
}

// boot mounts the host's disk, before its daemon starts.
func (d *disks) boot(h *lab.Host) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.denied != nil {
		return nil
	}
	one := d.of[h]
	if one == nil {
		var err error
		if one, err = disk.New(filepath.Join(h.Dir(), "data")); err != nil {
			return err
		}
		if err := one.Volatile(true); err != nil {
			return errors.Join(err, one.Close())
		}
	}
	err := one.Mount(h.Pid())
	if errors.Is(err, disk.ErrDenied) && len(d.of) == 0 {
		d.denied = err
		return one.Close()
	}
	d.of[h] = one
	return err
}

// get gives the host's disk, or errNothingThere.
func (d *disks) get(h *lab.Host) (*disk.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.of[h]; one != nil {
		return one, nil
	}
	return nil, fmt.Errorf("%w: %s has no disk that can be broken", errNothingThere, h)
}

// close ends every fault and takes the disks away; what is open there goes on.
func (d *disks) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var problems []error
	for _, one := range d.of {
		problems = append(problems, one.Close())
	}
	d.of = map[*lab.Host]*disk.Disk{}
	return errors.Join(problems...)
}

// power cuts the power, and with it some of what was not synced; what runs from
// the boot on is started with the power.
func power(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	in.expect(h, true)
	var err error
	if d, missing := in.disks.get(h); missing != nil {
		err = h.PowerOff()
	} else {
		err = d.Cut(h.PowerOff, rand.New(rand.NewPCG(rand.Uint64(), 0)))
	}
	if err != nil {
		return nil, err
	}
	return func() error {
		err := in.rig.PowerOn(h)
		in.expect(h, false)
		return err
	}, nil
}

// broken begins a fault of the host's disk.
func broken(in *injector, h *lab.Host, begin func(*disk.Disk) *disk.Fault) (func() error, error) {
	d, err := in.disks.get(h)
	if err != nil {
		return nil, err
	}
	f := begin(d)
	return func() error { f.End(); return nil }, nil
}

func diskHangs(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return broken(in, h, func(d *disk.Disk) *disk.Fault { return d.Hang(disk.On(disk.Writes | disk.Sync)) })
}

func diskSlow(_ context.Context, in *injector, h *lab.Host, f fault) (func() error, error) {
	return broken(in, h, func(d *disk.Disk) *disk.Fault {
		return d.Slow(disk.On(disk.Writes|disk.Sync), 0, time.Duration(f.arg)*time.Millisecond)
	})
}

func diskFull(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return broken(in, h, (*disk.Disk).NoSpace)
}

func diskFails(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return broken(in, h, func(d *disk.Disk) *disk.Fault { return d.Fail(disk.On(disk.Sync), syscall.EIO) })
}

func diskReadOnly(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return broken(in, h, (*disk.Disk).ReadOnly)
}
