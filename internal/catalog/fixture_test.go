package catalog

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgweir/router"
)

// fixture is the schema with a case for every rule, and what is expected of each.
//
//go:embed testdata/fixture.sql
var fixture string

// fixtureRules are the rules that the fixture's expectations hold with.
func fixtureRules() Rules {
	return Rules{
		ReadOnlyFunctions:    []string{"App.Vouched_Read", "vouched.*"},
		SessionSafeFunctions: []string{`"app".vouched_safe`},
	}
}

// fixtureSchemas are the schemas in which every object must have an expectation.
var fixtureSchemas = []string{"app", "other", "vouched", `Odd "Name`}

// verdictName names a verdict as the fixture does.
func verdictName(v router.NameVerdict) string {
	return [...]string{"unknown", "read", "node", "primary", "doubtful"}[v]
}

// lines renders a view in the fixture's notation.
func lines(c *router.Catalog) map[string]bool {
	out := make(map[string]bool)
	for name, f := range c.Functions {
		s := fmt.Sprintf("f %s.%s %s", name.Schema, name.Name, verdictName(f.Verdict))
		out[s+words("opaque", f.Opaque, "passing", f.Opaque && !f.Lasting, "nextval", f.Nextval, "builtin", f.Builtin)] = true
	}
	for name, r := range c.Relations {
		s := fmt.Sprintf("r %s.%s %c %c %s", name.Schema, name.Name, r.Kind, r.Persistence, verdictName(r.Read))
		if r.Reason != router.ReasonUnknown {
			s += " reason=" + reasonName(r.Reason)
		}
		out[s+words("calls", r.Calls, "read-opaque", r.ReadOpaque, "read-passing", r.ReadOpaque && !r.ReadLasting, "read-nextval", r.ReadNextval,
			"write-opaque", r.WriteOpaque, "write-passing", r.WriteOpaque && !r.WriteLasting, "write-nextval", r.WriteNextval)] = true
	}
	for name := range c.VolatileOperators {
		out["op "+name] = true
	}
	for name := range c.VolatileTypes {
		out["type "+name] = true
	}
	for name := range c.AttributeFunctions {
		out["attr "+name] = true
	}
	return out
}

// reasonName names the reasons that the catalog gives.
func reasonName(r router.Reason) string {
	names := map[router.Reason]string{
		router.ReasonVolatile: "volatile", router.ReasonNodeLocal: "node_local", router.ReasonAdvisory: "advisory",
		router.ReasonSequence: "sequence", router.ReasonUnlogged: "unlogged", router.ReasonForeign: "foreign",
		router.ReasonSetting: "setting", router.ReasonLocking: "locking", router.ReasonWrite: "write",
		router.ReasonSnapshot: "snapshot", router.ReasonState: "state",
	}
	if n, ok := names[r]; ok {
		return n
	}
	return fmt.Sprint(r)
}

// words joins the words whose flags are set, each behind a space.
func words(pairs ...any) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			b.WriteString(" " + pairs[i].(string))
		}
	}
	return b.String()
}

// mustBeListed tells whether a line of the view needs an expectation.
func mustBeListed(line string) bool {
	kind, rest, _ := strings.Cut(line, " ")
	if kind == "op" || kind == "type" || kind == "attr" {
		return true
	}
	for _, s := range fixtureSchemas {
		if strings.HasPrefix(rest, s+".") {
			// What extensions put there is looked at in the schema ext.
			return !strings.HasPrefix(rest, "other.file_fdw") && !strings.HasPrefix(rest, "other.postgres_fdw")
		}
	}
	return false
}

// compareFixture reports every difference between the view and the fixture's expectations.
func compareFixture(t *testing.T, c *router.Catalog) {
	t.Helper()
	want := make(map[string]bool)
	for line := range strings.Lines(fixture) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "--= "); ok {
			want[rest] = true
		}
	}
	got := lines(c)
	for _, line := range slices.Sorted(maps.Keys(want)) {
		if !got[line] {
			t.Errorf("missing: %s", line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(got)) {
		if mustBeListed(line) && !want[line] {
			t.Errorf("not expected: %s", line)
		}
	}
}

// TestFixture compares every verdict over the fixture's schema.
func TestFixture(t *testing.T) {
	database(t, "fixture")
	run(t, "fixture", fixture)
	c := newCache()
	compareFixture(t, read(t, "fixture", fixtureRules(), c).catalog)
	if t.Failed() {
		return
	}
	t.Run("again from the cache", func(t *testing.T) {
		compareFixture(t, read(t, "fixture", fixtureRules(), c).catalog)
	})
	t.Run("as a plain role", func(t *testing.T) {
		run(t, "fixture", `CREATE ROLE plain_reader LOGIN PASSWORD 'x'`)
		compiled, err := compileRules(fixtureRules())
		if err != nil {
			t.Fatal(err)
		}
		snap, err := readDatabase(t.Context(), target(t, "fixture", "plain_reader", "x"), time.Minute, compiled, newCache())
		if err != nil {
			t.Fatal(err)
		}
		compareFixture(t, snap.catalog)
	})
}

// TestOpaqueNames: what leaves state among operators, types and attributes is listed.
func TestOpaqueNames(t *testing.T) {
	database(t, "opaque_names")
	run(t, "opaque_names", `
		CREATE FUNCTION leaves(int, int) RETURNS text LANGUAGE sql AS $$ SELECT set_config('a.b', 'x', false) $$;
		CREATE FUNCTION fine(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE OPERATOR <#> (LEFTARG = int, RIGHTARG = int, FUNCTION = leaves);
		CREATE OPERATOR <##> (LEFTARG = int, RIGHTARG = int, FUNCTION = fine);
		CREATE TABLE t (a int);
		CREATE FUNCTION of_row(t) RETURNS text LANGUAGE sql AS $$ SELECT set_config('a.b', 'x', false) $$;
		REVOKE ALL ON FUNCTION pg_sleep(double precision), pg_advisory_lock(bigint), pg_stat_get_activity(int) FROM PUBLIC`)
	c := read(t, "opaque_names", Rules{}, newCache()).catalog
	if !c.VolatileOperators["<#>"] || !c.VolatileOperators["<##>"] || !c.AttributeFunctions["of_row"] {
		t.Errorf("not listed: %v %v", c.VolatileOperators, c.AttributeFunctions)
	}
	if want := map[string]bool{"<#>": true, "of_row": true}; !maps.Equal(c.OpaqueNames, want) {
		t.Errorf("opaque are %v, want %v", c.OpaqueNames, want)
	}
	// Rights that were changed change no verdict.
	for name, want := range map[string]router.FuncInfo{
		"pg_sleep":             {Verdict: router.VerdictRead, Builtin: true},
		"pg_advisory_lock":     {Verdict: router.VerdictPrimary, Opaque: true, Builtin: true},
		"pg_stat_get_activity": {Verdict: router.VerdictNode, Builtin: true},
	} {
		if got := c.Functions[router.QName{Schema: "pg_catalog", Name: name}]; got != want {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
}

// TestLeaves: names of custom settings that stay on a connection although their values do not are known for what can bring
// them there, by function or relation.
func TestLeaves(t *testing.T) {
	database(t, "leaves")
	run(t, "leaves", `
		CREATE FUNCTION sets() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('a.b', 'x', true); END $$;
		CREATE FUNCTION calls() RETURNS text LANGUAGE sql AS 'SELECT sets()';
		CREATE FUNCTION declared() RETURNS text LANGUAGE sql SET "C.d" = 'x' SET work_mem = '1MB' AS 'SELECT sets()';
		CREATE FUNCTION safe() RETURNS text LANGUAGE sql AS 'SELECT sets()';
		CREATE FUNCTION sets_own() RETURNS text LANGUAGE sql AS $$ SELECT set_config('work_mem', '1MB', true) $$;
		CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL e.f = 'x'; RETURN NEW; END $$;
		CREATE TABLE t (a int);
		CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fires();
		CREATE VIEW v AS SELECT set_config('g.h', 'x', true) FROM t;
		CREATE FUNCTION of_row(t) RETURNS text LANGUAGE sql AS 'SELECT sets()'`)
	c := read(t, "leaves", Rules{SessionSafeFunctions: []string{"public.safe"}}, newCache()).catalog
	name := func(n string) router.QName { return router.QName{Schema: "public", Name: n} }
	for f, want := range map[string]string{"sets": "a.b", "calls": "a.b", "declared": "a.b\x00c.d", "safe": "", "sets_own": ""} {
		if got := c.Functions[name(f)]; got.Leaves != want || got.Opaque {
			t.Errorf("%s leaves %q, opaque %v", f, got.Leaves, got.Opaque)
		}
	}
	for rel, want := range map[string][2]string{"t": {"", "e.f"}, "v": {"g.h", "e.f\x00g.h"}} {
		if got := c.Relations[name(rel)]; got.ReadLeaves != want[0] || got.WriteLeaves != want[1] {
			t.Errorf("%s leaves %q when it is read, %q when it is written", rel, got.ReadLeaves, got.WriteLeaves)
		}
	}
	if !c.OpaqueNames["of_row"] {
		t.Error("an attribute that leaves a name is not listed")
	}
}
