package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/failoverd/failoverd/cluster/state"
)

// The keys of a service and of what it is made of.
var (
	serviceKeys = []string{"takeover", "nodes", "priorities", "failback"}
	vipKeys     = []string{"interface", "keep_prefix"}
	processKeys = []string{
		"command", "environment", "directory", "user", "stop_signal", "stop_timeout", "ready", "start_timeout", "restarts",
	}
	execKeys = []string{"start", "stop", "status", "start_timeout", "stop_timeout", "status_timeout", "interval"}
)

// maxServices bounds a services file; all of it is replicated to every node.
const maxServices = 200

// LoadServices reads the cluster's services. Within a service the blocks of
// resources are started in the order in which they stand in the file and
// stopped in the reverse order. The error is an *Error with every mistake that
// was found.
//
// In JSON the order is that of the properties in the file. Since many programs
// sort the properties of an object, and since an object cannot hold "process"
// before "vip" before "process" again, a service may there have "resources": a
// list of objects with one block each, whose order counts.
func LoadServices(path string) ([]state.Spec, error) {
	r := &report{file: path}
	src, err := readFile(path)
	if err != nil {
		r.whole("", "%s", reason(err))
		return nil, r.err()
	}
	return parseServices(r, src)
}

// ParseServices is LoadServices for text that comes from elsewhere, such as
// standard input; name stands in the messages, and decides the language.
func ParseServices(name string, src []byte) ([]state.Spec, error) {
	return parseServices(&report{file: name}, src)
}

func parseServices(r *report, src []byte) ([]state.Spec, error) {
	body := parse(r, src)
	if body == nil {
		return nil, r.err()
	}
	s := open(r, "", body, nil, block{name: "service", label: "NAME"})
	specs := []state.Spec{}
	seen := map[string]hcl.Range{}
	vips := map[string]string{} // address: the service that has it
	for i, b := range s.blocks {
		at, before := labelRange(b), len(r.problems)
		if i == maxServices {
			r.at(at, "service", "more than %d services; use a second cluster", maxServices)
			break
		}
		name := b.Labels[0]
		if !nodeName.MatchString(name) {
			r.at(at, "service", "service %q: %s", name, nameRule)
		}
		if first, twice := seen[name]; twice {
			r.at(at, "service", "service %q stands here a second time; the first is in line %d", name, first.Start.Line)
		} else {
			seen[name] = at
		}
		spec := readService(r, name, b, vips)
		if len(r.problems) == before {
			// The replicas have the last word; what they would refuse must not
			// get as far as them.
			if err := spec.Validate(); err != nil {
				r.at(at, "service", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
			}
		}
		specs = append(specs, spec)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return specs, nil
}

// labelRange is where the name of a block stands.
func labelRange(b *hcl.Block) hcl.Range {
	if len(b.LabelRanges) > 0 {
		return b.LabelRanges[0]
	}
	return b.TypeRange
}

// resourceBlocks are the kinds of resource that a service may have.
var resourceBlocks = []block{
	{name: "process", label: "NAME"},
	{name: "exec", label: "NAME"},
	{name: "vip", label: "ADDRESS"},
}

func readService(r *report, name string, b *hcl.Block, vips map[string]string) state.Spec {
	spec := state.Spec{Name: name, Takeover: state.TakeoverLease}
	before := len(r.problems)
	blocks := resourceBlocks
	if isJSON(r.file) {
		blocks = append(slices.Clone(blocks), block{name: "resources"})
	}
	s := open(r, "", b.Body, serviceKeys, blocks...)

	takeover := string(spec.Takeover)
	if s.text("takeover", &takeover) {
		spec.Takeover = state.Takeover(takeover)
		known := []string{string(state.TakeoverLease), string(state.TakeoverFence)}
		if !slices.Contains(known, takeover) {
			s.bad("takeover", `takeover = %q is none: "lease" takes over when the lease has run out or the node was fenced, "fence" only when it was fenced.%s`, takeover, suggestNear(takeover, known))
		}
	}
	s.yes("failback", &spec.Failback)
	readCandidates(s, &spec)
	readResources(s, &spec, map[string]hcl.Range{}, vips)
	if len(spec.Resources) == 0 && len(r.problems) == before {
		r.at(labelRange(b), "service", "service %q has nothing to keep alive: add a vip, process or exec block", name)
	}
	return spec
}

// readCandidates reads which nodes may hold the service, and which first.
func readCandidates(s *section, spec *state.Spec) {
	if s.list("nodes", &spec.Nodes) {
		if len(spec.Nodes) == 0 {
			s.bad("nodes", "nodes is empty: nobody could hold the service; leave it out to allow every node")
		}
		for i, n := range spec.Nodes {
			switch {
			case !nodeName.MatchString(n):
				s.badItem("nodes", i, "nodes: %q: %s", n, nameRule)
			case slices.Contains(spec.Nodes[:i], n):
				s.badItem("nodes", i, "nodes names %q twice", n)
			}
		}
	}
	v, at, ok := s.get("priorities")
	if !ok {
		return
	}
	given, ok := table(s.r, "priorities", at, v)
	if !ok {
		return
	}
	for _, node := range slices.Sorted(maps.Keys(given)) {
		p, ok := whole(s.r, "the priority of "+node, at, given[node], -1000000, 1000000)
		if !ok {
			continue
		}
		if len(spec.Nodes) > 0 && !slices.Contains(spec.Nodes, node) {
			s.bad("priorities", "priorities names %q, which is not among nodes.%s", node, suggest(node, spec.Nodes))
		} else if !nodeName.MatchString(node) {
			s.bad("priorities", "priorities: %q: %s", node, nameRule)
		}
		if spec.Priorities == nil {
			spec.Priorities = map[string]int{}
		}
		spec.Priorities[node] = p
	}
}

// readResources appends the resources of a section in the order of the file.
func readResources(s *section, spec *state.Spec, seen map[string]hcl.Range, vips map[string]string) {
	for _, b := range s.blocks {
		if b.Type == "resources" {
			readResources(open(s.r, "", b.Body, nil, resourceBlocks...), spec, seen, vips)
			continue
		}
		res := state.Resource{Kind: b.Type, Name: b.Labels[0]}
		at := labelRange(b)
		switch b.Type {
		case "vip":
			res.VIP, res.Name = readVIP(s.r, b)
		case "process":
			res.Process = readProcess(s.r, b)
		case "exec":
			res.Exec = readExec(s.r, b)
		}
		if b.Type != "vip" && !nodeName.MatchString(res.Name) {
			s.r.at(at, b.Type, "%s %q: %s", b.Type, res.Name, nameRule)
		}
		if first, twice := seen[res.Name]; twice {
			s.r.at(at, b.Type, "%s %q: the service has a resource of that name already, in line %d", b.Type, res.Name, first.Start.Line)
		} else {
			seen[res.Name] = at
			if other, taken := vips[res.Name]; taken && b.Type == "vip" {
				s.r.at(at, b.Type, "vip %s belongs to service %q already; two holders could then have it at once", res.Name, other)
			} else if b.Type == "vip" {
				vips[res.Name] = spec.Name
			}
		}
		spec.Resources = append(spec.Resources, res)
	}
}

// reserved reports whether a name in the environment is the daemon's to set.
func reserved(name string) bool { return strings.HasPrefix(name, "FAILOVER_") }
