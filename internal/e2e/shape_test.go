package e2e

import (
	"testing"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// TestUnnamedShape: a client that was told what rows its unnamed statement has, and runs it in a later unit, is never sent
// others: after an ALTER TABLE it hears what it hears on a direct connection, although the statement was made again on
// another connection of the pool, or of another node, that knows nothing of the table as it was.
func TestUnnamedShape(t *testing.T) {
	c := sharedCluster(t)
	admin := client(t, c.Nodes[0].Addr(), localpg.Superuser, c.Password, appDatabase)
	ask(t, admin, "DROP TABLE IF EXISTS shape_t")
	t.Cleanup(func() { ask(t, admin, "DROP TABLE IF EXISTS shape_t") })
	p := StartProxy(t, c, proxyConfig{Extra: "pool_size: 1\n"})
	for _, way := range []struct {
		name, addr string
		route      string // of the Describe
		between    func(a, b *pgtest.RawClient)
	}{
		{"direct", c.Nodes[0].Addr(), "", func(_, _ *pgtest.RawClient) {}},
		{"another session in between", p.Addr, "primary", func(_, b *pgtest.RawClient) { ask(t, b, "/* pgweir: primary */ SELECT 1") }},
		{"another node", p.Addr, "standby", func(a, _ *pgtest.RawClient) {
			done(t, a, pgtest.Parse("n", "INSERT INTO shape_t VALUES (2)"), pgtest.Bind("", "n"), pgtest.Execute("", 0), pgtest.Sync())
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			for _, change := range []string{"", "ALTER TABLE shape_t ALTER COLUMN id TYPE bigint"} {
				ask(t, admin, "DROP TABLE IF EXISTS shape_t")
				ask(t, admin, "CREATE TABLE shape_t AS SELECT 1 AS id; GRANT ALL ON shape_t TO PUBLIC")
				must(t, c.WaitReplayed(t.Context()))
				a := client(t, way.addr, appUser, appPassword, appDatabase)
				b := client(t, way.addr, appUser, appPassword, appDatabase)
				if way.route != "" {
					ask(t, a, "SET pgweir.route = '"+way.route+"'")
				}
				if ms := done(t, a, pgtest.Parse("", "SELECT id FROM shape_t WHERE id = 1"), pgtest.DescribeStatement(""), pgtest.Sync()); pgtest.FirstError(ms) != nil {
					t.Fatalf("describing: %v", pgtest.FirstError(ms))
				}
				if way.route == "standby" {
					done(t, a, pgtest.Parse("r", "SET pgweir.route = 'primary'"), pgtest.Bind("", "r"), pgtest.Execute("", 0), pgtest.Sync())
				}
				way.between(a, b)
				if change != "" {
					ask(t, admin, change)
				}
				for range 2 {
					ms := done(t, a, pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
					e := pgtest.FirstError(ms)
					switch {
					case change == "" && (e != nil || len(pgtest.Rows(ms)) != 1 || pgtest.Rows(ms)[0][0] != "1"):
						t.Errorf("the same rows: %v", pgtest.DescribeAll(ms))
					case change != "" && (e == nil || e.Field('C') != "0A000" || e.Field('M') != "cached plan must not change result type"):
						t.Errorf("behind %s: %v", change, pgtest.DescribeAll(ms))
					}
				}
			}
		})
	}
}

// done sends messages and returns the answer up to its ReadyForQuery.
func done(t testing.TB, c *pgtest.RawClient, ms ...pgtest.Message) []pgtest.Message {
	t.Helper()
	got, err := c.Exchange(ms...)
	must(t, err)
	return got
}
