package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// authority signs certificates for nodes and operators.
type authority struct {
	path string // of its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	a := authority{path: filepath.Join(t.TempDir(), "ca.pem"), cert: cert, key: key}
	writePEM(t, a.path, "CERTIFICATE", der)
	return a
}

// issue makes a certificate for both ends of a connection and gives the paths
// of it and of its key.
func (a authority) issue(t *testing.T, name string, address net.IP) (cert, key string) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if address != nil {
		template.IPAddresses = []net.IP{address}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, own.Public(), a.key)
	must(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(own)
	must(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "node.pem"), filepath.Join(dir, "node.key")
	writePEM(t, cert, "CERTIFICATE", der)
	writePEM(t, key, "PRIVATE KEY", raw)
	return cert, key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// secure replaces insecure = true in a node's file by a certificate of the
// authority, a key for gossip and a port for operators.
func secure(t *testing.T, f *lab.Failoverd, h *lab.Host, a authority, gossip string) {
	t.Helper()
	cert, key := a.issue(t, h.Name(), h.Address().AsSlice())
	edit(t, f.ConfigFile(h), "insecure  = true", fmt.Sprintf("gossip_key = %q\napi = %q\ntls {\n  ca   = %q\n  cert = %q\n  key  = %q\n}",
		gossip, api(h), a.path, cert, key))
}

// api is where a host's daemon listens for operators on other hosts.
func api(h *lab.Host) string { return h.Address().String() + ":7409" }

// With certificates the cluster forms, serves and takes orders over TCP; who has
// none of this authority is neither node nor operator.
func TestTLS(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	l := newLab(t, "a", "b", "c", "desk")
	must(t, l.Watch(lab.VIP))
	nodes, desk := l.Hosts()[:3], l.Host("desk")
	f, err := l.Failoverd(lab.FailoverdOptions{Hosts: nodes, Profile: "fast"})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			tell(t, f)
		}
	})
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	secret := make([]byte, 32)
	_, err = rand.Read(secret)
	must(t, err)
	gossip := base64.StdEncoding.EncodeToString(secret)
	for _, h := range nodes {
		secure(t, f, h, ours, gossip)
	}
	must(t, f.Start(nodes...))
	if _, _, err := f.Settled(ctx, ""); err != nil {
		t.Fatal(err)
	}

	cert, key := ours.issue(t, "operator", nil)
	operator := func(to *lab.Host, args ...string) outcome {
		t.Helper()
		return on(ctx, t, desk, lab.Control, append([]string{"--address", api(to), "--ca", ours.path, "--cert", cert, "--key", key}, args...)...)
	}
	services := write(t, "services.hcl", fmt.Sprintf("service \"web\" {\n  vip \"%s/24\" { interface = %q }\n}\n", lab.VIP, lab.Interface))
	operator(nodes[0], "apply", services).mustSay(t, 0, "web")
	holder, s, err := f.Settled(ctx, "web")
	must(t, err)
	var to *lab.Host
	for _, h := range nodes {
		if h != holder && h.Name() != s.Leader {
			to = h
		}
		operator(h, "status").mustSay(t, 0, "web", holder.Name())
	}
	if to == nil {
		to = l.Host(s.Leader)
	}
	operator(holder, "switchover", "web", "--to", to.Name(), "--reason", "from the desk").mustSay(t, 0, to.Name())
	if now, _, err := f.Settled(ctx, "web"); err != nil || now != to {
		t.Fatalf("%v holds (%v), want %s", now, err, to)
	}
	if now := l.Holders(); len(now) != 1 || now[0] != to.Name() {
		t.Errorf("%v has the address, want %s", now, to)
	}

	t.Run("plain operator", func(t *testing.T) {
		o := on(ctx, t, desk, lab.Control, "--timeout", "3s", "--address", api(to), "--insecure", "status")
		if o.code == 0 || strings.Contains(o.out, "web") {
			t.Errorf("was answered: %s", o)
		}
	})
	t.Run("operator of another authority", func(t *testing.T) {
		cert, key := theirs.issue(t, "operator", nil)
		o := on(ctx, t, desk, lab.Control, "--timeout", "3s", "--address", api(to), "--ca", ours.path, "--cert", cert, "--key", key, "status")
		if o.code == 0 || strings.Contains(o.out, "web") {
			t.Errorf("was answered: %s", o)
		}
		o.mustSay(t, o.code, "--ca", "--cert")
	})
	t.Run("node of another authority", func(t *testing.T) {
		for _, as := range []struct {
			by   authority
			name string
		}{{theirs, "d"}, {authority{}, "e"}} {
			h, err := l.AddHost(as.name)
			must(t, err)
			one, err := l.Failoverd(lab.FailoverdOptions{Hosts: []*lab.Host{h}, Profile: "fast"})
			must(t, err)
			edit(t, one.ConfigFile(h), fmt.Sprintf("peers     = [%q]", h.Address()), fmt.Sprintf("peers = [%q, %q, %q, %q]",
				h.Address(), nodes[0].Address(), nodes[1].Address(), nodes[2].Address()))
			if as.by.cert != nil {
				secure(t, one, h, as.by, gossip)
			}
			must(t, one.Start(h))
			waits(ctx, t, one, h, nodes[0].Address().String(), "does not answer")
			operator(nodes[0], "members", "add", h.Name(), h.Address().String()).mustSay(t, codeRefused, "does not answer")
			if m, there := members(ctx, t, f)[h.Name()]; there {
				t.Errorf("it is a member: %+v", m)
			}
			if s, err := status(ctx, one, h); err != nil || s.Waiting == "" {
				t.Errorf("it does not wait any more: %+v (%v)", s, err)
			}
		}
	})
	if figures, err := l.Judge(0, l.Now()); err != nil || !figures.None() {
		t.Errorf("%s (%v)", figures, err)
	}
}
