package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// cluster is the one that the tests of this package share, started by the first that needs it.
var cluster = sync.OnceValues(func() (*localpg.Cluster, error) {
	started.Store(true)
	bins, err := localpg.Find(0)
	if err != nil {
		return nil, err
	}
	return localpg.New(context.Background(), localpg.Config{Bins: bins})
})

// started says whether there is a shared cluster to end.
var started atomic.Bool

// TestMain ends the cluster if one was started.
func TestMain(m *testing.M) {
	code := m.Run()
	if started.Load() {
		if c, err := cluster(); err == nil {
			if err := c.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// node is the primary of the shared cluster, which loses all roles but the superuser when the
// test ends.
func node(t *testing.T) *localpg.Node {
	t.Helper()
	c, err := cluster()
	if errors.Is(err, localpg.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	n := c.Nodes[0]
	t.Cleanup(func() {
		if err := n.Exec(context.Background(), "postgres", cleanup); err != nil {
			t.Error(err)
		}
	})
	return n
}

// cleanup drops what the tests create.
const cleanup = `DO $$ DECLARE r record; BEGIN
PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> 'postgres';
DROP SCHEMA IF EXISTS pgweir CASCADE; DROP FUNCTION IF EXISTS public.now(), public.lookup(text);
FOR r IN SELECT rolname FROM pg_roles WHERE rolname <> 'postgres' AND rolname !~ '^pg_' LOOP
EXECUTE format('DROP ROLE %I', r.rolname); END LOOP; END $$`

// run executes statements as the superuser.
func run(t *testing.T, n *localpg.Node, sql string) {
	t.Helper()
	if err := n.Exec(t.Context(), "postgres", sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// conversation is the raw login of a client: what the node or we answer to its messages.
type conversation interface {
	// say sends one message of type 'p' and returns the type and body of the answer.
	say(body []byte) (typ byte, answer []byte)
}

// realNode speaks with a node.
type realNode struct {
	t    *testing.T
	conn net.Conn
}

// dialNode connects and reads the first request.
func dialNode(t *testing.T, n *localpg.Node, user string) *realNode {
	t.Helper()
	c, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := &realNode{t: t, conn: c}
	if _, err := c.Write(pgtest.Join(pgtest.Startup(0, "user", user, "database", "postgres"))); err != nil {
		t.Fatal(err)
	}
	if typ, body := r.read(); typ != 'R' || string(body) != "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" {
		t.Fatalf("%q %q", typ, body)
	}
	return r
}

// read is the next message.
func (r *realNode) read() (byte, []byte) {
	m, err := pgtest.ReadMessage(r.conn)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			r.t.Fatal(err)
		}
		return 0, nil
	}
	return m.Type, m.Body
}

// say is for conversation.
func (r *realNode) say(body []byte) (byte, []byte) {
	if _, err := r.conn.Write(pgtest.Join(pgtest.Msg('p', body))); err != nil {
		r.t.Fatal(err)
	}
	return r.read()
}

// ours speaks with a ServerExchange.
type ours struct{ x *ServerExchange }

// say is for conversation.
func (o ours) say(body []byte) (byte, []byte) {
	out, _, err := o.x.Step(nil, body)
	var e *Error
	if errors.As(err, &e) {
		return 'E', pgtest.Error("", e.SQLState, e.Message, "D"+e.Detail).Body
	}
	return out[0], out[5:]
}

// verdict is what a client can compare: the kind of answer and the error without its place.
func verdict(typ byte, body []byte) string {
	if typ != 'E' {
		return string(typ)
	}
	m := pgtest.Message{Type: typ, Body: body}
	return "E " + pgtest.Field(m, 'C') + " " + pgtest.Field(m, 'M') + " | " + pgtest.Field(m, 'D')
}

func TestMessagesAreJudgedAsPostgreSQLDoes(t *testing.T) {
	n := node(t)
	run(t, n, "CREATE ROLE alice LOGIN PASSWORD 'secret'")
	stored, err := n.Value(t.Context(), "postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'")
	if err != nil {
		t.Fatal(err)
	}
	secret := parse(t, stored)
	seed := NewSeed()
	both := func(user string, secret Secret) map[string]conversation {
		x := NewServerExchange(user, secret, ServerOptions{Seed: seed})
		x.Begin(nil)
		return map[string]conversation{"node": dialNode(t, n, user), "ours": ours{x}}
	}
	compare := func(name string, secret Secret, user string, talk func(c conversation) string) {
		t.Helper()
		got := map[string]string{}
		for who, c := range both(user, secret) {
			got[who] = talk(c)
		}
		if got["node"] != got["ours"] {
			t.Errorf("%q:\nnode %s\nours %s", name, got["node"], got["ours"])
		}
	}
	for _, b := range []string{
		"", "SCRAM-SHA-256", "SCRAM-SHA-1\x00\x00\x00\x00\x00", "SCRAM-SHA-256-PLUS\x00\x00\x00\x00\x00",
		"SCRAM-SHA-256\x00", "SCRAM-SHA-256\x00\x00\x00\x00\x01", "SCRAM-SHA-256\x00\x00\x00\x00\x00x", "SCRAM-SHA-256\x00\xff\xff\xff\xff",
		"SCRAM-SHA-256\x00\xff\xff\xff\xffx", "SCRAM-SHA-256\x00\xff\xff\xff\xfe", "SCRAM-SHA-256\x00\x7f\xff\xff\xff", "secret\x00", "md5abc\x00",
	} {
		compare(b, secret, "alice", func(c conversation) string { return verdict(c.say([]byte(b))) })
	}
	for _, first := range []string{
		"", "n,,n=,r=abc", "y,,n=,r=abc", "p=tls-server-end-point,,n=,r=abc", "p=x,,n=,r=a", "n", "n,", "n,,", "nx", "n,a=bob,n=,r=abc", "n,b=1,n=,r=x",
		"n,,m=ext,n=,r=abc", "n,,n=", "n,,n=,", "n,,n=,r", "n,,n=,r=", "n,,n=bob,r=abc,x=1,y=2", "n,,n=,r=abc,", "n,,n=,r=abc,1=2", "n,,n=,r=abc,xy", "n,,r=abc",
		"n,,n=,r=a c", "n,,n=,r=a\x7fc", "n,,n=,r=\xc3\xa9", "z,,n=,r=abc", "\x01", "N,,n=,r=abc", "n,,n=,r=abc\x00", "n,,,n=,r=abc",
		"n,,n=,r=" + strings.Repeat("x", 900),
	} {
		compare(first, secret, "alice", func(c conversation) string { return verdict(c.say(initial("SCRAM-SHA-256", first))) })
	}
	zero := encoding.EncodeToString(make([]byte, keyLen))
	for _, final := range []string{
		"", "c=biws,r=NONCE,p=" + zero, "c=biws,r=NONCE,p=" + zero + ",", "c=biws,r=NONCE,p=" + zero + ",x=1", "c=biws,r=NONCE,x=1,p=" + zero,
		"c=eSws,r=NONCE,p=" + zero, "c=,r=NONCE,p=" + zero, "c=biws,r=NONCEx,p=" + zero, "c=biws,r=other,p=" + zero, "c=biws,r=NONCE", "c=biws,r=NONCE,",
		"c=biws,r=NONCE,p=AAAA", "c=biws,r=NONCE,p=!", "c=biws,p=" + zero, "r=NONCE,c=biws,p=" + zero, "c=biws,r=NONCE,p=" + zero + "\x00", "c=biws", "x",
		"n,,n=,r=abc", "c=biws,r=NONCE,1=x,p=" + zero,
	} {
		for user, s := range map[string]Secret{"alice": secret, "nobody": {}} {
			compare(final, s, user, func(c conversation) string {
				typ, body := c.say(initial("SCRAM-SHA-256", "n,,n=,r=abc"))
				if typ != 'R' {
					return verdict(typ, body)
				}
				nonce, _, _ := strings.Cut(strings.TrimPrefix(string(body[4:]), "r="), ",")
				return verdict(c.say([]byte(strings.ReplaceAll(final, "NONCE", nonce))))
			})
		}
	}
	compare("late first message", secret, "alice", func(c conversation) string {
		return verdict(c.say([]byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"))) + verdict(c.say([]byte("n,,n=,r=abc")))
	})
}

// target is the way to a node as a role.
func target(t *testing.T, n *localpg.Node, user, password string) *pgconn.Config {
	t.Helper()
	cfg, err := pgconn.ParseConfig(n.DSNFor("postgres", user, password))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// newQuery is a Query that ends with the test.
func newQuery(t *testing.T, cfg QueryConfig) *Query {
	t.Helper()
	q, err := NewQuery(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

// userLookup is what the monitor's role needs, in the words of interface.md.
const userLookup = `CREATE SCHEMA pgweir; GRANT USAGE ON SCHEMA pgweir TO monitor;
CREATE FUNCTION pgweir.user_lookup(name text, OUT usename name, OUT passwd text) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT rolname, rolpassword FROM pg_authid WHERE rolname = name AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) $$;
REVOKE ALL ON FUNCTION pgweir.user_lookup(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION pgweir.user_lookup(text) TO monitor`

func TestQuery(t *testing.T) {
	n := node(t)
	run(t, n, `CREATE ROLE monitor LOGIN PASSWORD 'm'; CREATE ROLE alice LOGIN PASSWORD 'secret';
		CREATE ROLE late LOGIN PASSWORD 'x' VALID UNTIL '2020-01-01'; CREATE ROLE nologin PASSWORD 'x'; CREATE ROLE nopass LOGIN;
		CREATE ROLE super LOGIN SUPERUSER PASSWORD 'x'; CREATE ROLE repl LOGIN REPLICATION PASSWORD 'x'; CREATE ROLE "a""b c" LOGIN PASSWORD 'y';
		SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD 'z'`)
	monitor := func(context.Context) (*pgconn.Config, error) { return target(t, n, "monitor", "m"), nil }
	super := func(context.Context) (*pgconn.Config, error) { return pgconn.ParseConfig(n.DSN("postgres")) }
	ctx := t.Context()

	cfg := DefaultQueryConfig(monitor)
	cfg.NegativeTTL = 0
	q := newQuery(t, cfg)
	if _, err := q.Lookup(ctx, "alice"); !errors.Is(err, ErrQueryRights) {
		t.Fatal(err)
	}
	run(t, n, userLookup)
	for name, q := range map[string]*Query{"function": q, "catalog": newQuery(t, DefaultQueryConfig(super))} {
		for user, kind := range map[string]secretKind{"alice": secretSCRAM, "old": secretMD5, `a"b c`: secretSCRAM} {
			if s, err := q.Lookup(ctx, user); err != nil || s.kind != kind {
				t.Errorf("%s: %s: %v %v", name, user, s.kind, err)
			}
		}
		for _, user := range []string{"late", "nologin", "nopass", "super", "repl", "nobody", "", "postgres", "\xff", "a' OR 'a' = 'a", strings.Repeat("a", 100)} {
			if _, err := q.Lookup(ctx, user); !errors.Is(err, ErrNoUser) {
				t.Errorf("%s: %s: %v", name, user, err)
			}
		}
	}
	s, err := q.Lookup(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := exchange(t, ServerOptions{Seed: NewSeed()}, ClientOptions{}, s, Keys{Password: "secret"}); err != nil {
		t.Error(err)
	}
	run(t, n, "ALTER ROLE alice PASSWORD 'changed'")
	if s, err := q.Lookup(ctx, "alice"); err != nil || s.verifier.storedKey == nil {
		t.Fatal(err)
	} else if _, _, err := exchange(t, ServerOptions{Seed: NewSeed()}, ClientOptions{}, s, Keys{Password: "changed"}); err == nil {
		t.Error("the old secret was not remembered")
	}
	q.Forget("alice")
	if s, err := q.Lookup(ctx, "alice"); err != nil {
		t.Fatal(err)
	} else if _, _, err := exchange(t, ServerOptions{Seed: NewSeed()}, ClientOptions{}, s, Keys{Password: "changed"}); err != nil {
		t.Error(err)
	}
}

func TestQueryOfTheUser(t *testing.T) {
	n := node(t)
	run(t, n, `CREATE ROLE alice LOGIN PASSWORD 'secret';
		CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
		CREATE FUNCTION public.lookup(name text) RETURNS text LANGUAGE sql AS $$ SELECT 'path ' || current_setting('search_path') $$`)
	super := func(context.Context) (*pgconn.Config, error) {
		cfg, err := pgconn.ParseConfig(n.DSN("postgres"))
		if err == nil {
			cfg.RuntimeParams["search_path"] = "public"
		}
		return cfg, err
	}
	for sql, want := range map[string]string{
		"SELECT usename, passwd FROM pg_shadow WHERE usename = $1": "scram", "SELECT passwd FROM pg_shadow WHERE usename = $1": "scram",
		"SELECT public.lookup($1)": "path pg_catalog, pg_temp", "SELECT lookup($1)": "42883", "SELECT 'bob', passwd FROM pg_shadow WHERE usename = $1": "another user",
		"SELECT passwd FROM pg_shadow, generate_series(1, 2) WHERE usename = $1": "2 rows", "SELECT $1, 'SCRAM-SHA-256$broken'": "no SCRAM verifier",
		"SELECT $1, NULL": "no such user", "SELEC": "42601",
	} {
		cfg := DefaultQueryConfig(super)
		cfg.SQL = sql
		s, err := newQuery(t, cfg).Lookup(t.Context(), "alice")
		got := s.text
		if s.kind == secretSCRAM {
			got = "scram"
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}

func TestQueryFollowsThePrimaryAndHeals(t *testing.T) {
	n := node(t)
	run(t, n, "CREATE ROLE alice LOGIN PASSWORD 'a'")
	fake := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		return errors.Join(c.LoginTrust(), c.Serve(answer(func() string { return "b" })))
	})
	dsn := n.DSN("postgres")
	cfg := DefaultQueryConfig(func(context.Context) (*pgconn.Config, error) { return pgconn.ParseConfig(dsn) })
	cfg.TTL, cfg.NegativeTTL = 0, 0
	q := newQuery(t, cfg)
	knows := func(password string) {
		t.Helper()
		s, err := q.Lookup(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := exchange(t, ServerOptions{Seed: NewSeed()}, ClientOptions{}, s, Keys{Password: password}); err != nil {
			t.Fatal(err)
		}
	}
	knows("a")
	run(t, n, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgweir auth_query'")
	knows("a")
	dsn = "postgres://m@" + fake.Addr() + "/postgres?sslmode=disable"
	knows("b")
	fake.KillConns()
	knows("b")
}

// answer is a node that returns one row to every query.
func answer(secret func() string) func(m pgtest.Message) []pgtest.Message {
	return func(m pgtest.Message) []pgtest.Message {
		if m.Type != 'S' {
			return nil
		}
		return []pgtest.Message{
			pgtest.ParseComplete(), pgtest.BindComplete(), pgtest.RowDescription("secret"),
			pgtest.DataRow(secret()), pgtest.CommandComplete("SELECT 1"), pgtest.ReadyForQuery('I'),
		}
	}
}

func TestQueryOnce(t *testing.T) {
	release := make(chan struct{})
	asked := make(chan struct{}, 100)
	fake := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		return errors.Join(c.LoginTrust(), c.Serve(answer(func() string {
			asked <- struct{}{}
			<-release
			return "secret"
		})))
	})
	cfg := DefaultQueryConfig(func(context.Context) (*pgconn.Config, error) {
		return pgconn.ParseConfig("postgres://m@" + fake.Addr() + "/postgres?sslmode=disable")
	})
	cfg.Timeout, cfg.MaxEntries = 20*time.Second, 2
	q := newQuery(t, cfg)
	var first, all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	first.Go(func() {
		if _, err := q.Lookup(ctx, "alice"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-asked
	for range 20 {
		all.Go(func() {
			if s, err := q.Lookup(t.Context(), "alice"); err != nil || s.text != "secret" {
				t.Error(err)
			}
		})
	}
	cancel() // the others do not suffer from it
	first.Wait()
	close(release)
	all.Wait()
	if n := len(asked); n != 1 {
		t.Errorf("%d queries for one user", n)
	}
	for _, user := range []string{"b", "c", "d", "e"} {
		if _, err := q.Lookup(t.Context(), user); err != nil {
			t.Error(err)
		}
	}
	if n := len(q.mu.known); n != 2 {
		t.Errorf("%d entries are remembered", n)
	}
	q.Close()
	if _, err := q.Lookup(t.Context(), "b"); err == nil {
		t.Error("an answer after Close")
	}
}
