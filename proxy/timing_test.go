package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/health"
	"pgweir/internal/pgtest"
)

// soon is a limit of time that a test waits for.
const soon = 40 * time.Millisecond

// limited gives sessions limits of time.
func limited(times Times) rigOption { return withTarget(func(t *Target) { t.Times = times }) }

// stalls has the primary never answer a text; what is received says that it runs.
func (r *rig) stalls(sql string) <-chan *backendPG {
	began := make(chan *backendPG, 10)
	r.p().on(sql, func(b *backendPG) error {
		began <- b
		if err := b.flush(); err != nil {
			return err
		}
		return b.Swallow() // until the proxy closes the connection
	})
	return began
}

// closes is how many clients of the rig a limit has disconnected, by both ways of asking.
func (r *rig) closes(l timeLimit) int64 {
	r.t.Helper()
	for _, c := range r.cluster.Closed() {
		if c.Limit == l.String() {
			equal(r.t, "metric", counter(r.cluster.metrics.closed[l]), float64(c.Clients))
			return c.Clients
		}
	}
	r.t.Fatalf("nobody counts %s", l)
	return 0
}

// gone waits until the primary has no connection any more.
func (r *rig) gone() {
	r.t.Helper()
	await(r.t, "the connection to the node is closed", func() bool { return r.p().live() == 0 })
}

// TestTimesPause: how often sessions are looked at.
func TestTimesPause(t *testing.T) {
	for _, c := range []struct {
		times Times
		want  time.Duration
	}{
		{Times{}, never},
		{Times{Query: time.Hour}, time.Second},
		{Times{Query: time.Hour, Idle: 2 * time.Second}, 500 * time.Millisecond},
		{Times{Life: time.Millisecond}, 10 * time.Millisecond},
		{Times{Transaction: 400 * time.Millisecond, IdleTransaction: 800 * time.Millisecond}, 100 * time.Millisecond},
	} {
		equal(t, fmt.Sprint(c.times), c.times.pause(), c.want)
	}
}

// TestJudge: which limit a session is over, to the nanosecond, and which do not count in what it does.
func TestJudge(t *testing.T) {
	const begin = 1 << 20
	all := Times{Query: 100, Transaction: 300, IdleTransaction: 200, Idle: 400}
	for _, c := range []struct {
		name      string
		times     Times
		does      uint64
		tx        int64 // since when a transaction is open
		waits     bool
		got       int64 // when a connection was got
		last, hit int64 // the last moment without a limit, and the first with one
		want      timeLimit
	}{
		{name: "a statement", times: all, does: doesRun, last: 100, hit: 101, want: limitQuery},
		{name: "a statement that waits", times: all, does: doesRun, waits: true, last: 100, hit: 101, want: limitQuery},
		{name: "a statement is a transaction", times: Times{Transaction: 300}, does: doesRun, last: 300, hit: 301, want: limitTransaction},
		{name: "not while it waits", times: Times{Transaction: 300}, does: doesRun, waits: true, last: 1 << 40},
		{name: "from when it has a connection", times: Times{Transaction: 300}, does: doesRun, got: begin + 1000, last: 1300, hit: 1301, want: limitTransaction},
		{name: "an old wait", times: Times{Transaction: 300}, does: doesRun, got: begin - 1000, last: 300, hit: 301, want: limitTransaction},
		{name: "a statement in a transaction", times: Times{Query: 100, Transaction: 300}, does: doesRun, tx: begin - 250, last: 50, hit: 51, want: limitTransaction},
		{name: "both: the statement's", times: Times{Query: 50, Transaction: 300}, does: doesRun, tx: begin - 250, last: 50, hit: 51, want: limitQuery},
		{name: "a transaction that waits", times: Times{Transaction: 300}, does: doesRun, tx: begin - 250, waits: true, last: 50, hit: 51, want: limitTransaction},
		{name: "idle in a transaction", times: all, does: doesIdleTx, tx: begin - 10, last: 200, hit: 201, want: limitIdleTransaction},
		{name: "a transaction that is idle", times: Times{Transaction: 300, Query: 1, Idle: 1}, does: doesIdleTx, tx: begin - 10, last: 290, hit: 291, want: limitTransaction},
		{name: "idle", times: all, does: doesIdle, last: 400, hit: 401, want: limitIdle},
		{name: "idle, other limits", times: Times{Query: 1, Transaction: 1, IdleTransaction: 1}, does: doesIdle, last: 1 << 40},
		{name: "not begun", times: all, does: doesNothing, last: 1 << 40},
		{name: "no limits", does: doesRun, tx: begin, last: 1 << 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &session{}
			s.timing.times.Store(&c.times)
			s.timing.tx.Store(c.tx)
			s.figures.got.Store(c.got)
			if c.waits {
				s.figures.waiting.Store(begin)
			}
			if got, _ := s.judge(begin|c.does, begin+c.last); got != limitNone {
				t.Errorf("over %s too early", got)
			}
			if c.hit > 0 {
				got, value := s.judge(begin|c.does, begin+c.hit)
				equal(t, "limit", got, c.want)
				equal(t, "value", value, c.times.each()[c.want])
			}
		})
	}
}

// TestVanished: the client of a statement that runs, or waits for its turn, is looked for; when it is gone the statement is
// cancelled and its connection is another's.
func TestVanished(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		for how, leave := range map[string]func(c *client) error{
			"broken off": func(c *client) error { return c.CloseHard() },
			"closed":     func(c *client) error { return c.CloseWrite() },
		} {
			t.Run(how, func(t *testing.T) {
				r := newRig(t, alone, pooled(1), limited(Times{Check: minPause}), withTarget(func(t *Target) { t.WaitTimeout = 10 * time.Second }))
				c, waits := r.client(), r.client()
				for _, c := range []*client{c, waits} {
					c.query("SET client_connection_check_interval TO '20ms'")
				}
				began := r.stalls("INSERT INTO t VALUES (1)")
				c.sendSQL(protocol, "INSERT INTO t VALUES (1)")
				b := <-began
				waits.sendSQL(protocol, "INSERT INTO t VALUES (3)")
				r.waiting(1)
				must(t, leave(waits))
				r.waiting(0)
				must(t, leave(c))
				equal(t, "cancelled", (<-r.p().Cancels).PID, b.PID)
				r.gone()
				equal(t, "the next one", r.client().query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
				equal(t, "the one that waited", r.p().ran("INSERT INTO t VALUES (3)"), 0)
			})
		}
	})
	r := newRig(t, alone, limited(Times{Check: time.Hour}))
	c := r.client()
	late := func() bool {
		_, gone := r.session(c).vanished(health.Clock() + int64(time.Minute))
		return gone
	}
	for setting, want := range map[string]bool{"'20ms'": true, "0": false} {
		c := r.client()
		c.query("SET client_connection_check_interval TO " + setting)
		began := r.stalls("INSERT INTO t VALUES (1)")
		c.sendSQL("simple", "INSERT INTO t VALUES (1)")
		<-began
		s := r.session(c)
		must(t, c.CloseWrite())
		await(t, "the end of the stream", s.client.Gone)
		_, gone := s.vanished(health.Clock() + int64(time.Minute))
		equal(t, "looked for with "+setting, gone, want)
	}
	equal(t, "an idle one", late(), false)
}

// TestQueryTimeout: whatever a statement is at, its client is told and its connection closed; what runs on a node is cancelled
// there, and the connection to it is never used again.
func TestQueryTimeout(t *testing.T) {
	const told = "E(FATAL 57014 pgweir)"
	short := Times{Query: soon}
	both(t, func(t *testing.T, protocol string) {
		t.Run("running", func(t *testing.T) {
			r := newRig(t, alone, pooled(1), limited(short))
			c := r.client()
			began := r.stalls("INSERT INTO t VALUES (1)")
			sent := time.Now()
			c.sendSQL(protocol, "INSERT INTO t VALUES (1)")
			b := <-began
			equal(t, "told", strings.TrimPrefix(c.end(), "1 2 "), told)
			if took := time.Since(sent); took < soon {
				t.Errorf("after %v", took)
			}
			equal(t, "cancelled", (<-r.p().Cancels).PID, b.PID)
			r.gone()
			equal(t, "counted", r.closes(limitQuery), 1)
			equal(t, "the node is not blamed", len(r.mon.voids()), 0)
			equal(t, "the next one", r.client().query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
		})
	})
	t.Run("in a transaction", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(short))
		c := r.client()
		began := r.stalls("INSERT INTO t VALUES (2)")
		c.run(pgtest.Query("BEGIN"))
		c.run(pgtest.Query("INSERT INTO t VALUES (1)"))
		c.send(pgtest.Query("INSERT INTO t VALUES (2)"))
		b := <-began
		equal(t, "told", c.end(), told)
		equal(t, "cancelled", (<-r.p().Cancels).PID, b.PID)
		r.gone()
	})
	t.Run("waiting for a connection", func(t *testing.T) {
		r, holder := fullPool(t, withTarget(func(target *Target) { target.WaitTimeout = time.Hour }))
		r.retarget(func(target *Target) { target.Times = short })
		c := r.client()
		c.send(pgtest.Query("INSERT INTO t VALUES (2)"))
		equal(t, "told", c.end(), told)
		r.waiting(0)
		equal(t, "the other", holder.query("COMMIT"), "C(COMMIT) Z(I)")
		equal(t, "never sent", r.ran("INSERT INTO t VALUES (2)"), "never")
	})
	t.Run("held for a primary", func(t *testing.T) {
		r := newRig(t, limited(short))
		c := r.client()
		r.kill(r.p())
		c.send(pgtest.Query("INSERT INTO t VALUES (2)"))
		equal(t, "told", c.end(), told)
		equal(t, "held", r.cluster.Held(), 0)
	})
	t.Run("a batch without an end", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(short))
		c := r.client()
		c.send(pgtest.Parse("", "INSERT INTO t VALUES (1)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Flush())
		equal(t, "told", c.end(), "1 2 C(INSERT 0 1) "+told)
		r.gone()
	})
	t.Run("a batch that is skipped", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(short))
		c := r.client()
		c.send(pgtest.Parse("", "SET pgweir.route TO nowhere"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Flush())
		if got := c.end(); !strings.HasSuffix(got, told) {
			t.Error(got)
		}
	})
	t.Run("COPY", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(short))
		c := r.client()
		c.send(pgtest.Query("COPY t FROM STDIN"))
		c.until('G')
		c.send(pgtest.CopyData("1\n"))
		equal(t, "told", c.end(), told)
		r.gone()
		equal(t, "no end of the data", strings.Contains(r.p().got()+" | ", "| c |"), false)
	})
	t.Run("what is not the client's", func(t *testing.T) {
		r := newRig(t, alone, pooled(2))
		a := r.client()
		alone := func() {
			t.Helper()
			await(t, "one connection, and it idle", func() bool { s := r.srv.pool.Stats()[0]; return s.Idle == 1 && s.Leased == 0 })
		}
		alone()
		a.query("SET work_mem TO '8MB'")
		alone()
		b := r.client()
		alone()
		b.query("BEGIN")
		b.query("INSERT INTO t VALUES (1)") // the only connection that has the setting
		r.stalls("SET work_mem TO '8MB'")
		r.stalls("SET \"work_mem\" TO '8MB'")
		r.retarget(func(target *Target) { target.Times = short })
		r.srv.Refresh(r.cfg.Admission)
		a.send(pgtest.Query("INSERT INTO t VALUES (2)"))
		equal(t, "told", a.end(), told)
		equal(t, "never sent", r.ran("INSERT INTO t VALUES (2)"), "never")
	})
	t.Run("within a message", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(short))
		c := r.client()
		r.p().on("SELECT 1", func(b *backendPG) error {
			b.say(pgtest.RowDescription("x"))
			if err := b.flush(); err != nil {
				return err
			}
			if err := b.SendRaw(frame('D', 1<<20, strings.Repeat("x", 100_000))); err != nil {
				return err
			}
			return b.Swallow()
		})
		c.send(pgtest.Query("SELECT 1"))
		_ = c.Conn().SetReadDeadline(time.Now().Add(10 * time.Second))
		got, err := io.ReadAll(c.Conn())
		must(t, err)
		if strings.Contains(string(got), "57014") || !strings.HasSuffix(string(got), "xxx") {
			t.Errorf("behind half a message: %q", got[max(0, len(got)-200):])
		}
		r.gone()
		equal(t, "counted", r.closes(limitQuery), 1)
	})
	t.Run("a client that does not read", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(short))
		c := r.client()
		r.p().on("SELECT 1", func(b *backendPG) error {
			b.say(pgtest.RowDescription("x"))
			for {
				b.say(pgtest.DataRow(strings.Repeat("x", 10_000)))
				if err := b.flush(); err != nil {
					return err
				}
			}
		})
		c.send(pgtest.Query("SELECT 1"))
		r.gone()
		await(t, "the session has ended", func() bool { return r.srv.Sessions() == 0 })
		equal(t, "counted", r.closes(limitQuery), 1)
	})
}

// TestTransactionTimeout: a transaction is ended in what it is at, one whose BEGIN no node has heard of too.
func TestTransactionTimeout(t *testing.T) {
	const told = "E(FATAL 25P04 pgweir)"
	short := limited(Times{Transaction: soon, Query: time.Hour, IdleTransaction: time.Hour})
	t.Run("idle", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), short)
		c := r.client()
		c.query("BEGIN")
		c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		equal(t, "told", c.end(), "C(INSERT 0 1) Z(T) "+told)
		r.gone()
		equal(t, "counted", r.closes(limitTransaction), 1)
	})
	t.Run("a statement of it", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), short)
		c := r.client()
		began := r.stalls("INSERT INTO t VALUES (1)")
		c.query("BEGIN")
		c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		b := <-began
		equal(t, "told", c.end(), told)
		equal(t, "cancelled", (<-r.p().Cancels).PID, b.PID)
	})
	t.Run("a statement alone", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), short)
		c := r.client()
		began := r.stalls("INSERT INTO t VALUES (1)")
		c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		b := <-began
		equal(t, "told", c.end(), told)
		equal(t, "cancelled", (<-r.p().Cancels).PID, b.PID)
	})
	t.Run("nothing but BEGIN", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), short)
		c := r.client()
		c.send(pgtest.Query("BEGIN"))
		equal(t, "told", c.end(), "C(BEGIN) Z(T) "+told)
	})
	t.Run("one after the other", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(Times{Transaction: time.Hour}))
		c := r.client()
		for range 3 {
			c.query("BEGIN")
			c.query("INSERT INTO t VALUES (1)")
			open := &r.session(c).timing.tx
			await(t, "the transaction is open", func() bool { return open.Load() != 0 })
			c.query("COMMIT")
			await(t, "and over", func() bool { return open.Load() == 0 })
		}
	})
}

// TestIdleTransactionTimeout: an open transaction ends when its client is silent, a failed one too.
func TestIdleTransactionTimeout(t *testing.T) {
	const told = "E(FATAL 25P03 pgweir)"
	for name, c := range map[string]struct {
		statements []string
		last       string
	}{
		"open":   {[]string{"BEGIN"}, "INSERT INTO t VALUES (1)"},
		"failed": {[]string{"BEGIN", "INSERT INTO t VALUES (1)"}, "SELECT 1/0"},
		"begun":  {nil, "BEGIN"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, alone, pooled(1), limited(Times{IdleTransaction: soon, Query: time.Hour, Idle: time.Hour}))
			r.p().on("SELECT 1/0", func(b *backendPG) error { return b.error("22012", "division by zero") })
			client := r.client()
			for _, sql := range c.statements {
				client.query(sql)
			}
			client.send(pgtest.Query(c.last))
			if got := client.end(); !strings.HasSuffix(got, " "+told) || strings.Count(got, "E(FATAL") != 1 {
				t.Error(got)
			}
			if len(c.statements) > 0 {
				r.gone()
			}
			equal(t, "counted", r.closes(limitIdleTransaction), 1)
		})
	}
}

// TestClientIdleTimeout: a client that is silent outside of a transaction leaves, with or without a connection of its own; one
// within a transaction stays.
func TestClientIdleTimeout(t *testing.T) {
	const told = "E(FATAL 57P05 pgweir)"
	idle := limited(Times{Idle: soon})
	t.Run("at once", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), idle)
		equal(t, "told", r.client().end(), told)
		equal(t, "counted", r.closes(limitIdle), 1)
	})
	t.Run("after a statement", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), idle)
		c := r.client()
		c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		equal(t, "told", c.end(), "C(INSERT 0 1) Z(I) "+told)
		equal(t, "the connection stays in the pool", r.p().live(), 1)
	})
	t.Run("with a connection of its own", func(t *testing.T) {
		r := newRig(t, alone, idle)
		c := r.client()
		c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		equal(t, "told", c.end(), "C(INSERT 0 1) Z(I) "+told)
	})
	t.Run("not in a transaction", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(Times{Idle: time.Hour}))
		c := r.client()
		c.query("BEGIN")
		s := r.session(c)
		await(t, "it is idle in its transaction", func() bool { return s.timing.word.Load()&doesMask == doesIdleTx })
		got, _ := s.look(health.Clock() + int64(2*time.Hour))
		equal(t, "limit", got, limitNone)
		equal(t, "goes on", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(T)")
	})
}

// TestClientLifetime: an old client leaves when it is idle outside of a transaction, and not before.
func TestClientLifetime(t *testing.T) {
	const told = "E(FATAL 57P01 pgweir)"
	t.Run("idle", func(t *testing.T) {
		r := newRig(t, alone, pooled(1), limited(Times{Life: soon}))
		equal(t, "told", r.client().end(), told)
		equal(t, "counted", r.closes(limitLife), 1)
	})
	t.Run("pinned", func(t *testing.T) {
		r := newRig(t, alone, pooled(1))
		c := r.client()
		c.query("LISTEN x")
		r.retarget(func(target *Target) { target.Times = Times{Life: time.Nanosecond} })
		r.srv.Refresh(r.cfg.Admission)
		equal(t, "told", c.end(), told)
	})
	t.Run("at the end of its transaction", func(t *testing.T) {
		r := newRig(t, alone, pooled(1))
		c := r.client()
		c.query("BEGIN")
		r.retarget(func(target *Target) { target.Times = Times{Life: time.Nanosecond} })
		r.srv.Refresh(r.cfg.Admission)
		s := r.session(c)
		await(t, "it is to leave", func() bool { return s.timing.word.Load()&bitLeave != 0 })
		equal(t, "not yet", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(T)")
		c.send(pgtest.Query("COMMIT"))
		equal(t, "now", c.end(), "C(COMMIT) Z(I) "+told)
		equal(t, "counted", r.closes(limitLife), 1)
		equal(t, "the connection stays in the pool", r.p().live(), 1)
	})
	t.Run("a busy one", func(t *testing.T) {
		r := newRig(t, alone, pooled(1))
		began := make(chan struct{})
		resume := make(chan struct{})
		r.p().on("INSERT INTO t VALUES (1)", func(b *backendPG) error {
			close(began)
			<-resume
			return b.usual(&portalPG{sql: "INSERT INTO t VALUES (1)"})
		})
		c := r.client()
		c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		<-began
		r.retarget(func(target *Target) { target.Times = Times{Life: time.Nanosecond} })
		r.srv.Refresh(r.cfg.Admission)
		s := r.session(c)
		await(t, "it is to leave", func() bool { return s.timing.word.Load()&bitLeave != 0 })
		close(resume)
		equal(t, "at its next idle moment", c.end(), "C(INSERT 0 1) Z(I) "+told)
		equal(t, "counted", r.closes(limitLife), 1)
	})
}

// TestTimesRefresh: a reload gives clients that are in other limits, wakes who slept, and takes limits away.
func TestTimesRefresh(t *testing.T) {
	var gone atomic.Bool // the database is not in the configuration any more
	r := newRig(t, alone, pooled(1), limited(Times{Idle: time.Hour}), withConfig(func(c *Config) {
		resolve := c.Resolve
		c.Resolve = func(listener int, database, user string) (*Target, error) {
			target, err := resolve(listener, database, user)
			if user == "bob" {
				target.Times = Times{}
			}
			if gone.Load() {
				err = io.EOF
			}
			return target, err
		}
	}))
	c, other := r.client(), r.connect(pgtest.ClientConfig{User: "bob"})
	kept := r.session(other)
	r.retarget(func(target *Target) { target.Times.Idle = soon })
	r.srv.Refresh(r.cfg.Admission)
	equal(t, "told", c.end(), "E(FATAL 57P05 pgweir)")
	equal(t, "the other's", *kept.timing.times.Load(), Times{})
	equal(t, "the other", other.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
	await(t, "nobody is looked at any more", func() bool { return r.srv.timekeeper.pause.Load() == int64(never) })

	r.retarget(func(target *Target) { target.Times = Times{Idle: time.Hour} })
	late := r.client()
	r.retarget(func(target *Target) { target.Times = Times{Idle: soon} })
	gone.Store(true)
	r.srv.Refresh(r.cfg.Admission)
	equal(t, "what held still holds", r.session(late).timing.times.Load().Idle, time.Hour)
}

// TestReloadWhileLoggingIn: limits that change between the look-up of a login and its end reach the session.
func TestReloadWhileLoggingIn(t *testing.T) {
	looked, reloaded := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := newRig(t, alone, pooled(1), withConfig(func(c *Config) {
		resolve := c.Resolve
		c.Resolve = func(listener int, database, user string) (*Target, error) {
			target, err := resolve(listener, database, user)
			once.Do(func() {
				close(looked)
				<-reloaded
			})
			return target, err
		}
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		<-looked
		r.retarget(func(target *Target) { target.Times = Times{Idle: soon} })
		r.srv.Refresh(r.cfg.Admission)
		close(reloaded)
	})
	equal(t, "told", r.client().end(), "E(FATAL 57P05 pgweir)")
	wg.Wait()
}

// TestAdmissionRefresh: a reload changes how many clients may come, and how long they may take; those that are in stay.
func TestAdmissionRefresh(t *testing.T) {
	r := newRig(t, alone, pooled(2), withConfig(func(c *Config) { c.MaxClients = 1 }))
	login := pgtest.ClientConfig{Addr: r.addr, User: "alice", Database: "app", Password: "secret"}
	a := r.client()
	equal(t, "one too many", loginError(t, login), "E(FATAL 53300 pgweir)")
	r.srv.Refresh(Admission{LoginTimeout: time.Minute, MaxClients: 2})
	b := r.client()
	r.srv.Refresh(Admission{LoginTimeout: time.Minute, MaxClients: 1})
	equal(t, "one too many again", loginError(t, login), "E(FATAL 53300 pgweir)")
	for _, c := range []*client{a, b} {
		equal(t, "those that are in", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
	}
	r.srv.Refresh(Admission{LoginTimeout: soon})
	conn, err := net.Dial("tcp", r.addr)
	must(t, err)
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = io.ReadAll(conn)
	must(t, err)
}

// TestClosedLease: a connection whose socket was closed in the moment in which its statement ended does not go back to its
// pool.
func TestClosedLease(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	c := r.client()
	c.query("BEGIN")
	c.query("INSERT INTO t VALUES (1)")
	s := r.session(c)
	await(t, "the session waits for its client", func() bool { return s.timing.word.Load()&doesMask == doesIdleTx })
	l := s.leases[slotPrimary]
	l.cancelling.Lock()
	l.closed = true
	l.cancelling.Unlock()
	equal(t, "the end", c.query("COMMIT"), "C(COMMIT) Z(I)")
	r.gone()
	equal(t, "the next", c.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
}

// TestLimitsHitWhatTheyMean: while statements take about as long as they may, a client is only ever ended for one that took
// too long, hears nothing else of it, and what it sends next is not run.
func TestLimitsHitWhatTheyMean(t *testing.T) {
	const limit = 12 * time.Millisecond
	r := newRig(t, alone, pooled(4), limited(Times{Query: limit}), withTarget(func(target *Target) { target.WaitTimeout = time.Hour }))
	const clients, statements = 4, 60
	var ended, answered atomic.Int64
	for k := range clients {
		for i := range statements {
			sql := fmt.Sprintf("INSERT INTO t VALUES (%d)", k*1000+i)
			takes := time.Duration(rand.Int64N(int64(2 * limit)))
			r.p().on(sql, func(b *backendPG) error {
				timer := time.NewTimer(takes)
				defer timer.Stop()
				<-timer.C
				return b.usual(&portalPG{sql: sql})
			})
		}
	}
	var wg sync.WaitGroup
	for k := range clients {
		wg.Go(func() {
			var c *pgtest.RawClient
			for i := range statements {
				if c == nil {
					var err error
					if c, err = pgtest.Connect(pgtest.ClientConfig{Addr: r.addr, User: "alice", Database: "app", Password: "secret", Timeout: 15 * time.Second}); err != nil {
						t.Error(err)
						return
					}
				}
				sql := fmt.Sprintf("INSERT INTO t VALUES (%d)", k*1000+i)
				sent := time.Now()
				if err := c.Send(pgtest.Query(sql)); err != nil {
					c = nil // it was ended behind its last answer
					continue
				}
				got, err := c.ReadUntil(func(m pgtest.Message) bool { return m.Type == 'Z' || m.Type == 'E' })
				took := time.Since(sent)
				switch said := short(got); {
				case said == "C(INSERT 0 1) Z(I)":
					answered.Add(1)
				case said == "E(FATAL 57014 pgweir)":
					if took < limit && r.ran(sql) != "never" {
						t.Errorf("%s was ended after %v", sql, took)
					}
					ended.Add(1)
					_ = c.Close()
					c = nil
				default:
					t.Errorf("%s: %q, %v", sql, said, err)
					_ = c.Close()
					c = nil
				}
			}
			if c != nil {
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	if ended.Load() == 0 || answered.Load() == 0 {
		t.Errorf("%d ended, %d answered", ended.Load(), answered.Load())
	}
	equal(t, "counted at least", r.closes(limitQuery) >= ended.Load(), true)
	equal(t, "the node is not blamed", len(r.mon.voids()), 0)
}
