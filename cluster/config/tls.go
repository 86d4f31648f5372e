package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// TLS names the files that make a node known to the others. One block serves
// Raft, gRPC between nodes and gRPC for operators.
//
// A peer is let in because its certificate comes from the cluster's own CA and
// is meant for both ends of a connection, not because of a name: every holder
// of such a certificate may act as a node, so the CA must sign nothing else.
// A name would add nothing, since all nodes are trusted alike, and would make
// a change of address an outage. Use a CA made for this cluster, never a
// public one or the company's.
type TLS struct {
	CA   string
	Cert string
	Key  string
}

func (n *Node) readTLS(s *section) {
	b := s.one("tls")
	if b == nil {
		return
	}
	t := open(s.r, "tls.", b.Body, tlsKeys)
	var files TLS
	complete, before := true, len(s.r.problems)
	for _, f := range []struct {
		key, meaning, example string
		into                  *string
	}{
		{"ca", "the certificate of the cluster's own CA", `"/etc/failoverd/ca.pem"`, &files.CA},
		{"cert", "this node's certificate", `"/etc/failoverd/node.pem"`, &files.Cert},
		{"key", "the private key of this node's certificate", `"/etc/failoverd/node.key"`, &files.Key},
	} {
		if !t.has(f.key) {
			t.missing(f.key, f.meaning, f.example)
			complete = false
			continue
		}
		if !t.text(f.key, f.into) {
			complete = false
			continue
		}
		*f.into = n.absolute(t, f.key, *f.into)
	}
	if !complete || len(s.r.problems) > before {
		return
	}
	n.TLS = &files
	if _, _, err := files.load(); err != nil {
		var bad *tlsFileError
		where := b.TypeRange
		if errors.As(err, &bad) {
			where = t.where(bad.key)
		}
		s.r.at(where, "tls", "%s", err)
	}
}

// tlsFileError says which of the three files is at fault.
type tlsFileError struct {
	key, path string
	err       error
}

func (e *tlsFileError) Error() string { return fmt.Sprintf("tls.%s = %q: %s", e.key, e.path, e.err) }
func (e *tlsFileError) Unwrap() error { return e.err }

// Expiry is when the node's certificate ends. It reads the file anew.
func (t *TLS) Expiry() (time.Time, error) {
	cert, _, err := t.load()
	if err != nil {
		return time.Time{}, err
	}
	return cert.Leaf.NotAfter, nil
}

// Server gives the settings of a listener: TLS 1.3, and nobody without a
// certificate of the CA. Errors name the file.
func (t *TLS) Server() (*tls.Config, error) {
	cert, pool, err := t.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		// A resumed session would outlive a change of the CA.
		SessionTicketsDisabled: true,
	}, nil
}

// Client gives the settings for a call to another node: TLS 1.3, own
// certificate shown, the other's checked against the CA but for its name.
func (t *TLS) Client() (*tls.Config, error) {
	cert, pool, err := t.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		// The library's own check insists on a name. It is replaced, not
		// left out: VerifyConnection runs on every handshake, resumed ones too.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyPeer(state.PeerCertificates, pool)
		},
	}, nil
}

func verifyPeer(chain []*x509.Certificate, pool *x509.CertPool) error {
	if len(chain) == 0 {
		return errors.New("the other side showed no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("the other side's certificate (%s) is not accepted: %w", chain[0].Subject, err)
	}
	return nil
}

// load reads the three files and checks them as far as one node can: they
// belong together, the CA signed the certificate for both ends, and it is valid now.
func (t *TLS) load() (tls.Certificate, *x509.CertPool, error) {
	none := tls.Certificate{}
	caPEM, err := readRegular(t.CA)
	if err != nil {
		return none, nil, &tlsFileError{"ca", t.CA, errors.New(reason(err))}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return none, nil, &tlsFileError{"ca", t.CA, errors.New("there is no PEM certificate in it")}
	}
	certPEM, err := readRegular(t.Cert)
	if err != nil {
		return none, nil, &tlsFileError{"cert", t.Cert, errors.New(reason(err))}
	}
	if block, _ := pem.Decode(certPEM); block == nil {
		return none, nil, &tlsFileError{"cert", t.Cert, errors.New("there is no PEM certificate in it")}
	}
	keyPEM, err := readRegular(t.Key)
	if err != nil {
		return none, nil, &tlsFileError{"key", t.Key, errors.New(reason(err))}
	}
	if err := private(t.Key); err != nil {
		return none, nil, &tlsFileError{"key", t.Key, err}
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return none, nil, &tlsFileError{"key", t.Key, fmt.Errorf("it does not go with %s: %w", t.Cert, err)}
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return none, nil, &tlsFileError{"cert", t.Cert, err}
		}
	}
	if err := checkOwn(cert, pool); err != nil {
		return none, nil, &tlsFileError{"cert", t.Cert, err}
	}
	return cert, pool, nil
}

func checkOwn(cert tls.Certificate, pool *x509.CertPool) error {
	now := time.Now()
	const day = "2006-01-02 15:04 MST"
	switch leaf := cert.Leaf; {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate expired on %s; renew it", leaf.NotAfter.UTC().Format(day))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is valid only from %s on; check this host's clock", leaf.NotBefore.UTC().Format(day))
	}
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	for _, end := range []struct {
		usage x509.ExtKeyUsage
		name  string
	}{{x509.ExtKeyUsageServerAuth, "serverAuth"}, {x509.ExtKeyUsageClientAuth, "clientAuth"}} {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{end.usage}})
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage {
			return fmt.Errorf("the certificate must be for both ends of a connection and lacks %s in its extended key usage", end.name)
		}
		if err != nil {
			return fmt.Errorf("the CA does not vouch for it: %w", err)
		}
	}
	return nil
}
