package catalog

import (
	"runtime"
	"testing"

	"pgweir/router"
)

// manySQL makes 20,000 functions and 20,000 relations (tables with a serial column and its
// sequence, and views over them), in 100 schemas, as a database with many tenants has.
const manySQL = `
	DO $do$ BEGIN
	FOR s IN 1..100 LOOP
		EXECUTE format('CREATE SCHEMA t%s', s);
		FOR i IN 1..200 LOOP
			EXECUTE format('CREATE FUNCTION t%1$s.f%2$s(a int) RETURNS int LANGUAGE plpgsql STABLE AS
				$f$DECLARE r int; BEGIN SELECT count(*) INTO r FROM tab%2$s JOIN other USING (id) WHERE a = $1; IF r > 0 THEN r := f%3$s(r - 1); END IF; RETURN coalesce(r, 0); END$f$', s, i, (i * 7) % 200 + 1);
		END LOOP;
		FOR i IN 1..90 LOOP
			EXECUTE format('CREATE TABLE t%s.tab%s (id serial, a int DEFAULT 1, b text CHECK (length(b) < 100), c timestamptz DEFAULT now())', s, i);
		END LOOP;
		FOR i IN 1..20 LOOP
			EXECUTE format('CREATE VIEW t%1$s.v%2$s AS SELECT x.id, upper(x.b) AS b, y.c, t%1$s.f1(x.a) FROM t%1$s.tab%2$s x JOIN t%1$s.tab%3$s y USING (id)', s, i, i + 20);
		END LOOP;
		COMMIT;
	END LOOP;
	END $do$`

// BenchmarkRead measures reading a large database: the first time, and again when nothing
// has changed. It reports what the view keeps and what the reading takes at most.
func BenchmarkRead(b *testing.B) {
	database(b, "many")
	run(b, "many", manySQL)
	run(b, "many", "VACUUM ANALYZE")
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	warm := newCache()
	b.Run("first", func(b *testing.B) {
		before := heap()
		var snap *snapshot
		for b.Loop() {
			warm = newCache()
			snap = read(b, "many", Rules{}, warm)
		}
		b.ReportMetric(heap()-before, "MiB-kept")
		b.Logf("%d functions, %d relations", len(snap.catalog.Functions), len(snap.catalog.Relations))
		runtime.KeepAlive(warm)
	})
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			read(b, "many", Rules{}, warm)
		}
	})
}

// BenchmarkLookup measures what a statement pays for a name and for its path.
func BenchmarkLookup(b *testing.B) {
	database(b, "lookup")
	run(b, "lookup", `CREATE TABLE t (a int)`)
	d, err := Read(b.Context(), super(b, "lookup"), Rules{}, DefaultConfig().StatementTimeout)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("view and relation", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := d.View().Relations[router.QName{Schema: "public", Name: "t"}]; !ok {
				b.Fatal("not there")
			}
		}
	})
	b.Run("path", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if d.Path("postgres", `"$user", public`, false) == nil {
				b.Fatal("no path")
			}
		}
	})
}
