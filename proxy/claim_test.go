package proxy

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"pgweir/internal/pgtest"
	"pgweir/router"
)

// TestSpeaksOf: a text speaks of a statement where its name stands as a word of its own, in any case, or may be spelled otherwise.
func TestSpeaksOf(t *testing.T) {
	cases := []struct {
		text, name string
		want       bool
	}{
		{`EXECUTE s`, "s", true},
		{`EXECUTE S`, "s", true},
		{`EXECUTE "S"`, "S", true},
		{`EXECUTE s(1)`, "s", true},
		{`execute`, "e", false},
		{`EXECUTE s10`, "s1", false},
		{`EXECUTE xs1; EXECUTE s1`, "s1", true},
		{`EXECUTE "a""b"`, `a"b`, true},
		{`EXECUTE U&"\0073"`, "s", true},
		{`EXECUTE säule`, "s", false},
	}
	for _, c := range cases {
		if got := speaksOf(&router.Unit{}, bytes.ToLower([]byte(c.text)), c.name); got != c.want {
			t.Errorf("%s of %s: %v", c.text, c.name, got)
		}
	}
	if u := (&router.Unit{Effects: []router.Effect{{Kind: router.EffectDeallocate, Name: "s"}}}); !speaksOf(u, nil, "s") {
		t.Error("an effect tells of the name")
	}
}

// TestMentionedOnce: a long text is brought into the form that is searched once, and not for each of many statements.
func TestMentionedOnce(t *testing.T) {
	for _, shared := range []bool{true, false} {
		s := &session{named: make(map[string]*statement)}
		s.wake()
		for i := range 500 {
			s.named[fmt.Sprint("name", i)] = &statement{parse: []byte("x"), version: 1}
		}
		k := composer{s: s, l: &lease{shared: shared}}
		text := []byte("INSERT INTO t VALUES ('execute " + strings.Repeat("x", 256<<10) + "')")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		k.mentioned(&router.Unit{Class: router.ClassPrimary}, text, 0)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8*uint64(len(text)) {
			t.Errorf("shared %v: %d bytes allocated for a text of %d", shared, n, len(text))
		}
	}
}

// TestPooledSQLFailed: a connection is the session's own from the first text that speaks of prepared statements on, in a
// failed transaction, too, and what SQL has prepared there is not closed by a later one.
func TestPooledSQLFailed(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a := r.client()
	a.run(append([]pgtest.Message{pgtest.Parse("mine", "VALUES (1)")}, bindExecute("mine")...)...)
	a.query("BEGIN")
	equal(t, "fails", a.run(bindExecute("nobody")...), "E(ERROR 26000) Z(E)")
	r.forgetAll()
	a.query("ROLLBACK; PREPARE p AS SELECT 7")
	got := r.p().got()
	if !strings.HasPrefix(got, "C S pgweir_") || strings.Contains(got, "P mine") {
		t.Errorf("not claimed: %s", got)
	}
	a.query("ROLLBACK")
	r.forgetAll()
	a.query("EXECUTE p")
	if got := r.p().got(); strings.Contains(got, "DEALLOCATE") || strings.Contains(got, "C S") || !strings.Contains(got, "P mine VALUES (1) | S") {
		t.Errorf("the statements were lost: %s", got)
	}
}

// TestPooledSQLBroken: a statement that cannot be prepared any more fails no text that speaks of others.
func TestPooledSQLBroken(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a := r.client()
	a.run(append([]pgtest.Message{pgtest.Parse("broken", "VALUES (1)")}, bindExecute("broken")...)...)
	a.run(append([]pgtest.Message{pgtest.Parse("sound", "VALUES (2)")}, bindExecute("sound")...)...)
	r.p().drop("VALUES (1)")
	r.forgetAll()
	if got := a.query("EXECUTE sound"); strings.Contains(got, "42P01") {
		t.Errorf("the other one's error: %s", got)
	}
	if got := r.p().got(); !strings.Contains(got, "P sound VALUES (2) | S") {
		t.Errorf("not made: %s", got)
	}
	equal(t, "its own", a.query("EXECUTE broken"), "E(ERROR 42P01) Z(I)")
}

// TestPooledSQLMany: a session that has prepared many statements, most of which cannot be prepared any more, has the others.
func TestPooledSQLMany(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a := r.client()
	const many = 2*maxUnits + 50
	for i := range many {
		sql := "VALUES (1)"
		if i%50 == 0 {
			sql = "VALUES (2)"
		}
		a.run(pgtest.Parse(fmt.Sprint("s", i), sql), pgtest.Sync())
	}
	r.p().drop("VALUES (1)")
	r.forgetAll()
	a.query("EXECUTE s200")
	got := r.p().got()
	if n := strings.Count(got, " VALUES (2) | S"); n != many/50 {
		t.Errorf("%d were prepared", n)
	}
	if n := strings.Count(got, " VALUES (1) | S"); n != many-many/50 {
		t.Errorf("%d were tried", n)
	}
}
