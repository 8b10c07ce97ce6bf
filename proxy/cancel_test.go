package proxy

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/internal/pgtest"
	"pgweir/router"
)

// TestCancel: a cancel reaches the statement that runs for that client, or nothing.
func TestCancel(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		c.query("INSERT INTO t VALUES (1)")
		pid := r.p().last().PID
		began := make(chan struct{})
		wait := func(b *backendPG) error {
			close(began)
			if err := b.StallUntil(cancelled(b)); err != nil {
				return err
			}
			return b.error("57014", "canceling statement due to user request")
		}
		r.p().on("INSERT INTO t VALUES (2)", wait)
		c.sendSQL(protocol, "INSERT INTO t VALUES (2)")
		<-began
		foreign := *c.RawClient
		foreign.Secret = []byte{1, 2, 3, 4}
		must(t, foreign.Cancel())
		must(t, c.Cancel())
		got := c.ready(1)
		equal(t, "cancelled", strings.TrimPrefix(got, "1 2 "), "E(ERROR 57014) Z(I)")
		equal(t, "its backend", r.p().cancelledPID(), pid)
		await(t, "the session waits for its client", func() bool { return r.session(c).running.Load() == nil })
		must(t, c.Cancel())
		equal(t, "nothing runs", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
		equal(t, "no cancel reached a node", len(r.p().Cancels)+len(r.a().Cancels), 0)
		if c.PID <= 4_194_304 || c.PID >= 1<<31 || c.PID>>22 != 8 {
			t.Errorf("pid %d", c.PID)
		}
	})
}

// TestCancelWhileHeld: a statement that waits for a node is cancelled there; a cancel that came before it
// waited is not for it.
func TestCancelWhileHeld(t *testing.T) {
	r := newRig(t, withoutB, withTarget(func(t *Target) {
		t.FreshnessWait = func(router.Consistency) time.Duration { return 50 * time.Millisecond }
	}))
	c := r.client()
	r.kill(r.p())
	must(t, c.Cancel())
	c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
	r.held(1)
	c.silent()
	must(t, c.Cancel())
	equal(t, "held", c.ready(1), "E(ERROR 57014 pgweir) Z(I)")
	r.promote(r.b())
	equal(t, "never sent", r.ran("INSERT INTO t VALUES (1)"), "never")
	r.stale(r.a())
	must(t, c.Cancel())
	equal(t, "a late one, and a read that waits for a sample", c.query("SELECT 1"), "T D(standby-b) C(SELECT 1) Z(I)")
}

// TestCancelOnTheWay: a cancel that comes while a connection is prepared for a statement is for the statement.
func TestCancelOnTheWay(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB, pooled(1))
		a, b := r.client(), r.client()
		a.query("SET work_mem TO '9MB'")
		for _, tx := range []bool{false, true} {
			b.query("INSERT INTO t VALUES (1)")
			began, finish := r.p().stalls(`SET "work_mem" TO '9MB'`, func(b *backendPG) error {
				b.say(pgtest.CommandComplete("SET"))
				return nil
			})
			want := "E(ERROR 57014 pgweir) Z(I)"
			if tx {
				a.query("BEGIN")
				want = "E(ERROR 57014 pgweir) Z(E)"
			}
			a.sendSQL(protocol, "INSERT INTO t VALUES (2)")
			<-began
			must(t, a.Cancel())
			close(finish)
			equal(t, "cancelled", a.ready(1), want)
			equal(t, "sent", r.ran("INSERT INTO t VALUES (2)"), "never")
			if tx {
				equal(t, "the transaction", a.query("COMMIT"), "C(ROLLBACK) Z(I)")
			}
			equal(t, "the next one", a.query("INSERT INTO t VALUES (3)"), "C(INSERT 0 1) Z(I)")
		}
	})
}

// TestCancelOnTheWayToAHold: a cancel that comes while a connection is prepared for a statement, which dies of it, ends the wait
// for a primary that follows.
func TestCancelOnTheWayToAHold(t *testing.T) {
	r := newRig(t, withoutB, pooled(1))
	a, b := r.client(), r.client()
	a.query("SET work_mem TO '9MB'")
	b.query("INSERT INTO t VALUES (1)")
	began, finish := r.p().stalls(`SET "work_mem" TO '9MB'`, (*backendPG).die)
	a.sendSQL("simple", "INSERT INTO t VALUES (2)")
	<-began
	must(t, a.Cancel())
	r.kill(r.p())
	close(finish)
	equal(t, "cancelled", a.ready(1), "E(ERROR 57014 pgweir) Z(I)")
	equal(t, "sent", r.ran("INSERT INTO t VALUES (2)"), "never")
}

// TestCancelBeforeBegin: a cancel that came while a deferred BEGIN waited for its time does not keep it from the node.
func TestCancelBeforeBegin(t *testing.T) {
	r := newRig(t, alone, pooled(1), withTarget(func(x *Target) { x.BeginDefer, x.WaitTimeout = 200*time.Millisecond, 0 }))
	a, b := r.client(), r.client()
	b.query("BEGIN")
	b.query("INSERT INTO t VALUES (1)")
	a.query("BEGIN")
	must(t, a.Cancel())
	await(t, "the BEGIN in line", func() bool { return r.srv.pool.Stats()[0].Waiting == 1 })
	b.query("COMMIT")
	await(t, "the transaction", func() bool { return strings.HasSuffix(r.p().got(), "Q BEGIN") })
	equal(t, "goes on", a.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(T)")
}

// TestCancelKeys: protocol 3.2 gets longer secrets.
func TestCancelKeys(t *testing.T) {
	r := newRig(t)
	equal(t, "3.0", len(r.client().Secret), 4)
	equal(t, "3.2", len(r.connect(pgtest.ClientConfig{Minor: 2}).Secret), 32)
	table := newKeyTable(maxProcess)
	s := &session{}
	table.register(s, true)
	if s.pid.Load() <= firstPID || s.pid.Load() >= 1<<31 || len(s.secret) != 32 {
		t.Errorf("pid %d, secret of %d bytes", s.pid.Load(), len(s.secret))
	}
	equal(t, "found", table.find(s.pid.Load(), s.secret) == s, true)
	equal(t, "a prefix of the secret", table.find(s.pid.Load(), s.secret[:4]) == nil, true)
	equal(t, "another pid", table.find(s.pid.Load()+1, s.secret) == nil, true)
	table.unregister(s)
	equal(t, "gone", table.find(s.pid.Load(), s.secret) == nil, true)
}

// TestCancelUnderWay: what runs next on a connection waits for a cancel that is still on its way to it.
func TestCancelUnderWay(t *testing.T) {
	gate, dialled := make(chan struct{}), make(chan struct{})
	var slow atomic.Bool
	r := newRig(t, withoutB, func(r *rig) {
		plain := r.dial
		r.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if slow.Load() {
				close(dialled)
				<-gate
			}
			return plain(ctx, network, addr)
		}
	})
	c := r.client()
	c.query("INSERT INTO t VALUES (1)")
	began, finish := r.p().stalls("INSERT INTO t VALUES (2)", func(b *backendPG) error {
		b.say(pgtest.CommandComplete("INSERT 0 1"))
		return nil
	})
	c.send(pgtest.Query("INSERT INTO t VALUES (2)"))
	<-began
	slow.Store(true)
	cancelled := make(chan error)
	go func() { cancelled <- c.Cancel() }()
	<-dialled
	slow.Store(false)
	close(finish)
	equal(t, "finished before", c.ready(1), "C(INSERT 0 1) Z(I)")
	c.send(pgtest.Query("INSERT INTO t VALUES (3)"))
	c.silent()
	equal(t, "the next one waits", r.ran("INSERT INTO t VALUES (3)"), "never")
	close(gate)
	must(t, <-cancelled)
	equal(t, "then it runs", c.ready(1), "C(INSERT 0 1) Z(I)")
	equal(t, "one cancel", len(r.p().Cancels), 1)
}

// TestCancelOfAnotherTurn: on a connection that sessions share in turns a cancel hits nobody but the session that it is for: one
// that comes late nobody, and while one is under way the next session waits.
func TestCancelOfAnotherTurn(t *testing.T) {
	gate, dialled := make(chan struct{}), make(chan struct{})
	var slow atomic.Bool
	r := newRig(t, alone, pooled(1), withTarget(func(t *Target) { t.WaitTimeout = time.Hour }), func(r *rig) {
		plain := r.dial
		r.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if slow.Load() {
				close(dialled)
				<-gate
			}
			return plain(ctx, network, addr)
		}
	})
	a, b := r.client(), r.client()
	began, finish := make(chan struct{}, 2), make(chan struct{})
	r.p().on("INSERT INTO t VALUES (2)", func(b *backendPG) error {
		began <- struct{}{}
		if err := b.StallUntil(finish); err != nil {
			return err
		}
		b.say(pgtest.CommandComplete("INSERT 0 1"))
		return nil
	})
	equal(t, "a's turn", a.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
	b.send(pgtest.Query("INSERT INTO t VALUES (2)"))
	<-began
	must(t, a.Cancel())
	close(finish)
	equal(t, "b's turn, and a late cancel of a's", b.ready(1), "C(INSERT 0 1) Z(I)")
	equal(t, "cancels at the node", len(r.p().Cancels), 0)

	finish = make(chan struct{})
	a.send(pgtest.Query("INSERT INTO t VALUES (2)"))
	<-began
	slow.Store(true)
	sent := make(chan error)
	go func() { sent <- a.Cancel() }()
	<-dialled
	slow.Store(false)
	close(finish)
	equal(t, "finished before the cancel came", a.ready(1), "C(INSERT 0 1) Z(I)")
	b.send(pgtest.Query("INSERT INTO t VALUES (3)"))
	r.waiting(1)
	equal(t, "b waits until it has come", r.ran("INSERT INTO t VALUES (3)"), "never")
	close(gate)
	must(t, <-sent)
	equal(t, "b's turn", b.ready(1), "C(INSERT 0 1) Z(I)")
	equal(t, "cancels at the node", len(r.p().Cancels), 1)
}
