package integration

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/disk"
	"github.com/failoverd/failoverd/integration/lab"
)

// longVariable asks for the figures: more rounds of what is random or measured.
const longVariable = "FAILOVERD_LONG"

// disks puts a breakable disk under the data of every host. They are switched
// off for it, all at once.
func disks(ctx context.Context, t *testing.T, r *lab.Rig, volatile bool) map[string]*disk.Disk {
	t.Helper()
	all := map[string]*disk.Disk{}
	for _, h := range r.Failoverd.Hosts() {
		must(t, h.PowerOff())
		d, err := disk.New(filepath.Join(h.Dir(), "data"))
		must(t, err)
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Errorf("close the disk of %s: %v", h, err)
			}
		})
		must(t, d.Volatile(volatile))
		all[h.Name()] = d
	}
	for _, h := range r.Failoverd.Hosts() {
		boot(t, r, h, all[h.Name()])
	}
	_, _, err := r.Settled(ctx)
	must(t, err)
	return all
}

// boot switches a host on, with its disk, and starts its daemon.
func boot(t *testing.T, r *lab.Rig, h *lab.Host, d *disk.Disk) {
	t.Helper()
	must(t, h.PowerOn())
	if err := d.Mount(h.Pid()); errors.Is(err, disk.ErrDenied) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	must(t, r.Failoverd.Start(h))
}

// writes are the operations that a hung disk does not finish.
var writes = disk.On(disk.Writes | disk.Sync)

// The disk limit and the election timeout of the profile "default" (cluster/config).
const (
	diskLimit       = 500 * time.Millisecond
	electionTimeout = 500 * time.Millisecond
)

// rounds is how often something is done: more when figures are asked for.
func rounds(ci, long int) int {
	if os.Getenv(longVariable) != "" {
		return long
	}
	return ci
}

// long skips what takes too long for every run.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv(longVariable) == "" {
		t.Skipf("it takes minutes: set %s=1", longVariable)
	}
}

// replaced waits until the other hosts' daemons know another leader than before.
func replaced(ctx context.Context, t *testing.T, r *lab.Rig, before *lab.Host) {
	t.Helper()
	eventually(ctx, t, "a leader beside "+before.Name(), func() error {
		for _, h := range r.Failoverd.Hosts() {
			if h == before {
				continue
			}
			s, err := status(ctx, r.Failoverd, h, "--local")
			if err == nil && s.Leader != "" && s.Leader != before.Name() {
				return nil
			}
		}
		return complain("%s leads", before)
	})
}

// together moves the service to the leader, or leaves it there.
func together(ctx context.Context, t *testing.T, r *lab.Rig) *lab.Host {
	t.Helper()
	for range 5 {
		holder, s, err := r.Settled(ctx)
		must(t, err)
		if holder.Name() == s.Leader {
			return holder
		}
		_, err = r.Failoverd.Switchover(ctx, lab.Service, s.Leader)
		must(t, err)
	}
	t.Fatal("after five switchovers the leader does not hold the service")
	return nil
}

// ended waits until the host's daemon has ended by itself and gives its exit
// code and its last words.
func ended(ctx context.Context, t *testing.T, r *lab.Rig, h *lab.Host) (code int, words string) {
	t.Helper()
	d := r.Failoverd.Daemon(h)
	select {
	case <-d.Done():
	case <-ctx.Done():
		t.Fatalf("the daemon of %s goes on: %s", h, last(read(r.Failoverd.LogFile(h)), 10))
	}
	return exitCode(d), last(read(r.Failoverd.LogFile(h)), 3)
}

// hasAlarm waits for an alarm of the host's with the words.
func hasAlarm(ctx context.Context, t *testing.T, r *lab.Rig, h *lab.Host, words string) {
	t.Helper()
	eventually(ctx, t, "alarm of "+h.Name(), func() error {
		s, err := status(ctx, r.Failoverd, h, "--local")
		if err != nil {
			return err
		}
		for _, a := range s.Alarms {
			if strings.Contains(a, words) {
				return nil
			}
		}
		return complain("no alarm with %q among %q", words, s.Alarms)
	})
}

// TestHungDisk: every write of a node's daemon hangs.
func TestHungDisk(t *testing.T) {
	ctx := limited(t, 8*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	all := disks(ctx, t, r, false)
	lease := r.Failoverd.Lease()

	// The leader is replaced within the disk limit and three election timeouts, and
	// the service notices nothing, neither then nor when the disk is back.
	t.Run("of the leader", func(t *testing.T) {
		bound := diskLimit + 3*electionTimeout
		var took []time.Duration
		for range rounds(2, 10) {
			apart(ctx, t, r)
			m := measured(ctx, t, r, func(_ *lab.Host, s lab.Status) error {
				f := all[s.Leader].Hang(writes)
				defer f.End()
				began := time.Now()
				replaced(ctx, t, r, r.Lab.Host(s.Leader))
				took = append(took, time.Since(began))
				hasAlarm(ctx, t, r, r.Lab.Host(s.Leader), "stuck")
				return lab.Wait(ctx, lease)
			})
			stays(ctx, t, r, m)
		}
		slices.Sort(took)
		t.Logf("replaced after %v (%v to %v), %d times; want at most %v", took[len(took)/2], took[0], took[len(took)-1], len(took), bound)
		if median := took[len(took)/2]; median > bound {
			t.Errorf("median %v, want at most %v", median, bound)
		}
	})

	// A lease needs no disk: the holder serves on, for longer than its lease.
	t.Run("of the holder", func(t *testing.T) {
		apart(ctx, t, r)
		m := measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
			f := all[holder.Name()].Hang(writes)
			defer f.End()
			return lab.Wait(ctx, 3*lease)
		})
		stays(ctx, t, r, m)
	})

	t.Run("of the holder that leads", func(t *testing.T) {
		together(ctx, t, r)
		m := measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
			f := all[holder.Name()].Hang(writes)
			defer f.End()
			replaced(ctx, t, r, holder)
			return lab.Wait(ctx, 2*lease)
		})
		stays(ctx, t, r, m)
	})

	// A holder that is to give up and cannot write that down stops, and lets its
	// lease run out; nobody begins before that.
	t.Run("of the holder during a switchover", func(t *testing.T) {
		long(t)
		apart(ctx, t, r)
		holder, _, err := r.Settled(ctx)
		must(t, err)
		f := all[holder.Name()].Hang(writes)
		t.Cleanup(f.End)
		since := r.Lab.Now()
		asked := make(chan error, 1)
		go func() {
			_, err := r.Failoverd.Switchover(ctx, lab.Service, "")
			asked <- err // it may say that it does not know: the move is slow
		}()
		answer, err := r.Moved(ctx, holder, since)
		must(t, err)
		t.Logf("%s answers %v after the order", answer.Node, (answer.Sent - since).Round(time.Millisecond))
		f.End()
		<-asked
		now, _, err := r.Settled(ctx)
		must(t, err)
		if now == holder {
			t.Errorf("%s holds again", holder)
		}
	})

	// Slow is not hung: nothing moves.
	t.Run("slow only", func(t *testing.T) {
		_, s, err := r.Settled(ctx)
		must(t, err)
		m := measured(ctx, t, r, func(*lab.Host, lab.Status) error {
			for _, d := range all {
				f := d.Slow(disk.On(disk.Sync), 100*time.Millisecond, 200*time.Millisecond)
				defer f.End()
			}
			return lab.Wait(ctx, 2*lease)
		})
		stays(ctx, t, r, m)
		if m.Status.Leader != s.Leader {
			t.Errorf("%s leads after %s", m.Status.Leader, s.Leader)
		}
	})
}

// TestFailingDisk: a disk that says no.
func TestFailingDisk(t *testing.T) {
	ctx := limited(t, 5*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	all := disks(ctx, t, r, false)

	// What a failed sync leaves on the disk is unknown: the daemon ends and says
	// so, and a new one starts once the disk is well.
	for _, file := range []string{"raft.db", "probe"} {
		t.Run("sync of "+file, func(t *testing.T) {
			apart(ctx, t, r)
			m := measured(ctx, t, r, func(_ *lab.Host, s lab.Status) error {
				leader := r.Lab.Host(s.Leader)
				f := all[s.Leader].Fail(disk.On(disk.Sync, file), syscall.EIO)
				if file == "raft.db" {
					_, err := r.Failoverd.AnyCtl(ctx, "pause", "--reason", "something to write down") // it ends as unknown
					t.Logf("meanwhile: %v", err)
				}
				code, words := ended(ctx, t, r, leader)
				if code != codeError || !strings.Contains(words, "check the disk") || !strings.Contains(words, "input/output error") {
					t.Errorf("exit code %d, want %d and what to do: %s", code, codeError, words)
				}
				if f.Hits() > 1 {
					t.Errorf("a sync that failed was tried %d times more", f.Hits()-1)
				}
				f.End()
				return r.Failoverd.Start(leader)
			})
			if file == "raft.db" {
				_, err := r.Failoverd.AnyCtl(ctx, "resume")
				must(t, err)
			}
			stays(ctx, t, r, m)
		})
	}

	for name, fault := range map[string]func(*disk.Disk) *disk.Fault{"full": (*disk.Disk).NoSpace, "read-only": (*disk.Disk).ReadOnly} {
		// The leader steps down, says why, and takes part again when there is room,
		// without a new start; the service notices nothing.
		t.Run(name, func(t *testing.T) {
			apart(ctx, t, r)
			var leader *lab.Host
			m := measured(ctx, t, r, func(_ *lab.Host, s lab.Status) error {
				leader = r.Lab.Host(s.Leader)
				f := fault(all[s.Leader])
				defer f.End()
				replaced(ctx, t, r, leader)
				hasAlarm(ctx, t, r, leader, "stuck")
				eventually(ctx, t, "word of it", func() error {
					if said := read(r.Failoverd.LogFile(leader)); !strings.Contains(said, "free some space") {
						return complain("it says: %s", last(said, 3))
					}
					return nil
				})
				return nil
			})
			stays(ctx, t, r, m)
			select {
			case <-r.Failoverd.Daemon(leader).Done():
				t.Error("the daemon has ended")
			default:
			}
		})
	}
}

// TestPowerCutLosesWhatIsNotSynced cuts the power of hosts while elections and
// moves go on, and takes from their disks whatever nobody has synced: nobody
// votes twice, forgets what it holds, or comes back with damaged data.
func TestPowerCutLosesWhatIsNotSynced(t *testing.T) {
	long(t)
	ctx := limited(t, 9*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	all := disks(ctx, t, r, true)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	_, s, err := r.Settled(ctx)
	must(t, err)
	_, epoch, _ := serviceOf(s, lab.Service)
	lost := 0
	for round := range 40 {
		holder, s, err := r.Settled(ctx)
		must(t, err)
		_, now, _ := serviceOf(s, lab.Service)
		if now < epoch {
			t.Fatalf("epoch %d after %d", now, epoch)
		}
		epoch = now
		// A move and an election are under way when the power goes.
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			_, _ = r.Failoverd.Switchover(ctx, lab.Service, "") // the cut may come first
		}()
		must(t, lab.Wait(ctx, time.Duration(rng.IntN(int(300*time.Millisecond)))))
		victims := []*lab.Host{holder}
		if leader := r.Lab.Host(s.Leader); leader != holder && round%2 == 0 {
			victims = append(victims, leader)
		}
		for _, h := range victims {
			lost += all[h.Name()].Unsynced()
			must(t, all[h.Name()].Cut(h.PowerOff, rng))
		}
		<-asked
		for _, h := range victims {
			boot(t, r, h, all[h.Name()])
		}
	}
	_, _, err = r.Settled(ctx)
	must(t, err)
	t.Logf("%d changes were lost", lost)
}
