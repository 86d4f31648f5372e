package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// newcomer makes one more host for a rig and configures a daemon on it that the
// cluster does not know yet. What it gives steers that daemon alone.
func newcomer(t *testing.T, r *lab.Rig, name string) (*lab.Host, *lab.Failoverd) {
	t.Helper()
	h, err := r.Lab.AddHost(name)
	must(t, err)
	one, err := r.Lab.Failoverd(lab.FailoverdOptions{Hosts: []*lab.Host{h}, Profile: "fast"})
	must(t, err)
	peers := fmt.Sprintf("[%q", h.Address())
	for _, other := range r.Failoverd.Hosts() {
		peers += fmt.Sprintf(", %q", other.Address())
	}
	edit(t, one.ConfigFile(h), fmt.Sprintf("peers     = [%q]", h.Address()), "peers = "+peers+"]")
	return h, one
}

// edit replaces a text in a file, which must be there.
func edit(t *testing.T, path, from, to string) {
	t.Helper()
	text := read(path)
	if !strings.Contains(text, from) {
		t.Fatalf("no %q in %s:\n%s", from, path, text)
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(text, from, to, 1)), 0o600))
}

// member is what failoverctl members -o json says of a node.
type member struct {
	Name, Role, Vote, Alive string
}

func members(ctx context.Context, t *testing.T, f *lab.Failoverd) map[string]member {
	t.Helper()
	out, err := f.AnyCtl(ctx, "members", "-o", "json")
	must(t, err)
	var list []member
	must(t, json.Unmarshal([]byte(out), &list))
	all := map[string]member{}
	for _, m := range list {
		all[m.Name] = m
	}
	return all
}

// waits waits until a daemon without a cluster says why, and gives its words.
func waits(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host, words ...string) (why string) {
	t.Helper()
	eventually(ctx, t, "the word of "+h.Name(), func() error {
		s, err := status(ctx, f, h)
		if err != nil {
			return err
		}
		for _, w := range words {
			if !strings.Contains(s.Waiting, w) {
				return fmt.Errorf("it says %q, want %q in it", s.Waiting, w)
			}
		}
		why = s.Waiting
		return nil
	})
	return why
}

// advised runs the command that a node's own words advise, on another node.
func advised(ctx context.Context, t *testing.T, f *lab.Failoverd, words, command string) {
	t.Helper()
	found := regexp.MustCompile(regexp.QuoteMeta("failoverctl "+command) + `[^;,)]*`).FindString(words)
	if found == "" {
		t.Fatalf("no failoverctl %s is advised in %q", command, words)
	}
	t.Logf("advised: %s", found)
	// A busy machine may change the leader half way: then it is asked again.
	eventually(ctx, t, "what the node advises", func() error {
		_, err := f.AnyCtl(ctx, strings.Fields(found)[1:]...)
		return err
	})
}

// holds waits until the host holds the service and answers the client.
func holds(ctx context.Context, t *testing.T, r *lab.Rig, h *lab.Host) {
	t.Helper()
	since := r.Lab.Now()
	eventually(ctx, t, "the holder", func() error {
		s, err := r.Failoverd.Status(ctx)
		if err != nil {
			return err
		}
		if holder, _, state := serviceOf(s, lab.Service); holder != h.Name() || state != "running" {
			return fmt.Errorf("%s has it, %s; want %s", holder, state, h)
		}
		return nil
	})
	if _, err := r.Client.WaitAnswerBy(ctx, h.Name(), since); err != nil {
		t.Fatal(err)
	}
}

// A fourth node asks to be let in, is let in as a voter, holds, loses its vote,
// holds all the same, gets it back, and is removed, which is refused as long as
// it holds.
func TestFourthNodeAsVoter(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	d, one := newcomer(t, r, "d")
	must(t, one.Start(d))
	why := waits(ctx, t, one, d, "does not know this node", "failoverctl members add d")
	if _, there := members(ctx, t, r.Failoverd)["d"]; there {
		t.Fatal("it is a member, and nobody has let it in")
	}
	advised(ctx, t, r.Failoverd, why, "members add")
	if m := members(ctx, t, r.Failoverd)["d"]; m.Vote != "voter" || m.Role != "voter" {
		t.Errorf("after the admission: %+v", m)
	}
	moveTo(ctx, t, r, d)

	ctl(ctx, t, r.Failoverd, r.Lab.Host("a"), "members", "demote", "d").mustSay(t, 0, "d votes no more")
	if m := members(ctx, t, r.Failoverd)["d"]; m.Vote != "nonvoter" || m.Role != "member" {
		t.Errorf("after the demotion: %+v", m)
	}
	holds(ctx, t, r, d)
	ctl(ctx, t, r.Failoverd, r.Lab.Host("b"), "members", "promote", "d").mustSay(t, 0, "d votes")
	if m := members(ctx, t, r.Failoverd)["d"]; m.Vote != "voter" || m.Role != "voter" {
		t.Errorf("after the promotion: %+v", m)
	}
	holds(ctx, t, r, d)

	ctl(ctx, t, r.Failoverd, r.Lab.Host("a"), "members", "remove", "d").mustSay(t, codeRefused, lab.Service, "failoverctl switchover "+lab.Service)
	holds(ctx, t, r, d)
	moveTo(ctx, t, r, r.Lab.Host("a"))
	ctl(ctx, t, r.Failoverd, r.Lab.Host("a"), "members", "remove", "d").mustSay(t, 0, "d is no member any more")
	if m, there := members(ctx, t, r.Failoverd)["d"]; there {
		t.Errorf("after the removal: %+v", m)
	}
	eventually(ctx, t, "what a removed node says", func() error {
		s, err := status(ctx, one, d, "--local")
		if err != nil {
			return err
		}
		if text := s.Waiting + strings.Join(s.Alarms, " "); !strings.Contains(text, "removed") {
			return fmt.Errorf("waiting %q, alarms %q", s.Waiting, s.Alarms)
		}
		return nil
	})
	if _, _, err := r.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}

// moveTo switches the service over to the host, as soon as that can take it: a
// refusal says why it cannot yet.
func moveTo(ctx context.Context, t *testing.T, r *lab.Rig, h *lab.Host) {
	t.Helper()
	eventually(ctx, t, "the switchover to "+h.Name(), func() error {
		_, err := r.Failoverd.Switchover(ctx, lab.Service, h.Name())
		return err
	})
	holds(ctx, t, r, h)
}

// A member without a vote holds services, and its loss is noticed as any other's.
func TestFourthNodeAsMember(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	d, one := newcomer(t, r, "d")
	edit(t, one.ConfigFile(d), "insecure  = true", "insecure = true\nrole = \"member\"")
	must(t, one.Start(d))
	waits(ctx, t, one, d, "failoverctl members add d")
	ctl(ctx, t, r.Failoverd, r.Lab.Host("a"), "members", "add", "d", d.Address().String(), "--role", "member").mustSay(t, 0, "d is a member")
	if m := members(ctx, t, r.Failoverd)["d"]; m.Vote != "nonvoter" || m.Role != "member" {
		t.Errorf("after the admission: %+v", m)
	}
	moveTo(ctx, t, r, d)
	off := r.Lab.Now()
	must(t, d.PowerOff())
	answer, err := r.Moved(ctx, d, off)
	must(t, err)
	if silence, _ := r.Client.Silence(off, r.Lab.Now()); silence > 5*(r.Failoverd.Lease()+time.Second) {
		t.Errorf("%v without an answer", silence)
	}
	t.Logf("%s took over from a dead member", answer.Node)
	// It comes back by itself: its data says that it belongs here.
	must(t, d.PowerOn())
	must(t, one.Start(d))
	moveTo(ctx, t, r, d)
}

// wipe ends a host's daemon with all that it runs and empties its data directory.
func wipe(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host) {
	t.Helper()
	must(t, f.Kill(h))
	_, err := h.Signal(syscall.SIGKILL, lab.Guard)
	must(t, err)
	eventually(ctx, t, "the end of "+h.Name(), func() error { return nothingLeft(h, lab.Guard, "pet") })
	must(t, os.RemoveAll(filepath.Join(h.Dir(), "data")))
}

// A node whose data is lost waits and says what to do. That done, it is a full
// member again.
func TestWipedNodeIsReplaced(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	holder, s, err := r.Settled(ctx)
	must(t, err)
	c := other(r, holder)
	cluster := clusterOf(ctx, t, r.Failoverd, holder)
	if s.Voters != 3 {
		t.Fatalf("%d voters", s.Voters)
	}
	wipe(ctx, t, r.Failoverd, c)
	must(t, r.Failoverd.Start(c))
	why := waits(ctx, t, r.Failoverd, c, "has no data", "failoverctl members replace")
	// It does not vote, whatever its old name was good for.
	eventually(ctx, t, "the others' view", func() error {
		s, err := status(ctx, r.Failoverd, holder)
		if err == nil && s.VotersUp != 2 {
			err = fmt.Errorf("%d voters up", s.VotersUp)
		}
		return err
	})
	advised(ctx, t, r.Failoverd, why, "members replace")
	if m := members(ctx, t, r.Failoverd)[c.Name()]; m.Vote != "voter" || m.Role != "voter" {
		t.Errorf("after the replacement: %+v", m)
	}
	if _, _, err := r.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	if got := clusterOf(ctx, t, r.Failoverd, c); got != cluster {
		t.Errorf("%s is in cluster %s, the others in %s", c, got, cluster)
	}
	moveTo(ctx, t, r, c)
}

// other gives a host that is neither the one given nor, if it can be helped, special.
func other(r *lab.Rig, not *lab.Host) *lab.Host {
	for _, h := range r.Failoverd.Hosts() {
		if h != not {
			return h
		}
	}
	return nil
}

func clusterOf(ctx context.Context, t *testing.T, f *lab.Failoverd, h *lab.Host) string {
	t.Helper()
	var s struct {
		Cluster string `json:"cluster"`
	}
	out, _ := f.Ctl(ctx, h, "status", "--local", "-o", "json") // its own word has no quorum behind it
	must(t, json.Unmarshal([]byte(out), &s))
	return s.Cluster
}

// Two wiped nodes would be a majority. They found nothing: not while the third
// is there, and not while it is off.
func TestWipedNodesFoundNothing(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	r := newRig(ctx, t, lab.RigOptions{})
	holder, _, err := r.Settled(ctx)
	must(t, err)
	var wiped []*lab.Host
	for _, h := range r.Failoverd.Hosts() {
		if h != holder {
			wiped = append(wiped, h)
			wipe(ctx, t, r.Failoverd, h)
		}
	}
	must(t, r.Failoverd.Start(wiped...))
	for _, h := range wiped {
		waits(ctx, t, r.Failoverd, h, "failoverctl members replace")
	}
	eventually(ctx, t, "the end of the lease", func() error {
		if now := r.Lab.Holders(); len(now) > 0 {
			return fmt.Errorf("%v has the address without a majority", now)
		}
		return nil
	})
	founded := func() error {
		for _, h := range wiped {
			s, err := status(ctx, r.Failoverd, h)
			if err != nil {
				return err
			}
			if s.Waiting == "" || s.Leader != "" {
				return fmt.Errorf("%s is in a cluster led by %q", h, s.Leader)
			}
		}
		if now := r.Lab.Holders(); len(now) > 0 {
			return fmt.Errorf("%v has the address", now)
		}
		return nil
	}
	steadily(ctx, t, 3*time.Second, "two wiped nodes beside one with data", founded)
	must(t, holder.PowerOff())
	for _, h := range wiped {
		waits(ctx, t, r.Failoverd, h, holder.Address().String(), "does not answer")
	}
	steadily(ctx, t, 3*time.Second, "two wiped nodes alone", founded)
	if _, err := r.Failoverd.AnyCtl(ctx, "switchover", lab.Service); err == nil {
		t.Error("somebody takes orders")
	} else if !strings.Contains(err.Error(), "not in a cluster") {
		t.Errorf("want it to be said that there is no cluster: %v", err)
	}
}
