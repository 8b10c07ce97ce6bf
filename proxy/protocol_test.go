package proxy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/health"
	"pgweir/internal/pgtest"
	"pgweir/internal/pgwire"
	"pgweir/router"
)

// toPrimary has all reads go to the primary from now on; back undoes it.
func (r *rig) toPrimary(on bool) {
	r.change(r.a(), func(v *health.Node) { v.NoReads = on })
}

// bindExecute runs a prepared statement.
func bindExecute(name string) []pgtest.Message {
	return []pgtest.Message{pgtest.Bind("", name), pgtest.Execute("", 0), pgtest.Sync()}
}

// injected is what a node was sent, without the question for the shape of the rows that may travel with an
// injected Parse.
func injected(n *fakePG) string { return strings.Replace(n.got(), "D S s1 | S | ", "", 1) }

// TestPreparedOnBothLeases: a statement that the client has prepared is there on whichever node
// answers, in the client's newest version, and nowhere when it was closed.
func TestPreparedOnBothLeases(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	r.forgetAll()
	equal(t, "first use", c.run(append([]pgtest.Message{pgtest.Parse("s1", "SELECT 1")}, bindExecute("s1")...)...), "1 2 D(standby-a) C(SELECT 1) Z(I)")
	r.toPrimary(true)
	equal(t, "on the primary", c.run(bindExecute("s1")...), "2 D(primary) C(SELECT 1) Z(I)")
	equal(t, "injection", injected(r.p()), "P s1 SELECT 1 | B  s1 | E SELECT 1 | S")
	r.forgetAll()
	equal(t, "again", c.run(bindExecute("s1")...), "2 D(primary) C(SELECT 1) Z(I)")
	equal(t, "no second injection", r.p().got(), "B  s1 | E SELECT 1 | S")
	equal(t, "redefined", c.run(append([]pgtest.Message{pgtest.CloseStatement("s1"), pgtest.Parse("s1", "VALUES (1)")}, bindExecute("s1")...)...),
		"3 1 2 D(primary 1) C(SELECT 1) Z(I)")
	r.toPrimary(false)
	r.forgetAll()
	equal(t, "the new version on the standby", c.run(bindExecute("s1")...), "2 D(standby-a 1) C(SELECT 1) Z(I)")
	equal(t, "replaced there", injected(r.a()), "C S s1 | P s1 VALUES (1) | B  s1 | E VALUES (1) | S")
	equal(t, "described elsewhere", func() string {
		r.toPrimary(true)
		return c.run(pgtest.DescribeStatement("s1"), pgtest.Sync())
	}(), "t T Z(I)")
	equal(t, "closed", c.run(pgtest.CloseStatement("s1"), pgtest.Sync()), "3 Z(I)")
	equal(t, "gone", c.run(bindExecute("s1")...), "E(ERROR 26000) Z(I)")
	r.toPrimary(false)
	equal(t, "gone everywhere", c.run(bindExecute("s1")...), "E(ERROR 26000) Z(I)")
}

// TestPreparedTwice: a name that is taken is refused by the node also where the lease had not heard of it.
func TestPreparedTwice(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	equal(t, "first", c.run(pgtest.Parse("s1", "SELECT 1"), pgtest.Sync()), "1 Z(I)")
	r.toPrimary(true)
	equal(t, "second", c.run(pgtest.Parse("s1", "SELECT 2"), pgtest.Sync()), "E(ERROR 42P05) Z(I)")
	equal(t, "the first stays", c.run(bindExecute("s1")...), "2 D(primary) C(SELECT 1) Z(I)")
	equal(t, "which", r.ran("SELECT 1"), "primary=1")
	r.toPrimary(false)
	equal(t, "the first stays on the standby", c.run(bindExecute("s1")...), "2 D(standby-a) C(SELECT 1) Z(I)")
}

// TestUnnamed: the unnamed statement lives until the next one or the next simple query, on any lease.
func TestUnnamed(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	equal(t, "parse", c.run(pgtest.Parse("", "SELECT 1"), pgtest.Sync()), "1 Z(I)")
	equal(t, "bind later", c.run(bindExecute("")...), "2 D(standby-a) C(SELECT 1) Z(I)")
	r.toPrimary(true)
	equal(t, "bind elsewhere", c.run(bindExecute("")...), "2 D(primary) C(SELECT 1) Z(I)")
	equal(t, "a broken one", c.run(pgtest.Parse("", "BROKEN"), pgtest.Sync()), "E(ERROR 42601) Z(I)")
	equal(t, "takes the old one along", c.run(bindExecute("")...), "E(ERROR 26000) Z(I)")
	equal(t, "another", c.run(pgtest.Parse("", "SELECT 2"), pgtest.Sync()), "1 Z(I)")
	c.query("SELECT 3")
	equal(t, "gone after a query", c.run(bindExecute("")...), "E(ERROR 26000) Z(I)")
	r.toPrimary(false)
	equal(t, "gone on the standby", c.run(bindExecute("")...), "E(ERROR 26000) Z(I)")
}

// TestDeallocate: SQL's DEALLOCATE reaches statements of the protocol, and DISCARD ALL all of them.
func TestDeallocate(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.run(pgtest.Parse("s1", "SELECT 1"), pgtest.Sync())
	c.run(append([]pgtest.Message{pgtest.Parse("s2", "SELECT 2")}, bindExecute("s2")...)...)
	r.toPrimary(true)
	equal(t, "deallocate", c.query("DEALLOCATE s1"), "C(DEALLOCATE) Z(I)")
	equal(t, "gone", c.run(bindExecute("s1")...), "E(ERROR 26000) Z(I)")
	equal(t, "the other", c.run(bindExecute("s2")...), "2 D(primary) C(SELECT 1) Z(I)")
	equal(t, "discard", c.query("DISCARD ALL"), "C(DISCARD ALL) Z(I)")
	equal(t, "gone, too", c.run(bindExecute("s2")...), "E(ERROR 26000) Z(I)")
	r.toPrimary(false)
	r.a().forget()
	equal(t, "a read", c.query("SELECT 3"), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "gone everywhere", c.run(bindExecute("s2")...), "E(ERROR 26000) Z(I)")
	if got := r.a().got(); !strings.HasPrefix(got, "Q DISCARD ALL") {
		t.Errorf("the standby was not reset: %s", got)
	}
}

// TestBatchErrors: an error ends a batch up to its Sync, whoever it comes from.
func TestBatchErrors(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	insert := []pgtest.Message{pgtest.Parse("", "INSERT INTO t VALUES (1)"), pgtest.Bind("", ""), pgtest.Execute("", 0)}
	equal(t, "in the middle", c.run(append(insert, pgtest.Parse("", "BROKEN"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())...),
		"1 2 C(INSERT 0 1) E(ERROR 42601) Z(I)")
	equal(t, "goes on", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	c.send(pgtest.Parse("", "BROKEN"), pgtest.Flush())
	equal(t, "flushed", c.until('E'), "E(ERROR 42601)")
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.Bind("", ""), pgtest.Execute("", 0))
	c.silent()
	c.send(pgtest.Sync())
	equal(t, "skipped", c.ready(1), "Z(I)")
	equal(t, "unknown statement", c.run(bindExecute("nope")...), "E(ERROR 26000) Z(I)")
	equal(t, "unknown portal", c.run(pgtest.Execute("nope", 0), pgtest.Sync()), "E(ERROR 34000) Z(I)")
	equal(t, "two batches at once", func() string {
		c.send(pgtest.Parse("", "BROKEN"), pgtest.Sync(), pgtest.Parse("", "SELECT 1"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
		return c.ready(2)
	}(), "E(ERROR 42601) Z(I) 1 2 D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "only a Sync", c.run(pgtest.Sync()), "Z(I)")
	c.send(pgtest.Flush())
	c.silent()
}

// TestFlush: what a Flush asks for comes before the Sync, and the batch goes on.
func TestFlush(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	r.forgetAll()
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.DescribeStatement(""), pgtest.Flush())
	equal(t, "described", c.until('T', 'n'), "1 t T")
	c.send(pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "executed", c.ready(1), "2 D(standby-a) C(SELECT 1) Z(I)")
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.DescribeStatement(""), pgtest.Flush())
	c.until('T')
	c.send(pgtest.Parse("", "INSERT INTO t VALUES (1)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "a write behind a flushed read", c.ready(1), "1 2 C(INSERT 0 1) Z(I)")
	equal(t, "ran", r.ran("INSERT INTO t VALUES (1)"), "primary=1")
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.Bind("", ""), pgtest.Flush())
	equal(t, "an open portal", c.until('2'), "1 2")
	c.send(pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "stays on the primary", c.ready(1), "D(primary) C(SELECT 1) Z(I)")
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.Bind("", ""), pgtest.Execute("", 0)) // neither Flush nor Sync
	c.silent()
	c.send(pgtest.Sync())
	equal(t, "a silent client", c.ready(1), "1 2 D(primary) C(SELECT 1) Z(I)")
}

// TestQueryInsideBatch: JDBC's autosave sends a simple query before the Sync of its batch.
func TestQueryInsideBatch(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	r.forgetAll()
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Query("SELECT 2"))
	equal(t, "answers", c.ready(1), "1 2 D(primary) C(SELECT 1) T D(primary) C(SELECT 1) Z(I)")
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.Flush())
	c.until('1')
	c.send(pgtest.Query("SELECT 2"))
	equal(t, "behind a Flush", c.ready(1), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "goes on", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	c.send(pgtest.Parse("", "BROKEN"), pgtest.Query("SELECT 3"), pgtest.Sync())
	equal(t, "skipped with the batch", c.ready(1), "E(ERROR 42601) Z(I)")
	equal(t, "never ran", r.ran("SELECT 3"), "never")
}

// TestStrayCopyData: copy data that nobody asked for is ignored.
func TestStrayCopyData(t *testing.T) {
	r := newRig(t)
	c := r.client()
	c.send(pgtest.CopyData("1\n"), pgtest.CopyDone(), pgtest.CopyFail("no"), pgtest.Query("SELECT 1"))
	if got := c.ready(1); !strings.HasSuffix(got, "C(SELECT 1) Z(I)") || strings.Contains(got, "E(") {
		t.Error(got)
	}
	if err := c.SendRaw(append([]byte{'d', 0, 3, 0, 4}, make([]byte, 3<<16)...)); err != nil {
		t.Fatal(err)
	}
	equal(t, "a long one", len(c.query("SELECT 1")) > 0, true)
}

// TestCopyIn: COPY FROM STDIN in both protocols, to its end, failed by the client, failed by
// the node in the middle.
func TestCopyIn(t *testing.T) {
	const sql = "COPY t FROM STDIN"
	open := map[string][]pgtest.Message{
		"simple":   {pgtest.Query(sql)},
		"extended": {pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync()},
	}
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t)
		c := r.client()
		r.forgetAll()
		lead := ""
		if protocol == "extended" {
			lead = "1 2 "
		}
		end := func(ms ...pgtest.Message) {
			if protocol == "extended" {
				ms = append(ms, pgtest.Sync())
			}
			c.send(ms...)
		}
		c.send(open[protocol]...)
		c.until('G')
		c.send(pgtest.CopyData("1\n2\n"))
		end(pgtest.CopyData("3\n"), pgtest.CopyDone())
		equal(t, "to its end", c.ready(1), "C(COPY 3) Z(I)")
		c.send(open[protocol]...)
		c.until('G')
		end(pgtest.CopyData("1\n"), pgtest.CopyFail("changed my mind"))
		equal(t, "failed by the client", c.ready(1), "E(ERROR 57014) Z(I)")
		c.send(open[protocol]...)
		c.until('G')
		c.send(pgtest.CopyData("bad\n"))
		if protocol == "simple" {
			equal(t, "failed by the node", c.ready(1), "E(ERROR 22P02) Z(I)")
			c.send(pgtest.CopyData("more\n"), pgtest.CopyDone()) // on its way when the error came
		} else {
			equal(t, "failed by the node", c.until('E'), "E(ERROR 22P02)")
			c.send(pgtest.CopyData("more\n"), pgtest.CopyDone(), pgtest.Sync())
			equal(t, "up to the Sync", c.ready(1), "Z(I)")
		}
		equal(t, "goes on", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
		equal(t, "once each", r.ran(sql), "primary=3")
		c.send(append(append([]pgtest.Message{}, open[protocol]...), pgtest.CopyData("1\n"))...)
		end(pgtest.CopyDone())
		equal(t, "all at once", c.ready(1), lead+"G C(COPY 1) Z(I)")
		c.send(append(append([]pgtest.Message{}, open[protocol]...), pgtest.CopyData("1\n"), pgtest.CopyData(strings.Repeat("x", 200_000)+"\n"))...)
		end(pgtest.CopyDone())
		equal(t, "long data at once", c.ready(1), lead+"G C(COPY 2) Z(I)")
		equal(t, "goes on", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
	})
}

// TestCopyOut: COPY TO STDOUT of a read runs on a standby.
func TestCopyOut(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		got := c.runs(protocol, "COPY t TO STDOUT")
		equal(t, "answer", strings.TrimPrefix(got, "1 2 "), "H d(1\n) d(2\n) c C(COPY 2) Z(I)")
		equal(t, "ran", r.ran("COPY t TO STDOUT"), "standby-a=1")
	})
}

// TestPortals: a portal that is suspended goes on where it began.
func TestPortals(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	const rows = "VALUES (1),(2),(3)"
	for begin, node := range map[string]string{"BEGIN": "primary", "BEGIN READ ONLY": "standby-a"} {
		c.query(begin)
		equal(t, begin+": first part", c.run(pgtest.Parse("", rows), pgtest.Bind("p", ""), pgtest.Execute("p", 2), pgtest.Sync()),
			"1 2 D("+node+" 1) D("+node+" 2) s Z(T)")
		equal(t, begin+": rest", c.run(pgtest.Execute("p", 2), pgtest.Sync()), "D("+node+" 3) C(SELECT 1) Z(T)")
		equal(t, begin+": closed", c.run(pgtest.ClosePortal("p"), pgtest.Sync()), "3 Z(T)")
		equal(t, begin+": gone", c.run(pgtest.Execute("p", 2), pgtest.Sync()), "E(ERROR 34000) Z(E)")
		c.query("ROLLBACK")
	}
	c.send(pgtest.Parse("", rows), pgtest.Bind("p", ""), pgtest.Execute("p", 2), pgtest.Flush())
	equal(t, "flushed", c.until('s'), "1 2 D(primary 1) D(primary 2) s")
	c.send(pgtest.Execute("p", 0), pgtest.Sync())
	equal(t, "goes on", c.ready(1), "D(primary 3) C(SELECT 1) Z(I)")
}

// TestFunctionCall: the message goes to the primary.
func TestFunctionCall(t *testing.T) {
	r := newRig(t)
	c := r.client()
	r.forgetAll()
	equal(t, "answer", c.run(pgtest.Msg('F', int32(1), int16(0), int16(0), int16(0))), "V Z(I)")
	equal(t, "where", r.p().got(), "F")
}

// TestDeferredBegin: a BEGIN is answered at once and goes out with what follows.
func TestDeferredBegin(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		r.forgetAll()
		lead := ""
		if protocol == "extended" {
			lead = "1 2 "
		}
		equal(t, "begin", c.runs(protocol, "BEGIN"), lead+"C(BEGIN) Z(T)")
		equal(t, "commit straight after", c.runs(protocol, "COMMIT"), lead+"C(COMMIT) Z(I)")
		equal(t, "start", c.runs(protocol, "START TRANSACTION"), lead+"C(START TRANSACTION) Z(T)")
		equal(t, "rollback straight after", c.runs(protocol, "ROLLBACK"), lead+"C(ROLLBACK) Z(I)")
		equal(t, "no node heard", r.p().got()+r.a().got(), "")
		c.runs(protocol, "BEGIN")
		equal(t, "and chain", c.runs(protocol, "COMMIT AND CHAIN"), lead+"C(COMMIT) Z(T)")
		equal(t, "in the chained one", c.runs(protocol, "INSERT INTO t VALUES (1)"), lead+"C(INSERT 0 1) Z(T)")
		equal(t, "its end", c.runs(protocol, "COMMIT"), lead+"C(COMMIT) Z(I)")
		equal(t, "one BEGIN", r.ran("BEGIN"), "primary=1")
		c.runs(protocol, "BEGIN")
		equal(t, "first statement fails", c.runs(protocol, "SELECT 1/0"), lead+"E(ERROR 22012) Z(E)")
		equal(t, "aborted", strings.TrimPrefix(c.runs(protocol, "SELECT 1"), lead), "E(ERROR 25P02) Z(E)")
		equal(t, "ended", c.runs(protocol, "COMMIT"), lead+"C(ROLLBACK) Z(I)")
		c.runs(protocol, "BEGIN")
		equal(t, "twice", c.runs(protocol, "BEGIN"), lead+"N(WARNING 25001) C(BEGIN) Z(T)")
		equal(t, "its end", c.runs(protocol, "ROLLBACK"), lead+"C(ROLLBACK) Z(I)")
		c.runs(protocol, "BEGIN")
		equal(t, "syntax error", c.run(pgtest.Parse("", "BROKEN"), pgtest.Sync()), "E(ERROR 42601) Z(E)")
		c.runs(protocol, "ROLLBACK")
		c.runs(protocol, "BEGIN")
		equal(t, "a setting of ours that is wrong", c.query("SET pgweir.route = 'nowhere'"), "E(ERROR 22023 pgweir) Z(E)")
		equal(t, "aborted by it", c.runs(protocol, "SELECT 1"), "E(ERROR 25P02 pgweir) Z(E)")
		equal(t, "ended by ROLLBACK", c.runs(protocol, "ROLLBACK"), lead+"C(ROLLBACK) Z(I)")
	})
	t.Run("described", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		equal(t, "portal", c.run(pgtest.Parse("", "BEGIN"), pgtest.Bind("", ""), pgtest.DescribePortal(""), pgtest.Execute("", 0), pgtest.Sync()), "1 2 n C(BEGIN) Z(T)")
		equal(t, "statement", c.run(pgtest.Parse("", "COMMIT"), pgtest.DescribeStatement(""), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync()), "1 t n 2 C(COMMIT) Z(I)")
	})
	t.Run("pipelined", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		r.forgetAll()
		c.send(pgtest.Query("BEGIN"), pgtest.Query("INSERT INTO t VALUES (1)"), pgtest.Query("COMMIT"))
		equal(t, "answers", c.ready(3), "C(BEGIN) Z(T) C(INSERT 0 1) Z(T) C(COMMIT) Z(I)")
		equal(t, "sent", r.p().got(), "Q BEGIN | Q INSERT INTO t VALUES (1) | Q COMMIT")
	})
	t.Run("due", func(t *testing.T) {
		r := newRig(t, withoutB, withTarget(func(t *Target) { t.BeginDefer = 5 * time.Millisecond }))
		c := r.client()
		r.forgetAll()
		c.query("BEGIN READ ONLY")
		await(t, "the BEGIN is sent", func() bool { return r.p().ran("BEGIN READ ONLY") == 1 })
		equal(t, "then", c.query("SELECT 1"), "T D(primary) C(SELECT 1) Z(T)")
		equal(t, "once", r.ran("BEGIN READ ONLY"), "primary=1")
		equal(t, "commit", c.query("COMMIT"), "C(COMMIT) Z(I)")
	})
	t.Run("due, with its portal", func(t *testing.T) {
		r := newRig(t, withoutB, withTarget(func(t *Target) { t.BeginDefer = 5 * time.Millisecond }))
		c := r.client()
		r.forgetAll()
		c.run(pgtest.Parse("", "BEGIN"), pgtest.Bind("x", ""), pgtest.Execute("x", 0), pgtest.Sync())
		await(t, "the BEGIN is sent", func() bool { return r.p().ran("BEGIN") == 1 })
		equal(t, "its portal", c.run(pgtest.DescribePortal("x"), pgtest.Sync()), "n Z(T)")
		equal(t, "its statement", c.run(pgtest.Bind("", ""), pgtest.Sync()), "2 Z(T)")
		equal(t, "another's", c.ext("SELECT 1"), "1 2 D(primary) C(SELECT 1) Z(T)")
		equal(t, "once", r.ran("BEGIN"), "primary=1")
	})
	t.Run("portal", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		r.forgetAll()
		c.ext("BEGIN")
		c.ext("SELECT 1")
		equal(t, "replaced", strings.SplitAfter(r.p().got(), " | ")[0], "Q BEGIN | ")
		c.ext("ROLLBACK")
		r.forgetAll()
		c.ext("BEGIN")
		equal(t, "described", c.run(pgtest.DescribePortal(""), pgtest.Sync()), "n Z(T)")
		equal(t, "sent", r.p().got(), "P  BEGIN | B   | E BEGIN | S | D P  | S")
	})
	t.Run("parameters", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		r.forgetAll()
		c.run(pgtest.Parse("", "BEGIN", 23), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
		equal(t, "left to the node", r.p().got(), "P  BEGIN | B   | E BEGIN | S")
	})
	t.Run("not deferred", func(t *testing.T) {
		r := newRig(t, withoutB, withTarget(func(t *Target) { t.BeginDefer = 0 }))
		c := r.client()
		c.query("BEGIN")
		equal(t, "sent", r.ran("BEGIN"), "primary=1")
	})
}

// TestReadOnlyTransaction: on one standby for the whole of it. At READ COMMITTED it moves to the primary ahead of a
// statement that a standby cannot run; what binds it to the standby fails it there.
func TestReadOnlyTransaction(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		c.query("SELECT 1")
		r.forgetAll()
		c.runs(protocol, "BEGIN READ ONLY")
		c.runs(protocol, "SELECT 1")
		c.runs(protocol, "SELECT nextval('s')")
		c.query("COMMIT")
		equal(t, "nextval ran", r.ran("SELECT nextval('s')"), "primary=1")
		equal(t, "within", r.ran("BEGIN READ ONLY"), "primary=1 standby-a=1")
		r.forgetAll()
		c.runs(protocol, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		c.runs(protocol, "SELECT 1")
		equal(t, "a write", c.runs(protocol, "INSERT INTO t VALUES (1)"), "E(ERROR 25006 pgweir) Z(E)")
		if got := r.a().got(); !strings.Contains(got, "B  "+reservedStatement+" | S") {
			t.Errorf("the standby's transaction was not failed: %s", got)
		}
		c.query("ROLLBACK")
		equal(t, "never ran", r.ran("INSERT INTO t VALUES (1)"), "never")
		equal(t, "goes on", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
	})
}

// TestFlushBehindError: what a client flushes behind an error is not answered, and the Sync after it is.
func TestFlushBehindError(t *testing.T) {
	r := newRig(t, alone)
	c := r.client()
	unit := func(sql string) []pgtest.Message {
		return []pgtest.Message{pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.Execute("", 0)}
	}
	c.send(append(unit("SELECT 1/0"), pgtest.Flush())...)
	c.until(pgwire.MsgErrorResponse)
	c.send(append(unit("SELECT 3"), pgtest.Flush())...)
	c.silent()
	c.send(append(append(append(unit("SELECT 4"), pgtest.Sync()), unit("SELECT 5")...), pgtest.Flush())...)
	equal(t, "the Sync", c.until(pgwire.MsgReadyForQuery), "Z(I)")
	equal(t, "what follows", c.until(pgwire.MsgCommandComplete), "1 2 D(primary) C(SELECT 1)")
	equal(t, "never ran", r.ran("SELECT 4"), "never")
	c.send(pgtest.Sync())
	equal(t, "its Sync", c.until(pgwire.MsgReadyForQuery), "Z(I)")
}

// TestLongStatement: a named statement whose Parse, and whose Bind, is longer than what is looked at at once.
func TestLongStatement(t *testing.T) {
	for name, options := range map[string][]rigOption{"session": {alone}, "transaction": {alone, pooled(1)}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options...)
			c := r.client()
			const n = 30_000
			values, args, want := make([]string, n), make([]any, n), make([]string, n)
			for i := range n {
				values[i], args[i], want[i] = fmt.Sprintf("($%d::text)", i+1), strconv.Itoa(i), fmt.Sprintf("D(primary %d)", i+1)
			}
			sql := "values " + strings.Join(values, ", ")
			equal(t, "prepared", c.run(pgtest.Parse("long", sql), pgtest.DescribeStatement("long"), pgtest.Sync()), "1 t T Z(I)")
			got := c.run(pgtest.Bind("", "long", args...), pgtest.Execute("", 0), pgtest.Sync())
			if w := fmt.Sprintf("2 %s C(SELECT %d) Z(I)", strings.Join(want, " "), n); got != w {
				t.Errorf("executed: %.200s …", got)
			}
			equal(t, "prepared alone", c.run(pgtest.Parse("longer", sql), pgtest.Sync()), "1 Z(I)")
		})
	}
}

// TestUnnamedBehindBegin: a BEGIN that goes out late drops the unnamed statement on the node, not the client's.
func TestUnnamedBehindBegin(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a := r.client()
	a.run(pgtest.Parse("b", "BEGIN"), pgtest.Parse("s", "SELECT 3"), pgtest.Parse("", "SELECT 1"), pgtest.Sync())
	a.run(bindExecute("b")...)
	equal(t, "another", a.run(bindExecute("s")...), "2 D(primary) C(SELECT 1) Z(T)")
	equal(t, "the unnamed one", a.run(bindExecute("")...), "2 D(primary) C(SELECT 1) Z(T)")
}

// TestGlobal: at level global a standby answers only with a sample that was asked for after the read came.
func TestGlobal(t *testing.T) {
	r := newRig(t, withoutB, withTarget(func(t *Target) {
		t.Consistency = router.ConsistencyGlobal
		t.FreshnessWait = func(router.Consistency) time.Duration { return 5 * time.Second }
	}))
	c := r.client()
	c.query("SELECT 1")
	r.sample(r.a())
	c.send(pgtest.Query("SELECT 1"))
	c.silent()
	r.sample(r.a())
	equal(t, "after the next sample", c.ready(1), "T D(standby-a) C(SELECT 1) Z(I)")
}

// TestTunnel: a replication connection has a login of its own on the primary, and nobody looks at it.
func TestTunnel(t *testing.T) {
	r := newRig(t)
	r.p().on("IDENTIFY_SYSTEM", func(b *backendPG) error {
		b.say(pgtest.RowDescription("systemid"), pgtest.DataRow("1"), pgtest.CommandComplete("IDENTIFY_SYSTEM"))
		return nil
	})
	c := r.client("replication", "database")
	equal(t, "asked as such", r.p().last().Param("replication"), "database")
	equal(t, "answered", c.query("IDENTIFY_SYSTEM"), "T D(1) C(IDENTIFY_SYSTEM) Z(I)")
	must(t, c.CloseHard())
	await(t, "the node's end", func() bool { return r.p().live() == 0 })
	second := r.client("replication", "database")
	r.p().KillConns()
	if _, err := second.ReadToEnd(); err != nil {
		t.Error(err)
	}
}

// TestTunnelSeen: who looks for the clients of a database finds no session whose target still changes, as that of a replication
// connection, which has no database.
func TestTunnelSeen(t *testing.T) {
	r := newRig(t)
	cluster := r.target.Cluster
	stop, seen := make(chan struct{}), make(chan bool)
	go func() {
		found := false
		for {
			select {
			case <-stop:
				seen <- found
				return
			default:
				found = r.srv.keys.connected(cluster, "app") || found
			}
		}
	}()
	for range 5 {
		r.client("replication", "true")
	}
	close(stop)
	equal(t, "in a database", <-seen, false)
}

// TestLongBindAfterParse: a batch that does not fit into one chunk knows what its earlier part has
// prepared, and sends nothing twice.
func TestLongBindAfterParse(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.run(append([]pgtest.Message{pgtest.Parse("", "SELECT 1")}, bindExecute("")...)...)
	long := strings.Repeat("x", 3*maxChunk)
	for _, name := range []string{"", "s1"} {
		got := c.run(pgtest.Parse(name, "INSERT INTO t VALUES ($1)"), pgtest.Bind("", name, []byte(long)), pgtest.Execute("", 0), pgtest.Sync())
		equal(t, "named "+name, got, "1 2 C(INSERT 0 1) Z(I)")
	}
}

// TestLongText: SQL of more than a chunk is read as a whole, so that it goes where it belongs and leaves what it says.
func TestLongText(t *testing.T) {
	long := "/*" + strings.Repeat("x", 3*maxChunk) + "*/ "
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB, pooled(1))
		a, b := r.client(), r.client()
		ends := func(what, sql, want string) {
			t.Helper()
			if got := a.runs(protocol, sql); !strings.HasSuffix(got, want+" Z(I)") {
				t.Errorf("%s: %s", what, got)
			}
		}
		ends("a read", long+"SELECT 1", "D(standby-a) C(SELECT 1)")
		ends("a write", long+"INSERT INTO t VALUES (1)", "C(INSERT 0 1)")
		ends("a setting", long+"SET work_mem TO '9MB'", "C(SET)")
		equal(t, "pin", a.pin(), "none")
		r.forgetAll()
		equal(t, "another client", b.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
		equal(t, "what it has", r.p().got(), `Q RESET "work_mem" | Q INSERT INTO t VALUES (2)`)
		r.forgetAll()
		a.query("INSERT INTO t VALUES (3)")
		equal(t, "what the first has", r.p().got(), `Q SET "work_mem" TO '9MB' | Q INSERT INTO t VALUES (3)`)
	})
	t.Run("an unnamed statement", func(t *testing.T) {
		r := newRig(t, withoutB, pooled(1))
		a, b := r.client(), r.client()
		a.run(pgtest.Parse("", long+"INSERT INTO t VALUES ($1)"), pgtest.Sync())
		equal(t, "another client", b.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
		equal(t, "on its next lease", a.run(bindExecute("")...), "2 C(INSERT 0 1) Z(I)")
		equal(t, "in one batch", a.run(append([]pgtest.Message{pgtest.Parse("", long+"SELECT 1")}, bindExecute("")...)...), "1 2 D(standby-a) C(SELECT 1) Z(I)")
		equal(t, "pin", a.pin(), "none")
	})
	t.Run("a named statement", func(t *testing.T) {
		r := newRig(t, withoutB, pooled(1))
		a := r.client()
		a.run(pgtest.Parse("s", long+"INSERT INTO t VALUES ($1)"), pgtest.Sync())
		equal(t, "on the same lease", a.run(bindExecute("s")...), "2 C(INSERT 0 1) Z(I)")
		equal(t, "pin", a.pin(), "opaque")
	})
	for name, option := range map[string]rigOption{"transaction": pooled(1), "session": func(*rig) {}} {
		t.Run("a named read, pool_mode "+name, func(t *testing.T) {
			r := newRig(t, withoutB, option)
			a := r.client()
			a.run(pgtest.Parse("s", long+"SELECT 1"), pgtest.Sync())
			r.views[r.a()].NoReads = true // where it is does not depend on the standbys
			for range 2 {
				equal(t, "a run", a.run(bindExecute("s")...), "2 D(primary) C(SELECT 1) Z(I)")
			}
		})
	}
	t.Run("a named BEGIN", func(t *testing.T) {
		r := newRig(t, withoutB)
		a := r.client()
		a.run(pgtest.Parse("s", long+"BEGIN READ ONLY"), pgtest.Sync())
		r.forgetAll()
		equal(t, "begun", a.run(bindExecute("s")...), "2 C(BEGIN) Z(T)")
		equal(t, "in it", a.query("SELECT 1"), "T D(primary) C(SELECT 1) Z(T)")
		equal(t, "no other BEGIN", strings.Contains(r.p().got(), "Q BEGIN"), false)
	})
	t.Run("a slow client", func(t *testing.T) { // holds no connection while its text arrives
		r := newRig(t, withoutB, pooled(1))
		a, b := r.client(), r.client()
		a.query("INSERT INTO t VALUES (1)")
		message := pgtest.Join(pgtest.Query(long + "INSERT INTO t VALUES (2)"))
		for part := range slices.Chunk(message, len(message)/4) {
			equal(t, "another client", b.query("INSERT INTO t VALUES (3)"), "C(INSERT 0 1) Z(I)")
			must(t, a.SendRaw(part))
		}
		equal(t, "its own", a.ready(1), "C(INSERT 0 1) Z(I)")
	})
	t.Run("a setting that is too long", func(t *testing.T) {
		r := newRig(t, withoutB, pooled(1))
		a := r.client()
		a.query("SET a.b TO '" + strings.Repeat("x", maxChunk/2) + "'")
		equal(t, "pin", a.pin(), "none")
		a.query("SET a.b TO '" + strings.Repeat("x", maxChunk) + "'")
		equal(t, "pin", a.pin(), "opaque")
	})
	t.Run("too many settings", func(t *testing.T) {
		r := newRig(t, withoutB, pooled(1))
		a, b := r.client(), r.client()
		a.query(strings.Repeat("SET work_mem TO '9MB';", maxEffects))
		equal(t, "pin", a.pin(), "none")
		a.query(strings.Repeat("SET work_mem TO '9MB';", maxEffects+1))
		equal(t, "pin", a.pin(), "opaque")
		b.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		equal(t, "who waits for its connection", b.ready(1), "E(ERROR 53300 pgweir) Z(I)")
	})
	t.Run("others get their turn", func(t *testing.T) {
		var turns atomic.Int64
		r := newRig(t, withoutB, withConfig(func(c *Config) { c.GiveWay = func() { turns.Add(1) } }))
		c := r.client()
		c.query("SELECT 1")
		equal(t, "turns of a short text", turns.Load(), int64(0))
		c.query("SELECT 1 /*" + strings.Repeat("x", maxText/2) + "*/")
		if turns.Load() == 0 {
			t.Error("nobody gets a turn while a long text comes")
		}
	})
	t.Run("what is kept of it", func(t *testing.T) {
		s := &session{unnamedPair: &[2]statement{{parse: make([]byte, maxText)}, {parse: make([]byte, maxText)}}}
		s.unnamed = &s.unnamedPair[1]
		s.shed()
		if n := cap(s.unnamedPair[0].parse); n > 2*maxChunk || len(s.unnamed.parse) != maxText {
			t.Errorf("%d bytes", n)
		}
	})
	t.Run("too long", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		long := strings.Repeat("x", maxText)
		equal(t, "a read", c.query("SELECT 1 /*"+long+"*/"), "T D(primary) C(SELECT 1) Z(I)")
	})
}
