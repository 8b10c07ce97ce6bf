package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// steadyTime is how long TestDefaultProbes works: longer than probe.fresh_interval, and some tens
// of probes of each node.
const steadyTime = 8 * time.Second

// promptly is within what time each node answers the test itself, on a machine that is quiet
// enough to hold pgweir to its defaults: half of the default trust_window and probe.timeout.
const promptly = 250 * time.Millisecond

// watch asks a node straight, again and again until stop is closed, and returns the longest time
// that it took to answer.
func watch(c *pgtest.RawClient, stop <-chan struct{}) (worst time.Duration, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		asked := time.Now()
		ms, err := c.Query("SELECT pg_is_in_recovery()")
		if err != nil {
			return 0, err
		}
		if e := pgtest.FirstError(ms); e != nil {
			return 0, fmt.Errorf("ask straight: %v", e)
		}
		worst = max(worst, time.Since(asked))
		select {
		case <-stop:
			return worst, nil
		case <-tick.C:
		}
	}
}

// work writes and reads by turns until the time is over, and returns how many reads each port
// has answered. A read must see the client's own writes, and each write must be the primary's.
func work(c *pgtest.RawClient, id int, primary *localpg.Node, until time.Time) (map[string]int, error) {
	answers := make(map[string]int)
	for i := 1; time.Now().Before(until); i++ {
		for _, sql := range []string{
			fmt.Sprintf("INSERT INTO steady VALUES (%d, %d) RETURNING node_port(), %d", id, i, i),
			fmt.Sprintf("SELECT node_port(), count(*) FROM steady WHERE client = %d", id),
		} {
			ms, err := c.Query(sql)
			if err != nil {
				return nil, err
			}
			rows := pgtest.Rows(ms)
			if len(rows) != 1 || rows[0][1] != fmt.Sprint(i) {
				return nil, fmt.Errorf("%s: %v", sql, pgtest.DescribeAll(ms))
			}
			if sql[0] == 'S' {
				answers[rows[0][0]]++
			} else if rows[0][0] != fmt.Sprint(primary.Port()) {
				return nil, fmt.Errorf("%s: answered by port %s", sql, rows[0][0])
			}
		}
	}
	return answers, nil
}

// TestDefaultProbes works for some seconds with the probes and the trust window as they are by
// default: as long as every node answers the test itself promptly, none is declared down and the
// primary is never doubted.
func TestDefaultProbes(t *testing.T) {
	c := sharedCluster(t)
	p := StartProxy(t, c, proxyConfig{DefaultProbes: true})
	ask(t, p.Client(t), "DROP TABLE IF EXISTS steady; CREATE TABLE steady (client int, i int)")
	t.Cleanup(func() { ask(t, client(t, c.Nodes[0].Addr(), appUser, appPassword, appDatabase), "DROP TABLE steady") })
	settled(t, c, p, "steady")

	var wg, watches sync.WaitGroup
	stop, until := make(chan struct{}), time.Now().Add(steadyTime)
	worst := make([]time.Duration, len(c.Nodes))
	for i, n := range c.Nodes {
		straight := client(t, n.Addr(), appUser, appPassword, appDatabase)
		watches.Go(func() {
			var err error
			if worst[i], err = watch(straight, stop); err != nil {
				t.Errorf("%s: %v", n.Name, err)
			}
		})
	}
	answers := make([]map[string]int, 2)
	for i := range answers {
		cl := p.Client(t)
		wg.Go(func() {
			var err error
			if answers[i], err = work(cl, i, c.Nodes[0], until); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	close(stop)
	watches.Wait()

	t.Logf("nodes took at most %v to answer the test; reads by port %v", worst, answers)
	for i := range answers {
		if standby := answers[i][fmt.Sprint(c.Nodes[1].Port())] + answers[i][fmt.Sprint(c.Nodes[2].Port())]; standby == 0 && !t.Failed() {
			t.Errorf("client %d: no standby answered a read", i)
		}
	}
	for i, w := range worst {
		if w > promptly {
			t.Skipf("%s took %v to answer the test itself: this machine is too busy for the default probe.timeout", c.Nodes[i].Name, w)
		}
	}
	unshaken(t, p, len(c.Nodes))
}

// unshaken asserts that pgweir counts all nodes as up, has accepted one primary, and never said
// that a node was down or the primary lost or in doubt.
func unshaken(t *testing.T, p *Proxy, nodes int) {
	t.Helper()
	body := metrics(t, p)
	if up := regexp.MustCompile(`(?m)^pgweir_node_up\{.*\} 1$`).FindAll(body, -1); len(up) != nodes {
		t.Errorf("%d of %d nodes are up", len(up), nodes)
	}
	if changes := epochs(t, p)["main"]; changes != "1" {
		t.Errorf("the primary changed %s times; once is the start", changes)
	}
	log, err := os.ReadFile(filepath.Join(p.dir, "log"))
	must(t, err)
	for _, line := range regexp.MustCompile(`(?m)^.*event=(node_down|primary_lost|primary_unconfirmed|split_brain|quarantined|unproven|foreign)\b.*$`).FindAll(log, -1) {
		t.Errorf("%s", line)
	}
}
