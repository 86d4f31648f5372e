package gate

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Cover puts a hook on a device that stops ARP from raw sockets too, our own
// announcements among it: a process that was frozen on its way to announce an
// address cannot do so when it wakes up too late. ErrNoEgress says that the
// kernel cannot; the rest of the gate is not touched by that. When the device
// goes, so does its hook: cover it again when it comes back. (Since Linux 6.16 the hook
// waits for the device, and Cover may even come before it; earlier kernels say
// ENODEV.)
func (g *Gate) Cover(device string) error {
	return g.doFor("cover "+device, buildTimeout, func() error {
		if len(device) == 0 || len(device) >= unix.IFNAMSIZ {
			return fmt.Errorf("device name %q: %w", device, unix.EINVAL)
		}
		l := g.layout
		if ok, err := g.covers(device); ok || err != nil {
			return err
		}
		if !slices.Contains(l.devices, device) {
			l.devices = append(slices.Clone(l.devices), device)
		}
		err := g.rebuild(l)
		var r refused
		if errors.As(err, &r) && (r.step.chain == chainEgress+device || r.errno == unix.EAFNOSUPPORT || r.errno == unix.EOPNOTSUPP) {
			return fmt.Errorf("%w: %w", ErrNoEgress, err)
		}
		if err != nil {
			return err
		}
		if !slices.Contains(g.layout.devices, device) {
			return fmt.Errorf("%w: there is no device %s", unix.ENODEV, device)
		}
		return nil
	})
}

// covers reports whether the device's hook is there and as we left it.
func (g *Gate) covers(device string) (bool, error) {
	if !slices.Contains(g.layout.devices, device) {
		return false, nil
	}
	ch := egress(device)
	handles, err := g.c.readRules(g.name, ch)
	return len(handles) > 0 && slices.Equal(handles, g.handles[chainText(g.name, ch)]), err
}

// Uncover takes the hook off again.
func (g *Gate) Uncover(device string) error {
	return g.doFor("uncover "+device, buildTimeout, func() error {
		if !slices.Contains(g.layout.devices, device) {
			return nil
		}
		l := g.layout
		l.devices = without(l.devices, device)
		return g.rebuild(l)
	})
}

// Covered returns the devices whose raw sockets are gated too.
func (g *Gate) Covered() ([]string, error) {
	var devices []string
	err := g.do("list devices", func() error {
		devices = slices.Clone(g.layout.devices)
		return nil
	})
	return devices, err
}
