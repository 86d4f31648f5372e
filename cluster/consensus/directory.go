package consensus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Errors of a data directory. Their texts say what to do.
var (
	// ErrInUse means that another process has the directory or its store open.
	ErrInUse = errors.New("data directory is in use")
	// ErrForeign means that the directory belongs to another node or cluster.
	ErrForeign = errors.New("data directory belongs to another node")
	// ErrDamaged means that something in the directory is missing, cut or changed.
	ErrDamaged = errors.New("data directory is damaged")
)

// adviceDamaged is what to do about data that cannot be trusted: the promises
// that this node has made stood in it, so it comes back as a stranger.
const adviceDamaged = "do not repair it by hand: move the data directory away, and let the node be admitted anew with 'failoverctl members replace'; the other nodes have all the data"

// Self is what the node's own file says of it.
type Self struct {
	Node    string
	Role    state.Role
	Address string   // host:port, as the other nodes know it
	Peers   []string // host:port of every configured peer, this node included; any order
	Version string
}

// storeMark says what the directory is known to hold.
type storeMark string

const (
	storeNone    storeMark = ""        // no raft store yet
	storeCreated storeMark = "created" // the file is there; nothing was promised yet
	storeUsed    storeMark = "used"    // it holds a term, a vote or entries
)

// record is identity.json.
type record struct {
	Version  int               `json:"version"`
	Node     string            `json:"node"`
	Role     state.Role        `json:"role"`
	Address  string            `json:"address"`
	Peers    []string          `json:"peers"`
	Birth    string            `json:"birth"`
	Cluster  string            `json:"cluster,omitempty"`
	Founders []cluster.Founder `json:"founders,omitempty"`
	Lays     bool              `json:"lays,omitempty"` // this node lays the first configuration
	Store    storeMark         `json:"store,omitempty"`
	// Starts are the nonces of the starts that were about to be proposed, the
	// newest last; Void is why the directory must not be used again.
	Starts []uint64 `json:"starts,omitempty"`
	Void   string   `json:"void,omitempty"`
}

// maxStarts bounds what is kept of them. A start is noted when a leader is
// known, so that more than this many that all came to nothing are not to be expected.
const maxStarts = 256

const (
	identityFile    = "identity.json"
	identityVersion = 1
	lockFile        = "lock"
	storeFile       = "raft.db"
	snapshotDir     = "snapshots"
)

// Directory is a node's data directory, locked for this process: who the node
// is and which cluster it belongs to.
type Directory struct {
	path    string
	version string
	lock    *os.File

	mu   sync.Mutex
	rec  record
	said uint64 // how often somebody was told that this node has no data
}

// OpenDirectory locks the directory at path, creates it if it is not there,
// and reads or draws the node's identity. It fails with ErrInUse when another
// daemon has it, naming the process, with ErrForeign when it is another
// node's, and with ErrDamaged when data is there without an identity.
func OpenDirectory(path string, self Self) (*Directory, error) {
	if self.Node == "" || self.Address == "" {
		return nil, fmt.Errorf("open data directory: %w: a node needs a name and an address", cluster.ErrInvalid)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := lockDirectory(path)
	if err != nil {
		return nil, err
	}
	d := &Directory{path: path, version: self.Version, lock: lock}
	if err := d.identify(self); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// lockDirectory takes the lock that the process holds until it ends.
func lockDirectory(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w: it must be writable for the user that failoverd runs as", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data directory %s: %w", path, err)
		}
		pid := make([]byte, 32)
		n, _ := f.ReadAt(pid, 0) // only for the message
		return nil, fmt.Errorf("%w: %s is held by process %s: stop that failoverd first, or give this one another data directory", ErrInUse, path, strings.TrimSpace(string(pid[:n])))
	}
	failpoint.Here("identity.locked")
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write to data directory: %w", err)
	}
	return f, nil
}

// identify reads identity.json and holds it against the node's own file, or
// draws a new identity in an empty directory.
func (d *Directory) identify(self Self) error {
	peers := slices.Clone(self.Peers)
	slices.Sort(peers)
	peers = slices.Compact(peers)

	data, err := os.ReadFile(filepath.Join(d.path, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return d.beBorn(self, peers)
	}
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	var rec record
	if err := strict(data, &rec); err != nil {
		return fmt.Errorf("%w: %s/%s: %w: %s", ErrDamaged, d.path, identityFile, err, adviceDamaged)
	}
	if rec.Version != identityVersion {
		return fmt.Errorf("read identity: it is of version %d, this failoverd reads %d: upgrade failoverd on this node", rec.Version, identityVersion)
	}
	if rec.Node == "" || rec.Birth == "" {
		return fmt.Errorf("%w: %s/%s lacks a name or a birth: %s", ErrDamaged, d.path, identityFile, adviceDamaged)
	}
	if rec.Node != self.Node {
		return fmt.Errorf("%w: %s holds the data of node %q, this node is %q: give each node its own directory, or correct the name in the node's file", ErrForeign, d.path, rec.Node, self.Node)
	}
	if rec.Void != "" {
		return fmt.Errorf("%w: %s was found to be one before: %s: %s", ErrOutlived, d.path, rec.Void, adviceDamaged)
	}
	if rec.Cluster != "" && rec.Address != self.Address {
		return fmt.Errorf("%w: %s holds the data of node %q at %s, this node is at %s: correct the address in the node's file; if the node has really moved, start it with an empty data directory and admit it with 'failoverctl members replace'", ErrForeign, d.path, rec.Node, rec.Address, self.Address)
	}
	d.rec = rec
	rec.Role, rec.Address, rec.Peers = self.Role, self.Address, peers
	if reflect.DeepEqual(rec, d.rec) {
		return nil // a full disk is no reason not to start
	}
	return d.write(rec)
}

func (d *Directory) beBorn(self Self, peers []string) error {
	for _, name := range []string{storeFile, snapshotDir} {
		if _, err := os.Lstat(filepath.Join(d.path, name)); err == nil {
			return fmt.Errorf("%w: %s has a raft store but no %s: %s", ErrDamaged, d.path, identityFile, adviceDamaged)
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look into data directory: %w", err)
		}
	}
	birth := make([]byte, 16)
	if _, err := rand.Read(birth); err != nil {
		return fmt.Errorf("draw a birth: %w", err)
	}
	return d.write(record{
		Version: identityVersion, Node: self.Node, Role: self.Role, Address: self.Address,
		Peers: peers, Birth: hex.EncodeToString(birth),
	})
}

// write replaces identity.json, synced, and then what is remembered of it.
func (d *Directory) write(rec record) error {
	data, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	failpoint.Here("identity.write.before")
	if err := replaceFile(filepath.Join(d.path, identityFile), append(data, '\n')); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	failpoint.Here("identity.written")
	d.rec = rec
	return nil
}

// replaceFile writes a file so that after a crash either the old or the new is there, whole.
func replaceFile(path string, data []byte) (err error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		failpoint.Here("identity.synced")
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Path is where the directory is.
func (d *Directory) Path() string { return d.path }

// Identity is the node's word about itself, to be given to whoever asks, and
// to be taken anew for each who does: that this node has no data is a word it
// is held to (see RunFounding).
func (d *Directory) Identity() cluster.Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rec.Cluster == "" {
		d.said++
	}
	return d.identity()
}

// look is Identity for this node's own use, and how often others were told
// that it has no data.
func (d *Directory) look() (self cluster.Identity, said uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.identity(), d.said
}

func (d *Directory) identity() cluster.Identity {
	return cluster.Identity{
		Node: d.rec.Node, Role: d.rec.Role, Address: d.rec.Address, Peers: slices.Clone(d.rec.Peers),
		Birth: d.rec.Birth, Cluster: d.rec.Cluster, Founders: slices.Clone(d.rec.Founders), Version: d.version,
	}
}

// settle writes down the cluster of a decision, Found or Join, unless somebody
// has been told since that this node has no data. A directory that belongs to
// a cluster never changes to another.
func (d *Directory) settle(said uint64, to Decision) (settled bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rec.Cluster != "" && d.rec.Cluster != to.Cluster {
		return false, fmt.Errorf("%w: %s holds data of cluster %s, not of %s", ErrForeign, d.path, d.rec.Cluster, to.Cluster)
	}
	if d.rec.Cluster != "" {
		return true, nil
	}
	if d.said != said {
		return false, nil
	}
	failpoint.Here("founding.settle.before")
	rec := d.rec
	rec.Cluster, rec.Founders, rec.Lays = to.Cluster, slices.Clone(to.Founders), to.Verb == Found
	if err := d.write(rec); err != nil {
		return false, err
	}
	failpoint.Here("founding.settled")
	return true, nil
}

// mark notes what the directory holds; it never takes a mark back.
func (d *Directory) mark(m storeMark) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rec.Store == m || d.rec.Store == storeUsed {
		return nil
	}
	rec := d.rec
	rec.Store = m
	return d.write(rec)
}

// Begin notes a start of the daemon by its nonce, synced, before it is
// proposed to the log: a directory that does not know a start which the log
// knows is an older copy.
func (d *Directory) Begin(nonce uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.rec.Starts, nonce) {
		return nil
	}
	rec := d.rec
	rec.Starts = append(slices.Clone(rec.Starts), nonce)
	rec.Starts = rec.Starts[max(0, len(rec.Starts)-maxStarts):]
	return d.write(rec)
}

// Began reports whether a start was noted here. A directory that has noted
// none yet knows nothing of the time before, and calls every start its own.
func (d *Directory) Began(nonce uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.rec.Starts) == 0 || slices.Contains(d.rec.Starts, nonce)
}

// void notes that the directory must not be used again, and why.
func (d *Directory) void(why error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	rec := d.rec
	rec.Void = why.Error()
	return d.write(rec)
}

func (d *Directory) marked() storeMark {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rec.Store
}

// lays reports whether this node lays the cluster's first configuration.
func (d *Directory) lays() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rec.Lays
}

// Close gives the directory free.
func (d *Directory) Close() error { return d.lock.Close() }
