package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// complain makes an error.
func complain(format string, args ...any) error { return fmt.Errorf(format, args...) }

// others are the hosts of the cluster but for those named.
func others(r *lab.Rig, not ...*lab.Host) []*lab.Host {
	return slices.DeleteFunc(slices.Clone(r.Failoverd.Hosts()), func(h *lab.Host) bool { return slices.Contains(not, h) })
}

// TestPartitionedHolder cuts the holder off, together with a client that goes on
// asking it, while its carrier stays; after the healing nothing is lost.
func TestPartitionedHolder(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	for range 2 {
		m := measured(ctx, t, r, r.Partition(ctx, 3*r.Failoverd.Lease()))
		moves(t, m)
		if m.LostAfterHeal > 0 {
			t.Errorf("%d requests lost after the healing\n%s", m.LostAfterHeal, r.Account(ctx, m))
		}
	}
}

// TestUnpluggedHolder takes the carrier from the holder and gives it back.
func TestUnpluggedHolder(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	m := measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
		since := r.Lab.Now()
		if err := holder.Unplug(); err != nil {
			return err
		}
		// Without a network the host cannot be asked by its neighbours, but its
		// socket still answers the lab: it must not claim to know.
		_, moved := r.Moved(ctx, holder, since)
		if err := holder.Plug(); err != nil {
			return err
		}
		return moved
	})
	moves(t, m)
}

// TestOneWayPartitions cuts only what the holder says, then only what it hears.
// One holder must come of it, and no storm of elections.
func TestOneWayPartitions(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	for name, cut := range map[string]func(holder, other *lab.Host) error{
		"the holder is not heard": func(holder, other *lab.Host) error { return r.Lab.Cut(holder, other) },
		"the holder hears nobody": func(holder, other *lab.Host) error { return r.Lab.Cut(other, holder) },
	} {
		t.Run(name, func(t *testing.T) {
			m := measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
				since := r.Lab.Now()
				for _, other := range others(r, holder) {
					if err := cut(holder, other); err != nil {
						return err
					}
				}
				moved, cancel := context.WithTimeout(ctx, 20*time.Second)
				defer cancel()
				_, err := r.Moved(moved, holder, since)
				return errors.Join(err, r.Lab.Heal())
			})
			moves(t, m)
			if n := elections(ctx, t, r, m); n > 10 {
				t.Errorf("%d elections in %v", n, m.To-m.From)
			}
		})
	}
}

// elections counts the leaders elected in a measurement by their entries in the history.
func elections(ctx context.Context, t *testing.T, r *lab.Rig, m lab.Measurement) int {
	t.Helper()
	text, err := r.Failoverd.AnyCtl(ctx, "history", "-o", "json", "-n", "0")
	must(t, err)
	var events []struct {
		Kind string `json:"kind"`
		At   int64  `json:"at"` // Unix ms
	}
	must(t, json.Unmarshal([]byte(text), &events))
	count := 0
	for _, e := range events {
		at := time.UnixMilli(e.At)
		if e.Kind == "leader" && at.After(r.Lab.Clock(m.From)) && at.Before(r.Lab.Clock(m.To)) {
			count++
		}
	}
	return count
}

// TestFiveNodesInThreeParts leaves no majority anywhere: everybody must let go
// and nobody may take over, until two of the parts meet again.
func TestFiveNodesInThreeParts(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Hosts: []string{"a", "b", "c", "d", "e"}})
	client := r.Lab.Host("client")
	holder, _, err := r.Settled(ctx)
	must(t, err)
	rest := others(r, holder)
	must(t, r.Lab.Split([]*lab.Host{holder, rest[0], client}, rest[1:3], rest[3:]))
	// κ and the reaping of the service come after the lease.
	eventually(ctx, t, "a holder without a majority", func() error {
		if held := r.Lab.Holders(); len(held) > 0 {
			return complain("%v hold the address", held)
		}
		return nil
	})
	steadily(ctx, t, 3*r.Failoverd.Lease(), "parts without a majority", func() error {
		if held := r.Lab.Holders(); len(held) > 0 {
			return complain("%v hold the address", held)
		}
		return nil
	})
	// Three of five meet: they are a majority and may serve again.
	must(t, r.Lab.Heal())
	must(t, r.Lab.Split([]*lab.Host{holder, rest[0]}, append([]*lab.Host{client}, rest[1:]...)))
	since := r.Lab.Now()
	answer, err := r.Client.WaitAnswer(ctx, since)
	must(t, err)
	if answer.Node == holder.Name() || answer.Node == rest[0].Name() {
		t.Errorf("%s answers from the side of two", answer.Node)
	}
	must(t, r.Lab.Heal())
	if _, _, err := r.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestPortsThatFailAlone cuts one of the protocols while the others go on. Raft
// and the lease decide, gossip only hints.
func TestPortsThatFailAlone(t *testing.T) {
	ctx := limited(t, 3*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	everywhere := func(protocol byte, port uint16) error {
		for _, from := range r.Failoverd.Hosts() {
			for _, to := range others(r, from) {
				if err := r.Lab.CutPort(from, to, protocol, port); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for name, cut := range map[string]func() error{
		"gossip": func() error {
			if err := everywhere(lab.UDP, 7402); err != nil {
				return err
			}
			return everywhere(lab.TCP, 7402)
		},
		"raft":     func() error { return everywhere(lab.TCP, 7400) },
		"operator": func() error { return everywhere(lab.TCP, 7401) },
	} {
		t.Run(name, func(t *testing.T) {
			m := measured(ctx, t, r, func(*lab.Host, lab.Status) error {
				if err := cut(); err != nil {
					return err
				}
				must(t, lab.Wait(ctx, 4*r.Failoverd.Lease()))
				return r.Lab.Heal()
			})
			stays(ctx, t, r, m)
		})
	}
}

// TestLostRenewals cuts only what the holder sends by way of renewals, with
// Raft and gossip as they were: once from a holder that follows, once from one
// that leads and with the same port asks for everybody's ages.
func TestLostRenewals(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("holder leads %v", leads), func(t *testing.T) {
			ctx := limited(t, 90*time.Second)
			r := newRig(ctx, t, lab.RigOptions{})
			apart(ctx, t, r)
			if leads {
				_, s, err := r.Settled(ctx)
				must(t, err)
				_, err = r.Failoverd.Switchover(ctx, lab.Service, s.Leader)
				must(t, err)
			}
			moves(t, measured(ctx, t, r, func(holder *lab.Host, _ lab.Status) error {
				since := r.Lab.Now()
				for _, to := range others(r, holder) {
					if err := r.Lab.CutPort(holder, to, lab.UDP, 7403); err != nil {
						return err
					}
				}
				moved, cancel := context.WithTimeout(ctx, 20*time.Second)
				defer cancel()
				_, err := r.Moved(moved, holder, since)
				return errors.Join(err, r.Lab.Heal())
			}))
		})
	}
}

// TestLoss lets a part of all frames between the nodes be lost: up to the agreed
// rate, 20 % each way, no failover.
func TestLoss(t *testing.T) {
	ctx := limited(t, 2*time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	for _, percent := range []int{5, 20} {
		t.Run(fmt.Sprintf("%d %%", percent), func(t *testing.T) {
			m := measured(ctx, t, r, func(*lab.Host, lab.Status) error {
				if err := r.Lab.Lose(percent, r.Failoverd.Hosts()...); err != nil {
					return err
				}
				must(t, lab.Wait(ctx, 10*time.Second))
				return r.Lab.Heal()
			})
			stays(ctx, t, r, m)
		})
	}
}

// TestHeavyLoss lets more be lost than any cluster has to bear. The service may
// move or be away for a while; never do two nodes hold it, which the rig judges
// at its end, and with the loss everything else is over.
func TestHeavyLoss(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	before, _, err := r.Settled(ctx)
	must(t, err)
	must(t, r.Lab.Lose(40, r.Failoverd.Hosts()...))
	must(t, lab.Wait(ctx, 5*time.Second))
	must(t, r.Lab.Heal())
	healed := r.Lab.Now()
	after, _, err := r.Settled(ctx)
	must(t, err)
	t.Logf("%s held before, %s after; settled %v after the end of the loss", before, after, r.Lab.Now()-healed)
	if silence, at := r.Client.Silence(healed, r.Lab.Now()); silence > 5*(r.Failoverd.Lease()+time.Second) {
		t.Errorf("%v without an answer from %v after the end of the loss", silence, at-healed)
	}
}

// TestHealedPartitionIsAnnounced makes the client keep the old holder's hardware
// address through a partition in which it sees neither side's news: after the
// healing the rightful holder must make itself known.
func TestHealedPartitionIsAnnounced(t *testing.T) {
	ctx := limited(t, 90*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	holder, _, err := r.Settled(ctx)
	must(t, err)
	client := r.Lab.Host("client")
	// The client is alone with the old holder, hears nothing of the new one,
	// and keeps the address that it knows.
	must(t, r.Lab.Split([]*lab.Host{holder, client}, others(r, holder)))
	eventually(ctx, t, "a new holder", func() error {
		if held := r.Lab.Holders(); len(held) != 1 || held[0] == holder.Name() {
			return complain("%v hold the address", held)
		}
		return nil
	})
	must(t, lab.Wait(ctx, 2*r.Failoverd.Lease())) // the announcements of the takeover are over
	must(t, r.Lab.Heal())
	healed := r.Lab.Now()
	answer, err := r.Client.WaitAnswer(ctx, healed)
	must(t, err)
	if late := answer.Got - healed; late > 3*time.Second {
		t.Errorf("the client found the new holder %v after the healing", late)
	}
}
