package proxy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgweir/internal/pgtest"
	"pgweir/internal/pgwire"
)

// parking makes sessions give their goroutines up as soon as the timekeeper finds them idle.
func parking(r *rig) { r.target.Times.Park = 1 }

// running counts the goroutines that serve sessions.
func running() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "proxy.(*Server).goesOn(")
}

// awaitServed waits until n sessions are served by goroutines.
func awaitServed(t *testing.T, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d sessions with a goroutine", n), func() bool { return running() == n })
}

// TestParked: a silent session has no goroutine, and goes on as it was when its client speaks.
func TestParked(t *testing.T) {
	if !parks(t) {
		return
	}
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB, pooled(1), parking)
		a, b := r.client(), r.client()
		awaitServed(t, 0)
		for i := range 3 {
			a.runs(protocol, fmt.Sprintf("SET application_name TO 'a%d'", i))
			a.run(append([]pgtest.Message{pgtest.Parse(fmt.Sprint("s", i), "SELECT 1")}, bindExecute(fmt.Sprint("s", i))...)...)
			awaitServed(t, 0)
			b.runs(protocol, "SET application_name TO 'b'")
			awaitServed(t, 0)
			equal(t, "its statement", a.run(bindExecute("s0")...), "2 D(standby-a) C(SELECT 1) Z(I)")
			a.runs(protocol, "INSERT INTO t VALUES (1)")
			equal(t, "its setting", r.p().last().guc.get("application_name"), fmt.Sprint("a", i))
			awaitServed(t, 0)
		}
		a.query("BEGIN")
		a.query("INSERT INTO t VALUES (1)")
		b.query("SELECT 1")
		awaitServed(t, 1)
		equal(t, "the open transaction's end", a.query("COMMIT"), "C(COMMIT) Z(I)")
		awaitServed(t, 0)
	})
}

// parks says whether links can be parked on this system.
func parks(t *testing.T) bool {
	lot, err := pgwire.NewLot()
	must(t, err)
	defer func() { _ = lot.Close() }()
	return runtime.GOOS == "linux"
}

// TestParkedEnds: whatever ends a session that waits ends one that is parked.
func TestParkedEnds(t *testing.T) {
	if !parks(t) {
		return
	}
	limit := func(f func(*Times)) rigOption { return withTarget(func(t *Target) { f(&t.Times) }) }
	for _, c := range []struct {
		what string
		with rigOption
		do   func(r *rig, c *client)
		want string
	}{
		{"client_idle_timeout", limit(func(t *Times) { t.Idle = 300 * time.Millisecond }), func(*rig, *client) {}, "E(FATAL 57P05 pgweir)"},
		{"client_lifetime", limit(func(t *Times) { t.Life = 300 * time.Millisecond }), func(*rig, *client) {}, "E(FATAL 57P01 pgweir)"},
		{"an administrator", nil, func(r *rig, c *client) { must(t, r.srv.KillClient(t.Context(), c.PID)) }, "E(FATAL 57P01 pgweir)"},
		{"all of a database", nil, func(r *rig, _ *client) { must(t, r.srv.Kill(t.Context(), Names{Name: "app"})) }, "E(FATAL 57P01 pgweir)"},
		{"a shutdown", nil, func(r *rig, _ *client) { r.stop() }, "E(FATAL 57P01 pgweir)"},
		{"one at once", nil, func(r *rig, _ *client) { r.srv.Cut() }, "E(FATAL 57P01 pgweir)"},
	} {
		t.Run(c.what, func(t *testing.T) {
			options := []rigOption{withoutB, pooled(1), parking}
			if c.with != nil {
				options = append(options, c.with)
			}
			r := newRig(t, options...)
			x := r.client()
			awaitServed(t, 0)
			c.do(r, x)
			equal(t, "told", x.end(), c.want)
			await(t, "its end", func() bool { return r.srv.keys.count() == 0 })
		})
	}
	for what, leave := range map[string]func(c *client){
		"says goodbye": func(c *client) { c.send(pgtest.Message{Type: pgwire.MsgTerminate}); _ = c.Close() },
		"closes":       func(c *client) { _ = c.Close() },
	} {
		t.Run("the client "+what, func(t *testing.T) {
			r := newRig(t, withoutB, pooled(1), parking)
			c := r.client()
			awaitServed(t, 0)
			leave(c)
			await(t, "its end", func() bool { return r.srv.keys.count() == 0 })
		})
	}
}

// TestNotParked: a session that has to hear something but its client keeps its goroutine.
func TestNotParked(t *testing.T) {
	if !parks(t) {
		return
	}
	for what, sql := range map[string]string{
		"a transaction": "BEGIN; INSERT INTO t VALUES (1)", "a deferred BEGIN": "BEGIN", "LISTEN": "LISTEN x", "a temporary table": "CREATE TEMP TABLE x (a int)",
		"idle_session_timeout": "SET idle_session_timeout TO '1h'",
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, withoutB, pooled(3), parking)
			a, b := r.client(), r.client()
			a.query(sql)
			for range 3 {
				awaitServed(t, 1)
				b.query("SELECT 1")
			}
			awaitServed(t, 1)
			equal(t, "it goes on", strings.Contains(a.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1)"), true)
		})
	}
}

// TestAskedWhileTheClientSpeaks: sessions that are asked to give their goroutines up at any moment answer everything, and in order.
func TestAskedWhileTheClientSpeaks(t *testing.T) {
	r := newRig(t, withoutB, pooled(8))
	clients := make([]*client, 8)
	for i := range clients {
		clients[i] = r.client()
	}
	var asks, talks sync.WaitGroup
	stop := make(chan struct{})
	sessions := make([]*session, len(clients))
	for i, c := range clients {
		sessions[i] = r.session(c)
	}
	asks.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				sessions[i%len(sessions)].askToPark()
				runtime.Gosched()
			}
		}
	})
	for i, c := range clients {
		talks.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range 300 {
				switch random.IntN(4) {
				case 0:
					equal(t, "in a transaction", c.query("BEGIN")+c.query("INSERT INTO t VALUES (1)")+c.query("COMMIT"), "C(BEGIN) Z(T)C(INSERT 0 1) Z(T)C(COMMIT) Z(I)")
				case 1:
					equal(t, "extended", c.run(append([]pgtest.Message{pgtest.Parse("", "INSERT INTO t VALUES (1)")}, bindExecute("")...)...), "1 2 C(INSERT 0 1) Z(I)")
				case 2:
					c.send(pgtest.Query("INSERT INTO t VALUES (1)"), pgtest.Query("INSERT INTO t VALUES (2)"))
					equal(t, "two at once", c.ready(2), "C(INSERT 0 1) Z(I) C(INSERT 0 1) Z(I)")
				default:
					equal(t, "simple", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
				}
			}
		})
	}
	talks.Wait()
	close(stop)
	asks.Wait()
}

// TestSilenced: memory is given back once after many sessions have fallen silent, when all were found, and not too often.
func TestSilenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := 0
		c := silenced{giveBack: func() { given++ }}
		now := int64(time.Hour)
		for _, step := range []struct {
			what  string
			n     int
			after time.Duration
			want  int
		}{
			{"few", manySilent - 1, time.Second, 0},
			{"more to come", maxParked, parkAgain, 0},
			{"the rest", 1, time.Second, 1},
			{"none", 0, time.Second, 1},
			{"many, too early", manySilent, time.Second, 1},
			{"none, later", 0, giveBackAgain, 1},
			{"none, later again", 0, time.Second, 2},
			{"none", 0, 2 * giveBackAgain, 2},
		} {
			c.add(step.n, now)
			time.Sleep(2 * parkAgain)
			synctest.Wait()
			equal(t, step.what, given, step.want)
			now += int64(step.after)
		}
	})
}
