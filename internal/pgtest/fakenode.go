package pgtest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Script is what a FakeNode does with one connection. The connection is closed when it returns.
// An error that only says that the peer went away, or that the test is over, is none; any other
// fails the test.
type Script func(c *FakeConn) error

// Cancel is a CancelRequest that a FakeNode got.
type Cancel struct {
	PID    uint32
	Secret []byte
}

// FakeNode is a server on a loopback port of its own that runs a script per connection. It ends
// with the test, and so do all of its connections.
type FakeNode struct {
	// Cancels gets every CancelRequest; the script of such a connection ends at its first step.
	// It holds 1,000 of them.
	Cancels chan Cancel

	tb       testing.TB
	listener net.Listener
	script   Script
	tls      *tls.Config
	wg       sync.WaitGroup
	mu       struct {
		sync.Mutex
		closed bool
		n      int
		conns  map[*FakeConn]struct{}
	}
}

// NewFakeNode starts a node. A script may run many times at once.
func NewFakeNode(tb testing.TB, script Script) *FakeNode {
	tb.Helper()
	return start(tb, script, nil)
}

// NewFakeTLSNode starts a node that says yes to SSLRequest.
func NewFakeTLSNode(tb testing.TB, cfg *tls.Config, script Script) *FakeNode {
	tb.Helper()
	return start(tb, script, cfg)
}

// start listens and accepts until the test ends.
func start(tb testing.TB, script Script, cfg *tls.Config) *FakeNode {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("start fake node: %v", err)
	}
	n := &FakeNode{Cancels: make(chan Cancel, 1000), tb: tb, listener: l, script: script, tls: cfg}
	n.mu.conns = map[*FakeConn]struct{}{}
	n.wg.Go(n.accept)
	tb.Cleanup(n.Close)
	return n
}

// Addr is host:port.
func (n *FakeNode) Addr() string { return n.listener.Addr().String() }

// Accepted is how many connections were accepted so far.
func (n *FakeNode) Accepted() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.n
}

// Close stops listening, resets all connections and waits until every script has returned.
func (n *FakeNode) Close() {
	n.listener.Close()
	n.mu.Lock()
	n.mu.closed = true
	n.mu.Unlock()
	n.KillConns()
	n.wg.Wait()
}

// KillConns resets all connections, as a node that died and came back would; new ones are
// accepted.
func (n *FakeNode) KillConns() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.mu.conns {
		c.end()
	}
}

// accept runs a script per connection.
func (n *FakeNode) accept() {
	for {
		conn, err := n.listener.Accept()
		if err != nil {
			return
		}
		c := newFakeConn(conn)
		c.tlsConfig, c.cancels = n.tls, n.Cancels
		if !n.add(c) {
			conn.Close()
			return
		}
		n.wg.Go(func() { n.run(c) })
	}
}

// add numbers a connection and remembers it; false when the node is closed.
func (n *FakeNode) add(c *FakeConn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		return false
	}
	n.mu.n++
	c.N = n.mu.n
	n.mu.conns[c] = struct{}{}
	return true
}

// run plays the script and judges its error.
func (n *FakeNode) run(c *FakeConn) {
	err := n.script(c)
	c.conn.Close()
	n.mu.Lock()
	delete(n.mu.conns, c)
	n.mu.Unlock()
	if err != nil && !gone(err) {
		n.tb.Errorf("fake node, connection %d: %v", c.N, err)
	}
}

// errCancel ends the script of a connection that was a CancelRequest.
var errCancel = errors.New("the connection is a CancelRequest")

// gone says whether an error only means that a connection is over.
func gone(err error) bool {
	for _, e := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, io.ErrClosedPipe, errCancel,
		syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ServeConn plays a script on one connection that stands already, for example an end of a Pipe.
// It returns what the script returns, and closes the connection.
func ServeConn(conn net.Conn, script Script) error {
	c := newFakeConn(conn)
	defer conn.Close()
	return script(c)
}

// newFakeConn is a connection to play a script on.
func newFakeConn(conn net.Conn) *FakeConn {
	return &FakeConn{
		N: 1, PID: 4711, Secret: []byte{1, 2, 3, 4}, Status: DefaultStatus(),
		Timeout: DefaultTimeout, conn: conn, socket: conn,
		stop: make(chan struct{}),
	}
}

// DefaultStatus is the settings that PostgreSQL 15 reports at login.
func DefaultStatus() [][2]string {
	return [][2]string{
		{"application_name", ""},
		{"client_encoding", "UTF8"},
		{"DateStyle", "ISO, MDY"},
		{"default_transaction_read_only", "off"},
		{"in_hot_standby", "off"},
		{"integer_datetimes", "on"},
		{"IntervalStyle", "postgres"},
		{"is_superuser", "off"},
		{"server_encoding", "UTF8"},
		{"server_version", "15.0 (fake)"},
		{"session_authorization", "postgres"},
		{"standard_conforming_strings", "on"},
		{"TimeZone", "Etc/UTC"},
	}
}

// FakeConn is the server's end of one connection, played by a Script.
type FakeConn struct {
	N int // the node's connections are numbered from 1
	// What Ready and the methods LoginX tell the client; a script may change them before.
	PID    uint32
	Secret []byte
	Status [][2]string
	// What the StartupMessage said: its parameters in order, and its version.
	Params  [][2]string
	Version uint32
	Timeout time.Duration // of every read and write

	conn      net.Conn // the socket, or TLS over it
	socket    net.Conn
	tlsConfig *tls.Config
	cancels   chan Cancel
	stop      chan struct{}
	once      sync.Once
}

// end resets the connection from outside of the script.
func (c *FakeConn) end() {
	c.once.Do(func() { close(c.stop) })
	closeHard(c.socket)
}
