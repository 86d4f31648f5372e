package state

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"
)

// model is a second account of the rules that matter for safety, kept apart from
// the state: it never forgets an epoch, judges every entry by itself and is
// compared with the state after each.
type model struct {
	sessions map[uint64]*modelSession
	current  map[string]uint64 // the node's newest session
	services map[string]*modelService
}

type modelSession struct {
	node   string
	boot   string
	status SessionStatus
	proofs []ProofKind
}

type modelService struct {
	takeover Takeover
	epochs   []modelEpoch // epoch e stands at e-1
}

type modelEpoch struct {
	node    string
	session uint64
	over    bool
}

func newModel() *model {
	return &model{sessions: map[uint64]*modelSession{}, current: map[string]uint64{}, services: map[string]*modelService{}}
}

// took follows a command that was not refused. It fails when the command should
// have been. before is the state that it met.
func (m *model) took(t *rapid.T, before *State, cmd Command, res Result, term uint64) {
	switch c := cmd.(type) {
	case SetNode:
		if n := before.Nodes[c.Node]; n != nil && c.Birth != "" && n.Birth != "" && n.Birth != c.Birth {
			m.rest(t, c, c.Node)
		}
	case RemoveNode:
		m.rest(t, c, c.Node)
		delete(m.current, c.Node)
	case Started:
		if n := before.Nodes[c.Node]; n.Birth != "" && n.Birth != c.Birth {
			t.Fatalf("%+v was taken for %+v", c, *n)
		}
	case OpenSession:
		m.opened(t, c, res)
	case CloseSession:
		if sess := m.sessions[c.Session]; sess.status == SessionOpen {
			sess.status = SessionClosing
		}
	case EndSession:
		m.ended(t, c, term)
	case GrantService:
		m.granted(t, before, c, res)
	case HandOver:
		m.handedOver(t, before, c, res)
	case Released:
		m.wasReleased(t, c)
	case SetServices:
		for _, spec := range c.Services {
			m.service(spec.Name).takeover = spec.Takeover
		}
	case StartFence:
		if m.sessions[c.Session].status == SessionOpen || m.sessions[c.Session].node == c.Proposer || before.Paused != nil {
			t.Fatalf("%+v must not fence %+v", c, m.sessions[c.Session])
		}
		for name, svc := range m.services {
			if len(svc.under(c.Session)) > 0 && before.Services[name].Paused != nil {
				t.Fatalf("%+v must not fence for %s, which is paused", c, name)
			}
		}
	}
	m.settle()
}

// rest fails when anything of the node still has to be waited for.
func (m *model) rest(t *rapid.T, cmd Command, node string) {
	for id, sess := range m.sessions {
		if sess.node == node && sess.status != SessionEnded {
			t.Fatalf("%+v was carried out while session %d is %s", cmd, id, sess.status)
		}
	}
}

// under returns the epochs of a session that are not over.
func (svc *modelService) under(session uint64) []uint64 {
	return slices.DeleteFunc(svc.open(), func(e uint64) bool { return svc.epochs[e-1].session != session })
}

func (m *model) service(name string) *modelService {
	if m.services[name] == nil {
		m.services[name] = &modelService{}
	}
	return m.services[name]
}

func (m *model) opened(t *rapid.T, c OpenSession, res Result) {
	if known := m.sessions[res.Session]; known != nil {
		if known.node != c.Node || known.boot != c.BootID || known.status != SessionOpen || m.current[c.Node] != res.Session {
			t.Fatalf("%+v gave back %+v", c, known)
		}
		return
	}
	if c.Replaces != m.current[c.Node] || res.Session != res.Index {
		t.Fatalf("%+v replaced %d and opened %d", c, m.current[c.Node], res.Session)
	}
	for _, sess := range m.sessions {
		if sess.node == c.Node && sess.status == SessionOpen {
			sess.status = SessionClosing
		}
	}
	m.sessions[res.Session] = &modelSession{node: c.Node, boot: c.BootID, status: SessionOpen}
	m.current[c.Node] = res.Session
}

func (m *model) ended(t *rapid.T, c EndSession, term uint64) {
	sess := m.sessions[c.Session]
	if sess.status == SessionOpen {
		t.Fatalf("%+v ended an open session", c)
	}
	if c.Proof == ProofExpired && c.Term != term {
		t.Fatalf("%+v was taken in term %d", c, term)
	}
	if c.Proof == ProofVouched && (c.By == "" || c.Why == "") {
		t.Fatalf("%+v was taken unsigned", c)
	}
	for name, svc := range m.services {
		if held := svc.under(c.Session); c.Proof == ProofReleased && len(held) > 0 {
			t.Fatalf("%+v was taken while epochs %v of %s are not over", c, held, name)
		}
	}
	sess.status = SessionEnded
	if !slices.Contains(sess.proofs, c.Proof) {
		sess.proofs = append(sess.proofs, c.Proof)
	}
}

// granted checks I4 and R12: nothing before it may still be running.
func (m *model) granted(t *rapid.T, before *State, c GrantService, res Result) {
	svc := m.service(c.Service)
	if m.again(t, svc, res, c.Node, c.Session) {
		return
	}
	if open := svc.open(); len(open) > 0 {
		t.Fatalf("%+v was granted while epochs %v are not over", c, open)
	}
	m.give(t, before, svc, c.Service, c.Epoch, c.Node, c.Session)
}

// handedOver checks R13: exactly one epoch is waited for, and its holder can still speak.
func (m *model) handedOver(t *rapid.T, before *State, c HandOver, res Result) {
	svc := m.service(c.Service)
	if m.again(t, svc, res, c.ToNode, c.ToSession) {
		return
	}
	open := svc.open()
	if len(open) != 1 || open[0] != c.From {
		t.Fatalf("%+v was granted while epochs %v are not over", c, open)
	}
	from := svc.epochs[c.From-1]
	if from.node != c.FromNode || from.node == c.ToNode || m.sessions[from.session].status != SessionOpen {
		t.Fatalf("%+v takes from %+v", c, from)
	}
	m.give(t, before, svc, c.Service, c.Epoch, c.ToNode, c.ToSession)
}

// again reports whether the epoch was given before, to the same.
func (m *model) again(t *rapid.T, svc *modelService, res Result, node string, session uint64) bool {
	if res.Epoch > uint64(len(svc.epochs)) {
		return false
	}
	if e := svc.epochs[res.Epoch-1]; e.node != node || e.session != session || res.Epoch != uint64(len(svc.epochs)) {
		t.Fatalf("epoch %d was given twice: to %+v and to %s/%d", res.Epoch, e, node, session)
	}
	return true
}

func (m *model) give(t *rapid.T, before *State, svc *modelService, name string, epoch uint64, node string, session uint64) {
	if epoch != uint64(len(svc.epochs))+1 {
		t.Fatalf("epoch %d of %s follows %d", epoch, name, len(svc.epochs))
	}
	if sess := m.sessions[session]; sess.node != node || sess.status != SessionOpen {
		t.Fatalf("epoch %d of %s was given to %s under %+v", epoch, name, node, sess)
	}
	old := before.Services[name]
	if before.Paused != nil || old.Paused != nil || old.Removed || !old.Spec.Allows(node) || !before.Nodes[node].Role.Holds() {
		t.Fatalf("epoch %d of %s must not go to %s", epoch, name, node)
	}
	svc.epochs = append(svc.epochs, modelEpoch{node: node, session: session})
}

func (m *model) wasReleased(t *rapid.T, c Released) {
	svc := m.service(c.Service)
	if c.Epoch == 0 || c.Epoch > uint64(len(svc.epochs)) {
		t.Fatalf("%+v was taken of an epoch that was never given", c)
	}
	e := &svc.epochs[c.Epoch-1]
	if e.node != c.Node && !e.over {
		t.Fatalf("%+v was taken of %+v", c, *e)
	}
	e.over = true
}

// settle marks what the proofs of ended sessions end.
func (m *model) settle() {
	for _, svc := range m.services {
		for i := range svc.epochs {
			e := &svc.epochs[i]
			sess := m.sessions[e.session]
			if sess.status == SessionEnded && slices.ContainsFunc(sess.proofs, svc.takeover.Accepts) {
				e.over = true
			}
		}
	}
}

// open returns the epochs that are not over, oldest first.
func (svc *modelService) open() []uint64 {
	var out []uint64
	for i, e := range svc.epochs {
		if !e.over {
			out = append(out, uint64(i)+1)
		}
	}
	return out
}

// compare checks that the state says what the model says.
func (m *model) compare(s *State) error {
	for name, svc := range m.services {
		real := s.Services[name]
		if real == nil {
			return fmt.Errorf("service %s was forgotten", name)
		}
		if real.LastEpoch != uint64(len(svc.epochs)) {
			return fmt.Errorf("last epoch of %s is %d, not %d", name, real.LastEpoch, len(svc.epochs))
		}
		var open []uint64
		for _, g := range real.Unfinished() {
			open = append(open, g.Epoch)
			if e := svc.epochs[g.Epoch-1]; e.node != g.Node || e.session != g.Session {
				return fmt.Errorf("epoch %d of %s is with %s/%d, not %s/%d", g.Epoch, name, g.Node, g.Session, e.node, e.session)
			}
		}
		if !slices.Equal(open, svc.open()) {
			return fmt.Errorf("epochs of %s that are not over: %v, not %v", name, open, svc.open())
		}
		if g := real.Newest(); real.LastEpoch > 0 && (g == nil || g.Epoch != real.LastEpoch) {
			return fmt.Errorf("the newest grant of %s is %+v", name, g)
		}
	}
	open := map[string]int{}
	for id, sess := range m.sessions {
		real := s.Sessions[id]
		if real == nil {
			if sess.status != SessionEnded || m.current[sess.node] == id {
				return fmt.Errorf("session %d was forgotten", id)
			}
			continue
		}
		if real.Status != sess.status || real.Node != sess.node || len(real.Proofs) != len(sess.proofs) {
			return fmt.Errorf("session %d is %+v, not %+v", id, *real, *sess)
		}
		if real.Status == SessionOpen {
			open[real.Node]++
		}
	}
	for node, n := range open {
		if n > 1 || s.OpenSession(node) == nil {
			return fmt.Errorf("%s has %d open sessions", node, n)
		}
	}
	return nil
}
