package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// ownOnly fails when somebody else than root and this user could change what
// is at an absolute path without links: the thing itself, or a directory above
// it by putting another in its place. A sticky directory such as /tmp does not
// let others do that.
func ownOnly(path string) error {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return err
		}
		mode := info.Mode()
		if mode.Perm()&0o022 != 0 && (at == path || mode&os.ModeSticky == 0) {
			return fmt.Errorf("%s can be written by others (mode %04o), who could then run programs as this daemon: chmod go-w %s", at, mode.Perm(), at)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !trustedOwner(st.Uid) {
			return fmt.Errorf("%s belongs to user %d, who could then run programs as this daemon: chown root %s", at, st.Uid, at)
		}
		if at == "/" || at == "." {
			return nil
		}
	}
}

func trustedOwner(uid uint32) bool {
	return uid == 0 || int(uid) == os.Geteuid() || hiddenOwner() >= 0 && int(uid) == hiddenOwner()
}

// hiddenOwner is the user that owners from outside of this user namespace
// appear as, the real root among them; -1 when the process is in no namespace
// of its own. Inside one the daemon has no more rights than the user who made it.
var hiddenOwner = sync.OnceValue(func() int {
	uidMap, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return -1
	}
	if f := strings.Fields(string(uidMap)); len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295" {
		return -1
	}
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return -1
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return uid
})
