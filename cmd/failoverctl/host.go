package main

import (
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/cmd/failoverctl/render"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminalSize is the size of f in characters, when f is a terminal.
func terminalSize(f *os.File) (width, height int, ok bool) {
	if !isTerminal(f) {
		return 0, 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24, true
	}
	return int(size.Col), int(size.Row), true
}

// style is how output looks on what it goes to. NO_COLOR is https://no-color.org.
func (a *app) style() render.Style {
	width, _, terminal := a.outTerminal()
	return render.Style{
		Color:    terminal && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb",
		Width:    width,
		Wide:     a.output == "wide",
		Location: a.location,
	}
}

// isLoopback reports whether host:port is certainly on this machine. Another
// name than localhost is not looked up: DNS must not decide about plain text.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
