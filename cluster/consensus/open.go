package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// store is everything that raft keeps on the disk.
type store struct {
	log       logStore
	stable    *stableStore
	snapshots *raft.FileSnapshotStore
	bolt      *raftboltdb.BoltStore
}

// Close closes the file.
func (s *store) Close() error {
	return caught(s.bolt.Close)
}

// end is the index of the last entry on the disk, in the log or in a snapshot.
func (s *store) end() (uint64, error) {
	last, err := s.log.LastIndex()
	if err != nil {
		return 0, fmt.Errorf("look into store: %w", err)
	}
	files, err := s.snapshots.List()
	if err != nil {
		return 0, fmt.Errorf("look into store: %w", err)
	}
	for _, f := range files {
		last = max(last, f.Index)
	}
	return last, nil
}

// retained is how many snapshots are kept; the newest alone is ever read.
const retained = 2

// openStore opens the store of a directory, or makes one where none ever was.
func openStore(o Options, w *watch, v *verdict) (*store, error) {
	dir := o.Directory.Path()
	path := filepath.Join(dir, storeFile)
	if err := ensureStore(o.Directory, path); err != nil {
		return nil, err
	}
	if err := verifyFile(path, time.Now().Add(o.CheckLimit), o.Log); err != nil {
		return nil, err
	}
	bolt, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	st, err := assemble(o, bolt, w, v)
	if err != nil {
		bolt.Close()
		return nil, err
	}
	return st, nil
}

func assemble(o Options, bolt *raftboltdb.BoltStore, w *watch, v *verdict) (*store, error) {
	snapshots, err := openSnapshots(o)
	if err != nil {
		return nil, err
	}
	if err := verifyContents(bolt, snapshots, o); err != nil {
		return nil, err
	}
	g := &guarded{inner: bolt, watch: w, verdict: v}
	if o.wrap != nil {
		g.inner = o.wrap(bolt)
	}
	st := &store{log: logStore{g}, stable: &stableStore{guarded: g}, snapshots: snapshots, bolt: bolt}
	if st.stable.now, err = loadBallot(bolt); err != nil {
		return nil, fmt.Errorf("%w: %w: %s", ErrDamaged, err, adviceDamaged)
	}
	used, err := raft.HasExistingState(bolt, ballotReader{st.stable}, snapshots)
	if err != nil {
		return nil, fmt.Errorf("look into store: %w", err)
	}
	mark := o.Directory.marked()
	switch {
	case used && mark != storeUsed:
		err = o.Directory.mark(storeUsed) // a crash came between the first write and the mark
	case !used && mark == storeUsed:
		err = fmt.Errorf("%w: %s is empty, though this node has voted or stored entries in it before: %s", ErrDamaged, storeFile, adviceDamaged)
	case !used:
		st.stable.promised = func() error { return o.Directory.mark(storeUsed) }
	}
	return st, err
}

// ballotReader shows the ballot as raft's stable store without writing.
type ballotReader struct{ *stableStore }

// ensureStore makes the store's file where none ever was. It gets its name
// only when it is whole, so that a crash leaves none or a good one.
func ensureStore(d *Directory, path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Size() == 0:
		return fmt.Errorf("%w: %s is empty: %s", ErrDamaged, path, adviceDamaged)
	case err == nil:
		return d.mark(storeCreated)
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open store: %w", err)
	case d.marked() != storeNone:
		return fmt.Errorf("%w: %s is gone, though this node had one: %s", ErrDamaged, path, adviceDamaged)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make store: %w", err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: fresh, BoltOptions: boltOptions()})
	if err == nil {
		err = bolt.Close()
	}
	if err == nil {
		failpoint.Here("store.make.before")
		err = os.Rename(fresh, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	failpoint.Here("store.made")
	return d.mark(storeCreated)
}

func boltOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: 500 * time.Millisecond, FreelistType: bbolt.FreelistMapType}
}

func openBolt(path string) (*raftboltdb.BoltStore, error) {
	var bolt *raftboltdb.BoltStore
	err := caught(func() (err error) {
		bolt, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, inUse(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: open %s: %w: %s", ErrDamaged, path, err, adviceDamaged)
	}
	return bolt, nil
}

func inUse(path string) error {
	return fmt.Errorf("%w: %s is locked by another process ('fuser %s' names it): stop that one first", ErrInUse, path, path)
}

// openSnapshots opens the store of snapshots and removes what a crash left of
// unfinished ones.
func openSnapshots(o Options) (*raft.FileSnapshotStore, error) {
	dir := filepath.Join(o.Directory.Path(), snapshotDir)
	// raft would make it readable for everybody, and a snapshot holds the cluster's key.
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("clean up snapshots: %w", err)
			}
		}
	}
	s, err := raft.NewFileSnapshotStoreWithLogger(o.Directory.Path(), retained, newBridge(o.Log))
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return s, nil
}

// lay writes the first configuration into a store that holds nothing. It is
// called on the one founder that does so; the others get it from that one. It
// is raft's BootstrapCluster but for a crash between its two writes, which
// leaves a term and no log, and which that takes for a store in use.
func lay(st *store, founders []cluster.Founder) error {
	last, err := st.log.LastIndex()
	if err != nil {
		return fmt.Errorf("look into store: %w", err)
	}
	files, err := st.snapshots.List()
	if err != nil {
		return fmt.Errorf("look into store: %w", err)
	}
	if last > 0 || len(files) > 0 || st.stable.now.Term > 1 || st.stable.now.VoteTerm > 0 {
		return nil
	}
	var c raft.Configuration
	for _, f := range founders {
		s := raft.Server{ID: raft.ServerID(f.Node), Address: raft.ServerAddress(f.Address), Suffrage: raft.Nonvoter}
		if f.Role.Votes() {
			s.Suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, s)
	}
	failpoint.Here("store.lay.before")
	if err := st.stable.SetUint64([]byte(keyTerm), 1); err != nil {
		return fmt.Errorf("write first term: %w", err)
	}
	failpoint.Here("store.lay.term")
	entry := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
	if err := st.log.StoreLog(entry); err != nil {
		return fmt.Errorf("write first configuration: %w", err)
	}
	failpoint.Here("store.laid")
	return nil
}
