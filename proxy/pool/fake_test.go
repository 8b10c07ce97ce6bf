package pool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"pgweir/internal/auth"
	"pgweir/internal/pgtest"
	"pgweir/internal/pgwire"
)

// TestMain ends the shared server and looks for goroutines that outlive the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	err := stopShared()
	if code == 0 && err == nil {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// newPool is a pool that is closed with the test.
func newPool(t *testing.T, change func(*Config)) *Pool {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Default.ConnectTimeout, cfg.ResetTimeout = 10*time.Second, 10*time.Second
	if change != nil {
		change(&cfg)
	}
	m, err := NewMetrics(prometheus.NewPedanticRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Close(ctx)
	})
	return p
}

// sized is a change that limits pools to n connections.
func sized(n int) func(*Config) { return func(c *Config) { c.Default.Size = n } }

// limit changes what holds for a pool that nobody uses at the moment.
func limit(p *Pool, change func(*Limits)) {
	change(&p.cfg.Default)
	p.Refresh()
}

// plain is a TLS setting without TLS.
func plain(t *testing.T) TLS {
	t.Helper()
	s, err := NewTLS(SSLDisable, TLSFiles{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// specFor is a spec for a fake node.
func specFor(t *testing.T, addr string) *Spec {
	t.Helper()
	return &Spec{
		Key:    Key{Cluster: "main", Node: 1, Entry: "app", Database: "app", User: "alice"},
		Target: Target{Addr: addr, TLS: plain(t)}, NodeName: "pg-a",
		Keys: auth.Keys{Password: "secret"},
	}
}

// discard answers DISCARD ALL and nothing else.
func discard(m pgtest.Message) []pgtest.Message {
	if m.Type != 'Q' || string(m.Body) != "DISCARD ALL\x00" {
		return []pgtest.Message{pgtest.Error("ERROR", "XX000", "unexpected"), pgtest.ReadyForQuery('I')}
	}
	return []pgtest.Message{
		pgtest.ParameterStatus("TimeZone", "Asia/Seoul"),
		pgtest.CommandComplete("DISCARD ALL"), pgtest.ReadyForQuery('I'),
	}
}

// friendly is a node that logs everybody in.
func friendly(c *pgtest.FakeConn) error {
	if err := c.LoginTrust(); err != nil {
		return err
	}
	return c.Serve(discard)
}

// get is a Get that must succeed.
func get(t *testing.T, p *Pool, spec *Spec) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := p.Get(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// total adds up the numbers of a pool.
func total(p *Pool) (s Stat) {
	for _, one := range p.Stats() {
		s.Idle += one.Idle
		s.Leased += one.Leased
		s.Opening += one.Opening
		s.Waiting += one.Waiting
	}
	return s
}

func TestLoginCollects(t *testing.T) {
	for name, script := range map[string]pgtest.Script{
		"trust": friendly,
		"plain": func(c *pgtest.FakeConn) error { return errors.Join(c.LoginPlain("secret"), c.Serve(discard)) },
		"md5":   func(c *pgtest.FakeConn) error { return errors.Join(c.LoginMD5("secret"), c.Serve(discard)) },
		"scram": func(c *pgtest.FakeConn) error { return errors.Join(c.LoginSCRAM("secret"), c.Serve(discard)) },
	} {
		t.Run(name, func(t *testing.T) {
			params := make(chan [][2]string, 1)
			n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
				defer func() { params <- c.Params }()
				return script(c)
			})
			p := newPool(t, nil)
			spec := specFor(t, n.Addr())
			spec.Params = []pgwire.Param{{Name: "application_name", Value: "x y"}, {Name: "options", Value: "-c a=b -c tcp-user-timeout=7"}, {Name: "tcp_keepalives_count", Value: "9"}}
			spec.OpenedMark = func() uint64 { return 42 }
			c := get(t, p, spec)
			if c.PID != 4711 || string(c.Secret) != "\x01\x02\x03\x04" || c.OpenedMark != 42 || c.Key != spec.Key {
				t.Errorf("%+v", c)
			}
			if len(c.Params) != len(pgtest.DefaultStatus()) || c.Params[2].Name != "DateStyle" || c.Param("TimeZone") != "Etc/UTC" {
				t.Errorf("parameters %v", c.Params)
			}
			c.Dirty = true
			p.Put(c)
			if again := get(t, p, spec); again != c || c.Dirty || c.Param("TimeZone") != "Asia/Seoul" {
				t.Error("not reused after the reset")
			}
			p.Drop(c)
			want := "[[user alice] [database app] [application_name x y] [options -c a=b -c tcp-user-timeout=7] [tcp_keepalives_count 9]" +
				" [client_connection_check_interval 2000] [tcp_keepalives_idle 10] [tcp_keepalives_interval 3]]"
			if got := fmt.Sprint(<-params); got != want {
				t.Errorf("startup parameters %s, want %s", got, want)
			}
		})
	}
}

func TestHostileNode(t *testing.T) {
	huge := binary.BigEndian.AppendUint32([]byte{'S'}, 1<<31-1)
	for name, tc := range map[string]struct {
		script pgtest.Script
		stage  Stage
		want   string
	}{
		"huge length": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.AuthOK()), c.SendRaw(huge), c.Swallow())
		}, StageReady, "more than a login needs"},
		"length 3": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.SendRaw([]byte{'R', 0, 0, 0, 3}), c.Swallow())
		}, StageStart, "message length"},
		"length 2^32-1": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.SendRaw([]byte{'R', 255, 255, 255, 255}), c.Swallow())
		}, StageStart, "message length"},
		"endless notices": {func(c *pgtest.FakeConn) error {
			if err := c.Startup(); err != nil {
				return err
			}
			for {
				if err := c.Send(pgtest.Notice("NOTICE", "00000", "again")); err != nil {
					return err
				}
			}
		}, StageStart, "more than a login needs"},
		"endless parameters": {func(c *pgtest.FakeConn) error {
			if err := errors.Join(c.Startup(), c.Send(pgtest.AuthOK())); err != nil {
				return err
			}
			for i := 0; ; i++ {
				if err := c.Send(pgtest.ParameterStatus(fmt.Sprint(i), strings.Repeat("x", 60000))); err != nil {
					return err
				}
			}
		}, StageReady, "more than a login needs"},
		"rows before the login": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.DataRow("x")), c.Swallow())
		}, StageStart, "unexpected message"},
		"ready before the login": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.ReadyForQuery('I')), c.Swallow())
		}, StageStart, "unexpected message"},
		"rows after the login": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.AuthOK(), pgtest.DataRow("x")), c.Swallow())
		}, StageReady, "unexpected message"},
		"login twice": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.AuthOK(), pgtest.AuthOK()), c.Swallow())
		}, StageReady, "unexpected message"},
		"in a transaction": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.AuthOK(), pgtest.ReadyForQuery('T')), c.Swallow())
		}, StageReady, "in a transaction"},
		"error without end": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.Msg('E', []byte("SFATAL"))), c.Swallow())
		}, StageStart, "ErrorResponse"},
		"Kerberos": {func(c *pgtest.FakeConn) error {
			return errors.Join(c.Startup(), c.Send(pgtest.Msg('R', int32(7))), c.Swallow())
		}, StageAuth, "authentication method 7"},
		"many iterations": {func(c *pgtest.FakeConn) error {
			if err := errors.Join(c.Startup(), c.Send(pgtest.Msg('R', int32(10), "SCRAM-SHA-256", byte(0)))); err != nil {
				return err
			}
			ms, err := c.Expect('p')
			if err != nil {
				return err
			}
			_, first, _ := strings.Cut(string(ms[0].Body[len("SCRAM-SHA-256")+5:]), "r=")
			return errors.Join(c.Send(pgtest.Msg('R', int32(11), []byte("r="+first+"x,s=c2FsdHNhbHQ=,i=2147483647"))), c.Swallow())
		}, StageAuth, "2147483647 SCRAM iterations"},
		"no proof of the node": {func(c *pgtest.FakeConn) error {
			if err := errors.Join(c.Startup(), c.Send(pgtest.Msg('R', int32(10), "SCRAM-SHA-256", byte(0)))); err != nil {
				return err
			}
			_, err := c.Expect('p')
			return errors.Join(err, c.Send(pgtest.AuthOK()), c.Swallow())
		}, StageAuth, "before it proved itself"},
		"closes": {func(c *pgtest.FakeConn) error { return c.Startup() }, StageStart, "closed the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			n := pgtest.NewFakeNode(t, tc.script)
			p := newPool(t, nil)
			_, err := p.Get(t.Context(), specFor(t, n.Addr()))
			var ce *ConnectError
			if !errors.As(err, &ce) || ce.Stage != tc.stage || !strings.Contains(err.Error(), tc.want) || ce.Response != nil {
				t.Fatalf("%v (stage %v)", err, ce.Stage)
			}
			if s := total(p); s != (Stat{}) {
				t.Fatalf("left behind: %+v", s)
			}
		})
	}
}

func TestSilentNodeTimesOut(t *testing.T) {
	n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error { return errors.Join(c.Startup(), c.Stall()) })
	p := newPool(t, func(c *Config) { c.Default.ConnectTimeout = 50 * time.Millisecond })
	_, err := p.Get(t.Context(), specFor(t, n.Addr()))
	var ce *ConnectError
	if !errors.As(err, &ce) || !ce.Timeout() || !ce.Unavailable() || ce.Stage != StageStart {
		t.Fatal(err)
	}
}

func TestCallerGivesUpDuringLogin(t *testing.T) {
	started := make(chan struct{})
	n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		err := c.Startup()
		close(started)
		return errors.Join(err, c.Swallow())
	})
	p := newPool(t, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client is gone")
	go func() {
		<-started
		cancel(gone)
	}()
	if _, err := p.Get(ctx, specFor(t, n.Addr())); !errors.Is(err, gone) {
		t.Fatal(err)
	}
}

func TestRefused(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	addr := n.Addr()
	n.Close()
	p := newPool(t, nil)
	_, err := p.Get(t.Context(), specFor(t, addr))
	var ce *ConnectError
	if !errors.As(err, &ce) || !ce.Refused() || !ce.Unavailable() || ce.Timeout() || ce.Stage != StageDial {
		t.Fatal(err)
	}
}

func TestResponsePassesRaw(t *testing.T) {
	said := pgtest.Error("FATAL", "53300", "sorry, too many clients already", "D", "detail")
	n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error { return errors.Join(c.Startup(), c.Send(said)) })
	p := newPool(t, nil)
	_, err := p.Get(t.Context(), specFor(t, n.Addr()))
	var ce *ConnectError
	if !errors.As(err, &ce) || string(ce.Response) != string(said.Body) || ce.SQLState != "53300" || ce.Unavailable() {
		t.Fatal(err)
	}
}

func TestSmuggledPlaintext(t *testing.T) {
	for answer, want := range map[string]string{
		"SR\x00\x00\x00\x08\x00\x00\x00\x00": "unencrypted data",
		"NR\x00\x00\x00\x08\x00\x00\x00\x00": "unencrypted data",
		"N":                                  "does not offer TLS",
		"E\x00\x00\x00\x08abcd":              "answered SSLRequest with an error",
		"H":                                  "is it PostgreSQL?",
	} {
		n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
			if _, err := pgtest.ReadStartup(c.Conn()); err != nil {
				return err
			}
			return errors.Join(c.SendRaw([]byte(answer)), c.Swallow())
		})
		p := newPool(t, nil)
		spec := specFor(t, n.Addr())
		var err error
		if spec.TLS, err = NewTLS(SSLRequire, TLSFiles{}); err != nil {
			t.Fatal(err)
		}
		_, err = p.Get(t.Context(), spec)
		var ce *ConnectError
		if !errors.As(err, &ce) || ce.Stage != StageTLS || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

// clone is a spec like another.
func clone(spec *Spec) *Spec {
	out := *spec
	return &out
}
