package disk

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or directory as the kernel sees it: the library's, with every
// operation meeting the faults first.
type node struct {
	*fs.LoopbackNode
	disk *Disk
}

func newRoot(d *Disk) *node {
	root := &node{disk: d, LoopbackNode: &fs.LoopbackNode{RootData: &fs.LoopbackRoot{Path: d.dir}}}
	var st syscall.Stat_t
	if syscall.Stat(d.dir, &st) == nil {
		root.RootData.Dev = uint64(st.Dev)
	}
	root.RootData.RootNode = root
	return root
}

// WrapChild makes every file a node of this package (fs.NodeWrapChilder).
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	inner, ok := ops.(*fs.LoopbackNode)
	if !ok {
		return ops
	}
	return &node{LoopbackNode: inner, disk: n.disk}
}

// rel is the path below the root.
func (n *node) rel() string { return filepath.Join(".", n.Path(n.Root())) }

// abs is the path in the underlying directory.
func (n *node) abs() string { return filepath.Join(n.disk.dir, n.rel()) }

func (n *node) meet(op Op) syscall.Errno { return n.disk.meet(op, n.rel()) }

func (n *node) meetAt(op Op, name string) syscall.Errno {
	return n.disk.meet(op, filepath.Join(n.rel(), name))
}

func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	if errno := n.meet(Look); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Statfs(ctx, out)
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.meetAt(Look, name); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if errno := n.meet(Look); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Getattr(ctx, f, out)
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if errno := n.resize(f, int64(size)); errno != 0 {
			return errno
		}
		in.Valid &^= fuse.FATTR_SIZE
	} else if errno := n.meet(Attr); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
}

func (n *node) resize(f fs.FileHandle, size int64) syscall.Errno {
	if errno := n.meet(Resize); errno != 0 {
		return errno
	}
	if h, ok := f.(*handle); ok {
		return errnoOf(n.disk.lost.resize(h.file, size))
	}
	file, err := os.OpenFile(n.abs(), os.O_RDWR, 0)
	if err != nil {
		return errnoOf(err)
	}
	defer file.Close()
	return errnoOf(n.disk.lost.resize(file, size))
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	op := Open
	writes := flags&(syscall.O_WRONLY|syscall.O_RDWR) != 0
	if writes {
		op |= openWrite
	}
	if errno := n.meet(op); errno != 0 {
		return nil, 0, errno
	}
	how := os.O_RDONLY
	if writes {
		how = os.O_RDWR // what is overwritten must be read first
	}
	file, err := os.OpenFile(n.abs(), how|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	h := &handle{node: n, file: file}
	if flags&syscall.O_TRUNC != 0 {
		if errno := n.resize(h, 0); errno != 0 {
			_ = file.Close()
			return nil, 0, errno
		}
	}
	return h, 0, 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.meetAt(Create, name); errno != 0 {
		return nil, nil, 0, errno
	}
	path := filepath.Join(n.abs(), name)
	var file *os.File
	err := n.disk.lost.make(path, func() (err error) {
		file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|int(flags)&os.O_EXCL, os.FileMode(mode).Perm())
		return err
	})
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	child, errno := n.LoopbackNode.Lookup(ctx, name, out)
	if errno != 0 {
		_ = file.Close()
		return nil, nil, 0, errno
	}
	made, ok := child.Operations().(*node)
	if !ok {
		_ = file.Close()
		return nil, nil, 0, syscall.EIO
	}
	return child, &handle{node: made, file: file}, 0, 0
}

// entry makes something under a name by the library's own means.
func (n *node) entry(name string, fn func() (*fs.Inode, syscall.Errno)) (child *fs.Inode, errno syscall.Errno) {
	if errno := n.meetAt(Create, name); errno != 0 {
		return nil, errno
	}
	_ = n.disk.lost.make(filepath.Join(n.abs(), name), func() error {
		if child, errno = fn(); errno != 0 {
			return errno
		}
		return nil
	})
	return child, errno
}

func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.entry(name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Mknod(ctx, name, mode, dev, out) })
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.entry(name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Mkdir(ctx, name, mode, out) })
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.entry(name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Symlink(ctx, target, name, out) })
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	from, ok := target.(*node)
	if !ok {
		return nil, syscall.EXDEV
	}
	return n.entry(name, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Link(ctx, from.LoopbackNode, name, out) })
}

func (n *node) remove(name string) syscall.Errno {
	if errno := n.meetAt(Remove, name); errno != 0 {
		return errno
	}
	path := filepath.Join(n.abs(), name)
	return errnoOf(n.disk.lost.remove(path, func() error { return os.Remove(path) }))
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno { return n.remove(name) }

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno { return n.remove(name) }

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	parent, ok := to.(*node)
	if !ok {
		return syscall.EXDEV
	}
	if flags != 0 {
		return syscall.EINVAL // renameat2(2): the file system has no such flags
	}
	target := filepath.Join(parent.rel(), newName)
	if errno := n.disk.meet(Rename, target); errno != 0 {
		return errno
	}
	return errnoOf(n.disk.lost.rename(filepath.Join(n.abs(), name), filepath.Join(n.disk.dir, target)))
}

func (n *node) Fsync(_ context.Context, f fs.FileHandle, _ uint32) syscall.Errno {
	if errno := n.meet(Sync); errno != 0 {
		return errno
	}
	if n.IsDir() {
		n.disk.lost.syncDir(inodeOf(n.abs()))
		return 0
	}
	if h, ok := f.(*handle); ok {
		n.disk.lost.syncFile(inodeOfFile(h.file), n.above())
	}
	return 0
}

// above are the directories above, but for the root.
func (n *node) above() []string {
	var dirs []string
	for dir := filepath.Dir(n.rel()); dir != "."; dir = filepath.Dir(dir) {
		dirs = append(dirs, filepath.Join(n.disk.dir, dir))
	}
	return dirs
}

func (n *node) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	if errno := n.meet(Look); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Readdir(ctx)
}

// OpendirHandle opens a directory for reading, and for Fsync.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.meet(Look); errno != 0 {
		return nil, 0, errno
	}
	inner, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &directory{node: n, FileReaddirenter: inner.(fs.FileReaddirenter), FileReleasedirer: inner.(fs.FileReleasedirer), FileSeekdirer: inner.(fs.FileSeekdirer)}, fuseFlags, 0
}

// directory is an open directory.
type directory struct {
	fs.FileReaddirenter
	fs.FileReleasedirer
	fs.FileSeekdirer
	node *node
}

func (d *directory) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.node.Fsync(ctx, nil, flags)
}

// handle is an open file.
type handle struct {
	node *node
	file *os.File
}

func (h *handle) Read(_ context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := h.node.meet(Read); errno != 0 {
		return nil, errno
	}
	return fuse.ReadResultFd(h.file.Fd(), off, len(buf)), 0
}

func (h *handle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := h.node.meet(Write); errno != 0 {
		return 0, errno
	}
	n, err := h.node.disk.lost.write(h.file, data, off)
	return uint32(n), errnoOf(err)
}

func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	info, err := h.file.Stat()
	if err != nil {
		return errnoOf(err)
	}
	return h.node.resize(h, max(info.Size(), int64(off+size)))
}

func (h *handle) Getattr(_ context.Context, out *fuse.AttrOut) syscall.Errno {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(h.file.Fd()), &st); err != nil {
		return errnoOf(err)
	}
	out.FromStat(&st)
	return 0
}

func (h *handle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	at, err := syscall.Seek(int(h.file.Fd()), int64(off), int(whence))
	return uint64(at), errnoOf(err)
}

// Flush is close(2): nothing waits for it here.
func (h *handle) Flush(context.Context) syscall.Errno { return 0 }

func (h *handle) Release(context.Context) syscall.Errno { return errnoOf(h.file.Close()) }
