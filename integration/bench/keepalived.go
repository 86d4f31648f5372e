package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// keepalived does the same work with keepalived at its defaults, for
// comparison: one VRRP instance on three hosts, a second between adverts.
func (b *bench) keepalived(ctx context.Context) {
	rows := map[string]func(*keepalivedRig, context.Context, *lab.Host) error{
		"keepalived: power-off of the holder": (*keepalivedRig).powerCut,
		"keepalived: SIGSTOP, 15 s":           (*keepalivedRig).freeze,
		"keepalived: planned switchover":      (*keepalivedRig).switchover,
	}
	path, err := exec.LookPath("keepalived")
	for _, name := range []string{
		"keepalived: power-off of the holder", "keepalived: SIGSTOP, 15 s", "keepalived: planned switchover",
	} {
		if !b.options.only.MatchString(name) {
			continue
		}
		switch {
		case err != nil:
			b.note("keepalived is not installed: its rows are left out (apt-get install keepalived).")
			return
		case lab.Inner():
			b.note("keepalived wants root: its rows are left out.")
			return
		}
		r := &result{Row: name, Profile: "1 s adverts"}
		b.results = append(b.results, r)
		for n := range b.options.runs {
			m, err := keepalivedRun(ctx, path, rows[name])
			if ctx.Err() != nil {
				return
			}
			r.add(m, err)
			b.report(r, n, b.options.runs, m, err)
		}
	}
}

func (b *bench) note(text string) { b.notes = append(b.notes, text) }

// keepalivedRig is a lab with keepalived on every host.
type keepalivedRig struct {
	lab    *lab.Lab
	path   string
	client *lab.Asking
}

// keepalivedRun makes a rig, lets the fault happen and measures.
func keepalivedRun(ctx context.Context, path string, fault func(*keepalivedRig, context.Context, *lab.Host) error) (m lab.Measurement, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience+freezeTime)
	defer cancel()
	l, err := lab.New(lab.Options{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	r := &keepalivedRig{lab: l, path: path}
	hosts := l.Hosts()
	if err := l.Watch(lab.VIP); err != nil {
		return m, err
	}
	pet, err := l.Pet(ctx)
	if err != nil {
		return m, err
	}
	for i, h := range hosts {
		responder := exec.Command(pet, "-listen", fmt.Sprintf("0.0.0.0:%d", lab.Port), "-node", h.Name())
		if _, err := h.Start(responder); err != nil {
			return m, err
		}
		if err := r.start(h, 100-i); err != nil {
			return m, err
		}
	}
	host, err := l.Client("client")
	if err != nil {
		return m, err
	}
	if r.client, err = host.Ask(lab.Ask{Target: netip.AddrPortFrom(lab.VIP, lab.Port)}); err != nil {
		return m, err
	}
	holder, err := r.settled(ctx, "")
	if err != nil {
		return m, err
	}
	// Somewhere between two adverts.
	if err := lab.Wait(ctx, rand.N(time.Second)); err != nil {
		return m, err
	}
	m.Before, m.From = holder.Name(), l.Now()
	if err := fault(r, ctx, holder); err != nil {
		return m, err
	}
	m.To = l.Now()
	if err := r.client.Settle(ctx, m.To); err != nil {
		return m, err
	}
	m.Silence, m.SilenceAt = r.client.Silence(m.From, m.To)
	m.Lost, m.Stall = len(r.client.Lost(m.From, m.To)), r.client.Stall(m.From, m.To)
	if holders := l.Holders(); len(holders) > 0 {
		m.After = strings.Join(holders, "+")
	}
	m.Figures, err = l.Judge(m.From, m.To)
	return m, err
}

func (r *keepalivedRig) start(h *lab.Host, priority int) error {
	text := fmt.Sprintf(`vrrp_instance pet {
    state BACKUP
    interface %s
    virtual_router_id 51
    priority %d
    nopreempt
    virtual_ipaddress {
        %s/24
    }
}
`, lab.Interface, priority, lab.VIP)
	file := filepath.Join(h.Dir(), "keepalived.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("configure keepalived: %w", err)
	}
	cmd := exec.Command(r.path, "--dont-fork", "--log-console", "--use-file", file,
		"--pid", filepath.Join(h.Dir(), "keepalived.pid"), "--vrrp_pid", filepath.Join(h.Dir(), "vrrp.pid"))
	_, err := h.Start(cmd)
	return err
}

// settled waits until one host that is not the one named has the address and
// has answered for two seconds.
func (r *keepalivedRig) settled(ctx context.Context, not string) (*lab.Host, error) {
	for {
		if holders := r.lab.Holders(); len(holders) == 1 && holders[0] != not {
			since := r.lab.Now()
			if err := lab.Wait(ctx, 2*time.Second); err != nil {
				return nil, err
			}
			_, err := r.client.WaitAnswerBy(ctx, holders[0], since)
			if err == nil && len(r.lab.AddressEvents(since, r.lab.Now())) == 0 {
				return r.lab.Host(holders[0]), nil
			}
		}
		if err := lab.Wait(ctx, 50*time.Millisecond); err != nil {
			return nil, fmt.Errorf("keepalived does not settle: %w", err)
		}
	}
}

func (r *keepalivedRig) powerCut(ctx context.Context, holder *lab.Host) error {
	if err := holder.PowerOff(); err != nil {
		return err
	}
	_, err := r.settled(ctx, holder.Name())
	return err
}

func (r *keepalivedRig) freeze(ctx context.Context, holder *lab.Host) error {
	if _, err := holder.Stop(filepath.Base(r.path)); err != nil {
		return err
	}
	waitErr := lab.Wait(ctx, freezeTime)
	_, err := holder.Cont(filepath.Base(r.path))
	if err := errors.Join(waitErr, err); err != nil {
		return err
	}
	_, err = r.settled(ctx, "")
	return err
}

// switchover ends the holder's keepalived, which then says goodbye: the planned
// move that it knows.
func (r *keepalivedRig) switchover(ctx context.Context, holder *lab.Host) error {
	if _, err := holder.Signal(syscall.SIGTERM, filepath.Base(r.path)); err != nil {
		return err
	}
	_, err := r.settled(ctx, holder.Name())
	return err
}
