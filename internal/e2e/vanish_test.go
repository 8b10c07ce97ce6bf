package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// TestVanish: a client that is gone from one moment to the next, in whatever it was doing, leaves nothing behind: the
// node's process ends what it did, within the time that a node needs to hear of it, and the pool's only connection is
// another client's next statement's.
func TestVanish(t *testing.T) {
	c := sharedCluster(t)
	p := StartProxy(t, c, proxyConfig{Extra: "default_pool_size: 1\nquery_wait_timeout: 20s\n"})
	check := p.Client(t)
	ask(t, check, "CREATE TABLE IF NOT EXISTS vanish (id int PRIMARY KEY, v text)")
	defer func() { must(t, c.Exec(t.Context(), appDatabase, "DROP TABLE vanish")) }()
	sleep := pgtest.Query("/* pgweir: primary */ SELECT pg_sleep(600)")
	insert := pgtest.Query("INSERT INTO vanish VALUES (1, 'x')")
	bind := pgtest.Join(pgtest.Bind("", "", strings.Repeat("x", 300_000)))
	for _, s := range []struct {
		name string
		do   func(v *vanisher)
	}{
		{"idle", func(v *vanisher) { v.ask(insert, pgtest.Query("DELETE FROM vanish")) }},
		{"in a query", func(v *vanisher) { v.send(sleep); v.busy("pg_sleep") }},
		{"in a read", func(v *vanisher) { v.send(pgtest.Query("SELECT pg_sleep(600)")); v.busy("pg_sleep") }},
		{"in a transaction", func(v *vanisher) { v.ask(pgtest.Query("BEGIN"), insert) }},
		{"in a failed transaction", func(v *vanisher) { v.ask(pgtest.Query("BEGIN"), insert, pgtest.Query("SELECT 1/0")) }},
		{"behind a BEGIN", func(v *vanisher) { v.ask(pgtest.Query("BEGIN")) }},
		{"in a query of a transaction", func(v *vanisher) { v.ask(pgtest.Query("BEGIN"), insert); v.send(sleep); v.busy("pg_sleep") }},
		{"before Sync", func(v *vanisher) {
			v.send(pgtest.Parse("", "INSERT INTO vanish VALUES (1, 'x')"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Flush())
			v.until('C')
		}},
		{"in a Bind", func(v *vanisher) {
			v.send(pgtest.Parse("", "INSERT INTO vanish VALUES (1, $1)"))
			v.raw(bind[:200_000])
			v.busy("")
		}},
		{"in a Query message", func(v *vanisher) { v.raw(pgtest.Join(insert)[:10]) }},
		{"in a COPY to the server", func(v *vanisher) {
			v.send(pgtest.Query("COPY vanish FROM STDIN"))
			v.until('G')
			v.send(pgtest.CopyData("1\tx\n"))
			v.busy("COPY")
		}},
		{"in a piece of COPY data", func(v *vanisher) {
			v.send(pgtest.Query("COPY vanish FROM STDIN"))
			v.until('G')
			v.raw(pgtest.Join(pgtest.CopyData("1\t" + strings.Repeat("x", 300_000)))[:150_000])
			v.busy("COPY")
		}},
		{"in a COPY from the server", func(v *vanisher) {
			v.send(pgtest.Query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT"))
			v.until('d')
		}},
		{"in a long result", func(v *vanisher) {
			v.send(pgtest.Query("/* pgweir: primary */ SELECT repeat('x', 1000) FROM generate_series(1, 10000000)"))
			v.until('D')
		}},
		{"in a long row", func(v *vanisher) {
			v.send(pgtest.Query("/* pgweir: primary */ SELECT repeat('x', 100000000)"))
			v.until('T')
		}},
		{"with a portal open", func(v *vanisher) {
			v.ask(pgtest.Query("BEGIN"), insert)
			v.send(pgtest.Parse("", "SELECT generate_series(1, 1000)"), pgtest.Bind("p", ""), pgtest.Execute("p", 1), pgtest.Flush())
			v.until('s')
		}},
		{"pinned", func(v *vanisher) {
			v.ask(pgtest.Query("CREATE TEMP TABLE mine (i int)"), pgtest.Query("LISTEN ch"), pgtest.Query("SELECT pg_advisory_lock(4711)"))
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			v := &vanisher{t: t, c: c, RawClient: p.Client(t)}
			s.do(v)
			must(t, v.CloseHard())
			began := time.Now()
			if got := ask(t, check, "INSERT INTO vanish VALUES (1, 'y') RETURNING v"); got != "y" {
				t.Errorf("it says %q", got)
			}
			t.Logf("the next client waited %v", time.Since(began).Round(time.Millisecond))
			ask(t, check, "DELETE FROM vanish")
			eventually(t, 15*time.Second, func() error { return v.traces() })
		})
	}
}

// vanisher is a client that will vanish.
type vanisher struct {
	*pgtest.RawClient
	t testing.TB
	c *localpg.Cluster
}

func (v *vanisher) ask(ms ...pgtest.Message) {
	v.t.Helper()
	_, err := v.Exchange(ms...)
	must(v.t, err)
}

func (v *vanisher) send(ms ...pgtest.Message) { v.t.Helper(); must(v.t, v.Send(ms...)) }

func (v *vanisher) raw(b []byte) { v.t.Helper(); must(v.t, v.SendRaw(b)) }

func (v *vanisher) until(typ byte) {
	v.t.Helper()
	_, err := v.ReadUntilType(typ)
	must(v.t, err)
}

// others is what processes of the application do on the nodes, but for idle ones.
const others = `SELECT string_agg(state || ': ' || query, '; ') FROM pg_stat_activity
	WHERE usename = '` + appUser + `' AND datname = '` + appDatabase + `' AND backend_type = 'client backend' AND state <> 'idle'`

// busy waits until a node runs something like it for the client, so that it vanishes in the middle.
func (v *vanisher) busy(what string) {
	v.t.Helper()
	eventually(v.t, 5*time.Second, func() error {
		for _, n := range v.c.Nodes {
			if got, err := n.Value(v.t.Context(), "postgres", others); err == nil && got != "" && strings.Contains(got, what) {
				return nil
			}
		}
		return errors.New("nothing runs")
	})
}

// traces is what is left of the client on the nodes.
func (v *vanisher) traces() error {
	for _, n := range v.c.Nodes {
		got, err := n.Value(v.t.Context(), "postgres", others)
		if err != nil {
			return err
		}
		locks, err := n.Value(v.t.Context(), "postgres", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
		if err != nil {
			return err
		}
		if got != "" || locks != "0" {
			return fmt.Errorf("%s still has %q and %s advisory locks", n.Name, got, locks)
		}
	}
	return nil
}
