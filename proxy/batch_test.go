package proxy

import (
	"math/rand/v2"
	"testing"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// TestLookup: what a name means within a batch is what the last message before says that speaks of it, and the messages that speak of
// no name are not looked at.
func TestLookup(t *testing.T) {
	names := []string{"", "a", "b", "c"}
	all := &router.Unit{Effects: []router.Effect{{Kind: router.EffectSet}, {Kind: router.EffectDeallocateAll}}}
	one := &router.Unit{Effects: []router.Effect{{Kind: router.EffectDeallocate, Name: "b"}}}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := &session{}
		s.wake()
		now := map[string]*statement{"": {}, "a": {}, "c": {}}
		s.unnamed, s.named = now[""], map[string]*statement{"a": now["a"], "c": now["c"]}
		var c chunk
		speaking := 0
		for range 200 {
			name := names[r.IntN(len(names))]
			it := item{name: []byte(name)}
			switch r.IntN(16) {
			case 0:
				it.typ, it.st = pgwire.MsgParse, &statement{}
				now[name] = it.st
			case 1:
				it.typ, it.kind = pgwire.MsgClose, pgwire.KindStatement
				delete(now, name)
			case 2:
				it.typ, it.unit, it.name = pgwire.MsgExecute, all, nil
				now = map[string]*statement{"": now[""]}
			case 3:
				it.typ, it.unit, it.name = pgwire.MsgExecute, one, nil
				delete(now, "b")
			default:
				it.typ, it.kind = []byte{pgwire.MsgBind, pgwire.MsgDescribe, pgwire.MsgExecute, pgwire.MsgClose}[r.IntN(4)], pgwire.KindPortal
				speaking--
			}
			speaking++
			c.add(&it)
			for _, name := range names {
				if got := s.lookup(&c, []byte(name)); got != now[name] {
					t.Fatalf("seed %d, %d messages: %q is %p, not %p", seed, len(c.items), name, got, now[name])
				}
			}
		}
		seen := 0
		for n := c.meaning(); n > 0; n = c.items[n-1].meaning {
			seen++
		}
		if seen != speaking {
			t.Errorf("seed %d: %d messages are looked at, %d speak of names", seed, seen, speaking)
		}
	}
}

// TestLateRowsAreNotShared: a prepared FETCH, whose rows are those of the cursor that was open then, is nobody else's on a
// connection that sessions share; a statement without such a cursor is.
func TestLateRowsAreNotShared(t *testing.T) {
	srv := &Server{statements: newStatementTable()}
	identified := func(sql string, u *router.Unit) *statement {
		s := &session{srv: srv, target: &Target{Pooled: true}, st: newState(0)}
		st := &statement{named: true, unit: u, parse: pgwire.AppendParse(nil, "name", sql, pgwire.OIDs{})}
		s.identify(st, len("name"))
		return st
	}
	fetch, read := &router.Unit{Flags: router.FlagLateRows}, &router.Unit{}
	if a, b := identified("FETCH 1 FROM c", fetch), identified("FETCH 1 FROM c", fetch); a.node == b.node || a.version == b.version {
		t.Errorf("both are %s", a.node)
	}
	if a, b := identified("SELECT 1", read), identified("SELECT 1", read); a.node != b.node || a.version != b.version {
		t.Errorf("%s and %s", a.node, b.node)
	}
}
