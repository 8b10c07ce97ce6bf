// Command genfunctions answers: what may every built-in function, relation and setting do? It
// asks running servers of every version given, merges the answers with the reviewed verdicts of
// verdicts.txt, and writes the table that package router is compiled with.
//
//	go run ./router/genfunctions -o router/functions.go DSN…
//
// A name that several versions know has the most careful of their verdicts.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

//go:embed verdicts.txt
var verdicts string

// kinds are the words of verdicts.txt with the constants of builtin.go, from the least to the
// most careful: where two versions differ, the later one here wins.
var kinds = []struct{ word, constant string }{
	{"read", "builtinRead"},
	{"time", "builtinTime"},
	{"node", "builtinNode"},
	{"snapshot", "builtinSnapshot"},
	{"pid", "builtinPID"},
	{"currentsetting", "builtinCurrentSetting"},
	{"sequence", "builtinSequence"},
	{"act", "builtinAct"},
	{"volatile", "builtinVolatile"},
	{"text", "builtinText"},
	{"write", "builtinWrite"},
	{"nextval", "builtinNextval"},
	{"currval", "builtinCurrval"},
	{"lock", "builtinLock"},
	{"xactlock", "builtinXactLock"},
	{"unlock", "builtinUnlock"},
	{"unlockall", "builtinUnlockAll"},
	{"export", "builtinExport"},
	{"setconfig", "builtinSetConfig"},
	{"seed", "builtinSeed"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := flag.String("o", "", "file to write; standard output without it")
	flag.Parse()
	if err := run(ctx, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "genfunctions:", err)
		os.Exit(1)
	}
}

// run asks the servers and writes the table.
func run(ctx context.Context, out string, dsns []string) error {
	if len(dsns) == 0 {
		return errors.New("name at least one server to ask")
	}
	rules, extra, err := parseRules(verdicts)
	if err != nil {
		return err
	}
	t := newTables(rules)
	for _, name := range extra {
		t.functions[name] = rankOf("read")
	}
	for _, dsn := range dsns {
		if err := t.ask(ctx, dsn); err != nil {
			return err
		}
	}
	t.reportUnused(os.Stderr)
	src, err := format.Source(t.source())
	if err != nil {
		return fmt.Errorf("format the table: %w", err)
	}
	if out == "" {
		_, err = os.Stdout.Write(src)
		return err
	}
	return os.WriteFile(out, src, 0o644)
}

// rule is one name of verdicts.txt.
type rule struct {
	pattern string
	rank    int
	used    bool
}

// rankOf is the place of a kind's word in kinds, -1 for none.
func rankOf(word string) int {
	return slices.IndexFunc(kinds, func(k struct{ word, constant string }) bool { return k.word == word })
}

// parseRules reads verdicts.txt; extra are the names behind a plus.
func parseRules(text string) (rules []*rule, extra []string, err error) {
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		rank := rankOf(words[0])
		if rank < 0 {
			return nil, nil, fmt.Errorf("verdicts.txt:%d: unknown kind %q", n, words[0])
		}
		for _, w := range words[1:] {
			if name, ok := strings.CutPrefix(w, "+"); ok {
				extra = append(extra, name)
				continue
			}
			rules = append(rules, &rule{pattern: w, rank: rank})
		}
	}
	return rules, extra, nil
}

// fits reports whether the rule speaks of the function.
func (r *rule) fits(name string) bool {
	if prefix, ok := strings.CutSuffix(r.pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return r.pattern == name
}

// tables is what was found, as ranks in kinds.
type tables struct {
	rules     []*rule
	versions  []string
	functions map[string]int
	relations map[string]map[string]int // by schema
	settings  map[string]bool
	modules   map[string]bool
}

// newTables makes tables that know nothing but the rules, and what no server lists.
func newTables(rules []*rule) *tables {
	t := &tables{
		rules: rules, functions: map[string]int{}, settings: map[string]bool{}, modules: map[string]bool{},
		relations: map[string]map[string]int{"pg_catalog": {}, "information_schema": {}},
	}
	// Settings that every client can set and that pg_settings hides.
	for _, s := range []string{"role", "session_authorization", "seed", "transaction_isolation", "transaction_deferrable"} {
		t.settings[s] = true
	}
	// Contrib modules with settings of their own, and pgweir itself.
	for _, m := range []string{
		"auth_delay", "auto_explain", "basebackup_to_shell", "basic_archive", "isn", "passwordcheck", "pg_overexplain", "pg_prewarm",
		"pg_stat_statements", "pg_trgm", "pgcrypto", "pgweir", "plperl", "plpgsql", "plpython3", "pltcl", "postgres_fdw", "sepgsql",
	} {
		t.modules[m] = true
	}
	return t
}

// verdict is the rank of a function with the volatility v.
func (t *tables) verdict(name, v string) int {
	for _, r := range t.rules {
		if r.fits(name) {
			r.used = true
			return r.rank
		}
	}
	if v == "v" {
		return rankOf("volatile")
	}
	return rankOf("read")
}

// ask adds what one server says.
func (t *tables) ask(ctx context.Context, dsn string) error {
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("ask a server: %w", err)
	}
	defer conn.Close(ctx)
	major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	t.versions = append(t.versions, major)
	local := map[string]int{} // functions by oid
	err = query(ctx, conn, `SELECT oid, proname, provolatile FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace ORDER BY oid`,
		func(row []string) {
			rank := t.verdict(row[1], row[2])
			local[row[0]] = rank
			t.functions[row[1]] = max(t.functions[row[1]], rank)
		})
	if err != nil {
		return err
	}
	err = query(ctx, conn, `SELECT name FROM pg_settings WHERE context IN ('user', 'superuser') AND name !~ '[.]'`,
		func(row []string) { t.settings[strings.ToLower(row[0])] = true })
	if err != nil {
		return err
	}
	return t.askRelations(ctx, conn, local)
}

// relationQuery lists the relations of PostgreSQL's own schemas with the oids of the
// functions and relations that the rules of its views name.
const relationQuery = `SELECT c.oid, n.nspname, c.relname,
  coalesce((SELECT string_agg(DISTINCT m[1], ' ') FROM pg_rewrite r, regexp_matches(r.ev_action::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') m WHERE r.ev_class = c.oid), ''),
  coalesce((SELECT string_agg(DISTINCT m[1], ' ') FROM pg_rewrite r, regexp_matches(r.ev_action::text, ':relid ([0-9]+)', 'g') m WHERE r.ev_class = c.oid), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v', 'm', 'p')`

// askRelations adds the relations: a view is what the worst function below it is.
func (t *tables) askRelations(ctx context.Context, conn *pgconn.PgConn, functions map[string]int) error {
	type relation struct {
		schema, name string
		calls, reads []string
	}
	all := map[string]relation{}
	err := query(ctx, conn, relationQuery, func(row []string) {
		all[row[0]] = relation{row[1], row[2], strings.Fields(row[3]), strings.Fields(row[4])}
	})
	if err != nil {
		return err
	}
	var rank func(oid string, depth int) int
	rank = func(oid string, depth int) int {
		worst := 0
		if depth > 20 {
			return worst
		}
		for _, f := range all[oid].calls {
			worst = max(worst, functions[f])
		}
		for _, r := range all[oid].reads {
			if r != oid {
				worst = max(worst, rank(r, depth+1))
			}
		}
		return worst
	}
	for oid, r := range all {
		m := t.relations[r.schema]
		m[r.name] = max(m[r.name], rank(oid, 0))
	}
	return nil
}

// query runs sql and hands every row to each.
func query(ctx context.Context, conn *pgconn.PgConn, sql string, each func(row []string)) error {
	rr := conn.ExecParams(ctx, sql, nil, nil, nil, nil)
	for rr.NextRow() {
		row := make([]string, len(rr.Values()))
		for i, v := range rr.Values() {
			row[i] = string(v)
		}
		each(row)
	}
	if _, err := rr.Close(); err != nil {
		return fmt.Errorf("ask a server: %w", err)
	}
	return nil
}

// reportUnused says which rules spoke of nothing.
func (t *tables) reportUnused(w *os.File) {
	for _, r := range t.rules {
		if !r.used {
			fmt.Fprintf(w, "genfunctions: no server has %q (%s)\n", r.pattern, kinds[r.rank].word)
		}
	}
}

// source is the Go file, not yet formatted.
func (t *tables) source() []byte {
	var b bytes.Buffer
	slices.Sort(t.versions)
	fmt.Fprintf(&b, "// Code generated by genfunctions from PostgreSQL %s; DO NOT EDIT.\n\npackage router\n\n", strings.Join(t.versions, ", "))
	b.WriteString("// builtinFunction is the kind of the function of pg_catalog called name, its overloads joined.\nfunc builtinFunction(name string) builtin {\n")
	writeSwitch(&b, t.functions)
	b.WriteString("}\n\n// systemRelationKind is the kind of a relation of pg_catalog or information_schema.\nfunc systemRelationKind(schema, name string) builtin {\n")
	b.WriteString("if schema == systemSchema { return catalogRelation(name) }\nreturn informationRelation(name)\n}\n\n")
	b.WriteString("// catalogRelation is the kind of a relation of pg_catalog.\nfunc catalogRelation(name string) builtin {\n")
	writeSwitch(&b, t.relations["pg_catalog"])
	b.WriteString("}\n\n// informationRelation is the kind of a view of information_schema.\nfunc informationRelation(name string) builtin {\n")
	writeSwitch(&b, t.relations["information_schema"])
	b.WriteString("}\n\n// clientSetting reports whether a client can set the setting name, which is in lower case.\nfunc clientSetting(name string) bool {\n")
	writeSet(&b, t.settings)
	b.WriteString("}\n\n// moduleSetting reports whether settings that start with the prefix belong to a module of the\n// server's, which may not let a client set them.\nfunc moduleSetting(prefix string) bool {\n")
	writeSet(&b, t.modules)
	b.WriteString("}\n")
	return b.Bytes()
}

// writeSwitch writes a switch from names to kinds.
func writeSwitch(b *bytes.Buffer, m map[string]int) {
	b.WriteString("switch name {\n")
	for rank, k := range kinds {
		var names []string
		for name, r := range m {
			if r == rank {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		writeCase(b, names)
		fmt.Fprintf(b, "return %s\n", k.constant)
	}
	b.WriteString("}\nreturn builtinNone\n")
}

// writeSet writes a switch that is true for the members of m.
func writeSet(b *bytes.Buffer, m map[string]bool) {
	word := "name"
	if m["plpgsql"] {
		word = "prefix"
	}
	fmt.Fprintf(b, "switch %s {\n", word)
	writeCase(b, slices.Collect(maps.Keys(m)))
	b.WriteString("return true\n}\nreturn false\n")
}

// writeCase writes the names of one case, in lines of some 110 characters.
func writeCase(b *bytes.Buffer, names []string) {
	slices.Sort(names)
	b.WriteString("case ")
	width := 0
	for i, n := range names {
		if i > 0 {
			b.WriteString(",")
			if width > 100 {
				b.WriteString("\n")
				width = 0
			} else {
				b.WriteString(" ")
			}
		}
		k, _ := fmt.Fprintf(b, "%q", n)
		width += k + 2
	}
	b.WriteString(":\n")
}
