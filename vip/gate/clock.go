package gate

import (
	"time"

	"golang.org/x/sys/unix"
)

// Instant is a reading of the two clocks by which a holder measures its lease:
// CLOCK_BOOTTIME counts suspend but is slewed by NTP, CLOCK_MONOTONIC_RAW is not
// slewed but skips suspend. Who must not serve too long counts the longer of
// the two elapsed times (LEASE.md, R7). Instants mean nothing on another host
// or in another boot.
type Instant struct {
	Boot, Raw time.Duration
}

// Now reads both clocks.
func Now() Instant {
	return Instant{Boot: read(unix.CLOCK_BOOTTIME), Raw: read(unix.CLOCK_MONOTONIC_RAW)}
}

// Since returns the longer of the two times that have passed from earlier to i.
func (i Instant) Since(earlier Instant) time.Duration {
	return max(i.Boot-earlier.Boot, i.Raw-earlier.Raw)
}

func read(clock int32) time.Duration {
	var ts unix.Timespec
	// The only failures that clock_gettime(2) knows are a bad pointer and a
	// clock that the kernel lacks; both clocks exist since Linux 2.6.39.
	if err := unix.ClockGettime(clock, &ts); err != nil {
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	}
	return time.Duration(ts.Nano())
}
