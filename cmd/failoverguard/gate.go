package main

import (
	"fmt"
	"net/netip"

	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/vip/gate"
)

// shutter gives the guard the kernel's gate, with a socket opened beforehand.
type shutter struct {
	s *gate.Shutter
}

func openGate(table string) (guard.Shutter, error) {
	s, err := gate.OpenShutter(table)
	if err != nil {
		return nil, err
	}
	return shutter{s}, nil
}

// Shut names the addresses too: if somebody has flushed the ruleset, the gate
// is made anew, shut for them.
func (s shutter) Shut(addresses []guard.Address) error {
	addrs := make([]netip.Addr, 0, len(addresses))
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.CIDR)
		if err != nil {
			return fmt.Errorf("shut the gate: %w", err)
		}
		addrs = append(addrs, p.Addr())
	}
	return s.s.ShutAll(addrs...)
}

func (s shutter) Close() error { return s.s.Close() }
