package main

import (
	"context"
	"errors"
	"slices"

	"github.com/failoverd/failoverd/integration/lab"
)

// The ports of a node whose file names none (package cluster/config).
const (
	portRaft = 7400 + iota
	portPeer
	portGossip
	portRenew
)

// impose begins the rules and gives their end.
func (in *injector) impose(rules []lab.Rule) (func() error, error) {
	i, err := in.rig.Lab.Impose(rules...)
	if err != nil {
		return nil, err
	}
	return i.Lift, nil
}

// without gives the hosts that are not among those.
func without(all []*lab.Host, not ...*lab.Host) []*lab.Host {
	return slices.DeleteFunc(slices.Clone(all), func(h *lab.Host) bool { return slices.Contains(not, h) })
}

func oneWay(from, to []*lab.Host) []lab.Rule {
	var rules []lab.Rule
	for _, a := range from {
		for _, b := range to {
			if a != b {
				rules = append(rules, lab.Rule{From: a, To: b})
			}
		}
	}
	return rules
}

func unplug(_ context.Context, _ *injector, h *lab.Host, _ fault) (func() error, error) {
	return h.Plug, h.Unplug()
}

func cutOff(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return in.impose(lab.Both([]*lab.Host{h, in.inside}, append(without(in.nodes, h), in.outside)))
}

func apart(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return in.impose(lab.Both([]*lab.Host{h}, without(in.nodes, h)))
}

func pairCut(_ context.Context, in *injector, h *lab.Host, f fault) (func() error, error) {
	others := without(in.nodes, h)
	return in.impose(lab.Both([]*lab.Host{h}, []*lab.Host{others[f.arg%len(others)]}))
}

func split(_ context.Context, in *injector, h *lab.Host, f fault) (func() error, error) {
	at := slices.Index(in.nodes, h)
	part := []*lab.Host{h}
	for i := range f.arg {
		part = append(part, in.nodes[(at+i+1)%len(in.nodes)])
	}
	rest := append(without(in.nodes, part...), in.outside)
	return in.impose(lab.Both(append(part, in.inside), rest))
}

func shatter(_ context.Context, in *injector, _ *lab.Host, _ fault) (func() error, error) {
	return in.impose(oneWay(in.nodes, in.nodes))
}

func mute(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return in.impose(oneWay([]*lab.Host{h}, in.everybody()))
}

func deaf(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
	return in.impose(oneWay(in.everybody(), []*lab.Host{h}))
}

// everybody are the nodes and the clients.
func (in *injector) everybody() []*lab.Host {
	return append(slices.Clone(in.nodes), in.inside, in.outside)
}

func loss(_ context.Context, in *injector, _ *lab.Host, f fault) (func() error, error) {
	rules := oneWay(in.everybody(), in.everybody())
	for i := range rules {
		rules[i].Percent = f.arg
	}
	return in.impose(rules)
}

func lossy(_ context.Context, in *injector, h *lab.Host, f fault) (func() error, error) {
	one := []*lab.Host{h}
	rules := append(oneWay(one, in.everybody()), oneWay(in.everybody(), one)...)
	for i := range rules {
		rules[i].Percent = f.arg
	}
	return in.impose(rules)
}

// noPort cuts what a node sends to that port of the others, and they to its own.
func noPort(port uint16) func(context.Context, *injector, *lab.Host, fault) (func() error, error) {
	return func(_ context.Context, in *injector, h *lab.Host, _ fault) (func() error, error) {
		var rules []lab.Rule
		for _, r := range lab.Both([]*lab.Host{h}, without(in.nodes, h)) {
			for _, protocol := range []byte{lab.TCP, lab.UDP} {
				r.Protocol, r.Port = protocol, port
				rules = append(rules, r)
			}
		}
		return in.impose(rules)
	}
}

// errNothingThere says that a fault found nothing to break.
var errNothingThere = errors.New("nothing there")
