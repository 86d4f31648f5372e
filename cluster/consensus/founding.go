package consensus

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/failoverd/failoverd/cluster"
)

// Answer is what asking one configured peer gave: its identity, or why there
// was none.
type Answer struct {
	Identity cluster.Identity
	Err      error
}

// Verb is what a node without data may do next.
type Verb string

// The verbs of a Decision.
const (
	// Wait: something outside has to change first, which may happen by itself.
	Wait Verb = "wait"
	// Refuse: this node may not come in by itself; an operator has to act.
	Refuse Verb = "refuse"
	// Found: every peer has no data and the same list, and it is this node that founds.
	Found Verb = "found"
	// Join: a peer's cluster counts this node, with this birth, as its own.
	Join Verb = "join"
)

// Decision is the outcome of one round of questions.
type Decision struct {
	Verb     Verb
	Why      string            // in words, naming every peer that matters
	Cluster  string            // Found, Join: the cluster's id
	Founders []cluster.Founder // Found, Join: sorted by address
	From     string            // Join: the address of the peer that said so
}

// ClusterID is the identity of the cluster that these nodes found: a hash of
// their names, roles, addresses and births. Other disks make another cluster.
func ClusterID(founders []cluster.Founder) string {
	h := sha256.New()
	for _, f := range sorted(founders) {
		for _, field := range []string{f.Node, string(f.Role), f.Address, f.Birth} {
			fmt.Fprintf(h, "%d:%s,", len(field), field)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Layer names the one founder that lays the first configuration: of those with
// a vote, the one whose address sorts first. Empty when none has a vote.
func Layer(founders []cluster.Founder) string {
	for _, f := range sorted(founders) {
		if f.Role.Votes() {
			return f.Node
		}
	}
	return ""
}

func sorted(founders []cluster.Founder) []cluster.Founder {
	return slices.SortedFunc(slices.Values(founders), func(a, b cluster.Founder) int { return strings.Compare(a.Address, b.Address) })
}

func founder(id cluster.Identity) cluster.Founder {
	return cluster.Founder{Node: id.Node, Role: id.Role, Address: id.Address, Birth: id.Birth}
}

// NextFounding decides what a node may do after it has asked every other
// configured peer; answers are by address. It never founds beside a cluster:
// a founder needs the word of every single peer that it has no data, and a
// node whose disk was wiped has a new birth, which no cluster counts as its own.
func NextFounding(self cluster.Identity, answers map[string]Answer) Decision {
	if self.Cluster != "" {
		return Decision{Verb: Join, Why: "this node has data of cluster " + self.Cluster, Cluster: self.Cluster, Founders: self.Founders}
	}
	if !slices.Contains(self.Peers, self.Address) {
		return Decision{Verb: Refuse, Why: fmt.Sprintf("the configured peers %s do not include this node's own address %s: correct the node's file", strings.Join(self.Peers, ", "), self.Address)}
	}
	if d, any := joinable(self, answers); any {
		return d
	}
	if why := disagreements(self, answers); len(why) > 0 {
		return Decision{Verb: Wait, Why: "waiting to found the cluster: " + strings.Join(why, "; ")}
	}
	founders := []cluster.Founder{founder(self)}
	for _, address := range others(self) {
		founders = append(founders, founder(answers[address].Identity))
	}
	founders = sorted(founders)
	votes := 0
	for _, f := range founders {
		if f.Role.Votes() {
			votes++
		}
	}
	switch layer := Layer(founders); {
	case votes == 0:
		return Decision{Verb: Wait, Why: "no configured peer has a vote: at least one needs the role voter"}
	case votes == 2:
		return Decision{Verb: Wait, Why: "two peers with a vote and no third: neither could go on without the other, so nothing would ever fail over: add a third peer, a small one with role = \"witness\" is enough"}
	case layer != self.Node:
		return Decision{Verb: Wait, Why: fmt.Sprintf("all %d peers agree: waiting for %s to found the cluster", len(founders), layer)}
	}
	return Decision{Verb: Found, Why: fmt.Sprintf("all %d peers have no data and the same list, and this node's address sorts first", len(founders)), Cluster: ClusterID(founders), Founders: founders}
}

// joinable looks for peers that have data. With any, this node founds nothing.
func joinable(self cluster.Identity, answers map[string]Answer) (d Decision, any bool) {
	var with []string // addresses of peers with data
	for _, address := range others(self) {
		if a := answers[address]; a.Err == nil && a.Identity.Cluster != "" {
			with = append(with, address)
		}
	}
	if len(with) == 0 {
		return Decision{}, false
	}
	first := answers[with[0]].Identity
	for _, address := range with[1:] {
		if id := answers[address].Identity; id.Cluster != first.Cluster {
			return Decision{Verb: Refuse, Why: fmt.Sprintf("%s has data of cluster %s, and %s of cluster %s: the configured peers belong to two clusters; find out which is the right one, and empty the data directories of the other's nodes",
				peerText(with[0], first), first.Cluster, peerText(address, id), id.Cluster)}, true
		}
	}
	for _, address := range with {
		id := answers[address].Identity
		for _, f := range id.Founders {
			if f.Birth == self.Birth && f.Node == self.Node && f.Address == self.Address {
				return Decision{Verb: Join, Why: fmt.Sprintf("%s counts this node as one of cluster %s", peerText(address, id), id.Cluster), Cluster: id.Cluster, Founders: id.Founders, From: address}, true
			}
		}
	}
	return Decision{Verb: Refuse, Why: unknownTo(self, with[0], first)}, true
}

// unknownTo says how a cluster that does not count this node's data as its own
// knows this node otherwise.
func unknownTo(self cluster.Identity, address string, peer cluster.Identity) string {
	for _, f := range peer.Founders {
		switch {
		case f.Node == self.Node && f.Address == self.Address:
			return fmt.Sprintf("this node has no data, but cluster %s at %s knows %s at %s with other data (birth %s, here %s): if its disk was replaced or emptied, an operator must admit it: failoverctl members replace %s %s %s; if the cluster has never run, empty the data directories of all its nodes",
				peer.Cluster, peerText(address, peer), f.Node, f.Address, f.Birth, self.Birth, f.Node, self.Node, self.Address)
		case f.Node == self.Node:
			return fmt.Sprintf("cluster %s at %s has a node %s already, at %s: give this node another name, or admit it in the other's place: failoverctl members replace %s %s %s",
				peer.Cluster, peerText(address, peer), f.Node, f.Address, f.Node, self.Node, self.Address)
		case f.Address == self.Address:
			return fmt.Sprintf("cluster %s at %s knows this node's address %s as that of %s: correct the name or the address in the node's file, or admit it in the other's place: failoverctl members replace %s %s %s",
				peer.Cluster, peerText(address, peer), f.Address, f.Node, f.Node, self.Node, self.Address)
		}
	}
	return fmt.Sprintf("cluster %s at %s does not know this node: an operator must admit it: failoverctl members add %s %s", peer.Cluster, peerText(address, peer), self.Node, self.Address)
}

// disagreements names every peer that keeps the cluster from being founded.
func disagreements(self cluster.Identity, answers map[string]Answer) []string {
	var why []string
	names := map[string]string{self.Node: self.Address}
	births := map[string]string{self.Birth: self.Address}
	for _, address := range others(self) {
		a, ok := answers[address]
		id := a.Identity
		switch {
		case !ok:
			why = append(why, fmt.Sprintf("%s was not asked yet", address))
			continue
		case a.Err != nil:
			why = append(why, fmt.Sprintf("%s does not answer (%v)", address, a.Err))
			continue
		case id.Address != address:
			why = append(why, fmt.Sprintf("%s says that its address is %s: one of the two files is wrong", peerText(address, id), id.Address))
			continue
		}
		if !slices.Equal(id.Peers, self.Peers) {
			why = append(why, fmt.Sprintf("%s has another list of peers (%s, here %s)", peerText(address, id), strings.Join(id.Peers, ", "), strings.Join(self.Peers, ", ")))
		}
		if at, taken := names[id.Node]; taken {
			why = append(why, fmt.Sprintf("%s and %s have the same name %q", at, address, id.Node))
		}
		if at, taken := births[id.Birth]; taken {
			why = append(why, fmt.Sprintf("%s and %s have the same data directory, or one is a copy of the other: empty one", at, address))
		}
		if id.Birth == "" || id.Node == "" {
			why = append(why, fmt.Sprintf("%s does not say who it is", address))
		}
		names[id.Node], births[id.Birth] = address, address
	}
	return why
}

// others are the configured peers without this node, sorted.
func others(self cluster.Identity) []string {
	var out []string
	for _, address := range self.Peers {
		if address != self.Address {
			out = append(out, address)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func peerText(address string, id cluster.Identity) string {
	if id.Node == "" {
		return address
	}
	return id.Node + " (" + address + ")"
}
