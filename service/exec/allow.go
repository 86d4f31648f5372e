package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// allowed finds the real file behind a hook's command and says whether it may
// be run: it lies, links followed, in or below one of the directories; it and
// every directory down to it belong to root or to the daemon's user and cannot
// be written by everybody; it is a regular file that can be executed. So no
// replicated text becomes a command of anybody's liking.
func allowed(command string, dirs []string) (string, error) {
	if !filepath.IsAbs(command) {
		return "", fmt.Errorf("%w: %q: give its absolute path", ErrNotAllowed, command)
	}
	real, err := filepath.EvalSymlinks(command)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	for _, dir := range dirs {
		top, err := filepath.EvalSymlinks(dir)
		if err != nil || !filepath.IsAbs(top) {
			continue
		}
		if rel, err := filepath.Rel(top, real); err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../") {
			return real, checkFile(real, top)
		}
	}
	return "", fmt.Errorf("%w: %s lies in none of the directories that this node allows: %s", ErrNotAllowed, real, strings.Join(dirs, ", "))
}

func checkFile(file, top string) error {
	fi, err := os.Lstat(file)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	if !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
		return fmt.Errorf("%w: %s is not an executable file", ErrNotAllowed, file)
	}
	for path := file; ; path = filepath.Dir(path) {
		if err := checkOwner(path); err != nil {
			return err
		}
		if path == top || path == "/" {
			return nil
		}
	}
}

// checkOwner: whoever could change the file, or put another in its place, could run what he likes.
func checkOwner(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: %s has no owner", ErrNotAllowed, path)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d: it must be root's or the daemon's", ErrNotAllowed, path, st.Uid)
	}
	if fi.Mode()&0o002 != 0 {
		return fmt.Errorf("%w: everybody may write %s: chmod o-w", ErrNotAllowed, path)
	}
	return nil
}
