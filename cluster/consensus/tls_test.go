package consensus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// authority is a certificate authority for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key = a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) config() *tls.Config {
	cert, key := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		RootCAs:      a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
}

func TestClusterOverTLS(t *testing.T) {
	ca := newAuthority(t)
	c := newCluster(t, 3)
	for _, m := range c.members {
		m.options.TLS = ca.config()
	}
	c.start()
	c.propose("one")
	c.level([]string{"one"})
	leader, lead := c.leads()

	foreign := newAuthority(t).config()
	foreign.RootCAs = ca.pool // it trusts us, we do not trust it
	for name, config := range map[string]*tls.Config{"plain": nil, "another authority": foreign, "no certificate": {RootCAs: ca.pool}} {
		i := impersonate(t, leader, "z", ClusterID(c.founders), "127.0.0.1:1")
		i.stream.tls = config
		var resp raft.RequestVoteResponse
		req := &raft.RequestVoteRequest{RPCHeader: i.header(), Term: lead.Term + 1000}
		if err := i.RequestVote("", i.target(), req, &resp); err == nil {
			t.Errorf("%s: was let in", name)
		}
	}
	if leader.node.Term() >= lead.Term+1000 {
		t.Error("somebody without a certificate raised the term")
	}
}

func TestTLSThatLetsAnybodyInIsRefused(t *testing.T) {
	ca := newAuthority(t)
	for name, change := range map[string]func(*tls.Config){
		"certificates not required": func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert },
		"no authority for callers":  func(c *tls.Config) { c.ClientCAs = nil },
		"no authority for the dialled": func(c *tls.Config) {
			c.RootCAs = nil
		},
		"verification skipped": func(c *tls.Config) { c.InsecureSkipVerify = true },
	} {
		config := ca.config()
		change(config)
		if err := mutual(config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := mutual(ca.config()); err != nil {
		t.Error(err)
	}
}
