package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgweir/internal/pgtest"
)

// The users of the console in these tests, beside appUser, who has no business there.
const (
	consoleAdmin = "chief"
	consoleStats = "watch"
)

// consoleProxy runs a proxy whose console has an admin and a stats user.
func consoleProxy(t *testing.T, cfg proxyConfig) *Proxy {
	t.Helper()
	cfg.Console = map[string]string{consoleAdmin: "admin", consoleStats: "stats"}
	cfg.Users = map[string]string{consoleAdmin: "b055", consoleStats: "w4tch"}
	return StartProxy(t, sharedCluster(t), cfg)
}

// consoleClient logs in to the console as its admin until the test ends.
func (p *Proxy) consoleClient(t testing.TB) *pgtest.RawClient {
	t.Helper()
	return client(t, p.Addr, consoleAdmin, "b055", "pgweir")
}

// consoleDSN is a connection string of the console's admin.
func (p *Proxy) consoleDSN() string {
	return fmt.Sprintf("host=127.0.0.1 port=%s user=%s password=b055 dbname=pgbouncer sslmode=disable", port(p.Addr), consoleAdmin)
}

// serverError is what a server answered, nil where an error is none of those.
func serverError(err error) *pgtest.ServerError {
	var e *pgtest.ServerError
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// order runs a command on the console and returns its error, nil for none.
func order(t testing.TB, c *pgtest.RawClient, command string) *pgtest.ServerError {
	t.Helper()
	ms, err := c.Query(command)
	must(t, err)
	return pgtest.FirstError(ms)
}

// table runs a SHOW and returns its rows by column name.
func table(t testing.TB, c *pgtest.RawClient, command string) []map[string]string {
	t.Helper()
	ms, err := c.Query(command)
	must(t, err)
	if e := pgtest.FirstError(ms); e != nil {
		t.Fatalf("%s: %v", command, e)
	}
	var names []string
	for _, m := range ms {
		if m.Type == 'T' {
			for rest := m.Body[2:]; len(rest) > 0; {
				n := bytes.IndexByte(rest, 0)
				names = append(names, string(rest[:n]))
				rest = rest[n+1+18:]
			}
		}
	}
	var out []map[string]string
	for _, row := range pgtest.Rows(ms) {
		r := make(map[string]string)
		for i, v := range row {
			r[names[i]] = v
		}
		out = append(out, r)
	}
	return out
}

// find is the first row with that value in a column; the test ends without one.
func find(t testing.TB, rows []map[string]string, column, value string) map[string]string {
	t.Helper()
	i := slices.IndexFunc(rows, func(r map[string]string) bool { return r[column] == value })
	if i < 0 {
		t.Fatalf("no row has %s = %q: %v", column, value, rows)
	}
	return rows[i]
}

// TestConsoleShowsSessions holds that the console finds, from a client, its connection, and from a backend's pid on a
// node, the client; and that it counts what clients do.
func TestConsoleShowsSessions(t *testing.T) {
	cl := sharedCluster(t)
	p := consoleProxy(t, proxyConfig{})
	c := p.consoleClient(t)
	app := p.Client(t, "application_name", "the app")
	ask(t, app, "CREATE TEMP TABLE mine (i int)")
	ask(t, app, "BEGIN")
	ask(t, app, "INSERT INTO mine SELECT 1")
	id := fmt.Sprint(app.PID)

	row := find(t, table(t, c, "SHOW CLIENTS"), "id", id)
	if row["user"] != appUser || row["database"] != appDatabase || row["application_name"] != "the app" || row["state"] != "active" || row["addr"] != "127.0.0.1" {
		t.Errorf("SHOW CLIENTS: %v", row)
	}
	primary, err := cl.Primary(t.Context())
	must(t, err)
	pid, err := primary.Value(t.Context(), "postgres", "SELECT pid FROM pg_stat_activity WHERE application_name = 'the app' AND state = 'idle in transaction'")
	must(t, err)
	if row["remote_pid"] != pid {
		t.Errorf("the node says that its backend is %s, SHOW CLIENTS %v", pid, row)
	}
	if row := find(t, table(t, c, "SHOW SERVERS"), "ptr", row["link"]); row["state"] != "active" || row["remote_pid"] != pid || row["port"] != fmt.Sprint(primary.Port()) || row["link"] == "" {
		t.Errorf("SHOW SERVERS: %v", row)
	}
	if row := find(t, table(t, c, "SHOW ACTIVE"), "id", id); row["state"] != "holding" || row["node"] != primary.Name {
		t.Errorf("SHOW ACTIVE: %v", row)
	}
	if row := find(t, table(t, c, "SHOW PINS"), "id", id); row["reason"] != "temp_object" && row["reason"] == "" || row["node"] != primary.Name {
		t.Errorf("SHOW PINS: %v", row)
	}
	if row := find(t, table(t, c, "WHO "+pid+" "+primary.Name), "pid", pid); row["id"] != id || row["application_name"] != "the app" {
		t.Errorf("WHO: %v", row)
	}
	if e := order(t, c, "WHO "+pid+" nowhere"); e == nil || e.Field('C') != "42704" {
		t.Errorf("WHO at a node that is not there: %v", e)
	}
	if rows := table(t, c, "WHO 1"); len(rows) != 0 {
		t.Errorf("WHO of a pid that is nobody's: %v", rows)
	}
	ask(t, app, "COMMIT")
	ask(t, app, "SET application_name TO 'renamed'")
	ask(t, app, "SELECT 1")
	if row := find(t, table(t, c, "SHOW CLIENTS"), "id", id); row["application_name"] != "renamed" {
		t.Errorf("SHOW CLIENTS after a SET: %v", row)
	}
	// CREATE; BEGIN with INSERT and COMMIT; SET; SELECT.
	row = find(t, table(t, c, "SHOW STATS_TOTALS"), "database", appDatabase)
	if row["xact_count"] != "4" || row["xact_time"] == "0" || row["query_time"] == "0" || row["bytes_received"] == "0" || row["bytes_sent"] == "0" {
		t.Errorf("SHOW STATS_TOTALS: %v", row)
	}
	must(t, app.Close())
	eventually(t, 10*time.Second, func() error {
		if rows := table(t, c, "SHOW CLIENTS"); len(rows) != 1 {
			return fmt.Errorf("clients: %v", rows)
		}
		return nil
	})
	after := find(t, table(t, c, "SHOW STATS_TOTALS"), "database", appDatabase)
	if after["xact_count"] != row["xact_count"] || after["query_count"] != row["query_count"] {
		t.Errorf("what a client did is forgotten with it: %v, then %v", row, after)
	}
}

// psql runs commands at the console and returns what it prints, without alignment.
func (p *Proxy) psql(t *testing.T, user, password string, args ...string) (string, error) {
	t.Helper()
	dsn := fmt.Sprintf("host=127.0.0.1 port=%s user=%s dbname=pgweir", port(p.Addr), user)
	cmd := exec.Command("psql", append([]string{"-X", "-At", "-v", "VERBOSITY=verbose", dsn}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestConsoleByPsql(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("psql is not installed")
	}
	p := consoleProxy(t, proxyConfig{})
	ask(t, p.Client(t), "SELECT 1")
	for _, what := range []string{
		"POOLS", "STATS", "STATS_TOTALS", "STATS_AVERAGES", "TOTALS", "DATABASES", "CLIENTS", "USERS", "LISTS", "CONFIG", "VERSION", "STATE", "MEM",
		"SOCKETS", "NODES", "NODE_POOLS", "SERVERS",
	} {
		if out, err := p.psql(t, consoleStats, "w4tch", "-c", "SHOW "+what+";"); err != nil || strings.TrimSpace(out) == "" {
			t.Errorf("SHOW %s: %v\n%s", what, err, out)
		}
	}
	for _, what := range []string{"PINS", "ACTIVE", "HOLDS", "EVENTS", "PEERS", "HELP"} {
		if out, err := p.psql(t, consoleStats, "w4tch", "-c", "show "+strings.ToLower(what)); err != nil {
			t.Errorf("SHOW %s: %v\n%s", what, err, out)
		}
	}
	if out, err := p.psql(t, consoleStats, "w4tch", "-c", "SHOW VERSION; SHOW LISTS"); err != nil || !strings.Contains(out, "pgweir ") || !strings.Contains(out, "used_clients|2") {
		t.Errorf("two commands in a string: %v\n%s", err, out)
	}
	if out, err := p.psql(t, consoleStats, "w4tch", "-c", "SELECT 1"); err == nil || !strings.Contains(out, "42601") {
		t.Errorf("a query: %v\n%s", err, out)
	}
}

func TestConsoleByPgx(t *testing.T) {
	p := consoleProxy(t, proxyConfig{})
	app := p.Client(t)
	ask(t, app, "SELECT 1")
	ask(t, app, "SELECT 1")
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		c := pgxConnect(t, p.consoleDSN(), func(cfg *pgx.ConnConfig) { cfg.DefaultQueryExecMode = mode })
		for range 2 { // the second time with what was prepared
			rows, err := c.Query(t.Context(), "SHOW STATS")
			must(t, err)
			stats, err := pgx.CollectRows(rows, pgx.RowToMap)
			must(t, err)
			i := slices.IndexFunc(stats, func(r map[string]any) bool { return r["database"] == appDatabase })
			if i < 0 {
				t.Fatalf("%v: no row of the database: %v", mode, stats)
			}
			if n := fmt.Sprint(stats[i]["total_query_count"]); !strings.HasPrefix(n, "{2 ") {
				t.Errorf("%v: two queries were run, total_query_count is %s", mode, n)
			}
		}
		var clients int32
		must(t, c.QueryRow(t.Context(), "SHOW LISTS").Scan(nil, &clients))
		if _, err := c.Exec(t.Context(), "PAUSE nowhere"); err == nil {
			t.Error("a database that is not there was paused")
		} else {
			wantState(t, err, "3D000")
		}
		if _, err := c.Exec(t.Context(), "SHOW HELP"); err != nil {
			t.Error(err)
		}
	}
}

// TestConsoleExporter holds that Debian's prometheus-pgbouncer-exporter can read the console, and that with several nodes,
// users and names of one database no two of its series have the same labels.
func TestConsoleExporter(t *testing.T) {
	exporter, err := exec.LookPath("prometheus-pgbouncer-exporter")
	if err != nil {
		t.Skip("prometheus-pgbouncer-exporter is not installed")
	}
	cl := sharedCluster(t)
	users := []string{"anna", "bert", "cleo"}
	for _, u := range users {
		must(t, cl.Exec(t.Context(), "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'exported'", u)))
	}
	t.Cleanup(func() {
		for _, u := range users {
			if err := cl.Exec(context.Background(), "postgres", "DROP ROLE "+u); err != nil {
				t.Error(err)
			}
		}
	})
	must(t, cl.WaitReplayed(t.Context()))
	p := consoleProxy(t, proxyConfig{Extra: "databases:\n  " + appDatabase + ": {pool_size: 7}\n  twin: {dbname: " + appDatabase + ", pool_size: 5}\n  postgres: {pool_mode: session}\n  \"*\": {}\n"})
	for _, u := range users {
		for _, db := range []string{appDatabase, "postgres"} {
			c := client(t, p.Addr, u, "exported", db)
			ask(t, c, "SELECT 1")                                       // a standby
			ask(t, c, "SELECT pg_catalog.pg_current_xact_id() IS NULL") // the primary
		}
	}
	addr := freeAddr(t)
	cmd := exec.Command(exporter, "--host", "127.0.0.1", "--port", port(addr), "--pgbouncer-host", "127.0.0.1", "--pgbouncer-port", port(p.Addr), "--pgbouncer-user", consoleStats)
	cmd.Env = append(os.Environ(), "PGPASSWORD=w4tch", "PGSSLMODE=disable")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	dieWithUs(cmd.SysProcAttr)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	// A read that no standby was fresh enough for has opened none there.
	servers := len(table(t, p.consoleClient(t), "SHOW SERVERS"))
	if servers < 2*len(users) {
		t.Errorf("%d connections to nodes", servers)
	}
	var text string
	eventually(t, 30*time.Second, func() error {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		text = string(body)
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", resp.Status, body)
		}
		return err
	})
	seen := make(map[string]bool)
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		name := line[:strings.LastIndexByte(line, ' ')]
		if seen[name] {
			t.Errorf("two series: %s", name)
		}
		seen[name] = true
	}
	want := []string{
		`pgbouncer_pool_size{database="` + appDatabase + `"} 7.0`, `pgbouncer_pool_size{database="twin"} 5.0`, `pgbouncer_users 6.0`, `pgbouncer_requests_total{database="postgres"} 6.0`,
		fmt.Sprintf("pgbouncer_used_servers %d.0", servers),
	}
	for _, u := range users {
		want = append(want, fmt.Sprintf(`pgbouncer_active_clients{database="postgres",user=%q} 1.0`, u), fmt.Sprintf(`pgbouncer_waiting_clients{database=%q,user=%q} 0.0`, appDatabase, u))
	}
	for _, line := range want {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the exporter does not say %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestConsoleRoles holds who may do what: an admin everything, a stats user looks, a stranger is not let in
// although his password is right.
func TestConsoleRoles(t *testing.T) {
	p := consoleProxy(t, proxyConfig{})
	stats := client(t, p.Addr, consoleStats, "w4tch", "pgbouncer")
	commands := []string{
		"PAUSE", "RESUME", "PAUSE " + appDatabase, "DISABLE " + appDatabase, "ENABLE " + appDatabase, "RECONNECT", "KILL " + appDatabase, "KILL_CLIENT 1",
		"RELOAD", "SHUTDOWN", "SHUTDOWN WAIT_FOR_CLIENTS", "SHOW VERSION; PAUSE",
	}
	for _, command := range commands {
		if e := order(t, stats, command); e == nil || e.Field('C') != "42501" {
			t.Errorf("%s by a stats user: %v", command, e)
		}
	}
	if v := ask(t, stats, "SHOW VERSION"); !strings.HasPrefix(v, "pgweir ") {
		t.Errorf("SHOW VERSION: %q", v)
	}
	for _, database := range []string{"pgweir", "pgbouncer"} {
		_, err := pgtest.Connect(pgtest.ClientConfig{Addr: p.Addr, User: appUser, Password: appPassword, Database: database, Timeout: 30 * time.Second})
		if e := serverError(err); e == nil || e.Field('C') != "42501" || e.Field('S') != "FATAL" {
			t.Errorf("a stranger at %s: %v", database, err)
		}
		_, err = pgtest.Connect(pgtest.ClientConfig{Addr: p.Addr, User: consoleAdmin, Password: "wrong", Database: database, Timeout: 30 * time.Second})
		if e := serverError(err); e == nil || e.Field('C') != "28P01" {
			t.Errorf("a wrong password at %s: %v", database, err)
		}
	}
	ask(t, p.Client(t), "SELECT 1") // nothing was paused or killed
}
