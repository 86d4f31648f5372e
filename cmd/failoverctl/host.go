package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
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

// loadTLS reads the three files.
func loadTLS(ca, cert, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the authority's certificate: %s holds no certificate in PEM form", ca)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read our certificate %s and key %s: %w", cert, key, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}
