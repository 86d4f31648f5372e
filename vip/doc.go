// Package vip claims, announces, watches and gives up a virtual IPv4 address.
//
// A VIP is a Resource of a service: it is armed with the time that is left of
// the lease, started, armed again after every renewal, and stopped. What
// bounds it when nobody is left to stop it:
//
//   - the kernel gate (package gate): the address passes traffic and ARP only
//     while a set element lives that every Arm renews;
//   - the address's own lifetime (valid_lft, whole seconds), with a gate the
//     second line, without one the only one: leases must then be 3 s or more.
//
// # Order
//
// Arm opens the gate while the address does not exist yet; Start adds the
// address and announces it; a gate that is open before costs nothing and a
// gate that is shut would swallow the announcements. Stop shuts the gate first,
// so that no packet passes while the rest is done, then deletes the address
// and reads back that it is gone: that is the proof.
//
// # What is written to the host
//
// The address, as /32 without a route for its network (an expiring primary
// address would take its secondaries with it) unless the prefix is to be kept,
// with the label "<interface>:fod" by which a later start recognises what a
// dead predecessor left (CleanStale). And the gate's tables, where a stopped
// address stays listed as shut until Close: something else that puts it back
// on this host meanwhile serves nobody.
package vip
