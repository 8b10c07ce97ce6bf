package pgtest

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// ClientConfig says how a RawClient connects and logs in.
type ClientConfig struct {
	Addr     string   // host:port, or the path of a Unix socket
	Conn     net.Conn // instead of Addr: a connection that stands already; the client closes it
	User     string
	Database string   // empty: not sent
	Params   []string // further startup parameters, in pairs of name and value
	Minor    uint16   // of the protocol version asked for, 3.Minor
	Password string
	// TLS, if not nil, is how the client speaks TLS: behind an SSLRequest, or with DirectTLS at
	// once. With a server certificate, SCRAM binds to it.
	TLS       *tls.Config
	DirectTLS bool
	// Timeout bounds every read and write; 0 is DefaultTimeout.
	Timeout time.Duration
	// Check, if not nil, sees every message received; its error is that of the read. It is
	// where an independent codec gives its opinion.
	Check func(Message) error
}

// DefaultTimeout bounds the reads and writes of RawClient and FakeConn.
const DefaultTimeout = 20 * time.Second

// RawClient is one connection of a client that does nothing by itself: it sends what it is told
// to and returns what it gets. One goroutine may send while another reads.
type RawClient struct {
	// What the server said of itself so far, kept up to date by every read.
	PID    uint32
	Secret []byte
	Status map[string]string // ParameterStatus
	Tx     byte              // of the last ReadyForQuery

	cfg  ClientConfig
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects, and speaks TLS if the configuration says so, but sends no StartupMessage. The
// caller closes the client.
func Dial(cfg ClientConfig) (*RawClient, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	c := &RawClient{cfg: cfg, conn: cfg.Conn, Status: map[string]string{}}
	if c.conn == nil {
		network := "tcp"
		if strings.HasPrefix(cfg.Addr, "/") {
			network = "unix"
		}
		conn, err := net.DialTimeout(network, cfg.Addr, cfg.Timeout)
		if err != nil {
			return nil, fmt.Errorf("connect raw client: %w", err)
		}
		c.conn = conn
	}
	c.in = bufio.NewReader(c.conn)
	if cfg.TLS == nil {
		return c, nil
	}
	if err := c.startTLS(); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// startTLS asks for TLS, unless it is direct, and shakes hands.
func (c *RawClient) startTLS() error {
	if !c.cfg.DirectTLS {
		if err := c.Send(SSLRequest()); err != nil {
			return err
		}
		answer, err := c.ReadByte()
		if err != nil {
			return fmt.Errorf("read the answer to SSLRequest: %w", err)
		}
		if answer != 'S' {
			return fmt.Errorf("server answered SSLRequest with %q", answer)
		}
	}
	return c.UpgradeTLS(c.cfg.TLS)
}

// UpgradeTLS shakes hands as a TLS client; from then on all goes through the tunnel.
func (c *RawClient) UpgradeTLS(cfg *tls.Config) error {
	t := tls.Client(c.conn, cfg)
	if err := c.deadline(); err != nil {
		return err
	}
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("shake hands: %w", err)
	}
	c.conn, c.in = t, bufio.NewReader(t)
	return nil
}

// Connect is Dial and Login; if the login fails, the connection is closed.
func Connect(cfg ClientConfig) (*RawClient, error) {
	c, err := Dial(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := c.Login(); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// ServerError is an ErrorResponse where something else was due.
type ServerError struct{ Message Message }

// Error is the message in the form of Describe.
func (e *ServerError) Error() string { return "server said " + Describe(e.Message) }

// Field is a field of the ErrorResponse, by its letter; empty if it is missing.
func (e *ServerError) Field(kind byte) string { return Field(e.Message, kind) }

// Field is a field of an ErrorResponse or NoticeResponse, by its letter; empty if it is missing.
func Field(m Message, kind byte) string {
	for _, f := range strings.Split(string(m.Body), "\x00") {
		if f != "" && f[0] == kind {
			return f[1:]
		}
	}
	return ""
}

// Login sends the StartupMessage of the configuration, answers what the server asks for, and
// reads until ReadyForQuery. It returns everything that the server sent; an ErrorResponse ends
// it with a *ServerError.
func (c *RawClient) Login() ([]Message, error) {
	params := []string{"user", c.cfg.User}
	if c.cfg.Database != "" {
		params = append(params, "database", c.cfg.Database)
	}
	if err := c.Send(Startup(c.cfg.Minor, append(params, c.cfg.Params...)...)); err != nil {
		return nil, err
	}
	return c.FinishLogin()
}

// FinishLogin is Login without the StartupMessage, for a test that sent one of its own.
func (c *RawClient) FinishLogin() ([]Message, error) {
	var got []Message
	var proof *scramProof
	for {
		m, err := c.Read()
		if err != nil {
			return got, err
		}
		got = append(got, m)
		switch m.Type {
		case 'E':
			return got, &ServerError{m}
		case 'R':
			if proof, err = c.answer(m, proof); err != nil {
				return got, err
			}
		case 'Z':
			return got, nil
		}
	}
}

// answer sends what an Authentication message asks for.
func (c *RawClient) answer(m Message, proof *scramProof) (*scramProof, error) {
	if len(m.Body) < 4 {
		return nil, fmt.Errorf("short Authentication message %q", m.Body)
	}
	code, data := binary.BigEndian.Uint32(m.Body), m.Body[4:]
	switch code {
	case 0:
		if proof != nil && !proof.verified() {
			return nil, errors.New("server let in without the proof that it knows the password")
		}
		return proof, nil
	case 3:
		return proof, c.Send(Password(c.cfg.Password))
	case 5:
		return proof, c.Send(Password(md5Answer(c.cfg.User, c.cfg.Password, data)))
	case 10:
		proof, first, err := c.startSCRAM(data)
		if err != nil {
			return nil, err
		}
		return proof, c.Send(first)
	case 11:
		reply, err := proof.step(data)
		if err != nil {
			return nil, err
		}
		return proof, c.Send(Msg('p', []byte(reply)))
	case 12:
		_, err := proof.step(data)
		return proof, err
	}
	return nil, fmt.Errorf("unknown request for authentication %d", code)
}

// Conn is the connection, for its addresses and TLS state.
func (c *RawClient) Conn() net.Conn { return c.conn }

// deadline gives the next read or write its time.
func (c *RawClient) deadline() error { return c.conn.SetDeadline(time.Now().Add(c.cfg.Timeout)) }

// SendRaw sends bytes as they are.
func (c *RawClient) SendRaw(b []byte) error {
	if err := c.deadline(); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// Send sends messages in one write.
func (c *RawClient) Send(ms ...Message) error { return c.SendRaw(Join(ms...)) }

// ReadByte is the next byte: the answer to SSLRequest or GSSENCRequest.
func (c *RawClient) ReadByte() (byte, error) {
	if err := c.deadline(); err != nil {
		return 0, err
	}
	return c.in.ReadByte()
}

// Read is the next message. At the end of the stream the error is io.EOF.
func (c *RawClient) Read() (Message, error) {
	if err := c.deadline(); err != nil {
		return Message{}, err
	}
	m, err := ReadMessage(c.in)
	if err != nil {
		return m, err
	}
	c.remember(m)
	if c.cfg.Check != nil {
		if err := c.cfg.Check(m); err != nil {
			return m, fmt.Errorf("check %s: %w", Describe(m), err)
		}
	}
	return m, nil
}

// remember keeps what a message says of the server.
func (c *RawClient) remember(m Message) {
	switch {
	case m.Type == 'K' && len(m.Body) >= 8:
		c.PID, c.Secret = binary.BigEndian.Uint32(m.Body), m.Body[4:]
	case m.Type == 'S':
		if f := strings.SplitN(string(m.Body), "\x00", 3); len(f) == 3 {
			c.Status[f[0]] = f[1]
		}
	case m.Type == 'Z' && len(m.Body) == 1:
		c.Tx = m.Body[0]
	}
}

// ReadUntil reads up to and with the first message that stop says yes to. With an error come the
// messages before it.
func (c *RawClient) ReadUntil(stop func(Message) bool) ([]Message, error) {
	var got []Message
	for {
		m, err := c.Read()
		if err != nil {
			return got, err
		}
		got = append(got, m)
		if stop(m) {
			return got, nil
		}
	}
}

// ReadUntilType reads up to and with the first message of one of these types.
func (c *RawClient) ReadUntilType(types ...byte) ([]Message, error) {
	return c.ReadUntil(func(m Message) bool { return strings.IndexByte(string(types), m.Type) >= 0 })
}

// ReadUntilReady reads up to and with the n-th ReadyForQuery.
func (c *RawClient) ReadUntilReady(n int) ([]Message, error) {
	return c.ReadUntil(func(m Message) bool {
		if m.Type == 'Z' {
			n--
		}
		return n <= 0
	})
}

// ReadToEnd reads until the server closes the connection; that is no error.
func (c *RawClient) ReadToEnd() ([]Message, error) {
	got, err := c.ReadUntil(func(Message) bool { return false })
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return got, err
}

// Exchange sends messages and reads until as many ReadyForQuery came as there are Query,
// FunctionCall and Sync among them. A COPY FROM STDIN among them makes that one more than come
// if a Sync is sent inside of it; use Send and ReadUntilReady there.
func (c *RawClient) Exchange(ms ...Message) ([]Message, error) {
	n := 0
	for _, m := range ms {
		if m.Type == 'Q' || m.Type == 'F' || m.Type == 'S' {
			n++
		}
	}
	if n == 0 {
		return nil, errors.New("nothing among the messages asks for a ReadyForQuery")
	}
	if err := c.Send(ms...); err != nil {
		return nil, err
	}
	return c.ReadUntilReady(n)
}

// Query sends a Query and returns all that comes until ReadyForQuery.
func (c *RawClient) Query(sql string) ([]Message, error) { return c.Exchange(Query(sql)) }

// Rows is the values of every DataRow among messages, NULL as "NULL".
func Rows(ms []Message) [][]string {
	var rows [][]string
	for _, m := range ms {
		if m.Type != 'D' {
			continue
		}
		d := decoder{b: m.Body}
		var row []string
		for n := d.number(2); n > 0 && d.err == nil; n-- {
			if size := d.signed(4); size >= 0 {
				row = append(row, string(d.take(size)))
			} else {
				row = append(row, "NULL")
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// FirstError is the first ErrorResponse among messages, nil if there is none.
func FirstError(ms []Message) *ServerError {
	for _, m := range ms {
		if m.Type == 'E' {
			return &ServerError{m}
		}
	}
	return nil
}

// Cancel sends a CancelRequest for this client over a connection of its own, and waits until
// the server has closed that.
func (c *RawClient) Cancel() error { return CancelAt(c.cfg.Addr, c.PID, c.Secret, c.cfg.Timeout) }

// CancelAt sends a CancelRequest with any key to any address, and waits until the server has closed
// the connection.
func CancelAt(addr string, pid uint32, secret []byte, timeout time.Duration) error {
	c, err := Dial(ClientConfig{Addr: addr, Timeout: timeout})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(CancelRequest(pid, secret)); err != nil {
		return err
	}
	if _, err = c.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after a CancelRequest the server should close the connection: %w", err)
	}
	return nil
}

// Close says goodbye with a Terminate and closes the connection.
func (c *RawClient) Close() error {
	sent := c.Send(Terminate())
	return errors.Join(sent, c.conn.Close())
}

// CloseWrite ends the client's side of the stream and leaves the other open.
func (c *RawClient) CloseWrite() error { return closeWrite(c.conn) }

// CloseHard resets the connection, as the kernel does for a process that was killed with data
// unread.
func (c *RawClient) CloseHard() error { return closeHard(c.conn) }

// closeWrite ends one direction of a connection that can do that.
func closeWrite(conn net.Conn) error {
	if w, ok := conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return fmt.Errorf("a %T has no half to be closed", conn)
}

// closeHard closes a connection with a RST where there is one.
func closeHard(conn net.Conn) error {
	under := conn
	if t, ok := conn.(*tls.Conn); ok {
		under = t.NetConn()
	}
	if t, ok := under.(*net.TCPConn); ok {
		if err := t.SetLinger(0); err != nil {
			return err
		}
	}
	return under.Close()
}
