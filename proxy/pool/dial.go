package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"pgweir/internal/auth"
	"pgweir/internal/pgwire"
)

// Target is where a node listens and how a connection to it is protected.
type Target struct {
	// Addr is host:port, or the path of a Unix socket: "/dir/.s.PGSQL.5432" or "/dir:5432".
	Addr string
	// Host is the name that the certificate must be for; empty: the host of Addr.
	Host string
	TLS  TLS
}

// network is the arguments of a dial.
func (t Target) network() (network, addr string) {
	if !strings.HasPrefix(t.Addr, "/") && !strings.HasPrefix(t.Addr, "@") {
		return "tcp", t.Addr
	}
	if strings.HasPrefix(filepath.Base(t.Addr), ".s.PGSQL.") {
		return "unix", t.Addr
	}
	if i := strings.LastIndexByte(t.Addr, ':'); i > 0 {
		return "unix", t.Addr[:i] + "/.s.PGSQL." + t.Addr[i+1:]
	}
	return "unix", t.Addr
}

// host is the name to verify and to show in the handshake.
func (t Target) host() string {
	if t.Host != "" {
		return t.Host
	}
	host, _, err := net.SplitHostPort(t.Addr)
	if err != nil {
		return ""
	}
	return host
}

// socket is a connection on which TLS is settled.
type socket struct {
	net.Conn
	tls      bool
	endPoint []byte // auth.TLSServerEndPoint of the node's certificate
	local    bool   // loopback or Unix socket: nobody can listen
}

// watch makes a socket obey ctx until release is called, which says whether ctx left it alone. The
// context's deadline is left to the context, so that it has always ended before the socket fails.
func watch(ctx context.Context, c net.Conn) (release func() bool) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return func() bool {
		if !stop() {
			return false
		}
		_ = c.SetDeadline(time.Time{})
		return true
	}
}

// dial opens a socket within ctx. Nothing has been sent on it.
func (c Config) dial(ctx context.Context, t Target) (net.Conn, error) {
	network, addr := t.network()
	if c.Dial != nil {
		return c.Dial(ctx, network, addr)
	}
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: c.KeepAliveIdle, Interval: c.KeepAliveInterval, Count: c.KeepAliveCount,
		},
	}
	if network == "tcp" {
		d.Control = userTimeout(c.UserTimeout)
	}
	return d.DialContext(ctx, network, addr)
}

// encryption is what an attempt to connect does about TLS.
type encryption uint8

// What it may do.
const (
	inClear encryption = iota
	ifOffered
	insisted
)

// encrypted is whether an attempt insists on TLS or does without.
func encrypted(secure bool) encryption {
	if secure {
		return insisted
	}
	return inClear
}

// open dials, and encrypts as e says. The caller has made the context's deadline reach the
// socket (watch) through the hook. Errors are *ConnectError, and the socket is closed then.
func (c Config) open(ctx context.Context, t Target, e encryption, hook func(net.Conn)) (socket, *ConnectError) {
	conn, err := c.dial(ctx, t)
	if err != nil {
		return socket{}, &ConnectError{Addr: t.Addr, Stage: StageDial, Err: because(ctx, err)}
	}
	hook(conn)
	network, _ := t.network()
	s := socket{Conn: conn, local: network == "unix" || loopback(conn.RemoteAddr())}
	if e == inClear || network == "unix" {
		return s, nil
	}
	err = s.encrypt(ctx, t)
	if e == ifOffered && errors.Is(err, errNoTLS) {
		return s, nil // and nothing else was said on it
	}
	if err != nil {
		_ = conn.Close()
		return socket{}, &ConnectError{Addr: t.Addr, Stage: StageTLS, Err: because(ctx, err)}
	}
	return s, nil
}

// encrypt asks for TLS and shakes hands. The node's answer is one byte and nothing behind it:
// what came in the clear must never be taken for what came through the tunnel.
func (s *socket) encrypt(ctx context.Context, t Target) error {
	if _, err := s.Write(pgwire.AppendSSLRequest(nil)); err != nil {
		return err
	}
	var answer [16]byte
	n, err := s.Read(answer[:])
	switch {
	case n == 0 && err != nil:
		return closedByNode(err)
	case answer[0] == 'E':
		// It stands outside of the tunnel and may be anybody's: not shown (CVE-2024-10977).
		return errors.New("the node answered SSLRequest with an error")
	case n > 1:
		return errSmuggled
	case answer[0] == 'N':
		return errNoTLS
	case answer[0] != 'S':
		return fmt.Errorf("the node answered SSLRequest with byte 0x%02x: is it PostgreSQL?", answer[0])
	}
	conn := tls.Client(s.Conn, t.TLS.config(t.host()))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("shaking hands: %w", err)
	}
	s.Conn, s.tls = conn, true
	if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
		s.endPoint = auth.TLSServerEndPoint(certs[0])
	}
	return nil
}

// loopback says whether an address is on this host.
func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// because is the cause of ctx where that is what made err.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
