package main

import (
	"context"
	"errors"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// orderLimit is how long an operator waits for the answer to an order. What was
// asked for may come true later all the same.
const orderLimit = 5 * time.Second

// order gives an order to whichever node answers.
func (in *injector) order(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	_, err := in.rig.Failoverd.AnyCtl(ctx, args...)
	return err
}

func switchover(ctx context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	args := []string{"switchover", lab.Service, "--reason", "chaos"}
	if in.holder() != h {
		args = append(args, "--to", h.Name())
	}
	return nil, in.order(ctx, args...)
}

func restart(ctx context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return nil, in.order(ctx, "node", "restart", h.Name(), "--reason", "chaos")
}

// What an operator asked for and could not take back when its time was over is
// taken back at the next settling.
func pause(ctx context.Context, in *injector, _ *lab.Host, _ fault) (func() error, error) {
	in.owe("resume")
	return func() error { return in.takeBack(ctx, "resume") },
		in.order(ctx, "pause", "--for", "10m", "--reason", "chaos")
}

func standby(ctx context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	in.owe("node", "unstandby", h.Name())
	return func() error { return in.takeBack(ctx, "node", "unstandby", h.Name()) },
		in.order(ctx, "node", "standby", h.Name(), "--reason", "chaos")
}

// takeBack tries once; what fails stays owed.
func (in *injector) takeBack(ctx context.Context, args ...string) error {
	if in.order(ctx, args...) == nil {
		in.paid(args...)
	}
	return nil
}

// takeAllBack tries until all that is owed has been taken back.
func (in *injector) takeAllBack(ctx context.Context) error {
	for {
		var problems []error
		for _, args := range in.owed() {
			if err := in.order(ctx, args...); err != nil {
				problems = append(problems, err)
				continue
			}
			in.paid(args...)
		}
		if len(problems) == 0 {
			return nil
		}
		if lab.Wait(ctx, 200*time.Millisecond) != nil {
			return errors.Join(problems...)
		}
	}
}
