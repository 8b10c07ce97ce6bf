package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgweir/internal/localpg"
)

// updateTable makes TestORM write its table into the README, once every tool has passed.
var updateTable = flag.Bool("update", false, "write the table of TestORM into the README")

// ormWithout is how long the cluster has no primary in TestORM: the time that a cluster manager takes to make up its mind.
const ormWithout = 2 * time.Second

// ormModes are the values of the setting `transactions` that every tool is run with.
func ormModes() []string { return []string{"primary", "optimistic"} }

// ormTool is one tool of the table.
type ormTool struct {
	name    string                                         // of the subtest
	result  string                                         // what the table says of it; "" when it works unchanged and nothing has to be known
	program func(t testing.TB) (dir string, argv []string) // what to run, and where; skips the test where it cannot be had
}

// ormTools lists the tools in the order of the table.
func ormTools() []ormTool {
	return []ormTool{
		{name: "Django", program: ormPython("django", "django", "psycopg2")},
		{
			name: "SQLAlchemy", program: ormPython("sqlalchemy", "sqlalchemy", "alembic", "psycopg2"),
			result: "works unchanged; needs `transactions: optimistic` for reads on standbys, since a session begins a transaction with its first statement",
		},
		{name: "ActiveRecord", program: ormRuby},
		{name: "TypeORM", program: ormNode("typeorm")},
		{name: "Drizzle", program: ormNode("drizzle"), result: "works unchanged (it has no migrations down)"},
		{name: "Knex", program: ormNode("knex")},
		{
			name: "Sequelize", program: ormNode("sequelize"),
			result: "works unchanged; `findOrCreate`, which is not among what is tried, makes a function in `pg_temp`, and that binds its connection to the primary until it is closed",
		},
		{name: "GORM", program: ormGo("gorm")},
		{name: "bun", program: ormGo("bun")},
		{name: "sqlc", program: ormGo("sqlc")},
		{name: "goose", program: ormGo("goose")},
		{
			name: "golang-migrate", program: ormGo("migrate"),
			result: "works unchanged; lib/pq prepares every statement in a batch of its own, and that takes a transaction to the primary",
		},
	}
}

// ormPython is a program in Python, which imports the modules named.
func ormPython(folder string, modules ...string) func(t testing.TB) (string, []string) {
	return func(t testing.TB) (string, []string) {
		python := need(t, "python3", "/usr/bin/python3", "python3")
		if err := exec.Command(python, "-c", "import "+strings.Join(modules, ", ")).Run(); err != nil {
			need(t, "Debian's packages for the modules "+strings.Join(modules, ", "))
		}
		return "", []string{python, "-B", filepath.Join("orm", folder, "main.py")}
	}
}

// ormRuby is the program in Ruby.
func ormRuby(t testing.TB) (string, []string) {
	ruby := need(t, "ruby", "/usr/bin/ruby", "ruby")
	if err := exec.Command(ruby, "-e", `require "active_record"; require "pg"`).Run(); err != nil {
		need(t, "Debian's ruby-activerecord and ruby-pg")
	}
	return "", []string{ruby, filepath.Join("orm", "activerecord", "main.rb")}
}

// ormNode is a program for Node.js, with the packages that orm/node/package-lock.json pins. They are kept beside
// fetched servers.
func ormNode(folder string) func(t testing.TB) (string, []string) {
	return func(t testing.TB) (string, []string) {
		node, npm := need(t, "node", "node"), need(t, "npm", "npm")
		lock, err := os.ReadFile("orm/node/package-lock.json")
		must(t, err)
		dir := filepath.Join(localpg.CacheDir(), fmt.Sprintf("orm-node-%x", sha256.Sum256(lock))[:24])
		modules := filepath.Join(dir, "node_modules")
		if _, err := os.Stat(filepath.Join(modules, ".package-lock.json")); err != nil { // npm writes that last
			must(t, os.MkdirAll(dir, 0o755))
			for _, name := range []string{"package.json", "package-lock.json"} {
				text, err := os.ReadFile(filepath.Join("orm/node", name))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
			}
			runs(t, os.Environ(), dir, nil, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
		}
		return "", []string{"/usr/bin/env", "NODE_PATH=" + modules, node, filepath.Join("orm/node", folder, "main.js")}
	}
}

// ormGo is a program in Go, of a module of its own.
func ormGo(folder string) func(t testing.TB) (string, []string) {
	return func(t testing.TB) (string, []string) {
		bin := filepath.Join(t.TempDir(), folder)
		runs(t, os.Environ(), "orm/go", nil, "go", "build", "-o", bin, "./"+folder)
		return "", []string{bin}
	}
}

// ormReport is one line of what a tool's program prints; see orm/README.md.
type ormReport struct {
	Step     string         `json:"step"`
	Tool     string         `json:"tool"`     // step hello: name and version
	Requests int            `json:"requests"` // steps plain, block and failover: how many
	Written  int            `json:"written"`  // step failover: how many rows were written, as the program was told
	Errors   map[string]int `json:"errors"`   // step failover: by SQLSTATE, those of the first try
	GaveUp   int            `json:"gave_up"`  // step failover: requests that failed twice
}

// ormRun is what one run of a tool has shown.
type ormRun struct {
	tool     string
	plain    share // of the reads that the tool sends as it likes
	block    share // of the reads in the tool's transactions
	failover ormReport
}

// share counts reads that nodes have answered.
type share struct{ standbys, all int }

// String is the share in percent.
func (s share) String() string {
	if s.all == 0 {
		return "–"
	}
	return fmt.Sprintf("%d %%", (100*s.standbys+s.all/2)/s.all)
}

// ormApp is a running program of a tool.
type ormApp struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	stderr bytes.Buffer
}

// startApp starts a tool's program; it ends with the test.
func startApp(t testing.TB, tool ormTool, dsn string) *ormApp {
	t.Helper()
	dir, argv := tool.program(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	a := &ormApp{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	a.cmd.Dir, a.cmd.Stderr, a.cmd.WaitDelay = dir, &a.stderr, 10*time.Second
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") {
			a.cmd.Env = append(a.cmd.Env, kv)
		}
	}
	a.cmd.Env = append(a.cmd.Env, "DATABASE_URL="+dsn, "LC_ALL=C.UTF-8")
	out, err := a.cmd.StdoutPipe()
	must(t, err)
	a.out = bufio.NewScanner(out)
	a.in, err = a.cmd.StdinPipe()
	must(t, err)
	must(t, a.cmd.Start())
	t.Cleanup(func() {
		cancel()
		if a.cmd.ProcessState == nil {
			_ = a.cmd.Wait()
		}
		if t.Failed() && a.stderr.Len() > 0 {
			t.Logf("what the program complained of:\n%s", a.stderr.Bytes()[max(0, a.stderr.Len()-8<<10):])
		}
	})
	return a
}

// next is the program's next report, which must be of a certain step.
func (a *ormApp) next(t testing.TB, step string) ormReport {
	t.Helper()
	if !a.out.Scan() {
		t.Fatalf("the program ended ahead of step %s: %v", step, errors.Join(a.out.Err(), a.cmd.Wait()))
	}
	var r ormReport
	if err := json.Unmarshal(a.out.Bytes(), &r); err != nil || r.Step != step {
		t.Fatalf("a report of step %s was due, not %q (%v)", step, a.out.Text(), err)
	}
	return r
}

// goOn lets the program go on.
func (a *ormApp) goOn(t testing.TB) {
	t.Helper()
	_, err := io.WriteString(a.in, "go on\n")
	must(t, err)
}

// TestORM runs a small program of each ORM and migration tool through pgweir, with `transactions: primary` and
// `transactions: optimistic`, kills the primary below it and promotes a standby. It runs where ORM is set, and
// prints a table.
func TestORM(t *testing.T) {
	if os.Getenv("ORM") == "" {
		t.Skip("make orm runs this")
	}
	c := newCluster(t, localpg.Config{Standbys: 2, Settings: map[string]string{
		"shared_preload_libraries": "pg_stat_statements",
		"max_connections":          "150",
	}})
	must(t, c.Exec(t.Context(), "postgres", "CREATE EXTENSION pg_stat_statements"))
	var table strings.Builder
	table.WriteString("| tool | result | reads on standbys | reads in transactions, on standbys | errors seen at the failover |\n|---|---|---|---|---|\n")
	done := 0
	for _, tool := range ormTools() {
		runs := make(map[string]ormRun)
		t.Run(tool.name, func(t *testing.T) {
			for _, mode := range ormModes() {
				t.Run(mode, func(t *testing.T) { runs[mode] = tool.run(t, c, mode) })
				revive(t, c)
			}
			if !t.Failed() && !t.Skipped() {
				done++
				table.WriteString(tool.row(runs))
			}
		})
	}
	t.Logf("\n%s", table.String())
	switch {
	case !*updateTable || t.Failed():
	case done < len(ormTools()):
		t.Errorf("the README keeps its table: %d of %d tools were run", done, len(ormTools()))
	default:
		must(t, writeRegion("../../README.md", "orm", table.String()))
	}
}

// row is a tool's line of the table.
func (o ormTool) row(runs map[string]ormRun) string {
	verdict := cmp.Or(o.result, "works unchanged")
	one, two := runs[ormModes()[0]], runs[ormModes()[1]]
	pair := func(a, b fmt.Stringer) string {
		if a.String() == b.String() {
			return a.String()
		}
		return a.String() + " / " + b.String()
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", one.tool, verdict, pair(one.plain, two.plain), pair(one.block, two.block),
		pair(one.failover, two.failover))
}

// String is what the application saw of the failover.
func (r ormReport) String() string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(r.Errors)) {
		parts = append(parts, fmt.Sprintf("%d × %s", r.Errors[code], code))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// run runs the tool once, in a database of its own and through a pgweir of its own.
func (o ormTool) run(t *testing.T, c *localpg.Cluster, mode string) ormRun {
	const database = "library"
	for _, s := range []struct{ db, sql string }{
		{"postgres", "DROP DATABASE IF EXISTS " + database + " WITH (FORCE)"},
		{"postgres", "CREATE DATABASE " + database + " OWNER " + appUser},
		{database, "ALTER SCHEMA public OWNER TO " + appUser},
	} {
		must(t, c.Exec(t.Context(), s.db, s.sql))
	}
	must(t, c.InstallNodePort(t.Context(), database))
	p := StartProxy(t, c, proxyConfig{DefaultProbes: true, Extra: "transactions: " + mode + "\n"})
	dsn := url.URL{Scheme: "postgres", User: url.UserPassword(appUser, appPassword), Host: p.Addr, Path: database, RawQuery: "sslmode=disable"}
	a := startApp(t, o, dsn.String())
	r := ormRun{tool: a.next(t, "hello").Tool}
	for _, step := range []string{"migrate", "crud", "nested"} {
		a.goOn(t)
		a.next(t, step)
	}
	settledIn(t, c, p, database, "books")
	r.plain, r.block = o.reading(t, c, p, a, "plain", database), o.reading(t, c, p, a, "block", database)
	r.failover = o.failover(t, c, p, a, database)
	a.goOn(t)
	a.next(t, "down")
	must(t, a.in.Close())
	if err := a.cmd.Wait(); err != nil {
		t.Fatalf("the program ended with %v", err)
	}
	if mode == "primary" && r.block.standbys > 0 {
		t.Errorf("%d reads of transactions that may write were answered by standbys", r.block.standbys)
	}
	if mode == "optimistic" && r.plain.standbys == 0 {
		t.Error("no read was answered by a standby")
	}
	t.Logf("%s: plain %d of %d reads on standbys, in transactions %d of %d; failover: %d requests, %s",
		r.tool, r.plain.standbys, r.plain.all, r.block.standbys, r.block.all, r.failover.Requests, r.failover)
	return r
}

// reading lets the program read and counts on the nodes who answered.
func (o ormTool) reading(t *testing.T, c *localpg.Cluster, p *Proxy, a *ormApp, step, database string) share {
	t.Helper()
	primary, err := c.Primary(t.Context())
	must(t, err)
	before, routes := readsByNode(t, c, database), routesByReason(t, p)
	// What the program does in a step it begins when it is told to; the report of the step is its end.
	_, err = io.WriteString(a.in, step+"\n")
	must(t, err)
	report := a.next(t, step)
	var s share
	for n, after := range readsByNode(t, c, database) {
		s.all += after - before[n]
		if n != primary {
			s.standbys += after - before[n]
		}
	}
	t.Logf("step %s: %s", step, grown(routes, routesByReason(t, p)))
	if s.all < report.Requests {
		t.Errorf("step %s: %d reads are counted on the nodes, for %d requests", step, s.all, report.Requests)
	}
	return s
}

// routesByReason reads from pgweir's metrics why units of statements went where they went.
func routesByReason(t testing.TB, p *Proxy) map[string]int {
	t.Helper()
	out := make(map[string]int)
	for _, m := range regexp.MustCompile(`(?m)^pgweir_routes_total\{cluster="main",reason="(\w+)",target="(\w+)"\} (\d+)$`).FindAllStringSubmatch(string(metrics(t, p)), -1) {
		n, err := strconv.Atoi(m[3])
		must(t, err)
		out[m[2]+" "+m[1]] = n
	}
	return out
}

// grown says by how much counters have grown, those that have.
func grown(before, after map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(after)) {
		if n := after[k] - before[k]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k))
		}
	}
	return strings.Join(parts, ", ")
}

// readsByNode asks each running node how many SELECTs of the program's tables it has run.
func readsByNode(t testing.TB, c *localpg.Cluster, database string) map[*localpg.Node]int {
	t.Helper()
	out := make(map[*localpg.Node]int)
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		v, err := n.Value(t.Context(), "postgres", fmt.Sprintf(`SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
			WHERE datname = '%s' AND query ~* '^(\s|--[^\n]*\n)*select\M.*\m(authors|books)\M' AND query !~ 'node_port'`, database))
		must(t, err)
		out[n], err = strconv.Atoi(v)
		must(t, err)
	}
	return out
}

// settledIn is settled for any database and any primary.
func settledIn(t testing.TB, c *localpg.Cluster, p *Proxy, database, table string) {
	t.Helper()
	must(t, c.WaitReplayed(t.Context()))
	primary, err := c.Primary(t.Context())
	must(t, err)
	cl := client(t, p.Addr, appUser, appPassword, database)
	eventually(t, 20*time.Second, func() error {
		if n := askPort(t, c, cl, "SELECT node_port(), count(*) FROM "+table); n == primary {
			return fmt.Errorf("no standby answers: %s", ask(t, cl, "SHOW pgweir.last_route"))
		}
		return nil
	})
}

// failover kills the primary while the program works and promotes the standby that has received most. Commits wait
// for a standby meanwhile, so that a row the program was told of may not be missing.
func (o ormTool) failover(t *testing.T, c *localpg.Cluster, p *Proxy, a *ormApp, database string) ormReport {
	t.Helper()
	old, err := c.Primary(t.Context())
	must(t, err)
	must(t, old.SetSync(t.Context(), "ANY 1 (*)"))
	settledIn(t, c, p, database, "books")
	a.goOn(t)
	a.next(t, "working")
	must(t, old.Kill9())
	timer := time.NewTimer(ormWithout)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
	standbys, err := c.Standbys(t.Context())
	must(t, err)
	next, most := (*localpg.Node)(nil), localpg.LSN(0)
	for _, n := range standbys {
		at, err := n.Received(t.Context())
		must(t, err)
		if next == nil || at > most {
			next, most = n, at
		}
	}
	promote(t, c, next)
	a.goOn(t)
	report := a.next(t, "failover")
	if report.GaveUp > 0 {
		t.Errorf("%d of %d requests failed twice: %v", report.GaveUp, report.Requests, report)
	}
	rows, err := next.Value(t.Context(), database, "SELECT count(DISTINCT title) FROM books WHERE title LIKE 'failover %'")
	must(t, err)
	if rows != fmt.Sprint(report.Written) || report.Written == 0 {
		t.Errorf("the program wrote %d rows, and %s are there", report.Written, rows)
	}
	return report
}

// revive brings nodes that were killed back as standbys of the primary.
func revive(t testing.TB, c *localpg.Cluster) {
	t.Helper()
	primary, err := c.Primary(t.Context())
	must(t, err)
	must(t, primary.SetSync(t.Context(), ""))
	for _, n := range c.Nodes {
		if !n.Running() {
			_, err := n.Rejoin(t.Context(), primary)
			must(t, err)
		}
	}
	must(t, c.WaitStreaming(t.Context(), primary))
}

// writeRegion writes the part of a page that stands between two marks.
func writeRegion(file, name, text string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no marks for %q", file, name)
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}
