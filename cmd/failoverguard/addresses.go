package main

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/fencing/guard"
)

// deleteAddresses removes addresses from their interfaces. What is gone
// already, with its interface or without, is as wanted.
func deleteAddresses(addresses []guard.Address) error {
	var errs []error
	for _, a := range addresses {
		if err := deleteAddress(a); err != nil {
			errs = append(errs, fmt.Errorf("delete %s from %s: %w", a.CIDR, a.Interface, err))
		}
	}
	return errors.Join(errs...)
}

func deleteAddress(a guard.Address) error {
	addr, err := netlink.ParseAddr(a.CIDR)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(a.Interface)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.AddrDel(link, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return nil
}
