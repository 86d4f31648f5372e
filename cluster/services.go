package cluster

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Apply puts services in force as one entry: all of them or none.
func (n *Node) Apply(ctx context.Context, r ApplyRequest) (ApplyResult, error) {
	if _, err := n.leading(); err != nil {
		return ApplyResult{}, err
	}
	st := n.Voter.View()
	if err := checkSpecs(st, r.Services); err != nil {
		return ApplyResult{}, err
	}
	remove := removals(st, r)
	res := ApplyResult{Changes: changes(st, r.Services, remove), Index: st.Index}
	if r.DryRun || len(res.Changes) == 0 {
		return res, nil
	}
	if running := held(st, remove); len(running) > 0 && !r.Yes {
		return res, fmt.Errorf("%w: this would stop and remove %s, which is held now; say --yes if that is meant", ErrRefused, strings.Join(running, ", "))
	}
	failpoint.Here("order.apply.before")
	done, err := n.commit(ctx, state.SetServices{Services: r.Services, Remove: remove, Stamp: n.stamp(r.By, r.Why)})
	if err != nil {
		return res, err
	}
	failpoint.Here("order.applied")
	res.Index = done.Index
	return res, nil
}

// checkSpecs refuses, all at once, what could never work: nodes that are not known.
func checkSpecs(st *state.State, specs []state.Spec) error {
	var problems []string
	for _, s := range specs {
		if err := s.Validate(); err != nil {
			problems = append(problems, err.Error())
		}
		for _, name := range s.Nodes {
			if st.Nodes[name] == nil {
				problems = append(problems, fmt.Sprintf("service %q names node %q, which is not a member", s.Name, name))
			}
		}
		for _, name := range sortedNames(s.Priorities) {
			if st.Nodes[name] == nil {
				problems = append(problems, fmt.Sprintf("service %q gives a priority to node %q, which is not a member", s.Name, name))
			}
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInvalid, strings.Join(problems, "; "))
}

// removals names what a prune removes: the services that the request leaves out.
func removals(st *state.State, r ApplyRequest) []string {
	if !r.Prune {
		return nil
	}
	named := map[string]bool{}
	for _, s := range r.Services {
		named[s.Name] = true
	}
	var out []string
	for _, name := range sortedNames(st.Services) {
		if !named[name] && !st.Services[name].Removed {
			out = append(out, name)
		}
	}
	return out
}

// held are those of the services that somebody holds.
func held(st *state.State, names []string) []string {
	var out []string
	for _, name := range names {
		if len(st.Services[name].Unfinished()) > 0 {
			out = append(out, name)
		}
	}
	return out
}

// changes says what putting the specifications in force does, one sentence each.
func changes(st *state.State, specs []state.Spec, remove []string) []string {
	var out []string
	for _, spec := range specs {
		old := st.Services[spec.Name]
		switch {
		case old == nil || old.Removed:
			out = append(out, fmt.Sprintf("%s is new: it is granted to the best candidate", spec.Name))
		case reflect.DeepEqual(old.Spec, spec):
		case reflect.DeepEqual(old.Spec.Resources, spec.Resources):
			out = append(out, fmt.Sprintf("%s changes its policy only: restarts nothing", spec.Name))
		case len(old.Unfinished()) > 0:
			out = append(out, fmt.Sprintf("%s changes its resources: it is stopped and started again on %s", spec.Name, old.Newest().Node))
		default:
			out = append(out, fmt.Sprintf("%s changes its resources; nobody holds it now", spec.Name))
		}
	}
	for _, name := range remove {
		if open := st.Services[name].Unfinished(); len(open) > 0 {
			out = append(out, fmt.Sprintf("%s is removed: it is stopped on %s", name, open[0].Node))
		} else {
			out = append(out, fmt.Sprintf("%s is removed; nobody holds it now", name))
		}
	}
	return out
}
