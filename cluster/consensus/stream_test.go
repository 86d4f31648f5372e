package consensus

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestConnectionsOfStrangersAreRefused(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, _ := c.leads()
	id := ClusterID(c.founders)
	for name, s := range map[string]struct {
		as, cluster, to, want string
	}{
		"another cluster": {"z", "other", leader.name, "belongs to cluster"},
		"another node":    {"z", id, "elsewhere", "wanted node"},
		"the same name":   {leader.name, id, leader.name, "own name"},
	} {
		i := impersonate(t, leader, s.as, s.cluster, "127.0.0.1:1")
		var resp raft.RequestVoteResponse
		req := &raft.RequestVoteRequest{RPCHeader: i.header(), Term: 1000}
		err := i.RequestVote("", target(raft.ServerID(s.to), raft.ServerAddress(leader.address)), req, &resp)
		if !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), s.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, garbage := range map[string]string{"HTTP": "GET / HTTP/1.1\r\n\r\n", "nothing": "", "long": strings.Repeat("x", 70000)} {
		conn, err := net.Dial("tcp", leader.address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, garbage)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if answer, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		conn.Close()
	}
	if leader.node.Term() >= 1000 {
		t.Error("a stranger raised the term")
	}
	c.propose("on")
}

// TestCandidateUnderAMembersNameIsRefused: a copy of a data directory that
// runs at another address stands for election under the name of the original.
func TestCandidateUnderAMembersNameIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	other := c.followers()[0]
	i := impersonate(t, leader, other.name, ClusterID(c.founders), "127.0.0.1:1")
	var resp raft.RequestVoteResponse
	req := &raft.RequestVoteRequest{RPCHeader: i.header(), Term: lead.Term + 100, LastLogIndex: 1000, LastLogTerm: 1000, LeadershipTransfer: true}
	err := i.RequestVote("", i.target(), req, &resp)
	if err == nil || resp.Granted || !strings.Contains(err.Error(), "two nodes of one name") {
		t.Errorf("%+v, %v", resp, err)
	}
	var pre raft.RequestPreVoteResponse
	if err := i.RequestPreVote("", i.target(), &raft.RequestPreVoteRequest{RPCHeader: i.header(), Term: lead.Term + 100}, &pre); err == nil || pre.Granted {
		t.Errorf("%+v, %v", pre, err)
	}
	if lead.Ctx.Err() != nil {
		t.Error("the leadership ended")
	}
}

// TestSlowCallersHoldUpNobody: connections that say nothing.
func TestSlowCallersHoldUpNobody(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	for _, m := range c.members {
		for range 20 {
			conn, err := net.Dial("tcp", m.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
	}
	c.propose("on")
	c.level([]string{"on"})
}
