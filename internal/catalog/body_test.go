package catalog

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// bodyWords renders what a scan found: flags, then calls and relations.
func bodyWords(out *code, names *symbols) string {
	if out == nil {
		return ""
	}
	var words []string
	for _, f := range []struct {
		flag refFlags
		word string
	}{{codeOpaque, "opaque"}, {codeNextval, "nextval"}, {codeCurrval, "currval"}, {codeDDL, "ddl"}} {
		if out.flags&f.flag != 0 {
			words = append(words, f.word)
		}
		if f.flag == codeOpaque && out.flags&(codeOpaque|codeLasting) == codeOpaque {
			words = append(words, "passing")
		}
	}
	var refs []string
	for _, r := range out.refs {
		prefix := map[refKind]string{refCall: "", refRead: "r:", refWrite: "w:", refTypeName: "::", refLeaves: "leaves:"}[r.kind]
		name := names.text(r.b)
		if name == "=" {
			continue // in nearly every statement
		}
		if r.a != 0 {
			name = names.text(r.a) + "." + name
		}
		refs = append(refs, prefix+name)
	}
	slices.Sort(refs)
	return strings.Join(append(words, refs...), " ")
}

// TestBody: what is found in a body, by statement; each with its near misses.
func TestBody(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{``, ``},
		{`SELECT f(1), s.g(a.b), "Q"(2), c.s.h()`, `Q f s.g s.h`},
		{`SELECT f -- g()
			/* h() */ (1), 'i()', $$j()$$, $x$k() $$ l()$x$, E'\'m()', U&'n()', B'1', n'o()'`, `f`},
		{`SELECT a FROM t, s.u LEFT JOIN v USING (x) WHERE w IN (1, 2)`, `in r:s.u r:t r:v r:x`},
		{`SELECT 1 FROM (SELECT 1 FROM a WHERE x) q, b`, `r:a r:b`},
		{`SELECT 1 FROM (a JOIN b ON true), LATERAL f(c) d`, `f r:a r:b r:lateral`},
		{`INSERT INTO t (a) SELECT b FROM u`, `r:u t w:t`},
		{`WITH x AS (UPDATE ONLY t SET a = 1 RETURNING *) DELETE FROM s.u USING v`, `* as r:v w:s.u w:t`},
		{`MERGE INTO t USING u ON true WHEN MATCHED THEN UPDATE SET a = 1`, `r:u w:t`},
		{`TRUNCATE a, s.b; TRUNCATE TABLE ONLY c`, `w:a w:c w:s.b`},
		{`COPY t FROM '/x'`, `w:t`},
		{`REFRESH MATERIALIZED VIEW CONCURRENTLY m`, `w:concurrently w:m`},
		{`INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 2`, `w:t`},
		{`SELECT nextval('s'), pg_catalog.currval('s'), other.lastval()`, `nextval currval nextval other.lastval pg_catalog.currval`},
		{`SELECT lastval()`, `currval lastval`},
		{`SELECT setval('s', 1)`, `nextval setval`},

		{`SET a = 1`, `opaque passing`},
		{`SELECT 1; SET SESSION a TO 1`, `opaque passing`},
		{`BEGIN <<l>> LOOP SET ROLE x; END LOOP; END`, `opaque passing << >>`},
		{`BEGIN IF a THEN x := 1; ELSE SET a TO 1; END IF; END`, `opaque passing`},
		{`BEGIN EXCEPTION WHEN others THEN SET SESSION AUTHORIZATION x; END`, `opaque passing`},
		{`SET LOCAL a = 1; SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED`, ``},
		{`SET a.b = 1`, `opaque`},
		{`SET SESSION "a.b" TO 1; SET local_x TO 1`, `opaque`},
		{`SET session.b TO 1`, `opaque`},
		{`SET seed TO 0.5`, `opaque`},
		{`RESET a.b`, `opaque`},
		{`SELECT set_config('a.b', 'c', false)`, `opaque set_config`},
		{`SELECT set_config('SEED', 'c', false)`, `opaque set_config`},
		{`SELECT set_config('a' || b, 'c', false)`, `opaque set_config ||`},
		{`SELECT set_config(a, 'c', false)`, `opaque set_config`},
		{`SELECT set_config('a', 'c', false), set_config(b, 'c', false)`, `opaque set_config`},
		{`SELECT set_config(set_config('a', 'b', false), 'c', false)`, `opaque set_config`},
		{`SELECT set_config(E'a\x2eb', 'c', false)`, `opaque set_config`},
		{`SELECT setseed(0.5), pg_advisory_lock(1)`, `opaque pg_advisory_lock setseed`},
		{`SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY`, `opaque passing`},
		{`UPDATE t SET a = 1; ALTER TABLE t SET UNLOGGED; ALTER ROLE x SET a = 1`, `ddl r:t w:t`},
		{`RESET a`, `opaque passing`},
		{`BEGIN reset := 1; listen = 2; PERFORM reset(1), load(2); END`, `load reset`},
		{`LISTEN a`, `opaque passing`},
		{`UNLISTEN *`, `opaque passing *`},
		{`LOAD 'x'`, `opaque`},
		{`DECLARE load int; BEGIN END`, ``},
		{`DISCARD TEMP`, `opaque passing`},
		{`DEALLOCATE ALL`, `opaque passing`},
		{`PREPARE x AS SELECT 1`, `opaque passing`},
		{`DECLARE c CURSOR WITH HOLD FOR SELECT 1`, `opaque passing`},
		{`DECLARE c CURSOR FOR SELECT 1`, ``},

		{`BEGIN EXECUTE q; END`, `opaque`},
		{`BEGIN EXECUTE 'SELECT f()'; END`, `f`},
		{`BEGIN EXECUTE 'SELECT ''a''; RESET ALL' INTO x USING 1; END`, `opaque passing`},
		{`BEGIN EXECUTE 'SELECT ' || x; END`, `opaque ||`},
		{`BEGIN EXECUTE $q$ UPDATE t SET a = $1 $q$ USING 1; END`, `w:t`},
		{`BEGIN EXECUTE E'SELECT 1\n'; END`, `opaque`},
		{`BEGIN EXECUTE E'SELECT f()'; END`, `f`},
		{`BEGIN OPEN c FOR EXECUTE q; END`, `opaque`},
		{`GRANT EXECUTE ON FUNCTION f() TO x; CREATE TRIGGER a AFTER INSERT ON t EXECUTE PROCEDURE g()`, `ddl f g`},
		{`DO $$ BEGIN RESET ALL; END $$`, `opaque passing`},
		{`DO LANGUAGE plpgsql 'BEGIN PERFORM f(); END'`, `f`},

		{`SELECT set_config('a.B', 'b', true)`, `leaves:a.b set_config`},
		{`SELECT set_config('a.b' || c, 'b', true)`, `set_config ||`},
		{`SELECT set_config(c, 'a.b', true)`, `set_config`},
		{`SELECT set_config(E'a\\x2eb', 'c', true)`, `set_config`},
		{`SELECT set_config(new_value => 'c.d', is_local => true, setting_name => 'a.b')`, `leaves:a.b set_config`},
		{`SELECT set_config(setting_name => 'a.b' || c, new_value => 'd', is_local => true)`, `set_config ||`},
		{`SELECT set_config('a.b', set_config('c.d', 'e', true), true)`, `leaves:a.b leaves:c.d set_config`},
		{`SET LOCAL a.B = 1; SET LOCAL "c.d" TO 2; SET LOCAL e = 3`, `leaves:a.b leaves:c.d`},
		{`BEGIN local := 1; END`, ``},
		{`SELECT set_config('a', 'b', true)`, `set_config`},
		{`SELECT set_config('a', 'b', 'true')`, `set_config`},
		{`SELECT set_config('a', f(1, 2), TRUE), g()`, `f g set_config`},
		{`SELECT set_config(new_value => f(g(1), 2), is_local => true, setting_name => 'x')`, `f g set_config`},
		{`SELECT set_config('a', 'b', false)`, `opaque passing set_config`},
		{`SELECT set_config('a', 'b', NOT true)`, `opaque passing set_config`},
		{`SELECT set_config('a', 'b', x)`, `opaque passing set_config`},
		{`SELECT set_config('a', set_config('b', 'c', false), true)`, `opaque passing set_config`},
		{`SELECT set_config('a', set_config('b', 'c', true), true)`, `set_config`},
		{`SELECT set_config('a', 'b'`, `opaque set_config`},
		{`SELECT other.set_config('a', 'b', false)`, `other.set_config`},

		{`CREATE TEMP TABLE x (a int)`, `opaque passing ddl r:x x`},
		{`CREATE GLOBAL TEMPORARY SEQUENCE x`, `opaque passing ddl`},
		{`CREATE OR REPLACE TEMP VIEW x AS SELECT 1`, `opaque passing ddl`},
		{`CREATE TEMP TABLE x (a int) ON COMMIT DROP`, `ddl r:x x`},
		{`CREATE TEMP TABLE x (a int) ON COMMIT PRESERVE ROWS`, `opaque passing ddl r:x x`},
		{`CREATE TEMP TABLE x (a int); CREATE TEMP TABLE y ON COMMIT DROP AS SELECT 1`, `opaque passing ddl r:x r:y x`},
		{`CREATE TABLE pg_temp.x (a int)`, `opaque passing ddl pg_temp.x r:pg_temp.x`},
		{`SELECT 1 INTO TEMP x FROM t`, `opaque passing r:t`},
		{`BEGIN SELECT 1 INTO temp FROM t; temp := 2; END`, `r:t`},

		{`SELECT pg_advisory_lock(1)`, `opaque passing pg_advisory_lock`},
		{`SELECT pg_try_advisory_lock_shared(1)`, `opaque passing pg_try_advisory_lock_shared`},
		{`SELECT pg_advisory_unlock_all()`, `opaque passing pg_advisory_unlock_all`},
		{`SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(1)`, `pg_advisory_xact_lock pg_try_advisory_xact_lock`},
		{`SELECT query_to_xml('SELECT f()', true, true, '')`, `f query_to_xml`},
		{`SELECT query_to_xml(q, true, true, '')`, `opaque query_to_xml`},

		{`SELECT a ### b, c::s.t, d :: "T"[], e::int, x := 1`, `### ::T ::int ::t`},
		{`SELECT "SET", "a""b"(1)`, `a"b`},
		{`SELECT 'unfinished`, ``},
		{`SELECT f(1) /* unfinished`, `f`},
		{`SELECT $x$ unfinished`, ``},
		{`BEGIN EXECUTE $a$ RESET ALL`, `opaque passing`},
		{`SELECT Ünïcode(1), ÉÀ.x(2)`, `ÉÀ.x Ünïcode`},
	} {
		names, out := newSymbols(), &code{}
		scanBody([]byte(c.body), out, names)
		if got := bodyWords(out.seal(), names); got != c.want {
			t.Errorf("%s\n got  %q\n want %q", c.body, got, c.want)
		}
	}
}

// TestBodyIsLinear: no text makes the scan slow.
func TestBodyIsLinear(t *testing.T) {
	t.Run("the name of a setting", func(t *testing.T) {
		body := []byte("SET LOCAL a" + strings.Repeat(".b", maxBody/4))
		out := &code{}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		scanBody(body, out, newSymbols())
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 32*uint64(len(body)) || out.flags&codeOpaque == 0 {
			t.Errorf("%d bytes allocated for a body of %d, flags %b", n, len(body), out.flags)
		}
	})
	for _, unit := range []string{
		"set_config(", "create temp table ", "execute '", "execute 'a' ", "((((", "/*", "$a$", "query_to_xml('a' ", "a.", "do $$", "'", `"`,
	} {
		names, out := newSymbols(), &code{}
		body := []byte(strings.Repeat(unit, maxBody/4/len(unit)))
		began := time.Now()
		scanBody(body, out, names)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%d bytes of %q took %v", len(body), unit, took)
		}
	}
	names, out := newSymbols(), &code{}
	scanBody(make([]byte, maxBody+1), out, names)
	if out.flags&codeOpaque == 0 {
		t.Error("a body beyond the limit is not opaque")
	}
}

// TestForeignBody: other languages by the words that reach the session.
func TestForeignBody(t *testing.T) {
	for body, want := range map[string]bool{
		`return a + b`:                          false,
		`plpy.execute("select 1")`:              true,
		`my $x = spi_exec_query("select 1");`:   true,
		`GD["x"] = 1`:                           true,
		`# respi_x, gd, set, execute`:           false,
		`return "select set_config('a','b',0)"`: true,
	} {
		out := &code{}
		scanForeign([]byte(body), out)
		if got := out.flags&codeOpaque != 0; got != want {
			t.Errorf("%s: opaque is %v", body, got)
		}
	}
}

// all returns the refs of c, none for nil.
func (c *code) all() []ref {
	if c == nil {
		return nil
	}
	return c.refs
}

// FuzzBody: no text makes the scanners fail, and appending to a text takes nothing away: a
// statement that leaves state does so whatever stands before its semicolon.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`BEGIN EXECUTE 'SELECT 1'; END`, `SELECT set_config('a', 'b', true)`, `CREATE TEMP TABLE x ON COMMIT DROP AS SELECT 1`,
		`DO $$ BEGIN RESET ALL; END $$`, `SELECT $a$ $b$ $a$, E'\'', U&"x", "a""b" /* /* */ */ -- x`, `<<l>> LOOP SET x = 1`, "a.b.c.d(", `$1$2$`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		names, out := newSymbols(), &code{}
		scanBody([]byte(body), out, names)
		for _, r := range out.seal().all() {
			if int(r.a) >= len(names.list) || int(r.b) >= len(names.list) || r.b == 0 {
				t.Fatalf("%q: a ref without a name: %+v", body, r)
			}
		}
		scanForeign([]byte(body), &code{})
		with := &code{}
		scanBody([]byte("RESET ALL;"+body), with, newSymbols())
		if with.flags&codeOpaque == 0 {
			t.Fatalf("%q hides the RESET before it", body)
		}
		lex := lexer{src: []byte(body)}
		for at := -1; ; at = lex.pos {
			tok := lex.next()
			if tok.kind == tokEnd {
				break
			}
			if lex.pos <= at || lex.pos > len(body) {
				t.Fatalf("%q: at %d after %d", body, lex.pos, at)
			}
		}
	})
}

// FuzzTree: no text makes the reader of trees fail.
func FuzzTree(f *testing.F) {
	f.Add(`({FUNCEXPR :funcid 2078 :args ({CONST :consttype 16 :constvalue 1 [ 1 0 0 0 0 0 0 0 ]})})`)
	f.Add(`{FUNCEXPR :funcid 2077 :args ({CONST :constvalue 5 [ 24 0 0 0 97 ]})} :opnos (o 1 2) {QUERY :commandType 3 :relid 7}`)
	f.Add(`{COERCEVIAIO :arg {CONST} :resulttype 5} \( \} :funcid -1 :opno 99999999999`)
	f.Fuzz(func(t *testing.T, tree string) {
		names, out := newSymbols(), &code{}
		scanTree([]byte(tree), out, names)
		for _, r := range out.seal().all() {
			if r.kind == refSetting && int(r.b) >= len(names.list) {
				t.Fatalf("%q: a setting without a name", tree)
			}
		}
	})
}

// BenchmarkBody measures the scan of an ordinary body.
func BenchmarkBody(b *testing.B) {
	var body strings.Builder
	for i := range 40 {
		fmt.Fprintf(&body, "IF NEW.a%d IS NULL THEN SELECT x, f%d(y) INTO v FROM t%d JOIN s.u USING (id) WHERE a = 'b'; END IF;\n", i, i, i)
	}
	src := []byte(body.String())
	names := newSymbols()
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		scanBody(src, &code{}, names)
	}
}
