package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// debian gives the path of a program of a Debian package, or skips the test.
func debian(t *testing.T, program, pkg string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return filepath.Join(dir, program)
		}
	}
	t.Skipf("%s is not installed: apt-get install %s (make deps does it, as root)", program, pkg)
	return ""
}

const haproxyConfig = `
defaults
  mode http
  timeout connect 500ms
  timeout client 5s
  timeout server 5s
  retries 2
  option redispatch
frontend front
  bind 0.0.0.0:80
  default_backend web
backend web
  balance roundrobin
  option httpchk GET /
  server %s %s:8080 check inter 200ms
  server %s %s:8080 check inter 200ms
`

const nginxConfig = `
daemon off;
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
    listen 0.0.0.0:8080;
    location / { return 200 "backend %[2]s\n"; }
  }
}
`

// startBackend starts nginx on a host, which tells its name to whoever asks.
func startBackend(t *testing.T, h *lab.Host, nginx string) {
	t.Helper()
	config := filepath.Join(h.Dir(), "nginx.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, nginxConfig, h.Dir(), h.Name()), 0o644))
	out, err := os.Create(filepath.Join(h.Dir(), "nginx.log"))
	must(t, err)
	defer out.Close()
	cmd := exec.Command(nginx, "-c", config, "-e", filepath.Join(h.Dir(), "error.log"))
	cmd.Stdout, cmd.Stderr = out, out
	_, err = h.Start(cmd)
	must(t, err)
}

// browser is an ordinary HTTP client on a host, with a connection per request.
func browser(h *lab.Host) *http.Client {
	return &http.Client{Timeout: 700 * time.Millisecond, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			inErr := h.In(func() error { // the socket is made on a thread in the host's network
				conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return conn, inErr
		},
	}}
}

// get asks for a page and gives what a backend said, or why there was nothing.
func get(client *http.Client, url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), "backend ") {
		return "", fmt.Errorf("%s: %q", r.Status, body)
	}
	return strings.TrimSpace(string(body)), nil
}

// HAProxy under the virtual address before two web servers, all as Debian ships
// them: its host loses power, and a browser sees pages again.
func TestHAProxy(t *testing.T) {
	ctx := limited(t, 40*time.Second)
	haproxy, nginx := debian(t, "haproxy", "haproxy"), debian(t, "nginx", "nginx-light")
	l := newLab(t, "a", "b", "c", "web1", "web2", "desk")
	must(t, l.Watch(lab.VIP))
	nodes, web := l.Hosts()[:3], l.Hosts()[3:5]
	for _, h := range web {
		startBackend(t, h, nginx)
	}
	f, err := l.Failoverd(lab.FailoverdOptions{Hosts: nodes, Profile: "fast"})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			tell(t, f)
		}
	})
	program, err := l.InstallProgram(haproxy)
	must(t, err)
	config := filepath.Join(l.Programs(), "haproxy.cfg")
	must(t, os.WriteFile(config, fmt.Appendf(nil, haproxyConfig, web[0], web[0].Address(), web[1], web[1].Address()), 0o644))
	must(t, f.Start(nodes...))
	if _, _, err := f.Settled(ctx, ""); err != nil {
		t.Fatal(err)
	}
	must(t, f.Apply(ctx, fmt.Sprintf(`
service "proxy" {
  process "haproxy" {
    command = [%q, "-db", "-f", %q]
    ready   = "127.0.0.1:80"
  }
  vip "%s/24" { interface = %q }
}
`, program, config, lab.VIP, lab.Interface)))
	before, _, err := f.Settled(ctx, "proxy")
	must(t, err)

	client, url := browser(l.Host("desk")), fmt.Sprintf("http://%s/", lab.VIP)
	bothAnswer := func() {
		t.Helper()
		seen := map[string]bool{}
		eventually(ctx, t, "pages of both backends", func() error {
			body, err := get(client, url)
			if err != nil {
				return err
			}
			if seen[body] = true; len(seen) < len(web) {
				return fmt.Errorf("only %v", seen)
			}
			return nil
		})
		if !seen["backend web1"] || !seen["backend web2"] {
			t.Errorf("the pages came from %v", seen)
		}
	}
	bothAnswer()

	cut := l.Now()
	must(t, before.PowerOff())
	eventually(ctx, t, "a page after the power cut", func() error {
		_, err := get(client, url)
		return err
	})
	silence := l.Now() - cut
	bothAnswer()
	s, err := f.Status(ctx)
	must(t, err)
	after, epoch, _ := serviceOf(s, "proxy")
	t.Logf("HAProxy from %s to %s, epoch %d: a page again %.0f ms after the power cut", before, after, epoch, silence.Seconds()*1000)
	if after == before.Name() || after == "" {
		t.Errorf("%q holds it, and %s is off", after, before)
	}
	if limit := 5 * (f.Lease() + time.Second); silence > limit {
		t.Errorf("no page for %v, want less than %v", silence, limit)
	}

	// It comes back, and takes nothing with it.
	must(t, before.PowerOn())
	must(t, f.Start(before))
	if now, _, err := f.Settled(ctx, "proxy"); err != nil || now.Name() != after {
		t.Errorf("%v holds (%v), want %s as before", now, err, after)
	}
	bothAnswer()
	if figures, err := l.Judge(0, l.Now()); err != nil || !figures.None() {
		t.Errorf("%s (%v)", figures, err)
	}
}
