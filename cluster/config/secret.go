package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// readGossipKey takes the key from the file itself or from one of its own. A
// key that others on the host can read is no key.
func (n *Node) readGossipKey(s *section) {
	var written, path string
	inline, apart := s.text("gossip_key", &written), s.text("gossip_key_file", &path)
	switch {
	case s.has("gossip_key") && s.has("gossip_key_file"):
		s.bad("gossip_key_file", "gossip_key and gossip_key_file are both set; keep the file")
	case inline:
		key, err := decodeKey(written)
		if err != nil {
			s.bad("gossip_key", "gossip_key: %s", err)
			return
		}
		if err := private(n.Path); err != nil {
			s.bad("gossip_key", "gossip_key: this file %s, or move the key into one of its own (gossip_key_file)", err)
			return
		}
		n.GossipKey = key
	case apart:
		path = n.absolute(s, "gossip_key_file", path)
		key, err := readKeyFile(path)
		if err != nil {
			s.bad("gossip_key_file", "gossip_key_file = %q: %s", path, err)
			return
		}
		n.GossipKey = key
	}
}

func readKeyFile(path string) ([]byte, error) {
	src, err := readRegular(path)
	if err != nil {
		return nil, errors.New(reason(err))
	}
	if err := private(path); err != nil {
		return nil, err
	}
	return decodeKey(strings.TrimSpace(string(src)))
}

// decodeKey never repeats what it was given: errors end up in logs.
func decodeKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("this is no base64; make a key with: head -c 32 /dev/urandom | base64")
	}
	switch len(key) {
	case 16, 24, 32:
		return key, nil
	}
	return nil, fmt.Errorf("the key has %d bytes; 16, 24 or 32 are needed. Make one with: head -c 32 /dev/urandom | base64", len(key))
}

// private fails when others than the owner can read the file. A file that
// cannot be looked at is left to whoever reads it.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil //nolint:nilerr // see above
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("can be read by others (mode %04o): chmod 0600 %s", mode, path)
	}
	return nil
}

// reason is an error of the file system in words, without the path that the
// message names anyway.
func reason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file; check the path"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied; run as root or change the file's owner"
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only; remount it, or choose another directory"
	case errors.Is(err, syscall.ENOTDIR):
		return "a part of the path is no directory; check the path"
	}
	return err.Error()
}
