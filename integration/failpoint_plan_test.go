package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/failoverd/failoverd/integration/lab"
)

// passage is a way to lead a cluster past points: what is done to it again and
// again until a process has died at each of the labels. The labels stand in the
// order in which they are come by.
type passage struct {
	name   string
	labels string
	// first is where a process has to die before that can be come by.
	first string
	// alone is for what needs hosts of its own, without a service.
	alone bool
	// rare is for what the ordinary tests leave out, for want of time: it is done
	// with FAILOVERD_LONG, or when FAILOVERD_POINTS names it.
	rare    bool
	provoke func(*storm)
}

// passages lead past every label of the product.
var passages = []passage{
	{name: "renewal", provoke: (*storm).nothing, labels: `
		renew.send.before renew.sent renew.answer.before renew.answered renew.ok.heard renew.extend.before
		lease.guard.before guard.extend.before guard.timer.before guard.extended guard.extend.reply lease.guard.told
		gate.arm.before gate.armed lease.armed`},
	{name: "restart", provoke: (*storm).restartHolder, labels: `
		identity.locked daemon.directory.open journal.replace.before journal.replace.created journal.replace.written
		journal.replace.synced journal.replace.renamed journal.replace.done daemon.journal.open daemon.gate.open
		daemon.guard.open daemon.network.before daemon.network.open daemon.resume.before unit.load unit.adopt.armed
		exec.status.before guard.hook.before guard.hook.done guard.run.reply vip.adopted unit.adopted daemon.resumed
		daemon.cleaned daemon.raft.open daemon.attached peer.propose.heard raft.propose.before raft.log.before
		raft.log.stored fsm.apply.before fsm.applied raft.proposed`},
	{name: "switchover", provoke: (*storm).switchover, labels: `
		order.move.before order.move.committed leader.prepare.before unit.prepare.before vip.probe.before
		leader.prepared leader.handover.before leader.handover.committed
		unit.stop.before vip.stop.before gate.change.before vip.stop.shut vip.delete.before vip.stop.deleted
		process.stop.before guard.stop.before guard.stop.reply process.stopped
		exec.stop.before exec.stop.done exec.unit.stop unit.stop.done unit.stopped
		member.release.before journal.releasing.before journal.append.before journal.append.written
		journal.append.synced member.release.journaled handover.tell.before handover.heard handover.told
		unit.active.before journal.active.before unit.active.journaled guard.gates.before guard.gates.set unit.armed
		unit.start.before exec.unit.before guard.unit.enter guard.unit.entered guard.unit.grouped
		guard.birth.forked guard.birth.recorded guard.unit.runs guard.start.reply exec.start.before exec.start.done
		process.start.before process.started process.ready vip.claim.before vip.claimed vip.announce.before
		vip.announced unit.started unit.runs member.released journal.erase.before member.erased`},
	{name: "takeover", rare: true, provoke: (*storm).takeover, labels: `
		leader.ages.before renew.ask.before renew.ask.heard renew.age.heard leader.close.before leader.close.committed
		leader.confirm.before leader.end.before leader.end.committed leader.grant.before leader.grant.committed
		guard.deadline.reached gate.shutall.before guard.deadline.shut guard.deadline.killed guard.deadline.delete
		session.opened session.journal.before journal.session.before session.journaled session.guard.used session.held`},
	{name: "release again", rare: true, provoke: (*storm).switchover, first: "member.release.journaled", labels: `unit.release.before`},
	{name: "lapse", rare: true, provoke: (*storm).cutOffHolder, labels: `lease.lapsed`},
	{name: "both lost", rare: true, provoke: (*storm).killBoth, labels: `vip.stale.delete vip.stale.gate guard.listening`},
	{name: "guard lost", rare: true, provoke: (*storm).killGuard, labels: `guard.replaced`},
	{name: "failed start", rare: true, provoke: (*storm).failedStart, labels: `unit.failed failure.reported`},
	{name: "election", rare: true, provoke: (*storm).killLeader, labels: `
		raft.ballot.before raft.ballot.written leader.start.before leader.handed`},
	{name: "ordered restart", rare: true, provoke: (*storm).orderRestart, labels: `
		order.restart.before peer.restart.heard daemon.restart raft.transfer.before raft.transfer.answered`},
	{name: "farewell", rare: true, provoke: (*storm).terminate, labels: `
		leave.begin leave.move.before leave.idle peer.goodbye.heard leave.goodbye daemon.left daemon.guard.ended`},
	{name: "orders", rare: true, provoke: (*storm).orders, labels: `order.apply.before order.applied order.pause.before`},
	{name: "vouched", rare: true, provoke: (*storm).vouch, labels: `order.vouch.before order.vouched`},
	{name: "vote", rare: true, provoke: (*storm).changeVote, labels: `
		members.vote.before raft.member.before raft.member.changed members.vote.changed session.voters.before`},
	{name: "membership", rare: true, provoke: (*storm).changeMember, labels: `
		members.close.before members.remove.before members.remove.noted members.remove.server
		members.add.before members.add.noted members.add.in`},
	{name: "snapshot", rare: true, provoke: (*storm).snapshot, labels: `
		fsm.snapshot raft.snapshot.create fsm.persist.before fsm.persisted raft.log.delete raft.log.deleted
		fsm.restore.before fsm.restored`},
	{name: "founding", alone: true, provoke: (*storm).found, labels: `
		identity.write.before identity.synced identity.written founding.settle.before founding.settled
		store.make.before store.made store.lay.before raft.promise.before store.lay.term store.laid found.nodes found.key`},
}

var callPattern = regexp.MustCompile(`failpoint\.Here\("([^"]+)"\)`)

// pointsInSource gives every label of the product with the file that has it.
func pointsInSource(t *testing.T) map[string]string {
	t.Helper()
	root, err := lab.ModuleRoot()
	must(t, err)
	labels := map[string]string{}
	for _, tree := range []string{"cluster", "cmd", "fencing", "internal", "service", "vip"} {
		must(t, filepath.WalkDir(filepath.Join(root, tree), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			if filepath.Base(path) == "doc.go" {
				return nil // it shows how to call
			}
			raw, err := os.ReadFile(path)
			for _, m := range callPattern.FindAllStringSubmatch(string(raw), -1) {
				if other, twice := labels[m[1]]; twice {
					t.Errorf("the label %s stands in %s and in %s: nobody could tell which was reached", m[1], other, path)
				}
				labels[m[1]] = path
			}
			return err
		}))
	}
	return labels
}

// TestEveryFailpointHasAPassage holds the list above against the source, both
// ways: a new point needs a way to it, and a point that has gone needs none.
func TestEveryFailpointHasAPassage(t *testing.T) {
	source := pointsInSource(t)
	if len(source) < 60 {
		t.Fatalf("only %d points found in the source: the check looks at nothing", len(source))
	}
	planned := map[string]string{}
	for _, p := range passages {
		for _, label := range strings.Fields(p.labels) {
			if other, twice := planned[label]; twice {
				t.Errorf("%s is in %s and in %s", label, other, p.name)
			}
			planned[label] = p.name
			if source[label] == "" {
				t.Errorf("%s leads to %s, which is nowhere in the source", p.name, label)
			}
		}
	}
	var lost []string
	for label, file := range source {
		if planned[label] == "" {
			lost = append(lost, label+" in "+filepath.Base(file))
		}
	}
	slices.Sort(lost)
	if len(lost) > 0 {
		t.Errorf("no passage leads to: %s", strings.Join(lost, ", "))
	}
	t.Logf("%d points, %d passages", len(source), len(passages))
}
