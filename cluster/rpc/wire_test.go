package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// fill sets every field of a value to something that is not its zero, so that
// a field which the wire forgets is seen.
func fill(v reflect.Value, r *rand.Rand) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<32), r.Int64N(1e9)).UTC()))
		return
	case time.Duration:
		v.SetInt(1 + r.Int64N(1<<50))
		return
	case state.Resource:
		fillResource(v, r)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.Slice:
		n := 1 + r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(v.Index(i), r)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, r)
		fill(value, r)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", r.Uint32()))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1 + r.Int64N(1<<40))
	case reflect.Uint64:
		v.SetUint(1 + r.Uint64N(1<<63))
	default:
		panic("fill: " + v.Type().String())
	}
}

func fillResource(v reflect.Value, r *rand.Rand) {
	bodies := []int{}
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Pointer {
			bodies = append(bodies, i)
			continue
		}
		fill(v.Field(i), r)
	}
	fill(v.Field(bodies[r.IntN(len(bodies))]), r)
}

func filled[T any](r *rand.Rand) T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), r)
	return v
}

func same(t *testing.T, what string, got, want any, options ...cmp.Option) {
	t.Helper()
	if diff := cmp.Diff(want, got, options...); diff != "" {
		t.Errorf("%s changed on the way (-sent +arrived):\n%s", what, diff)
	}
}

// Every field of every request and answer arrives, also those that somebody
// adds to package cluster tomorrow.
func TestEveryFieldArrives(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		op := &fakeOperator{
			status: filled[cluster.Status](r), explain: filled[cluster.Explanation](r), move: filled[cluster.SwitchoverResult](r),
			members: filled[[]cluster.Member](r), apply: filled[cluster.ApplyResult](r), version: filled[cluster.Version](r),
			events: filled[[]state.Event](r),
		}
		_, path := serveUnix(t, op)
		c := dial(t, "unix://"+path)
		operatorFields(t, testContext(t), c, op, r)
	}
}

func operatorFields(t *testing.T, ctx context.Context, c *Client, op *fakeOperator, r *rand.Rand) {
	t.Helper()
	check := func(what string, err error, got, want any) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		same(t, what, got, want)
	}
	asked := func(what string, err error, want any) {
		t.Helper()
		check(what, err, op.last(), want)
	}
	st, err := c.Status(ctx)
	check("Status", err, st, op.status)
	e, err := c.Explain(ctx, "svc", "n")
	check("Explanation", err, e, op.explain)
	asked("Explain", err, explainAsked{"svc", "n"})
	query := filled[cluster.HistoryQuery](r)
	events, err := c.History(ctx, query)
	check("History", err, events, op.events)
	asked("HistoryQuery", err, query)
	so := filled[cluster.SwitchoverRequest](r)
	move, err := c.Switchover(ctx, so)
	check("SwitchoverResult", err, move, op.move)
	asked("SwitchoverRequest", err, so)
	fo := filled[cluster.FailoverRequest](r)
	move, err = c.Failover(ctx, fo)
	check("Failover's result", err, move, op.move)
	asked("FailoverRequest", err, fo)
	pause := filled[cluster.PauseRequest](r)
	asked("PauseRequest", c.Pause(ctx, pause), pause)
	standby := filled[cluster.StandbyRequest](r)
	asked("StandbyRequest", c.Standby(ctx, standby), standby)
	asked("RestartNode", c.RestartNode(ctx, "n", "ann", "why"), restartAsked{"n", "ann", "why"})
	asked("Cleanup", c.Cleanup(ctx, "s", "n", "ann"), cleanupAsked{"s", "n", "ann"})
	members, err := c.Members(ctx)
	check("Members", err, members, op.members)
	member := filled[cluster.MemberRequest](r)
	asked("MemberRequest", c.ChangeMember(ctx, member), member)
	apply := filled[cluster.ApplyRequest](r)
	result, err := c.Apply(ctx, apply)
	check("ApplyResult", err, result, op.apply)
	asked("ApplyRequest", err, apply)
	v, err := c.Version(ctx)
	check("Version", err, v, op.version)
}

func TestEveryPeerFieldArrives(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		peer := &fakePeer{identity: filled[cluster.Identity](r), result: filled[state.Result](r), report: filled[cluster.Report](r)}
		l := listen(t)
		servePeers(t, l, &fakeOperator{}, peer)
		peers := NewPeers(PeersOptions{Codec: fakeCodec{}})
		t.Cleanup(func() { _ = peers.Close() })
		p, err := peers.Peer(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ctx := testContext(t)
		identity, err := p.Identity(ctx)
		same(t, "Identity", identity, peer.identity)
		report, reportErr := p.Report(ctx)
		same(t, "Report", report, peer.report)
		result, proposeErr := p.Propose(ctx, state.ClearFailures{Service: "pg"})
		same(t, "Result", result, peer.result)
		same(t, "Propose", peer.last(), any(state.ClearFailures{Service: "pg"}))
		stopped := filled[cluster.Stopped](r)
		stoppedErr := p.Stopped(ctx, stopped)
		same(t, "Stopped", peer.last(), any(stopped))
		prepareErr := p.Prepare(ctx, "pg")
		same(t, "Prepare", peer.last(), any("pg"))
		restartErr := p.Restart(ctx, "ann", "why")
		same(t, "Restart", peer.last(), any(restartAsked{By: "ann", Why: "why"}))
		goodbyeErr := p.Goodbye(ctx, "a", 7)
		same(t, "Goodbye", peer.last(), any(goodbyeAsked{"a", 7}))
		for _, err := range []error{err, reportErr, proposeErr, stoppedErr, prepareErr, restartErr, goodbyeErr} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What was not set stays not set: zero times are not 1970, and a spec comes
// out as the very value that went in.
func TestZeroValuesStayZero(t *testing.T) {
	st := statusFromWire(statusToWire(cluster.Status{Services: []cluster.ServiceStatus{{LeaseLeft: -1}}, Nodes: []cluster.NodeStatus{{Renewed: -1}}}))
	same(t, "empty Status", st, cluster.Status{Services: []cluster.ServiceStatus{{LeaseLeft: -1}}, Nodes: []cluster.NodeStatus{{Renewed: -1}}}, cmpopts.EquateEmpty())
	if !st.At.IsZero() || st.Services[0].Paused != nil || st.Services[0].Last != nil {
		t.Errorf("something appeared: %+v", st)
	}
	spec := state.Spec{Name: "x", Resources: []state.Resource{{Kind: "vip", VIP: &state.VIP{}}}}
	if got := specFromWire(specToWire(spec)); !reflect.DeepEqual(got, spec) {
		t.Errorf("spec %#v became %#v", spec, got)
	}
	// A status of a version without those fields must not claim a lease of 0 s.
	old := statusFromWire(&failoverv1.Status{Services: []*failoverv1.ServiceStatus{{}}, Nodes: []*failoverv1.NodeStatus{{}}})
	if old.Services[0].LeaseLeft >= 0 || old.Nodes[0].Renewed >= 0 {
		t.Errorf("an absent duration became known: %+v", old)
	}
}

// A kind of resource that this version does not know arrives with its name and
// without a body, so that validation can say which kind it is.
func TestUnknownResourceKindKeepsItsName(t *testing.T) {
	got := specFromWire(specToWire(state.Spec{Name: "x", Resources: []state.Resource{{Kind: "systemd", Name: "erp.service"}}}))
	want := []state.Resource{{Kind: "systemd", Name: "erp.service"}}
	same(t, "resource", got.Resources, want)
}

func TestRequestOfANewerVersionIsRefused(t *testing.T) {
	request := applyToWire(cluster.ApplyRequest{Services: []state.Spec{{Name: "x"}}})
	if err := checkRequest(request); err != nil {
		t.Fatal(err)
	}
	newer := protowire.AppendVarint(protowire.AppendTag(nil, 4000, protowire.VarintType), 1)
	request.Services[0].ProtoReflect().SetUnknown(newer)
	err := checkRequest(request)
	if err == nil || !strings.Contains(err.Error(), "Spec carries a setting that this node's version does not know") {
		t.Errorf("got %v", err)
	}
}

func TestTextThatIsNotUTF8(t *testing.T) {
	op := &fakeOperator{explain: cluster.Explanation{Lines: []string{"hook said \xff\xfe"}}}
	_, path := serveUnix(t, op)
	c := dial(t, "unix://"+path)
	ctx := testContext(t)
	e, err := c.Explain(ctx, "s", "")
	if err != nil || e.Lines[0] != "hook said \uFFFD" {
		t.Errorf("an answer with a bad byte: %q, %v", e.Lines, err)
	}
	before := op.calls()
	_, err = c.Apply(ctx, cluster.ApplyRequest{Services: []state.Spec{{Name: "x", Priorities: map[string]int{"\xff": 1}}}})
	if err == nil || !strings.Contains(err.Error(), "not valid UTF-8") || op.calls() != before {
		t.Errorf("a request with a bad byte: %v, calls %d -> %d", err, before, op.calls())
	}
}

// Whatever bytes come, nothing panics.
func FuzzFromWire(f *testing.F) {
	seed, err := proto.Marshal(applyToWire(filled[cluster.ApplyRequest](rand.New(rand.NewPCG(1, 1)))))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		decode := func(m proto.Message, use func()) {
			if proto.Unmarshal(data, m) == nil {
				_ = checkRequest(m)
				_ = checkText(m)
				cleanText(m)
				use()
			}
		}
		apply, st, detail := &failoverv1.ApplyRequest{}, &failoverv1.Status{}, &failoverv1.ErrorDetail{}
		identity, report, result := &failoverv1.IdentityResponse{}, &failoverv1.ReportResponse{}, &failoverv1.ProposeResponse{}
		decode(apply, func() { _ = applyToWire(applyFromWire(apply)) })
		decode(st, func() { _ = statusToWire(statusFromWire(st)) })
		decode(detail, func() { _ = decodeDetail(detail).Error() })
		decode(identity, func() { _ = identityToWire(identityFromWire(identity)) })
		decode(report, func() { _ = reportToWire(reportFromWire(report)) })
		decode(result, func() { _ = resultToWire(resultFromWire(result)) })
	})
}
