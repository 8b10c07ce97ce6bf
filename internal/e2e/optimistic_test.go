package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// open is how many transactions of an application a node has open, as the node says.
func open(t testing.TB, n *localpg.Node, application string) string {
	t.Helper()
	v, err := n.Value(t.Context(), "postgres",
		fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE application_name = '%s' AND state LIKE 'idle in transaction%%'", application))
	must(t, err)
	return v
}

// TestOptimisticTransactions holds what `transactions: optimistic` promises on real nodes: a transaction that only
// reads is a standby's, one that writes is the primary's from the write on and sees what it wrote, and the death of
// the standby in between loses nothing.
func TestOptimisticTransactions(t *testing.T) {
	c := newCluster(t, localpg.Config{Standbys: 2})
	p := StartProxy(t, c, proxyConfig{Extra: "transactions: optimistic\n"})
	setup := p.Client(t)
	ask(t, setup, "CREATE TABLE o (id int PRIMARY KEY, n int); INSERT INTO o SELECT g, 0 FROM generate_series(1, 8) g")
	settled(t, c, p, "o")
	cl := p.Client(t, "application_name", "hopeful")
	where := func() []string {
		out := make([]string, len(c.Nodes))
		for i, n := range c.Nodes {
			out[i] = open(t, n, "hopeful")
		}
		return out
	}
	begin := func() {
		t.Helper()
		// A standby that has only just been seen fresh may be passed over for the primary: try again.
		eventually(t, 20*time.Second, func() error {
			ask(t, cl, "BEGIN")
			ask(t, cl, "SELECT n FROM o WHERE id = 1")
			if w := where(); w[0] == "0" && (w[1] == "1") != (w[2] == "1") {
				return nil
			}
			ask(t, cl, "ROLLBACK")
			return fmt.Errorf("the transaction is at %v", where())
		})
	}
	begin()
	ask(t, cl, "UPDATE o SET n = 7 WHERE id = 1")
	if w := where(); w[0] != "1" || w[1] != "0" || w[2] != "0" {
		t.Errorf("after a write the transaction is at %v", w)
	}
	if v := ask(t, cl, "SELECT n FROM o WHERE id = 1"); v != "7" {
		t.Errorf("its own write reads as %s", v)
	}
	ask(t, cl, "COMMIT")
	if v := ask(t, cl, "SELECT n FROM o WHERE id = 1"); v != "7" {
		t.Errorf("behind COMMIT the write reads as %s", v)
	}
	ask(t, cl, "UPDATE o SET n = 0 WHERE id = 1")

	// Counters: each transaction reads, then writes what it read plus one, under a lock of the row.
	const clients, rounds = 8, 40
	var wg sync.WaitGroup
	for i := range clients {
		w := p.Client(t)
		wg.Go(func() {
			for range rounds {
				for _, sql := range []string{
					"BEGIN", "SELECT count(*) FROM o", fmt.Sprintf("SELECT n FROM o WHERE id = %d FOR UPDATE", i%4+1),
					fmt.Sprintf("UPDATE o SET n = n + 1 WHERE id = %d", i%4+1), "COMMIT", "BEGIN", fmt.Sprintf("SELECT n FROM o WHERE id = %d", i%4+1), "COMMIT",
				} {
					ms, err := w.Query(sql)
					if err != nil {
						t.Errorf("%s: %v", sql, err)
						return
					}
					if e := pgtest.FirstError(ms); e != nil {
						t.Errorf("%s: %v", sql, e)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if v := ask(t, cl, "SELECT sum(n) FROM o"); v != fmt.Sprint(clients*rounds) {
		t.Errorf("%s of %d increments are there", v, clients*rounds)
	}

	begin()
	var holder *localpg.Node
	for _, n := range c.Nodes[1:] {
		if open(t, n, "hopeful") == "1" {
			holder = n
		}
	}
	must(t, holder.Kill9())
	if v := ask(t, cl, "SELECT count(*) FROM o"); v != "8" {
		t.Errorf("a read behind the death of the standby says %s", v)
	}
	ask(t, cl, "INSERT INTO o VALUES (9, 9)")
	if w := open(t, c.Nodes[0], "hopeful"); w != "1" {
		t.Errorf("%s transactions are open on the primary", w)
	}
	ask(t, cl, "COMMIT")
	if v := ask(t, cl, "SELECT n FROM o WHERE id = 9"); v != "9" {
		t.Errorf("the write of a transaction whose standby died reads as %s", v)
	}
}
