package proxy

import (
	"strings"
	"testing"
	"time"

	"pgweir/internal/pgtest"
	"pgweir/router"
)

// hopeful is transactions: optimistic, with standby-a as the only one.
func hopeful(r *rig) {
	withoutB(r)
	r.target.Optimistic = true
}

// TestOptimisticStays: what only reads begins and ends on the standby; the primary hears nothing of it.
func TestOptimisticStays(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, hopeful)
		c := r.client()
		c.query("SELECT 1")
		r.forgetAll()
		for _, sql := range []string{"BEGIN", "SELECT 1", "SELECT i FROM t", "COMMIT"} {
			c.runs(protocol, sql)
		}
		for _, sql := range []string{"START TRANSACTION ISOLATION LEVEL READ COMMITTED", "SELECT 2", "ROLLBACK"} {
			c.runs(protocol, sql)
		}
		equal(t, "the primary", r.p().got(), "")
		for _, sql := range []string{"BEGIN", "SELECT i FROM t", "COMMIT", "SELECT 2", "ROLLBACK"} {
			equal(t, sql, r.ran(sql), "standby-a=1")
		}
		c.query("BEGIN")
		c.query("SELECT 1")
		equal(t, "last_route", c.query("SHOW pgweir.last_route"), "T D(standby standby-a · optimistic · lag 0s) C(SHOW) Z(T)")
		c.query("COMMIT")
	})
}

// TestOptimisticMoves: ahead of anything but a plain read the transaction begins anew on the primary, and ends there.
func TestOptimisticMoves(t *testing.T) {
	for _, sql := range []string{
		"INSERT INTO t VALUES (1)", "SELECT 1 FROM t FOR UPDATE", "SAVEPOINT s", "SET LOCAL work_mem = '1MB'", "SHOW transaction_read_only",
		"DECLARE c CURSOR FOR SELECT 1", "SELECT now()", "SELECT current_timestamp", "SELECT 'now'::timestamptz", "LISTEN x", "COMMIT AND CHAIN",
		"PREPARE p AS SELECT 1", "SELECT nextval('s')", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
	} {
		t.Run(sql, func(t *testing.T) {
			r := newRig(t, hopeful)
			c := r.client()
			c.query("SELECT 1")
			r.forgetAll()
			c.query("BEGIN")
			c.query("SELECT 1")
			c.query(sql)
			c.query("SELECT 3")
			c.query("COMMIT")
			equal(t, "where it ran", r.ran(sql), "primary=1")
			equal(t, "begun", r.ran("BEGIN"), "primary=1 standby-a=1")
			equal(t, "the standby's part", r.ran("ROLLBACK"), "standby-a=1")
			equal(t, "what follows", r.ran("SELECT 3"), "primary=1")
			equal(t, "the end", r.ran("COMMIT"), "primary=1")
			equal(t, "the lease", r.a().got(), "Q BEGIN | Q SELECT 1 | Q ROLLBACK")
		})
		t.Run("begins with "+sql, func(t *testing.T) {
			r := newRig(t, hopeful)
			c := r.client()
			c.query("SELECT 1")
			r.forgetAll()
			c.query("BEGIN")
			c.query(sql)
			c.query("SELECT 3")
			c.query("COMMIT")
			equal(t, "the standby", r.a().got(), "")
			equal(t, "where it ran", r.ran(sql), "primary=1")
		})
	}
}

// TestOptimisticNever: transactions that do not begin on a standby, whatever they read.
func TestOptimisticNever(t *testing.T) {
	for _, begin := range []string{
		"BEGIN READ WRITE", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN; SELECT 1",
	} {
		t.Run(begin, func(t *testing.T) {
			r := newRig(t, hopeful)
			c := r.client()
			c.query("SELECT 1")
			r.forgetAll()
			c.query(begin)
			c.query("SELECT 2")
			c.query("COMMIT")
			equal(t, "the standby", r.a().got(), "")
		})
	}
	for _, set := range []string{"SET default_transaction_isolation = 'repeatable read'", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"} {
		t.Run(set, func(t *testing.T) {
			r := newRig(t, hopeful)
			c := r.client()
			c.query(set)
			c.query("BEGIN")
			c.query("SELECT 2")
			c.query("COMMIT")
			equal(t, "the read", r.ran("SELECT 2"), "primary=1")
		})
	}
	t.Run("transactions: primary", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		c.query("BEGIN")
		c.query("SELECT 2")
		c.query("COMMIT")
		equal(t, "the read", r.ran("SELECT 2"), "primary=1")
	})
	t.Run("hint", func(t *testing.T) {
		r := newRig(t, hopeful)
		c := r.client()
		c.query("BEGIN")
		c.query("/* pgweir: primary */ SELECT 2")
		c.query("COMMIT")
		equal(t, "the read", r.ran("/* pgweir: primary */ SELECT 2"), "primary=1")
	})
}

// TestOptimisticFailed: a transaction that has failed on the standby stays there until the client ends it.
func TestOptimisticFailed(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, hopeful)
		c := r.client()
		c.query("SELECT 1")
		r.forgetAll()
		r.a().on("SELECT 1/0", func(b *backendPG) error { return b.error("22012", "division by zero") })
		c.runs(protocol, "BEGIN")
		c.runs(protocol, "SELECT 1")
		c.runs(protocol, "SELECT 1/0")
		c.runs(protocol, "INSERT INTO t VALUES (1)")
		equal(t, "the end", c.query("COMMIT"), "C(ROLLBACK) Z(I)")
		equal(t, "the primary", r.p().got(), "")
	})
}

// TestOptimisticNet: a standby that refuses a later statement, cancels it, or dies is left behind; the client
// sees nothing of it.
func TestOptimisticNet(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		for name, hook := range map[string]func(b *backendPG) error{
			"refused":  func(b *backendPG) error { return b.error("25006", "cannot execute in a read-only transaction") },
			"conflict": func(b *backendPG) error { return b.error("40001", "canceling statement due to conflict with recovery") },
			"its process": func(b *backendPG) error {
				return b.fatal("57P01", "terminating connection due to administrator command")
			},
			"its node": dies,
		} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, hopeful)
				c := r.client()
				c.query("SELECT 1")
				r.forgetAll()
				r.a().on("SELECT 2", hook)
				c.runs(protocol, "BEGIN")
				c.runs(protocol, "SELECT 1")
				answer := map[string]string{"simple": "T D(primary) C(SELECT 1) Z(T)", "extended": "1 2 D(primary) C(SELECT 1) Z(T)"}[protocol]
				equal(t, "the client", c.runs(protocol, "SELECT 2"), answer)
				c.runs(protocol, "INSERT INTO t VALUES (1)")
				c.runs(protocol, "COMMIT")
				equal(t, "begun", r.ran("BEGIN"), "primary=1 standby-a=1")
				equal(t, "committed", r.ran("COMMIT"), "primary=1")
			})
		}
	})
	t.Run("between statements", func(t *testing.T) {
		r := newRig(t, hopeful)
		c := r.client()
		c.query("BEGIN")
		c.query("SELECT 1")
		r.a().KillConns()
		c.silent()
		c.query("INSERT INTO t VALUES (1)")
		equal(t, "the end", c.query("COMMIT"), "C(COMMIT) Z(I)")
		equal(t, "where it ran", r.ran("INSERT INTO t VALUES (1)"), "primary=1")
		equal(t, "committed", r.ran("COMMIT"), "primary=1")
	})
}

// TestOptimisticPortal: a portal that is not read to its end is on the primary.
func TestOptimisticPortal(t *testing.T) {
	r := newRig(t, hopeful)
	c := r.client()
	c.query("SELECT 1")
	r.forgetAll()
	c.query("BEGIN")
	c.query("SELECT 1")
	c.send(pgtest.Parse("", "SELECT i FROM t"), pgtest.Bind("", ""), pgtest.Execute("", 1), pgtest.Sync())
	c.ready(1)
	equal(t, "where it ran", r.ran("SELECT i FROM t"), "primary=1")
	c.query("COMMIT")
}

// TestOptimisticCloses: to close a statement, or to say Sync, moves nothing.
func TestOptimisticCloses(t *testing.T) {
	r := newRig(t, hopeful)
	c := r.client()
	c.query("SELECT 1")
	r.forgetAll()
	c.query("BEGIN")
	c.send(pgtest.Parse("s", "SELECT i FROM t"), pgtest.Bind("", "s"), pgtest.Execute("", 0), pgtest.Sync())
	c.ready(1)
	c.send(pgtest.CloseStatement("s"), pgtest.Sync())
	c.ready(1)
	c.send(pgtest.Sync())
	c.ready(1)
	c.query("SELECT 2")
	c.query("COMMIT")
	equal(t, "the primary", r.p().got(), "")
}

// TestOptimisticFresh: at READ COMMITTED each statement of a transaction sees what must be seen when it comes, also when
// others have written since the first one.
func TestOptimisticFresh(t *testing.T) {
	for _, begin := range []string{"BEGIN", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"} {
		t.Run(begin, func(t *testing.T) {
			r := newRig(t, hopeful, withTarget(func(t *Target) {
				t.Consistency = router.ConsistencyApplication
				t.FreshnessWait = func(router.Consistency) time.Duration { return 0 }
			}))
			writer, c := r.client(), r.client()
			r.warm(writer, c)
			c.query(begin)
			equal(t, "before", c.sees("SELECT 1"), "standby-a")
			writer.query("INSERT INTO t VALUES (1)")
			want := "primary"
			if strings.Contains(begin, "REPEATABLE") {
				want = "standby-a" // its snapshot is older
			}
			equal(t, "behind the write of another", c.sees("SELECT 2"), want)
			c.query("COMMIT")
			equal(t, "the end", r.ran("COMMIT"), want+"=1")
		})
	}
}

// TestOptimisticUnnamed: the ROLLBACK that ends the standby's part drops its unnamed statement; the client still has it.
func TestOptimisticUnnamed(t *testing.T) {
	r := newRig(t, hopeful)
	c := r.client()
	c.query("BEGIN")
	c.run(pgtest.Parse("", "VALUES (1)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	c.run(pgtest.Parse("w", "INSERT INTO t VALUES (1)"), pgtest.Bind("", "w"), pgtest.Execute("", 0), pgtest.Sync())
	c.run(pgtest.Parse("e", "COMMIT"), pgtest.Bind("", "e"), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "moved", r.ran("COMMIT"), "primary=1")
	equal(t, "the unnamed statement", c.run(pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync()), "2 D(standby-a 1) C(SELECT 1) Z(I)")
}

// TestOptimisticPooled: the standby's connection goes back to its pool when the transaction moves.
func TestOptimisticPooled(t *testing.T) {
	r := newRig(t, hopeful, pooled(1))
	c, other := r.client(), r.client()
	c.query("BEGIN")
	c.query("SELECT 1")
	c.query("INSERT INTO t VALUES (1)")
	equal(t, "another client", other.query("SELECT 2"), "T D(standby-a) C(SELECT 1) Z(I)")
	c.query("COMMIT")
}

// TestBeginWithFirstStatement: a driver that sends BEGIN in one batch with the statement behind it (JDBC) has its
// transactions begun on a standby like any other.
func TestBeginWithFirstStatement(t *testing.T) {
	begin := func(name, sql string) []pgtest.Message {
		out := []pgtest.Message{pgtest.Bind("", name), pgtest.Execute("", 0)}
		if sql != "" {
			out = append([]pgtest.Message{pgtest.Parse(name, sql)}, out...)
		}
		return out
	}
	run := func(sql string) []pgtest.Message {
		return []pgtest.Message{pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.DescribePortal(""), pgtest.Execute("", 0), pgtest.Sync()}
	}
	readOnly := withoutB
	for _, tc := range []struct {
		name   string
		rig    func(*rig)
		begin  string
		first  string
		reply  string
		begins string
		ran    string
	}{
		{"optimistic", hopeful, "BEGIN", "SELECT 7", "1 2 C(BEGIN) 1 2 T D(standby-a) C(SELECT 1) Z(T)", "standby-a=1", "standby-a=1"},
		{"read only", readOnly, "BEGIN READ ONLY", "SELECT 7", "1 2 C(BEGIN) 1 2 T D(standby-a) C(SELECT 1) Z(T)", "standby-a=1", "standby-a=1"},
		{"a write", hopeful, "BEGIN", "INSERT INTO t VALUES (7)", "1 2 C(BEGIN) 1 2 n C(INSERT 0 1) Z(T)", "primary=1", "primary=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.rig)
			c := r.client()
			c.query("SELECT 1")
			for range 2 { // the second time the driver has its BEGIN prepared
				text := tc.begin
				for range 2 {
					r.forgetAll()
					c.send(append(begin("S_1", text), run(tc.first)...)...)
					reply := tc.reply
					if text == "" {
						reply = strings.TrimPrefix(reply, "1 ")
					}
					equal(t, "reply", c.ready(1), reply)
					equal(t, "begun", r.ran(tc.begin), tc.begins)
					equal(t, "ran", r.ran(tc.first), tc.ran)
					equal(t, "the end", c.query("COMMIT"), "C(COMMIT) Z(I)")
					text = ""
				}
				c.send(pgtest.CloseStatement("S_1"), pgtest.Sync())
				c.ready(1)
			}
		})
	}
	t.Run("read and write", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		r.forgetAll()
		c.send(append(begin("", "BEGIN"), run("SELECT 7")...)...)
		equal(t, "reply", c.ready(1), "1 2 C(BEGIN) 1 2 T D(primary) C(SELECT 1) Z(T)")
		equal(t, "in one batch", strings.Contains(r.p().got(), "Q BEGIN"), false)
	})
	t.Run("with a parameter", func(t *testing.T) { // which is an error, and the node's
		r := newRig(t, readOnly)
		c := r.client()
		for _, behind := range [][]pgtest.Message{{pgtest.Sync()}, run("SELECT 7")} {
			r.forgetAll()
			c.send(append([]pgtest.Message{pgtest.Parse("", "BEGIN READ ONLY"), pgtest.Bind("", "", "x"), pgtest.Execute("", 0)}, behind...)...)
			c.ready(1)
			equal(t, "asked", strings.Contains(r.p().got()+r.a().got(), "P  BEGIN READ ONLY | B"), true)
			equal(t, "by other messages", strings.Contains(r.p().got()+r.a().got(), "Q BEGIN"), false)
			c.query("ROLLBACK")
		}
	})
	t.Run("its portal is used again", func(t *testing.T) {
		for _, again := range []pgtest.Message{pgtest.DescribePortal(""), pgtest.Execute("", 0), pgtest.ClosePortal("")} {
			r := newRig(t, readOnly)
			c := r.client()
			r.forgetAll()
			c.send(append(append(begin("", "BEGIN READ ONLY"), again), run("SELECT 7")...)...)
			c.ready(1)
			equal(t, "in one batch", strings.Contains(r.p().got()+r.a().got(), "Q BEGIN"), false)
		}
	})
	t.Run("an error behind it", func(t *testing.T) {
		r := newRig(t, hopeful)
		c := r.client()
		c.send(append(begin("", "BEGIN"), pgtest.Bind("", "none"), pgtest.Execute("", 0), pgtest.Sync())...)
		equal(t, "reply", c.ready(1), "1 2 C(BEGIN) E(ERROR 26000) Z(E)")
		equal(t, "the end", c.query("ROLLBACK"), "C(ROLLBACK) Z(I)")
	})
}
