// Package disk is a file system that breaks on request: it passes everything
// through to a directory until it is told to hang, to be slow, to fail, to be
// full or read-only, or to lose at a power cut what nobody has synced.
//
// It is mounted inside a mount namespace, normally a lab host's, over the
// directory that it passes through to: the host's daemon sees the faults, the
// machine sees the directory itself, and nothing is left in the machine's own
// mounts whatever happens to the process that serves it.
//
//	d, err := disk.New(filepath.Join(h.Dir(), "data"))
//	defer d.Close()
//	err = d.Mount(h.Pid())                        // before the daemon starts
//	f := d.Hang(disk.On(disk.Writes|disk.Sync))   // every write waits …
//	f.End()                                       // … and goes on
//	d.Fail(disk.On(disk.Sync, "raft.db"), syscall.EIO)
//	d.Heal()                                      // ends every fault
//
// A power cut with the loss of what was not synced:
//
//	d.Volatile(true)                              // while nothing is mounted
//	err = d.Cut(h.PowerOff, rng)                  // hangs, switches off, forgets
//	err = h.PowerOn()
//	err = d.Mount(h.Pid())
//
// The process that serves a disk must not use it by more than plain system
// calls: a page fault in a mapping would keep its runtime, and so the answer,
// waiting. Lab hosts' processes are others.
//
// A sync of the underlying directory is left out: the directory outlives every
// power cut of a lab, and the machine's own disk is shared by all tests.
package disk
