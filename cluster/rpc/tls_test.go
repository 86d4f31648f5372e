package rpc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
)

// authority signs certificates for the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
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
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

// config is one that serves and asks with a certificate of the authority.
func (a *authority) config(t *testing.T) *tls.Config {
	t.Helper()
	return a.configUntil(t, time.Now().Add(time.Hour))
}

func (a *authority) configUntil(t *testing.T, end time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: end.Add(-2 * time.Hour), NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	l := listen(t)
	s := NewServer(ServerOptions{Operator: &fakeOperator{version: cluster.Version{Node: "a"}}, TLS: ours.config(t), Log: quiet()})
	if err := s.ServeTCP(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	ask := func(config *tls.Config) error {
		c, err := Dial(l.Addr().String(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		v, err := c.Version(testContext(t))
		if err == nil && v.Node != "a" {
			t.Errorf("got %+v", v)
		}
		return err
	}
	if err := ask(ours.config(t)); err != nil {
		t.Errorf("with a certificate of the authority: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if err := ask(theirs.config(t)); !errors.Is(err, ErrUnreachable) || !errors.As(err, &unknown) {
		t.Errorf("a server of an unknown authority: %v", err)
	}
	if err := ask(&tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS13}); err == nil {
		t.Error("a client without a certificate was served")
	}
	stranger := theirs.config(t)
	stranger.RootCAs = ours.pool
	if err := ask(stranger); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "refuses the certificate") {
		t.Errorf("a client of an unknown authority: %v", err)
	}
	if err := ask(ours.configUntil(t, time.Now().Add(-time.Minute))); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "expired certificate") {
		t.Errorf("a client whose certificate has expired: %v", err)
	}
	if err := ask(nil); err == nil {
		t.Error("a client without TLS was served")
	}
}
