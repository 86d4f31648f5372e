package rpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// certificateRefused is the other side's word, after the handshake, that it does
// not take our certificate: with TLS 1.3 (RFC 8446, 4.4.2.4) a client learns of
// that when it first reads.
type certificateRefused struct{ alert error }

func (e *certificateRefused) Error() string {
	return fmt.Sprintf("it refuses the certificate that it was shown: %v; look at the certificate's dates and authority, and at the clocks of both machines", e.alert)
}

func (e *certificateRefused) Unwrap() error { return e.alert }

// attentiveConn remembers why the other side ended a connection before it said
// anything.
type attentiveConn struct {
	net.Conn
	conn  *conn
	spoke bool // read by gRPC's one reader
}

func (c *attentiveConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	switch {
	case c.spoke:
	case n > 0:
		c.spoke = true
		c.conn.remember(nil)
	case err != nil:
		// crypto/tls has no type for an alert, but this operation for its arrival.
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "remote error" {
			c.conn.remember(&certificateRefused{op.Err})
		}
	}
	return n, err
}

// tellingCreds gives a client whose certificate was refused the time to read
// why. The client has spoken by then, and a connection that is closed with
// unread data is reset, which takes the reason with it (RFC 9293, 3.10.4).
type tellingCreds struct {
	credentials.TransportCredentials
}

// tellLimit bounds in time and bytes what is read of a refused client.
const (
	tellLimit = 250 * time.Millisecond
	tellBytes = 64 << 10
)

func (c *tellingCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	held := &heldConn{Conn: raw, hold: true}
	conn, info, err := c.TransportCredentials.ServerHandshake(held)
	held.hold = false
	if err == nil {
		return conn, info, nil
	}
	if raw.SetReadDeadline(time.Now().Add(tellLimit)) == nil {
		_, _ = io.CopyN(io.Discard, raw, tellBytes) // until the client has read the reason and closes
	}
	_ = raw.Close() // nothing is done with it any more
	return nil, nil, err
}

// heldConn is closed by nobody while it is held: a failed handshake closes it.
type heldConn struct {
	net.Conn
	hold bool // the handshake and what follows run in one goroutine
}

func (c *heldConn) Close() error {
	if c.hold {
		return nil
	}
	return c.Conn.Close()
}

func (c *tellingCreds) Clone() credentials.TransportCredentials {
	return &tellingCreds{c.TransportCredentials.Clone()}
}
