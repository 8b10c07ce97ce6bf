package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// parityDatabase is where the scripts run.
const parityDatabase = "parity"

// parityOnce makes the database and roles of the scripts.
var parityOnce sync.Once

// parityCluster is the shared cluster with the database of the scripts.
func parityCluster(t testing.TB) *localpg.Cluster {
	t.Helper()
	c := sharedCluster(t)
	parityOnce.Do(func() {
		for _, sql := range []string{
			"CREATE ROLE helper",
			"GRANT helper TO " + appUser,
			fmt.Sprintf("CREATE DATABASE %s OWNER %s", parityDatabase, appUser),
		} {
			must(t, c.Exec(t.Context(), "postgres", sql))
		}
		must(t, c.Exec(t.Context(), parityDatabase, "ALTER SCHEMA public OWNER TO "+appUser))
		must(t, c.WaitReplayed(t.Context()))
	})
	return c
}

// parity runs scripts at one target, each on a fresh fixture.
type parity struct {
	to    target
	admin *pgtest.RawClient
	clean bool // the fixture is as it was made
	sql   string
}

// newParity logs in at a target for making the fixture.
func newParity(t testing.TB, addr string) *parity {
	t.Helper()
	sql, err := os.ReadFile("testdata/fixture.sql")
	must(t, err)
	return &parity{
		to:    target{addr: addr, database: parityDatabase},
		admin: client(t, addr, appUser, appPassword, parityDatabase),
		sql:   string(sql),
	}
}

// fixture makes the fixture, through the same target, if the last script may have changed it.
func (p *parity) fixture(t testing.TB) {
	t.Helper()
	if p.clean {
		return
	}
	ms, err := p.admin.Query(p.sql)
	must(t, err)
	if e := pgtest.FirstError(ms); e != nil {
		t.Fatalf("make the fixture: %v", e)
	}
	p.clean = true
}

// run runs one script.
func (p *parity) run(t testing.TB, s *script) ([]string, int) {
	t.Helper()
	p.fixture(t)
	p.clean = s.readonly
	out, reads, err := s.run(p.to)
	must(t, err)
	return out, reads
}

// ownRoutine is the field of an error by which clients can tell that pgweir and not the node
// wrote it; PostgreSQL's names the function in its source.
var ownRoutine = regexp.MustCompile(` R="[^"]*"$`)

// differsThrough is difference for what came through pgweir: an error that pgweir gives in the
// node's place must be the node's in every other field.
func differsThrough(want, got []string) string {
	want, got = slices.Clone(want), slices.Clone(got)
	for i, line := range got {
		if i < len(want) && strings.HasSuffix(line, ` R="pgweir"`) {
			got[i], want[i] = ownRoutine.ReplaceAllString(line, ""), ownRoutine.ReplaceAllString(want[i], "")
		}
	}
	return difference(want, got)
}

// difference is the first line in which two transcripts differ, "" if there is none.
func difference(want, got []string) string {
	for i := range max(len(want), len(got)) {
		w, g := "(the end)", "(the end)"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			return fmt.Sprintf("line %d:\n  one:   %s\n  other: %s", i+1, w, g)
		}
	}
	return ""
}

// TestScriptsAreDeterministic runs every script twice straight against the primary: what is
// compared later must not differ by itself. With PGWEIR_PARITY_SHOW set the transcripts are logged.
func TestScriptsAreDeterministic(t *testing.T) {
	c := parityCluster(t)
	p := newParity(t, c.Nodes[0].Addr())
	ran := 0
	for _, s := range loadScripts(t) {
		if !s.runs(c.Bins().Version) {
			continue
		}
		ran++
		t.Run(s.name, func(t *testing.T) {
			one, _ := p.run(t, s)
			two, _ := p.run(t, s)
			if d := difference(one, two); d != "" {
				t.Error(d)
			}
			if os.Getenv("PGWEIR_PARITY_SHOW") != "" {
				t.Log("\n" + strings.Join(one, "\n"))
			}
		})
	}
	if ran < 150 {
		t.Errorf("only %d scripts", ran)
	}
}

// TestParity runs every script straight against the primary and through pgweir and compares
// message by message, and then counts on the nodes that at least a third of the scripts' reads
// outside of transactions were answered by standbys.
func TestParity(t *testing.T) {
	c := parityCluster(t)
	proxy := StartProxy(t, c, proxyConfig{})
	straight, through := newParity(t, c.Nodes[0].Addr()), newParity(t, proxy.Addr)
	total, before := 0, standbyReads(t, c)
	for _, s := range loadScripts(t) {
		if !s.runs(c.Bins().Version) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			// Both use the same database, one after the other.
			straight.clean = straight.clean && through.clean
			want, _ := straight.run(t, s)
			through.clean = through.clean && straight.clean
			if !through.clean {
				through.fixture(t)
				waitForStandbys(t, c, proxy)
			}
			got, reads := through.run(t, s)
			straight.clean = straight.clean && through.clean
			total += reads
			d := differsThrough(want, got)
			switch {
			case d != "" && s.differs == "":
				t.Errorf("one is straight, other through pgweir; %s\nstraight:\n%s\nthrough pgweir:\n%s", d, strings.Join(want, "\n"), strings.Join(got, "\n"))
			case d == "" && s.differs != "":
				t.Errorf("it no longer differs; take out %q here and in docs/differences.md", s.differs)
			}
		})
	}
	spread := standbyReads(t, c) - before
	t.Logf("%d of %d reads outside of transactions were answered by standbys", spread, total)
	if spread*3 < total {
		t.Errorf("only %d of %d reads outside of transactions were answered by standbys", spread, total)
	}
}

// waitForStandbys waits a moment for pgweir to have read the new catalog and for a standby to be
// fresh: what is counted is how scripts are routed, not how fast the fixture follows. It asks in a
// new session each time, since one that calls a function which the catalog does not hold yet stays
// on the primary.
func waitForStandbys(t testing.TB, c *localpg.Cluster, p *Proxy) {
	t.Helper()
	primary := strconv.Itoa(c.Nodes[0].Port())
	err := within(t.Context(), 2*time.Second, func() error {
		admin, err := pgtest.Connect(pgtest.ClientConfig{Addr: p.Addr, User: appUser, Password: appPassword, Database: parityDatabase})
		if err != nil {
			return err
		}
		defer admin.Close()
		if ask(t, admin, "SELECT node_port() AS warm, count(*) FROM t") == primary {
			return errors.New(ask(t, admin, "SHOW pgweir.last_route"))
		}
		return nil
	})
	if err != nil {
		t.Logf("no standby answers yet: %v", err) // what comes of it is counted at the end
	}
}

// standbyReads is how many reads of the scripts' roles the standbys have answered so far, by the
// nodes' own count.
func standbyReads(t testing.TB, c *localpg.Cluster) int {
	t.Helper()
	total := 0
	for _, n := range c.Nodes[1:] {
		v, err := n.Value(t.Context(), "postgres", `SELECT coalesce(sum(s.calls), 0)::int FROM pg_stat_statements s
			JOIN pg_roles r ON r.oid = s.userid JOIN pg_database d ON d.oid = s.dbid
			WHERE r.rolname IN ('`+appUser+`', '`+superUser+`') AND d.datname = '`+parityDatabase+`'
			AND s.query ~* '^\s*(select|values|table|with)\y' AND s.query NOT LIKE '%AS warm%'`)
		must(t, err)
		calls, err := strconv.Atoi(v)
		must(t, err)
		total += calls
	}
	return total
}
