// Pet is a small HTTP service with state on disk, for the demo and the
// integration tests: the kind of program that failoverd keeps alive, and one
// that notices when it is not alone.
//
// It keeps a register and a set in a directory that all hosts share, as they
// would share storage. Every write is appended and synced before it is
// acknowledged. Every reply names the node, the epoch of the grant under which
// the service runs (FAILOVER_EPOCH) and the place of the last write:
//
//	GET  /get?n=7    {"node":"a","epoch":3,"sequence":12,"value":6}
//	POST /add?n=7    the same, once 7 is in the set and on the disk
//	GET  /health     200 while the disk can be read
//
// Beside them stand any number of registers and sets that are kept in memory
// while the service runs, as a database keeps them: two instances at once
// answer from old memory and write over each other.
//
//	GET  /register?key=1       the value of the register
//	POST /register?key=1&n=7   the same, once it is 7 on the disk
//	GET  /set?key=1            "members" are those of the set
//	POST /set?key=1&n=7        once 7 is in the set and on the disk
//
// When the disk shows that a newer epoch has begun, this instance should no
// longer live. It says so in the file "violations" and, unless -refuse is
// given, goes on: hiding a second holder is not its business.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pet:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "0.0.0.0:8080", "address to serve on")
	dir := flag.String("dir", "", "directory shared by all hosts; empty: no state at all")
	refuse := flag.Bool("refuse", false, "answer 503 once a newer epoch has begun")
	node := flag.String("node", os.Getenv("FAILOVER_NODE"), "name of this node")
	flag.Parse()

	var epoch uint64
	if text := os.Getenv("FAILOVER_EPOCH"); text != "" {
		var err error
		if epoch, err = strconv.ParseUint(text, 10, 64); err != nil {
			return fmt.Errorf("read FAILOVER_EPOCH: %w", err)
		}
	}
	if *node == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find a name for this node: %w", err)
		}
		*node = name
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s := &service{node: *node, epoch: epoch, refuse: *refuse}
	if *dir != "" {
		store, err := openStore(*dir, *node, epoch)
		if err != nil {
			return err
		}
		s.store = store
		defer store.close()
		go store.guard(ctx)
		if s.book, err = openBook(*dir, *node, epoch); err != nil {
			return err
		}
		defer s.book.close()
	}
	// The port is opened before the address comes to this host, and on every
	// address, so that nothing has to be bound when it does.
	listener, err := net.Listen("tcp4", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return serve(ctx, listener, s.handler())
}

func serve(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	// Requests that are being answered get their answer, and little time for
	// it: the address has gone before, and whoever waits for the rest of a
	// request that was cut off with it holds up the next holder.
	last, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := server.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
