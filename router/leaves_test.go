package router

import (
	"fmt"
	"strings"
	"testing"
)

// TestLeaves: a text tells of the names that what it uses leaves on a connection, but where it does not run it.
func TestLeaves(t *testing.T) {
	name := func(n string) QName { return QName{Schema: "public", Name: n} }
	c := New(DefaultConfig())
	env := &Env{Database: "app", Path: &Path{Schemas: []string{"public"}}, Catalog: &Catalog{
		Generation: 1,
		Functions: map[QName]FuncInfo{
			name("f"): {Verdict: VerdictRead, Leaves: "a.b"}, name("g"): {Verdict: VerdictDoubtful, Leaves: "a.b\x00c.d"},
		},
		Relations: map[QName]RelInfo{
			name("t"): {Kind: 'r', Persistence: 'p', Read: VerdictRead, WriteLeaves: "e.f"},
			name("v"): {Kind: 'v', Persistence: 'p', Read: VerdictRead, ReadLeaves: "g.h"},
		},
	}}
	for sql, want := range map[string]string{
		"SELECT f()":                      "a.b",
		"SELECT f(), g()":                 "a.b\x00c.d",
		"SELECT f(); SELECT * FROM v":     "a.b\x00g.h",
		"SELECT * FROM t":                 "",
		"INSERT INTO t SELECT f()":        "a.b\x00e.f",
		"EXPLAIN SELECT f()":              "",
		"EXPLAIN ANALYZE SELECT f()":      "a.b",
		"DO $$ BEGIN PERFORM f(); END $$": "a.b",
		"DO $$ BEGIN INSERT INTO t (a) VALUES (1); PERFORM set_config('i.j', 'x', true); END $$": "e.f\x00i.j",
	} {
		if got := c.Classify([]byte(sql), env); got.Leaves != want {
			t.Errorf("%s leaves %q, want %q", sql, got.Leaves, want)
		}
	}
}

// TestNames: sets of names are put together and compared.
func TestNames(t *testing.T) {
	if got := JoinNames("a\x00c", "b\x00c"); got != "a\x00b\x00c" {
		t.Errorf("joined: %q", got)
	}
	if got := JoinNames("a\x00b\x00c", "a\x00c"); got != "a\x00b\x00c" {
		t.Errorf("joined with a part of it: %q", got)
	}
	for names, want := range map[string]int{"": 0, "a": 1, "a\x00b": 2} {
		if got := CountNames(names); got != want {
			t.Errorf("%q is %d names", names, got)
		}
	}
	for _, c := range []struct {
		all, some string
		want      bool
	}{{"", "", true}, {"a", "", true}, {"", "a", false}, {"a\x00b", "b", true}, {"ab", "a", false}, {"a", "ab", false}, {"a\x00b\x00c", "a\x00c", true}, {"a\x00b\x00c", "a\x00d", false}, {"a\x00b", "b\x00c", false}} {
		if got := HasNames(c.all, c.some); got != c.want {
			t.Errorf("%q among %q: %v", c.some, c.all, got)
		}
	}
}

// TestManyLeaves: a batch of statements that leave more names than are told apart leaves something that nothing removes.
func TestManyLeaves(t *testing.T) {
	var all *Unit
	for i := range maxLeft + 1 {
		if all != nil && (CountNames(all.Leaves) != i || all.Flags&FlagOpaque != 0) {
			t.Fatalf("%d names, %q, with the flags %b", i, all.Leaves, all.Flags)
		}
		all = Join(all, &Unit{Class: ClassRead, Mark: MarkRead, Statements: 1, Leaves: fmt.Sprintf("a.b%d", i)})
	}
	if lasts := FlagOpaque | FlagLasting; CountNames(all.Leaves) != maxLeft || all.Flags&lasts != lasts || all.Class != ClassPrimary {
		t.Errorf("%d names with the flags %b as %v", CountNames(all.Leaves), all.Flags, all.Class)
	}
}

// TestLongLeaves: so does one that leaves long names.
func TestLongLeaves(t *testing.T) {
	all := Join(&Unit{Statements: 1, Leaves: "a.b"}, &Unit{Statements: 1, Leaves: "a." + strings.Repeat("b", maxLeftBytes)})
	if all.Leaves != "a.b" || all.Flags&FlagLasting == 0 {
		t.Errorf("%d bytes of names with the flags %b", len(all.Leaves), all.Flags)
	}
}

// TestTruncateLooksOnce: a text with CASCADE any number of times has the relations looked through once.
func TestTruncateLooksOnce(t *testing.T) {
	relations := func(opaque bool) map[QName]RelInfo {
		plain := RelInfo{Kind: 'r', Persistence: 'p', Read: VerdictRead}
		other := plain
		other.WriteOpaque = opaque
		return map[QName]RelInfo{{Schema: "public", Name: "a"}: plain, {Schema: "public", Name: "b"}: other}
	}
	for _, opaque := range []bool{false, true} {
		env := &Env{Path: &Path{Schemas: []string{"public"}}, Catalog: &Catalog{Relations: relations(opaque)}}
		p := newParser([]byte("TRUNCATE a CASCADE; TRUNCATE a CASCADE"), env, nil)
		p.run()
		if got := p.unit.Flags&FlagLasting != 0; got != opaque {
			t.Errorf("the text leaves something: %v", got)
		}
		env.Catalog.Relations = relations(!opaque)
		if got := p.anyOpaqueTarget(); got != opaque {
			t.Errorf("looked through again: %v", got)
		}
	}
}
