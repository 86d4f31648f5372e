// Package gate is the kernel's lease for addresses: an nftables table of our
// own in which an address passes traffic only while a set element with a
// timeout lives. No process has to be alive for the gate to shut.
//
// A gate holds two sets, repeated in each of its tables:
//
//	managed   the addresses that need a lease
//	open      those whose lease lives, each element with its own timeout
//
// and drops, for an address that is managed and not open:
//
//	inet    prerouting   packets to the address, when this host has it
//	        output       packets that this host sends from it
//	        postrouting  packets that are rewritten to come from it
//	arp     output       what the kernel says by ARP in its name
//	netdev  egress       the same for raw sockets, on covered devices: a
//	                     program that wakes up late cannot announce it
//
// A packet that is merely forwarded between the address on another host and a
// guest of this one passes. The third table needs Linux 5.16; without it the
// gate is complete but for our own late announcements.
//
// # Re-arming
//
// A renewal is one transaction, "delete the element, add it again". Two things
// make it refuse itself in the kernel when it comes too late, whatever the
// process thought when it began it: the deletion fails when the old element has
// expired, and the batch carries the generation of the ruleset that the process
// has last seen, so that it fails when somebody, the guard above all, has
// committed anything since. Both are answered by reading the clock again. The
// generation also tells, at no cost, when somebody else has touched the
// ruleset: only then is it read back.
//
// The kernel counts these timeouts in jiffies, which stand still during
// suspend and are slewed: the gate arms 0.9 of the time left, and the process
// shuts it explicitly when its own clocks say that the time has passed.
//
// # Limits
//
// What does not pass netfilter is not stopped: XDP, AF_XDP and DPDK programs,
// flows already in a flowtable, ARP suppression answered by a bridge. Nor is
// IPv6, which is refused so far.
package gate
