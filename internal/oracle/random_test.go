package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRandomStatements puts statements together at random and asks the grammar about those
// that it accepts. The seed is fixed: a failure comes again.
func TestRandomStatements(t *testing.T) {
	n := 60000
	if testing.Short() {
		n = 5000
	}
	g := &generator{rand: rand.New(rand.NewPCG(1, 2))}
	accepted := 0
	for range n {
		if check(t, g.text()) {
			accepted++
		}
	}
	t.Logf("the grammar accepts %d of %d texts", accepted, n)
	if accepted < n/3 {
		t.Errorf("the grammar accepts only %d of %d texts", accepted, n)
	}
}

// generator writes texts at random. depth bounds the nesting.
type generator struct {
	rand  *rand.Rand
	depth int
}

// pick is one of the choices.
func (g *generator) pick(choices ...string) string { return choices[g.rand.IntN(len(choices))] }

// maybe is s, one time in n.
func (g *generator) maybe(n int, s func() string) string {
	if g.rand.IntN(n) == 0 {
		return s()
	}
	return ""
}

// text is one to three statements.
func (g *generator) text() string {
	g.depth = 0
	parts := []string{g.statement()}
	for g.rand.IntN(6) == 0 {
		parts = append(parts, g.statement())
	}
	return strings.Join(parts, g.pick(";", " ; ", ";\n"))
}

// statement is one statement.
func (g *generator) statement() string {
	switch g.rand.IntN(14) {
	case 0:
		return g.pick("EXPLAIN ", "EXPLAIN ANALYZE ", "EXPLAIN (ANALYZE off) ", "EXPLAIN (VERBOSE, ANALYZE) ", "EXPLAIN (ANALYZE 'false', COSTS) ") + g.pick(g.query(), g.dml())
	case 1:
		return g.dml()
	case 2:
		return "COPY " + g.pick("("+g.query()+")", "("+g.dml()+" RETURNING 1)", g.relation()) + g.pick(" TO STDOUT", " FROM STDIN", " TO STDOUT (FORMAT csv)", " TO '/x'")
	case 3:
		return g.pick("SET a.b = 'c'", "SET LOCAL work_mem TO 10", "SET search_path = a, b", "RESET ALL", "RESET work_mem", "SET SESSION x.y = on", "BEGIN", "COMMIT", "SET ROLE none",
			"BEGIN ISOLATION LEVEL SERIALIZABLE", "DISCARD ALL", "CREATE TABLE x (a int)", "LISTEN x", "SHOW work_mem", "SELECT set_config('a.b', 'c', false)")
	case 4:
		return "DECLARE c " + g.pick("", "BINARY ", "NO SCROLL ") + "CURSOR " + g.pick("", "WITH HOLD ") + "FOR " + g.query()
	}
	return g.query()
}

// dml is a data-modifying statement.
func (g *generator) dml() string {
	with := g.maybe(4, g.with)
	switch g.rand.IntN(4) {
	case 0:
		return with + "INSERT INTO " + g.relation() + g.pick(" ", " (a, b) ") + g.pick("DEFAULT VALUES", g.query(), "VALUES (1, 2)")
	case 1:
		return with + "UPDATE " + g.relation() + " SET a = " + g.expr() + g.maybe(2, func() string { return " FROM " + g.from() })
	case 2:
		return with + "DELETE FROM " + g.relation() + g.maybe(2, func() string { return " USING " + g.from() })
	}
	return with + "MERGE INTO " + g.relation() + " x USING " + g.item() + " ON true WHEN MATCHED THEN " + g.pick("DELETE", "UPDATE SET a = 1", "DO NOTHING")
}

// with is a WITH clause.
func (g *generator) with() string {
	var ctes []string
	for ok := true; ok; ok = g.rand.IntN(3) == 0 {
		body := g.query()
		if g.rand.IntN(5) == 0 {
			body = g.dml() + " RETURNING *"
		}
		ctes = append(ctes, g.name()+g.pick("", "", "(a, b)")+" AS "+g.pick("", "MATERIALIZED ", "NOT MATERIALIZED ")+"("+body+")")
	}
	return "WITH " + g.pick("", "", "RECURSIVE ") + strings.Join(ctes, ", ") + g.pick(" ", "\n", " /* c */ ")
}

// query is a SELECT, VALUES or TABLE, with what may stand around it.
func (g *generator) query() string {
	if g.depth > 3 {
		return g.pick("SELECT 1", "TABLE "+g.relation(), "VALUES (1)")
	}
	g.depth++
	defer func() { g.depth-- }()
	q := g.core()
	if g.rand.IntN(5) == 0 {
		q = g.pick(q, "("+q+")") + g.pick(" UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT ALL ") + g.pick(g.core(), "("+g.query()+")")
	}
	q = g.maybe(6, g.with) + q
	q += g.maybe(5, func() string { return " ORDER BY " + g.expr() + g.pick("", " DESC", " NULLS FIRST") })
	q += g.maybe(6, func() string {
		return g.pick(" LIMIT "+g.expr(), " OFFSET 1", " FETCH FIRST 1 ROW ONLY", " LIMIT ALL")
	})
	q += g.maybe(9, func() string {
		return g.pick(" FOR UPDATE", " FOR SHARE OF t NOWAIT", " FOR NO KEY UPDATE", " FOR KEY SHARE SKIP LOCKED", " FOR READ ONLY")
	})
	return q
}

// core is a query without what may stand around it.
func (g *generator) core() string {
	switch g.rand.IntN(9) {
	case 0:
		return "VALUES (" + g.expr() + ")"
	case 1:
		return "TABLE " + g.relation()
	case 2:
		return "(" + g.query() + ")"
	}
	s := "SELECT " + g.pick("", "", "DISTINCT ", "DISTINCT ON (a) ", "ALL ") + g.expr() + g.maybe(2, func() string { return ", " + g.expr() + g.label() })
	s += g.maybe(15, func() string { return " INTO " + g.pick("", "TEMP ", "UNLOGGED TABLE ") + "new_table" })
	if g.rand.IntN(4) > 0 {
		s += " FROM " + g.from()
	}
	s += g.maybe(3, func() string { return " WHERE " + g.expr() })
	s += g.maybe(6, func() string {
		return " GROUP BY " + g.pick(g.expr(), "CUBE (a, b)", "ROLLUP (a), b", "GROUPING SETS ((a), (), CUBE (b))", "()") + g.maybe(2, func() string { return " HAVING " + g.expr() })
	})
	return s + g.maybe(9, func() string { return " WINDOW w AS (PARTITION BY " + g.expr() + "), v AS (ORDER BY a)" })
}

// from is the list of a FROM clause.
func (g *generator) from() string {
	s := g.item()
	for g.rand.IntN(3) == 0 {
		s += g.pick(", "+g.item(), " JOIN "+g.item()+" ON "+g.expr(), " LEFT JOIN "+g.item()+" USING (a, b)", " CROSS JOIN "+g.item(),
			" NATURAL JOIN "+g.item(), " JOIN ("+g.item()+" JOIN "+g.item()+" ON true) ON "+g.expr())
	}
	return s
}

// item is one item of a FROM clause with its alias.
func (g *generator) item() string {
	switch g.rand.IntN(8) {
	case 0:
		return g.pick("", "LATERAL ") + "(" + g.query() + ")" + g.pick(" AS ", " ") + "q" + g.pick("", "(a, b)")
	case 1:
		return g.pick("", "LATERAL ") + g.call() + g.pick("", " f", " AS f(a, b)", " AS (a int, b numeric(10,2))", " WITH ORDINALITY AS f(a, n)")
	case 2:
		return "ROWS FROM (" + g.call() + ", " + g.call() + ") AS r"
	case 3:
		return "ONLY " + g.relation()
	}
	return g.relation() + g.pick("", "", " x", " AS x", " AS set", " x(a, b)", " TABLESAMPLE system (1)", " TABLESAMPLE bernoulli (10) REPEATABLE ("+g.expr()+")")
}

// name is a name, of a relation or a common table expression.
func (g *generator) name() string {
	return g.pick("t", "u", "v", "cte", `"Quoted"`, "set", "update", "delete", "over", "rows", "operator", "materialized")
}

// relation is the name of a relation.
func (g *generator) relation() string {
	return g.pick("", "", "", "public.", "s . ", `"s".`) + g.name()
}

// call is a call of a function.
func (g *generator) call() string {
	return g.pick("lower", "pg_catalog.lower", "nextval", "Pg_Catalog . nextval", `"nextval"`, "f", "s.f", "now", "random", "left", "filter", "over", "by", "pg_advisory_lock", "operator", "set",
		"rows", "groups", "zone", "version", "generate_series", "date", "cube", "join", "like", "insert", "update", "pg_sleep") +
		g.pick("", " ", "/**/") + "(" + g.pick("", "", g.expr(), "a => "+g.expr(), g.expr()+", VARIADIC "+g.expr(), "DISTINCT "+g.expr()) + ")"
}

// label is the label of a column.
func (g *generator) label() string {
	return g.pick("", "", " AS x", " AS into", " AS from", " AS update", " y", " set", ` "for"`)
}

// expr is an expression.
func (g *generator) expr() string {
	if g.depth > 4 {
		return g.pick("1", "a", "'x'", "$1", "NULL", "t.a")
	}
	g.depth++
	defer func() { g.depth-- }()
	switch g.rand.IntN(26) {
	case 0, 1:
		return g.call() + g.pick("", "", " OVER w", " OVER (PARTITION BY "+g.expr()+" ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)", " FILTER (WHERE "+g.expr()+")", " WITHIN GROUP (ORDER BY "+g.expr()+")")
	case 2:
		return "(" + g.query() + ")"
	case 3:
		return g.pick("EXISTS ", "NOT EXISTS ", "ARRAY") + "(" + g.query() + ")"
	case 4:
		return g.expr() + g.pick(" IN (", " NOT IN (") + g.pick(g.query(), g.expr()+", "+g.expr()) + ")"
	case 5:
		return g.expr() + " = " + g.pick("ANY", "ALL", "SOME") + " (" + g.pick(g.query(), g.expr()) + ")"
	case 6:
		return "CASE WHEN " + g.expr() + " THEN " + g.expr() + " ELSE " + g.expr() + " END"
	case 7:
		return "CAST(" + g.expr() + " AS " + g.typ() + ")"
	case 8:
		return "(" + g.expr() + ")::" + g.typ()
	case 9:
		return g.expr() + g.pick(" + ", " || ", " <-> ", " OPERATOR(pg_catalog.+) ", "-", " AND ", " IS DISTINCT FROM ", " IS NOT DISTINCT FROM ", " AT TIME ZONE ", " @> ", "--x\n+") + g.expr()
	case 10:
		return g.pick("extract(year FROM ", "substring(b FROM ", "trim(both FROM ", "overlay('a' PLACING 'b' FROM ", "position('a' IN ") + g.expr() + ")"
	case 11:
		return "substring(a FROM 1 FOR " + g.expr() + ")"
	case 12:
		return "ARRAY[" + g.expr() + ", " + g.expr() + "]" + g.pick("", "[1:2]", "["+g.expr()+"]")
	case 13:
		return "ROW(" + g.expr() + ", 1)"
	case 14:
		return g.expr() + g.pick(" LIKE ", " ILIKE ", " SIMILAR TO ", " NOT LIKE ") + "(" + g.expr() + ")" + g.pick("", " ESCAPE '!'")
	case 15:
		return g.expr() + " BETWEEN " + g.pick("1", "("+g.expr()+")") + " AND " + g.expr()
	case 16:
		return g.pick("coalesce", "greatest", "nullif") + "(" + g.expr() + ", " + g.expr() + ")"
	case 17:
		return "(" + g.expr() + ")" + g.pick(".a", "", " COLLATE \"C\"", " IS NULL", " IS DOCUMENT")
	case 18:
		return g.pick("date '2026-01-01'", "interval '1 day'", "interval '1' second (3)", "E'a\\'b'", "U&'x'", "$$ FROM x $$", "'a''b'", "B'1'", "1.5e3", ".5", "current_date", "current_timestamp(2)", "user")
	case 19:
		return fmt.Sprintf("xmlelement(name x, xmlattributes(%s AS y), %s)", g.expr(), g.expr())
	}
	return g.pick("1", "a", "t.a", "public.t.a", `"x"`, "'now'", "$1", "NULL", "true", "*", "t.*", "update", "delete", "set", "over", "t.into", "t.for")
}

// typ is the name of a type.
func (g *generator) typ() string {
	return g.pick("int", "text", "numeric(10,2)", "character varying(3)", "timestamp(3) with time zone", "double precision", "public.mytype", "mytype(3)", "int[]", "bit(3)", "interval(2)", "interval day to second(3)", "regclass")
}
