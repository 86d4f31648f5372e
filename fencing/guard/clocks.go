package guard

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Deadline is an absolute instant on both clocks of the lease: it is over when
// either is reached, which is the shorter time left. A reading of the clocks
// has the same form.
type Deadline struct {
	Boot time.Duration `json:"boot"` // CLOCK_BOOTTIME
	Raw  time.Duration `json:"raw"`  // CLOCK_MONOTONIC_RAW
}

// Now reads both clocks. Of the two readings the first may be earlier by the
// time between two system calls, which makes a wait longer, never a lease.
func Now() (Deadline, error) {
	var boot, raw unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return Deadline{}, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &raw); err != nil {
		return Deadline{}, fmt.Errorf("read CLOCK_MONOTONIC_RAW: %w", err)
	}
	return Deadline{Boot: time.Duration(boot.Nano()), Raw: time.Duration(raw.Nano())}, nil
}

// IsZero reports whether no deadline is set.
func (d Deadline) IsZero() bool { return d == Deadline{} }

// Left is the time until the deadline, the shorter of the two; 0 or less: it is over.
func (d Deadline) Left(now Deadline) time.Duration {
	return min(d.Boot-now.Boot, d.Raw-now.Raw)
}

// Add moves both readings by the same time.
func (d Deadline) Add(t time.Duration) Deadline { return Deadline{Boot: d.Boot + t, Raw: d.Raw + t} }

// later takes the later of each reading. Two deadlines of one session are
// readings of the same clocks plus the same lease, so one is later in both.
func (d Deadline) later(o Deadline) Deadline {
	return Deadline{Boot: max(d.Boot, o.Boot), Raw: max(d.Raw, o.Raw)}
}

// sameClocks compares a client's reading, taken a moment before, with ours. A
// time namespace (time_namespaces(7)) shifts one or both of the clocks, and an
// absolute deadline would then mean another instant here.
func sameClocks(theirs, ours Deadline) error {
	const late, slack = 30 * time.Second, 50 * time.Millisecond
	boot, raw := ours.Boot-theirs.Boot, ours.Raw-theirs.Raw
	skew := (boot - raw).Abs()
	if boot < -slack || raw < -slack || boot > late || raw > late || skew > time.Second {
		return fmt.Errorf("%w: the client's CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW are %v and %v behind ours; "+
			"start daemon and guard in the same time namespace", ErrClocks, boot, raw)
	}
	return nil
}

// bootID identifies this boot of the kernel (random(4)).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
