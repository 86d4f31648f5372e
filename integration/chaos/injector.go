package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// together is how many faults there are at once, at most.
const together = 2

// injector makes faults come true and end.
type injector struct {
	rig             *lab.Rig
	disks           *disks
	nodes           []*lab.Host
	inside, outside *lab.Host // where clients ask from; inside goes with whoever is cut off
	slots           chan struct{}
	group           sync.WaitGroup

	mu         sync.Mutex
	endNow     chan struct{} // closed when all faults shall end
	used       map[*lab.Host]part
	down       map[*lab.Host]bool // no daemon is expected there
	debts      [][]string         // what operators asked for and must take back
	crashes    map[*lab.Host]int  // noted in its log so far
	complaints []string
	warnings   []string
	done       []doneFault
	lastHolder *lab.Host
	lastLeader *lab.Host
}

// doneFault is a fault that was begun.
type doneFault struct {
	fault    fault
	host     string
	at       time.Duration
	lasted   time.Duration
	refused  bool // the cluster refused what an operator asked for, or did not answer
	nothing  bool // there was nothing to break
	problems error
}

func newInjector(rig *lab.Rig, d *disks, inside, outside *lab.Host) *injector {
	nodes := rig.Failoverd.Hosts()
	return &injector{rig: rig, disks: d, nodes: nodes, inside: inside, outside: outside, slots: make(chan struct{}, together),
		endNow: make(chan struct{}), crashes: map[*lab.Host]int{}, used: map[*lab.Host]part{}, down: map[*lab.Host]bool{}, lastHolder: nodes[0], lastLeader: nodes[0]}
}

// start waits until there is room for so many more faults, begins them and
// gives in words what it begins. They end by themselves.
func (in *injector) start(ctx context.Context, faults []fault, lease time.Duration) (string, error) {
	for range faults {
		select {
		case in.slots <- struct{}{}:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	var words []string
	for _, f := range faults {
		h := in.reserve(ctx, f)
		words = append(words, f.String()+" = "+h.Name())
		in.group.Go(func() {
			in.play(ctx, f, h, time.Duration(f.leases*float64(lease)))
			<-in.slots
		})
	}
	return strings.Join(words, " & "), nil
}

// play lets one fault happen.
func (in *injector) play(ctx context.Context, f fault, h *lab.Host, d time.Duration) {
	k := kindOf(f.kind)
	defer in.release(h, k.needs)
	in.mu.Lock()
	endNow := in.endNow
	in.mu.Unlock()
	record := doneFault{fault: f, host: h.Name(), at: in.rig.Lab.Now()}
	end, err := k.begin(ctx, in, h, f)
	switch {
	case errors.Is(err, errNothingThere):
		record.nothing = true
	case err != nil && k.operator:
		record.refused = true
	case err != nil:
		record.problems = err
	}
	if end != nil {
		select {
		case <-time.After(d):
		case <-endNow:
		case <-ctx.Done():
		}
		record.problems = errors.Join(record.problems, end())
	}
	record.lasted = in.rig.Lab.Now() - record.at
	in.mu.Lock()
	defer in.mu.Unlock()
	in.done = append(in.done, record)
	if record.problems != nil && ctx.Err() == nil {
		in.complaints = append(in.complaints, fmt.Sprintf("fault %s on %s: %v", f, h, record.problems))
	}
}

// endAll ends every fault and waits for their ends.
func (in *injector) endAll() error {
	in.mu.Lock()
	close(in.endNow)
	in.endNow = make(chan struct{})
	in.mu.Unlock()
	in.group.Wait()
	return in.rig.Lab.Heal()
}

// reserve finds the host that the fault is meant for, or the next one of which
// no other fault has what this one needs, and takes that.
func (in *injector) reserve(ctx context.Context, f fault) *lab.Host {
	k := kindOf(f.kind)
	first := in.nodes[0]
	if !k.everybody {
		first = in.target(ctx, f.target)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	at := slices.Index(in.nodes, first)
	for i := range in.nodes {
		h := in.nodes[(at+i)%len(in.nodes)]
		if in.used[h]&k.needs == 0 {
			in.used[h] |= k.needs
			return h
		}
	}
	return first // there are fewer faults at once than hosts
}

func (in *injector) release(h *lab.Host, p part) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.used[h] &^= p
}

// target gives the host that a word of a schedule means now.
func (in *injector) target(ctx context.Context, word string) *lab.Host {
	var n int
	switch word {
	case targetHolder:
		return in.holder()
	case targetLeader:
		return in.leader(ctx)
	case targetOther:
		holder, leader := in.holder(), in.leader(ctx)
		return without(in.nodes, holder, leader)[0]
	}
	if _, err := fmt.Sscanf(word, "#%d", &n); err != nil {
		return in.nodes[0] // the schedule was read before: it does not happen
	}
	return in.nodes[n%len(in.nodes)]
}

// holder is whoever has the address, or had it last.
func (in *injector) holder() *lab.Host {
	in.mu.Lock()
	defer in.mu.Unlock()
	if names := in.rig.Lab.Holders(); len(names) > 0 {
		in.lastHolder = in.rig.Lab.Host(names[0])
	}
	return in.lastHolder
}

// leader is who says by itself that it leads, or the last who did.
func (in *injector) leader(ctx context.Context) *lab.Host {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	var group sync.WaitGroup
	for _, h := range in.nodes {
		if in.busy(h) {
			continue
		}
		group.Go(func() {
			out, _ := in.rig.Failoverd.Ctl(ctx, h, "status", "--local", "-o", "json") // without a quorum it fails and answers
			var s lab.Status
			if json.Unmarshal([]byte(out), &s) != nil || s.Leader != h.Name() {
				return
			}
			in.mu.Lock()
			in.lastLeader = h
			in.mu.Unlock()
		})
	}
	group.Wait()
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.lastLeader
}

// busy reports whether a fault has the host's daemon.
func (in *injector) busy(h *lab.Host) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.used[h]&partDaemon != 0
}

// expect says whether the host's daemon is meant to be down.
func (in *injector) expect(h *lab.Host, down bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.down[h] = down
}

// supervise starts daemons again that ended by themselves, as whatever
// supervises a daemon does. One that says what is wrong and exits may do so: its
// guard did not start in time, or its disk failed. One that crashed may not.
func (in *injector) supervise() error {
	var problems []error
	for _, h := range in.nodes {
		daemon := in.rig.Failoverd.Daemon(h)
		select {
		case <-daemon.Done():
		default:
			continue
		}
		in.mu.Lock()
		// A daemon that a fault started meanwhile is another one.
		gone := !in.down[h] && in.rig.Failoverd.Daemon(h) == daemon
		unwell := in.used[h]&partDisk != 0 // it is meant to end
		in.mu.Unlock()
		if !gone || !h.On() || in.busy(h) {
			continue
		}
		if err := daemon.Wait(); !in.crashed(h, err) {
			if !unwell {
				in.warn("the daemon of %s gave up: %s", h, in.lastWords(h))
			}
		} else {
			in.complain("the daemon of %s ended by itself: %v: %s", h, cmp.Or(err, errors.New("exit status 0")), in.lastWords(h))
		}
		if err := in.rig.Failoverd.Start(h); err != nil && h.On() {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// crashed reports whether the host's daemon ended by a signal or a panic, which
// the Go runtime has written down.
func (in *injector) crashed(h *lab.Host, ended error) bool {
	var exit *exec.ExitError
	if !errors.As(ended, &exit) || exit.ExitCode() < 0 {
		return true // without an order it has no reason to end well, either
	}
	raw, err := os.ReadFile(in.rig.Failoverd.LogFile(h))
	if err != nil {
		return true
	}
	n := 0
	for line := range bytes.Lines(raw) {
		if bytes.HasPrefix(line, []byte("panic:")) || bytes.HasPrefix(line, []byte("fatal error:")) {
			n++
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	before := in.crashes[h]
	in.crashes[h] = n
	return n > before
}

// lastWords are the last line that the host's daemon wrote.
func (in *injector) lastWords(h *lab.Host) string {
	raw, err := os.ReadFile(in.rig.Failoverd.LogFile(h))
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(raw))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

func (in *injector) warn(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.warnings = append(in.warnings, fmt.Sprintf(format, args...))
}

// warned gives what was not as it should be, but may be on a machine that stalls.
func (in *injector) warned() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.warnings)
}

func (in *injector) complain(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.complaints = append(in.complaints, fmt.Sprintf(format, args...))
}

// wrong gives what did not go as it should.
func (in *injector) wrong() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.complaints)
}

// faults gives those that were begun and have ended.
func (in *injector) faults() []doneFault {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.done)
}

func (in *injector) owe(args ...string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.debts = append(in.debts, args)
}

func (in *injector) owed() [][]string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.debts)
}

func (in *injector) paid(args ...string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.debts = slices.DeleteFunc(in.debts, func(d []string) bool { return slices.Equal(d, args) })
}
