package proxy

import (
	"strings"
	"testing"
	"time"

	"pgweir/internal/pgtest"
	"pgweir/proxy/pool"
)

// fullPool is a rig whose only connection to the primary a client holds in a transaction, and that client.
func fullPool(t *testing.T, options ...rigOption) (*rig, *client) {
	t.Helper()
	r := newRig(t, append([]rigOption{alone, pooled(1)}, options...)...)
	holder := r.client()
	holder.query("BEGIN")
	holder.query("INSERT INTO t VALUES (1)")
	return r, holder
}

// waiting waits until a session stands in the queue of a pool.
func (r *rig) waiting(n int) {
	r.t.Helper()
	await(r.t, "sessions wait for a connection", func() bool {
		sum := 0
		for _, s := range r.cfg.Pool.Stats() {
			sum += s.Waiting
		}
		return sum == n
	})
}

// TestWaitForConnection: what ends the wait for a connection of a full pool, and what the client hears.
func TestWaitForConnection(t *testing.T) {
	long := withTarget(func(target *Target) { target.WaitTimeout = time.Hour })
	t.Run("its turn", func(t *testing.T) {
		r, holder := fullPool(t, long)
		c := r.client()
		c.send(pgtest.Query("INSERT INTO t VALUES (2)"))
		r.waiting(1)
		holder.query("COMMIT")
		equal(t, "served", c.ready(1), "C(INSERT 0 1) Z(I)")
	})
	t.Run("query_wait_timeout", func(t *testing.T) {
		r, holder := fullPool(t, withTarget(func(target *Target) { target.WaitTimeout = 30 * time.Millisecond }))
		c := r.client()
		equal(t, "told", c.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
		holder.query("COMMIT")
		equal(t, "afterwards", c.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
	})
	t.Run("statement_timeout", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), long)
		holder, c := r.client(), r.client()
		c.query("SET statement_timeout TO '30ms'")
		holder.query("BEGIN")
		holder.query("INSERT INTO t VALUES (1)")
		equal(t, "told", c.query("INSERT INTO t VALUES (2)"), "E(ERROR 57014 pgweir) Z(I)")
	})
	t.Run("cancel", func(t *testing.T) {
		r, holder := fullPool(t, long)
		c := r.client()
		for range 2 {
			c.send(pgtest.Query("INSERT INTO t VALUES (2)"))
			r.waiting(1)
			must(t, c.Cancel())
			equal(t, "told", c.ready(1), "E(ERROR 57014 pgweir) Z(I)")
			r.waiting(0)
		}
		holder.query("COMMIT")
		equal(t, "afterwards", c.query("INSERT INTO t VALUES (3)"), "C(INSERT 0 1) Z(I)")
		equal(t, "what was cancelled", r.ran("INSERT INTO t VALUES (2)"), "never")
	})
	t.Run("query_wait_notify", func(t *testing.T) {
		notify := withTarget(func(target *Target) { target.WaitNotify = time.Millisecond })
		r, holder := fullPool(t, long, notify)
		c := r.client()
		c.send(pgtest.Query("INSERT INTO t VALUES (2)"))
		if got := c.until('N'); !strings.Contains(got, "NOTICE") {
			t.Error(got)
		}
		r.waiting(1)
		holder.query("COMMIT")
		equal(t, "served", c.ready(1), "C(INSERT 0 1) Z(I)")
		quiet := r.client()
		quiet.query("SET client_min_messages TO Warning")
		holder.query("BEGIN")
		holder.query("INSERT INTO t VALUES (1)")
		quiet.send(pgtest.Query("INSERT INTO t VALUES (3)"))
		r.waiting(1)
		time.AfterFunc(20*time.Millisecond, func() { holder.send(pgtest.Query("COMMIT")) })
		equal(t, "without a notice", quiet.ready(1), "C(INSERT 0 1) Z(I)")
		holder.ready(1)
	})
}

// TestNodeWithoutRoom: a node that has no connection to spare costs a statement, not the session; one that the pool has is
// waited for.
func TestNodeWithoutRoom(t *testing.T) {
	r := newRig(t, alone, pooled(5), withPools(func(l *pool.Limits) { l.LoginRetry = time.Hour }),
		withTarget(func(target *Target) { target.WaitTimeout = time.Hour }))
	a, b := r.client(), r.client()
	a.query("INSERT INTO t VALUES (1)")
	a.query("BEGIN")
	a.query("INSERT INTO t VALUES (2)")
	r.p().onStartup(func(b *backendPG) error {
		return b.Send(pgtest.Error("FATAL", "53300", "sorry, too many clients already"))
	})
	b.send(pgtest.Query("INSERT INTO t VALUES (3)"))
	r.waiting(1)
	a.query("COMMIT")
	equal(t, "waited", b.ready(1), "C(INSERT 0 1) Z(I)")
	r.cfg.Pool.CloseNode("main", 1)
	equal(t, "no connection at all", b.query("INSERT INTO t VALUES (4)"), "E(ERROR 53300 pgweir) Z(I)")
	r.p().onStartup(nil)
	equal(t, "not asked again so soon", b.query("INSERT INTO t VALUES (4)"), "E(ERROR 53300 pgweir) Z(I)")
}
