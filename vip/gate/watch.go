package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watchInterval is how often the generation of the ruleset is compared when
// nothing else makes us look: an Arm does so by itself.
const watchInterval = time.Second

// watchGap keeps a busy firewall on this host from making us read our tables
// without end.
const watchGap = 20 * time.Millisecond

// watcher looks after the tables between renewals.
type watcher struct {
	g      *Gate
	events *os.File // netlink notifications; nil when they cannot be had
	wake   chan struct{}
	stop   chan struct{}
	wg     sync.WaitGroup
}

func startWatcher(g *Gate) (*watcher, error) {
	w := &watcher{g: g, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	var err error
	// Joining the group needs CAP_NET_ADMIN over the namespace, which whoever
	// made the tables has; a kernel that refuses leaves us the ticker.
	if w.events, err = subscribe(); err != nil && !errors.Is(err, unix.EPERM) {
		return nil, err
	}
	w.wg.Add(1)
	go w.run()
	if w.events != nil {
		w.wg.Add(1)
		go w.listen()
	}
	return w, nil
}

func (w *watcher) close() {
	close(w.stop)
	if w.events != nil {
		w.events.Close()
	}
	w.wg.Wait()
}

func (w *watcher) run() {
	defer w.wg.Done()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case d := <-w.g.reports:
			w.g.mu.Lock()
			fn := w.g.onDamage
			w.g.mu.Unlock()
			if fn != nil {
				fn(d)
			}
		case <-w.wake:
			w.look()
			select {
			case <-time.After(watchGap):
			case <-w.stop:
			}
		case <-tick.C:
			w.look()
		}
	}
}

// look repairs what is damaged and shuts what has lapsed. An error is not
// reported from here: the next Arm meets it, and answers to somebody.
func (w *watcher) look() {
	_ = w.g.doFor("watch gate", buildTimeout, func() error {
		return errors.Join(w.g.sweep(), w.g.catchUp())
	})
}

func (w *watcher) listen() {
	defer w.wg.Done()
	buf := make([]byte, 16<<10)
	for {
		_, err := w.events.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return // closed; the ticker goes on
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// subscribe opens a socket that hears of changed tables, chains, rules and
// sets. Elements are filtered out in the kernel: our own renewals would wake us
// many times a second, and foreign ones show in the generation.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	prog := eventFilter()
	for _, err := range []error{
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES),
	} {
		if err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("subscribe to nftables: %w", err)
		}
	}
	return os.NewFile(uintptr(fd), "nftables events"), nil
}

// eventFilter drops datagrams whose first message is about set elements or is
// the bare generation that ends every commit.
func eventFilter() []unix.SockFilter {
	const typeOffset = 4 // of nlmsg_type, in host order; BPF loads big-endian
	asLoaded := func(msg uint16) uint32 {
		v := binary.NativeEndian.AppendUint16(nil, unix.NFNL_SUBSYS_NFTABLES<<8|msg)
		return uint32(binary.BigEndian.Uint16(v))
	}
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 3, K: asLoaded(unix.NFT_MSG_NEWSETELEM)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 2, K: asLoaded(unix.NFT_MSG_DELSETELEM)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: asLoaded(unix.NFT_MSG_NEWGEN)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}
