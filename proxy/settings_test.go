package proxy

import (
	"strings"
	"testing"

	"pgweir/internal/pgtest"
)

// TestSettingsFollow: what the session has SET is in force on whichever node answers, made there by
// the client's own text, once.
func TestSettingsFollow(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, withoutB)
		c := r.client()
		r.forgetAll()
		set := func(sql string) {
			t.Helper()
			if got := c.runs(protocol, sql); !strings.HasSuffix(got, "Z(I)") || strings.Contains(got, "E(") {
				t.Errorf("%s: %s", sql, got)
			}
		}
		set("SET work_mem TO '8MB'")
		set("SET a.b TO 'it''s'")
		c.query("SELECT 1")
		equal(t, "made on the standby", r.a().got(), `Q SET "work_mem" TO '8MB'; SET "a"."b" TO 'it''s' | Q SELECT 1`)
		r.forgetAll()
		c.query("SELECT 1")
		equal(t, "once", r.a().got(), "Q SELECT 1")
		set("SET ROLE boss") // on the lease at hand, the standby
		set("SET a.b TO 'x'")
		r.forgetAll()
		c.query("INSERT INTO t VALUES (1)")
		equal(t, "made on the primary", r.p().got(), `Q SET "a"."b" TO 'x'; SET ROLE boss | Q INSERT INTO t VALUES (1)`)
		set("SET work_mem TO '9MB'")
		r.forgetAll()
		c.query("SELECT 1")
		equal(t, "role reset first and set last", r.a().got(), `Q RESET ROLE; SET "work_mem" TO '9MB'; SET ROLE boss | Q SELECT 1`)
		set("RESET ROLE")
		set("RESET a.b")
		r.forgetAll()
		c.query("INSERT INTO t VALUES (1)")
		equal(t, "reset", r.p().got(), `Q RESET ROLE; RESET "a"."b" | Q INSERT INTO t VALUES (1)`)
	})
}

// TestSettingsByFunction: set_config is made again by set_config, which does not quote the elements of a list.
func TestSettingsByFunction(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.query("SELECT set_config('search_path', 'a, public', false)")
	r.forgetAll()
	equal(t, "a read", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "made there", r.a().got(), `Q SELECT pg_catalog.set_config('search_path', 'a, public', false) | Q SELECT 1`)
}

// TestSettingsByParameter: set_config with a parameter for its value is made again as what the parameter was, and
// pins nothing, as long as the parameter is text.
func TestSettingsByParameter(t *testing.T) {
	const sql = "SELECT set_config('app.tenant', $1, false)"
	batch := func(name string, args ...any) []pgtest.Message {
		return []pgtest.Message{pgtest.Bind("", name, args...), pgtest.Execute("", 0), pgtest.Sync()}
	}
	r := newRig(t, withoutB, pooled(1))
	c := r.client()
	c.send(pgtest.Parse("s", sql), pgtest.DescribeStatement("s"), pgtest.Sync())
	c.ready(1)
	set := func(value any, made string) {
		t.Helper()
		c.send(batch("s", value)...)
		c.ready(1)
		r.forgetAll()
		equal(t, "a read", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
		equal(t, "made there", r.a().got(), made)
	}
	set("7", `Q SELECT pg_catalog.set_config('app.tenant', '7', false) | Q SELECT 1`)
	set("it's", `Q SELECT pg_catalog.set_config('app.tenant', 'it''s', false) | Q SELECT 1`)
	c.send(append([]pgtest.Message{pgtest.Parse("", sql, 25)}, batch("", "8")...)...)
	c.ready(1)
	r.forgetAll()
	c.query("SELECT 1")
	equal(t, "unnamed", r.a().got(), `Q SELECT pg_catalog.set_config('app.tenant', '8', false) | Q SELECT 1`)

	for name, ms := range map[string][]pgtest.Message{
		"a backslash": append([]pgtest.Message{pgtest.Parse("", sql)}, batch("", `a\b`)...),
		"a number":    append([]pgtest.Message{pgtest.Parse("", "SELECT set_config('app.tenant', $1, false)", 23)}, batch("", "8")...),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withoutB, pooled(1))
			c := r.client()
			c.send(ms...)
			c.ready(1)
			equal(t, "pinned", c.query("SELECT 1"), "T D(primary) C(SELECT 1) Z(I)")
		})
	}
}

// TestSettingsRolledBack: a SET goes with the transaction that made it, also with the implicit
// one of a batch.
func TestSettingsRolledBack(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.query("SELECT 1")
	c.query("INSERT INTO t VALUES (1)")
	quiet := func(what string) {
		t.Helper()
		r.forgetAll()
		c.query("SELECT 1")
		equal(t, what, r.a().got(), "Q SELECT 1")
		c.query("INSERT INTO t VALUES (1)")
	}
	for _, sql := range []string{"BEGIN", "SET work_mem TO '8MB'", "ROLLBACK"} {
		c.query(sql)
	}
	quiet("rolled back")
	for _, sql := range []string{"BEGIN", "SET work_mem TO '8MB'", "SELECT 1/0", "COMMIT"} {
		c.query(sql)
	}
	quiet("COMMIT of a failed transaction")
	for _, sql := range []string{"BEGIN", "SAVEPOINT s", "SET work_mem TO '8MB'", "ROLLBACK TO s", "COMMIT"} {
		c.query(sql)
	}
	quiet("rolled back to a savepoint")
	for _, sql := range []string{"BEGIN", "SET LOCAL work_mem TO '8MB'", "COMMIT"} {
		c.query(sql)
	}
	quiet("local")
	c.run(pgtest.Parse("", "SET work_mem TO '8MB'"), pgtest.Bind("", ""), pgtest.Execute("", 0),
		pgtest.Parse("", "BROKEN"), pgtest.Sync())
	quiet("a batch that failed")
	c.query("SET work_mem TO '8MB'; SELECT 1/0")
	quiet("a string that failed")
	c.query("BEGIN; SET work_mem TO '8MB'; ROLLBACK; BEGIN")
	c.query("COMMIT")
	quiet("rolled back within a string")
	c.query("BEGIN; SET work_mem TO '8MB'; COMMIT")
	r.forgetAll()
	c.query("SELECT 1")
	equal(t, "committed", r.a().got(), `Q SET "work_mem" TO '8MB' | Q SELECT 1`)
}

// TestSettingsWithinBatch: what a batch has SET by its first Flush is not set again in the middle of it.
func TestSettingsWithinBatch(t *testing.T) {
	r := newRig(t, alone)
	c := r.client()
	r.forgetAll()
	c.send(pgtest.Parse("", "SET work_mem TO '8MB'"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Flush())
	equal(t, "flushed", c.until('C'), "1 2 C(SET)")
	c.send(pgtest.Parse("", "INSERT INTO t VALUES (1)"), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "the rest", c.ready(1), "1 2 C(INSERT 0 1) Z(I)")
	if got := r.p().got(); strings.Contains(got, "Q ") {
		t.Errorf("a query within the batch: %s", got)
	}
}

// TestSettingsLocalDefault: SET LOCAL … TO DEFAULT is over with its transaction, and nobody else gets what was there before.
func TestSettingsLocalDefault(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	for _, sql := range []string{"SET work_mem TO '9MB'", "BEGIN", "SET LOCAL work_mem TO DEFAULT", "COMMIT"} {
		a.query(sql)
	}
	r.forgetAll()
	b.query("INSERT INTO t VALUES (1)")
	a.query("INSERT INTO t VALUES (2)")
	equal(t, "both", r.p().got(), `Q RESET "work_mem" | Q INSERT INTO t VALUES (1) | Q SET "work_mem" TO '9MB' | Q INSERT INTO t VALUES (2)`)
}

// TestSettingsRefused: a node that refuses a setting is tried once more on a new connection; then the client
// gets the node's own error.
func TestSettingsRefused(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.query("SELECT 1")
	c.query("INSERT INTO t VALUES (1)")
	c.query("SET a.b TO 'x'")
	refuse := func(b *backendPG) error { return b.error("42501", "permission denied to set parameter") }
	r.a().on(`SET "a"."b" TO 'x'`, refuse)
	before := r.a().Accepted()
	equal(t, "the node's error", c.query("SELECT 1"), "E(ERROR 42501) Z(I)")
	equal(t, "a new connection", r.a().Accepted()-before, 1)
	r.a().on(`SET "a"."b" TO 'x'`, nil)
	equal(t, "goes on", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	c.query("INSERT INTO t VALUES (1)")
	c.query("SET a.c TO 'y'")
	r.a().on(`SET "a"."c" TO 'y'`, func(b *backendPG) error {
		r.a().on(`SET "a"."c" TO 'y'`, nil)
		return b.fatal("57P01", "terminating connection due to administrator command")
	})
	equal(t, "FATAL in the middle", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
}

// TestParameterStatus: the client hears of a parameter when its view changes, not when the lease does.
func TestParameterStatus(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client("application_name", "app1")
	equal(t, "at login", c.Status["application_name"], "app1")
	equal(t, "set", c.query("SET application_name TO 'app2'"), "C(SET) S(application_name=app2) Z(I)")
	equal(t, "made elsewhere in silence", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "no part of the node's login", r.a().last().Param("application_name"), "")
	equal(t, "the same again", c.query("SET application_name TO 'app2'"), "C(SET) Z(I)")
	must(t, r.a().last().Send(pgtest.ParameterStatus("in_hot_standby", "on")))
	equal(t, "never in_hot_standby", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "as the primary", c.Status["in_hot_standby"], "off")
}

// TestParameterStatusOfOurs: what a connection reports while it is brought up to the session is not the client's to hear.
func TestParameterStatusOfOurs(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.query("SET datestyle TO 'German'")
	equal(t, "a read", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "discarded on the primary", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
	equal(t, "once", c.query("DISCARD ALL"), "C(DISCARD ALL) S(DateStyle=ISO, MDY) Z(I)")
	equal(t, "and again", c.query("SET datestyle TO 'German'"), "C(SET) S(DateStyle=German) Z(I)")
	equal(t, "wiped and set in silence", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	r.a().on("DISCARD ALL", func(b *backendPG) error {
		b.guc.set("SET TimeZone TO 'Asia/Tokyo'") // a reload of the server's configuration
		b.say(pgtest.CommandComplete("DISCARD ALL"))
		return nil
	})
	c.query("INSERT INTO t VALUES (1)")
	c.query("DISCARD ALL")
	equal(t, "what is news nonetheless", c.query("SELECT 1"), "S(TimeZone=Asia/Tokyo) T D(standby-a) C(SELECT 1) Z(I)")
}

// TestNotifications: they arrive at once and name the sender by its virtual pid.
func TestNotifications(t *testing.T) {
	r := newRig(t, withoutB)
	c, other := r.client(), r.client()
	other.query("INSERT INTO t VALUES (1)")
	sender := r.p().last().PID
	c.query("LISTEN ch")
	listening := r.p().backendOf(func(b *backendPG) bool { return b.PID != sender })
	must(t, listening.Send(pgtest.Notification(sender, "ch", "hello")))
	got, err := c.Read()
	must(t, err)
	want := pgtest.Notification(other.PID, "ch", "hello")
	if string(got.Body) != string(want.Body) {
		t.Errorf("got %q, want %q", got.Body, want.Body)
	}
	must(t, listening.Send(pgtest.Notification(99, "ch", "direct")))
	if got, err = c.Read(); err != nil || string(got.Body) != string(pgtest.Notification(99, "ch", "direct").Body) {
		t.Errorf("a foreign sender: %q %v", got.Body, err)
	}
	equal(t, "reads still spread", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
	equal(t, "unlisten", c.query("UNLISTEN ch"), "C(UNLISTEN) Z(I)")
	r.p().KillConns()
	c.silent()
	equal(t, "unpinned", c.query("SELECT 1"), "T D(standby-a) C(SELECT 1) Z(I)")
}

// TestBeginningOfSession: a login takes from the node what it said, and a second one like it asks nobody.
func TestBeginningOfSession(t *testing.T) {
	r := newRig(t)
	first := r.client("datestyle", "German")
	n := r.p().Accepted()
	second := r.client("datestyle", "German")
	equal(t, "asked once", r.p().Accepted(), n)
	equal(t, "the same", second.Status["server_version"], first.Status["server_version"])
	r.client("datestyle", "ISO")
	equal(t, "another start asks again", r.p().Accepted(), n+1)
	r.p().onStartup(func(b *backendPG) error { return b.fatal("22023", "invalid value for parameter") })
	equal(t, "the node's own error", loginError(t, pgtest.ClientConfig{
		Addr: r.addr, User: "alice", Database: "app", Password: "secret", Params: []string{"datestyle", "nonsense"},
	}), "E(FATAL 22023)")
}
