package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
)

// watchInterval is how often a running service's resources are asked whether
// they still run.
const watchInterval = time.Second

// unknownLimit is how many times in a row "unknown" is tolerated before the
// log says so; unknown alone never moves a service.
const unknownLimit = 5

// watch asks the resources of a running service, until ctx ends, and starts
// again in place what has stopped. What cannot be started again is a failure.
func (u *unit) watch(ctx context.Context) {
	done := make(chan struct{})
	u.mu.Lock()
	list, epoch := u.resources, u.epoch
	u.watched = done
	u.mu.Unlock()
	started := u.wg.Go(func() {
		var cause error
		defer func() {
			close(done)
			if cause != nil {
				u.fail(ctx, cause)
			}
		}()
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		unknown := map[string]int{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, r := range list {
				if cause = u.check(ctx, r, epoch, unknown); cause != nil {
					return
				}
			}
		}
	})
	if !started {
		close(done)
	}
}

// check asks one resource; an error says that it is broken beyond a restart here.
func (u *unit) check(ctx context.Context, r Resource, epoch uint64, unknown map[string]int) error {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	running, err := r.Running(limited)
	cancel()
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		unknown[r.Name()]++
		u.setState(r, "unknown", err.Error())
		if unknown[r.Name()] == unknownLimit {
			u.log.Warn("cannot tell whether it runs", "resource", r.Name(), "err", err)
		}
		return nil
	case running:
		unknown[r.Name()] = 0
		u.setState(r, "running", "")
		return nil
	}
	u.log.Warn("resource stopped by itself; starting it again", "resource", r.Name())
	if err := u.startOne(ctx, r, epoch); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s stopped and could not be started again: %w", r.Name(), err)
	}
	return nil
}

// fail stops a broken service, so that another node may be given it.
func (u *unit) fail(ctx context.Context, cause error) {
	for {
		if ctx.Err() != nil {
			return
		}
		if u.begin(decide.PhaseStopping) {
			break
		}
		// Something short is under way, the journal's word on another epoch perhaps.
		if sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
	u.log.Error("service is broken here", "err", cause)
	u.cut()
	u.stopAfterFailure(cause, false)
}
