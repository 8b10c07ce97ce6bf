package proxy

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgweir/health"

	"pgweir/internal/pgtest"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// pooled is a rig with transaction pooling and pools of the given size.
func pooled(size int) rigOption {
	return func(r *rig) { r.target.Pooled, r.target.WaitTimeout, r.limits.Size = true, 50*time.Millisecond, size }
}

// TestPooledTurns: two sessions take turns on one connection to each node, each with its own settings.
func TestPooledTurns(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB, pooled(1))
		a, b := r.client(), r.client()
		a.runs(protocol, "SET work_mem TO '9MB'")
		r.forgetAll()
		equal(t, "a reads", a.runs(protocol, "SELECT 1"), a.runs(protocol, "SELECT 1"))
		b.runs(protocol, "SELECT 2")
		a.runs(protocol, "SELECT 3")
		got := r.a().got()
		for _, want := range []string{`SET "work_mem" TO '9MB'`, `RESET "work_mem"`} {
			if strings.Count(got, want) == 0 {
				t.Errorf("no %s in %s", want, got)
			}
		}
		if i, j := strings.Index(got, `RESET "work_mem"`), strings.Index(got, "SELECT 2"); i > j {
			t.Errorf("b ran under a's settings: %s", got)
		}
	})
}

// TestPooledFull: a transaction keeps its connection; who finds none in time hears it, and has it afterwards.
func TestPooledFull(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.query("BEGIN")
	a.query("INSERT INTO t VALUES (1)")
	equal(t, "full", b.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
	a.query("COMMIT")
	if got := b.query("INSERT INTO t VALUES (2)"); !strings.HasSuffix(got, "Z(I)") || strings.Contains(got, "E(") {
		t.Errorf("after the COMMIT: %s", got)
	}
}

// TestPooledNames: sessions use the same names for their prepared statements; nodes know them under ours, one
// for each text, and an error speaks of the client's.
func TestPooledNames(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b, c := r.client(), r.client(), r.client()
	prepare := func(c *client, sql string) string {
		return c.run(append([]pgtest.Message{pgtest.Parse("s", sql)}, bindExecute("s")...)...)
	}
	prepare(a, "VALUES (1)")
	prepare(b, "VALUES (2)")
	r.forgetAll()
	a.run(bindExecute("s")...)
	b.run(bindExecute("s")...)
	if got := r.p().got(); !strings.Contains(got, "E VALUES (1)") || strings.Index(got, "E VALUES (2)") < strings.Index(got, "E VALUES (1)") {
		t.Errorf("not each its own: %s", got)
	}
	r.forgetAll()
	prepare(c, "VALUES (1)")
	a.run(bindExecute("s")...)
	got := r.p().got()
	if strings.Count(got, "P pgweir_") != 1 || strings.Contains(got, " s ") {
		t.Errorf("one text, one statement: %s", got)
	}
	equal(t, "unknown", a.run(bindExecute("nobody")...), "E(ERROR 26000) Z(I)")
	equal(t, "there already", prepare(a, "VALUES (3)"), "E(ERROR 42P05) Z(I)")
	equal(t, "still the old one", a.run(bindExecute("s")...), "2 D(primary 1) C(SELECT 1) Z(I)")
	equal(t, "closed", a.run(pgtest.CloseStatement("s"), pgtest.Sync()), "3 Z(I)")
	equal(t, "gone", a.run(bindExecute("s")...), "E(ERROR 26000) Z(I)")
	equal(t, "not for others", c.run(bindExecute("s")...), "2 D(primary 1) C(SELECT 1) Z(I)")
}

// TestPooledUnnamed: no session meets the unnamed statement of another, even where an error has kept a connection from
// dropping it.
func TestPooledUnnamed(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	equal(t, "made", a.run(pgtest.Parse("", "INSERT INTO t VALUES (1)"), pgtest.Sync()), "1 Z(I)")
	equal(t, "its successor is skipped", a.run(pgtest.Bind("", "nobody"), pgtest.Parse("", "INSERT INTO t VALUES (2)"), pgtest.Sync()), "E(ERROR 26000) Z(I)")
	equal(t, "another session", b.run(bindExecute("")...), "E(ERROR 26000) Z(I)")
	equal(t, "its own", a.run(bindExecute("")...), "2 C(INSERT 0 1) Z(I)")
}

// TestPooledEviction: a connection keeps no more than maxPrepared statements, and those that went are made again.
func TestPooledEviction(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a := r.client()
	for i := range maxPrepared + 20 {
		a.run(append([]pgtest.Message{pgtest.Parse(fmt.Sprint("s", i), fmt.Sprintf("VALUES (%d)", i))}, bindExecute(fmt.Sprint("s", i))...)...)
	}
	if n := strings.Count(r.p().got(), "C S pgweir_"); n < 18 || n > 20 {
		t.Errorf("%d statements were closed", n)
	}
	r.forgetAll()
	a.run(bindExecute("s0")...)
	if got := r.p().got(); !strings.Contains(got, " VALUES (0) | D S") || !strings.Contains(got, "E VALUES (0)") {
		t.Errorf("not prepared again: %s", got)
	}
}

// TestPooledPinned: what is bound to a connection keeps it, and leaves it clean.
func TestPooledPinned(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.query("LISTEN ch")
	equal(t, "held", b.query("INSERT INTO t VALUES (1)"), "E(ERROR 53300 pgweir) Z(I)")
	r.forgetAll()
	a.query("UNLISTEN *")
	b.query("INSERT INTO t VALUES (1)")
	if got := r.p().got(); !strings.Contains(got, "DISCARD ALL") || strings.Index(got, "DISCARD ALL") > strings.Index(got, "INSERT") {
		t.Errorf("not wiped in between: %s", got)
	}
}

// TestPooledOpaque: what may have left anything keeps its connection for as long as the session lasts, and
// nobody has it afterwards.
func TestPooledOpaque(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.query("DO $$ BEGIN PERFORM set_config('a.b', 'x', false); END $$")
	for range 3 * maxDoubts {
		a.query("INSERT INTO t VALUES (1)")
		equal(t, "meanwhile", b.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
	}
	before := r.p().last()
	a.query("DISCARD ALL")
	b.query("INSERT INTO t VALUES (2)")
	if r.p().last() == before {
		t.Error("b got the connection")
	}
}

// TestPooledCreated: the many rows that a session writes into a table which it has just made do not bind it to its
// connection for longer than the catalog view needs to know the table.
func TestPooledCreated(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, alone, pooled(1))
		a, b := r.client(), r.client()
		for i := range 3 * maxDoubts {
			a.runs(protocol, fmt.Sprintf("INSERT INTO newborn VALUES (%d)", i))
		}
		equal(t, "meanwhile", b.query("INSERT INTO t VALUES (1)"), "E(ERROR 53300 pgweir) Z(I)")
		r.mu.Lock()
		r.created = append(r.created, "newborn")
		r.mu.Unlock()
		a.runs(protocol, "CREATE INDEX ON newborn (a)")
		await(t, "the connection to be given back", func() bool {
			a.runs(protocol, "INSERT INTO newborn VALUES (0)")
			return b.query("INSERT INTO t VALUES (1)") == "C(INSERT 0 1) Z(I)"
		})
	})
}

// TestPooledCreatedSequence: a session whose user asks for lastval keeps its connection for a new table only if that turns
// out to have a sequence.
func TestPooledCreatedSequence(t *testing.T) {
	for _, sequence := range []bool{false, true} {
		r := newRig(t, withoutB, pooled(1))
		a, b := r.client(), r.client()
		a.query("SELECT lastval()")
		a.query("INSERT INTO newborn VALUES (1)")
		r.mu.Lock()
		r.created, r.serial = append(r.created, "newborn"), sequence
		r.mu.Unlock()
		a.query("CREATE INDEX ON newborn (a)")
		if sequence {
			await(t, "the doubt to be over", func() bool { return strings.Contains(a.query("SELECT 1 FROM t"), "standby") })
			equal(t, "b", b.query("INSERT INTO t VALUES (1)"), "E(ERROR 53300 pgweir) Z(I)")
			continue
		}
		await(t, "the connection to be given back", func() bool {
			a.query("INSERT INTO t VALUES (1)")
			return b.query("INSERT INTO t VALUES (1)") == "C(INSERT 0 1) Z(I)"
		})
	}
}

// TestPooledCreatedIdle: a client that is silent behind its write into a new table gives its connection back as soon
// as the catalog view knows the table.
func TestPooledCreatedIdle(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	b.query("INSERT INTO t VALUES (1)")
	r.mu.Lock()
	r.created = append(r.created, "newborn")
	r.mu.Unlock()
	a.query("INSERT INTO newborn VALUES (1)")
	await(t, "the connection to be given back", func() bool { return b.query("INSERT INTO t VALUES (1)") == "C(INSERT 0 1) Z(I)" })
	equal(t, "a goes on", a.query("INSERT INTO newborn VALUES (2)"), "C(INSERT 0 1) Z(I)")
}

// TestPooledDoubtfulIdle: a session that is in doubt keeps to the client's idle_session_timeout.
func TestPooledDoubtfulIdle(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	c := r.client()
	c.query("SET idle_session_timeout TO '300ms'")
	c.query("INSERT INTO unborn VALUES (1)")
	equal(t, "the end", c.end(), "E(FATAL 57P05 pgweir)")
}

// TestPooledSQL: SQL that speaks of prepared statements finds the client's under their own names, and nobody else's.
func TestPooledSQL(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	equal(t, "b prepares", b.run(append([]pgtest.Message{pgtest.Parse("theirs", "VALUES (2)")}, bindExecute("theirs")...)...), "1 2 D(primary 1) C(SELECT 1) Z(I)")
	equal(t, "a prepares", a.run(append([]pgtest.Message{pgtest.Parse("mine", "VALUES (1)")}, bindExecute("mine")...)...), "1 2 D(primary 1) C(SELECT 1) Z(I)")
	r.forgetAll()
	a.query("EXECUTE mine")
	got := r.p().got()
	for _, want := range []string{"C S pgweir_", "P mine VALUES (1)", "EXECUTE mine"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, "theirs") || strings.Contains(got, "VALUES (2)") {
		t.Errorf("another's statement: %s", got)
	}
	b.run(bindExecute("theirs")...)
	if got := r.p().got(); !strings.Contains(got, "DISCARD ALL") || !strings.HasSuffix(got, "E VALUES (2) | S") {
		t.Errorf("not wiped: %s", got)
	}
}

// TestPooledSequences: who has called nextval finds its connection again while others have one, and another
// gets it without the values.
func TestPooledSequences(t *testing.T) {
	r := newRig(t, alone, pooled(2))
	a, b := r.client(), r.client()
	a.query("SELECT nextval('s')")
	conn := func(n int) string { return fmt.Sprint(r.srv.pool.Stats()[0].Idle, "/", n) }
	await(t, "the connection to be given back", func() bool { return conn(2) == "1/2" })
	r.forgetAll()
	b.query("INSERT INTO t VALUES (1)")
	if strings.Contains(r.p().got(), "DISCARD SEQUENCES") {
		t.Error("a's connection was taken although another could be had")
	}
	b.query("BEGIN")
	b.query("INSERT INTO t VALUES (1)")
	c := r.client()
	c.query("INSERT INTO t VALUES (2)")
	got := r.p().got()
	if !strings.Contains(got, "DISCARD SEQUENCES") || strings.Index(got, "DISCARD SEQUENCES") > strings.Index(got, "VALUES (2)") {
		t.Errorf("values were left for another: %s", got)
	}
	b.query("COMMIT")
}

// TestPooledCustom: the name of a custom setting never goes away: only sessions that have it get the connection.
func TestPooledCustom(t *testing.T) {
	r := newRig(t, alone, pooled(2))
	a, b := r.client(), r.client()
	a.query("SET a.b TO 'x'")
	opened := r.p().live()
	b.query("INSERT INTO t VALUES (1)")
	equal(t, "another connection", r.p().live()-opened, 1)
	a.query("INSERT INTO t VALUES (2)")
	b.query("INSERT INTO t VALUES (3)")
	equal(t, "each its own", r.p().live()-opened, 1)
}

// TestPooledCustomRemoved: a library that is loaded may throw custom settings away. They are not made again elsewhere.
func TestPooledCustomRemoved(t *testing.T) {
	r := newRig(t, alone, pooled(2))
	r.p().on("LOAD 'lib'", func(b *backendPG) error {
		b.say(pgtest.Notice("WARNING", "42602", `invalid configuration parameter name "lib.none", removing it`), pgtest.CommandComplete("LOAD"))
		return nil
	})
	a := r.client()
	a.query("SET lib.none TO 'x'")
	a.query("SET other.one TO 'y'")
	a.query("LOAD 'lib'")
	first := r.p().last()
	a.query("DISCARD ALL")
	r.forgetAll()
	a.query("INSERT INTO t VALUES (1)")
	if r.p().last() == first {
		t.Fatal("the connection is still the same: nothing is shown")
	}
	if got := r.p().got(); strings.Contains(got, "none") || !strings.Contains(got, `RESET "other"."one"`) {
		t.Errorf("settings on the next connection: %s", got)
	}
}

// TestPooledTemporarySchema: a process that has had temporary objects keeps the schema for them, so a session that looks
// for names there gets another one.
func TestPooledTemporarySchema(t *testing.T) {
	cases := []struct {
		name, makes string
		pooled      bool
	}{
		{"a table", "CREATE TEMP TABLE x (a int)", true},
		{"a table that is discarded at once", "CREATE TEMP TABLE x (a int); DISCARD TEMP", true},
		{"a function that may make one", "SELECT k()", true},
		{"with pool_mode: session", "CREATE TEMP TABLE x (a int)", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, alone, pooled(2), withTarget(func(x *Target) { x.Pooled = c.pooled }))
			var mu sync.Mutex
			var ranOn *backendPG
			for _, sql := range []string{"CREATE TEMP TABLE x (a int)", "SELECT k()", "INSERT INTO t VALUES (1)"} {
				r.p().on(sql, func(b *backendPG) error {
					mu.Lock()
					defer mu.Unlock()
					ranOn = b
					return b.usual(&portalPG{sql: sql})
				})
			}
			on := func(c *client, sql string) *backendPG {
				c.query(sql)
				mu.Lock()
				defer mu.Unlock()
				return ranOn
			}
			a := r.client()
			used := on(a, c.makes)
			a.query("DISCARD ALL")
			must(t, a.Close())
			await(t, "the connection to be given back", func() bool { return r.srv.pool.Stats()[0].Idle == r.p().live() })
			looks := func(yes bool) {
				path := "public"
				if yes {
					path = "pg_temp, public"
				}
				r.p().on(baseQuery(), func(b *backendPG) error {
					b.say(pgtest.RowDescription("a"), pgtest.DataRow(path, "none", "read committed", "off", "off", "0", "0", "on", "0"), pgtest.CommandComplete("SELECT 1"))
					return nil
				})
				r.srv.bases.drop("main")
			}
			looks(true)
			first := r.client()
			looks(false)
			equal(t, "fits a session that starts by looking there", on(first, "INSERT INTO t VALUES (1)") == used, false)
			must(t, first.Close())
			await(t, "the connection to be given back", func() bool { return r.srv.pool.Stats()[0].Idle == r.p().live() })
			if c.pooled {
				b := r.client()
				b.query("SET search_path TO 'pg_temp'")
				equal(t, "fits a session that looks there", on(b, "INSERT INTO t VALUES (1)") == used, false)
				must(t, b.Close())
			}
			d, e := r.client(), r.client()
			for _, c := range []*client{d, e} {
				c.query("BEGIN")
			}
			equal(t, "fits those that do not", (on(d, "INSERT INTO t VALUES (1)") == used) != (on(e, "INSERT INTO t VALUES (1)") == used), true)
		})
	}
}

// TestPooledLeftNames: a connection on which a function may have left the name of a setting goes to sessions that use such a
// function themselves, and to no others.
func TestPooledLeftNames(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB, pooled(1))
		a, b, c := r.client(), r.client(), r.client()
		a.runs(protocol, "SELECT n()")
		opened := r.p().last()
		a.runs(protocol, "INSERT INTO t VALUES (1)")
		c.runs(protocol, "SELECT n()")
		c.query("BEGIN")
		c.runs(protocol, "SELECT n()")
		c.query("ROLLBACK")
		equal(t, "shared by those who call it", r.p().last() == opened, true)
		b.runs(protocol, "INSERT INTO t VALUES (2)")
		equal(t, "left to one who does not", r.p().last() == opened, false)
		await(t, "the end of the other", func() bool { return r.p().live() == 1 })
		second := r.p().last()
		a.runs(protocol, "INSERT INTO t VALUES (1)")
		equal(t, "fits who has called it", r.p().last() == second, true)
		b.runs(protocol, "SELECT m()")
		read := r.a().last()
		c.runs(protocol, "SELECT 1")
		equal(t, "on a standby, of those who call it", r.a().last() == read, true)
		d := r.client()
		d.runs(protocol, "SELECT 1")
		equal(t, "on a standby, of one who does not", r.a().last() == read, false)
	})
	r := newRig(t, alone, pooled(1), withTarget(func(x *Target) { x.Pooled = false }))
	a := r.client()
	a.query("SELECT n()")
	used := r.p().last()
	must(t, a.Close())
	await(t, "the end", func() bool { return r.srv.pool.Stats()[0].Leased == 0 })
	b := r.client()
	b.query("INSERT INTO t VALUES (1)")
	equal(t, "with pool_mode: session", r.p().last() == used, false)
}

// TestManyLeftNames: what a session and a connection remember of names that are left has an end; a connection with more of them is
// closed behind the session.
func TestManyLeftNames(t *testing.T) {
	s, l := new(session), new(lease)
	for i := range 2 * maxLeft {
		equal(t, "closed", l.spoiled, i > maxLeft)
		u := &router.Unit{Leaves: fmt.Sprintf("a.b%d", i)}
		s.knowsNames(u)
		s.leavesNames(l, u)
	}
	equal(t, "of the session", router.CountNames(s.left), maxLeft)
	equal(t, "of the connection", router.CountNames(l.left), maxLeft)
	s.leavesNames(l, &router.Unit{})
	s.leavesNames(l, nil)
	s, l = new(session), new(lease)
	s.leavesNames(l, &router.Unit{Leaves: "a." + strings.Repeat("b", maxLeftBytes)})
	equal(t, "long ones", fmt.Sprint(len(s.left), len(l.left), l.spoiled), "0 0 true")
}

// TestPooledDeallocate: DEALLOCATE of a statement that was prepared by the protocol finds it under the client's name, also
// several times in one batch, and the connection is not wiped for it.
func TestPooledDeallocate(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a := r.client()
	for _, name := range []string{"s1", "s2", "s3"} {
		a.run(append([]pgtest.Message{pgtest.Parse(name, "VALUES (1)")}, bindExecute(name)...)...)
	}
	r.forgetAll()
	batch := func(sql string) []pgtest.Message {
		return []pgtest.Message{pgtest.Parse("", sql), pgtest.Bind("", "", nil, nil, nil), pgtest.Execute("", 0)}
	}
	ms := append(append(batch("DEALLOCATE s1"), batch("DEALLOCATE s2")...), pgtest.Sync())
	equal(t, "both", a.run(ms...), "1 2 C(DEALLOCATE) 1 2 C(DEALLOCATE) Z(I)")
	equal(t, "gone", a.run(bindExecute("s1")...), "E(ERROR 26000) Z(I)")
	equal(t, "the third", a.run(bindExecute("s3")...), "2 D(primary 1) C(SELECT 1) Z(I)")
	if got := r.p().got(); strings.Contains(got, "DISCARD") {
		t.Errorf("wiped: %s", got)
	}
}

// TestPooledDeadIdle: a session with settings of its own finds its way past any number of idle connections that have
// died in the pool.
func TestPooledDeadIdle(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, alone, pooled(5))
		a := r.client()
		a.runs(protocol, "SET work_mem TO '9MB'")
		others := make([]*client, 5)
		for i := range others {
			others[i] = r.client()
			others[i].query("BEGIN")
			others[i].query("INSERT INTO t VALUES (1)")
		}
		for _, c := range others {
			c.query("COMMIT")
		}
		await(t, "five idle connections", func() bool { return r.srv.pool.Stats()[0].Idle == 5 })
		r.p().KillConns()
		equal(t, "the write", strings.HasSuffix(a.runs(protocol, "INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)"), true)
	})
}

// TestPooledUnlock: a session that gives advisory locks back keeps its connection until pg_locks shows none of its own.
func TestPooledUnlock(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, alone, pooled(1))
		a, b := r.client(), r.client()
		locked := func(rows int) {
			r.p().on(ownLocks, func(b *backendPG) error {
				b.say(pgtest.RowDescription())
				for range rows {
					b.say(pgtest.DataRow())
				}
				b.say(pgtest.CommandComplete(fmt.Sprint("SELECT ", rows)))
				return nil
			})
		}
		const free, kept = "C(INSERT 0 1) Z(I)", "E(ERROR 53300 pgweir) Z(I)"
		a.runs(protocol, "SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
		equal(t, "held", b.query("INSERT INTO t VALUES (1)"), kept)
		locked(1)
		a.runs(protocol, "SELECT pg_advisory_unlock(1)")
		equal(t, "one is left", b.query("INSERT INTO t VALUES (1)"), kept)
		locked(0)
		a.runs(protocol, "BEGIN")
		a.runs(protocol, "SELECT pg_advisory_unlock(2)")
		equal(t, "in the transaction", b.query("INSERT INTO t VALUES (1)"), kept)
		a.runs(protocol, "COMMIT")
		equal(t, "none is left", b.query("INSERT INTO t VALUES (1)"), free)
		equal(t, "it goes on", a.runs(protocol, "INSERT INTO t VALUES (1)"), map[string]string{"simple": free, "extended": "1 2 " + free}[protocol])
	})
}

// TestPooledDropped: a statement whose table is gone can be dropped in SQL like any other. Where SQL uses it the client
// hears the node's error, and the session goes on.
func TestPooledDropped(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, alone, pooled(1))
		a := r.client()
		for _, name := range []string{"s1", "s2"} {
			a.run(append([]pgtest.Message{pgtest.Parse(name, "VALUES (1)")}, bindExecute(name)...)...)
		}
		r.p().drop("VALUES (1)")
		equal(t, "dropped", strings.HasSuffix(a.runs(protocol, "DEALLOCATE s1"), "C(DEALLOCATE) Z(I)"), true)
		equal(t, "used", strings.HasSuffix(a.runs(protocol, "EXECUTE s2"), "E(ERROR 42P01) Z(I)"), true)
		equal(t, "what follows", a.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
		equal(t, "in a transaction", a.query("BEGIN"), "C(BEGIN) Z(T)")
		equal(t, "used there", strings.HasSuffix(a.runs(protocol, "EXECUTE s2"), "E(ERROR 42P01) Z(E)"), true)
		equal(t, "its end", a.query("ROLLBACK"), "C(ROLLBACK) Z(I)")
	})
}

// TestPooledNotifier: what a connection has notified of counts as the session's that had it last, as long as that
// session is there.
func TestPooledNotifier(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a := r.client()
	s := r.session(a)
	a.query("INSERT INTO t VALUES (1)")
	var held backend
	r.srv.keys.mu.Lock()
	for b, v := range r.srv.keys.mu.backends {
		if v.Load() == s.pid.Load() {
			held = b
		}
	}
	r.srv.keys.mu.Unlock()
	shown := func() uint32 { return r.srv.keys.virtual(held.cluster, held.node, held.pid) }
	await(t, "the connection to be given back", func() bool { return r.srv.pool.Stats()[0].Idle == 1 })
	equal(t, "given back", shown(), s.pid.Load())
	must(t, a.Close())
	await(t, "the session to end", func() bool { return shown() == 0 })
	r.srv.pool.Retire(func(pool.Key) bool { return true })
	r.srv.keys.mu.Lock()
	defer r.srv.keys.mu.Unlock()
	equal(t, "known of closed connections", len(r.srv.keys.mu.backends), 0)
}

// TestRebaseOfAnIdleSession: a session that was idle for longer than it may wait for a connection still has the time to ask what its
// connections start with now.
func TestRebaseOfAnIdleSession(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	c := r.client()
	c.query("INSERT INTO t VALUES (1)")
	for idle := health.Clock(); health.Clock()-idle < int64(r.target.WaitTimeout); {
		r.forgetAll() // until that time has passed
	}
	r.srv.pool.CloseNode("main", 1)
	r.cluster.SettingsChanged()
	equal(t, "what it sent", c.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
	equal(t, "asked", r.p().ran(baseQuery()), 1)
	c.query("INSERT INTO t VALUES (3)")
	equal(t, "once", r.p().ran(baseQuery()), 1)
}

// TestNobodyWaitsWithAConnection: a session whose read a standby refused gives that connection back before it waits for
// the primary's, which somebody may hold who waits for the standby's.
func TestNobodyWaitsWithAConnection(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB, pooled(1), withTarget(func(x *Target) { x.WaitTimeout = 10 * time.Second }))
		r.a().on("SELECT f(1)", refuses)
		a, b := r.client(), r.client()
		a.query("LISTEN x")
		b.sendSQL(protocol, "SELECT f(1)")
		r.waiting(1)
		if got := a.query("SELECT 1"); !strings.Contains(got, "D(standby-a)") {
			t.Errorf("the standby's connection was kept: %s", got)
		}
		a.query("UNLISTEN x")
		if got := b.ready(1); !strings.Contains(got, "D(primary)") {
			t.Errorf("the read that was refused: %s", got)
		}
	})
}

// TestSessionModeFull: with pool_mode: session a session that holds the primary's connection reads there while no standby has one to
// spare, unless reads must not be on the primary; one that holds none waits.
func TestSessionModeFull(t *testing.T) {
	full := func(r *rig) { r.target.WaitTimeout, r.limits.Size = 50*time.Millisecond, 1 }
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB, full)
		a, b, c := r.client(), r.client(), r.client()
		a.query("INSERT INTO t VALUES (1)")
		b.query("SELECT 1")
		for range 2 {
			if got := a.runs(protocol, "SELECT 2"); !strings.Contains(got, "D(primary") {
				t.Errorf("the holder of the primary's: %s", got)
			}
			equal(t, "why", a.query("SHOW pgweir.last_route"), "T D(primary primary · no_standby) C(SHOW) Z(I)")
		}
		if got := a.runs(protocol, "BEGIN READ ONLY") + a.runs(protocol, "SELECT 3") + a.runs(protocol, "COMMIT"); !strings.Contains(got, "D(primary") {
			t.Errorf("in a transaction: %s", got)
		}
		if got := c.runs(protocol, "SELECT 4"); !strings.Contains(got, "E(ERROR 53300 pgweir)") {
			t.Errorf("the holder of nothing: %s", got)
		}
		b.silent()
		_ = b.Close()
		await(t, "a standby's connection", func() bool { return strings.Contains(a.runs(protocol, "SELECT 5"), "D(standby-a") })
	})
	r := newRig(t, withoutB, full, withTarget(func(t *Target) { t.OnPrimary = router.ReadsNever }))
	a, b := r.client(), r.client()
	a.query("INSERT INTO t VALUES (1)")
	b.query("SELECT 1")
	equal(t, "never on the primary", a.query("SELECT 2"), "E(ERROR 53300 pgweir) Z(I)")
}

// TestKeysAreShared: the keys of a user are there once.
func TestKeysAreShared(t *testing.T) {
	r := newRig(t, withoutB)
	a, b, other := r.client(), r.client(), r.connect(pgtest.ClientConfig{User: "bob"})
	equal(t, "of one user", r.session(a).keys == r.session(b).keys, true)
	equal(t, "of two", r.session(a).keys == r.session(other).keys, false)
}
