// Package service holds what the drivers of services share: process (a program
// that the guard keeps alive) and exec (hooks of the user's own). Package
// service/cgroup is a leaf below both and the guard.
package service

import (
	"fmt"
	"strconv"
)

// Origin tells a resource for what, where and why it starts. It reaches
// programs and hooks as environment.
type Origin struct {
	Service  string
	Node     string
	Epoch    uint64 // that it was built for; a start names its own
	Previous string // the holder before; empty: none
	Reason   string // in words
	Proof    string // what ended the epoch before: released, fenced, expired, vouched; empty: there was none
}

// Environment is what every program and hook gets. FAILOVER_EPOCH is the
// fencing token: of two that act on shared storage the greater one is right.
func (o Origin) Environment(epoch uint64) []string {
	return []string{
		"FAILOVER_SERVICE=" + o.Service,
		"FAILOVER_EPOCH=" + strconv.FormatUint(epoch, 10),
		"FAILOVER_NODE=" + o.Node,
		"FAILOVER_PREVIOUS=" + o.Previous,
		"FAILOVER_REASON=" + o.Reason,
		"FAILOVER_PROOF=" + o.Proof,
	}
}

// Tail ends an error with the last of a program's output, if there is any.
func Tail(output []byte) string {
	const most = 400
	end := len(output)
	for end > 0 && (output[end-1] == '\n' || output[end-1] == ' ') {
		end--
	}
	if end == 0 {
		return ""
	}
	b := output[max(0, end-most):end]
	return fmt.Sprintf("; its output ends with %q", b)
}
