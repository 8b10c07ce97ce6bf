package router

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// ormSelect is a statement as object-relational mappers write them, about 1.6 KB long.
var ormSelect = "SELECT " + strings.Repeat(`"users"."id" AS t0_r0, "users"."email" AS t0_r1, `, 28) +
	`"orders"."id" AS t1_r0 FROM "users" LEFT OUTER JOIN "orders" ON "orders"."user_id" = "users"."id" WHERE "users"."id" IN (1, 2, 3) AND "users"."email" LIKE 'a%' ORDER BY "users"."id" ASC LIMIT 25`

func BenchmarkClassifyKnown(b *testing.B) {
	c := New(Config{})
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for _, bm := range []struct {
		name  string
		texts func(i int) string
	}{
		{"pgbench/text", func(int) string { return "SELECT abalance FROM pgbench_accounts WHERE aid = 42;" }},
		{"pgbench/shape", func(i int) string {
			return fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d;", 100000+i)
		}},
		{"orm/text", func(int) string { return ormSelect }},
		{"orm/shape", func(i int) string { return strings.Replace(ormSelect, "IN (1", fmt.Sprintf("IN (%d", i), 1) }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			texts := make([][]byte, 4096)
			for i := range texts {
				texts[i] = []byte(bm.texts(i))
			}
			for range 3 {
				c.Classify(texts[0], env)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i++ {
				c.Classify(texts[i%len(texts)], env)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for _, bm := range []struct{ name, text string }{
		{"pgbench", "SELECT abalance FROM pgbench_accounts WHERE aid = 42;"}, {"orm", ormSelect},
	} {
		b.Run(bm.name, func(b *testing.B) {
			text := []byte(bm.text)
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				parse(text, env, nil)
			}
		})
	}
}

func TestKnownStatementsAllocateNothing(t *testing.T) {
	c := New(Config{})
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	var shapes [][]byte
	for i := range 200 {
		shapes = append(shapes, []byte(fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d", 100000+i)))
	}
	setting := []byte("SET work_mem = '64MB'")
	hinted := []byte("/* pgweir: standby */ SELECT * FROM t WHERE id = 7")
	c.Classify(shapes[0], env)
	for range 3 {
		c.Classify(setting, env)
		c.Classify(hinted, env)
	}
	i := 1
	if n := testing.AllocsPerRun(150, func() { c.Classify(shapes[i%len(shapes)], env); i++ }); n != 0 {
		t.Errorf("a known shape allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { c.Classify(setting, env) }); n != 0 {
		t.Errorf("a known text whose constants decide allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { c.Classify(hinted, env) }); n != 0 {
		t.Errorf("a known hinted text allocates %v times", n)
	}
}

func TestShape(t *testing.T) {
	for _, same := range [][]string{
		{"SELECT * FROM t WHERE id = 1", "select  *\nfrom T where ID = 42 -- x", "/* c */ SELECT * FROM t WHERE id = 1.5e3"},
		{"SELECT 'a'", "SELECT 'b''c'", "SELECT E'\\n'", "SELECT $$x$$"},
		{"SELECT * FROM t WHERE id IN (1, 2)", "SELECT * FROM t WHERE id IN (1, 2, 3, 4, 5)"},
		{"SELECT * FROM t WHERE id IN ($1,$2)", "SELECT * FROM t WHERE id IN ($1,$2,$3)"},
		{"INSERT INTO t VALUES (1, 'a'), (2, 'b')", "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')"},
	} {
		first := shapeOf(t, same[0])
		for _, s := range same[1:] {
			if got := shapeOf(t, s); got != first {
				t.Errorf("%q and %q have different shapes:\n%q\n%q", same[0], s, first, got)
			}
		}
	}
	for _, differ := range [][2]string{
		{"SELECT a", "SELECT b"},
		{"SELECT a", `SELECT "a"`},
		{`SELECT "A"`, `SELECT "a"`},
		{"SELECT 'x'", "SELECT 1"},
		{"SELECT 1", "SELECT $1"},
		{"SELECT 'x'", "SELECT 'now'"},
		{"SELECT 'x'", "SELECT B'1'"},
		{"SELECT f(1)", "SELECT f(1, 2)"},
		{"SELECT 1, 'a'", "SELECT 'a', 1"},
		{"VALUES (1), (2)", "VALUES (1)"},
		{"VALUES (1), ('a')", "VALUES (1), (2)"},
		{"VALUES (1, 2)", "VALUES (1), (2)"},
		{"SELECT (1), (2) FROM t", "SELECT (1), (a) FROM t"},
		{"SELECT a b", "SELECT ab"},
		{"SELECT 1 - 1", "SELECT 1 -1, 2"},
		{"SELECT 1; SELECT 2", "SELECT 1 SELECT 2"},
	} {
		if a, b := shapeOf(t, differ[0]), shapeOf(t, differ[1]); a == b {
			t.Errorf("%q and %q have the same shape %q", differ[0], differ[1], a)
		}
	}
}

func shapeOf(t *testing.T, text string) string {
	t.Helper()
	s, ok := shape(nil, []byte(text), true)
	if !ok {
		t.Fatalf("%q has no shape", text)
	}
	return string(s)
}

func TestConstantsThatDecide(t *testing.T) {
	c := New(Config{})
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for _, want := range []struct{ text, reason string }{
		{"SELECT current_setting('work_mem')", "read"},
		{"SELECT current_setting('port')", "setting"},
		{"SELECT current_setting('search_path')", "read"},
		{"EXPLAIN (ANALYZE 0) DELETE FROM t", "read"},
		{"EXPLAIN (ANALYZE 1) DELETE FROM t", "write"},
		{"SET transaction_read_only = 'on'", "session"},
		{"SET transaction_read_only = 'off'", "transaction"},
		{"SELECT set_config('transaction_isolation', 'serializable', true)", "serializable"},
		{"SELECT set_config('transaction_isolation', 'read committed', true)", "session"},
	} {
		for range 3 {
			if got := c.Classify([]byte(want.text), env).Reason.String(); got != want.reason {
				t.Errorf("%q: %s, want %s", want.text, got, want.reason)
			}
		}
	}
	a := c.Classify([]byte("SET app.x = 'a'"), env)
	b := c.Classify([]byte("SET app.x = 'b'"), env)
	if a.Effects[0].Value != "'a'" || b.Effects[0].Value != "'b'" {
		t.Errorf("effects %v and %v", a.Effects, b.Effects)
	}
}

func TestCacheKey(t *testing.T) {
	c := New(Config{})
	base := Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	text := []byte(`SELECT 'a\'; select nextval(2) --'`)
	next := shopCatalog()
	next.Generation++
	next.Relations[QName{"public", "t"}] = RelInfo{Kind: 'r', Persistence: 'u', Read: VerdictPrimary}
	envs := map[string]func(*Env){
		"std off":    func(e *Env) { e.StdStrings = false },
		"generation": func(e *Env) { e.Catalog = next },
		"path":       func(e *Env) { e.Path = &Path{Schemas: []string{"pg_catalog"}} },
		"database":   func(e *Env) { e.Database = "other"; e.Catalog = &Catalog{Generation: 1} },
		"cluster":    func(e *Env) { e.Cluster = "other"; e.Catalog = &Catalog{Generation: 1} },
		"no catalog": func(e *Env) { e.Catalog = nil },
		"temp":       func(e *Env) { e.Path = &Path{Schemas: shopPath.Schemas, Temp: true} },
	}
	read := []byte("SELECT * FROM t")
	for range 3 {
		if u := c.Classify(text, &base); u.Class != ClassPrimary {
			t.Fatalf("base: %s", describe(u))
		}
		if u := c.Classify(read, &base); u.Class != ClassRead {
			t.Fatalf("base: %s", describe(u))
		}
		for name, change := range envs {
			e := base
			change(&e)
			if name == "std off" {
				if u := c.Classify(text, &e); u.Class != ClassRead {
					t.Errorf("%s: %s", name, describe(u))
				}
				continue
			}
			if u := c.Classify(read, &e); u.Class != ClassPrimary {
				t.Errorf("%s: %s", name, describe(u))
			}
		}
	}
}

func TestLearn(t *testing.T) {
	c := New(Config{})
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	other := *env
	other.Path = &Path{Schemas: []string{"public"}}
	elsewhere := *env
	elsewhere.Database = "report"
	text := func(i int) []byte { return []byte(fmt.Sprintf("SELECT stable_fn(%d)", i)) }
	for i := range 3 {
		for _, e := range []*Env{env, &other, &elsewhere} {
			if u := c.Classify(text(i), e); u.Class != ClassRead {
				t.Fatalf("before: %s", describe(u))
			}
		}
		c.Classify(text(0), env)
	}
	c.Learn(text(99), env)
	for i := range 3 {
		for _, e := range []*Env{env, &other} {
			if u := c.Classify(text(i), e); u.Class != ClassPrimary || u.Reason != ReasonLearned || u.Mark != MarkWrite {
				t.Errorf("after: %s", describe(u))
			}
		}
		if u := c.Classify(text(i), &elsewhere); u.Class != ClassRead {
			t.Errorf("another database: %s", describe(u))
		}
	}
	newer := *env
	newer.Catalog = shopCatalog()
	newer.Catalog.Generation = 2
	if u := c.Classify(text(1), &newer); u.Reason != ReasonLearned {
		t.Errorf("after a new catalog: %s", describe(u))
	}
	if u := c.Classify([]byte("/* pgweir: standby */ SELECT stable_fn(1)"), env); u.Reason != ReasonLearned || u.Hint != HintStandby || u.Certain {
		t.Errorf("hinted: %s", describe(u))
	}
	long := []byte("SELECT stable_fn(1)" + strings.Repeat(" , t.a + 1", 1000) + " FROM t")
	if u := c.Classify(long, env); u.Class != ClassRead {
		t.Fatalf("long: %s", describe(u))
	}
	c.Learn(long, env)
	if u := c.Classify(long, env); u.Reason != ReasonLearned {
		t.Errorf("long, learned: %s", describe(u))
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := New(Config{CacheSize: 64, CacheBytes: 128 << 10})
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for i := range 5000 {
		text := []byte(fmt.Sprintf("SELECT c%d FROM t WHERE a = 'x%s'", i, strings.Repeat("y", i%900)))
		for range 3 {
			if u := c.Classify(text, env); u.Class != ClassRead {
				t.Fatalf("%s: %s", text, describe(u))
			}
		}
	}
	for name, tab := range map[string]*table{"texts": &c.cache.texts, "shapes": &c.cache.shapes} {
		var sum int64
		for i := range tab.slots {
			if e := tab.slots[i].Load(); e != nil {
				sum += e.size()
			}
		}
		if sum != tab.bytes.Load() || sum > tab.maxBytes || sum == 0 {
			t.Errorf("%s: %d bytes counted, %d kept, %d allowed", name, tab.bytes.Load(), sum, tab.maxBytes)
		}
	}
}

func TestClassifyConcurrently(t *testing.T) {
	c := New(Config{CacheSize: 32, CacheBytes: 64 << 10})
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 3000 {
				n := (i * (g + 1)) % 200
				want := ClassRead
				text := fmt.Sprintf("SELECT c%d FROM t WHERE a = %d", n, i)
				switch {
				case n%3 == 0:
					text, want = fmt.Sprintf("INSERT INTO t (c%d) VALUES (%d)", n, i), ClassPrimary
				case n%7 == 0:
					text, want = fmt.Sprintf("SET app.c%d = %d", n, i), ClassSession
				}
				if u := c.Classify([]byte(text), env); u.Class != want {
					t.Errorf("%s: %s", text, describe(u))
				}
				if i%500 == 0 {
					c.Learn([]byte(fmt.Sprintf("SELECT refused%d(1)", g)), env)
				}
			}
		})
	}
	wg.Wait()
}

func TestJoin(t *testing.T) {
	c := New(Config{})
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for _, j := range []struct {
		texts []string
		want  string
	}{
		{[]string{"SELECT 1", "SELECT 2"}, "read read read +multi"},
		{[]string{"SELECT 1", "INSERT INTO t VALUES (1)"}, "primary write write certain 25006 +multi"},
		{[]string{"BEGIN", "SELECT 1"}, "primary transaction read +multi +readinreadonly +begin begin()"},
		{[]string{"BEGIN READ ONLY", "SELECT 1"}, "read read read +multi begin(readonly=yes)"},
		{[]string{"BEGIN", "SELECT 1", "DELETE FROM t"}, "primary write write certain 25006 +multi +begin begin()"},
		{[]string{"BEGIN", "SELECT nowhere()"}, "primary unknown_name write +opaque +nextval +multi +unknownname +begin begin()"},
		{[]string{"BEGIN READ WRITE", "SELECT 1"}, "primary transaction read certain +multi +begin begin(readonly=no)"},
		{[]string{"BEGIN", ""}, "session transaction none onlytx +begin begin()"},
		{[]string{"", "SELECT 1"}, "read read read"},
		{[]string{"SET search_path = app", "SELECT 1"}, "primary state read +multi +names set(search_path=app)"},
		{[]string{"SELECT 1", "SET search_path = app"}, "primary state read +multi +names set(search_path=app)"},
		{[]string{"SET work_mem = 1", "SET a.b = 2"}, "session session none +multi set(work_mem=1) set(a.b=2)"},
		{[]string{"LOCK t IN ACCESS SHARE MODE", "SELECT 1"}, "primary locking write certain +multi +readinreadonly"},
		{[]string{"SELECT set_config('jit', $1, false)", "SELECT 1"}, "primary state read certain +opaque +multi +settingparam +passing setparam(jit,function,$1)"},
		{[]string{"SELECT set_config('jit', $1, false)", "SELECT audit()"}, "primary state write certain +opaque +multi setparam(jit,function,$1)"},
	} {
		var u *Unit
		for _, s := range j.texts {
			u = Join(u, c.Classify([]byte(s), env))
		}
		if got := quiet(u); got != j.want {
			t.Errorf("%q\n got %s\nwant %s", j.texts, got, j.want)
		}
	}
	if Join(nil, nil) != nil {
		t.Error("Join of nothing is something")
	}
}

func TestHostileTexts(t *testing.T) {
	env := &Env{Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for name, part := range map[string]string{
		"set_config": "set_config(", "listen": "LISTEN a;", "cte": "WITH a AS (", "parens": "(", "dollar": "$a$ $b$ $c", "comment": "/*", "string": "'a'\n",
		"call": "f(", "select": "SELECT * FROM (", "case": "CASE WHEN ", "atomic": "CREATE FUNCTION f() BEGIN ATOMIC CASE ", "prepare": "PREPARE a AS ",
		"do": "DO 'x';", "explain": "EXPLAIN ", "set": "SET a = b;", "union": "SELECT 1 UNION ", "ctes": "a AS (TABLE t), ", "u": `U&"x" `, "cast": "a::", "dots": "a.",
	} {
		for _, head := range []string{"", "SELECT ", "WITH ", "CREATE FUNCTION f() BEGIN ATOMIC "} {
			text := []byte(head + strings.Repeat(part, 300_000/len(part)))
			start := time.Now()
			parse(text, env, nil)
			shape(nil, text, true)
			Split(text, true)
			leadingHint(text)
			if d := time.Since(start); d > 15*time.Second {
				t.Errorf("300 KB of %q behind %q take %v", name, head, d)
			}
		}
	}
}

// quiet is describe without what is implied.
func quiet(u *Unit) string {
	n := *u
	n.Flags &^= quietFlags
	return describe(&n)
}
