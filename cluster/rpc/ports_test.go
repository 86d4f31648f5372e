package rpc

import (
	"strings"
	"testing"

	"github.com/failoverd/failoverd/cluster/state"
)

// Also a server that answers peers does so on their port alone.
func TestOnlyThePeersPortAnswersPeers(t *testing.T) {
	s := NewServer(ServerOptions{Operator: &fakeOperator{}, Peer: &fakePeer{}, Codec: fakeCodec{}, Log: quiet()})
	t.Cleanup(s.Stop)
	operators, others := listen(t), listen(t)
	if err := s.ServeTCP(operators); err != nil {
		t.Fatal(err)
	}
	if err := s.ServePeers(others); err != nil {
		t.Fatal(err)
	}
	peers := NewPeers(PeersOptions{Codec: fakeCodec{}})
	defer func() { _ = peers.Close() }()
	for address, want := range map[string]string{operators.Addr().String(): "does not know this request", others.Addr().String(): ""} {
		p, err := peers.Peer(address)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Propose(testContext(t), state.ClearFailures{Service: "pg"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("at %s: %v", address, err)
		}
	}
}
