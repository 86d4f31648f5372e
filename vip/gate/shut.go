package gate

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// ErrMissing: there is no gate of that name, or not all of it. What it held
// shut may be open.
var ErrMissing = errors.New("no gate of this name")

// Shutter shuts a gate from another process, at the deadline that it watches:
// it needs no state and shares nothing with the Gate. It holds its socket from
// the beginning, so that a process out of descriptors can still shut.
type Shutter struct {
	name string
	c    *conn
}

// OpenShutter prepares to shut the gate of the given name (DefaultName when
// empty) in the network namespace of the calling thread. The gate need not
// exist yet.
func OpenShutter(name string) (*Shutter, error) {
	if name == "" {
		name = DefaultName
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, unavailable(err)
	}
	return &Shutter{name: name, c: c}, nil
}

// ShutAll shuts every address of the gate at once. They stay managed, so that
// they stay shut. It also refuses whatever a daemon is just about to commit:
// the generation of the ruleset has changed. When the tables are gone and
// addrs are given, they are made anew with these addresses shut; without addrs
// the error is ErrMissing. It is not safe for concurrent use.
func (s *Shutter) ShutAll(addrs ...netip.Addr) error {
	if err := checkAddrs(addrs); err != nil {
		return err
	}
	all := []uint8{unix.NFPROTO_INET, unix.NFPROTO_ARP, unix.NFPROTO_NETDEV}
	failpoint.Here("gate.shutall.before")
	if err := s.flush(all...); err == nil {
		return nil
	}
	// One table that is missing fails the whole transaction; the third often is.
	var errs []error
	missing := false
	for _, f := range all {
		err := s.flush(f)
		switch {
		case err == nil:
		case f == unix.NFPROTO_NETDEV && (errors.Is(err, unix.ENOENT) ||
			errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)):
		case errors.Is(err, unix.ENOENT):
			missing = true
		default:
			errs = append(errs, fmt.Errorf("shut %s: %w", tableText(s.name, f), err))
		}
	}
	if missing && len(addrs) > 0 {
		return errors.Join(append(errs, s.create(addrs))...)
	}
	if missing {
		errs = append(errs, fmt.Errorf("shut %s: %w", s.name, ErrMissing))
	}
	return errors.Join(errs...)
}

func (s *Shutter) flush(families ...uint8) error {
	b := s.c.start()
	b.begin(0)
	for _, f := range families {
		flushOpen(b, s.name, f)
	}
	b.commit()
	return s.c.transact()
}

func (s *Shutter) create(addrs []netip.Addr) error {
	var err error
	for _, fib := range []bool{true, false} {
		b := s.c.start()
		b.begin(0)
		if err = replaceTables(b, s.name, layout{fib: fib}, addrs, nil); err != nil {
			return err
		}
		b.commit()
		if err = s.c.transact(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("make gate anew: %w", err)
}

// Close frees the socket and shuts nothing.
func (s *Shutter) Close() error { return s.c.close() }

// ShutAll is Shutter.ShutAll for once.
func ShutAll(name string, addrs ...netip.Addr) error {
	s, err := OpenShutter(name)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.ShutAll(addrs...)
}

// Clean removes everything of the gate of that name (DefaultName when empty):
// an address that is still on this host then passes traffic again. It is no
// error when there is nothing.
func Clean(name string) error {
	s, err := OpenShutter(name)
	if err != nil {
		return err
	}
	defer s.Close()
	return removeTables(s.c, s.name)
}

func removeTables(c *conn, name string) error {
	b := c.start()
	b.begin(0)
	for _, f := range []uint8{unix.NFPROTO_ARP, unix.NFPROTO_INET} {
		table(b, "delete table", name, unix.NFT_MSG_DELTABLE, 0, f)
	}
	b.commit()
	// The usual two in one transaction; whatever is left or fails, one by one.
	_ = c.transact()
	var errs []error
	for _, f := range []uint8{unix.NFPROTO_NETDEV, unix.NFPROTO_ARP, unix.NFPROTO_INET} {
		b := c.start()
		b.begin(0)
		table(b, "delete table", name, unix.NFT_MSG_DELTABLE, 0, f)
		b.commit()
		if err := c.transact(); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("remove %s: %w", tableText(name, f), err))
		}
	}
	return errors.Join(errs...)
}
