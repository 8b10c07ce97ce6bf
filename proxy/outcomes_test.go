package proxy

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/health"
	"pgweir/internal/pgtest"
)

var update = flag.Bool("update", false, "write the golden file anew")

// outcome is one row of behaviour.md §4: what is done, and what the client sees is returned.
type outcome struct {
	name    string
	options []rigOption
	play    func(o *stage) string
}

// stage is a rig with one client on it.
type stage struct {
	*rig
	c        *client
	protocol string
}

// sql runs one statement in the stage's protocol.
func (o *stage) sql(text string) string { return o.c.runs(o.protocol, text) }

// start sends one and does not wait.
func (o *stage) start(text string) { o.c.sendSQL(o.protocol, text) }

// lead is what stands before the first row in the stage's protocol.
func (o *stage) lead() []pgtest.Message {
	if o.protocol == "extended" {
		return nil // ParseComplete and BindComplete are in the buffer already
	}
	return []pgtest.Message{pgtest.RowDescription("v")}
}

// dies is a hook that ends the connection without a word.
func dies(b *backendPG) error { return b.die() }

// TestOutcomes holds what a client sees when nodes fail to testdata/outcomes.txt: one line for
// each row and protocol. A line is what was asked and answered in order, whether the
// connection stays, and how often the statement in question ran on which node.
func TestOutcomes(t *testing.T) {
	file := filepath.Join("testdata", "outcomes.txt")
	golden, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(golden)) {
		if name, rest, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, "#") {
			want[name] = strings.TrimSpace(rest)
		}
	}
	var out strings.Builder
	out.WriteString("# What a client sees when nodes fail (behaviour.md, section 4), one line for each case and protocol:\n" +
		"# the answers in order, separated by \"/\"; \"stays\" or \"ends\"; how often the statement in question ran where.\n" +
		"# Messages are named by their letters in the protocol; \"pgweir\" marks an error of ours (field R).\n\n")
	seen := 0
	for _, row := range outcomes() {
		for _, protocol := range []string{"simple", "extended"} {
			name := row.name + ", " + protocol
			t.Run(name, func(t *testing.T) {
				r := newRig(t, row.options...)
				got := row.play(&stage{rig: r, c: r.client(), protocol: protocol})
				got = strings.NewReplacer("D(standby-a)", "D(standby)", "D(standby-b)", "D(standby)").Replace(got)
				fmt.Fprintf(&out, "%s: %s\n", name, got)
				if !*update && got != want[name] {
					t.Errorf("\n got  %s\n want %s", got, want[name])
				}
			})
			seen++
		}
	}
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, []byte(out.String()), 0o644))
	}
	if !*update && seen != len(want) {
		t.Errorf("%d rows were played, the table has %d", seen, len(want))
	}
}

// realPID tells clients the process id on the primary.
func realPID(r *rig) { r.target.RealPID = true }

// join is the parts of a transcript.
func join(parts ...string) string { return strings.Join(parts, " / ") }

// stays is that the connection still works.
func (o *stage) stays() string {
	o.c.t.Helper()
	if got := o.c.query("SHOW pgweir.consistency"); !strings.HasSuffix(got, ")") {
		o.t.Errorf("the connection does not work: %q", got)
	}
	return "stays"
}

// outcomes is all rows.
func outcomes() []outcome {
	return append(append(idleOutcomes(), readOutcomes()...), writeOutcomes()...)
}

// idleOutcomes is what happens between statements and at the start.
func idleOutcomes() []outcome {
	return []outcome{
		{"idle, the primary dies", nil, func(o *stage) string {
			o.kill(o.p())
			o.c.silent()
			o.promote(o.a())
			o.c.silent()
			return join(o.sql("INSERT INTO t VALUES (1)"), o.stays(), o.ran("INSERT INTO t VALUES (1)"))
		}},
		{"idle, the standby dies", []rigOption{withoutB}, func(o *stage) string {
			first := o.sql("SELECT 1")
			o.change(o.b(), func(v *health.Node) { v.NoReads = false })
			o.kill(o.a())
			o.c.silent()
			return join(first, o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"idle, the node says FATAL 57P01", nil, func(o *stage) string {
			must(o.t, o.p().last().ends("57P01", "terminating connection due to administrator command"))
			o.c.silent()
			return join(o.sql("INSERT INTO t VALUES (1)"), o.stays(), o.ran("INSERT INTO t VALUES (1)"))
		}},
		{"idle with LISTEN", nil, func(o *stage) string {
			first := o.sql("LISTEN ch")
			o.p().KillConns()
			return join(first, o.c.end(), "ends")
		}},
		{"idle with LISTEN, its standby dies", []rigOption{withoutB}, func(o *stage) string {
			first := join(o.sql("LISTEN ch"), o.sql("SELECT 1"))
			o.a().KillConns()
			o.c.silent()
			return join(first, o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"idle, told the process id on the primary, which dies", []rigOption{realPID}, func(o *stage) string {
			first := o.sql("SELECT 1")
			o.p().KillConns()
			return join(first, o.c.end(), "ends")
		}},
		{"idle, told the process id on the primary, which says FATAL 57P01", []rigOption{realPID}, func(o *stage) string {
			must(o.t, o.p().last().ends("57P01", "terminating connection due to administrator command"))
			return join(o.c.end(), "ends")
		}},
		{"idle, told the process id on the primary, its standby dies", []rigOption{realPID, withoutB}, func(o *stage) string {
			first := o.sql("SELECT 1")
			o.a().KillConns()
			o.c.silent()
			return join(first, o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"told the process id on the primary, which dies under a statement", []rigOption{realPID}, func(o *stage) string {
			o.p().on("INSERT INTO t VALUES (1)", dies)
			o.start("INSERT INTO t VALUES (1)")
			return join(o.c.end(), "ends", o.ran("INSERT INTO t VALUES (1)"))
		}},
		{"told the process id on the primary, which says FATAL 57P01 under a read sent there", []rigOption{realPID, alone}, func(o *stage) string {
			o.p().on("SELECT 1", func(b *backendPG) error {
				return b.fatal("57P01", "terminating connection due to administrator command")
			})
			o.start("SELECT 1")
			return join(o.c.end(), "ends", o.ran("SELECT 1"))
		}},
		{"idle, pinned by a temporary table", nil, func(o *stage) string {
			first := o.sql("CREATE TEMP TABLE x (a int)")
			o.p().KillConns()
			return join(first, o.c.end(), "ends")
		}},
		{"idle, pinned, the node says FATAL 57P01", nil, func(o *stage) string {
			first := o.sql("CREATE TEMP TABLE x (a int)")
			must(o.t, o.p().last().ends("57P01", "terminating connection due to administrator command"))
			return join(first, o.c.end(), "ends")
		}},
		{"idle, pinned, the node ends the session by a time-out", nil, func(o *stage) string {
			first := o.sql("CREATE TEMP TABLE x (a int)")
			must(o.t, o.p().last().ends("57P05", "terminating connection due to idle-session timeout"))
			return join(first, o.c.end(), "ends")
		}},
		{"pinned, dies under a statement", nil, func(o *stage) string {
			first := o.sql("CREATE TEMP TABLE x (a int)")
			o.p().on("INSERT INTO x VALUES (1)", dies)
			o.start("INSERT INTO x VALUES (1)")
			return join(first, o.c.end(), "ends", o.ran("INSERT INTO x VALUES (1)"))
		}},
		{"starting up while no node is up, one comes", nil, func(o *stage) string {
			o.forgetBases()
			o.primary = nil
			for _, n := range o.nodes {
				o.change(n, func(v *health.Node) { v.State = health.StateDown })
			}
			in := make(chan *client)
			go func() { in <- o.client() }()
			o.held(1)
			o.primary = o.p()
			o.change(o.p(), func(v *health.Node) { v.State = health.StateUp })
			o.c = <-in
			return join(o.sql("INSERT INTO t VALUES (1)"), o.stays(), o.ran("INSERT INTO t VALUES (1)"))
		}},
		{"starting up while no node is up, none comes", []rigOption{withTarget(func(t *Target) { t.HoldTimeout = 30 * time.Millisecond })}, func(o *stage) string {
			o.forgetBases()
			o.primary = nil
			for _, n := range o.nodes {
				o.change(n, func(v *health.Node) { v.State = health.StateDown })
			}
			return join(loginError(o.t, pgtest.ClientConfig{Addr: o.addr, User: "alice", Database: "app", Password: "secret"}), "ends")
		}},
	}
}

// forgetBases has the next login ask a node again.
func (r *rig) forgetBases() { r.srv.bases.drop("main") }

// loginError is the error that ends a login.
func loginError(t testing.TB, cfg pgtest.ClientConfig) string {
	t.Helper()
	c, err := pgtest.Connect(cfg)
	if err == nil {
		_ = c.Close()
		t.Fatal("the login succeeded")
	}
	var e *pgtest.ServerError
	if !errors.As(err, &e) {
		t.Fatalf("the login failed without a word of the server: %v", err)
	}
	return shortOne(e.Message)
}

// readOutcomes is what happens to reads.
func readOutcomes() []outcome {
	conflict := "canceling statement due to conflict with recovery"
	return []outcome{
		{"waiting for the first byte of a read", []rigOption{withoutB}, func(o *stage) string {
			o.change(o.b(), func(v *health.Node) { v.NoReads = false })
			o.a().on("SELECT 1", dies)
			o.b().on("SELECT 1", dies)
			return join(o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"waiting for the first byte of a read, one standby dies", nil, func(o *stage) string {
			var died atomic.Bool
			die := func(b *backendPG) error {
				if !died.Swap(true) {
					return b.die()
				}
				b.say(o.lead()...)
				b.say(pgtest.DataRow("the other"), pgtest.CommandComplete("SELECT 1"))
				return nil
			}
			o.a().on("SELECT 1", die)
			o.b().on("SELECT 1", die)
			return join(o.sql("SELECT 1"), o.stays(), fmt.Sprint(o.a().ran("SELECT 1"), o.b().ran("SELECT 1"), o.p().ran("SELECT 1")))
		}},
		{"waiting for the first byte of a read on the primary", []rigOption{alone}, func(o *stage) string {
			o.p().on("SELECT 1", func(b *backendPG) error {
				o.p().on("SELECT 1", nil)
				return b.die()
			})
			return join(o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"waiting for the first byte of a read, FATAL 57P01", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 1", func(b *backendPG) error {
				return b.fatal("57P01", "terminating connection due to administrator command")
			})
			return join(o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"a read, FATAL 40001 of a conflict", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 1", func(b *backendPG) error { return b.fatal("40001", conflict) })
			return join(o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"a read, ERROR 40001 of a conflict", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 1", func(b *backendPG) error { return b.error("40001", conflict) })
			return join(o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"in the middle of a result, between messages", []rigOption{withoutB}, func(o *stage) string {
			return o.broken(pgtest.DataRow("1").Bytes(), "D", true)
		}},
		{"in the middle of a result, inside a message of 60 kB", []rigOption{withoutB}, func(o *stage) string {
			row := pgtest.DataRow(strings.Repeat("x", 60_000)).Bytes()
			return o.broken(append(pgtest.DataRow("1").Bytes(), row[:30_000]...), "D", true)
		}},
		{"in the middle of a result, inside a message of 200 kB", []rigOption{withoutB}, func(o *stage) string {
			row := pgtest.DataRow(strings.Repeat("x", 200_000)).Bytes()
			return o.broken(append(pgtest.DataRow("1").Bytes(), row[:100_000]...), "D", false)
		}},
		{"in a read-only transaction, nothing read yet", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 1", dies)
			return join(o.sql("BEGIN READ ONLY"), o.sql("SELECT 1"), o.sql("SELECT 2"), o.sql("COMMIT"), o.stays(), o.ran("SELECT 1"), o.ran("BEGIN READ ONLY"))
		}},
		{"in a read-only transaction, after a read", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 2", dies)
			return join(o.sql("BEGIN READ ONLY"), o.sql("SELECT 1"), o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"), o.sql("SELECT 4"),
				o.stays(), o.ran("SELECT 2"), o.ran("SELECT 3"), o.ran("SELECT 4"))
		}},
		{"in a read-only transaction, its standby dies between statements", []rigOption{withoutB}, func(o *stage) string {
			first := join(o.sql("BEGIN READ ONLY"), o.sql("SELECT 1"))
			o.a().KillConns()
			o.c.silent()
			return join(first, o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"), o.stays(), o.ran("SELECT 2"), o.ran("SELECT 3"))
		}},
		{"in a repeatable read-only transaction, after a read", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 2", dies)
			return join(o.sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), o.sql("SELECT 1"), o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"),
				o.sql("SELECT 4"), o.stays(), o.ran("SELECT 2"), o.ran("SELECT 3"), o.ran("SELECT 4"))
		}},
		{"in a repeatable read-only transaction, its standby dies between statements", []rigOption{withoutB}, func(o *stage) string {
			first := join(o.sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), o.sql("SELECT 1"))
			o.a().KillConns()
			o.c.silent()
			return join(first, o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"), o.stays(), o.ran("SELECT 2"), o.ran("SELECT 3"))
		}},
		{"in a read-only transaction with a savepoint, after a read", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 2", dies)
			return join(o.sql("BEGIN READ ONLY"), o.sql("SELECT 1"), o.sql("SAVEPOINT s"), o.sql("SELECT 2"), o.sql("ROLLBACK"), o.stays(), o.ran("SELECT 2"))
		}},
		{"in a repeatable read-only transaction, cancelled by a conflict", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 2", func(b *backendPG) error { return b.error("40001", conflict) })
			return join(o.sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), o.sql("SELECT 1"), o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"), o.stays(), o.ran("SELECT 2"))
		}},
		{"in a repeatable read-only transaction, ended by FATAL 40001", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 2", func(b *backendPG) error { return b.fatal("40001", conflict) })
			return join(o.sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), o.sql("SELECT 1"), o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("COMMIT"), o.stays(), o.ran("SELECT 2"))
		}},
		{"in a read-only transaction, cancelled by a conflict", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 2", func(b *backendPG) error { return b.error("40001", conflict) })
			return join(o.sql("BEGIN READ ONLY"), o.sql("SELECT 1"), o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"), o.stays(), o.ran("SELECT 2"))
		}},
		{"in a read-only transaction, nothing read yet, cancelled by a conflict", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 1", func(b *backendPG) error { return b.error("40001", conflict) })
			return join(o.sql("BEGIN READ ONLY"), o.sql("SELECT 1"), o.sql("COMMIT"), o.stays(), o.ran("SELECT 1"))
		}},
		{"in a read-only transaction, ended by FATAL 40001", []rigOption{withoutB}, func(o *stage) string {
			o.a().on("SELECT 2", func(b *backendPG) error { return b.fatal("40001", conflict) })
			return join(o.sql("BEGIN READ ONLY"), o.sql("SELECT 1"), o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("COMMIT"), o.stays(), o.ran("SELECT 2"))
		}},
		{"reading while there is no primary", []rigOption{withoutB}, func(o *stage) string {
			o.kill(o.p())
			return join(o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
		{"reading while there is no primary and no standby is fresh", []rigOption{withoutB}, func(o *stage) string {
			o.kill(o.p())
			o.stale(o.a())
			o.start("SELECT 1")
			o.held(1)
			o.promote(o.b())
			return join(o.c.ready(1), o.stays(), o.ran("SELECT 1"))
		}},
		{"a read, its standby refuses connections", []rigOption{withoutB}, func(o *stage) string {
			o.a().Close()
			return join(o.sql("SELECT 1"), o.stays(), o.ran("SELECT 1"))
		}},
	}
}

// broken reads from a standby that dies after it has sent the bytes raw behind a first row; the
// client has seen a message of type seen before it dies.
func (o *stage) broken(raw []byte, seen string, between bool) string {
	saw := make(chan struct{})
	o.a().on("SELECT 1", func(b *backendPG) error {
		b.say(o.lead()...)
		if err := b.flush(); err != nil {
			return err
		}
		if err := b.SendRaw(raw); err != nil {
			return err
		}
		<-saw
		return b.die()
	})
	o.start("SELECT 1")
	first := o.c.until(seen[0])
	if !between {
		// The long message has begun: its header came.
		if _, err := o.c.ReadByte(); err != nil {
			o.t.Fatal(err)
		}
		close(saw)
		n, err := io.Copy(io.Discard, o.c.Conn())
		if n < 60_000 || n >= 200_000 || err != nil && !strings.Contains(err.Error(), "reset") {
			o.t.Errorf("%d bytes, then %v", n, err)
		}
		return join(first, "a part of a message", "ends", o.ran("SELECT 1"))
	}
	close(saw)
	return join(first, o.c.ready(1), o.stays(), o.ran("SELECT 1"))
}

// writeOutcomes is what happens to writes and transactions.
func writeOutcomes() []outcome {
	const insert = "INSERT INTO t VALUES (1)"
	return []outcome{
		{"a write that was not sent", nil, func(o *stage) string {
			o.kill(o.p())
			o.start(insert)
			o.held(1)
			o.c.silent()
			o.promote(o.a())
			return join(o.c.ready(1), o.stays(), o.ran(insert))
		}},
		{"a write that was not sent, and nobody is promoted", []rigOption{withTarget(func(t *Target) { t.HoldTimeout = 30 * time.Millisecond })}, func(o *stage) string {
			o.kill(o.p())
			return join(o.sql(insert), o.stays(), o.ran(insert))
		}},
		{"a write that was not sent, until statement_timeout", nil, func(o *stage) string {
			set := o.sql("SET statement_timeout TO '30ms'")
			o.kill(o.p())
			return join(set, o.sql(insert), o.stays(), o.ran(insert))
		}},
		{"a write that was not sent, and too many wait", []rigOption{withConfig(func(c *Config) { c.HoldMax = 1 })}, func(o *stage) string {
			o.kill(o.p())
			o.start(insert)
			o.held(1)
			second := o.client()
			second.sendSQL(o.protocol, insert)
			evicted := o.c.ready(1)
			o.promote(o.a())
			return join(evicted, second.ready(1), o.stays(), o.ran(insert))
		}},
		{"a write, the primary refuses connections", nil, func(o *stage) string {
			o.p().Close()
			o.start(insert)
			await(o.t, "the monitor hears of it", func() bool { return len(o.mon.voids())+len(o.reports()) > 0 })
			o.kill(o.p())
			o.promote(o.a())
			return join(o.c.ready(1), o.stays(), o.ran(insert))
		}},
		{"a write in flight", nil, func(o *stage) string {
			o.p().on(insert, dies)
			got := o.sql(insert)
			o.kill(o.p())
			o.promote(o.a())
			return join(got, o.sql("INSERT INTO t VALUES (2)"), o.stays(), o.ran(insert))
		}},
		{"a write in flight, FATAL 57P01", nil, func(o *stage) string {
			o.p().on(insert, func(b *backendPG) error {
				return b.fatal("57P01", "terminating connection due to administrator command")
			})
			return join(o.sql(insert), o.stays(), o.ran(insert))
		}},
		{"a write in flight, with failover.unknown_sqlstate", []rigOption{withConfig(func(c *Config) { c.UnknownSQLState = "40003" })}, func(o *stage) string {
			o.p().on(insert, dies)
			return join(o.sql(insert), o.stays(), o.ran(insert))
		}},
		{"two units in a pipeline, the first in flight", nil, func(o *stage) string {
			o.p().on(insert, func(b *backendPG) error {
				go o.kill(o.p())
				return b.Stall()
			})
			o.start(insert)
			o.start("INSERT INTO t VALUES (2)")
			first := o.c.ready(1)
			o.held(1)
			o.promote(o.a())
			return join(first, o.c.ready(1), o.stays(), o.ran(insert), o.ran("INSERT INTO t VALUES (2)"))
		}},
		{"a COMMIT in flight", nil, func(o *stage) string {
			o.p().on("COMMIT", dies)
			return join(o.sql("BEGIN"), o.sql(insert), o.sql("COMMIT"), o.sql("SELECT 1"), o.stays(), o.ran("COMMIT"))
		}},
		{"a COMMIT in flight of a transaction that only read", nil, func(o *stage) string {
			o.p().on("COMMIT", dies)
			return join(o.sql("BEGIN"), o.sql("SELECT 1"), o.sql("COMMIT"), o.sql("SELECT 1"), o.stays(), o.ran("COMMIT"))
		}},
		{"a PREPARE TRANSACTION in flight", nil, func(o *stage) string {
			o.p().on("PREPARE TRANSACTION 'x'", dies)
			return join(o.sql("BEGIN"), o.sql(insert), o.sql("PREPARE TRANSACTION 'x'"), o.stays(), o.ran("PREPARE TRANSACTION 'x'"))
		}},
		{"inside a transaction, between statements", nil, func(o *stage) string {
			first := join(o.sql("BEGIN"), o.sql(insert))
			o.p().KillConns()
			o.c.silent()
			return join(first, o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"), o.sql("SELECT 4"), o.stays(), o.ran("SELECT 2"), o.ran("SELECT 3"))
		}},
		{"inside a transaction, under a statement", nil, func(o *stage) string {
			o.p().on("SELECT 2", dies)
			return join(o.sql("BEGIN"), o.sql(insert), o.sql("SELECT 2"), o.sql("SELECT 3"), o.sql("ROLLBACK"), o.stays(), o.ran("SELECT 2"), o.ran("SELECT 3"))
		}},
		{"inside a transaction, under a write", nil, func(o *stage) string {
			o.p().on(insert, dies)
			return join(o.sql("BEGIN"), o.sql("SELECT 1"), o.sql(insert), o.sql("SELECT 3"), o.sql("COMMIT"), o.stays(), o.ran(insert))
		}},
		{"inside a transaction, between statements, and COMMIT follows", nil, func(o *stage) string {
			first := join(o.sql("BEGIN"), o.sql(insert))
			o.p().KillConns()
			o.c.silent()
			return join(first, o.sql("COMMIT"), o.sql("SELECT 1"), o.stays(), o.ran("COMMIT"))
		}},
		{"inside a transaction, between statements, and ROLLBACK follows", nil, func(o *stage) string {
			first := join(o.sql("BEGIN"), o.sql(insert))
			o.p().KillConns()
			o.c.silent()
			return join(first, o.sql("ROLLBACK"), o.sql("SELECT 1"), o.stays(), o.ran("ROLLBACK"))
		}},
		{"inside a transaction, the node ends the session by a time-out", nil, func(o *stage) string {
			first := join(o.sql("BEGIN"), o.sql(insert))
			must(o.t, o.p().last().ends("25P03", "terminating connection due to idle-in-transaction timeout"))
			return join(first, o.c.end(), "ends")
		}},
		{"inside a transaction, another node is the primary now", nil, func(o *stage) string {
			first := join(o.sql("BEGIN"), o.sql(insert))
			o.promote(o.a())
			return join(first, o.sql("SELECT 2"), o.sql("ROLLBACK"), o.sql(insert), o.stays(), o.ran("SELECT 2"), o.ran(insert))
		}},
		{"BEGIN answered, no node has heard of it, the primary dies", nil, func(o *stage) string {
			begin := o.sql("BEGIN")
			o.kill(o.p())
			o.start(insert)
			o.held(1)
			o.promote(o.a())
			return join(begin, o.c.ready(1), o.sql("COMMIT"), o.stays(), o.ran(insert), o.ran("BEGIN"))
		}},
		{"BEGIN and the first write in flight together", nil, func(o *stage) string {
			o.p().on(insert, dies)
			return join(o.sql("BEGIN"), o.sql(insert), o.sql("SELECT 1"), o.sql("ROLLBACK"), o.stays(), o.ran(insert))
		}},
	}
}

// reports is what traffic told the monitor.
func (r *rig) reports() []string {
	r.mon.mu.Lock()
	defer r.mon.mu.Unlock()
	return append([]string(nil), r.mon.mu.reports...)
}
