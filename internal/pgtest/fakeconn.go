package pgtest

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Conn is the connection below, for its addresses and for what FakeConn cannot do.
func (c *FakeConn) Conn() net.Conn { return c.conn }

// Param is a parameter of the StartupMessage; empty if it was not sent.
func (c *FakeConn) Param(name string) string {
	for _, p := range c.Params {
		if p[0] == name {
			return p[1]
		}
	}
	return ""
}

// deadline gives the next read or write its time.
func (c *FakeConn) deadline() error { return c.conn.SetDeadline(time.Now().Add(c.Timeout)) }

// SendRaw sends bytes as they are.
func (c *FakeConn) SendRaw(b []byte) error {
	if err := c.deadline(); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// Send sends messages in one write.
func (c *FakeConn) Send(ms ...Message) error { return c.SendRaw(Join(ms...)) }

// Read is the client's next message.
func (c *FakeConn) Read() (Message, error) {
	if err := c.deadline(); err != nil {
		return Message{}, err
	}
	return ReadMessage(c.conn)
}

// Expect reads one message per type and returns them; another type is an error.
func (c *FakeConn) Expect(types ...byte) ([]Message, error) {
	var got []Message
	for _, typ := range types {
		m, err := c.Read()
		if err != nil {
			return got, fmt.Errorf("expect %q: %w", typ, err)
		}
		if m.Type != typ {
			return got, fmt.Errorf("expected %q, got %q %q", typ, m.Type, m.Body)
		}
		got = append(got, m)
	}
	return got, nil
}

// ExpectMessage reads one message, which must be equal to the one given.
func (c *FakeConn) ExpectMessage(want Message) error {
	got, err := c.Read()
	if err != nil {
		return fmt.Errorf("expect %q %q: %w", want.Type, want.Body, err)
	}
	if got.Type != want.Type || !bytes.Equal(got.Body, want.Body) {
		return fmt.Errorf("expected %q %q, got %q %q", want.Type, want.Body, got.Type, got.Body)
	}
	return nil
}

// ExpectQuery reads a Query with this text.
func (c *FakeConn) ExpectQuery(sql string) error { return c.ExpectMessage(Query(sql)) }

// Answer expects a Query with this text and sends the answer.
func (c *FakeConn) Answer(sql string, answer ...Message) error {
	if err := c.ExpectQuery(sql); err != nil {
		return err
	}
	return c.Send(answer...)
}

// Startup reads up to and with the StartupMessage and fills Params and Version. An SSLRequest is
// answered with TLS if the node has it and "N" otherwise, a GSSENCRequest with "N". A
// CancelRequest goes to the node's Cancels and is an error that ends the script.
func (c *FakeConn) Startup() error {
	for {
		if err := c.deadline(); err != nil {
			return err
		}
		m, err := ReadStartup(c.conn)
		if err != nil {
			return fmt.Errorf("read startup packet: %w", err)
		}
		if len(m.Body) < 4 {
			return fmt.Errorf("short startup packet %q", m.Body)
		}
		switch code := binary.BigEndian.Uint32(m.Body); code {
		case 1234<<16 | 5678:
			return c.cancel(m.Body[4:])
		case 1234<<16 | 5679:
			err = c.answerSSL()
		case 1234<<16 | 5680:
			err = c.SendRaw([]byte("N"))
		default:
			return c.params(code, m.Body[4:])
		}
		if err != nil {
			return err
		}
	}
}

// cancel hands a CancelRequest to the node.
func (c *FakeConn) cancel(body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("short CancelRequest %q", body)
	}
	if c.cancels != nil {
		select {
		case c.cancels <- Cancel{PID: binary.BigEndian.Uint32(body), Secret: body[4:]}:
		default:
			return errors.New("more CancelRequests than a FakeNode remembers")
		}
	}
	return errCancel
}

// answerSSL says yes and shakes hands, or no.
func (c *FakeConn) answerSSL() error {
	if c.tlsConfig == nil {
		return c.SendRaw([]byte("N"))
	}
	if err := c.SendRaw([]byte("S")); err != nil {
		return err
	}
	t := tls.Server(c.conn, c.tlsConfig)
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("shake hands: %w", err)
	}
	c.conn = t
	return nil
}

// params reads the parameters of a StartupMessage.
func (c *FakeConn) params(version uint32, body []byte) error {
	c.Version, c.Params = version, nil
	fields := bytes.Split(body, []byte{0})
	for len(fields) >= 2 && len(fields[0]) > 0 {
		c.Params = append(c.Params, [2]string{string(fields[0]), string(fields[1])})
		fields = fields[2:]
	}
	if len(fields) != 2 || len(fields[0]) > 0 || len(fields[1]) > 0 {
		return fmt.Errorf("StartupMessage does not end where it should: %q", body)
	}
	return nil
}

// Ready sends what a server sends after it has let a client in: AuthenticationOk, Status,
// BackendKeyData and ReadyForQuery.
func (c *FakeConn) Ready() error {
	ms := []Message{AuthOK()}
	for _, s := range c.Status {
		ms = append(ms, ParameterStatus(s[0], s[1]))
	}
	return c.Send(append(ms, BackendKeyData(c.PID, c.Secret), ReadyForQuery('I'))...)
}

// LoginTrust lets everybody in.
func (c *FakeConn) LoginTrust() error {
	if err := c.Startup(); err != nil {
		return err
	}
	return c.Ready()
}

// refuse answers a wrong password as PostgreSQL does.
func (c *FakeConn) refuse() error {
	err := fmt.Errorf("password authentication failed for user %q", c.Param("user"))
	return errors.Join(err, c.Send(Error("FATAL", "28P01", err.Error())))
}

// LoginPlain asks for a password in the clear.
func (c *FakeConn) LoginPlain(password string) error {
	if err := c.Startup(); err != nil {
		return err
	}
	if err := c.Send(Msg('R', int32(3))); err != nil {
		return err
	}
	got, err := c.Expect('p')
	if err != nil {
		return err
	}
	if string(got[0].Body) != password+"\x00" {
		return c.refuse()
	}
	return c.Ready()
}

// LoginMD5 asks for a password's MD5 hash.
func (c *FakeConn) LoginMD5(password string) error {
	if err := c.Startup(); err != nil {
		return err
	}
	salt := make([]byte, 4)
	rand.Read(salt)
	if err := c.Send(Msg('R', int32(5), salt)); err != nil {
		return err
	}
	got, err := c.Expect('p')
	if err != nil {
		return err
	}
	if string(got[0].Body) != md5Answer(c.Param("user"), password, salt)+"\x00" {
		return c.refuse()
	}
	return c.Ready()
}

// LoginSCRAM does SCRAM-SHA-256 with this password.
func (c *FakeConn) LoginSCRAM(password string) error {
	if err := c.Startup(); err != nil {
		return err
	}
	return c.SCRAM(password)
}

// SCRAM is LoginSCRAM behind the StartupMessage, for a script that has read that itself.
func (c *FakeConn) SCRAM(password string) error {
	conv, err := scramServer(password)
	if err != nil {
		return err
	}
	if err := c.Send(Msg('R', int32(10), scramPlain, byte(0))); err != nil {
		return err
	}
	first, err := c.Expect('p')
	if err != nil {
		return err
	}
	d := decoder{b: first[0].Body}
	mechanism, data := d.str(), d.take(d.signed(4))
	if d.err != nil || mechanism != scramPlain {
		return fmt.Errorf("SASLInitialResponse %q", first[0].Body)
	}
	challenge, err := conv.Step(string(data))
	if err != nil {
		return fmt.Errorf("client's first SCRAM message %q: %w", data, err)
	}
	if err := c.Send(Msg('R', int32(11), []byte(challenge))); err != nil {
		return err
	}
	proof, err := c.Expect('p')
	if err != nil {
		return err
	}
	final, err := conv.Step(string(proof[0].Body))
	if err != nil {
		return c.refuse()
	}
	if err := c.Send(Msg('R', int32(12), []byte(final))); err != nil {
		return err
	}
	return c.Ready()
}

// Serve answers every message with what answer returns for it, until the client says goodbye.
func (c *FakeConn) Serve(answer func(m Message) []Message) error {
	for {
		m, err := c.Read()
		if err != nil {
			return err
		}
		if m.Type == 'X' {
			return nil
		}
		if ms := answer(m); len(ms) > 0 {
			if err := c.Send(ms...); err != nil {
				return err
			}
		}
	}
}

// CloseHard resets the connection.
func (c *FakeConn) CloseHard() error { return closeHard(c.conn) }

// CloseWrite ends the server's side of the stream and leaves the other open.
func (c *FakeConn) CloseWrite() error { return closeWrite(c.conn) }

// Stall does nothing at all, and reads nothing, until the node is closed or kills its
// connections: what a hung server looks like.
func (c *FakeConn) Stall() error {
	<-c.stop
	return net.ErrClosed
}

// StallUntil is Stall, but ends without an error when release is closed.
func (c *FakeConn) StallUntil(release <-chan struct{}) error {
	select {
	case <-release:
		return nil
	case <-c.stop:
		return net.ErrClosed
	}
}

// Swallow reads and forgets everything until the client closes the connection.
func (c *FakeConn) Swallow() error {
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c.conn)
	return err
}
