package sim

import (
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
)

// record is a line of a node's journal.
type record struct {
	service   string
	epoch     uint64
	session   uint64
	boot      int
	gen       uint64
	releasing bool
}

// resumed is what the journal keeps of the session that is renewed.
type resumed struct {
	boot   int
	id     uint64
	ttl    time.Duration
	voters lease.Configuration
}

// disk is a node's journal. What was synced survives everything; what was being
// written when the daemon died may be there or not.
type disk struct {
	records []record // by service and epoch
	session *resumed

	writes []write // the first is under way
	failed bool    // of this daemon's life: nothing is written after a failed sync
}

// write is a change under way.
type write struct {
	do    func()
	done  func(failure)
	since clock.Reading
}

// journal changes the journal; done runs when the change is on the disk. Changes
// take turns.
func (d *daemon) journal(do func(), done func(failure)) {
	k := &d.n.disk
	k.writes = append(k.writes, write{do, done, d.n.Now()})
	if len(k.writes) == 1 {
		d.sync()
	}
}

// hangLook is how often a hanging disk is looked at.
const hangLook = 50 * ms

func (d *daemon) sync() {
	k := &d.n.disk
	took := 200*us + d.w.upTo(8*ms)
	if d.w.chance(50) {
		took += d.w.upTo(90 * ms)
	}
	hung := false
	var finish func()
	finish = func() {
		if d.n.diskHung {
			if !hung {
				hung = true
				d.w.saw("hung disk")
			}
			d.after(hangLook, finish)
			return
		}
		w := k.writes[0]
		k.writes = k.writes[1:]
		f := failure("")
		if d.n.diskBad {
			d.n.diskBad = false
			k.failed = true
			d.w.saw("failed sync")
		}
		if k.failed {
			f = diskFails
		} else {
			w.do()
		}
		if len(k.writes) > 0 {
			d.sync()
		}
		w.done(f)
	}
	d.after(took, finish)
}

// crash is the end of the daemon that wrote.
func (k *disk) crash(w *world) {
	if len(k.writes) > 0 && !k.failed && w.chance(2) {
		k.writes[0].do()
	}
	k.writes, k.failed = nil, false
}

func (k *disk) find(service string, epoch uint64) int {
	return slices.IndexFunc(k.records, func(r record) bool { return r.service == service && r.epoch == epoch })
}

// put adds or replaces a record.
func (k *disk) put(r record) {
	if i := k.find(r.service, r.epoch); i >= 0 {
		k.records[i] = r
		return
	}
	k.records = append(k.records, r)
	slices.SortFunc(k.records, func(a, b record) int {
		if a.service != b.service {
			return slices.Index(services, a.service) - slices.Index(services, b.service)
		}
		return int(a.epoch) - int(b.epoch)
	})
}

// journalActive records an epoch as active; refused for one that is being given up.
func (d *daemon) journalActive(service string, epoch, gen uint64, done func(failure)) {
	k := &d.n.disk
	if k.session == nil || k.session.boot != d.n.boot {
		done("the journal has no session of this boot")
		return
	}
	if i := k.find(service, epoch); i >= 0 && (k.records[i].releasing || k.records[i].session != k.session.id || k.records[i].boot != d.n.boot) {
		done("the epoch is being given up, or foreign")
		return
	}
	r := record{service: service, epoch: epoch, session: k.session.id, boot: d.n.boot, gen: gen}
	d.journal(func() { k.put(r) }, done)
}

// journalReleasing records that an epoch is stopped, or was never started.
func (d *daemon) journalReleasing(service string, epoch uint64, done func(failure)) {
	k := &d.n.disk
	r := record{service: service, epoch: epoch, boot: d.n.boot}
	if k.session != nil {
		r.session = k.session.id
	}
	if i := k.find(service, epoch); i >= 0 {
		r = k.records[i]
	}
	if r.releasing {
		done("")
		return
	}
	r.releasing = true
	d.journal(func() {
		k.put(r)
		d.w.check.givenUp(d.n, service, epoch)
	}, done)
}

func (d *daemon) journalErase(service string, epoch uint64, done func(failure)) {
	k := &d.n.disk
	d.journal(func() {
		if i := k.find(service, epoch); i >= 0 {
			k.records = slices.Delete(k.records, i, i+1)
		}
	}, done)
}
