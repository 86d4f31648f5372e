package guard

import (
	"os"
	"testing"
	"time"
)

// Real-time priority and locked memory are had by root, and cost little memory.
func TestRealtimeIsOfferedAndCheap(t *testing.T) {
	r := startRig(t, func(o *SpawnOptions) { o.Realtime = true })
	info := r.Info()
	t.Logf("real-time %v, memory locked %v, %d MB resident; %s", info.Realtime, info.MemoryLocked, residentBytes(t, r.Pid())>>20, info.RealtimeText)
	if os.Geteuid() != 0 {
		if (!info.Realtime || !info.MemoryLocked) && info.RealtimeText == "" {
			t.Error("refused, and it is not said why")
		}
		return
	}
	if !info.Realtime || !info.MemoryLocked {
		t.Skipf("not granted here even to root: %s", info.RealtimeText)
	}
	served, d := r.serveUnder(600*time.Millisecond, "a")
	served.check("with real-time priority", d, 0)
	if rss := residentBytes(t, r.Pid()); rss > 60<<20 {
		t.Errorf("%d MB resident", rss>>20)
	}
}
