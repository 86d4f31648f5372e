package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const probeFile = "probe"

// probe writes to the disk now and then while this node leads. A leader with
// nothing to append would not notice that its disk hangs until the moment when
// it is needed, and would then cost a takeover the disk's limit and an election.
func (n *Node) probe() {
	defer n.wait.Done()
	var file *os.File
	defer func() {
		if file != nil {
			file.Close()
		}
	}()
	tick := time.NewTicker(n.options.DiskLimit)
	defer tick.Stop()
	n.watch.mu.Lock()
	n.watch.tell = n.tellRoom
	n.watch.mu.Unlock()
	for {
		select {
		case <-tick.C:
		case <-n.verdict.done:
			return
		case <-n.halt:
			return
		}
		if _, leads := n.Leading(); !leads {
			continue
		}
		if err := n.touch(&file); errors.Is(err, errStopping) {
			return
		} else if err != nil {
			n.verdict.reach(fmt.Errorf("%w: probe the disk: %w: check the disk under %s, then start failoverd again", ErrDisk, err, n.options.Directory.Path()))
			return
		}
	}
}

// touch writes a few bytes in place and waits until the disk has them. The file
// is made once; on a disk without room it is not there and nothing is probed.
func (n *Node) touch(file **os.File) error {
	if *file == nil {
		defer n.watch.begin()()
		f, err := os.OpenFile(filepath.Join(n.options.Directory.Path(), probeFile), os.O_RDWR|os.O_CREATE|unix.O_DSYNC, 0o600)
		if err != nil {
			n.log.Warn("the disk cannot be probed", "error", err)
			return nil
		}
		if _, err := f.WriteAt(make([]byte, 64), 0); err != nil {
			f.Close()
			n.log.Warn("the disk cannot be probed", "error", err)
			return nil
		}
		*file = f
		return nil
	}
	return n.watch.patiently(n.halt, func() error {
		_, err := (*file).WriteAt(fmt.Appendf(nil, "%020d", time.Now().UnixNano()), 0)
		return err
	})
}
