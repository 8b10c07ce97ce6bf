package router

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestLongTexts: what reading a text costs grows with its length and no faster. Work is counted in the bytes that are allocated
// and in tokens, never in time.
func TestLongTexts(t *testing.T) {
	const size = 256 << 10
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	repeated := func(head, unit, tail string) []byte {
		return []byte(head + strings.Repeat(unit, size/len(unit)) + tail)
	}
	for name, text := range map[string][]byte{
		"parts of a name in SET":     repeated("SET a", ".b", " TO 1"),
		"parts of a name in RESET":   repeated("RESET a", ".b", ""),
		"parts of a name in SHOW":    repeated("SHOW a", ".b", ""),
		"statements with set_config": repeated("", "SELECT set_config('a.b', '1', false);", ""),
		"calls of set_config":        repeated("SELECT 1", ", set_config('a.b', '1', false)", ""),
		"set_config in set_config":   repeated("SELECT ", "set_config('a', ", ""),
		"settings":                   repeated("", "RESET a;", ""),
		"cursors":                    repeated("", "CLOSE a;", ""),
		"tables":                     repeated("SELECT 1 FROM items", ", items", ""),
		"parentheses":                repeated("", "(", ""),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			parse(text, env, nil)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 32*uint64(len(text)) {
				t.Errorf("%d bytes allocated for a text of %d", n, len(text))
			}
		})
	}
	t.Run("names that are left", func(t *testing.T) {
		var text strings.Builder
		text.WriteString("DO $$ BEGIN ")
		for i := range size / 32 {
			fmt.Fprintf(&text, "PERFORM set_config('a.b%d', '', true);", i)
		}
		text.WriteString("END $$")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		u, _ := parse([]byte(text.String()), env, nil)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 32*uint64(text.Len()) {
			t.Errorf("%d bytes allocated for a text of %d", n, text.Len())
		}
		if n := CountNames(u.Leaves); n > maxLeft || u.Flags&FlagOpaque == 0 || u.Flags&FlagLasting == 0 {
			t.Errorf("%d names and the flags %b: more of them must count as state that nothing removes", n, u.Flags)
		}
	})
	t.Run("signs", func(t *testing.T) {
		for _, unit := range []string{"+", "-+", "=+", "+ ", "@-"} {
			s := scanner{src: repeated("", unit, "")}
			var tok token
			tokens, signs := 0, 0
			for s.next(&tok); tok.kind == tokOp; s.next(&tok) {
				if tokens++; s.signs < signs {
					t.Fatalf("%q: it is not known any more what stands before %d", unit, signs)
				}
				if s.pos >= signs && s.signs > s.pos {
					signs = s.signs // the run is looked through once, at its first token
				}
			}
			if tok.kind != tokEOF || tokens == 0 {
				t.Errorf("%q: %d tokens, and then %v", unit, tokens, tok.kind)
			}
		}
	})
	t.Run("calls are read again twice", func(t *testing.T) {
		for _, text := range [][]byte{
			repeated("SELECT ", "set_config('a', ", ""),
			repeated("SELECT 1", ", set_config(/* where the time goes */", ""),
			[]byte("SELECT 1" + strings.Repeat(", set_config(", 250) + "'" + strings.Repeat("x", size) + "'"),
		} {
			p := newParser(text, env, nil)
			p.run()
			if most := 3*len(text) + lookAhead + 1; p.looked > most {
				t.Errorf("%.40q: %d bytes are read again, %d allowed", text, p.looked, most)
			}
		}
	})
}

// TestManyNames: common table expressions are found, and go out of sight, however many there are.
func TestManyNames(t *testing.T) {
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for _, n := range []int{1, fewSight - 1, fewSight, fewSight + 1, 2000} {
		text := "WITH c0 AS (SELECT 1)"
		for i := range n {
			text += ", c" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + strings.Repeat("y", i/50) + " AS (SELECT 1)"
		}
		last := "c" + strings.Repeat("x", (n-1)%50) + string(rune('a'+(n-1)%26)) + strings.Repeat("y", (n-1)/50)
		for _, c := range []struct {
			tail   string
			reason Reason
		}{
			{" SELECT * FROM c0, " + last, ReasonRead},
			{" SELECT * FROM " + last + ", unheard", ReasonUnknownName},
			{" SELECT * FROM " + last + "; SELECT * FROM " + last, ReasonUnknownName},
			{" SELECT * FROM (WITH inner_one AS (SELECT 1) SELECT * FROM inner_one, " + last + ") a, " + last, ReasonRead},
			{" SELECT * FROM (WITH inner_one AS (SELECT 1) SELECT * FROM inner_one) a, inner_one", ReasonUnknownName},
		} {
			if u, _ := parse([]byte(text+c.tail), env, nil); u.Reason != c.reason {
				t.Errorf("%d names%s: %s", n, c.tail, describe(u))
			}
		}
	}
}

// TestManyEffects: a text that changes more than MaxEffects things counts as one that nobody understood.
func TestManyEffects(t *testing.T) {
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	for _, n := range []int{MaxEffects, MaxEffects + 1, MaxEffects + 2, 20 * MaxEffects} {
		u, _ := parse(bytes.Repeat([]byte("RESET work_mem;"), n), env, nil)
		if len(u.Effects) != min(n, MaxEffects+1) {
			t.Errorf("%d effects of %d", len(u.Effects), n)
		}
		if lost := n > MaxEffects+1; (u.Flags&FlagUnparsed != 0) != lost || (u.Class == ClassPrimary) != lost {
			t.Errorf("%d effects: %s", n, describe(u))
		}
	}
}

// TestJoinSharesNothing: what is joined to a unit that many share does not show in what others join to it.
func TestJoinSharesNothing(t *testing.T) {
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	c := New(Config{})
	shared := c.Classify([]byte("RESET a; RESET b; RESET c"), env)
	one := Join(shared, c.Classify([]byte("RESET one"), env))
	two := Join(shared, c.Classify([]byte("RESET two"), env))
	if one.Effects[3].Name != "one" || two.Effects[3].Name != "two" {
		t.Errorf("%v and %v", one.Effects[3], two.Effects[3])
	}
}

// TestGiveWay: others may run at every stride of a long text, and are not asked for in a short one.
func TestGiveWay(t *testing.T) {
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	list := "SELECT * FROM items WHERE id IN (" + strings.Repeat("10, ", 1<<18) + "1)"
	for _, text := range []string{
		list[:stride], list[:stride+1], list[:maxCached], list[:maxCached+1], list,
		"DO $$ BEGIN " + strings.Repeat("PERFORM 1; ", 1<<16) + "END $$",
		strings.Repeat("SET a TO 1; ", 1<<16), "CREATE TABLE a (" + strings.Repeat("a int, ", 1<<16) + "a int)",
	} {
		turns := 0
		New(Config{GiveWay: func() { turns++ }}).Classify([]byte(text), env)
		if least, most := len(text)/(stride+64)-1, 2*len(text)/stride; turns < least || turns > most || len(text) > stride && turns == 0 {
			t.Errorf("%.20q, %d bytes: %d turns, at least %d", text, len(text), turns, least)
		}
	}
}

// TestLearnLongText: a standby's refusal of a text that is too long to be remembered by its shape is remembered for that text.
func TestLearnLongText(t *testing.T) {
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	c := New(Config{})
	text := []byte("SELECT * FROM pgbench_accounts WHERE aid IN (" + strings.Repeat("10, ", maxCached/4) + "1)")
	if u := c.Classify(text, env); u.Class != ClassRead {
		t.Fatal(describe(u))
	}
	c.Learn(text, env)
	if u := c.Classify(text, env); u.Class != ClassPrimary || u.Reason != ReasonLearned {
		t.Error(describe(u))
	}
}

// TestCacheCountsEffects: what the units of remembered texts hold counts against the cache's bound.
func TestCacheCountsEffects(t *testing.T) {
	env := &Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	c := New(Config{})
	c.Classify(bytes.Repeat([]byte("SET work_mem TO 1;"), 150), env)
	c.Classify(bytes.Repeat([]byte("CLOSE a;"), 150), env)
	texts, shapes := c.cache.texts.bytes.Load(), c.cache.shapes.bytes.Load()
	if texts < 150*100 || shapes < 150*100 {
		t.Errorf("%d bytes in texts and %d in shapes for units of 150 effects", texts, shapes)
	}
}
