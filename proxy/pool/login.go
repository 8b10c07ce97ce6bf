package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"pgweir/internal/auth"
	"pgweir/internal/pgwire"
)

// What a node may send before it is ready.
const (
	maxLoginMessage  = 64 << 10 // bytes of one body
	maxLoginBytes    = 1 << 20  // bytes altogether
	maxLoginMessages = 4096
)

// login opens a connection, within ctx and a time.
func (c Config) login(ctx context.Context, spec *Spec, within time.Duration) (*Conn, *ConnectError) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	attempts := spec.TLS.attempts()
	if network, _ := spec.network(); network == "unix" {
		attempts = []bool{false}
	}
	var first *ConnectError
	for i, secure := range attempts {
		conn, err := c.attempt(ctx, spec, secure)
		if err == nil {
			return conn, nil
		}
		if first == nil || err.Stage != StageTLS {
			first = err
		}
		if i == len(attempts)-1 || ctx.Err() != nil || !otherwise(err) {
			break
		}
	}
	return nil, first
}

// otherwise says whether sslmode allow and prefer try again the other way: no TLS could be agreed
// upon, or the node refused before it asked for a proof. A proof is never given twice.
func otherwise(err *ConnectError) bool {
	return err.Stage == StageTLS || err.Stage == StageStart && err.Response != nil
}

// attempt is one login with or without TLS.
func (c Config) attempt(ctx context.Context, spec *Spec, secure bool) (*Conn, *ConnectError) {
	release := func() bool { return true }
	s, cerr := c.open(ctx, spec.Target, encrypted(secure), func(conn net.Conn) { release = watch(ctx, conn) })
	if cerr != nil {
		release()
		return nil, cerr
	}
	l := newLogin(c, spec, s)
	err := l.run()
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return l.ready(), nil
	}
	_ = s.Close()
	var ce *ConnectError
	if errors.As(err, &ce) {
		return nil, ce
	}
	return nil, &ConnectError{Addr: spec.Addr, Stage: l.stage, Err: because(ctx, err)}
}

// login is the conversation from StartupMessage to ReadyForQuery.
type login struct {
	spec     *Spec
	stage    Stage
	conn     *Conn
	exchange *auth.ClientExchange
	bytes    int
	messages int
}

// newLogin prepares a login on a socket that nothing was sent on.
func newLogin(c Config, spec *Spec, s socket) *login {
	return &login{
		spec:  spec,
		stage: StageStart,
		conn: &Conn{
			Key: spec.Key, Link: pgwire.NewLink(s.Conn), TLS: s.tls, cfg: c, target: spec.Target,
		},
		exchange: auth.NewClientExchange(spec.User, spec.Keys, auth.ClientOptions{
			TLS: s.tls, EndPoint: s.endPoint, Cleartext: s.local || spec.AllowCleartext,
		}),
	}
}

// run sends the StartupMessage and reads until ReadyForQuery, and not beyond.
func (l *login) run() error {
	startup := pgwire.AppendStartup(nil, pgwire.Version30, l.params())
	if err := l.conn.Link.Write(startup); err != nil {
		return err
	}
	for {
		typ, body, err := l.read()
		if err != nil {
			return err
		}
		done, err := l.handle(typ, body)
		if done || err != nil {
			return err
		}
	}
}

// params is the parameters of the StartupMessage.
func (l *login) params() []pgwire.Param {
	out := []pgwire.Param{{Name: "user", Value: l.spec.User}}
	if l.spec.Database != "" {
		out = append(out, pgwire.Param{Name: "database", Value: l.spec.Database})
	}
	out = append(out, l.spec.Params...)
	given := l.spec.Params
	for _, p := range l.spec.Params {
		if p.Name == "options" {
			o, _ := pgwire.ParseOptions(p.Value) // what is wrong with it is the node's to say
			given = append(given[:len(given):len(given)], o.Settings...)
		}
	}
	for _, p := range l.conn.cfg.NodeSettings {
		if !slices.ContainsFunc(given, func(g pgwire.Param) bool { return strings.EqualFold(g.Name, p.Name) }) {
			out = append(out, p)
		}
	}
	return out
}

// read is the next message, within the bounds of a login.
func (l *login) read() (byte, []byte, error) {
	typ, body, err := l.conn.Link.ReadMessage(maxLoginMessage)
	var long *pgwire.MessageTooLong
	switch {
	case errors.As(err, &long):
		return 0, nil, fmt.Errorf("%w: %w", errTooMuch, err)
	case err != nil:
		return 0, nil, closedByNode(err)
	}
	l.bytes += pgwire.HeaderSize + len(body)
	l.messages++
	if l.bytes > maxLoginBytes || l.messages > maxLoginMessages {
		return 0, nil, errTooMuch
	}
	return typ, body, nil
}

// handle takes one message of the node; done is true at ReadyForQuery.
func (l *login) handle(typ byte, body []byte) (done bool, err error) {
	switch {
	case typ == pgwire.MsgErrorResponse:
		return false, responseError(l.spec.Addr, l.stage, body)
	case typ == pgwire.MsgNoticeResponse:
		l.conn.Notices = append(l.conn.Notices, append([]byte{}, body...))
		return false, nil
	case typ == pgwire.MsgNegotiateProtocolVersion && l.stage < StageReady:
		_, _, err := pgwire.ParseNegotiate(body)
		return false, err
	case typ == pgwire.MsgAuthentication && l.stage < StageReady:
		return false, l.authenticate(body)
	case l.stage < StageReady:
	case typ == pgwire.MsgParameterStatus:
		name, value, err := pgwire.ParseParameterStatus(body)
		if err == nil {
			l.conn.setParam(string(name), string(value))
		}
		return false, err
	case typ == pgwire.MsgBackendKeyData:
		pid, secret, err := pgwire.ParseBackendKeyData(body)
		l.conn.PID, l.conn.Secret = pid, append([]byte{}, secret...)
		return false, err
	case typ == pgwire.MsgReadyForQuery:
		status, err := pgwire.ParseReadyForQuery(body)
		if err == nil && status != pgwire.TxIdle {
			err = fmt.Errorf("the node is in a transaction (%q) right after the login", status)
		}
		return err == nil, err
	}
	return false, fmt.Errorf("unexpected message of type %q from the node", typ)
}

// authenticate takes one Authentication message and answers it.
func (l *login) authenticate(body []byte) error {
	answer, err := l.exchange.Step(nil, body)
	switch {
	case err != nil:
		l.stage = StageAuth
		return err
	case l.exchange.Done():
		l.stage = StageReady
		return nil
	}
	l.stage = StageAuth
	if len(answer) == 0 {
		return nil
	}
	return l.conn.Link.Write(answer)
}

// ready completes the connection.
func (l *login) ready() *Conn {
	if l.spec.OpenedMark != nil {
		l.conn.OpenedMark = l.spec.OpenedMark()
	}
	l.conn.Opened = time.Now()
	return l.conn
}

// closedByNode names the end of the stream.
func closedByNode(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errClosedByNode
	}
	return err
}
