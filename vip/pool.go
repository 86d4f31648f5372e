package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// Pool keeps one VIP for each address and interface for the life of a daemon,
// whichever service asks for it and how often: what Prepare has made ready
// serves the Start that follows, and no socket is opened on the way.
type Pool struct {
	base Options
	mu   sync.Mutex
	vips map[poolKey]*VIP
	shut bool
}

type poolKey struct {
	name, device string
	address      netip.Prefix
	keep         bool
}

// NewPool makes an empty pool. base gives every VIP what its own Options leave
// unset: Gate, Owner, Log and Report.
func NewPool(base Options) *Pool {
	return &Pool{base: base, vips: map[poolKey]*VIP{}}
}

// Get returns the pool's VIP for o.Name, o.Address, o.Interface and
// o.KeepPrefix, made by New when there is none yet.
func (p *Pool) Get(o Options) (*VIP, error) {
	k := poolKey{o.Name, o.Interface, o.Address, o.KeepPrefix}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		return nil, ErrClosed
	}
	if v := p.vips[k]; v != nil {
		return v, nil
	}
	if o.Gate == nil {
		o.Gate = p.base.Gate
	}
	if o.Owner == "" {
		o.Owner = p.base.Owner
	}
	if o.Log == nil {
		o.Log = p.base.Log
	}
	if o.Report == nil {
		o.Report = p.base.Report
	}
	v, err := New(o)
	if err != nil {
		return nil, err
	}
	p.vips[k] = v
	return v, nil
}

// Close closes every VIP; those that are active are left to their lease.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	var errs []error
	for k, v := range p.vips {
		if err := v.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", k.address.Addr(), err))
		}
		delete(p.vips, k)
	}
	return errors.Join(errs...)
}
