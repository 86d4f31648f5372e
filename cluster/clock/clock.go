// Package clock reads how much time has passed on this machine, by two clocks
// that fail differently.
//
// CLOCK_BOOTTIME goes on while the machine is suspended, but NTP slews it
// (chrony by up to 8 %). CLOCK_MONOTONIC_RAW is never slewed, but stands still
// during a suspend. A lease needs both: whoever must not serve too long counts
// the larger of the two elapsed times (Longer), whoever must wait long enough
// counts the smaller (Shorter). Readings mean something only on the machine and
// in the boot that took them; they are never compared between nodes.
package clock

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Reading is one look at both clocks, each counted from an origin of its own.
// The clocks are read one after the other, Boot first; a process that is frozen
// in between gets two values that are both true, each for its own clock.
type Reading struct {
	Boot time.Duration // CLOCK_BOOTTIME, clock_gettime(2)
	Raw  time.Duration // CLOCK_MONOTONIC_RAW, clock_gettime(2)
}

// Add returns the reading d later in both clocks.
func (r Reading) Add(d time.Duration) Reading {
	return Reading{Boot: r.Boot + d, Raw: r.Raw + d}
}

// Clock gives readings. An implementation never goes back in either clock.
type Clock interface {
	Now() Reading
}

// Longer returns the larger of the two times that passed between two readings:
// what the side counts that must not go on too long.
func Longer(from, to Reading) time.Duration {
	return max(to.Boot-from.Boot, to.Raw-from.Raw)
}

// Shorter returns the smaller of the two times that passed between two
// readings: what the side counts that must have waited long enough.
func Shorter(from, to Reading) time.Duration {
	return min(to.Boot-from.Boot, to.Raw-from.Raw)
}

// Left returns what is left at now until an absolute deadline, which is over as
// soon as either clock reaches its value: zero or less means over.
func Left(now, deadline Reading) time.Duration {
	return min(deadline.Boot-now.Boot, deadline.Raw-now.Raw)
}

// System returns the machine's clocks. Call Check once at the start of a
// process that uses them.
func System() Clock { return system{} }

type system struct{}

// Now reads both clocks without an allocation.
func (system) Now() Reading {
	boot := read(unix.CLOCK_BOOTTIME)
	return Reading{Boot: boot, Raw: read(unix.CLOCK_MONOTONIC_RAW)}
}

// read does not return without a value. With a valid clock and pointer the call
// fails only under a system call filter, which Check reports. Were it to fail
// nevertheless, no made-up value would be safe for the holder, the voter and the
// leader alike, while a process that stands still is: the kernel's deadlines go on.
func read(id int32) time.Duration {
	var ts unix.Timespec
	for unix.ClockGettime(id, &ts) != nil {
	}
	return time.Duration(ts.Sec)*time.Second + time.Duration(ts.Nsec)
}

// Check reports whether both clocks can be read here. It fails on kernels
// before 2.6.39 and under system call filters that forbid clock_gettime(2).
func Check() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return fmt.Errorf("read CLOCK_BOOTTIME: %w; allow clock_gettime in the system call filter", err)
	}
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
		return fmt.Errorf("read CLOCK_MONOTONIC_RAW: %w; allow clock_gettime in the system call filter", err)
	}
	return nil
}
