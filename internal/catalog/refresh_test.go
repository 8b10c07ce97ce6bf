package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/router"
)

// runManager runs a manager on the shared server for the test.
func runManager(t *testing.T, change func(*Config)) *Manager {
	t.Helper()
	node(t)
	cfg := DefaultConfig()
	cfg.Cluster = "c"
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Target = func(_ context.Context, db string) (*pgconn.Config, error) { return super(t, db), nil }
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return m
}

// settle runs DDL and returns the view that was read after it.
func settle(t *testing.T, d *Database, ddl string) *router.Catalog {
	t.Helper()
	run(t, d.name, ddl)
	stamp := d.Invalidate()
	deadline := time.After(30 * time.Second)
	for !d.Settled(stamp) {
		d.mu.Lock()
		next := d.mu.attempt.done
		d.mu.Unlock()
		if d.Settled(stamp) {
			break
		}
		select {
		case <-next:
		case <-deadline:
			t.Fatal("the view was not read again")
		}
	}
	return d.View()
}

// TestRefreshSeesDDL walks one database through changes; what did not change comes from the
// cache and must still be there.
func TestRefreshSeesDDL(t *testing.T) {
	database(t, "refresh")
	run(t, "refresh", `
		CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
		CREATE FUNCTION g() RETURNS text LANGUAGE sql AS 'SELECT set_config(''a.b'', ''x'', false)';
		CREATE FUNCTION calls() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN later(); END';
		CREATE TABLE t (a int); CREATE VIEW v AS SELECT f(), a FROM t`)
	m := runManager(t, nil)
	d, err := m.Load(t.Context(), "refresh")
	if err != nil {
		t.Fatal(err)
	}
	fn := func(name string) router.FuncInfo {
		return d.View().Functions[router.QName{Schema: "public", Name: name}]
	}
	rel := func(name string) router.RelInfo {
		return d.View().Relations[router.QName{Schema: "public", Name: name}]
	}
	if fn("f").Verdict != router.VerdictRead || !fn("g").Opaque || rel("v").Read != router.VerdictRead || fn("calls").Opaque {
		t.Fatalf("at first: %+v %+v %+v", fn("f"), fn("g"), rel("v"))
	}
	for _, step := range []struct {
		ddl  string
		want func() bool
	}{
		{`ALTER FUNCTION f() VOLATILE`, func() bool {
			return fn("f").Verdict == router.VerdictDoubtful && rel("v").Read == router.VerdictDoubtful && fn("g").Opaque
		}},
		{`CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT set_config(''a.b'', ''x'', false)::int'`, func() bool {
			return fn("f").Verdict == router.VerdictRead && fn("f").Opaque && rel("v").ReadOpaque
		}},
		{`CREATE OR REPLACE VIEW v AS SELECT 1 AS f, a FROM t`, func() bool { return !rel("v").ReadOpaque }},
		{`ALTER TABLE t SET UNLOGGED`, func() bool {
			return rel("t").Read == router.VerdictPrimary && rel("v").Reason == router.ReasonUnlogged
		}},
		{`CREATE FUNCTION later() RETURNS int LANGUAGE sql AS 'RESET ALL; SELECT 1'`, func() bool { return fn("calls").Opaque }},
		{`DROP FUNCTION later`, func() bool { return !fn("calls").Opaque && fn("later").Verdict == router.VerdictUnknown }},
		{`CREATE FUNCTION pg_catalog.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`, func() bool {
			f := d.View().Functions[router.QName{Schema: "pg_catalog", Name: "mine"}]
			return f.Verdict == router.VerdictDoubtful && f.Builtin
		}},
		{`ALTER FUNCTION pg_catalog.lower(text) VOLATILE`, func() bool {
			f := d.View().Functions[router.QName{Schema: "pg_catalog", Name: "lower"}]
			return f.Verdict == router.VerdictDoubtful && f.Builtin
		}},
		{`CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM g(); END';
		  CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION ev()`, func() bool { return d.View().OpaqueDDL }},
		{`DROP EVENT TRIGGER e`, func() bool { return !d.View().OpaqueDDL }},
	} {
		before := d.View().Generation
		if settle(t, d, step.ddl).Generation == before || !step.want() {
			t.Errorf("after %s: f %+v, calls %+v, t %+v, v %+v", step.ddl, fn("f"), fn("calls"), rel("t"), rel("v"))
		}
	}
	run(t, "postgres", "DROP DATABASE refresh WITH (FORCE)")
	d.Invalidate()
	gone, err := m.Load(t.Context(), "refresh")
	for err == nil {
		d.mu.Lock()
		next := d.mu.attempt.done
		d.mu.Unlock()
		select {
		case <-next:
		case <-t.Context().Done():
			t.Fatal("the dropped database stays")
		}
		gone, err = m.Load(t.Context(), "refresh")
	}
	if gone != nil || m.Database("refresh") != nil {
		t.Error("the dropped database is kept")
	}
}

// TestEncodings reads databases whose encoding is not UTF-8, with bytes that do not convert.
func TestEncodings(t *testing.T) {
	for _, c := range []struct{ encoding, literal, want string }{
		{"SQL_ASCII", `E'\\xff'`, "\xff"},
		{"LATIN1", `E'\\xe9'`, "é"},
		{"EUC_JP", `E'\\xa4a2'`, "あ"},
		{"MULE_INTERNAL", `E'\\x81e9'`, "\x81\xe9"},
	} {
		t.Run(c.encoding, func(t *testing.T) {
			db := "enc_" + c.encoding
			run(t, "postgres", fmt.Sprintf(`CREATE DATABASE %q ENCODING '%s' LOCALE 'C' TEMPLATE template0`, db, c.encoding))
			t.Cleanup(func() { _ = node(t).Exec(context.Background(), "postgres", fmt.Sprintf("DROP DATABASE %q", db)) })
			conn, err := pgconn.ConnectConfig(t.Context(), super(t, db))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			sql := fmt.Sprintf(`SET client_encoding TO 'SQL_ASCII'; DO $f$ DECLARE n text := convert_from(%s::bytea, '%s'); BEGIN
				EXECUTE format('CREATE FUNCTION %%I() RETURNS int LANGUAGE sql STABLE AS ''SELECT 1 /* %%s */''', n, n); END $f$`, c.literal, c.encoding)
			if err := conn.Exec(t.Context(), sql).Close(); err != nil {
				t.Fatal(err)
			}
			d, err := Read(t.Context(), super(t, db), Rules{}, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if f := d.View().Functions[router.QName{Schema: "public", Name: c.want}]; f.Verdict != router.VerdictRead {
				t.Errorf("%q is not listed", c.want)
			}
		})
	}
}

// TestTrustedExtensions: without trust, C functions of an extension are opaque.
func TestTrustedExtensions(t *testing.T) {
	database(t, "trust")
	run(t, "trust", `CREATE EXTENSION pgcrypto; CREATE EXTENSION dblink`)
	name := func(s string) router.QName { return router.QName{Schema: "public", Name: s} }
	for _, c := range []struct {
		trusted           []string
		salt              router.NameVerdict
		saltOpaque, dblnk bool
	}{
		{nil, router.VerdictRead, false, false},
		{[]string{}, router.VerdictDoubtful, true, true},
		{[]string{"pgcrypto"}, router.VerdictRead, false, true},
		{[]string{"contrib", "postgis"}, router.VerdictRead, false, false},
	} {
		f := read(t, "trust", Rules{TrustedExtensions: c.trusted}, newCache()).catalog.Functions
		if got := f[name("gen_salt")]; got.Verdict != c.salt || got.Opaque != c.saltOpaque {
			t.Errorf("trusting %q: gen_salt %+v", c.trusted, got)
		}
		if got := f[name("dblink_exec")]; got.Opaque != c.dblnk {
			t.Errorf("trusting %q: dblink_exec %+v", c.trusted, got)
		}
	}
}
