package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority is a CA of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, dir: t.TempDir()}
	a.save(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) save(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue makes the three files of a node; change may spoil the certificate.
func (a *authority) issue(t *testing.T, name string, change func(*x509.Certificate)) *TLS {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &TLS{
		CA:   filepath.Join(a.dir, "ca.pem"),
		Cert: a.save(t, name+".pem", "CERTIFICATE", der),
		Key:  a.save(t, name+".key", "PRIVATE KEY", keyDER),
	}
}

// talk lets a client say a word to a server and returns both ends' errors.
func talk(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		c := tls.Server(conn, server)
		if err := c.Handshake(); err != nil {
			done <- err
			return
		}
		_, err = c.Write([]byte("word"))
		done <- errors.Join(err, c.CloseWrite())
	}()
	clientErr = func() error {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		got, err := io.ReadAll(tls.Client(conn, client))
		if err == nil && string(got) != "word" {
			err = fmt.Errorf("got %q", got)
		}
		return err
	}()
	return <-done, clientErr
}

func serverOf(t *testing.T, files *TLS) *tls.Config {
	t.Helper()
	c, err := files.Server()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func clientOf(t *testing.T, files *TLS) *tls.Config {
	t.Helper()
	c, err := files.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNodesOfOneCATalk(t *testing.T) {
	ca := newAuthority(t)
	a, b := ca.issue(t, "a", nil), ca.issue(t, "b", nil)
	if s, c := talk(t, serverOf(t, a), clientOf(t, b)); s != nil || c != nil {
		t.Errorf("server: %v, client: %v", s, c)
	}
	until, err := a.Expiry()
	if err != nil || time.Until(until) > time.Hour || time.Until(until) < 50*time.Minute {
		t.Errorf("expiry %v, %v", until, err)
	}
}

func TestStrangersAreKeptOut(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	a, x := ours.issue(t, "a", nil), theirs.issue(t, "x", nil)

	if s, _ := talk(t, serverOf(t, a), clientOf(t, &TLS{CA: a.CA, Cert: a.Cert, Key: a.Key})); s != nil {
		t.Fatalf("the counter-check fails: %v", s)
	}
	stranger := clientOf(t, x)
	stranger.VerifyConnection = nil // it would accept anybody
	if s, c := talk(t, serverOf(t, a), stranger); s == nil || c == nil {
		t.Errorf("a client of another CA was served: %v, %v", s, c)
	}
	if _, c := talk(t, serverOf(t, x), clientOf(t, a)); c == nil || !strings.Contains(c.Error(), "not accepted") {
		t.Errorf("a server of another CA was believed: %v", c)
	}
	nobody := clientOf(t, a)
	nobody.Certificates = nil
	if s, c := talk(t, serverOf(t, a), nobody); s == nil || c == nil {
		t.Errorf("a client without a certificate was served: %v, %v", s, c)
	}
	old := clientOf(t, a)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if s, c := talk(t, serverOf(t, a), old); s == nil || c == nil {
		t.Errorf("TLS 1.2 was spoken: %v, %v", s, c)
	}
}

func TestTLSErrorsNameTheFile(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.issue(t, "good", nil)
	expiry := time.Date(2021, 3, 4, 5, 6, 0, 0, time.UTC)
	expired := ca.issue(t, "expired", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = expiry.Add(-time.Hour), expiry })
	future := ca.issue(t, "future", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = expiry.AddDate(100, 0, 0), expiry.AddDate(101, 0, 0)
	})
	oneWay := ca.issue(t, "oneway", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	foreign := other.issue(t, "foreign", nil)
	open := ca.issue(t, "open", nil)
	if err := os.Chmod(open.Key, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		files TLS
		want  []string
	}{
		{"no CA", TLS{"/nonexistent/ca.pem", good.Cert, good.Key}, []string{`tls.ca = "/nonexistent/ca.pem"`, "no such file"}},
		{"no certificate", TLS{good.CA, "/nonexistent/c.pem", good.Key}, []string{`tls.cert = "/nonexistent/c.pem"`, "no such file"}},
		{"no key", TLS{good.CA, good.Cert, "/nonexistent/k.pem"}, []string{`tls.key = "/nonexistent/k.pem"`, "no such file"}},
		{"CA is a key", TLS{good.Key, good.Cert, good.Key}, []string{"tls.ca", "no PEM certificate"}},
		{"another's key", TLS{good.CA, good.Cert, expired.Key}, []string{"tls.key", "does not go with " + good.Cert}},
		{"readable key", *open, []string{"tls.key", "chmod 0600 " + open.Key}},
		{"expired", *expired, []string{"tls.cert", "expired on 2021-03-04 05:06 UTC"}},
		{"not yet", *future, []string{"tls.cert", "valid only from 2121-03-04", "clock"}},
		{"one end only", *oneWay, []string{"tls.cert", "lacks clientAuth"}},
		{"of another CA", TLS{good.CA, foreign.Cert, foreign.Key}, []string{"tls.cert", "the CA does not vouch for it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, serverErr := c.files.Server()
			_, clientErr := c.files.Client()
			_, expiryErr := c.files.Expiry()
			for _, err := range []error{serverErr, clientErr, expiryErr} {
				if err == nil {
					t.Fatal("was accepted")
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("no %q in: %v", want, err)
					}
				}
			}
			// The same, at the place in the file.
			text := strings.Replace(minimal, "insecure = true", fmt.Sprintf("tls {\n ca = %q\n cert = %q\n key = %q\n}", c.files.CA, c.files.Cert, c.files.Key), 1)
			_, err := LoadNode(write(t, "node.hcl", text))
			var problems *Error
			if !errors.As(err, &problems) || len(problems.Problems) != 1 || problems.Problems[0].Line < 6 || problems.Problems[0].Line > 8 {
				t.Errorf("load: %v", err)
			}
		})
	}
}

func TestTLSLetsANodeBeReached(t *testing.T) {
	files := newAuthority(t).issue(t, "a", nil)
	n := load(t, strings.Replace(minimal, "insecure = true", fmt.Sprintf("tls {\n ca = %q\n cert = %q\n key = %q\n}", files.CA, files.Cert, files.Key), 1))
	if n.TLS == nil || *n.TLS != *files {
		t.Errorf("got %+v", n.TLS)
	}
	if w := strings.Join(n.Warnings(), "\n"); !strings.Contains(w, "does not cover gossip") {
		t.Errorf("no warning of gossip in the clear: %q", w)
	}
}
