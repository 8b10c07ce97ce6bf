package proxy

import (
	"strings"
	"testing"

	"pgweir/internal/pgtest"
)

// resetting is pooled on routing.opaque: reset.
func resetting(size int) rigOption {
	return func(r *rig) {
		pooled(size)(r)
		r.target.ResetOpaque = true
	}
}

// TestOpaqueReset: what leaves something that DISCARD ALL removes gives its connection back behind one.
func TestOpaqueReset(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, alone, resetting(1))
		a, b := r.client(), r.client()
		a.runs(protocol, "SELECT k()")
		same := r.p().last()
		equal(t, "pin", a.pin(), "none")
		equal(t, "b", b.runs(protocol, "INSERT INTO t VALUES (2)"), b.runs(protocol, "INSERT INTO t VALUES (2)"))
		if got := r.p().got(); !inOrder(got, "k()", "DISCARD ALL", "INSERT INTO t VALUES (2)") || strings.Count(got, "DISCARD ALL") != 1 {
			t.Errorf("not wiped once in between: %s", got)
		}
		if r.p().last() != same {
			t.Error("b has another connection")
		}
		equal(t, "resets", counter(r.cluster.metrics.resetKept), 1)
	})
}

// TestOpaqueResetLasting: nobody gets a connection on which something may be left that DISCARD ALL does not remove.
func TestOpaqueResetLasting(t *testing.T) {
	both(t, func(t *testing.T, protocol string) {
		r := newRig(t, alone, resetting(1))
		a, b := r.client(), r.client()
		a.runs(protocol, "SELECT o()")
		before := r.p().last()
		if got := b.runs(protocol, "INSERT INTO t VALUES (2)"); strings.Contains(got, "E(") {
			t.Errorf("b: %s", got)
		}
		if r.p().last() == before {
			t.Error("b got the connection")
		}
		a.runs(protocol, "INSERT INTO t VALUES (1)")
		await(t, "the connection to be closed", func() bool { return r.p().live() == 1 })
		equal(t, "closed", counter(r.cluster.metrics.resetClosed), 1)
	})
}

// TestOpaqueResetFailed: a statement that failed may have left a lock of the session, which DISCARD ALL gives back.
func TestOpaqueResetFailed(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	r.p().on("SELECT k()", func(b *backendPG) error { return b.error("22012", "division by zero") })
	a, b := r.client(), r.client()
	equal(t, "a", a.query("SELECT k()"), "E(ERROR 22012) Z(I)")
	b.query("INSERT INTO t VALUES (2)")
	if got := r.p().got(); !inOrder(got, "k()", "DISCARD ALL", "INSERT INTO t VALUES (2)") {
		t.Errorf("not wiped: %s", got)
	}
}

// TestUnknownFailed: a text that only names what is not there leaves nothing. A function that nobody knows yet may have
// taken a lock before it failed for the same reason, and what stands in front in the same string, too.
func TestUnknownFailed(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		more  []string // fields of the error
		clean bool
	}{
		"in the text":     {text: "SELECT nowhere()", more: []string{"P8"}, clean: true},
		"in the function": {text: "SELECT nowhere()", more: []string{"p3", "qSELECT FROM gone", "WPL/pgSQL function nowhere()"}},
		"behind another":  {text: "SELECT hidden(); SELECT nowhere()", more: []string{"P26"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, alone, pooled(1))
			r.p().on("SELECT nowhere()", func(b *backendPG) error {
				b.failed = true
				b.say(pgtest.Error("ERROR", "42P01", `relation "gone" does not exist`, c.more...))
				return b.flush()
			})
			a, b := r.client(), r.client()
			if got := a.query(c.text); !strings.HasSuffix(got, "E(ERROR 42P01) Z(I)") {
				t.Fatal(got)
			}
			before := r.p().last()
			equal(t, "b", b.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
			equal(t, "b has the connection as it is", r.p().last() == before && !strings.Contains(r.p().got(), "DISCARD ALL"), c.clean)
		})
	}
}

// TestOpaqueResetSettings: what the session has set itself, and what it has prepared, is there on its next connection.
func TestOpaqueResetSettings(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	a := r.client()
	a.query("SET work_mem TO '9MB'")
	a.run(append([]pgtest.Message{pgtest.Parse("s", "VALUES (1)")}, bindExecute("s")...)...)
	a.query("SELECT k()")
	r.forgetAll()
	equal(t, "a", a.run(bindExecute("s")...), "2 D(primary 1) C(SELECT 1) Z(I)")
	if got := r.p().got(); !inOrder(got, `SET "work_mem" TO '9MB'`, "P pgweir_", "VALUES (1)", "B ") {
		t.Errorf("not set or not prepared again: %s", got)
	}
}

// TestOpaqueResetTransaction: the reset comes at the end of the transaction, however it ends, and what the transaction
// saw until then stayed.
func TestOpaqueResetTransaction(t *testing.T) {
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		r := newRig(t, alone, resetting(1))
		a, b := r.client(), r.client()
		a.query("BEGIN")
		a.query("SELECT k()")
		equal(t, "within", b.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
		a.query("INSERT INTO t VALUES (1)")
		a.query(end)
		b.query("INSERT INTO t VALUES (2)")
		if got := r.p().got(); !inOrder(got, "k()", "VALUES (1)", end, "DISCARD ALL", "VALUES (2)") || strings.Count(got, "DISCARD ALL") != 1 {
			t.Errorf("%s: %s", end, got)
		}
	}
}

// TestOpaqueResetDies: a transaction that has run something opaque and loses its node goes on like any other.
func TestOpaqueResetDies(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	a := r.client()
	a.query("BEGIN")
	a.query("SELECT k()")
	r.p().on("INSERT INTO t VALUES (1)", func(b *backendPG) error { return b.die() })
	equal(t, "told", a.query("INSERT INTO t VALUES (1)"), "E(ERROR 40001 pgweir) Z(E)")
	equal(t, "ended", a.query("ROLLBACK"), "C(ROLLBACK) Z(I)")
}

// TestOpaqueResetPinned: another reason keeps the connection as it is, and what is left goes when that reason does.
func TestOpaqueResetPinned(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	a, b := r.client(), r.client()
	a.query("LISTEN ch")
	a.query("SELECT k()")
	a.query("INSERT INTO t VALUES (1)")
	equal(t, "meanwhile", b.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
	if got := r.p().got(); strings.Contains(got, "DISCARD") {
		t.Errorf("what LISTEN protects was wiped: %s", got)
	}
	equal(t, "listens", a.pin(), "listen")
	a.query("UNLISTEN *")
	b.query("INSERT INTO t VALUES (2)")
	if got := r.p().got(); !inOrder(got, "UNLISTEN", "DISCARD ALL", "VALUES (2)") {
		t.Errorf("not wiped: %s", got)
	}
}

// TestOpaqueResetSequence: who is known to ask for lastval keeps the connection that has it.
func TestOpaqueResetSequence(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	a := r.client()
	a.query("SELECT lastval()")
	a.query("SELECT nextval('s'), k()")
	r.forgetAll()
	a.query("SELECT lastval()")
	equal(t, "lastval", r.p().got(), "Q SELECT lastval()")
}

// TestOpaqueResetLong: a statement that cannot be prepared again keeps its connection, which nothing wipes.
func TestOpaqueResetLong(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	a, b := r.client(), r.client()
	long := "VALUES (1) --" + strings.Repeat("x", 2*maxChunk)
	a.run(pgtest.Parse("s", long), pgtest.Sync())
	a.query("SELECT k()")
	equal(t, "meanwhile", b.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
	equal(t, "a", a.run(bindExecute("s")...), "2 D(primary 1) C(SELECT 1) Z(I)")
	if got := r.p().got(); strings.Contains(got, "DISCARD") {
		t.Error("it was wiped")
	}
}

// TestOpaqueResetParameters: a parameter that something opaque has changed is back at what the session starts with,
// and the client hears so; one that the client has set itself is not.
func TestOpaqueResetParameters(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	r.p().on("SELECT k()", func(b *backendPG) error {
		b.say(pgtest.ParameterStatus("TimeZone", "Mars"), pgtest.ParameterStatus("DateStyle", "Odd"),
			pgtest.RowDescription("k"), pgtest.DataRow("1"), pgtest.CommandComplete("SELECT 1"))
		return nil
	})
	a := r.client("TimeZone", "UTC", "DateStyle", "ISO, MDY")
	a.query("SET datestyle TO 'ISO, DMY'")
	equal(t, "a", a.query("SELECT k()"), "S(TimeZone=Mars) S(DateStyle=Odd) T D(1) C(SELECT 1) Z(I)")
	if got := a.query("INSERT INTO t VALUES (1)"); !strings.HasPrefix(got, "S(TimeZone=UTC) ") || strings.Contains(got, "DateStyle=ISO, MDY") {
		t.Errorf("afterwards: %s", got)
	}
}

// TestOpaqueResetDoubtful: a name that nobody knows counts when the catalog has told that it stays unknown; until then
// the session keeps the connection, but is not pinned.
func TestOpaqueResetDoubtful(t *testing.T) {
	r := newRig(t, withoutB, resetting(1))
	a, b := r.client(), r.client()
	a.query("INSERT INTO unborn VALUES (1)")
	before := r.p().last()
	equal(t, "pin", a.pin(), "none")
	a.query("SELECT 1 FROM t")
	equal(t, "reads", r.ran("SELECT 1 FROM t"), "standby-a=1")
	a.query("CREATE TABLE other (a int)") // the view is read anew
	await(t, "the connection to be given up", func() bool {
		a.query("SELECT 1 FROM t")
		return b.query("INSERT INTO t VALUES (1)") == "C(INSERT 0 1) Z(I)"
	})
	if r.p().last() == before {
		t.Error("b got the connection")
	}
}

// TestOpaqueResetUnknown: where the catalog does not tell about a name for long, the connection is closed.
func TestOpaqueResetUnknown(t *testing.T) {
	r := newRig(t, alone, resetting(1))
	a, b := r.client(), r.client()
	a.query("INSERT INTO t VALUES (0)") // the view was read
	a.query("INSERT INTO unborn VALUES (1)")
	before := r.p().last()
	await(t, "the connection to be given up", func() bool { return b.query("INSERT INTO t VALUES (1)") == "C(INSERT 0 1) Z(I)" })
	if r.p().last() == before {
		t.Error("b got the connection")
	}
}

// TestOpaqueResetSession: with pool_mode: session a client keeps its connections as they are.
func TestOpaqueResetSession(t *testing.T) {
	r := newRig(t, alone, resetting(1), withTarget(func(t *Target) { t.Pooled = false }))
	a := r.client()
	a.query("SELECT k()")
	a.query("INSERT INTO t VALUES (1)")
	if got := r.p().got(); strings.Contains(got, "DISCARD") {
		t.Errorf("wiped: %s", got)
	}
	equal(t, "pin", a.pin(), "opaque")
}

// TestOpaquePinPassing: with routing.opaque: pin a connection is used again if DISCARD ALL removes all that is left.
func TestOpaquePinPassing(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.query("SELECT k()")
	same := r.p().last()
	equal(t, "meanwhile", b.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
	a.query("DISCARD ALL")
	b.query("INSERT INTO t VALUES (2)")
	if r.p().last() != same {
		t.Error("b has another connection")
	}
}

// TestOpaqueLastingDiscarded: DISCARD ALL that comes before the session was ever at rest as a pinned one does not make a
// connection fit for others on which it leaves something.
func TestOpaqueLastingDiscarded(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.run(append(bindExecuteOf("SELECT o()"), append(bindExecuteOf("DISCARD ALL"), pgtest.Sync())...)...)
	before := r.p().last()
	equal(t, "pin", a.pin(), "none")
	equal(t, "b", b.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
	if r.p().last() == before {
		t.Error("b got the connection")
	}
}

// bindExecuteOf runs SQL in a batch.
func bindExecuteOf(sql string) []pgtest.Message {
	return []pgtest.Message{pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.Execute("", 0)}
}

// TestOpaqueOnStandby: what a hint has sent to a standby although nobody knows what it does leaves a connection there that
// nobody else gets.
func TestOpaqueOnStandby(t *testing.T) {
	r := newRig(t, withoutB, pooled(1))
	a, b := r.client(), r.client()
	a.query("/* pgweir: standby */ SELECT unborn()")
	equal(t, "ran", r.ran("/* pgweir: standby */ SELECT unborn()"), "standby-a=1")
	equal(t, "pin", a.pin(), "none")
	before := r.a().last()
	b.query("SELECT 1")
	equal(t, "ran", r.ran("SELECT 1"), "standby-a=1")
	if r.a().last() == before {
		t.Error("b got the connection")
	}
}

// TestOpaqueLong: nobody has read all of a long query, which may have left anything.
func TestOpaqueLong(t *testing.T) {
	long := "SET work_mem TO '9MB'; INSERT INTO t VALUES ('" + strings.Repeat("x", maxText) + "')"
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.query(long)
	equal(t, "pin", a.pin(), "opaque")
	equal(t, "meanwhile", b.query("INSERT INTO t VALUES (2)"), "E(ERROR 53300 pgweir) Z(I)")
	for what, leaves := range map[string]func(c *client){
		"reset": func(c *client) { c.query(long) },
		"failed": func(c *client) {
			r.p().on("SET work_mem TO '9MB'", func(b *backendPG) error { return b.error("22023", "no") })
			c.query(long)
		},
	} {
		r := newRig(t, alone, resetting(1))
		a, b := r.client(), r.client()
		leaves(a)
		before := r.p().last()
		equal(t, what, b.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
		if r.p().last() == before {
			t.Errorf("%s: b got the connection", what)
		}
	}
}

// TestOpaqueFunctionCall: a FunctionCall may call anything, but those of large objects leave nothing.
func TestOpaqueFunctionCall(t *testing.T) {
	call := func(oid uint32) pgtest.Message {
		return pgtest.Msg('F', oid, uint16(0), uint16(0), uint16(0))
	}
	r := newRig(t, alone, pooled(1))
	a := r.client()
	a.run(call(952)) // lo_open
	equal(t, "of a large object", a.pin(), "none")
	a.run(call(2078)) // set_config
	equal(t, "of anything", a.pin(), "opaque")
}

// pin is why the client's session says that it is pinned, "none" where it is not.
func (c *client) pin() string {
	c.t.Helper()
	if _, why, ok := strings.Cut(c.query("SHOW pgweir.status"), "pinned: "); ok {
		return firstLower(why)
	}
	return "none"
}

// firstLower is the lower-case word that a text begins with.
func firstLower(text string) string {
	return text[:len(text)-len(strings.TrimLeft(text, "abcdefghijklmnopqrstuvwxyz_"))]
}

// inOrder says whether the parts stand in a text in this order.
func inOrder(text string, parts ...string) bool {
	for _, p := range parts {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return true
}
