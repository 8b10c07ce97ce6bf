package proxy

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/internal/pgtest"
)

// countedConn is a connection to a node that counts what is written to it at once.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

// Write counts.
func (c countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// counted makes a rig count the writes to its nodes.
func counted(writes *atomic.Int64) rigOption {
	return func(r *rig) {
		r.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return countedConn{c, writes}, err
		}
	}
}

// TestSettingsTravel: what cannot change what a statement means or may do goes to the node in the same write as the statement; all
// else is waited for.
func TestSettingsTravel(t *testing.T) {
	for _, c := range []struct {
		sql    string
		writes int64
	}{
		{"SET application_name TO 'x'", 1},
		{"SET client_min_messages TO 'error'", 1},
		{"SET statement_timeout TO '2min'", 1},
		{"SET statement_timeout TO 0", 1},
		{"SET lock_timeout TO '1s'", 1},
		{"SET idle_in_transaction_session_timeout TO '1min'", 1},
		{"SET idle_session_timeout TO '1min'", 1},
		{"SET statement_timeout TO '5ms'", 2}, // it might hit the SET
		{"SET ROLE boss", 2},
		{"SET row_security TO off", 2},
		{"SET search_path TO a", 2},
		{"SET a.b TO 'x'", 2},
		{"SET DateStyle TO 'German'", 2},
		{"SET synchronous_commit TO off", 2},
		{"SET default_transaction_isolation TO 'serializable'", 2},
		{"SET application_name TO 'x'; SET TimeZone TO 'UTC'", 2},
	} {
		both(t, func(t *testing.T, protocol string) {
			var writes atomic.Int64
			r := newRig(t, alone, pooled(1), counted(&writes))
			a, b := r.client(), r.client()
			a.query(c.sql)
			b.query("INSERT INTO t VALUES (1)") // takes the connection back to its beginning
			r.forgetAll()
			writes.Store(0)
			equal(t, "answer", a.runs(protocol, "INSERT INTO t VALUES (2)"), map[string]string{"simple": "C(INSERT 0 1) Z(I)", "extended": "1 2 C(INSERT 0 1) Z(I)"}[protocol])
			equal(t, c.sql, writes.Load(), c.writes)
			if got := r.p().got(); !strings.HasPrefix(got, "Q SET ") || strings.Count(got, "Q ") != map[string]int{"simple": 2, "extended": 1}[protocol] {
				t.Errorf("%s: %s", c.sql, got)
			}
			writes.Store(0)
			a.runs(protocol, "INSERT INTO t VALUES (3)")
			equal(t, "no more", writes.Load(), int64(1))
		})
	}
}

// TestSettingsTravelWith: with a deferred BEGIN, an unnamed statement that the lease has lost by it, a COPY, a pipeline, a batch that is
// only flushed.
func TestSettingsTravelWith(t *testing.T) {
	var writes atomic.Int64
	r := newRig(t, alone, pooled(1), counted(&writes))
	a, b := r.client("application_name", "a"), r.client("application_name", "b")
	turn := func() {
		b.query("INSERT INTO t VALUES (0)")
		r.forgetAll()
		writes.Store(0)
	}
	const set = `Q SET "application_name" TO 'a' | `
	check := func(what, got, want, log string) {
		t.Helper()
		equal(t, what, got, want)
		equal(t, what, r.p().got(), set+log)
		equal(t, what, writes.Load(), int64(1))
	}
	turn()
	a.query("BEGIN")
	check("deferred", a.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(T)", "Q BEGIN | Q INSERT INTO t VALUES (1)")
	a.query("COMMIT")
	a.run(pgtest.Parse("", "INSERT INTO t VALUES (2)"), pgtest.Sync())
	turn()
	check("unnamed", a.run(pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync()), "2 C(INSERT 0 1) Z(I)",
		"P  INSERT INTO t VALUES (2) | B   | E INSERT INTO t VALUES (2) | S")
	turn()
	a.send(pgtest.Query("INSERT INTO t VALUES (3)"))
	a.ready(1)
	equal(t, "it drops the unnamed statement", a.run(pgtest.Bind("", ""), pgtest.Sync()), "E(ERROR 26000) Z(I)")
	turn()
	a.send(pgtest.Query("COPY t FROM STDIN"))
	a.until('G')
	a.send(pgtest.CopyData("1\n"), pgtest.CopyDone())
	equal(t, "copy", a.ready(1), "C(COPY 1) Z(I)")
	equal(t, "copy", r.p().got(), set+"Q COPY t FROM STDIN | c")
	turn()
	a.send(pgtest.Parse("", "INSERT INTO t VALUES (4)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync(),
		pgtest.Parse("", "INSERT INTO t VALUES (5)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "pipeline", a.ready(2), "1 2 C(INSERT 0 1) Z(I) 1 2 C(INSERT 0 1) Z(I)")
	equal(t, "pipeline", strings.Count(r.p().got(), "Q "), 1)
	turn()
	a.send(pgtest.Parse("", "INSERT INTO t VALUES (6)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Flush())
	check("flushed", a.until('C'), "1 2 C(INSERT 0 1)", "P  INSERT INTO t VALUES (6) | B   | E INSERT INTO t VALUES (6) | H")
	equal(t, "its end", a.run(pgtest.Sync()), "Z(I)")
	turn()
	equal(t, "an error", a.query("SELECT 1/0"), "E(ERROR 22012) Z(I)")
	writes.Store(0)
	a.query("INSERT INTO t VALUES (7)")
	equal(t, "is in force behind it", writes.Load(), int64(1))
	equal(t, "in force", r.p().last().guc.get("application_name"), "a")
	if strings.Count(r.p().got(), set) != 1 {
		t.Errorf("set again: %s", r.p().got())
	}
}

// TestSettingsTravelOptimistic: a transaction that moves takes the settings along.
func TestSettingsTravelOptimistic(t *testing.T) {
	r := newRig(t, withoutB, pooled(1), withTarget(func(x *Target) { x.Optimistic = true }))
	c := r.client("application_name", "a")
	r.forgetAll()
	c.query("BEGIN")
	equal(t, "reads", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(T)")
	equal(t, "on the standby", r.a().got(), `Q SET "application_name" TO 'a' | Q BEGIN | Q SELECT 1`)
	equal(t, "writes", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(T)")
	equal(t, "on the primary", r.p().got(), `Q SET "application_name" TO 'a' | Q BEGIN | Q INSERT INTO t VALUES (1)`)
	equal(t, "commits", c.query("COMMIT"), "C(COMMIT) Z(I)")
}

// TestSettingsTravelTold: the client hears of its name what is in force behind what went ahead, not in front of it.
func TestSettingsTravelTold(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client("application_name", "a")
	c.query("SELECT 1")
	c.query("INSERT INTO t VALUES (1)")
	c.query("DISCARD ALL")
	equal(t, "wiped and named in silence", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "on the node", r.a().last().guc.get("application_name"), "a")
}

// refusal has a node refuse a SET, until it is told otherwise.
func refusal(n *fakePG, sql, code string) {
	n.on(sql, func(b *backendPG) error { return b.error(code, "not now") })
}

// TestSettingsTravelRefused: a chunk behind settings that were refused has run all the same. A read is asked for again; the
// answer of anything else is the client's, with a warning, and the connection is nobody's any more. The next
// statement waits for its settings, and the node's error is its answer.
func TestSettingsTravelRefused(t *testing.T) {
	const set = `SET "application_name" TO 'a'`
	warned := "N(WARNING 01000 pgweir) "
	for _, isPooled := range []bool{true, false} {
		both(t, func(t *testing.T, protocol string) {
			r := newRig(t, alone, pooled(1), withTarget(func(x *Target) { x.Pooled = isPooled }))
			a := r.client("application_name", "a")
			answer := func(what, got, want string) {
				t.Helper()
				if protocol == "extended" {
					want = strings.ReplaceAll(strings.ReplaceAll(want, "T D", "D"), "C(", "1 2 C(")
				}
				equal(t, what, strings.ReplaceAll(got, "1 2 D(primary) C", "D(primary) 1 2 C"), want)
			}
			once := func(b *backendPG) error {
				r.p().on(set, nil)
				return b.error("53200", "out of memory")
			}
			r.p().on(set, once)
			n := r.p().Accepted()
			answer("a read", a.runs(protocol, "SELECT 1"), "T D(primary) C(SELECT 1) Z(I)")
			equal(t, "on another connection", r.p().Accepted()-n, 1)
			equal(t, "asked twice", r.p().ran("SELECT 1"), 2)
			must(t, a.Close())

			a = r.client("application_name", "a")
			a.query("SET application_name TO 'b'")
			a.query("INSERT INTO t VALUES (0)")
			a.query("RESET application_name")
			refusal(r.p(), set, "53200")
			n = r.p().Accepted()
			answer("a write", a.runs(protocol, "INSERT INTO t VALUES (1)"), warned+"C(INSERT 0 1) Z(I)")
			equal(t, "runs once", r.p().ran("INSERT INTO t VALUES (1)"), 1)
			answer("the next one", a.runs(protocol, "INSERT INTO t VALUES (2)"), "E(ERROR 53200) Z(I)")
			equal(t, "did not run", r.p().ran("INSERT INTO t VALUES (2)"), 0)
			if r.p().Accepted() == n {
				t.Error("the connection is still in use")
			}
			r.p().on(set, nil)
			answer("goes on", a.runs(protocol, "INSERT INTO t VALUES (3)"), "C(INSERT 0 1) Z(I)")
			equal(t, "in force", r.p().last().guc.get("application_name"), "a")

			a.query("RESET application_name") // the node is at its default
			r.p().on(set, once)
			a.query("BEGIN")
			answer("in a transaction", a.runs(protocol, "INSERT INTO t VALUES (4)"), warned+"C(INSERT 0 1) Z(T)")
			answer("which goes on", a.runs(protocol, "INSERT INTO t VALUES (5)"), "C(INSERT 0 1) Z(T)")
			n = r.p().Accepted()
			answer("and ends", a.runs(protocol, "COMMIT"), "C(COMMIT) Z(I)")
			answer("elsewhere", a.runs(protocol, "INSERT INTO t VALUES (6)"), "C(INSERT 0 1) Z(I)")
			equal(t, "another connection", r.p().Accepted()-n, 1)
			equal(t, "in force", r.p().last().guc.get("application_name"), "a")
		})
	}
}

// TestSettingsTravelPinned: a connection that the session must not lose is kept, and told all its settings.
func TestSettingsTravelPinned(t *testing.T) {
	const set = `SET "application_name" TO 'a'`
	r := newRig(t, alone, pooled(1))
	a := r.client("application_name", "a")
	a.query("CREATE TEMP TABLE mine (i int)")
	a.query("SET lock_timeout TO '1s'")
	a.query("RESET application_name")
	r.p().on(set, func(b *backendPG) error {
		r.p().on(set, nil)
		return b.error("53200", "out of memory")
	})
	n := r.p().Accepted()
	equal(t, "a write", a.query("INSERT INTO mine VALUES (1)"), "N(WARNING 01000 pgweir) C(INSERT 0 1) Z(I)")
	r.forgetAll()
	equal(t, "the next", a.query("INSERT INTO mine VALUES (2)"), "C(INSERT 0 1) Z(I)")
	equal(t, "told", r.p().got(), `Q SET "application_name" TO 'a'; SET "lock_timeout" TO '1s' | Q INSERT INTO mine VALUES (2)`)
	a.query("RESET application_name")
	r.p().on(set, func(b *backendPG) error {
		r.p().on(set, nil)
		return b.error("53200", "out of memory")
	})
	equal(t, "a read", a.query("SELECT 1"), "T D(primary) C(SELECT 1) Z(I)")
	equal(t, "connections", r.p().Accepted(), n)
}

// TestSettingsTravelDies: a node that ends the connection over what went ahead has not read what stands behind it, which
// runs elsewhere; where it says nothing, nobody knows.
func TestSettingsTravelDies(t *testing.T) {
	const set = `SET "application_name" TO 'a'`
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, alone, pooled(1))
		a := r.client("application_name", "a")
		once := func(f func(b *backendPG) error) {
			a.query("RESET application_name")
			r.p().on(set, func(b *backendPG) error {
				r.p().on(set, nil)
				return f(b)
			})
			r.forgetAll()
		}
		ok := map[string]string{"simple": "C(INSERT 0 1) Z(%s)", "extended": "1 2 C(INSERT 0 1) Z(%s)"}[protocol]
		last := func(b *backendPG) error {
			return b.fatal("57P01", "terminating connection due to administrator command")
		}
		once(last)
		equal(t, "a write behind FATAL", a.runs(protocol, "INSERT INTO t VALUES (1)"), fmt.Sprintf(ok, "I"))
		equal(t, "ran", r.p().ran("INSERT INTO t VALUES (1)"), 1)
		once(last)
		a.query("BEGIN")
		equal(t, "the first of a transaction", a.runs(protocol, "INSERT INTO t VALUES (2)"), fmt.Sprintf(ok, "T"))
		a.query("COMMIT")
		once((*backendPG).die)
		equal(t, "without a word", a.runs(protocol, "INSERT INTO t VALUES (3)"), "E(ERROR 08007 pgweir) Z(I)")
		once((*backendPG).die)
		if got := a.runs(protocol, "SELECT 1"); !strings.HasSuffix(got, "C(SELECT 1) Z(I)") {
			t.Errorf("a read: %s", got)
		}
		if !a.r.session(a).st.set.lacks(nameSetting) && r.p().last().guc.get("application_name") != "a" {
			t.Error("not in force")
		}
	})
}

// cancelRequest is whom the next cancel request to a node is for, 0 when none comes.
func cancelRequest(n *fakePG) uint32 {
	select {
	case c := <-n.Cancels:
		return c.PID
	case <-time.After(10 * time.Second):
		return 0
	}
}

// TestSettingsTravelCanceled: a cancel request that hits what went ahead is the client's, for its statement.
func TestSettingsTravelCanceled(t *testing.T) {
	const set = `SET "application_name" TO 'a'`
	r := newRig(t, alone, pooled(1))
	a := r.client("application_name", "a")
	hit := func(b *backendPG) error {
		must(t, a.Cancel())
		equal(t, "cancelled", cancelRequest(r.p()), b.PID)
		r.p().on(set, nil)
		return b.error("57014", "canceling statement due to user request")
	}
	r.p().on(set, hit)
	equal(t, "a read", a.query("SELECT 1"), "E(ERROR 57014) Z(I)")
	a.query("INSERT INTO t VALUES (0)")
	a.query("RESET application_name")
	r.p().on(set, hit)
	r.p().on("INSERT INTO t VALUES (1)", func(b *backendPG) error {
		equal(t, "passed on", cancelRequest(r.p()), b.PID)
		return b.error("57014", "canceling statement due to user request")
	})
	equal(t, "a write", a.query("INSERT INTO t VALUES (1)"), "N(WARNING 01000 pgweir) E(ERROR 57014) Z(I)")
}

// BenchmarkSettingsChange is two clients that take turns on one connection, with nothing between them that differs, with what goes ahead in
// the same write, and with what is waited for.
func BenchmarkSettingsChange(b *testing.B) {
	for _, c := range []struct{ name, one, other string }{
		{"none", "SET lock_timeout TO '1s'", "SET lock_timeout TO '1s'"},
		{"same-write", "SET lock_timeout TO '1s'", "SET lock_timeout TO '2s'"},
		{"waited-for", "SET IntervalStyle TO 'iso_8601'", "SET IntervalStyle TO 'sql_standard'"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var writes atomic.Int64
			r := newRig(b, alone, pooled(1), counted(&writes))
			one, other := r.client(), r.client()
			one.query(c.one)
			other.query(c.other)
			writes.Store(0)
			for b.Loop() {
				one.query("INSERT INTO t VALUES (1)")
				other.query("INSERT INTO t VALUES (1)")
			}
			b.ReportMetric(float64(writes.Load())/float64(2*b.N), "writes/statement")
		})
	}
}
