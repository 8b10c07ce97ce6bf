package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgweir/internal/localpg"
)

// place is where a driver's program connects.
type place struct {
	name    string
	addr    string // the primary, or pgweir
	standby string // a standby, or pgweir's listener with route: standby
	primary string // the primary's port, where reads may go elsewhere; "" otherwise
}

// port is the port of an address.
func port(addr string) string {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return p
}

// eachPlace runs a test straight against the nodes, and then through pgweir.
func eachPlace(t *testing.T, f func(t *testing.T, at place)) {
	c := sharedCluster(t)
	straight := place{"straight", c.Nodes[0].Addr(), c.Nodes[1].Addr(), ""}
	if !t.Run(straight.name, func(t *testing.T) { f(t, straight) }) {
		t.Fatal("the program is wrong: it fails without pgweir")
	}
	t.Run("pgweir", func(t *testing.T) {
		p := StartProxy(t, c, proxyConfig{})
		f(t, place{"pgweir", p.Addr, p.Standby, port(c.Nodes[0].Addr())})
	})
}

// deadPort is a port on which nobody listens.
func deadPort(t testing.TB) string { return port(freeAddr(t)) }

// environ is the environment of a driver's program.
func (at place) environ(t testing.TB) []string {
	env := []string{
		"PGHOST=127.0.0.1", "PGPORT=" + port(at.addr), "PGUSER=" + appUser, "PGPASSWORD=" + appPassword, "PGDATABASE=" + appDatabase,
		"STANDBY_PORT=" + port(at.standby), "DEAD_PORT=" + deadPort(t), "PGSSLMODE=disable", "LC_ALL=C.UTF-8",
	}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") {
			env = append(env, kv)
		}
	}
	if at.primary != "" {
		env = append(env, "PRIMARY_PORT="+at.primary)
	}
	return env
}

// need finds a program, or skips the test; with PGWEIR_REQUIRE_DRIVERS set it fails instead.
func need(t testing.TB, what string, paths ...string) string {
	t.Helper()
	for _, p := range paths {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	if os.Getenv("PGWEIR_REQUIRE_DRIVERS") != "" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is not installed", what)
	return ""
}

// runs runs a program and fails the test with its output unless it exits 0.
func runs(t testing.TB, env []string, dir string, stdin []byte, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = env, dir
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// checked fails the test unless a driver's program has said all of these.
func checked(t testing.TB, out string, whats ...string) {
	t.Helper()
	for _, w := range whats {
		if !strings.Contains(out, "ok "+w) {
			t.Errorf("it never said %q:\n%s", "ok "+w, out)
		}
	}
}

// interpreted runs a program of drivers in each place, and looks for what it must have checked. probe is what the
// interpreter does if the driver is there; needs names it otherwise.
func interpreted(t *testing.T, interpreter string, probe []string, needs, program string, whats ...string) {
	t.Helper()
	path := need(t, interpreter, "/usr/bin/"+interpreter, interpreter)
	if err := exec.Command(path, probe...).Run(); err != nil {
		need(t, needs)
	}
	eachPlace(t, func(t *testing.T, at place) {
		checked(t, runs(t, at.environ(t), "", nil, path, "drivers/"+program), whats...)
	})
}

// TestPsycopg runs drivers/psycopg with Debian's psycopg 3.
func TestPsycopg(t *testing.T) {
	interpreted(t, "python3", []string{"-c", "import psycopg"}, "psycopg 3 (python3-psycopg)", "psycopg/main.py",
		"types", "prepared", "batches and pipelines", "COPY", "LISTEN", "cancel", "large", "going on", "several hosts")
}

// TestAsyncpg runs drivers/asyncpg with Debian's asyncpg.
func TestAsyncpg(t *testing.T) {
	interpreted(t, "python3", []string{"-c", "import asyncpg"}, "asyncpg (python3-asyncpg)", "asyncpg/main.py",
		"prepared", "transactions and cursors", "COPY", "LISTEN", "cancel", "large", "pools", "several hosts")
}

// TestPHP runs drivers/php with Debian's PHP.
func TestPHP(t *testing.T) {
	interpreted(t, "php", []string{"-r", `exit(extension_loaded("pdo_pgsql") && extension_loaded("pgsql") ? 0 : 1);`},
		"PHP's pgsql extensions (php-pgsql)", "php/main.php",
		"prepared", "lastInsertId", "transactions", "scrollable", "COPY", "LISTEN", "large objects", "the pgsql extension", "large values")
}

// TestPerl runs drivers/perl with Debian's DBD::Pg.
func TestPerl(t *testing.T) {
	interpreted(t, "perl", []string{"-MDBD::Pg", "-e", "1"}, "DBD::Pg (libdbd-pg-perl)", "perl/main.pl",
		"prepared", "last_insert_id", "transactions", "COPY", "LISTEN", "asynchronous", "large objects", "large values")
}

// TestRuby runs drivers/ruby with Debian's ruby-pg.
func TestRuby(t *testing.T) {
	interpreted(t, "ruby", []string{"-e", `require "pg"`}, "ruby-pg", "ruby/main.rb", "types", "prepared", "pipelines", "COPY", "LISTEN", "cancel", "large", "going on", "several hosts")
}

// TestJDBC compiles and runs drivers/jdbc with Debian's libpostgresql-jdbc-java.
func TestJDBC(t *testing.T) {
	javac, java := need(t, "javac", "javac"), need(t, "java", "java")
	const jar = "/usr/share/java/postgresql.jar"
	if _, err := os.Stat(jar); err != nil {
		need(t, "libpostgresql-jdbc-java")
	}
	classes := t.TempDir()
	runs(t, os.Environ(), "", nil, javac, "-cp", jar, "-d", classes, "drivers/jdbc/Main.java")
	eachPlace(t, func(t *testing.T, at place) {
		out := runs(t, at.environ(t), "", nil, java, "-cp", jar+":"+classes+":/usr/share/java/scram-client.jar:/usr/share/java/*", "Main")
		checked(t, out, "prepared", "batches", "COPY", "LISTEN", "cancel", "large", "going on", "transactions", "query modes", "several hosts")
	})
	t.Run("optimistic", func(t *testing.T) {
		c := sharedCluster(t)
		p := StartProxy(t, c, proxyConfig{Extra: "transactions: optimistic\n"})
		env := append(place{"pgweir", p.Addr, p.Standby, port(c.Nodes[0].Addr())}.environ(t), "OPTIMISTIC=1")
		checked(t, runs(t, env, "", nil, java, "-cp", jar+":"+classes+":/usr/share/java/scram-client.jar:/usr/share/java/*", "Main"), "transactions", "query modes")
	})
}

// TestNode runs drivers/node with npm's pg, pg-cursor and pg-copy-streams.
func TestNode(t *testing.T) {
	node, npm := need(t, "node", "node"), need(t, "npm", "npm")
	dir := filepath.Join(localpg.CacheDir(), "node-driver")
	must(t, os.MkdirAll(dir, 0o755))
	for _, name := range []string{"package.json", "main.js"} {
		text, err := os.ReadFile(filepath.Join("drivers/node", name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	install := exec.Command(npm, "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Logf("%s", out)
		need(t, "npm's pg")
	}
	eachPlace(t, func(t *testing.T, at place) {
		out := runs(t, at.environ(t), dir, nil, node, "main.js")
		checked(t, out, "types", "prepared", "batches", "cursors", "COPY", "LISTEN", "cancel", "large", "going on", "standby port")
	})
}

// asyncPID is the only thing in psql's output that differs between two runs.
var asyncPID = regexp.MustCompile(`PID \d+`)

// sourceLine is where in PostgreSQL's source an error came from.
var sourceLine = regexp.MustCompile(`(?m)^LOCATION: .*$`)

// TestPsql runs drivers/psql in both places; what a person sees must be the same.
func TestPsql(t *testing.T) {
	c := sharedCluster(t)
	psql := programOf(t, c, "psql")
	var first string
	eachPlace(t, func(t *testing.T, at place) {
		out := runs(t, at.environ(t), "", nil, psql, "-X", "-a", "-f", "drivers/psql/main.sql")
		out = sourceLine.ReplaceAllString(asyncPID.ReplaceAllString(out, "PID *"), "LOCATION: *")
		if at.name == "straight" {
			first = out
			if !strings.Contains(out, "copied too") || !strings.Contains(out, "division by zero") {
				t.Errorf("the script does not do what it should:\n%s", out)
			}
			return
		}
		if d := difference(strings.Split(first, "\n"), strings.Split(out, "\n")); d != "" {
			t.Errorf("%s\n%s", d, out)
		}
	})
}

// TestPsqlHosts is libpq's own choice among several hosts.
func TestPsqlHosts(t *testing.T) {
	c := sharedCluster(t)
	psql := programOf(t, c, "psql")
	eachPlace(t, func(t *testing.T, at place) {
		primary, standby := port(at.addr), port(at.standby)
		for _, k := range [][3]string{
			{standby + "," + primary, "read-write", "off"},
			{standby + "," + primary, "primary", "off"},
			{primary + "," + standby, "standby", "on"},
			{primary + "," + standby, "read-only", "on"},
			{primary + "," + standby, "prefer-standby", "on"},
			{deadPort(t) + "," + primary, "any", "off"},
		} {
			dsn := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%s target_session_attrs=%s", k[0], k[1])
			if out := runs(t, at.environ(t), "", nil, psql, "-XAt", "-d", dsn, "-c", "SHOW transaction_read_only"); strings.TrimSpace(out) != k[2] {
				t.Errorf("%s: transaction_read_only is %q", dsn, out)
			}
		}
	})
}

// programOf is a client program of the cluster's own version, or of any version on the machine:
// the relocatable packages have none.
func programOf(t testing.TB, c *localpg.Cluster, name string) string {
	t.Helper()
	if c.Bins().Has(name) {
		return c.Bins().Path(name)
	}
	return need(t, name, name)
}

// TestPgbench runs pgbench in its three protocol modes, and then its books must balance.
func TestPgbench(t *testing.T) {
	c := sharedCluster(t)
	pgbench, psql := programOf(t, c, "pgbench"), programOf(t, c, "psql")
	eachPlace(t, func(t *testing.T, at place) {
		env := at.environ(t)
		runs(t, env, "", nil, pgbench, "-i", "-s", "1", "-q")
		for _, mode := range []string{"simple", "extended", "prepared"} {
			runs(t, env, "", nil, pgbench, "-n", "-M", mode, "-c", "4", "-j", "2", "-t", "100")
			runs(t, env, "", nil, pgbench, "-n", "-M", mode, "-c", "4", "-j", "2", "-t", "300", "-S")
			runs(t, env, "", nil, pgbench, "-n", "-M", mode, "-c", "2", "-t", "20", "-C", "-S")
		}
		out := runs(t, env, "", nil, psql, "-XAt", "-c", "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT count(*) FROM pgbench_history)")
		if strings.TrimSpace(out) != "t|t|1200" {
			t.Errorf("the books do not balance: %s", out)
		}
		runs(t, env, "", nil, pgbench, "-i", "-I", "d", "-q")
	})
}

// TestDump dumps a database with four jobs, restores it with four jobs into another, and compares
// the two.
func TestDump(t *testing.T) {
	c := sharedCluster(t)
	dump, restore, psql := programOf(t, c, "pg_dump"), programOf(t, c, "pg_restore"), programOf(t, c, "psql")
	out := runs(t, c.Environ(), "", nil, dump, "--version")
	if m := regexp.MustCompile(`\) (\d+)`).FindStringSubmatch(out); m == nil || m[1] < fmt.Sprint(c.Bins().Version) {
		need(t, fmt.Sprintf("pg_dump of version %d or newer", c.Bins().Version))
	}
	fixture, err := os.ReadFile("testdata/dump.sql")
	must(t, err)
	must(t, c.Exec(t.Context(), "postgres", "DROP DATABASE IF EXISTS dumped"))
	must(t, c.Exec(t.Context(), "postgres", "CREATE DATABASE dumped OWNER "+appUser))
	must(t, c.Exec(t.Context(), "dumped", "ALTER SCHEMA public OWNER TO "+appUser))
	env := append(place{addr: c.Nodes[0].Addr(), standby: c.Nodes[1].Addr()}.environ(t), "PGDATABASE=dumped")
	runs(t, env, "", fixture, psql, "-X", "-v", "ON_ERROR_STOP=1")
	plain := func(db string) string {
		text := runs(t, append(env, "PGDATABASE="+db), "", nil, dump, "--no-owner", "--no-acl")
		return regexp.MustCompile(`(?m)^(-- Dumped.*|\\(un)?restrict .*)$`).ReplaceAllString(text, "")
	}
	want := plain("dumped")
	eachPlace(t, func(t *testing.T, at place) {
		must(t, c.Exec(t.Context(), "postgres", "DROP DATABASE IF EXISTS restored"))
		must(t, c.Exec(t.Context(), "postgres", "CREATE DATABASE restored OWNER "+appUser))
		must(t, c.Exec(t.Context(), "restored", "ALTER SCHEMA public OWNER TO "+appUser))
		must(t, c.WaitReplayed(t.Context()))
		dir := filepath.Join(t.TempDir(), "dump")
		env := at.environ(t)
		runs(t, append(env, "PGDATABASE=dumped"), "", nil, dump, "-Fd", "-j", "4", "-f", dir)
		runs(t, env, "", nil, restore, "-j", "4", "--no-owner", "-d", "restored", dir)
		if d := difference(strings.Split(want, "\n"), strings.Split(plain("restored"), "\n")); d != "" {
			t.Error(d)
		}
	})
	must(t, c.Exec(t.Context(), "postgres", "DROP DATABASE IF EXISTS restored WITH (FORCE)"))
	must(t, c.Exec(t.Context(), "postgres", "DROP DATABASE IF EXISTS dumped WITH (FORCE)"))
}
