package cluster

import (
	"context"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// Peer is what a node answers to another node.
type Peer interface {
	// Identity is what a node says before and after it belongs to a cluster.
	Identity(ctx context.Context) (Identity, error)
	// Propose appends a command for a node that does not lead. Only a leader does it.
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	// Stopped is the old holder's word, after its journal was synced, that it
	// has stopped: the receiver of the hand-over may start.
	Stopped(ctx context.Context, m Stopped) error
	// Prepare makes a node ready to receive a service: nil when it could start it now.
	Prepare(ctx context.Context, service string) error
	// Report is the node's own account of itself.
	Report(ctx context.Context) (Report, error)
	// Restart makes the daemon restart while its services go on under their lease.
	Restart(ctx context.Context, by, why string) error
	// Goodbye says that a node has proven everything stopped and leaves.
	Goodbye(ctx context.Context, node string, session uint64) error
}

// Peers calls a Peer at a node's address.
type Peers interface {
	Peer(address string) (Peer, error)
	Operator(address string) (Operator, error)
}

// Stopped names the hand-over that it belongs to: the service, the epoch that
// was given up, the epoch that may start, and the log index of the HandOver.
type Stopped struct {
	Service string `json:"service"`
	From    uint64 `json:"from"`
	Epoch   uint64 `json:"epoch"`
	Index   uint64 `json:"index"`
	Node    string `json:"node"` // the giver
}

// Identity is a node's word about its data and the peers it was told of.
type Identity struct {
	Node     string     `json:"node"`
	Role     state.Role `json:"role"`
	Address  string     `json:"address"`
	Peers    []string   `json:"peers"`              // sorted host:port, as configured
	Birth    string     `json:"birth"`              // drawn once per data directory
	Cluster  string     `json:"cluster"`            // empty: no data
	Founders []Founder  `json:"founders,omitempty"` // once founded: who took part
	Version  string     `json:"version"`
}

// Founder is one of the nodes that a cluster was founded with.
type Founder struct {
	Node    string     `json:"node"`
	Role    state.Role `json:"role"`
	Address string     `json:"address"`
	Birth   string     `json:"birth"`
}

// Report is what a node says of itself, now.
type Report struct {
	Cluster   string          `json:"cluster"` // whose member it is: another's account counts for nothing here
	Node      string          `json:"node"`
	Index     uint64          `json:"index"` // applied
	Ready     bool            `json:"ready"`
	Session   uint64          `json:"session"`
	LeaseLeft time.Duration   `json:"lease_left"`
	Services  []ServiceReport `json:"services"`
	Alarms    []string        `json:"alarms,omitempty"`
	Version   string          `json:"version"`
	// MACs are the hardware addresses of the node's interfaces: an answer from
	// one of them is no conflict while its service is taken over.
	MACs []string `json:"macs,omitempty"`
}

// ServiceReport is one service on the reporting node.
type ServiceReport struct {
	Name      string           `json:"name"`
	Epoch     uint64           `json:"epoch"`
	State     string           `json:"state"` // running, starting, stopping, stopped, failed, unknown
	Since     time.Time        `json:"since"`
	Guarantee []string         `json:"guarantee"`
	Resources []ResourceStatus `json:"resources"`
	Unable    string           `json:"unable,omitempty"` // why this node could not run it, as far as it can tell
}
