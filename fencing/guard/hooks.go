package guard

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/service/cgroup"
)

// runnerGrace is what a hook's runner gets beyond the timeout to kill what the
// hook started and to say so.
const runnerGrace = 2500 * time.Millisecond

// hookGroupPrefix begins the cgroup of one hook, below its unit's.
const hookGroupPrefix = "hook-"

// Run runs a hook in its unit and waits for its end, at most its timeout and a
// little. An error says that it was not run at all; a result that is not Known
// says that it was, and that nobody can tell whether it did its work.
func (g *Guard) Run(ctx context.Context, h Hook) (HookResult, error) {
	if h.Timeout <= 0 {
		return HookResult{}, fmt.Errorf("%w: a hook needs a timeout", ErrRefused)
	}
	prog, err := resolve(h.Command, h.Environment, h.Directory, h.User)
	if err != nil {
		return HookResult{}, err
	}
	u, err := g.hookUnit(ctx, h)
	if err != nil {
		return HookResult{}, err
	}
	select {
	case <-u.hooks:
	case <-u.stopped:
		return HookResult{}, fmt.Errorf("%w: %s has stopped", ErrNotFound, h.Unit)
	case <-ctx.Done():
		return HookResult{}, fmt.Errorf("run hook %s of %s: another one is still running: %w", h.Label, h.Unit, ctx.Err())
	}
	defer func() { u.hooks <- struct{}{} }()
	if h.Start {
		if err := g.lease.check(u.spec.Session); err != nil {
			return HookResult{}, err
		}
	}
	u.mu.Lock()
	b := u.cur
	u.hookSeq++
	id := u.hookSeq
	u.hook = h.Label
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.hook = ""
		u.mu.Unlock()
		if !u.leased { // it was made for this hook alone
			sctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
			defer cancel()
			if err := g.Stop(sctx, h.Unit, time.Millisecond); err != nil {
				g.trouble(err.Error())
			}
		}
	}()
	if b == nil {
		return HookResult{}, fmt.Errorf("%w: %s does not run", ErrNotFound, h.Unit)
	}
	res, err := u.runHook(b, h, prog, id)
	if h.Start && err == nil {
		u.mu.Lock()
		u.hookUp = u.cur == b && res.Known && res.Exit == 0 && res.Signal == ""
		u.mu.Unlock()
	}
	return res, err
}

// hookUnit finds the unit to run a hook in. A hook that stops or asks gets one
// of its own when there is none: it has to work without the lease, too.
func (g *Guard) hookUnit(ctx context.Context, h Hook) (*unit, error) {
	g.mu.Lock()
	u := g.units[h.Unit]
	g.mu.Unlock()
	if u == nil || u.gone() {
		if h.Start {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, h.Unit)
		}
		var err error
		u, _, err = g.enlist(Spec{
			Name: h.Unit, Kind: KindHooks, StopTimeout: time.Millisecond, Tasks: DefaultTasks, ShareMounts: true,
		}, false)
		if err != nil {
			return nil, err
		}
	} else if u.spec.Kind != KindHooks {
		return nil, fmt.Errorf("%w: %s is a %s: no hooks are run in it", ErrConflict, h.Unit, u.spec.Kind)
	} else if !u.leased {
		return nil, fmt.Errorf("%w: a hook of %s is being run", ErrConflict, h.Unit)
	}
	select {
	case <-u.started:
	case <-ctx.Done():
		return nil, fmt.Errorf("run hook %s of %s: %w", h.Label, h.Unit, ctx.Err())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u, u.startErr
}

// runHook does it: a runner is started by the unit's init and told over a link
// of its own what to run and for how long.
func (u *unit) runHook(b *birth, h Hook, prog *program, id uint64) (HookResult, error) {
	group, dir, err := hookGroup(b, id)
	if err != nil {
		return HookResult{}, fmt.Errorf("run hook %s of %s: %w", h.Label, h.Unit, err)
	}
	if dir != nil {
		defer dir.Close()
	}
	kept := &tail{max: MaxHookOutput}
	out, outW, err := newPump(func(p []byte) {
		kept.write(p)
		u.out.Write(p)
	})
	if err != nil {
		return HookResult{}, err
	}
	defer outW.Close()
	link, linkTheirs, err := packetPair()
	if err != nil {
		return HookResult{}, err
	}
	defer link.Close()
	defer linkTheirs.Close()
	files := []*os.File{outW, linkTheirs}
	if dir != nil {
		files = append(files, dir)
	}
	began := time.Now()
	failpoint.Here("guard.hook.before")
	answer := b.awaitRun(id)
	if err := b.tell(order{Op: "run", ID: id}, files...); err != nil {
		return HookResult{}, fmt.Errorf("run hook %s of %s: %w", h.Label, h.Unit, err)
	}
	// Ours are closed now, so that the ends of the others are seen.
	outW.Close()
	linkTheirs.Close()
	select {
	case text, ok := <-answer:
		if text != "" {
			return HookResult{}, fmt.Errorf("%w: %s", ErrStart, text)
		}
		if !ok {
			return unknown(began, "the unit ended: "+b.doomedBy()), nil
		}
	case <-time.After(setupTimeout):
		b.kill("its init does not answer")
		return unknown(began, "the unit's init did not answer and was killed"), nil
	}
	var n hookNews
	err = sendPacket(link, hookOrder{Program: *prog, Timeout: h.Timeout, Keep: h.Start})
	if err == nil {
		_ = link.SetReadDeadline(time.Now().Add(h.Timeout + runnerGrace))
		_, err = recvPacket(link, make([]byte, maxPacket), &n)
	}
	failpoint.Here("guard.hook.done")
	res := u.judge(b, h, group, n, err)
	out.drain(50 * time.Millisecond)
	out.mu.Lock()
	res.Output, res.Cut, res.Took = kept.bytes(), kept.cut(), time.Since(began)
	out.mu.Unlock()
	if res.Text != "" && strings.HasPrefix(res.Text, ErrStart.Error()) {
		return HookResult{}, &remoteError{text: res.Text, is: ErrStart}
	}
	return res, nil
}

func unknown(began time.Time, text string) HookResult {
	return HookResult{Exit: -1, Text: text, Took: time.Since(began)}
}

// judge makes a result of what the runner said, and ends what should not live on.
func (u *unit) judge(b *birth, h Hook, group *cgroup.Group, n hookNews, err error) HookResult {
	res := HookResult{Exit: n.Exit, Signal: n.Signal, TimedOut: n.TimedOut}
	switch {
	case err != nil:
		res.Exit = -1
		why := b.doomedBy()
		switch {
		case why != "":
			res.Text = "killed with its unit: " + why
		case isTimeout(err):
			res.TimedOut = true
			res.Text = fmt.Sprintf("no answer %v after its timeout of %v", runnerGrace, h.Timeout)
			if group == nil {
				// Only with the whole unit can it be ended for certain.
				b.kill("a hook outlived its timeout")
				res.Text += "; its unit was killed"
			}
		default:
			res.Text = "its runner ended without a word"
		}
	case n.Error != "":
		res.Exit, res.Text = -1, n.Error
	case n.TimedOut:
		res.Text = fmt.Sprintf("killed after its timeout of %v, processes: %d", h.Timeout, n.Killed)
	default:
		res.Known = true
	}
	if group == nil {
		return res
	}
	if !res.Known || !h.Start {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if cerr := group.Clear(ctx); cerr != nil {
			u.g.trouble(fmt.Sprintf("hook %s of %s: %v", h.Label, h.Unit, cerr))
		}
	} else if empty, eerr := group.Empty(); eerr == nil && empty {
		_ = group.Remove()
	}
	return res
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// hookGroup makes the cgroup of one hook; what a start hook leaves behind stays
// in it. Groups of earlier hooks that are empty by now are removed.
func hookGroup(b *birth, id uint64) (*cgroup.Group, *os.File, error) {
	if b.group == nil {
		return nil, nil, nil
	}
	if old, err := b.group.Children(); err == nil {
		for _, c := range old {
			if empty, err := c.Empty(); err == nil && empty && strings.HasPrefix(c.Name(), hookGroupPrefix) {
				_ = c.Remove()
			}
		}
	}
	group, err := b.group.Create(fmt.Sprintf("%s%d", hookGroupPrefix, id))
	if err != nil {
		return nil, nil, err
	}
	dir, err := group.OpenDir()
	if err != nil {
		return nil, nil, err
	}
	return group, dir, nil
}
