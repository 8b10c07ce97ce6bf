package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// overtime is a limit of time that these tests wait for, and within what pgweir looks at sessions by it.
const overtime = 400 * time.Millisecond

// farewell reads to the end of a client's connection and returns the last word, which must be a FATAL of pgweir's.
func farewell(t testing.TB, c *pgtest.RawClient) *pgtest.ServerError {
	t.Helper()
	ms, err := c.ReadToEnd()
	must(t, err)
	if len(ms) == 0 {
		t.Fatal("the connection was closed without a word")
	}
	e := pgtest.FirstError(ms[len(ms)-1:])
	if e == nil || e.Field('S') != "FATAL" || e.Field('R') != "pgweir" {
		t.Fatalf("the last word is %v", pgtest.DescribeAll(ms))
	}
	return e
}

// closedBy is the SQLSTATE with which a client is sent away, and the message.
func closedBy(t testing.TB, c *pgtest.RawClient) string {
	t.Helper()
	e := farewell(t, c)
	return e.Field('C') + " " + e.Field('M')
}

// pause has a node let time pass on a connection of its own.
func pause(t testing.TB, n *localpg.Node, d time.Duration) {
	t.Helper()
	must(t, n.Exec(t.Context(), "postgres", fmt.Sprintf("SELECT pg_sleep(%f)", d.Seconds())))
}

// activity is how many other processes of a node a condition holds for.
func activity(t testing.TB, n *localpg.Node, where string) string {
	t.Helper()
	v, err := n.Value(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "+where)
	must(t, err)
	return v
}

// quiet waits until a condition holds for no process of any node.
func quiet(t testing.TB, cl *localpg.Cluster, where string) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		for _, n := range cl.Nodes {
			if k := activity(t, n, where); k != "0" {
				return fmt.Errorf("%s: %s processes where %s", n.Name, k, where)
			}
		}
		return nil
	})
}

// aliases are names of the application's database, each with limits of its own.
const aliases = `
databases:
  "*": {cluster: main}
  query: {dbname: appdb, query_timeout: 400ms}
  transaction: {dbname: appdb, transaction_timeout: 400ms}
  idletx: {dbname: appdb, idle_transaction_timeout: 400ms}
  idle: {dbname: appdb, client_idle_timeout: 400ms}
  life: {dbname: appdb, client_lifetime: 400ms}
  other: {dbname: appdb}
`

// TestTimeLimits: each limit ends who is over it and nobody else, and nothing of it goes on at the nodes.
func TestTimeLimits(t *testing.T) {
	cl := sharedCluster(t)
	primary := cl.Nodes[0]
	must(t, cl.Exec(t.Context(), appDatabase, "DROP TABLE IF EXISTS timed; CREATE TABLE timed (i int); GRANT ALL ON timed TO "+appUser))
	must(t, cl.WaitReplayed(t.Context()))
	p := consoleProxy(t, proxyConfig{Extra: aliases})
	console := p.consoleClient(t)
	as := func(t *testing.T, database string) *pgtest.RawClient {
		t.Helper()
		return client(t, p.Addr, appUser, appPassword, database)
	}
	rows := func(t *testing.T) string {
		t.Helper()
		v, err := primary.Value(t.Context(), appDatabase, "SELECT count(*) FROM timed")
		must(t, err)
		return v
	}

	t.Run("query_timeout", func(t *testing.T) {
		for name, ms := range map[string][]pgtest.Message{
			"simple":   {pgtest.Query("INSERT INTO timed SELECT 1 FROM pg_sleep(60) -- overtime")},
			"extended": {pgtest.Parse("", "INSERT INTO timed SELECT 1 FROM pg_sleep(60) -- overtime"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync()},
			"a read":   {pgtest.Query("SELECT pg_sleep(60) -- overtime")},
			"a stream": {pgtest.Query("SELECT i, pg_sleep(0.01) FROM generate_series(1, 6000) i -- overtime")},
			"a lock":   {pgtest.Query("LOCK TABLE timed -- overtime")},
			"COPY":     {pgtest.Query("COPY timed FROM STDIN -- overtime")},
		} {
			t.Run(name, func(t *testing.T) {
				c, holder := as(t, "query"), p.Client(t)
				if name == "a lock" {
					ask(t, holder, "BEGIN")
					ask(t, holder, "LOCK TABLE timed")
					ask(t, c, "BEGIN")
				}
				sent := time.Now()
				must(t, c.Send(ms...))
				if got := closedBy(t, c); got != "57014 query timeout" {
					t.Error(got)
				}
				if took := time.Since(sent); took < overtime || took > overtime+5*time.Second {
					t.Errorf("after %v", took)
				}
				quiet(t, cl, "query LIKE '%overtime'")
				if name == "a lock" {
					ask(t, holder, "COMMIT")
				}
			})
		}
		if got := rows(t); got != "0" {
			t.Errorf("%s rows were written", got)
		}
		c := as(t, "query")
		ask(t, c, "SELECT pg_sleep(0.1)")
		ask(t, c, "BEGIN")
		ask(t, c, "SELECT pg_sleep(0.1)")
		pause(t, primary, 2*overtime) // idle is not what is limited
		ask(t, c, "COMMIT")
		if got := find(t, table(t, console, "SHOW TIMEOUTS"), "limit", "query_timeout")["clients"]; got != "6" {
			t.Errorf("%s clients were closed", got)
		}
	})

	t.Run("idle_transaction_timeout", func(t *testing.T) {
		c, next := as(t, "idletx"), p.Client(t)
		ask(t, c, "BEGIN")
		ask(t, c, "INSERT INTO timed VALUES (1)")
		ask(t, c, "LOCK TABLE timed")
		pid := ask(t, c, "SELECT pg_backend_pid()")
		if got := closedBy(t, c); got != "25P03 idle transaction timeout" {
			t.Error(got)
		}
		if got := ask(t, next, "SELECT count(*) FROM timed WHERE i = 1"); got != "0" { // it waits for the lock
			t.Errorf("%s rows of the transaction stayed", got)
		}
		quiet(t, cl, "pid = "+pid)
		c = as(t, "idletx")
		ask(t, c, "BEGIN")
		ask(t, c, fmt.Sprintf("SELECT pg_sleep(%f)", 2*overtime.Seconds())) // a statement is not idle
		ask(t, c, "COMMIT")
		pause(t, primary, 2*overtime) // nor is a client outside of a transaction
		ask(t, c, "SELECT 1")
	})

	t.Run("transaction_timeout", func(t *testing.T) {
		c := as(t, "transaction")
		ask(t, c, "BEGIN")
		ask(t, c, "INSERT INTO timed VALUES (2)")
		var last *pgtest.ServerError
		eventually(t, 10*time.Second, func() error { // busy all the time
			ms, err := c.Query("SELECT pg_sleep(0.01)")
			last = pgtest.FirstError(ms)
			if last == nil && err == nil {
				return fmt.Errorf("goes on")
			}
			if last == nil {
				last = serverError(err)
			}
			return nil
		})
		if last == nil || last.Field('C') != "25P04" || last.Field('S') != "FATAL" {
			t.Errorf("the transaction ended with %v", last)
		}
		quiet(t, cl, "usename = 'app' AND state LIKE 'idle in transaction%'")
		if got := rows(t); got != "0" {
			t.Errorf("%s rows of the transaction stayed", got)
		}
		c = as(t, "transaction")
		must(t, c.Send(pgtest.Query("INSERT INTO timed SELECT 1 FROM pg_sleep(60) -- overtime")))
		if got := closedBy(t, c); got != "25P04 transaction timeout" {
			t.Error(got)
		}
		quiet(t, cl, "query LIKE '%overtime'")
		c = as(t, "transaction")
		ask(t, c, "SELECT pg_sleep(0.1)")
		pause(t, primary, 2*overtime)
		ask(t, c, "SELECT pg_sleep(0.1)")
	})

	t.Run("client_idle_timeout", func(t *testing.T) {
		c, pinned, open := as(t, "idle"), as(t, "idle"), as(t, "idle")
		ask(t, open, "BEGIN")
		pid := ask(t, open, "SELECT pg_backend_pid()")
		ask(t, pinned, "LISTEN timed")
		if got := closedBy(t, c); got != "57P05 client_idle_timeout" {
			t.Error(got)
		}
		if got := closedBy(t, pinned); got != "57P05 client_idle_timeout" {
			t.Error(got)
		}
		ask(t, open, fmt.Sprintf("SELECT pg_sleep(%f)", 2*overtime.Seconds()))
		pause(t, primary, 2*overtime)
		if got := ask(t, open, "SELECT pg_backend_pid()"); got != pid {
			t.Errorf("the transaction went from process %s to %s", pid, got)
		}
		ask(t, open, "COMMIT")
	})

	t.Run("client_lifetime", func(t *testing.T) {
		c, open := as(t, "life"), as(t, "life")
		ask(t, open, "BEGIN")
		ask(t, open, "INSERT INTO timed VALUES (3)")
		if got := closedBy(t, c); got != "57P01 client_lifetime" {
			t.Error(got)
		}
		pause(t, primary, overtime)
		ask(t, open, "SELECT 1")
		must(t, open.Send(pgtest.Query("COMMIT")))
		if got := closedBy(t, open); got != "57P01 client_lifetime" {
			t.Error(got)
		}
		if got := rows(t); got != "1" {
			t.Errorf("%s rows were committed", got)
		}
	})

	for limit, least := range map[string]int{
		"query_timeout": 6, "transaction_timeout": 2, "idle_transaction_timeout": 1, "client_idle_timeout": 2, "client_lifetime": 2,
	} {
		want := fmt.Sprintf("pgweir_clients_closed_total{cluster=%q,limit=%q} %d\n", "main", limit, least)
		if !strings.Contains(string(metrics(t, p)), want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}
	if row := find(t, table(t, console, "SHOW CONFIG"), "key", "databases.query.query_timeout"); row["value"] != "400ms" || row["changeable"] != "yes" {
		t.Errorf("SHOW CONFIG: %v", row)
	}
	if log := p.log(); !strings.Contains(log, "over client_lifetime (400ms)") {
		t.Error("the log does not say why a client was sent away")
	}
	c := as(t, "other")
	pause(t, primary, 2*overtime)
	ask(t, c, "SELECT pg_sleep(0.5)") // nobody else is limited
}

// TestTimeLimitsReload: a reload changes the limits of clients that are in, and who may come; a user's limit stands above that of
// the database.
func TestTimeLimitsReload(t *testing.T) {
	cl := sharedCluster(t)
	p := consoleProxy(t, proxyConfig{Extra: "max_client_conn: 3\n"})
	console := p.consoleClient(t)
	file := filepath.Join(p.dir, "pgweir.yaml")
	old, err := os.ReadFile(file)
	must(t, err)
	reload := func(text string) {
		t.Helper()
		must(t, os.WriteFile(file, []byte(text), 0o600))
		if e := order(t, console, "RELOAD"); e != nil {
			t.Fatal(e)
		}
	}
	a, b, boss := p.Client(t), p.Client(t), client(t, p.Addr, superUser, superPassword, appDatabase)
	full := pgtest.ClientConfig{Addr: p.Addr, User: appUser, Password: appPassword, Database: appDatabase, Timeout: time.Minute}
	if _, err := pgtest.Connect(full); serverError(err) == nil || serverError(err).Field('C') != "53300" {
		t.Errorf("a fourth client: %v", err)
	}
	// What runs already counts, too, and what has long been idle.
	must(t, a.Send(pgtest.Query("SELECT pg_sleep(60) -- overtime")))
	eventually(t, 10*time.Second, func() error {
		for _, n := range cl.Nodes {
			if activity(t, n, "query LIKE '%overtime' AND state = 'active'") != "0" {
				return nil
			}
		}
		return fmt.Errorf("it does not run yet")
	})
	more := strings.Replace(string(old), "max_client_conn: 3", "max_client_conn: 4", 1)
	more = strings.Replace(more, "{password: "+fmt.Sprintf("%q", superPassword), "{query_timeout: 1h, password: "+fmt.Sprintf("%q", superPassword), 1)
	reload(more + "query_timeout: 200ms\n")
	if got := closedBy(t, a); got != "57014 query timeout" {
		t.Error(got)
	}
	quiet(t, cl, "query LIKE '%overtime'")
	ask(t, boss, "SELECT pg_sleep(1)") // the user's own limit
	must(t, b.Send(pgtest.Query("SELECT pg_sleep(60) -- overtime")))
	if got := closedBy(t, b); got != "57014 query timeout" {
		t.Error(got)
	}
	for range 3 {
		p.Client(t)
	}
	c := p.Client
	reload(strings.Replace(more, "max_client_conn: 4", "max_client_conn: 0", 1))
	ask(t, c(t), "SELECT pg_sleep(1)")
	reload(string(old))
	if _, err := pgtest.Connect(full); serverError(err) == nil || serverError(err).Field('C') != "53300" {
		t.Errorf("one more than there may be: %v", err)
	}
	ask(t, boss, "SELECT 1") // those that are in stay
}

// TestQueryTimeoutOfHungNode: a client is told in time although its node answers nothing, not even a cancel.
func TestQueryTimeoutOfHungNode(t *testing.T) {
	cl := newCluster(t, localpg.Config{})
	p := StartProxy(t, cl, proxyConfig{Extra: "query_timeout: 500ms\nreads_on_primary: share\n"})
	c := p.Client(t)
	ask(t, c, "BEGIN")
	ask(t, c, "SELECT 1")
	must(t, cl.Nodes[0].Pause())
	sent := time.Now()
	must(t, c.Send(pgtest.Query("SELECT 2")))
	if got := closedBy(t, c); got != "57014 query timeout" {
		t.Error(got)
	}
	if took := time.Since(sent); took > 5*time.Second {
		t.Errorf("after %v", took)
	}
	must(t, cl.Nodes[0].Resume())
	quiet(t, cl, "usename = 'app' AND state <> 'idle'")
}
