package proxy

import (
	"testing"

	"pgweir/internal/pgtest"
)

// TestShape: a statement that was described on one node and would return other rows on the other is refused
// there as PostgreSQL refuses it, and nothing runs.
func TestShape(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.run(append([]pgtest.Message{pgtest.Parse("s1", "SELECT 1"), pgtest.DescribeStatement("s1")}, bindExecute("s1")...)...)
	r.toPrimary(true)
	equal(t, "the same rows", c.run(bindExecute("s1")...), "2 D(primary) C(SELECT 1) Z(I)")
	r.toPrimary(false)
	c.run(append([]pgtest.Message{pgtest.Parse("s2", "SELECT 2"), pgtest.DescribeStatement("s2")}, bindExecute("s2")...)...)
	r.p().setShape("other")
	r.toPrimary(true)
	equal(t, "other rows", c.run(bindExecute("s2")...), "E(ERROR 0A000) Z(I)")
	equal(t, "did not run", r.ran("SELECT 2"), "standby-a=1")
	equal(t, "as PostgreSQL, also when it is described", c.run(append([]pgtest.Message{pgtest.DescribeStatement("s2")}, bindExecute("s2")...)...), "t E(ERROR 0A000) Z(I)")
}

// TestShapeUnnamed: the unnamed statement, too, is refused where its rows are others than those that the client was told
// of in an earlier unit.
func TestShapeUnnamed(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	prepare := func(sql string) {
		c.run(pgtest.Parse("", sql), pgtest.DescribeStatement(""), pgtest.Sync())
	}
	prepare("SELECT 1")
	r.toPrimary(true)
	r.forgetAll()
	equal(t, "the same rows", c.run(bindExecute("")...), "2 D(primary) C(SELECT 1) Z(I)")
	equal(t, "asked once", r.p().got(), "P  SELECT 1 | D S  | S | B   | E SELECT 1 | S")
	r.forgetAll()
	c.run(bindExecute("")...)
	equal(t, "asked no more", r.p().got(), "B   | E SELECT 1 | S")
	r.toPrimary(false)
	prepare("SELECT 2")
	r.p().setShape("other")
	r.toPrimary(true)
	equal(t, "other rows", c.run(bindExecute("")...), "E(ERROR 0A000) Z(I)")
	equal(t, "and again", c.run(bindExecute("")...), "E(ERROR 0A000) Z(I)")
	equal(t, "as PostgreSQL, also when it is described", c.run(append([]pgtest.Message{pgtest.DescribeStatement("")}, bindExecute("")...)...), "t E(ERROR 0A000) Z(I)")
	equal(t, "did not run", r.ran("SELECT 2"), "never")
	prepare("SELECT 2")
	equal(t, "prepared again", c.run(bindExecute("")...), "2 D(primary) C(SELECT 1) Z(I)")
}

// TestShapeUnnamedPooled: on a connection that others have had in between the unnamed statement is prepared again, and its
// rows are compared where the client was told of them.
func TestShapeUnnamedPooled(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.run(pgtest.Parse("", "SELECT 1"), pgtest.DescribeStatement(""), pgtest.Sync())
	b.query("SELECT 2")
	r.forgetAll()
	equal(t, "the same", a.run(bindExecute("")...), "2 D(primary) C(SELECT 1) Z(I)")
	equal(t, "asked", r.p().got(), "P  SELECT 1 | D S  | S | B   | E SELECT 1 | S")
	b.query("SELECT 2")
	r.p().setShape("other")
	equal(t, "others", a.run(bindExecute("")...), "E(ERROR 0A000) Z(I)")
	b.query("SELECT 2")
	a.run(pgtest.Parse("b", "BEGIN"), pgtest.Sync())
	for _, c := range []struct{ shape, want string }{{"third", "2 D(primary) C(SELECT 1) Z(T)"}, {"fourth", "E(ERROR 0A000) Z(E)"}} {
		r.p().setShape("third")
		a.run(pgtest.Parse("", "SELECT 1"), pgtest.DescribeStatement(""), pgtest.Sync())
		b.query("SELECT 2")
		r.p().setShape(c.shape)
		a.run(bindExecute("b")...)
		equal(t, "behind a deferred BEGIN: "+c.shape, a.run(bindExecute("")...), c.want)
		a.query("ROLLBACK")
	}
}

// TestShapeUntold: nothing is asked for where the client was told of no rows, or tells itself.
func TestShapeUntold(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	a, b := r.client(), r.client()
	a.run(pgtest.Parse("", "SELECT 1"), pgtest.Sync())
	b.query("SELECT 2")
	r.forgetAll()
	a.run(bindExecute("")...)
	equal(t, "untold", r.p().got(), "P  SELECT 1 | B   | E SELECT 1 | S")
	r.forgetAll()
	a.run(pgtest.Parse("", "SELECT 1"), pgtest.Bind("", ""), pgtest.DescribePortal(""), pgtest.Execute("", 0), pgtest.Sync())
	a.run(pgtest.Parse("", "SELECT 1"), pgtest.DescribeStatement(""), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "in one unit", r.p().got(), "P  SELECT 1 | B   | D P  | E SELECT 1 | S | P  SELECT 1 | D S  | B   | E SELECT 1 | S")
}
