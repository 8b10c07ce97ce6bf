package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/internal/auth"
	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
	"pgweir/internal/pgwire"
)

// hba lets every role in by the method of its name.
var hba = []string{
	"hostssl all sslonly 127.0.0.1/32 scram-sha-256",
	"hostnossl all plainonly 127.0.0.1/32 scram-sha-256",
	"host all clear 127.0.0.1/32 password",
	"host all trusted 127.0.0.1/32 trust",
	"host all old 127.0.0.1/32 md5",
	"hostssl all bycert 127.0.0.1/32 cert",
	"host all forbidden,sslonly,plainonly,bycert 127.0.0.1/32 reject",
}

// roles are the users of the tests; the password of all is "secret".
const roles = `CREATE ROLE scram LOGIN PASSWORD 'secret'; CREATE ROLE sslonly LOGIN PASSWORD 'secret'; CREATE ROLE plainonly LOGIN PASSWORD 'secret';
CREATE ROLE clear LOGIN PASSWORD 'secret'; CREATE ROLE trusted LOGIN; CREATE ROLE one LOGIN PASSWORD 'secret' CONNECTION LIMIT 1;
CREATE ROLE bycert LOGIN; CREATE ROLE forbidden LOGIN PASSWORD 'secret'; CREATE ROLE odd LOGIN PASSWORD E'\u2168\u00a0x';
SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD 'secret'`

// server is a real node with TLS, and the files that its clients need.
type server struct {
	*localpg.Node
	cluster *localpg.Cluster
	dir     string
	files   TLSFiles // root certificate and a client certificate for bycert
}

// shared is the server of all tests of this package, started by the first that needs it.
var (
	shared  = sync.OnceValues(startServer)
	started atomic.Bool
)

// stopShared ends the shared server if there is one.
func stopShared() error {
	if !started.Load() {
		return nil
	}
	s, _ := shared() // the error was a test's
	if s.cluster == nil {
		return nil
	}
	return errors.Join(s.cluster.Close(), os.RemoveAll(s.dir))
}

// startServer makes a server whose clients find their files in a directory of its own.
func startServer() (s server, err error) {
	started.Store(true)
	bins, err := localpg.Find(0)
	if err != nil {
		return server{}, err
	}
	ca, err := pgtest.MakeCA()
	if err != nil {
		return server{}, err
	}
	pair, err := ca.Sign("node", "127.0.0.1", "db.example")
	if err != nil {
		return server{}, err
	}
	client, err := ca.Sign("bycert")
	if err != nil {
		return server{}, err
	}
	c, err := localpg.New(context.Background(), localpg.Config{
		Bins: bins, HBA: hba,
		Files: map[string][]byte{"server.crt": pair.Cert, "server.key": pair.Key, "ca.crt": ca.PEM},
		Settings: map[string]string{
			"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt",
			"max_connections": "40",
		},
	})
	if err != nil {
		return server{}, err
	}
	dir, err := os.MkdirTemp("", "pgweir-pool-test")
	if err != nil {
		return server{}, errors.Join(err, c.Close())
	}
	for name, text := range map[string][]byte{"ca.crt": ca.PEM, "client.crt": client.Cert, "client.key": client.Key} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	err = errors.Join(err, c.Nodes[0].Exec(context.Background(), "postgres", roles))
	return server{Node: c.Nodes[0], cluster: c, dir: dir, files: TLSFiles{
		RootCert: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "client.crt"), Key: filepath.Join(dir, "client.key"),
	}}, err
}

// newServer is the shared server.
func newServer(t *testing.T) server {
	t.Helper()
	s, err := shared()
	if errors.Is(err, localpg.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run executes statements as the superuser.
func (s server) run(t *testing.T, sql string) {
	t.Helper()
	if err := s.Exec(t.Context(), "postgres", sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// value is the one value of a query of the superuser.
func (s server) value(t *testing.T, sql string) string {
	t.Helper()
	v, err := s.Value(t.Context(), "postgres", sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// spec is a spec for a role of the server.
func (s server) spec(t *testing.T, user string, mode SSLMode, keys auth.Keys) *Spec {
	t.Helper()
	files := TLSFiles{}
	if mode == SSLVerifyCA || mode == SSLVerifyFull {
		files.RootCert = s.files.RootCert
	}
	conf, err := NewTLS(mode, files)
	if err != nil {
		t.Fatal(err)
	}
	return &Spec{
		Key:    Key{Cluster: "main", Node: s.Port(), Database: "postgres", User: user},
		Target: Target{Addr: s.Addr(), TLS: conf}, NodeName: "pg-a", Keys: keys,
	}
}

// passthrough is the keys that a client's proof yields when it is checked with the node's verifier.
func (s server) passthrough(t *testing.T, user, password string) auth.Keys {
	t.Helper()
	secret, err := auth.ParseSecret(s.value(t, "SELECT rolpassword FROM pg_authid WHERE rolname = '"+user+"'"))
	if err != nil {
		t.Fatal(err)
	}
	x := auth.NewServerExchange(user, secret, auth.ServerOptions{Seed: auth.NewSeed()})
	c := auth.NewClientExchange(user, auth.Keys{Password: password}, auth.ClientOptions{})
	msg, done := x.Begin(nil), false
	for !done {
		answer, err := c.Step(nil, msg[5:])
		if err != nil {
			t.Fatal(err)
		}
		if msg, done, err = x.Step(nil, answer[5:]); err != nil {
			t.Fatal(err)
		}
	}
	return x.Keys()
}

// ask runs a query on a lease and returns its rows.
func ask(t *testing.T, c *Conn, sql string) (string, error) {
	t.Helper()
	_ = c.Link.SetDeadline(time.Now().Add(20 * time.Second))
	defer func() { _ = c.Link.SetDeadline(time.Time{}) }()
	if err := c.Link.Write(pgwire.AppendQuery(nil, sql)); err != nil {
		return "", err
	}
	var out []string
	var failed error
	for {
		typ, body, err := c.Link.ReadMessage(1 << 20)
		if err != nil {
			return "", err
		}
		switch typ {
		case pgwire.MsgDataRow:
			out = append(out, string(body[6:]))
		case pgwire.MsgErrorResponse:
			failed = responseError("", StageReady, body)
		case pgwire.MsgReadyForQuery:
			return strings.Join(out, "|"), failed
		}
	}
}

func TestRealLogins(t *testing.T) {
	s := newServer(t)
	password := auth.Keys{Password: "secret"}
	md5 := auth.Keys{MD5: s.value(t, "SELECT rolpassword FROM pg_authid WHERE rolname = 'old'")}
	through := s.passthrough(t, "scram", "secret")
	if through.ClientKey == nil || through.Password != "" {
		t.Fatal("no pass-through")
	}
	s.run(t, "CREATE DATABASE locked")
	s.run(t, "UPDATE pg_database SET datallowconn = false WHERE datname = 'locked'")
	stale := through
	stale.Salt = []byte("another salt")
	forged := through
	forged.ServerKey = make([]byte, 32)
	for _, tc := range []struct {
		user string
		mode SSLMode
		keys auth.Keys
		tls  bool
		want string // SQLSTATE, or part of the error; "" is success
	}{
		{"scram", SSLDisable, password, false, ""},
		{"scram", SSLDisable, through, false, ""},
		{"scram", SSLRequire, through, true, ""},
		{"scram", SSLVerifyFull, through, true, ""},
		{"scram", SSLVerifyCA, password, true, ""},
		{"scram", SSLPrefer, password, true, ""},
		{"scram", SSLAllow, password, false, ""},
		{"odd", SSLDisable, auth.Keys{Password: "\u2168\u00a0x"}, false, ""},
		{"odd", SSLDisable, auth.Keys{Password: "IX x"}, false, ""},
		{"old", SSLDisable, md5, false, ""},
		{"old", SSLDisable, password, false, ""},
		{"clear", SSLDisable, password, false, ""}, // on loopback
		{"trusted", SSLDisable, auth.Keys{}, false, ""},
		{"sslonly", SSLAllow, password, true, ""},
		{"sslonly", SSLPrefer, password, true, ""},
		{"sslonly", SSLDisable, password, false, "28000"},
		{"plainonly", SSLPrefer, password, false, ""},
		{"plainonly", SSLRequire, password, false, "28000"},
		{"forbidden", SSLPrefer, password, false, "28000"},
		{"scram", SSLDisable, auth.Keys{Password: "wrong"}, false, "28P01"},
		{"scram", SSLRequire, auth.Keys{Password: "wrong"}, false, "28P01"},
		{"nobody", SSLDisable, password, false, "28P01"},
		{"scram", SSLDisable, stale, false, auth.ErrOtherVerifier.Error()},
		{"scram", SSLDisable, forged, false, auth.ErrNodeProof.Error()},
		{"scram", SSLDisable, md5, false, "only an md5 hash is known"},
		{"clear", SSLDisable, through, false, "only SCRAM keys are known"},
		{"old", SSLDisable, auth.Keys{}, false, "nothing is known"},
	} {
		p := newPool(t, nil)
		c, err := p.Get(t.Context(), s.spec(t, tc.user, tc.mode, tc.keys))
		name := fmt.Sprintf("%s %v %v", tc.user, tc.mode, tc.keys)
		if tc.want != "" {
			var ce *ConnectError
			if !errors.As(err, &ce) || ce.SQLState != tc.want && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %s", name, err, tc.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := ask(t, c, "SELECT current_user || ' ' || pg_backend_pid() || ' ' || (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())")
		if want := fmt.Sprintf("%s %d %v", tc.user, c.PID, tc.tls); err != nil || got != want || c.TLS != tc.tls {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
		p.Put(c)
	}
	spec := s.spec(t, "scram", SSLDisable, password)
	for db, want := range map[string]string{"nowhere": "3D000", "locked": "55000"} {
		spec.Database = db
		var ce *ConnectError
		if _, err := newPool(t, nil).Get(t.Context(), spec); !errors.As(err, &ce) || ce.SQLState != want || ce.Stage != StageReady || ce.Unavailable() {
			t.Errorf("%s: %v", db, err)
		}
	}
}

func TestRealTLS(t *testing.T) {
	s := newServer(t)
	p := newPool(t, nil)
	spec := s.spec(t, "scram", SSLVerifyFull, auth.Keys{Password: "secret"})
	spec.Host = "db.example"
	p.Put(get(t, p, spec))
	spec.Host, spec.Startup = "other.example", "x"
	if _, err := p.Get(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Error(err)
	}
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign.crt")
	if err := os.WriteFile(foreign, pgtest.NewCA(t).PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []SSLMode{SSLRequire, SSLVerifyCA, SSLVerifyFull} {
		var err error
		if spec.TLS, err = NewTLS(mode, TLSFiles{RootCert: foreign}); err != nil {
			t.Fatal(err)
		}
		var ce *ConnectError
		if _, err := p.Get(t.Context(), spec); !errors.As(err, &ce) || ce.Stage != StageTLS || !strings.Contains(err.Error(), "verifying") {
			t.Errorf("%v: %v", mode, err)
		}
	}
	byCert := s.spec(t, "bycert", SSLVerifyFull, auth.Keys{})
	var err error
	if byCert.TLS, err = NewTLS(SSLVerifyFull, s.files); err != nil {
		t.Fatal(err)
	}
	c := get(t, p, byCert)
	if got, err := ask(t, c, "SELECT current_user"); err != nil || got != "bycert" {
		t.Error(got, err)
	}
	if err := c.Cancel(t.Context()); err != nil {
		t.Error(err)
	}
	c.Dirty = true
	p.Put(c)
}

func TestRealUnixSocket(t *testing.T) {
	s := newServer(t)
	p := newPool(t, nil)
	for _, addr := range []string{
		fmt.Sprintf("%s/.s.PGSQL.%d", s.cluster.SocketDir(), s.Port()), fmt.Sprintf("%s:%d", s.cluster.SocketDir(), s.Port()),
	} {
		spec := s.spec(t, "scram", SSLRequire, auth.Keys{})
		spec.Addr, spec.Startup = addr, addr
		c := get(t, p, spec)
		if got, err := ask(t, c, "SELECT inet_server_addr() IS NULL"); err != nil || got != "t" {
			t.Error(got, err)
		}
		p.Put(c)
	}
	spec := s.spec(t, "scram", SSLDisable, auth.Keys{})
	spec.Addr = s.cluster.SocketDir() + ":1"
	var ce *ConnectError
	if _, err := p.Get(t.Context(), spec); !errors.As(err, &ce) || !ce.Refused() {
		t.Error(err)
	}
}

func TestRealTooMany(t *testing.T) {
	s := newServer(t)
	p := newPool(t, nil)
	spec := s.spec(t, "one", SSLDisable, auth.Keys{Password: "secret"})
	c := get(t, p, spec)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var we *WaitError
	if _, err := p.Get(ctx, spec); !errors.As(err, &we) || we.Node == nil || we.Node.SQLState != "53300" || we.Node.Unavailable() {
		t.Fatal(err)
	}
	if fields, err := pgwire.ErrorFields(we.Node.Response); err != nil || string(fields.Message) != `too many connections for role "one"` {
		t.Error(string(we.Node.Response))
	}
	other := newPool(t, nil)
	var ce *ConnectError
	if _, err := other.Get(t.Context(), spec); !errors.As(err, &ce) || ce.SQLState != "53300" {
		t.Error(err)
	}
	p.Put(c)
	if again := get(t, p, spec); again != c {
		t.Error("not reused")
	}
}

func TestRealReset(t *testing.T) {
	s := newServer(t)
	p := newPool(t, nil)
	spec := s.spec(t, "scram", SSLDisable, s.passthrough(t, "scram", "secret"))
	spec.Params = []pgwire.Param{{Name: "TimeZone", Value: "Asia/Seoul"}, {Name: "application_name", Value: "first"}}
	c := get(t, p, spec)
	pid := c.PID
	if c.Param("TimeZone") != "Asia/Seoul" || c.Param("application_name") != "first" || c.Param("server_version") == "" {
		t.Error(c.Params)
	}
	before := fmt.Sprint(c.Params)
	for name, want := range map[string]string{
		"client_connection_check_interval": "2s", "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "3",
		"tcp_keepalives_count": "3", "tcp_user_timeout": "20000",
	} {
		if got, err := ask(t, c, "SHOW "+name); err != nil || got != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for _, sql := range []string{
		"SET TimeZone = 'Europe/Paris'", "CREATE TEMP TABLE x ()", "SELECT pg_advisory_lock(1)", "LISTEN a", "PREPARE p AS SELECT 1",
		"NOTIFY a",
	} {
		if _, err := ask(t, c, sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	c.Dirty = true
	p.Put(c)
	if again := get(t, p, spec); again != c || c.PID != pid {
		t.Fatal("not reused")
	}
	for sql, want := range map[string]string{
		"SHOW TimeZone": "Asia/Seoul", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'": "0", "SHOW application_name": "first",
		"SELECT count(*) FROM pg_prepared_statements": "0", "SELECT to_regclass('pg_temp.x') IS NULL": "t", "SELECT count(*) FROM pg_listening_channels()": "0",
	} {
		if got, err := ask(t, c, sql); err != nil || got != want {
			t.Errorf("%s: %q %v", sql, got, err)
		}
	}
	if after := fmt.Sprint(c.Params); after != before {
		t.Errorf("parameters changed:\n%s\n%s", before, after)
	}
	if _, err := ask(t, c, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	c.Dirty = true
	p.Put(c)
	if again := get(t, p, spec); again == c || again.PID == pid {
		t.Error("a connection that could not be reset was reused")
	}
}

func TestRealCancel(t *testing.T) {
	s := newServer(t)
	p := newPool(t, nil)
	for _, mode := range []SSLMode{SSLDisable, SSLRequire} {
		spec := s.spec(t, "scram", mode, auth.Keys{Password: "secret"})
		spec.Startup = mode.String()
		c := get(t, p, spec)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := ask(t, c, "SELECT pg_sleep(60)")
			var ce *ConnectError
			if !errors.As(err, &ce) || ce.SQLState != "57014" {
				t.Error(err)
			}
		})
		for s.value(t, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND state = 'active' AND query LIKE '%%sleep%%'", c.PID)) != "1" {
			if t.Context().Err() != nil {
				t.Fatal("no sleep")
			}
		}
		if err := c.Cancel(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		// The cancel is over: what comes now is not hit.
		for range 20 {
			if err := c.Cancel(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := ask(t, c, "SELECT pg_sleep(0)"); err != nil {
				t.Error(err)
			}
		}
		p.Put(c)
	}
}

func TestRealDeathWhileIdle(t *testing.T) {
	s := newServer(t)
	p := newPool(t, nil)
	for _, mode := range []SSLMode{SSLDisable, SSLRequire} {
		spec := s.spec(t, "scram", mode, auth.Keys{Password: "secret"})
		spec.Startup = mode.String()
		c := get(t, p, spec)
		p.Put(c)
		s.run(t, fmt.Sprintf("SELECT pg_terminate_backend(%d, 10000)", c.PID))
		if again := get(t, p, spec); again == c {
			t.Error("a dead connection was given out")
		} else {
			p.Put(again)
		}
	}
	if err := s.Restart(context.Background(), localpg.Immediate); err != nil {
		t.Fatal(err)
	}
	p.sweep(time.Now())
	if got := total(p); got != (Stat{}) {
		t.Errorf("%+v", got)
	}
}
