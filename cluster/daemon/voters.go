package daemon

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/renew"
)

// voters keeps the latest configuration at hand in the forms in which it is
// asked for: every renewal needs it, so that it is made anew only when raft's
// list has changed.
type voters struct {
	servers atomic.Pointer[func() []cluster.Server] // raft's, once it is loaded
	journal []journal.VoterAddr                     // until then

	mu      sync.Mutex
	seen    []cluster.Server
	conf    lease.Configuration
	targets []renew.Target
}

func newVoters(j *journal.Journal) *voters {
	v := &voters{}
	if s, ok := j.Session(); ok {
		v.journal = s.Voters
	}
	return v
}

// load switches from the journal's list to raft's.
func (v *voters) load(servers func() []cluster.Server) { v.servers.Store(&servers) }

// configuration is raft's latest; before raft is loaded it is empty, so that
// this node votes for nothing.
func (v *voters) configuration() lease.Configuration {
	if v.servers.Load() == nil {
		return lease.Configuration{}
	}
	conf, _ := v.current()
	return conf
}

// ask is whom to ask for renewals: raft's latest, or the journal's list.
func (v *voters) ask() (lease.Configuration, []renew.Target) {
	if v.servers.Load() != nil {
		return v.current()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.targets == nil {
		var names []string
		for _, a := range v.journal {
			names = append(names, a.ID)
			v.targets = append(v.targets, target(a.ID, a.Addr))
		}
		v.conf = lease.NewConfiguration(names)
	}
	return v.conf, v.targets
}

func (v *voters) current() (lease.Configuration, []renew.Target) {
	servers := (*v.servers.Load())()
	v.mu.Lock()
	defer v.mu.Unlock()
	if slices.Equal(servers, v.seen) {
		return v.conf, v.targets
	}
	var names []string
	var targets []renew.Target
	for _, s := range servers {
		if s.Votes {
			names = append(names, s.Name)
			targets = append(targets, target(s.Name, config.RenewAddress(s.Address)))
		}
	}
	v.seen, v.conf, v.targets = slices.Clone(servers), lease.NewConfiguration(names), targets
	return v.conf, v.targets
}

// target is a voter's place; one without a usable address is not asked.
func target(name, address string) renew.Target {
	t := renew.Target{ID: name}
	if a, err := netip.ParseAddrPort(address); err == nil {
		t.Addr = a
	}
	return t
}
