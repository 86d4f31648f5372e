package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/rpc"
)

// certificates writes an authority and one certificate of it for both ends of
// a connection.
func certificates(t *testing.T) config.TLS {
	t.Helper()
	dir := t.TempDir()
	save := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(serial int64, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) []byte {
		template.SerialNumber = big.NewInt(serial)
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER := sign(1, ca, ca, caKey, caKey)
	both := &x509.Certificate{
		Subject: pkix.Name{CommonName: "node"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return config.TLS{
		CA: save("ca.pem", "CERTIFICATE", caDER), Cert: save("cert.pem", "CERTIFICATE", sign(2, both, ca, key, caKey)),
		Key: save("key.pem", "PRIVATE KEY", keyDER),
	}
}

// serveTCP starts a node on TCP, with TLS when files are given.
func serveTCP(t *testing.T, files *config.TLS) string {
	t.Helper()
	o := rpc.ServerOptions{Operator: &fakeNode{status: cluster.Status{Cluster: "c1", Quorum: true, At: time.Now()}}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if files != nil {
		var err error
		if o.TLS, err = files.Server(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer(o)
	if err := s.ServeTCP(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func TestOverTCP(t *testing.T) {
	address := serveTCP(t, nil)
	for name, c := range map[string]*call{"flag": {}, "environment": {env: map[string]string{"FAILOVERCTL_ADDRESS": address}}} {
		args := []string{"status"}
		if name == "flag" {
			args = append(args, "--address", address)
		}
		if code := c.run(args...); code != exitOK || !strings.Contains(c.out.String(), "Cluster: c1") {
			t.Errorf("by %s: exit %d, %s", name, code, c.err.String())
		}
	}
}

func TestOverTLS(t *testing.T) {
	files, others := certificates(t), certificates(t)
	address := serveTCP(t, &files)
	flags := func(f config.TLS) []string {
		return []string{"status", "--address", address, "--ca", f.CA, "--cert", f.Cert, "--key", f.Key}
	}
	c := &call{}
	if code := c.run(flags(files)...); code != exitOK || !strings.Contains(c.out.String(), "Cluster: c1") {
		t.Errorf("with certificates: exit %d, %s", code, c.err.String())
	}
	c = &call{env: map[string]string{"FAILOVERCTL_ADDRESS": address, "FAILOVERCTL_CA": files.CA, "FAILOVERCTL_CERT": files.Cert, "FAILOVERCTL_KEY": files.Key}}
	if code := c.run("status"); code != exitOK {
		t.Errorf("with certificates by environment: exit %d, %s", code, c.err.String())
	}
	c = &call{}
	if code := c.run(flags(others)...); code != exitError || !strings.Contains(c.err.String(), "certificates of the same authority") {
		t.Errorf("with another authority's: exit %d, %s", code, c.err.String())
	}
	c = &call{}
	if code := c.run("status", "--address", address); code != exitError {
		t.Errorf("without TLS: exit %d, %s", code, c.out.String())
	}
	c = &call{}
	if code := c.run("status", "--address", address, "--ca", files.CA); code != exitUsage || !strings.Contains(c.err.String(), "all three files") {
		t.Errorf("with the authority alone: exit %d, %s", code, c.err.String())
	}
	c = &call{}
	if code := c.run("status", "--address", address, "--ca", files.CA, "--cert", files.Cert, "--key", "/nonexistent"); code != exitError || !strings.Contains(c.err.String(), "/nonexistent") {
		t.Errorf("with a key that is not there: exit %d, %s", code, c.err.String())
	}
}

// Orders go in plain text to this machine alone, unless one insists.
func TestPlainTextToAnotherMachine(t *testing.T) {
	for address, here := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "localhost:1": true,
		"192.0.2.1:1": false, "localhost.example.net:1": false, "[2001:db8::1]:1": false, "0.0.0.0:1": false,
	} {
		c := &call{}
		code := c.run("--timeout", "100ms", "--address", address, "pause")
		if refused := code == exitUsage && strings.Contains(c.err.String(), "--insecure"); refused == here {
			t.Errorf("%s: exit %d, %s", address, code, c.err.String())
		}
	}
	a := &app{environment: environment{getenv: func(string) string { return "" }}, target: "192.0.2.1:1", insecure: true}
	if config, err := a.tlsConfig(); config != nil || err != nil {
		t.Errorf("with --insecure: %v, %v", config, err)
	}
}
