// Package daemon wires a node together: configuration, data directory, guard,
// gate, renewals, log, gossip, drivers, and the servers for operators and
// peers. It decides nothing.
//
// The order of a start matters (LEASE.md 12): a daemon that is restarted goes on
// renewing its session from the journal before it opens the log, so that
// services under its lease do not notice.
package daemon
