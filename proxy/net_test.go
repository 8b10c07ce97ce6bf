package proxy

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/health"
	"pgweir/internal/pgtest"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// refuses is a standby's answer to what writes.
func refuses(b *backendPG) error {
	return b.error("25006", "cannot execute UPDATE in a read-only transaction")
}

// TestRefusedByStandby: a 25006 that the client has seen nothing of runs again on the primary, once per
// shape; hinted statements are outside of the net.
func TestRefusedByStandby(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		lead := ""
		if protocol == "extended" {
			lead = "1 2 "
		}
		r.a().on("SELECT f(1)", refuses)
		r.a().on("SELECT f(2)", refuses)
		got := c.runs(protocol, "SELECT f(1)")
		equal(t, "answered by the primary", strings.TrimPrefix(strings.TrimPrefix(got, "1 2 "), "T "), "D(primary) C(SELECT 1) Z(I)")
		equal(t, "on both", r.ran("SELECT f(1)"), "primary=1 standby-a=1")
		c.runs(protocol, "SELECT f(2)")
		equal(t, "learned", r.ran("SELECT f(2)"), "primary=1")
		equal(t, "counted", counter(r.cluster.metrics.reroutes.WithLabelValues("main", causeReadOnly)), 1.0)
		r.a().on("/* pgweir: standby */ SELECT w()", refuses)
		equal(t, "hinted", c.runs(protocol, "/* pgweir: standby */ SELECT w()"), lead+"E(ERROR 25006) Z(I)")
		equal(t, "not run again", r.ran("/* pgweir: standby */ SELECT w()"), "standby-a=1")
		equal(t, "a certain write", c.runs(protocol, "/* pgweir: standby */ INSERT INTO t VALUES (1)"), "E(ERROR 25006 pgweir) Z(I)")
		equal(t, "was sent to nobody", r.ran("/* pgweir: standby */ INSERT INTO t VALUES (1)"), "never")
	})
}

// TestRefusedLate: up to 16 KiB of a standby's answer are kept back while the class rests on the
// catalog; beyond that the error passes, is learned and counted.
func TestRefusedLate(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		late := func(n int, seen <-chan struct{}) func(b *backendPG) error {
			return func(b *backendPG) error {
				if b.simple {
					b.say(pgtest.RowDescription("v"))
				}
				for range n {
					b.say(pgtest.DataRow(strings.Repeat("x", 1000)))
				}
				if err := b.flush(); err != nil {
					return err
				}
				<-seen
				return refuses(b)
			}
		}
		at := make(chan struct{})
		close(at)
		r.a().on("SELECT f(1), 1", late(12, at))
		got := strings.TrimPrefix(strings.TrimPrefix(c.runs(protocol, "SELECT f(1), 1"), "1 2 "), "T ")
		equal(t, "invisible", got, "D(primary) C(SELECT 1) Z(I)")
		equal(t, "no misroute", counter(r.cluster.metrics.misroutes), 0.0)
		seen := make(chan struct{})
		r.a().on("SELECT f(1), 2, 3", late(24, seen))
		c.sendSQL(protocol, "SELECT f(1), 2, 3")
		got = c.until('D')
		close(seen)
		got += " " + c.ready(1)
		if !strings.HasSuffix(got, "E(ERROR 25006) Z(I)") || strings.Count(got, "D(") != 24 {
			t.Errorf("beyond: %d rows, …%s", strings.Count(got, "D("), got[max(0, len(got)-40):])
		}
		await(t, "a misroute is counted", func() bool { return counter(r.cluster.metrics.misroutes) == 1 })
		c.runs(protocol, "SELECT f(1), 2, 3")
		equal(t, "learned", r.ran("SELECT f(1), 2, 3"), "primary=1 standby-a=1")
	})
}

// TestConflict: a recovery conflict runs again on another standby, then on the primary.
func TestConflict(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t)
		c := r.client()
		var conflicts atomic.Int64
		conflict := func(b *backendPG) error {
			if conflicts.Add(1) > 1 {
				return b.usual(&portalPG{sql: "SELECT 1"})
			}
			return b.error("40001", "canceling statement due to conflict with recovery")
		}
		r.a().on("SELECT 1", conflict)
		r.b().on("SELECT 1", conflict)
		got := c.runs(protocol, "SELECT 1")
		if !strings.Contains(got, "D(standby") {
			t.Error(got)
		}
		equal(t, "one each", r.a().ran("SELECT 1")+r.b().ran("SELECT 1"), 2)
		equal(t, "not learned", r.ran("INSERT INTO t VALUES (1)"), "never")
		equal(t, "counted", counter(r.cluster.metrics.reroutes.WithLabelValues("main", causeConflict)), 1.0)
		r.a().on("SELECT 1/0", nil)
		got = c.runs(protocol, "SELECT 1/0")
		equal(t, "an ordinary error is the client's", strings.TrimPrefix(got, "1 2 "), "E(ERROR 22012) Z(I)")
	})
}

// TestRealPID: with backend_pid: real a client is told its process on the primary, has that and no other, and can cancel
// by it; who comes after it is told the same process truly.
func TestRealPID(t *testing.T) {
	r := newRig(t, withoutB, withTarget(func(t *Target) { t.RealPID = true }))
	var ranOn uint32
	began := make(chan struct{}, 1)
	r.p().on("INSERT INTO t VALUES (1)", func(b *backendPG) error {
		ranOn = b.PID
		return b.usual(&portalPG{sql: "INSERT INTO t VALUES (1)"})
	})
	r.p().on("INSERT INTO t VALUES (2)", func(b *backendPG) error {
		done := cancelled(b)
		began <- struct{}{}
		if err := b.StallUntil(done); err != nil {
			return err
		}
		return b.error("57014", "canceling statement due to user request")
	})
	a, b := r.client(), r.client()
	for _, c := range []*client{a, b} {
		c.query("SELECT 1")
		c.query("INSERT INTO t VALUES (1)")
		equal(t, "process", c.PID, ranOn)
	}
	await(t, "b's session waits for its client", func() bool { return r.session(b).running.Load() == nil })
	a.sendSQL("simple", "INSERT INTO t VALUES (2)")
	<-began
	must(t, b.Cancel()) // nothing of b runs
	must(t, a.Cancel())
	equal(t, "cancelled", a.ready(1), "E(ERROR 57014) Z(I)")
	equal(t, "its process", r.p().cancelledPID(), a.PID)
	must(t, a.Close())
	await(t, "a's connection to be given back", func() bool {
		for _, s := range r.srv.pool.Stats() {
			if s.Idle > 0 {
				return true
			}
		}
		return false
	})
	c := r.client()
	c.query("INSERT INTO t VALUES (1)")
	equal(t, "the next one's process", c.PID, ranOn)
}

// cancelled is closed when the node gets a cancel request for anybody.
func cancelled(b *backendPG) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		select {
		case got := <-b.n.Cancels:
			b.n.setCancelled(got.PID)
			close(done)
		case <-time.After(10 * time.Second):
		}
	}()
	return done
}

// setCancelled remembers who was cancelled.
func (n *fakePG) setCancelled(pid uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cancelled = pid
}

// cancelledPID is who was cancelled last.
func (n *fakePG) cancelledPID() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cancelled
}

// sees is which node answered.
func (c *client) sees(sql string) string {
	c.t.Helper()
	got := c.query(sql)
	_, rest, _ := strings.Cut(got, "D(")
	node, _, _ := strings.Cut(rest, ")")
	if node == "" {
		return got
	}
	return node
}

// sample plays one sample of the primary and of the nodes, which then have replayed all.
func (r *rig) sample(nodes ...*fakePG) uint64 {
	return r.mon.fence.Sampled(func(n uint64) {
		for _, node := range nodes {
			f := r.views[node].Live.Fresh()
			f.AsOf, f.Sample, f.Covered = n, n, n
			if f.Incarnation == 0 {
				f.Incarnation = 1
			}
			r.show(node, f)
		}
	})
}

// warm has clients open their connections to a standby, and samples twice: from then on the standbys are
// fresh as of the last sample.
func (r *rig) warm(clients ...*client) {
	for _, c := range clients {
		c.query("SELECT 1")
	}
	r.sample(r.a(), r.b())
	r.sample(r.a(), r.b())
}

// TestReadYourWrites: a session reads on a standby only what shows its own writes, at level session
// also only its own.
func TestReadYourWrites(t *testing.T) {
	for _, level := range []router.Consistency{router.ConsistencySession, router.ConsistencyApplication, router.ConsistencyEventual} {
		t.Run(ConsistencyName(level), func(t *testing.T) {
			r := newRig(t, withoutB, withTarget(func(t *Target) {
				t.Consistency = level
				t.FreshnessWait = func(router.Consistency) time.Duration { return 0 }
			}))
			writer, reader := r.client(), r.client()
			r.warm(writer, reader)
			equal(t, "before", reader.sees("SELECT 1"), "standby-a")
			writer.query("INSERT INTO t VALUES (1)")
			want := map[router.Consistency][2]string{
				router.ConsistencySession: {"primary", "standby-a"}, router.ConsistencyApplication: {"primary", "primary"},
				router.ConsistencyEventual: {"standby-a", "standby-a"},
			}[level]
			r.change(r.a(), func(v *health.Node) {})
			equal(t, "writer", writer.sees("SELECT 1"), want[0])
			equal(t, "reader", reader.sees("SELECT 1"), want[1])
			r.sample(r.a())
			r.sample(r.a())
			equal(t, "writer, after a sample", writer.sees("SELECT 1"), "standby-a")
			equal(t, "reader, after a sample", reader.sees("SELECT 1"), "standby-a")
		})
	}
}

// TestWriteMarkOfFlushedBatch: what a flushed batch wrote is acknowledged at its Sync, and marked there.
func TestWriteMarkOfFlushedBatch(t *testing.T) {
	r := newRig(t, withoutB, withTarget(func(t *Target) {
		t.Consistency = router.ConsistencyApplication
		t.FreshnessWait = func(router.Consistency) time.Duration { return 0 }
	}))
	writer, reader := r.client(), r.client()
	r.warm(writer, reader)
	equal(t, "before", reader.sees("SELECT 1"), "standby-a")
	writer.send(pgtest.Parse("", "INSERT INTO t VALUES (1)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Flush())
	writer.until('C')
	r.sample(r.a())
	r.sample(r.a()) // shows nothing of it: it is not committed yet
	writer.send(pgtest.Sync())
	equal(t, "committed", writer.ready(1), "Z(I)")
	equal(t, "reader", reader.sees("SELECT 1"), "primary")
}

// TestSessionStatementsLeaveNoMark: SET and its kin do not make a standby stale for the session.
func TestSessionStatementsLeaveNoMark(t *testing.T) {
	r := newRig(t, withoutB, withTarget(func(t *Target) { t.FreshnessWait = func(router.Consistency) time.Duration { return 0 } }))
	c := r.client()
	r.warm(c)
	c.query("SET work_mem TO '8MB'")
	c.query("RESET ALL")
	c.run(pgtest.Parse("", "SET work_mem TO '9MB'"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "read", c.sees("SELECT 1"), "standby-a")
}

// TestLastRead: a session may go on reading where it read last; another node must show as much, and so
// must the same one after its incarnation changed.
func TestLastRead(t *testing.T) {
	r := newRig(t, withTarget(func(t *Target) { t.FreshnessWait = func(router.Consistency) time.Duration { return 0 } }))
	c := r.client()
	r.warm(c)
	first := c.sees("SELECT 1")
	for range 5 {
		equal(t, "again", c.sees("SELECT 1"), first)
	}
	node, other := r.a(), r.b()
	if first == "standby-b" {
		node, other = other, node
	}
	f := r.views[node].Live.Fresh()
	f.Incarnation++
	r.show(node, f)
	if got := c.sees("SELECT 1"); got != "primary" {
		t.Errorf("after a crash of %s: %s", first, got)
	}
	r.sample(other)
	c.query("SELECT 1") // opens the connection, which the next sample vouches for
	r.sample(other)
	equal(t, "the other one is fresh", c.sees("SELECT 1"), other.name)
	t.Log(c.query("SHOW pgweir.last_route"), r.mon.fence.Mark(), r.views[other].Live.Fresh(), r.views[node].Live.Fresh(), other.live())
}

// TestWaitForSample: a read waits for the sample that makes a standby fresh, then falls back.
func TestWaitForSample(t *testing.T) {
	r := newRig(t, withoutB, withTarget(func(t *Target) {
		t.FreshnessWait = func(router.Consistency) time.Duration { return 5 * time.Second }
	}))
	c := r.client()
	c.query("SELECT 1")
	r.stale(r.a())
	c.send(pgtest.Query("SELECT 2"))
	c.silent()
	r.mon.fence.Sampled(func(uint64) {
		r.show(r.a(), health.Freshness{AsOf: ahead, Sample: ahead, Covered: ahead, Incarnation: 1})
	})
	equal(t, "released", c.ready(1), "T D(standby-a) C(SELECT 1) Z(I)")
	r.retarget(func(t *Target) {
		t.FreshnessWait = func(router.Consistency) time.Duration { return 5 * time.Millisecond }
	})
	second := r.client()
	r.stale(r.a())
	equal(t, "fallen back", second.sees("SELECT 1"), "primary")
}

// TestOpenedLater: a connection that was opened after the sample is vouched for by the next one only.
func TestOpenedLater(t *testing.T) {
	r := newRig(t, withoutB)
	r.sample(r.a())
	c := r.client()
	r.mon.fence.Sampled(func(n uint64) {
		r.show(r.a(), health.Freshness{AsOf: ahead, Sample: n, Covered: ahead, Incarnation: 1})
	})
	c.send(pgtest.Query("SELECT 1"))
	await(t, "the connection is opened", func() bool { return r.a().live() == 1 })
	r.mon.fence.Sampled(nil)
	n := r.mon.fence.Sampled(func(n uint64) {
		r.show(r.a(), health.Freshness{AsOf: ahead, Sample: n, Covered: ahead, Incarnation: 1})
	})
	if got := c.ready(1); n == 0 || !strings.Contains(got, "SELECT 1") {
		t.Error(got)
	}
	equal(t, "ran once", len(strings.Fields(r.ran("SELECT 1"))), 1)
}

// TestReadsNeverOnPrimary: such a read is held until a standby is fresh, then 57P03.
func TestReadsNeverOnPrimary(t *testing.T) {
	r := newRig(t, withoutB, withTarget(func(t *Target) {
		t.OnPrimary, t.HoldTimeout = router.ReadsNever, 60*time.Millisecond
		t.FreshnessWait = func(router.Consistency) time.Duration { return 0 }
	}))
	c := r.client()
	r.stale(r.a())
	equal(t, "in vain", c.query("SELECT 1"), "E(ERROR 57P03 pgweir) Z(I)")
	r.retarget(func(t *Target) { t.HoldTimeout = 10 * time.Second })
	c = r.client()
	c.send(pgtest.Query("SELECT 1"))
	c.silent()
	r.mon.fence.Sampled(func(uint64) {
		r.show(r.a(), health.Freshness{AsOf: ahead, Sample: ahead, Covered: ahead, Incarnation: 1})
	})
	equal(t, "released", c.ready(1), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "writes go", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
}

// TestRouteModes: route, hints, offload, and the listener's route.
func TestRouteModes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *Target)
		want   string // SELECT 1; with a standby hint; with a primary hint; INSERT
	}{
		{"auto", func(*Target) {}, "standby-a standby-a primary primary"},
		{"primary", func(t *Target) { t.Route = router.RoutePrimary }, "primary standby-a primary primary"},
		{"shadow", func(t *Target) { t.Route = router.RouteShadow }, "primary primary primary primary"},
		{"standby", func(t *Target) { t.Route = router.RouteStandby }, "standby-a standby-a primary 25006"},
		{"a listener with standby", func(t *Target) { t.Route, t.ListenerRoute = router.RouteStandby, router.RouteStandby }, "standby-a standby-a standby-a 25006"},
		{"offload 0", func(t *Target) { t.Offload = 0 }, "primary standby-a primary primary"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, withoutB, withTarget(c.change))
			cl := r.client()
			var got []string
			for _, sql := range []string{"SELECT 1", "/* pgweir: standby */ SELECT 1", "/* pgweir: primary */ SELECT 1"} {
				got = append(got, cl.sees(sql))
			}
			switch answer := cl.query("INSERT INTO t VALUES (1)"); answer {
			case "C(INSERT 0 1) Z(I)":
				got = append(got, strings.TrimSuffix(r.ran("INSERT INTO t VALUES (1)"), "=1"))
			case "E(ERROR 25006 pgweir) Z(I)":
				got = append(got, "25006")
			default:
				got = append(got, answer)
			}
			equal(t, "where", strings.Join(got, " "), c.want)
			hot := "off"
			if strings.Contains(c.name, "standby") {
				hot = "on"
			}
			equal(t, "in_hot_standby", cl.Status["in_hot_standby"], hot)
		})
	}
}

// TestOwnSettings: SET and SHOW of pgweir.*, and what they say of the last statement.
func TestOwnSettings(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		r.forgetAll()
		show := func(name string) string {
			got := c.runs(protocol, "SHOW pgweir."+name)
			_, rest, _ := strings.Cut(got, "D(")
			return strings.TrimSuffix(rest, ") C(SHOW) Z(I)")
		}
		equal(t, "route", show("route"), "auto")
		c.runs(protocol, "SET pgweir.route = 'primary'")
		equal(t, "set", show("route"), "primary")
		equal(t, "obeyed", c.sees("SELECT 1"), "primary")
		equal(t, "last_route", show("last_route"), "primary primary · hint")
		c.runs(protocol, "RESET pgweir.route")
		equal(t, "reset", c.sees("SELECT 1"), "standby-a")
		equal(t, "last_route", strings.HasPrefix(show("last_route"), "standby standby-a · read"), true)
		c.runs(protocol, "SET pgweir.consistency = 'global'")
		equal(t, "consistency", show("consistency"), "global")
		equal(t, "wrong value", c.runs(protocol, "SET pgweir.consistency = 'x'"), "E(ERROR 22023 pgweir) Z(I)")
		equal(t, "unknown", c.runs(protocol, "SET pgweir.nothing = 'x'"), "E(ERROR 42704 pgweir) Z(I)")
		c.query("BEGIN")
		c.query("SET LOCAL pgweir.route = 'standby'")
		equal(t, "local", show("route") != "", true)
		c.query("ROLLBACK")
		equal(t, "over", show("route"), "auto")
	})
	t.Run("at startup", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client("options", "-c pgweir.route=primary -c work_mem=8MB")
		equal(t, "obeyed", c.sees("SELECT 1"), "primary")
		if got := r.p().last().Param("options"); strings.Contains(got, "pgweir") || !strings.Contains(got, "work_mem") {
			t.Errorf("the node's options: %q", got)
		}
		equal(t, "a wrong one", loginError(t, pgtest.ClientConfig{
			Addr: r.addr, User: "alice", Database: "app", Password: "secret", Params: []string{"options", "-c pgweir.route=x"},
		}), "E(FATAL 22023 pgweir)")
	})
}

// TestFailedByUs: an error of ours inside a transaction, or in a batch behind a write, fails the node's
// transaction as well, so that what was before is rolled back.
func TestFailedByUs(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		lead := ""
		if protocol == "extended" {
			lead = "1 2 "
		}
		r.forgetAll()
		c.runs(protocol, "BEGIN")
		c.runs(protocol, "INSERT INTO t VALUES (1)")
		equal(t, "ours", c.runs(protocol, "SET pgweir.consistency = 'x'"), "E(ERROR 22023 pgweir) Z(E)")
		if got := r.p().got(); !strings.HasSuffix(got, "B  "+reservedStatement+" | S") {
			t.Errorf("the node was not failed: %s", got)
		}
		equal(t, "aborted", strings.TrimPrefix(c.runs(protocol, "INSERT INTO t VALUES (2)"), "1 2 "), "E(ERROR 25P02) Z(E)")
		equal(t, "commit", c.runs(protocol, "COMMIT"), lead+"C(ROLLBACK) Z(I)")
	})
	t.Run("a batch behind a write", func(t *testing.T) {
		r := newRig(t, withoutB)
		c := r.client()
		c.send(pgtest.Parse("", "INSERT INTO t VALUES (1)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Flush())
		c.until('C')
		r.forgetAll()
		c.send(pgtest.Parse("", "SET pgweir.route = 'nowhere'"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
		if got := c.ready(1); strings.Contains(got, "C(INSERT") {
			t.Error(got)
		}
	})
}

// TestFullPool: who gets no connection in time is told so, and may try again.
func TestFullPool(t *testing.T) {
	r := newRig(t, alone, withPools(func(l *pool.Limits) { l.Size = 1 }), withTarget(func(t *Target) { t.WaitTimeout = 40 * time.Millisecond }))
	first := r.client()
	second := r.client()
	equal(t, "full", second.query("INSERT INTO t VALUES (1)"), "E(ERROR 53300 pgweir) Z(I)")
	first.send(pgtest.Terminate())
	first.end()
	await(t, "the connection is free", func() bool { return second.query("INSERT INTO t VALUES (2)") == "C(INSERT 0 1) Z(I)" })
}

// TestDrain: a stopping server lets transactions come to their end, and says goodbye.
func TestDrain(t *testing.T) {
	r := newRig(t, withoutB)
	idle, busy := r.client(), r.client()
	busy.query("BEGIN")
	busy.query("INSERT INTO t VALUES (1)")
	r.stop()
	equal(t, "idle", idle.end(), "E(FATAL 57P01 pgweir)")
	equal(t, "in a transaction", busy.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(T)")
	equal(t, "its end", busy.query("COMMIT"), "C(COMMIT) Z(I)")
	equal(t, "then", busy.end(), "E(FATAL 57P01 pgweir)")
}

// TestDrainDuringCopy: a COPY that the client is in the middle of when the server stops goes on to its end, and then the session ends.
func TestDrainDuringCopy(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.send(pgtest.Query("COPY t FROM STDIN"))
	c.until('G')
	c.send(pgtest.CopyData("1\n"))
	r.stop()
	await(t, "the stop", r.srv.isDraining)
	c.silent()
	c.send(pgtest.CopyData("2\n"), pgtest.CopyDone())
	equal(t, "its end", c.ready(1), "C(COPY 2) Z(I)")
	equal(t, "then", c.end(), "E(FATAL 57P01 pgweir)")
}

// TestCatalogAfterDDL: DDL has the view read again, and is not trusted until that has happened.
func TestCatalogAfterDDL(t *testing.T) {
	r := newRig(t)
	c := r.client()
	before := r.reads.Load()
	c.query("CREATE TABLE x (a int)")
	await(t, "the view is read again", func() bool { return r.reads.Load() > before })
	if r.cluster.MarksOf("app").ddl.Load() == 0 {
		t.Error("nobody remembers the DDL")
	}
}
