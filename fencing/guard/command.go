package guard

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// baseEnvironment is what every program gets before its own settings. Nothing
// of the daemon's environment is handed down: neither NOTIFY_SOCKET nor a secret.
func baseEnvironment() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, key := range []string{"LANG", "TZ"} {
		if v, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+v)
		}
	}
	return env
}

// resolve makes a program of a command: the user is looked up, the
// environment completed. The last setting of a key wins.
func resolve(command, environment []string, dir, userName string) (*program, error) {
	if len(command) == 0 {
		return nil, fmt.Errorf("%w: no command", ErrRefused)
	}
	if !filepath.IsAbs(command[0]) {
		return nil, fmt.Errorf("%w: command %q: give its absolute path", ErrRefused, command[0])
	}
	if dir != "" && !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: directory %q: give its absolute path", ErrRefused, dir)
	}
	for _, s := range append(append([]string{dir}, command...), environment...) {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("%w: a NUL byte in command, directory or environment", ErrRefused)
		}
	}
	p := &program{Argv: command, Dir: dir}
	env := baseEnvironment()
	if userName != "" {
		cred, more, err := lookupUser(userName)
		if err != nil {
			return nil, err
		}
		p.Cred = cred
		env = append(env, more...)
	}
	for _, kv := range environment {
		if i := strings.IndexByte(kv, '='); i <= 0 {
			return nil, fmt.Errorf("%w: environment %q: write KEY=value", ErrRefused, kv)
		}
	}
	p.Env = lastWins(append(env, environment...))
	return p, nil
}

func lastWins(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := at[key]; ok {
			out[i] = kv
			continue
		}
		at[key] = len(out)
		out = append(out, kv)
	}
	return out
}

// lookupUser finds a user by name or number, with all groups.
func lookupUser(name string) (*credential, []string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if _, nerr := strconv.ParseUint(name, 10, 32); nerr == nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: user %q: %v", ErrRefused, name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: user %q: %v", ErrRefused, name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: user %q: %v", ErrRefused, name, err)
	}
	env := []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}
	if int(uid) == os.Geteuid() && int(gid) == os.Getegid() {
		// Already: an ordinary user may not set groups, not even its own.
		return nil, env, nil
	}
	c := &credential{UID: uint32(uid), GID: uint32(gid)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: groups of user %q: %v", ErrRefused, name, err)
	}
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: groups of user %q: %v", ErrRefused, name, err)
		}
		c.Groups = append(c.Groups, uint32(n))
	}
	return c, env, nil
}

// ParseSignal reads TERM, SIGTERM or 15. Empty is TERM. KILL and STOP are
// refused: the one needs no asking, the other stops nothing for good.
func ParseSignal(s string) (syscall.Signal, error) {
	if s == "" {
		return unix.SIGTERM, nil
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 || n == int(unix.SIGKILL) || n == int(unix.SIGSTOP) {
			return 0, fmt.Errorf("%w: signal %d", ErrRefused, n)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	sig := unix.SignalNum(name)
	if sig == 0 || sig == unix.SIGKILL || sig == unix.SIGSTOP {
		return 0, fmt.Errorf("%w: signal %q", ErrRefused, s)
	}
	return sig, nil
}
