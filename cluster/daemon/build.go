package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/service"
	"github.com/failoverd/failoverd/service/exec"
	"github.com/failoverd/failoverd/service/process"
	"github.com/failoverd/failoverd/vip"
	"github.com/failoverd/failoverd/vip/gate"
)

// builder makes a service's resources from its specification.
type builder struct{ d *daemon }

// Build touches nothing outside, but for telling the guard which addresses it
// shuts at the deadline.
func (b *builder) Build(spec state.Spec, o cluster.Origin) ([]cluster.Resource, error) {
	if err := b.d.cfg.CheckCommands([]state.Spec{spec}); err != nil {
		return nil, err
	}
	origin := service.Origin{Service: spec.Name, Node: b.d.cfg.Name, Previous: o.Previous, Reason: o.Reason, Proof: string(o.Proof)}
	var out []cluster.Resource
	for _, r := range spec.Resources {
		built, err := b.one(r, origin)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Kind, r.Name, err)
		}
		out = append(out, built)
	}
	return out, nil
}

// Able checks commands and interfaces.
func (b *builder) Able(spec state.Spec) error {
	errs := []error{b.d.cfg.CheckCommands([]state.Spec{spec})}
	for _, r := range spec.Resources {
		if r.VIP != nil {
			errs = append(errs, vip.CheckInterface(r.VIP.Interface))
		}
	}
	return errors.Join(errs...)
}

func (b *builder) one(r state.Resource, origin service.Origin) (cluster.Resource, error) {
	switch {
	case r.VIP != nil:
		return b.vip(r)
	case r.Process != nil:
		p := r.Process
		return process.New(process.Options{
			Name: r.Name, Origin: origin, Guard: b.d.keeper, Log: b.d.log,
			Command: p.Command, Environment: p.Environment, Directory: p.Directory, User: p.User,
			StopSignal: p.StopSignal, StopTimeout: p.StopTimeout, Ready: p.Ready, StartTimeout: p.StartTimeout, Restarts: p.Restarts,
		})
	case r.Exec != nil:
		x := r.Exec
		return exec.New(exec.Options{
			Name: r.Name, Origin: origin, Guard: b.d.keeper, Log: b.d.log, Allowed: b.d.cfg.HookDirs,
			Start: x.Start, Stop: x.Stop, Status: x.Status,
			StartTimeout: x.StartTimeout, StopTimeout: x.StopTimeout, StatusTimeout: x.StatusTimeout,
		})
	}
	return nil, fmt.Errorf("kind %q is not known to this version", r.Kind)
}

// vip returns the address of the pool: what was prepared for it serves the start.
func (b *builder) vip(r state.Resource) (cluster.Resource, error) {
	prefix, err := netip.ParsePrefix(r.VIP.Address)
	if err != nil {
		return nil, err
	}
	v, err := b.d.pool.Get(vip.Options{Name: r.Name, Address: prefix, Interface: r.VIP.Interface, KeepPrefix: r.VIP.Prefix})
	if err != nil {
		return nil, err
	}
	cidr := netip.PrefixFrom(prefix.Addr(), 32)
	if r.VIP.Prefix {
		cidr = prefix
	}
	if err := b.d.keeper.cover(context.Background(), guard.Address{CIDR: cidr.String(), Interface: r.VIP.Interface}); err != nil {
		return nil, fmt.Errorf("tell the guard of the address: %w", err)
	}
	return address{v}, nil
}

// address is a VIP that is armed by the lease's absolute deadline.
type address struct{ *vip.VIP }

// Arm counts what is left from one reading of the clocks, which goes along: what
// passes between here and the kernel is taken off.
func (a address) Arm(until clock.Reading) error {
	since := gate.Now()
	left := min(until.Boot-since.Boot, until.Raw-since.Raw)
	err := a.VIP.ArmSince(since, left)
	if err != nil && left <= 0 {
		err = fmt.Errorf("%w: %w", vip.ErrLapsed, err)
	}
	return lapsed(err)
}

// Start claims the address.
func (a address) Start(ctx context.Context, epoch uint64) error {
	return lapsed(a.VIP.Start(ctx, epoch))
}

// lapsed says in the node's own terms that a driver came too late for a lease,
// or lost its guard: otherwise it would count as a failure of the service, and
// keep it from this node until an operator has looked.
func lapsed(err error) error {
	for _, late := range []error{guard.ErrNoLease, vip.ErrNotArmed, vip.ErrLapsed, gate.ErrLapsed} {
		if errors.Is(err, late) {
			return fmt.Errorf("%w: %w", cluster.ErrLapsed, err)
		}
	}
	if errors.Is(err, guard.ErrGuardLost) {
		return fmt.Errorf("%w: %w", cluster.ErrInterrupted, err)
	}
	return err
}
