package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"time"
)

// The layout of a bbolt file, version 2, as its source describes it: pages of
// one size, each with a header of 16 bytes; two roots ("meta") in pages 0 and
// 1, of which the one with the higher transaction is in force.
const (
	pageHeader  = 16
	pageElement = 16

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageMeta     = 0x04
	pageFreelist = 0x10

	elementBucket = 0x01

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64 // the last 8 bytes are its checksum
	metaStart   = pageHeader

	maxDepth = 32
)

// bolt reads a file page by page and never trusts a number in it.
type bolt struct {
	file     io.ReaderAt
	size     int64
	pageSize int64
	pages    uint64 // high-water mark: pages from here on were never used
	deadline time.Time
	seen     map[uint64]bool // pages that something leads to
}

// meta is a root.
type meta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	pages    uint64
	txid     uint64
}

var native = binary.NativeEndian

// checkBolt checks that every page is where it belongs: both roots are whole
// and of consecutive transactions, each page is led to once or is free, keys
// are in order, nothing points outside. It cannot see a changed value; the
// entries have checksums of their own for that.
func checkBolt(file io.ReaderAt, size int64, deadline time.Time) error {
	m, err := readRoots(file, size)
	if err != nil {
		return err
	}
	b := &bolt{file: file, size: size, pageSize: int64(m.pageSize), pages: m.pages, deadline: deadline, seen: map[uint64]bool{}}
	if m.pages < 4 || m.pages > uint64(size)/uint64(m.pageSize) {
		return fmt.Errorf("the file is cut: it has %d bytes, and %d pages of %d bytes are in use", size, m.pages, m.pageSize)
	}
	if err := b.tree(m.root, nil, nil, 0); err != nil {
		return err
	}
	free, err := b.freelist(m.freelist)
	if err != nil {
		return err
	}
	for id := uint64(2); id < m.pages; id++ {
		if b.seen[id] == free[id] {
			return fmt.Errorf("page %d is in use: %v, and free: %v", id, b.seen[id], free[id])
		}
	}
	return nil
}

// readRoots returns the root in force. Both must be good: bbolt would start
// from the older when the newer is damaged, without the last write.
func readRoots(file io.ReaderAt, size int64) (meta, error) {
	pageSize := int64(os.Getpagesize())
	if size < 4*pageSize {
		return meta{}, fmt.Errorf("the file is cut: it has %d bytes", size)
	}
	a, err := readRoot(file, 0, pageSize)
	if err != nil {
		return meta{}, fmt.Errorf("first root: %w", err)
	}
	b, err := readRoot(file, 1, pageSize)
	if err != nil {
		return meta{}, fmt.Errorf("second root: %w", err)
	}
	if a.txid < b.txid {
		a, b = b, a
	}
	if a.txid != b.txid+1 {
		return meta{}, fmt.Errorf("the roots are of transactions %d and %d", b.txid, a.txid)
	}
	return a, nil
}

func readRoot(file io.ReaderAt, id uint64, pageSize int64) (meta, error) {
	page := make([]byte, metaStart+metaSize)
	if _, err := file.ReadAt(page, int64(id)*pageSize); err != nil {
		return meta{}, err
	}
	sumAt := metaStart + metaSize - 8
	h := fnv.New64a()
	h.Write(page[metaStart:sumAt])
	switch {
	case native.Uint64(page) != id || native.Uint16(page[8:]) != pageMeta:
		return meta{}, errors.New("it is no root")
	case native.Uint32(page[metaStart:]) != metaMagic || native.Uint32(page[metaStart+4:]) != metaVersion:
		return meta{}, errors.New("it is no root of a known version")
	case h.Sum64() != native.Uint64(page[sumAt:]):
		return meta{}, errors.New("it does not match its checksum")
	case int64(native.Uint32(page[metaStart+8:])) != pageSize:
		return meta{}, fmt.Errorf("its pages have %d bytes, this machine's %d: it was written on another kind of machine", native.Uint32(page[metaStart+8:]), pageSize)
	}
	return meta{
		pageSize: native.Uint32(page[metaStart+8:]),
		root:     native.Uint64(page[metaStart+16:]),
		freelist: native.Uint64(page[metaStart+32:]),
		pages:    native.Uint64(page[metaStart+40:]),
		txid:     native.Uint64(page[metaStart+48:]),
	}, nil
}

// page reads a page with those that continue it, and notes them as led to.
func (b *bolt) page(id uint64) ([]byte, error) {
	if time.Now().After(b.deadline) {
		return nil, errLate
	}
	if id < 2 || id >= b.pages {
		return nil, fmt.Errorf("page %d does not exist", id)
	}
	head := make([]byte, pageHeader)
	if _, err := b.file.ReadAt(head, int64(id)*b.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	more := uint64(native.Uint32(head[12:]))
	if native.Uint64(head) != id || more >= b.pages-id {
		return nil, fmt.Errorf("page %d says that it is page %d of %d", id, native.Uint64(head), more+1)
	}
	for i := id; i <= id+more; i++ {
		if b.seen[i] {
			return nil, fmt.Errorf("page %d is in use twice", i)
		}
		b.seen[i] = true
	}
	page := make([]byte, int64(more+1)*b.pageSize)
	if _, err := b.file.ReadAt(page, int64(id)*b.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return page, nil
}

// tree checks a page and everything below it. Its keys lie between from,
// included, and to; nil is no bound.
func (b *bolt) tree(id uint64, from, to []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d is too deep", id)
	}
	page, err := b.page(id)
	if err != nil {
		return err
	}
	switch native.Uint16(page[8:]) {
	case pageLeaf:
		return b.leaf(id, page, from, to, depth)
	case pageBranch:
		return b.branch(id, page, from, to, depth)
	}
	return fmt.Errorf("page %d is neither leaf nor branch", id)
}

func (b *bolt) branch(id uint64, page, from, to []byte, depth int) error {
	count := int(native.Uint16(page[10:]))
	if count == 0 {
		return fmt.Errorf("page %d leads nowhere", id)
	}
	type child struct {
		key []byte
		id  uint64
	}
	children := make([]child, count)
	for i := range children {
		at := pageHeader + i*pageElement
		if at+pageElement > len(page) {
			return fmt.Errorf("page %d has too many elements", id)
		}
		key, err := slice(page, at, native.Uint32(page[at:]), native.Uint32(page[at+4:]))
		if err != nil {
			return fmt.Errorf("page %d, element %d: %w", id, i, err)
		}
		children[i] = child{key, native.Uint64(page[at+8:])}
	}
	for i, c := range children {
		end := to
		if i+1 < count {
			end = children[i+1].key
		}
		if err := inOrder(c.key, from, end); err != nil {
			return fmt.Errorf("page %d, element %d: %w", id, i, err)
		}
		if err := b.tree(c.id, c.key, end, depth+1); err != nil {
			return err
		}
		from = c.key
	}
	return nil
}

func (b *bolt) leaf(id uint64, page, from, to []byte, depth int) error {
	var last []byte
	for i := range int(native.Uint16(page[10:])) {
		at := pageHeader + i*pageElement
		if at+pageElement > len(page) {
			return fmt.Errorf("page %d has too many elements", id)
		}
		flags, pos := native.Uint32(page[at:]), native.Uint32(page[at+4:])
		keySize, valueSize := native.Uint32(page[at+8:]), native.Uint32(page[at+12:])
		key, err := slice(page, at, pos, keySize)
		if err != nil {
			return fmt.Errorf("page %d, element %d: %w", id, i, err)
		}
		value, err := slice(page, at, pos+keySize, valueSize)
		if err != nil || pos+keySize < pos {
			return fmt.Errorf("page %d, element %d: its value lies outside", id, i)
		}
		if err := inOrder(key, from, to); err != nil || last != nil && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("page %d, element %d: its key is out of order", id, i)
		}
		last = key
		if flags&^elementBucket != 0 {
			return fmt.Errorf("page %d, element %d: it is of an unknown kind", id, i)
		}
		if flags == elementBucket {
			if err := b.bucket(value, depth); err != nil {
				return fmt.Errorf("page %d, element %d: %w", id, i, err)
			}
		}
	}
	return nil
}

// bucket checks a bucket: a tree of its own, or a single page within the value.
func (b *bolt) bucket(value []byte, depth int) error {
	const bucketHeader = 16
	if len(value) < bucketHeader {
		return errors.New("it is too small for a bucket")
	}
	if root := native.Uint64(value); root != 0 {
		return b.tree(root, nil, nil, depth+1)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || native.Uint16(inline[8:]) != pageLeaf {
		return errors.New("its bucket is damaged")
	}
	return b.leaf(0, inline, nil, nil, depth+1)
}

// freelist reads the pages that are free. The list's own pages are in use.
func (b *bolt) freelist(id uint64) (map[uint64]bool, error) {
	page, err := b.page(id)
	if err != nil {
		return nil, fmt.Errorf("list of free pages: %w", err)
	}
	if native.Uint16(page[8:]) != pageFreelist {
		return nil, fmt.Errorf("page %d is not the list of free pages", id)
	}
	count, at := uint64(native.Uint16(page[10:])), uint64(pageHeader)
	if count == 0xFFFF { // too many for the header: the first number is the count
		count, at = native.Uint64(page[at:]), at+8
	}
	if count > (uint64(len(page))-at)/8 {
		return nil, fmt.Errorf("the list of free pages has no room for %d", count)
	}
	free := make(map[uint64]bool, count)
	for i := range count {
		id := native.Uint64(page[at+8*i:])
		if id < 2 || id >= b.pages || free[id] {
			return nil, fmt.Errorf("page %d is free twice or does not exist", id)
		}
		free[id] = true
	}
	return free, nil
}

// slice cuts out what an element at a place in the page points to.
func slice(page []byte, at int, pos, size uint32) ([]byte, error) {
	start := uint64(at) + uint64(pos)
	end := start + uint64(size)
	if end > uint64(len(page)) {
		return nil, errors.New("it points outside of its page")
	}
	return page[start:end], nil
}

func inOrder(key, from, to []byte) error {
	if from != nil && bytes.Compare(key, from) < 0 || to != nil && bytes.Compare(key, to) >= 0 {
		return errors.New("its key is out of order")
	}
	return nil
}
