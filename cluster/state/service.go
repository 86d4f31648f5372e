package state

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// setServices puts a set of services in force, all of it or nothing.
func (s *State) setServices(c SetServices, st Stamp) *Refusal {
	if no := s.mayPutInForce(c); no != nil {
		return no
	}
	for _, spec := range c.Services {
		s.putInForce(spec.clone(), st)
	}
	for _, name := range c.Remove {
		s.remove(s.Services[name], st)
	}
	return nil
}

// mayPutInForce checks the whole set before anything of it is done.
func (s *State) mayPutInForce(c SetServices) *Refusal {
	named := map[string]bool{}
	for _, spec := range c.Services {
		if err := spec.Validate(); err != nil {
			return refuse(CodeBadServices, "nothing was changed: %s: correct the file and apply it again",
				strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		if named[spec.Name] {
			return refuse(CodeBadServices, "nothing was changed: service %s is named twice: give each a name of its own", spec.Name)
		}
		named[spec.Name] = true
	}
	for _, name := range c.Remove {
		if s.Services[name] == nil {
			return s.noService(name)
		}
		if named[name] {
			return refuse(CodeBadServices, "nothing was changed: service %s is both put in force and removed: do one of them", name)
		}
	}
	return s.addressConflict(c)
}

// addressConflict finds an address that two services would serve: by their
// specifications, or because the one that gives it up is not over yet.
func (s *State) addressConflict(c SetServices) *Refusal {
	wanted := map[netip.Addr]string{}
	changed := map[string]bool{}
	for _, spec := range c.Services {
		changed[spec.Name] = true
		for _, a := range spec.addresses() {
			if other := wanted[a]; other != "" {
				return refuse(CodeAddressBusy, "nothing was changed: services %s and %s both want the address %s: give it to one of them", other, spec.Name, a)
			}
			wanted[a] = spec.Name
		}
	}
	for _, name := range s.ServiceNames() {
		svc := s.Services[name]
		running := svc.Unfinished()
		stays := !changed[name] && !svc.Removed && !slices.Contains(c.Remove, name)
		for _, a := range svc.Spec.addresses() {
			other := wanted[a]
			if other == "" || other == name {
				continue
			}
			if stays {
				return refuse(CodeAddressBusy, "nothing was changed: the address %s belongs to service %s and %s wants it too: give it to one of them",
					a, name, other)
			}
			if len(running) > 0 {
				return refuse(CodeAddressBusy, "nothing was changed: %s wants the address %s of %s, whose epoch %d on %s is not over: take it from %s first, and give it to %s when nobody serves it any more",
					other, a, name, running[0].Epoch, running[0].Node, name, other)
			}
		}
	}
	return nil
}

// putInForce adds a service or changes its specification. The same again is no
// change, unless the service was being removed.
func (s *State) putInForce(spec Spec, st Stamp) {
	svc := s.Services[spec.Name]
	if svc == nil {
		svc = &Service{Name: spec.Name, Removed: true}
		s.Services[spec.Name] = svc
	}
	fresh := svc.Removed
	if !fresh && reflect.DeepEqual(svc.Spec, spec) {
		return
	}
	svc.Spec, svc.Generation, svc.Removed = spec, s.Index, false
	what := "changed"
	if fresh {
		what = "put in force"
	}
	s.note(st, Event{Kind: SetServices{}.Kind(), Service: svc.Name}, "%s is %s, takeover %s", svc.Name, what, spec.Takeover)
	s.settle(svc, st)
}

// remove lets a service go: it gets no further grant, and its specification is
// kept only until every epoch is over, since its holder still has to stop it.
func (s *State) remove(svc *Service, st Stamp) {
	if svc.Removed {
		return
	}
	svc.Removed, svc.Move = true, nil
	s.note(st, Event{Kind: SetServices{}.Kind(), Service: svc.Name}, "%s is removed", svc.Name)
	svc.tidyUp()
}

// reportFailure keeps the newest failure of each node; decide weighs them.
func (s *State) reportFailure(c ReportFailure, st Stamp) *Refusal {
	svc := s.Services[c.Service]
	if svc == nil {
		return s.noService(c.Service)
	}
	g := svc.Grant(c.Epoch)
	if g == nil {
		return refuse(CodeEpochUnknown, "epoch %d of %s is not known any more or never was, the last is %d: a failure is reported before its epoch is released",
			c.Epoch, svc.Name, svc.LastEpoch)
	}
	if g.Node != c.Node {
		return refuse(CodeEpochNode, "epoch %d of %s is with %s, so %s cannot have failed under it: look at the state again",
			c.Epoch, svc.Name, g.Node, short(c.Node))
	}
	if svc.Gone() || s.Nodes[c.Node] == nil {
		return nil // nobody will choose that node for that service again
	}
	next := Failure{Node: c.Node, Epoch: c.Epoch, Why: or(st.Why, "no reason was given"), Index: s.Index, At: st.At}
	at, found := slices.BinarySearchFunc(svc.Failures, c.Node, func(f Failure, node string) int { return cmp.Compare(f.Node, node) })
	if found {
		same := svc.Failures[at]
		same.Index = next.Index
		if same == next {
			return nil
		}
		svc.Failures[at] = next
	} else {
		svc.Failures = slices.Insert(svc.Failures, at, next)
	}
	s.note(st, Event{Kind: c.Kind(), Service: svc.Name, Node: c.Node, Session: g.Session, Epoch: c.Epoch},
		"%s could not run %s under epoch %d", c.Node, svc.Name, c.Epoch)
	return nil
}

// clearFailures forgets failures, so that the nodes are chosen again.
func (s *State) clearFailures(c ClearFailures, st Stamp) *Refusal {
	svc := s.Services[c.Service]
	if svc == nil {
		return s.noService(c.Service)
	}
	if c.Node != "" && s.Nodes[c.Node] == nil {
		return s.noNode(c.Node)
	}
	if removeFailures(svc, func(f Failure) bool { return c.Node == "" || f.Node == c.Node }) {
		s.note(st, Event{Kind: c.Kind(), Service: svc.Name, Node: c.Node}, "the failures of %s on %s are forgotten", svc.Name, or(c.Node, "all nodes"))
	}
	return nil
}
