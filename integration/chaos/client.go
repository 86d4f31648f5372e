package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failoverd/failoverd/integration/lab"
)

// crowd are the clients of the register and the set. All work on one key at a
// time; the next window gets the next key, so that each can be checked by itself.
type crowd struct {
	lab      *lab.Lab
	history  *history
	patience time.Duration // with a request, before its outcome counts as unknown
	think    time.Duration // between two requests, on the average
	key      atomic.Uint32
	numbers  atomic.Uint64 // no value is written or added twice

	cancel context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex
	active map[uint32]int // requests under way, by key
	failed error
}

// client asks one after the other.
type client struct {
	crowd  *crowd
	number int
	keep   bool // goes on with its connection as long as that lives
	random *rand.Rand
	conn   net.Conn
	reader *bufio.Reader
}

// newCrowd starts so many clients on each of the hosts.
func newCrowd(l *lab.Lab, h *history, patience time.Duration, each int, hosts ...*lab.Host) *crowd {
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{lab: l, history: h, patience: patience, think: 25 * time.Millisecond, cancel: cancel, active: map[uint32]int{}}
	c.key.Store(1)
	for _, host := range hosts {
		for i := range each {
			number := 1 + i
			if host == hosts[0] {
				number += each * (len(hosts) - 1)
			}
			one := &client{crowd: c, number: number, keep: i%2 == 1, random: rand.New(rand.NewPCG(uint64(number), 0))}
			c.group.Go(func() {
				if err := host.In(func() error { one.run(ctx); return nil }); err != nil {
					c.mu.Lock()
					c.failed = errors.Join(c.failed, err)
					c.mu.Unlock()
				}
			})
		}
	}
	return c
}

// stop ends the clients. It can be called twice.
func (c *crowd) stop() error {
	c.cancel()
	c.group.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// nextWindow lets the clients begin with the next key, waits until nothing is
// under way on the one before, and gives that.
func (c *crowd) nextWindow(ctx context.Context) (uint32, error) {
	key := c.key.Add(1) - 1
	for {
		c.mu.Lock()
		n := c.active[key]
		c.mu.Unlock()
		if n == 0 {
			return key, nil
		}
		if err := lab.Wait(ctx, 5*time.Millisecond); err != nil {
			return key, fmt.Errorf("wait for requests under way: %w", err)
		}
	}
}

// begin takes the key for a request; end gives it back.
func (c *crowd) begin() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := c.key.Load()
	c.active[key]++
	return key
}

func (c *crowd) end(key uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active[key]--
}

func (c *client) run(ctx context.Context) {
	defer c.hangUp()
	for ctx.Err() == nil {
		key := c.crowd.begin()
		if o, err := c.ask(ctx, c.choose(), key); err == nil || o.Action.changes() {
			c.crowd.note(o, err)
		} else {
			c.crowd.history.count(func(n *counts) { n.NoAnswer++ })
		}
		c.crowd.end(key)
		pause := time.Duration(c.random.Int64N(int64(2 * c.crowd.think)))
		_ = lab.Wait(ctx, pause) // the loop looks at the context
	}
}

// choose takes an action: as many reads as changes.
func (c *client) choose() action {
	switch n := c.random.IntN(100); {
	case n < 30:
		return readRegister
	case n < 55:
		return writeRegister
	case n < 72:
		return readSet
	}
	return addToSet
}

// errUnsent says that a request never reached a service.
var errUnsent = errors.New("not sent")

// note keeps a change, or counts why there is nothing to keep.
func (c *crowd) note(o op, err error) {
	if errors.Is(err, errUnsent) {
		c.history.count(func(n *counts) { n.Failed++ })
		return
	}
	if errors.Is(err, errRejected) {
		c.history.count(func(n *counts) { n.Rejected++ })
	}
	c.history.add(o)
}

// errRejected says that the service answered with an error: what became of a
// change is as unknown as without an answer.
var errRejected = errors.New("rejected")

// ask makes one request. Whatever error it gives, an op with Return never may
// have been done.
func (c *client) ask(ctx context.Context, a action, key uint32) (op, error) {
	o := op{Client: c.number, Action: a, Key: key, Return: never}
	if a.changes() {
		o.N = c.crowd.numbers.Add(1)
	}
	deadline := time.Now().Add(c.crowd.patience)
	o.Call = c.crowd.lab.Now()
	if err := c.connect(ctx, deadline); err != nil {
		c.hangUp()
		return o, fmt.Errorf("%w: %w", errUnsent, err)
	}
	reply, err := c.exchange(o)
	if err != nil || !c.keep {
		c.hangUp()
	}
	if err != nil {
		return o, err
	}
	o.Return = c.crowd.lab.Now()
	o.Node, o.Epoch, o.Sequence, o.Members = reply.Node, reply.Epoch, reply.Sequence, reply.Members
	if !a.changes() {
		o.Value = reply.Value
	}
	return o, nil
}

// connect dials unless there is a connection. It is called on a thread inside
// the client's host.
func (c *client) connect(ctx context.Context, deadline time.Time) error {
	if c.conn != nil {
		return c.conn.SetDeadline(deadline)
	}
	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(lab.VIP, lab.Port).String())
	if err != nil {
		return err
	}
	// Closing resets: no port waits a minute for its next use.
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	return conn.SetDeadline(deadline)
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close() // what was to be known of it is known
		c.conn = nil
	}
}

// answer is what the service replies.
type answer struct {
	Node     string   `json:"node"`
	Epoch    uint64   `json:"epoch"`
	Sequence uint64   `json:"sequence"`
	Value    uint64   `json:"value"`
	Members  []uint64 `json:"members"`
}

func (c *client) exchange(o op) (answer, error) {
	var a answer
	method, path := "GET", "register"
	if o.Action.changes() {
		method = "POST"
	}
	if o.Action == readSet || o.Action == addToSet {
		path = "set"
	}
	request := fmt.Sprintf("%s /%s?key=%d&n=%d HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", method, path, o.Key, o.N, lab.VIP)
	if _, err := io.WriteString(c.conn, request); err != nil {
		return a, fmt.Errorf("send: %w", err)
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return a, fmt.Errorf("read answer: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%w: %s", errRejected, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return a, fmt.Errorf("read answer: %w", err)
	}
	if a.Node == "" {
		return a, errors.New("read answer: it names no node")
	}
	_, err = io.Copy(io.Discard, response.Body)
	return a, err
}

// closing reads register and set of a key until both are answered, and notes
// the answers as every other's.
func (c *crowd) closing(ctx context.Context, host *lab.Host, key uint32) error {
	one := &client{crowd: c}
	return host.In(func() error {
		defer one.hangUp()
		for _, a := range []action{readRegister, readSet} {
			for {
				o, err := one.ask(ctx, a, key)
				if err == nil {
					c.history.add(o)
					break
				}
				if lab.Wait(ctx, 20*time.Millisecond) != nil {
					return fmt.Errorf("the service does not answer: %w", err)
				}
			}
		}
		return nil
	})
}
