package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Service is the name of the rig's service, and VIP and Port are where clients ask.
const (
	Service = "pet"
	Port    = 8080
)

// VIP is the rig's virtual address.
var VIP = netip.MustParseAddr("10.77.0.100")

// Rig is everything that demo, bench and tests start from: three hosts with
// daemons, one service, a client that asks all the time, and the three views.
type Rig struct {
	Lab       *Lab
	Failoverd *Failoverd
	Client    *Asking
	control   *Asking // asks a host that nothing happens to
	options   RigOptions
	pet       string
	healed    time.Duration // when the last partition ended; 0: none in this measurement
}

// RigOptions say how the rig is made.
type RigOptions struct {
	Profile string // default, fast
	// Alone makes the service the virtual address and nothing else; what
	// answers then runs on every host all the time.
	Alone bool
	Hosts []string // default a, b, c
	Every time.Duration
	Log   func(format string, args ...any)
	Keep  bool   // leaves the logs behind
	Bin   string // of the product's programs; default: bin beside go.mod
	Extra string // further lines for every node's file
	// Boot, when set, is called after each boot of a cluster's host, before
	// anything is started there.
	Boot func(*Host) error
}

// NewRig makes the rig and waits until the service runs and a client is
// answered. Close it.
func NewRig(ctx context.Context, o RigOptions) (_ *Rig, err error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	l, err := New(Options{Hosts: o.Hosts, Log: o.Log, Keep: o.Keep, Bin: o.Bin})
	if err != nil {
		return nil, err
	}
	r := &Rig{Lab: l, options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	hosts := l.Hosts()
	if err := l.Watch(VIP); err != nil {
		return nil, err
	}
	if r.Failoverd, err = l.Failoverd(FailoverdOptions{Hosts: hosts, Profile: o.Profile, Extra: o.Extra}); err != nil {
		return nil, err
	}
	if r.pet, err = l.Pet(ctx); err != nil {
		return nil, err
	}
	if err := os.Mkdir(r.shared(), 0o755); err != nil {
		return nil, fmt.Errorf("make shared storage: %w", err)
	}
	l.WatchData(r.shared())
	o.Log("%d hosts on a bridge, failoverd on each, profile %s", len(hosts), r.Failoverd.profile)
	for _, h := range hosts {
		if err := r.startHost(h); err != nil {
			return nil, err
		}
	}
	if _, _, err := r.Failoverd.Settled(ctx, ""); err != nil {
		return nil, r.explain(err)
	}
	if err := r.Failoverd.Apply(ctx, r.services()); err != nil {
		return nil, r.explain(err)
	}
	holder, status, err := r.Failoverd.Settled(ctx, Service)
	if err != nil {
		return nil, r.explain(err)
	}
	o.Log("%s leads, %s holds the service and %s", status.Leader, holder, VIP)
	client, err := l.Client("client")
	if err != nil {
		return nil, err
	}
	if r.Client, err = client.Ask(Ask{Target: netip.AddrPortFrom(VIP, Port), Every: o.Every}); err != nil {
		return nil, err
	}
	if _, err := r.Client.WaitAnswer(ctx, 0); err != nil {
		return nil, r.explain(err)
	}
	return r, r.startControl(ctx, client)
}

// controlName is the host that the control client asks.
const controlName = "control"

// startControl has the client ask a host that no fault ever touches: what that
// one is late by is the machine's doing and nobody else's.
func (r *Rig) startControl(ctx context.Context, client *Host) error {
	h, err := r.Lab.AddHost(controlName)
	if err != nil {
		return err
	}
	if err := r.startResponder(h); err != nil {
		return err
	}
	r.control, err = client.Ask(Ask{Target: netip.AddrPortFrom(h.Address(), Port), Every: 10 * time.Millisecond, WriteEvery: -1})
	if err != nil {
		return err
	}
	_, err = r.control.WaitAnswer(ctx, 0)
	return err
}

// Close ends everything.
func (r *Rig) Close() error { return r.Lab.Close() }

// shared is the directory that all hosts share, as shared storage.
func (r *Rig) shared() string { return filepath.Join(r.Lab.Dir(), "shared") }

// services is the file that is applied.
func (r *Rig) services() string {
	process := fmt.Sprintf(`
  process %q {
    command = [%q, "-listen", "0.0.0.0:%d", "-dir", %q]
    ready   = "127.0.0.1:%d"
  }`, Service, r.pet, Port, r.shared(), Port)
	if r.options.Alone {
		process = ""
	}
	return fmt.Sprintf("service %q {%s\n  vip \"%s/24\" { interface = %q }\n}\n", Service, process, VIP, Interface)
}

// startHost starts what runs on a host from its boot on.
func (r *Rig) startHost(h *Host) error {
	if r.options.Boot != nil {
		if err := r.options.Boot(h); err != nil {
			return fmt.Errorf("boot %s: %w", h, err)
		}
	}
	if r.options.Alone {
		if err := r.startResponder(h); err != nil {
			return err
		}
	}
	return r.Failoverd.Start(h)
}

// startResponder starts a pet without state that answers whether or not the
// host holds the address.
func (r *Rig) startResponder(h *Host) error {
	cmd := exec.Command(r.pet, "-listen", fmt.Sprintf("0.0.0.0:%d", Port), "-node", h.Name())
	_, err := h.Start(cmd)
	return err
}

// PowerOn boots a host and starts what runs on it from its boot on.
func (r *Rig) PowerOn(h *Host) error {
	if err := h.PowerOn(); err != nil {
		return err
	}
	return r.startHost(h)
}

// Settled waits until the cluster is whole, the service runs and the client is
// answered, and gives the holder.
func (r *Rig) Settled(ctx context.Context) (*Host, Status, error) {
	holder, status, err := r.Failoverd.Settled(ctx, Service)
	if err != nil {
		return nil, status, r.explain(err)
	}
	if holder == nil {
		return nil, status, fmt.Errorf("the holder %q is no host of the lab", status.holder(Service))
	}
	if _, err := r.Client.WaitAnswerBy(ctx, holder.Name(), r.Lab.Now()); err != nil {
		return nil, status, r.explain(err)
	}
	return holder, status, nil
}

// explain adds what the daemons logged last, or how they crashed.
func (r *Rig) explain(err error) error {
	var text strings.Builder
	for _, h := range r.Failoverd.Hosts() {
		raw, readErr := os.ReadFile(r.Failoverd.LogFile(h))
		if readErr != nil {
			continue
		}
		var lines []string
		for line := range strings.Lines(string(raw)) {
			if !strings.Contains(line, "level=DEBUG") {
				lines = append(lines, line)
			}
		}
		from := max(0, len(lines)-15)
		if crash := slices.IndexFunc(lines, isCrash); crash >= 0 {
			from = max(0, crash-2)
		}
		fmt.Fprintf(&text, "\n--- %s\n%s", h, strings.Join(lines[from:min(len(lines), from+20)], ""))
	}
	return fmt.Errorf("%w%s", err, text.String())
}

func isCrash(line string) bool {
	return strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:")
}

// Measurement is what one fault cost.
type Measurement struct {
	Before, After string // the holders
	From, To      time.Duration
	Silence       time.Duration // longest time between two answers to the client
	SilenceAt     time.Duration
	// AfterHeal is the same from the end of the partition on, if there was one.
	AfterHeal, AfterHealAt, AfterHealNoise time.Duration

	LostAfterHeal int
	Lost          int           // requests that got no answer
	Stall         time.Duration // of the client itself; part of Silence may be it
	// Noise is how long, during that silence, a host that nothing happened to
	// did not answer either: so much of the silence is the machine's.
	Noise   time.Duration
	Figures Figures
	Status  Status // when all had settled
}

// Measure has the cluster settled, then lets fault happen and be undone, waits
// until all has settled again, and says what the client and the views saw of it.
func (r *Rig) Measure(ctx context.Context, fault func(holder *Host, s Status) error) (Measurement, error) {
	var m Measurement
	holder, status, err := r.Settled(ctx)
	if err != nil {
		return m, fmt.Errorf("before the fault: %w", err)
	}
	// Not always at the same place between two renewals, which the waiting above
	// would otherwise tend to.
	if err := Wait(ctx, rand.N(r.Failoverd.Lease()/2)); err != nil {
		return m, err
	}
	m.Before, m.From = holder.Name(), r.Lab.Now()
	r.healed = 0
	if err := fault(holder, status); err != nil {
		return m, err
	}
	after, status, err := r.Settled(ctx)
	if err != nil {
		return m, fmt.Errorf("after the fault: %w", err)
	}
	m.After, m.Status, m.To = after.Name(), status, r.Lab.Now()
	if err := r.Client.Settle(ctx, m.To); err != nil {
		return m, err
	}
	m.Silence, m.SilenceAt = r.Client.Silence(m.From, m.To)
	m.Noise = r.noise(m.SilenceAt, m.Silence)
	if r.healed > 0 {
		m.AfterHeal, m.AfterHealAt = r.Client.Silence(r.healed, m.To)
		m.AfterHealNoise = r.noise(m.AfterHealAt, m.AfterHeal)
		m.LostAfterHeal = len(r.Client.Lost(r.healed, m.To))
	}
	m.Lost, m.Stall = len(r.Client.Lost(m.From, m.To)), r.Client.Stall(m.From, m.To)
	m.Figures, err = r.Lab.Judge(m.From, m.To)
	return m, err
}

// noise is how long the control was silent during a silence of the client,
// beyond the time between two of its requests.
func (r *Rig) noise(at, d time.Duration) time.Duration {
	longest, _ := r.control.Silence(at, at+d)
	return max(0, longest-r.control.ask.Every)
}

// Noise is the longest time in [from, to] that a host did not answer to which
// nothing happened: so long did the machine itself stall.
func (r *Rig) Noise(from, to time.Duration) time.Duration { return r.noise(from, to-from) }

// Moved waits until another node than before answers a request sent after the
// instant, and gives that answer.
func (r *Rig) Moved(ctx context.Context, before *Host, since time.Duration) (answer Request, err error) {
	err = r.Client.until(ctx, func() bool {
		for _, q := range r.Client.Requests(since, r.Lab.Now()) {
			if q.Outcome == Answered && q.Node != before.Name() {
				answer = q
				return true
			}
		}
		return false
	})
	return answer, err
}

// Account tells what happened in the time of a measurement, in ms since the
// fault: who had the address, who answered on the wire, when the client was
// without an answer, and what the cluster says. It is for people to read.
func (r *Rig) Account(ctx context.Context, m Measurement) string {
	var b strings.Builder
	line := func(at time.Duration, format string, args ...any) {
		fmt.Fprintf(&b, "  %9.1f ms  %s\n", ms(at-m.From), fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "  fault at %s; in ms since then:\n", r.Lab.Clock(m.From).UTC().Format("15:04:05.000"))
	for _, e := range r.Lab.AddressEvents(m.From, m.To) {
		line(e.At, "address on %s: %v", e.Host, e.Held)
	}
	for _, i := range r.Lab.WireAnswers(m.From, m.To) {
		line(i.From, "%s answers ARP for %.1f ms", i.What, ms(i.length()))
	}
	line(m.SilenceAt, "client without an answer for %.1f ms; the machine's own part in it up to %.1f ms", ms(m.Silence), ms(m.Noise))
	if m.AfterHeal > 0 {
		line(m.AfterHealAt, "after the healing, without an answer for %.1f ms; the machine's own part up to %.1f ms", ms(m.AfterHeal), ms(m.AfterHealNoise))
	}
	for _, i := range m.Figures.Seen {
		line(i.From, "%s for %.1f ms", i.What, ms(i.length()))
	}
	if text, err := r.Failoverd.AnyCtl(ctx, "history", "-n", "25"); err == nil {
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(text))
	}
	return b.String()
}

// Wait lets time pass, or ends early with the context.
func Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
