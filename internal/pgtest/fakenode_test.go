package pgtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain also looks for goroutines that nobody waited for.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// echo answers every Query with its text.
func echo(m Message) []Message {
	if m.Type != 'Q' {
		return nil
	}
	sql := strings.TrimRight(string(m.Body), "\x00")
	return []Message{RowDescription("q"), DataRow(sql), CommandComplete("SELECT 1"), ReadyForQuery('I')}
}

// logins is the ways in, all with the password "geheim".
func logins() map[string]func(*FakeConn) error {
	return map[string]func(*FakeConn) error{
		"trust": (*FakeConn).LoginTrust,
		"plain": func(c *FakeConn) error { return c.LoginPlain("geheim") },
		"md5":   func(c *FakeConn) error { return c.LoginMD5("geheim") },
		"scram": func(c *FakeConn) error { return c.LoginSCRAM("geheim") },
	}
}

func TestFakeNodeLogins(t *testing.T) {
	for name, login := range logins() {
		t.Run(name, func(t *testing.T) {
			node := NewFakeNode(t, func(c *FakeConn) error {
				c.PID, c.Secret = 42, []byte("abcd")
				if err := login(c); err != nil {
					return err
				}
				return c.Serve(echo)
			})
			c, err := Connect(ClientConfig{
				Addr: node.Addr(), User: "u", Password: "geheim", Params: []string{"application_name", "x"}, Check: checkNode,
			})
			must(t, err)
			got, err := c.Query("select 'ä'")
			must(t, err)
			want := []string{
				`RowDescription "q"(table 0.0 type 25 size -1 mod -1 format 0)`,
				`DataRow "select 'ä'"`,
				`CommandComplete "SELECT 1"`,
				`ReadyForQuery I`,
			}
			if g := DescribeAll(got); strings.Join(g, "\n") != strings.Join(want, "\n") {
				t.Errorf("got %q", g)
			}
			if rows := Rows(got); len(rows) != 1 || rows[0][0] != "select 'ä'" {
				t.Errorf("rows %q", rows)
			}
			if c.PID != 42 || string(c.Secret) != "abcd" || c.Status["TimeZone"] != "Etc/UTC" || c.Tx != 'I' {
				t.Errorf("client remembers %+v", c)
			}
			must(t, c.Close())
		})
	}
}

func TestFakeNodeWrongPassword(t *testing.T) {
	for name, login := range logins() {
		if name == "trust" {
			continue
		}
		client, server := Pipe(1 << 16)
		done := make(chan error, 1)
		go func() { done <- ServeConn(server, login) }()
		_, err := Connect(ClientConfig{Conn: client, User: "u", Password: "falsch"})
		var refused *ServerError
		if !errors.As(err, &refused) || refused.Field('C') != "28P01" {
			t.Errorf("%s: client sees %v", name, err)
		}
		if err := <-done; err == nil {
			t.Errorf("%s: script saw nothing", name)
		}
	}
}

// certificate is a self-signed one for 127.0.0.1, for both sides.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

func TestFakeTLSNode(t *testing.T) {
	server, client := certificate(t)
	node := NewFakeTLSNode(t, server, func(c *FakeConn) error {
		if err := c.LoginSCRAM("geheim"); err != nil {
			return err
		}
		if _, ok := c.Conn().(*tls.Conn); !ok {
			return errors.New("no TLS")
		}
		return c.Serve(echo)
	})
	c, err := Connect(ClientConfig{Addr: node.Addr(), User: "u", Password: "geheim", TLS: client})
	must(t, err)
	_, err = c.Query("x")
	must(t, err)
	must(t, c.CloseHard())

	plain := NewFakeNode(t, (*FakeConn).LoginTrust)
	if _, err := Connect(ClientConfig{Addr: plain.Addr(), User: "u", TLS: client}); err == nil || !strings.Contains(err.Error(), "'N'") {
		t.Errorf("TLS with a node that has none: %v", err)
	}
}

func TestFakeNodeStartup(t *testing.T) {
	seen := make(chan *FakeConn, 1)
	node := NewFakeNode(t, func(c *FakeConn) error {
		if err := c.Startup(); err != nil {
			return err
		}
		seen <- c
		return c.Ready()
	})
	c, err := Dial(ClientConfig{Addr: node.Addr(), User: "u", Database: "d", Minor: 2, Params: []string{"b", "1", "a", ""}})
	must(t, err)
	for _, ask := range []Message{GSSENCRequest(), SSLRequest()} {
		must(t, c.Send(ask))
		if b, err := c.ReadByte(); b != 'N' || err != nil {
			t.Fatalf("answer %q, %v", b, err)
		}
	}
	_, err = c.Login()
	must(t, err)
	got := <-seen
	if got.Version != 3<<16|2 || len(got.Params) != 4 || got.Params[2] != [2]string{"b", "1"} || got.Param("database") != "d" || got.Param("x") != "" {
		t.Errorf("version %x, parameters %q", got.Version, got.Params)
	}
	must(t, c.CloseHard())
}

func TestFakeNodeCancel(t *testing.T) {
	node := NewFakeNode(t, func(c *FakeConn) error {
		if err := c.LoginTrust(); err != nil {
			return err
		}
		return c.Serve(echo)
	})
	c, err := Connect(ClientConfig{Addr: node.Addr(), User: "u"})
	must(t, err)
	must(t, c.Cancel())
	if got := <-node.Cancels; got.PID != c.PID || !bytes.Equal(got.Secret, c.Secret) {
		t.Errorf("cancel %+v", got)
	}
	if n := node.Accepted(); n != 2 {
		t.Errorf("%d connections", n)
	}
	must(t, c.Close())
}

func TestFakeNodeExpect(t *testing.T) {
	client, server := Pipe(1 << 16)
	done := make(chan error, 1)
	go func() {
		done <- ServeConn(server, func(c *FakeConn) error {
			if err := c.LoginTrust(); err != nil {
				return err
			}
			if err := c.Answer("begin", CommandComplete("BEGIN"), ReadyForQuery('T')); err != nil {
				return err
			}
			if _, err := c.Expect('P', 'B', 'D', 'E', 'S'); err != nil {
				return err
			}
			if err := c.Send(ParseComplete(), BindComplete(), NoData(), CommandComplete("INSERT 0 1"), ReadyForQuery('T')); err != nil {
				return err
			}
			return c.ExpectQuery("commit")
		})
	}()
	c, err := Connect(ClientConfig{Conn: client, User: "u", Check: checkNode})
	must(t, err)
	_, err = c.Query("begin")
	must(t, err)
	got, err := c.Exchange(Extended("insert into t values ($1, $2)", "a", nil)...)
	must(t, err)
	if len(got) != 5 || c.Tx != 'T' {
		t.Errorf("got %q", DescribeAll(got))
	}
	must(t, c.Send(Query("rollback")))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "rollback") {
		t.Errorf("script: %v", err)
	}
	if rest, err := c.ReadToEnd(); len(rest) != 0 || err != nil {
		t.Errorf("rest %q, %v", DescribeAll(rest), err)
	}
	must(t, c.CloseHard())
}

func TestFakeNodeEnds(t *testing.T) {
	release := make(chan struct{})
	node := NewFakeNode(t, func(c *FakeConn) error {
		if err := c.LoginTrust(); err != nil {
			return err
		}
		m, err := c.Read()
		if err != nil {
			return err
		}
		switch m.Body[0] {
		case 'r':
			return c.CloseHard()
		case 'h':
			if err := c.CloseWrite(); err != nil {
				return err
			}
			return c.Swallow()
		case 'u':
			return c.StallUntil(release)
		}
		return c.Stall()
	})
	connect := func() *RawClient {
		c, err := Connect(ClientConfig{Addr: node.Addr(), User: "u"})
		must(t, err)
		return c
	}
	for sql, want := range map[string]string{"reset": "reset by peer", "half": "EOF"} {
		c := connect()
		must(t, c.Send(Query(sql)))
		if _, err := c.Read(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", sql, err)
		}
		must(t, c.CloseHard())
	}
	c := connect()
	must(t, c.Send(Query("until")))
	close(release)
	if _, err := c.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("until: %v", err)
	}
	must(t, c.CloseHard())
	c = connect()
	must(t, c.Send(Query("stall")))
	node.KillConns()
	if _, err := c.Read(); err == nil {
		t.Error("a killed connection answers")
	}
	must(t, c.CloseHard())
	must(t, connect().CloseHard()) // the node is still there
	node.Close()
	if _, err := Dial(ClientConfig{Addr: node.Addr()}); err == nil {
		t.Error("a closed node accepts")
	}
}
