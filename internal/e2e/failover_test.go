package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// state returns the SQLSTATE of the first error among messages, "" if there is none.
func state(ms []pgtest.Message) string {
	if e := pgtest.FirstError(ms); e != nil {
		return e.Field('C')
	}
	return ""
}

// settled returns when a standby answers a read of a table: pgweir's view of the catalog has the
// table then, and a sample of the primary covers every write so far. Before that a read rightly
// waits for the primary, which is about to die.
func settled(t testing.TB, c *localpg.Cluster, p *Proxy, table string) {
	t.Helper()
	must(t, c.WaitReplayed(t.Context()))
	eventually(t, 20*time.Second, func() error {
		cl, err := pgtest.Connect(pgtest.ClientConfig{Addr: p.Addr, User: appUser, Password: appPassword, Database: appDatabase})
		if err != nil {
			return err
		}
		defer cl.Close()
		if n := askPort(t, c, cl, "SELECT node_port(), count(*) FROM "+table); n == c.Nodes[0] {
			return fmt.Errorf("no standby answers: %s", ask(t, cl, "SHOW pgweir.last_route"))
		}
		return nil
	})
}

// promote makes n the primary, as a person would, and points the others at it.
func promote(t testing.TB, c *localpg.Cluster, n *localpg.Node) {
	t.Helper()
	must(t, n.Promote(t.Context()))
	for _, other := range c.Nodes {
		if other != n && other.Running() && !other.Paused() {
			must(t, other.Follow(t.Context(), n))
		}
	}
}

// TestFailover kills the primary under clients in different states and promotes a standby: each
// sees what the table of the contract says, over the connection that it had.
func TestFailover(t *testing.T) {
	c := newCluster(t, localpg.Config{Standbys: 2, SyncStandbys: "ANY 1 (*)"})
	p := StartProxy(t, c, proxyConfig{})
	old, next := c.Nodes[0], c.Nodes[1]
	setup := p.Client(t)
	ask(t, setup, "CREATE TABLE f (id int PRIMARY KEY, v text); INSERT INTO f VALUES (1, 'one')")
	settled(t, c, p, "f")
	idle, reader, writer, inTx, committing := p.Client(t), p.Client(t), p.Client(t), p.Client(t), p.Client(t)
	ask(t, idle, "SELECT count(*) FROM f")
	if n := askPort(t, c, writer, "INSERT INTO f VALUES (2, 'two') RETURNING node_port()"); n != old {
		t.Fatalf("%s answered a write", n.Name)
	}
	settled(t, c, p, "f")
	ask(t, inTx, "BEGIN; INSERT INTO f VALUES (3, 'lost')")
	// A statement in flight that could commit: it sleeps on the primary until that dies.
	must(t, committing.Send(pgtest.Query("INSERT INTO f SELECT 4, pg_sleep(120)::text")))
	eventually(t, 20*time.Second, func() error {
		v, err := old.Value(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO f SELECT 4%' AND state = 'active' AND pid <> pg_backend_pid()")
		if err == nil && v == "0" {
			err = fmt.Errorf("the statement in flight has not arrived")
		}
		return err
	})
	settled(t, c, p, "f")
	must(t, old.Kill9())

	// Reads go on while there is no primary.
	for range 5 {
		if n := askPort(t, c, reader, "SELECT node_port() FROM f WHERE id = 1"); n == old {
			t.Error("the dead node answered")
		}
	}
	// What was in flight gets 08007 and keeps its connection.
	ms, err := committing.ReadUntilReady(1)
	must(t, err)
	if s := state(ms); s != "08007" {
		t.Errorf("a write in flight got %q: %v", s, pgtest.DescribeAll(ms))
	}
	// In a transaction: 40001 once, then 25P02 until ROLLBACK.
	for i, want := range []string{"40001", "25P02"} {
		ms, err := inTx.Query("INSERT INTO f VALUES (5, 'lost too')")
		must(t, err)
		if s := state(ms); s != want || inTx.Tx != 'E' {
			t.Errorf("statement %d in the lost transaction got %q (%c), not %s: %v", i, s, inTx.Tx, want, pgtest.DescribeAll(ms))
		}
	}
	if ms, err := inTx.Query("ROLLBACK"); err != nil || state(ms) != "" || inTx.Tx != 'I' {
		t.Errorf("ROLLBACK of the lost transaction: %v %v", err, pgtest.DescribeAll(ms))
	}
	// A write waits until there is a primary again.
	held := make(chan []pgtest.Message, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		ms, err := writer.Query("INSERT INTO f VALUES (6, 'held') RETURNING node_port()")
		if err != nil {
			t.Error(err)
		}
		held <- ms
	})
	select {
	case ms := <-held:
		t.Fatalf("a write was answered without a primary: %v", pgtest.DescribeAll(ms))
	case <-time.After(500 * time.Millisecond):
	}
	promote(t, c, next)
	promoted := time.Now()
	got := <-held
	t.Logf("the held write was answered %v after the promotion", time.Since(promoted))
	if s := state(got); s != "" {
		t.Fatalf("the held write got %s: %v", s, pgtest.DescribeAll(got))
	}
	if rows := pgtest.Rows(got); len(rows) != 1 || rows[0][0] != fmt.Sprint(next.Port()) {
		t.Errorf("the held write was answered by %v, not by %d", rows, next.Port())
	}
	afterFailover(t, c, p, []*pgtest.RawClient{idle, reader, writer, inTx, committing})
	rejoins(t, c, p, old, next)
}

// afterFailover checks that every connection still works and that no acknowledged row is missing.
func afterFailover(t *testing.T, c *localpg.Cluster, p *Proxy, clients []*pgtest.RawClient) {
	t.Helper()
	for i, cl := range append(clients, p.Client(t)) {
		if got := ask(t, cl, "SELECT string_agg(id::text, ',' ORDER BY id) FROM f"); got != "1,2,6" {
			t.Errorf("client %d sees the rows %s", i, got)
		}
		if n := askPort(t, c, cl, "UPDATE f SET v = v WHERE id = 1 RETURNING node_port()"); n != c.Nodes[1] {
			t.Errorf("client %d writes to %s", i, n.Name)
		}
	}
}

// rejoins brings the old primary back as a standby; it answers reads then, and no writes.
func rejoins(t *testing.T, c *localpg.Cluster, p *Proxy, old, next *localpg.Node) {
	t.Helper()
	_, err := old.Rejoin(t.Context(), next)
	must(t, err)
	eventually(t, 30*time.Second, func() error {
		cl, err := pgtest.Connect(pgtest.ClientConfig{Addr: p.Addr, User: appUser, Password: appPassword, Database: appDatabase})
		if err != nil {
			return err
		}
		defer cl.Close()
		if n := askPort(t, c, cl, "SELECT node_port() FROM f WHERE id = 1"); n != old {
			return fmt.Errorf("%s answers", n.Name)
		}
		return nil
	})
}

// TestOldPrimaryReturnsWritable starts the old primary again after a promotion, as repmgr stacks
// do: no write and no read may reach it.
func TestOldPrimaryReturnsWritable(t *testing.T) {
	c := newCluster(t, localpg.Config{Standbys: 2})
	p := StartProxy(t, c, proxyConfig{})
	old, next := c.Nodes[0], c.Nodes[1]
	cl := p.Client(t)
	ask(t, cl, "CREATE TABLE f (id int)")
	settled(t, c, p, "f")
	must(t, old.Kill9())
	promote(t, c, next)
	ask(t, cl, "INSERT INTO f VALUES (1)")
	must(t, old.Start(t.Context()))
	if rec, err := old.InRecovery(t.Context()); err != nil || rec {
		t.Fatalf("the old primary should be writable: %v", err)
	}
	stop := time.Now().Add(3 * time.Second)
	for i := 0; time.Now().Before(stop); i++ {
		w := p.Client(t)
		if n := askPort(t, c, w, fmt.Sprintf("INSERT INTO f VALUES (%d) RETURNING node_port()", i+2)); n != next {
			t.Fatalf("a write went to %s", n.Name)
		}
		if n := askPort(t, c, w, "SELECT node_port() FROM f LIMIT 1"); n == old {
			t.Fatal("a read went to the node that is on a dead line")
		}
		must(t, w.Close())
	}
}

// TestHungPrimary stops the primary's processes: nothing answers and nothing is refused. A write
// waits, and is released on the promoted node.
func TestHungPrimary(t *testing.T) {
	c := newCluster(t, localpg.Config{Standbys: 2})
	p := StartProxy(t, c, proxyConfig{})
	old, next := c.Nodes[0], c.Nodes[1]
	cl := p.Client(t)
	ask(t, cl, "CREATE TABLE f (id int)")
	settled(t, c, p, "f")
	// A session that has just logged in waits for a sample of the primary; this one has had its answer
	// from a standby when the primary hangs.
	reader := p.Client(t)
	eventually(t, 10*time.Second, func() error {
		if n := askPort(t, c, reader, "SELECT node_port() WHERE NOT EXISTS (SELECT FROM f)"); n == old {
			return fmt.Errorf("%s answers", n.Name)
		}
		return nil
	})
	must(t, old.Pause())
	eventually(t, 10*time.Second, func() error {
		if ms, err := reader.Query("SELECT node_port() FROM f"); err != nil || state(ms) != "" {
			return fmt.Errorf("reads do not go on: %v %v", err, pgtest.DescribeAll(ms))
		}
		return nil
	})
	promote(t, c, next)
	w := p.Client(t)
	if n := askPort(t, c, w, "INSERT INTO f VALUES (1) RETURNING node_port()"); n != next {
		t.Errorf("%s answered", n.Name)
	}
	must(t, old.Kill9())
}

// TestHoldEnds shows that a write that waits in vain gets 57P03 with what is known.
func TestHoldEnds(t *testing.T) {
	c := newCluster(t, localpg.Config{Standbys: 1})
	p := StartProxy(t, c, proxyConfig{Extra: "hold: {timeout: 1s}\n"})
	cl := p.Client(t)
	ask(t, cl, "CREATE TABLE f (id int)")
	settled(t, c, p, "f")
	must(t, c.Nodes[0].Kill9())
	for _, ms := range [][]pgtest.Message{{pgtest.Query("INSERT INTO f VALUES (1)")}, pgtest.Extended("INSERT INTO f VALUES (2)")} {
		got, err := cl.Exchange(ms...)
		must(t, err)
		if s := state(got); s != "57P03" {
			t.Errorf("a write that waited in vain got %q: %v", s, pgtest.DescribeAll(got))
		}
	}
	if got := ask(t, cl, "SELECT count(*) FROM f"); got != "0" {
		t.Errorf("the standby shows %s rows", got)
	}
}

// metrics is what pgweir says at /metrics.
func metrics(t testing.TB, p *Proxy) []byte {
	t.Helper()
	resp, err := http.Get("http://" + p.Admin + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return body
}

// epochs reads each cluster's count of primary changes from pgweir's metrics.
func epochs(t testing.TB, p *Proxy) map[string]string {
	t.Helper()
	body := metrics(t, p)
	out := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^pgweir_primary_changes_total\{cluster="(\w+)"\} (\S+)$`).FindAllStringSubmatch(string(body), -1) {
		out[m[1]] = m[2]
	}
	return out
}

// TestTwoClusters serves two clusters that have a database of the same name, with an alias and a
// wildcard; a failover of one does not touch the other.
func TestTwoClusters(t *testing.T) {
	one := newCluster(t, localpg.Config{Standbys: 1})
	two := newCluster(t, localpg.Config{Standbys: 1})
	must(t, two.Exec(t.Context(), "postgres", "CREATE DATABASE elsewhere OWNER "+appUser))
	must(t, two.InstallNodePort(t.Context(), "elsewhere"))
	p := StartProxy(t, nil, proxyConfig{
		Clusters: map[string]*localpg.Cluster{"one": one, "two": two},
		Extra: strings.Join([]string{
			"databases:",
			"  " + appDatabase + ": {cluster: one}",
			"  alias: {cluster: two, dbname: " + appDatabase + "}",
			"  \"*\": {cluster: two}",
			"",
		}, "\n"),
	})
	login := func(db string) *pgtest.RawClient { return client(t, p.Addr, appUser, appPassword, db) }
	first, alias, rest := login(appDatabase), login("alias"), login("elsewhere")
	ask(t, login(appDatabase), "CREATE TABLE f (v text)")
	ask(t, login("alias"), "CREATE TABLE f (v text)")
	ask(t, login("elsewhere"), "CREATE TABLE f (v text)")
	settled(t, one, p, "f")
	for _, k := range []struct {
		cl   *pgtest.RawClient
		in   *localpg.Cluster
		want string
	}{{first, one, appDatabase}, {alias, two, appDatabase}, {rest, two, "elsewhere"}} {
		if n := askPort(t, k.in, k.cl, "INSERT INTO f VALUES (current_database()) RETURNING node_port()"); n != k.in.Nodes[0] {
			t.Errorf("%s: written on %s", k.want, n.Name)
		}
		if got := ask(t, k.cl, "SELECT v FROM f"); got != k.want {
			t.Errorf("in database %q, not %q", got, k.want)
		}
	}
	settled(t, one, p, "f")
	before := epochs(t, p)
	if len(before) != 2 {
		t.Fatalf("metrics of the clusters: %v", before)
	}
	must(t, one.Nodes[0].Kill9())
	promote(t, one, one.Nodes[1])
	if n := askPort(t, one, first, "INSERT INTO f VALUES ('after') RETURNING node_port()"); n != one.Nodes[1] {
		t.Errorf("written on %s", n.Name)
	}
	if n := askPort(t, two, alias, "INSERT INTO f VALUES ('after') RETURNING node_port()"); n != two.Nodes[0] {
		t.Errorf("written on %s", n.Name)
	}
	after := epochs(t, p)
	if after["one"] == before["one"] || after["two"] != before["two"] {
		t.Errorf("primary changes before %v, after %v", before, after)
	}
}
