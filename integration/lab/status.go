package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Status is the part of failoverctl status -o json that the lab needs.
type Status struct {
	Node     string `json:"node"`
	Leader   string `json:"leader"`
	Index    uint64 `json:"index"`
	Waiting  string `json:"waiting"`
	Quorum   bool   `json:"quorum"`
	Voters   int    `json:"voters"`
	VotersUp int    `json:"voters_up"`
	Services []struct {
		Name       string        `json:"name"`
		Holder     string        `json:"holder"`
		Epoch      uint64        `json:"epoch"`
		State      string        `json:"state"`
		Kappa      time.Duration `json:"kappa"`
		Next       string        `json:"next"`
		Guarantee  []string      `json:"guarantee"`
		Candidates []struct {
			Node string `json:"node"`
			Can  bool   `json:"can"`
			Why  string `json:"why"`
		} `json:"candidates"`
	} `json:"services"`
	Nodes []struct {
		Name         string   `json:"name"`
		Alive        string   `json:"alive"`
		Ready        bool     `json:"ready"`
		SessionState string   `json:"session_state"`
		Holds        []string `json:"holds"`
	} `json:"nodes"`
	Alarms []string `json:"alarms"`
}

// Status asks the first host that answers.
func (f *Failoverd) Status(ctx context.Context) (Status, error) {
	var s Status
	out, err := f.AnyCtl(ctx, "status", "-o", "json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("read status: %w", err)
	}
	return s, nil
}

// settled says what is still missing before the next fault may come, or nil.
func (s Status) settled(service string) error {
	switch {
	case s.Waiting != "":
		return fmt.Errorf("no cluster yet: %s", s.Waiting)
	case !s.Quorum || s.Leader == "":
		return errors.New("no quorum")
	case s.VotersUp < s.Voters:
		return fmt.Errorf("%d of %d voters answer", s.VotersUp, s.Voters)
	}
	for _, n := range s.Nodes {
		if !n.Ready || n.SessionState != "open" || n.Alive != "yes" {
			return fmt.Errorf("node %s: alive %s, ready %v, session %s", n.Name, n.Alive, n.Ready, n.SessionState)
		}
	}
	if service == "" {
		return nil
	}
	for _, v := range s.Services {
		if v.Name != service {
			continue
		}
		if v.State != "running" || v.Holder == "" {
			return fmt.Errorf("service %s is %s, held by %q; %s", service, v.State, v.Holder, v.Next)
		}
		for _, c := range v.Candidates {
			if !c.Can && c.Node != v.Holder {
				return fmt.Errorf("%s cannot take over %s: %s", c.Node, service, c.Why)
			}
		}
		return nil
	}
	return fmt.Errorf("there is no service %s", service)
}

// Settled waits until every voter answers, every node is ready, caught up and
// has an open session, and the service, if one is named, runs and could move. It gives the
// holder.
func (f *Failoverd) Settled(ctx context.Context, service string) (*Host, Status, error) {
	var missing error
	for {
		if err := f.ended(); err != nil {
			return nil, Status{}, err
		}
		attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
		s, err := f.Status(attempt)
		cancel()
		if err == nil {
			err = s.settled(service)
		}
		if err == nil {
			err = f.caughtUp(ctx, s.Index)
		}
		if err == nil {
			return f.lab.Host(s.holder(service)), s, nil
		}
		missing = err
		select {
		case <-ctx.Done():
			return nil, s, fmt.Errorf("the cluster does not settle: %w", missing)
		case <-time.After(150 * time.Millisecond):
		}
	}
}

// ended reports a daemon that should run and does not.
func (f *Failoverd) ended() error {
	for _, h := range f.hosts {
		r := f.Daemon(h)
		if r == nil {
			return fmt.Errorf("the daemon of %s was never started", h)
		}
		select {
		case <-r.Done():
			return fmt.Errorf("the daemon of %s has ended: %w", h, cmp.Or(r.Wait(), errors.New("exit status 0")))
		default:
		}
	}
	return nil
}

// caughtUp asks every daemon by itself whether it has applied the index. A
// follower that comes back after a while may be alive and ready long before
// the leader sends it the log again; until then no second node may be missing.
func (f *Failoverd) caughtUp(ctx context.Context, index uint64) error {
	problems := make([]error, len(f.hosts))
	var group sync.WaitGroup
	for i, h := range f.hosts {
		group.Go(func() {
			var s Status
			// A follower by itself has no quorum behind it: failoverctl says so
			// by its exit status and answers nevertheless.
			out, err := f.Ctl(ctx, h, "status", "--local", "-o", "json")
			if json.Unmarshal([]byte(out), &s) == nil {
				err = nil
			}
			if err == nil && s.Index < index {
				err = fmt.Errorf("%s has applied entry %d of %d", h, s.Index, index)
			}
			problems[i] = err
		})
	}
	group.Wait()
	return errors.Join(problems...)
}

func (s Status) holder(service string) string {
	for _, v := range s.Services {
		if v.Name == service {
			return v.Holder
		}
	}
	return ""
}

// Kappa is how late the enforcement on the holder may be, as status says; 50 ms
// when it does not say.
func (s Status) Kappa(service string) time.Duration {
	for _, v := range s.Services {
		if v.Name == service && v.Kappa > 0 {
			return v.Kappa
		}
	}
	return 50 * time.Millisecond
}
