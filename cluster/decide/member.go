package decide

import (
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// Phase is what a node does with a service right now.
type Phase string

// The phases. A service that is not in MemberView.Local is stopped.
const (
	PhaseStopped  Phase = "stopped"
	PhaseStarting Phase = "starting"
	PhaseRunning  Phase = "running"
	PhaseStopping Phase = "stopping"
	// PhaseFailed: a start failed; what was started is not proven stopped yet.
	PhaseFailed Phase = "failed"
	// PhaseUnknown: a stop could not be proven; nobody may think it stopped.
	PhaseUnknown Phase = "unknown"
)

// Local is what a node itself knows of a service that it runs or ran.
type Local struct {
	Epoch      uint64
	Phase      Phase
	Generation uint64 // of the specification that was started
	// Failed is why the service is broken beyond local restart; empty while it is not.
	Failed string
	// Reported is set when that failure has been committed.
	Reported bool
}

// Record is a line of the node's journal.
type Record struct {
	Service   string
	Epoch     uint64
	Session   uint64
	SameBoot  bool
	Releasing bool // else active
}

// Told names a hand-over whose giver has said that it stopped.
type Told struct {
	Service string
	From    uint64
	Epoch   uint64
	Index   uint64
}

// MemberView is what a node knows of itself when it decides.
type MemberView struct {
	State *state.State // applied here; it may lag
	Self  string
	// Ready: the applied state holds the nonce of this daemon's own start.
	Ready bool
	// Session is the session that this daemon renews or would renew; 0: none.
	Session uint64
	// Refused is set when a voter has said that the session is closing or ended.
	Refused bool
	// Lease reports that the lease is good, with enough left to begin something;
	// Lapsed that nothing of it is left. Between the two what runs goes on.
	Lease  bool
	Lapsed bool
	// Deaf is set while this daemon's renewals bring no answer of any voter, not
	// even a refusal. The voters may well hear it: to open another session would
	// get it services that it can never start.
	Deaf bool
	// Leaving: the daemon is about to stop for good and gives everything up.
	Leaving bool

	Records []Record
	Local   map[string]Local
	Told    map[Told]bool
}

// ActKind names what a node does.
type ActKind string

// The kinds of act.
const (
	// ActActivate journals (Service, Epoch) as active, then starts it.
	ActActivate ActKind = "activate"
	// ActReconfigure changes a running service to the newest specification.
	ActReconfigure ActKind = "reconfigure"
	// ActStop stops without giving the epoch up: the lease lapsed or may resume.
	ActStop ActKind = "stop"
	// ActGiveUp stops, proves it, journals releasing, tells the receiver of a
	// hand-over, and commits Released.
	ActGiveUp ActKind = "give-up"
	// ActRelease commits Released for an epoch that is proven stopped or was never started.
	ActRelease ActKind = "release"
	// ActErase erases the journal's record of an epoch that is over and stopped.
	ActErase ActKind = "erase"
	// ActReport commits that the service cannot run here.
	ActReport ActKind = "report"
	// ActOpen opens a new session in place of Session.
	ActOpen ActKind = "open-session"
)

// Act is one thing for a node to do.
type Act struct {
	Kind    ActKind
	Service string
	Epoch   uint64
	Session uint64 // ActOpen: the session that is replaced
	Tell    *Told  // ActGiveUp: the hand-over whose receiver is told
	To      string // the node that is told
	Why     string
}

// Member names what this node may and must do now. What must stop is named
// before what may start, and every act may be done twice.
func Member(v MemberView) []Act {
	m := member{MemberView: v}
	for _, r := range v.Records {
		m.record(r)
	}
	for _, name := range serviceNames(v.State) {
		m.granted(v.State.Services[name])
	}
	m.session()
	return m.acts
}

type member struct {
	MemberView
	acts []Act
}

func (m *member) do(a Act) { m.acts = append(m.acts, a) }

// epochOf finds an epoch of a service in the applied state. known is false
// when the state has not come that far or does not know the service.
func (m *member) epochOf(service string, epoch uint64) (g state.Grant, over, known bool) {
	svc := m.State.Services[service]
	if svc == nil || epoch > svc.LastEpoch {
		return state.Grant{}, false, false
	}
	for _, g := range svc.Grants {
		if g.Epoch == epoch {
			return g, g.Over != "", true
		}
	}
	// Only epochs that are over are forgotten.
	return state.Grant{}, true, true
}

// stopped reports whether this node runs nothing of the service.
func (m *member) stopped(service string) bool {
	l, ok := m.Local[service]
	return !ok || l.Phase == PhaseStopped
}

// record decides about an epoch that the journal calls active or releasing.
func (m *member) record(r Record) {
	own := r.SameBoot && r.Session == m.Session && m.Session != 0
	_, over, known := m.epochOf(r.Service, r.Epoch)
	running := !m.stopped(r.Service) && m.Local[r.Service].Epoch == r.Epoch
	switch {
	case r.Releasing && over && known && !running:
		m.do(Act{Kind: ActErase, Service: r.Service, Epoch: r.Epoch, Why: "its end is applied here"})
	case r.Releasing && running:
		m.do(Act{Kind: ActGiveUp, Service: r.Service, Epoch: r.Epoch, Why: "it was being given up"})
	case r.Releasing:
		m.do(Act{Kind: ActRelease, Service: r.Service, Epoch: r.Epoch, Why: "it is proven stopped; the cluster has yet to know"})
	case !own:
		m.giveUp(r, "it was started under an earlier boot or session")
	case over && known:
		m.giveUp(r, "its epoch is over")
	default:
		m.current(r)
	}
}

func (m *member) giveUp(r Record, why string) {
	if l := m.Local[r.Service]; !m.stopped(r.Service) && l.Epoch > r.Epoch {
		// A later epoch runs: this one was stopped before that could start.
		m.do(Act{Kind: ActRelease, Service: r.Service, Epoch: r.Epoch, Why: why})
		return
	}
	m.do(Act{Kind: ActGiveUp, Service: r.Service, Epoch: r.Epoch, Why: why})
}

// current decides about an active record of the session that this daemon renews.
func (m *member) current(r Record) {
	svc := m.State.Services[r.Service]
	switch {
	case m.Leaving:
		m.giveUp(r, "the daemon is leaving")
	case m.sessionOver() != "":
		m.giveUp(r, m.sessionOver())
	case !m.Ready:
		// The applied state may be old: what runs goes on under its lease,
		// and nothing is begun or ended on the word of an old state.
		m.lapse(r)
	case svc != nil && svc.Removed:
		m.giveUp(r, "the service was removed")
	case svc != nil && svc.LastEpoch > r.Epoch:
		m.superseded(r, svc)
	case m.Lapsed:
		m.lapse(r)
	default:
		m.keep(r, svc)
	}
}

// lapse stops what runs without a lease. The epoch is not given up: if the
// session was never closed, a later majority resumes it.
func (m *member) lapse(r Record) {
	if m.Lapsed && !m.stopped(r.Service) {
		m.do(Act{Kind: ActStop, Service: r.Service, Epoch: r.Epoch, Why: "the lease ran out"})
	}
}

// superseded gives an epoch up because a hand-over to the next one is applied.
func (m *member) superseded(r Record, svc *state.Service) {
	for _, g := range svc.Grants {
		if g.Kind == state.KindHandOver && g.From == r.Epoch && g.Over == "" {
			m.do(Act{
				Kind: ActGiveUp, Service: r.Service, Epoch: r.Epoch, To: g.Node,
				Tell: &Told{Service: r.Service, From: r.Epoch, Epoch: g.Epoch, Index: g.Index},
				Why:  fmt.Sprintf("handed over to %s: %s", g.Node, g.Why),
			})
			return
		}
	}
	m.giveUp(r, "a later epoch was granted")
}

// keep looks after a service that this node holds and may go on holding.
func (m *member) keep(r Record, svc *state.Service) {
	l, ok := m.Local[r.Service]
	switch {
	case ok && l.Phase == PhaseUnknown:
		m.do(Act{Kind: ActStop, Service: r.Service, Epoch: r.Epoch, Why: "it is not known what of it runs; it is stopped before it starts again"})
	case m.Lease && (!ok || l.Phase == PhaseStopped && l.Failed == ""):
		m.do(Act{Kind: ActActivate, Service: r.Service, Epoch: r.Epoch, Why: "it holds the epoch and the lease is good"})
	case l.Failed != "" && !l.Reported:
		m.do(Act{Kind: ActReport, Service: r.Service, Epoch: r.Epoch, Why: l.Failed})
	case l.Phase == PhaseRunning && svc != nil && l.Generation != svc.Generation:
		m.do(Act{Kind: ActReconfigure, Service: r.Service, Epoch: r.Epoch, Why: "its specification changed"})
	}
}

// sessionOver returns why the session that this daemon renews is over, as far as is known here.
func (m *member) sessionOver() string {
	if m.Refused {
		return "the voters have closed its session"
	}
	if !m.Ready {
		return ""
	}
	s := m.State.Sessions[m.Session]
	switch {
	case s == nil:
		return "its session is forgotten"
	case s.Status != state.SessionOpen:
		return fmt.Sprintf("its session is %s: %s", s.Status, s.Closing)
	}
	return ""
}

// granted looks for epochs of this node that the journal does not know: to be
// started, or never started and to be released unused.
func (m *member) granted(svc *state.Service) {
	for _, g := range svc.Grants {
		if g.Node != m.Self || g.Over != "" || m.recorded(svc.Name, g.Epoch) || !m.Ready {
			continue
		}
		switch {
		case g.Session > m.Session:
			// Granted under a session that this daemon has opened and is about
			// to renew: to release it unused would only spend the epoch.
		case g.Session != m.Session:
			m.release(svc.Name, g, "it was granted to an earlier session and never started")
		case m.sessionOver() != "":
			m.release(svc.Name, g, "never started, and "+m.sessionOver())
		case svc.Removed || svc.LastEpoch > g.Epoch:
			m.release(svc.Name, g, "never started, and no longer wanted")
		case m.Leaving:
			// Released while the session is open it would be granted here again,
			// over and over: it goes with the session, which the goodbye closes.
		case !m.Lease, !m.mayStart(svc, g), !m.stopped(svc.Name):
			// Wait: for the lease, for the giver, or for our own older epoch to stop.
		default:
			m.do(Act{Kind: ActActivate, Service: svc.Name, Epoch: g.Epoch, Why: g.Why})
		}
	}
}

func (m *member) release(service string, g state.Grant, why string) {
	if l, ok := m.Local[service]; ok && l.Epoch == g.Epoch && l.Phase != PhaseStopped {
		return
	}
	m.do(Act{Kind: ActRelease, Service: service, Epoch: g.Epoch, Why: why})
}

func (m *member) recorded(service string, epoch uint64) bool {
	for _, r := range m.Records {
		if r.Service == service && r.Epoch == epoch {
			return true
		}
	}
	return false
}

// mayStart reports whether a grant may begin (LEASE.md 10): a plain grant at
// once, a hand-over on the giver's word for this very entry, or when the
// giver's epoch is over in the applied state.
func (m *member) mayStart(svc *state.Service, g state.Grant) bool {
	if g.Kind != state.KindHandOver {
		return true
	}
	if m.Told[Told{Service: svc.Name, From: g.From, Epoch: g.Epoch, Index: g.Index}] {
		return true
	}
	_, over, known := m.epochOf(svc.Name, g.From)
	return known && over
}

// session opens a session when there is none that is open and everything of
// the one before is proven stopped.
func (m *member) session() {
	n := m.State.Nodes[m.Self]
	if !m.Ready || m.Leaving || m.Deaf || n == nil || !n.Role.Holds() {
		return
	}
	current := m.State.Sessions[n.Session]
	if m.Session != 0 && m.Session == n.Session && m.sessionOver() == "" {
		return
	}
	for name, l := range m.Local {
		if l.Phase != PhaseStopped {
			_ = name
			return
		}
	}
	for _, r := range m.Records {
		if !r.Releasing && !(r.SameBoot && r.Session == n.Session && current != nil && current.Status == state.SessionOpen) {
			return // an active record is given up first
		}
	}
	why := "this node has no open session"
	if current != nil {
		why = fmt.Sprintf("session %d is %s", current.ID, current.Status)
	}
	m.do(Act{Kind: ActOpen, Session: n.Session, Why: why})
}

// ActivateMargin is the least lease that must be left to begin something: a
// start that would be torn down at once helps nobody.
func ActivateMargin(ttl time.Duration) time.Duration { return ttl / 5 }
