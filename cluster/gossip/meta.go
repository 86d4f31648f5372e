package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/hashicorp/memberlist"
)

// Meta is what a node tells of itself along with its name. It is shown and
// compared, never believed where it matters.
type Meta struct {
	Name string `json:"n"`
	// Incarnation tells the lives of a node apart: another one for every start of the daemon.
	Incarnation uint64 `json:"i"`
	Address     string `json:"a"` // base address, host:port
	Version     string `json:"v,omitempty"`
	ConfigHash  string `json:"c,omitempty"` // config.Hash: of the settings that must not differ
	Role        string `json:"r,omitempty"`
}

// ErrMeta: what was read or is to be sent is no description of a node.
var ErrMeta = errors.New("invalid description of a node")

var (
	nodeName  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	shortWord = regexp.MustCompile(`^[!-~]{0,64}$`)
)

// encode gives the bytes that travel. Their limit is memberlist's, which
// panics beyond it.
func (m Meta) encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMeta, err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("%w: %d bytes, %d are possible; shorten the version", ErrMeta, len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// parseMeta reads what another node sent. Keys that are not known are passed
// over: a newer version may say more.
func parseMeta(b []byte) (Meta, error) {
	var m Meta
	if len(b) > memberlist.MetaMaxSize {
		return Meta{}, fmt.Errorf("%w: %d bytes", ErrMeta, len(b))
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, fmt.Errorf("%w: %w", ErrMeta, err)
	}
	if err := m.check(); err != nil {
		return Meta{}, err
	}
	return m, nil
}

// check holds the fields to what can be shown on a terminal and kept in little
// memory.
func (m Meta) check() error {
	if !nodeName.MatchString(m.Name) {
		return fmt.Errorf("%w: name %.70q", ErrMeta, m.Name)
	}
	if ap, err := netip.ParseAddrPort(m.Address); err != nil || ap.Port() == 0 || len(m.Address) > 64 {
		return fmt.Errorf("%w: address %.70q is no host:port", ErrMeta, m.Address)
	}
	for _, f := range []struct{ name, value string }{{"version", m.Version}, {"configuration hash", m.ConfigHash}, {"role", m.Role}} {
		if !shortWord.MatchString(f.value) {
			return fmt.Errorf("%w: %s %.70q", ErrMeta, f.name, f.value)
		}
	}
	return nil
}

// goodbye is the message of a node that leaves of its own will.
type goodbye struct {
	Name        string `json:"goodbye"`
	Incarnation uint64 `json:"i"`
}

const maxGoodbye = 256 // bytes

func parseGoodbye(b []byte) (goodbye, bool) {
	var g goodbye
	if len(b) > maxGoodbye || json.Unmarshal(b, &g) != nil || !nodeName.MatchString(g.Name) {
		return goodbye{}, false
	}
	return g, true
}
