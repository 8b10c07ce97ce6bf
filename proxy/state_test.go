package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgweir/health"
	"pgweir/router"
)

// settingsOf is a set of settings as "a=1 b=2".
func settingsOf(s *settings) string {
	var out []string
	for _, p := range s.ordered() {
		out = append(out, p.name+"="+p.value)
	}
	return strings.Join(out, " ")
}

// set is the effect of SET.
func set(name, value string) router.Effect {
	return router.Effect{Kind: router.EffectSet, Name: name, Value: value}
}

// TestSettingsAreImmutable: a changed set leaves the old one as it was, and no change is the same set.
func TestSettingsAreImmutable(t *testing.T) {
	a := noSettings.with("x", "1")
	b := a.with("y", "2").with("x", "3")
	equal(t, "a", settingsOf(a), "x=1")
	equal(t, "b in the order of the first SET", settingsOf(b), "x=3 y=2")
	equal(t, "without", settingsOf(b.without("x")), "y=2")
	equal(t, "b", settingsOf(b), "x=3 y=2")
	if a.with("x", "1") != a || a.without("z") != a {
		t.Error("no change made another set")
	}
	equal(t, "none", settingsOf(noSettings), "")
}

// TestSettingsAgainstModel changes sets at random and compares them with maps: what is in them, in which order, and which are the same.
func TestSettingsAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"a.a", "a.b", "b.c", "datestyle", "statement_timeout", "search_path", "x", nameSetting}
	values := []string{"1", "'2'", wasReset, atDefault, anyValue}
	type model struct {
		set    *settings
		order  []string
		values map[string]string
	}
	states := []model{{set: noSettings, values: map[string]string{}}}
	subset := func(m map[string]string, keep func(name string) bool) map[string]string {
		left := maps.Clone(m)
		maps.DeleteFunc(left, func(name, _ string) bool { return !keep(name) })
		return left
	}
	for range 3000 {
		from := states[rng.IntN(len(states))]
		to := model{set: from.set, order: slices.Clone(from.order), values: maps.Clone(from.values)}
		put := func(name, value string) {
			if _, ok := to.values[name]; !ok {
				to.order = append(to.order, name)
			}
			to.values[name] = value
		}
		drop := func(name string) {
			delete(to.values, name)
			to.order = slices.DeleteFunc(to.order, func(n string) bool { return n == name })
		}
		name, value, other := names[rng.IntN(len(names))], values[rng.IntN(len(values))], states[rng.IntN(len(states))]
		switch rng.IntN(6) {
		case 0, 1:
			to.set = to.set.with(name, value)
			put(name, value)
		case 2:
			to.set = to.set.without(name)
			drop(name)
		case 3:
			to.set = to.set.customOnly()
			for _, n := range from.order {
				if custom(n) {
					put(n, wasReset)
				} else {
					drop(n)
				}
			}
		case 4:
			to.set = to.set.onNode()
			for n, v := range from.values {
				if v == atDefault {
					drop(n)
				}
			}
		case 5:
			to.set = to.set.after(other.set)
			for _, n := range other.order {
				if _, ok := to.values[n]; !ok && custom(n) {
					put(n, wasReset)
				}
			}
		}
		var want []string
		for _, n := range to.order {
			want = append(want, n+"="+to.values[n])
		}
		if got := settingsOf(to.set); got != strings.Join(want, " ") {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
		for _, s := range states {
			if got, want := to.set.same(s.set), maps.Equal(to.values, s.values); got != want {
				t.Fatalf("%q and %q: same %v", settingsOf(to.set), settingsOf(s.set), got)
			}
			names := func(m model) map[string]string {
				left := subset(m.values, custom)
				for n := range left {
					left[n] = ""
				}
				return left
			}
			if got, want := to.set.custom == s.set.custom, maps.Equal(names(to), names(s)); got != want {
				t.Fatalf("%q and %q: same names %v", settingsOf(to.set), settingsOf(s.set), got)
			}
			if got, want := to.set.plans == s.set.plans, maps.Equal(subset(to.values, decides), subset(s.values, decides)); got != want {
				t.Fatalf("%q and %q: same plans %v", settingsOf(to.set), settingsOf(s.set), got)
			}
		}
		if states = append(states, to); len(states) > 40 {
			states = slices.Delete(states, 1, 2)
		}
	}
}

// TestManySettings: what a change of one setting costs does not grow with the number of texts that are made or looked at, and what
// changes all of them does not do it one by one.
func TestManySettings(t *testing.T) {
	s := newState(0)
	const many = 1000
	for i := range many {
		s.applyOne(&router.Effect{Kind: router.EffectSet, Name: fmt.Sprintf("a.s%d", i), Value: "1"})
	}
	full := s.set
	number := 0
	limit := func(what string, most float64, f func()) {
		t.Helper()
		if got := testing.AllocsPerRun(20, f); got > most {
			t.Errorf("%s: %v allocations", what, got)
		}
	}
	limit("SET", 4, func() {
		number++
		s.applyOne(&router.Effect{Kind: router.EffectSet, Name: "a.s7", Value: strconv.Itoa(number)})
	})
	for what, e := range map[string]router.Effect{
		"RESET ALL": {Kind: router.EffectResetAll}, "DISCARD ALL": {Kind: router.EffectDiscardAll}, "ROLLBACK": {Kind: router.EffectRollback},
	} {
		limit(what, 60, func() {
			s.set, s.effective = full, full
			s.levels = []level{{set: noSettings, effective: noSettings}}
			s.applyOne(&e)
		})
		if n := len(s.set.pairs); n != many {
			t.Errorf("%s: %d names are left", what, n)
		}
	}
	limit("a node that nobody knows", 40, func() { anySettings(full, s.set) })
}

// TestTransactionsOfState goes through transactions and savepoints: what is SET in them, and what is left.
func TestTransactionsOfState(t *testing.T) {
	begin := router.Effect{Kind: router.EffectBegin}
	commit, rollback := router.Effect{Kind: router.EffectCommit}, router.Effect{Kind: router.EffectRollback}
	savepoint := func(n string) router.Effect { return router.Effect{Kind: router.EffectSavepoint, Name: n} }
	backTo := func(n string) router.Effect { return router.Effect{Kind: router.EffectRollbackTo, Name: n} }
	release := func(n string) router.Effect { return router.Effect{Kind: router.EffectRelease, Name: n} }
	local := router.Effect{Kind: router.EffectSet, Name: "l", Value: "1", Local: true}
	for _, c := range []struct {
		name      string
		effects   []router.Effect
		status    txBlock
		committed bool
		want      string // left when all is over
	}{
		{"commit", []router.Effect{begin, set("x", "1"), commit}, txIdle, true, "x=1"},
		{"rollback", []router.Effect{begin, set("x", "1"), rollback}, txIdle, false, ""},
		{"local", []router.Effect{begin, local, set("x", "1"), commit}, txIdle, true, "x=1"},
		{"back to a savepoint", []router.Effect{begin, set("x", "1"), savepoint("a"), set("x", "2"), set("y", "2"), backTo("a"), commit}, txIdle, true, "x=1"},
		{"back twice", []router.Effect{begin, savepoint("a"), set("x", "1"), backTo("a"), set("y", "1"), backTo("a"), commit}, txIdle, true, ""},
		{"released", []router.Effect{begin, savepoint("a"), set("x", "1"), savepoint("b"), set("y", "1"), release("a"), commit}, txIdle, true, "x=1 y=1"},
		{"the newest of that name", []router.Effect{begin, savepoint("a"), set("x", "1"), savepoint("a"), set("y", "1"), backTo("a"), commit}, txIdle, true, "x=1"},
		{"outer, through an inner", []router.Effect{begin, savepoint("a"), set("x", "1"), savepoint("b"), set("y", "1"), backTo("a"), commit}, txIdle, true, ""},
		{"outside of a transaction", []router.Effect{set("x", "1")}, txIdle, false, "x=1"},
		{"two in a string", []router.Effect{begin, set("x", "1"), rollback, begin, set("y", "1"), commit}, txIdle, true, "y=1"},
		{"committed, then rolled back", []router.Effect{begin, set("x", "1"), commit, begin, set("y", "1"), rollback}, txIdle, false, "x=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newState(0)
			s.apply(c.effects)
			s.ready(c.status, c.committed, false)
			equal(t, "left", settingsOf(s.set), c.want)
			equal(t, "in force", settingsOf(s.effective), c.want)
			equal(t, "levels", len(s.levels), 0)
		})
	}
}

// TestChain: COMMIT AND CHAIN keeps and begins anew, ROLLBACK AND CHAIN drops and begins anew.
func TestChain(t *testing.T) {
	s := newState(0)
	s.apply([]router.Effect{{Kind: router.EffectBegin}, set("x", "1")})
	s.ready(txOpen, false, false)
	s.apply([]router.Effect{{Kind: router.EffectCommit, AndChain: true}})
	s.ready(txOpen, true, true)
	s.apply([]router.Effect{set("y", "1")})
	s.ready(txOpen, false, false)
	s.apply([]router.Effect{{Kind: router.EffectRollback, AndChain: true}})
	s.ready(txOpen, false, true)
	equal(t, "in the third", settingsOf(s.effective), "x=1")
	equal(t, "open", len(s.levels), 1)
	s.ready(txIdle, false, false)
	equal(t, "left", settingsOf(s.set), "x=1")
}

// TestPins: who has what must not lose its connection, and gets rid of it.
func TestPins(t *testing.T) {
	s := newState(0)
	equal(t, "none", s.held(), router.PinNone)
	s.apply([]router.Effect{{Kind: router.EffectListen, Name: "a"}, {Kind: router.EffectListen, Name: "b"}})
	equal(t, "held", s.held(), router.PinListen)
	equal(t, "LISTEN does not bind", s.pinned(), router.PinNone)
	s.apply([]router.Effect{{Kind: router.EffectUnlisten, Name: "a"}})
	equal(t, "one is left", s.held(), router.PinListen)
	s.apply([]router.Effect{{Kind: router.EffectUnlisten, Name: "*"}})
	equal(t, "all gone", s.held(), router.PinNone)
	s.apply([]router.Effect{{Kind: router.EffectBegin}, {Kind: router.EffectListen, Name: "c"}})
	s.ready(txIdle, false, false)
	equal(t, "rolled back", s.held(), router.PinNone)
	s.apply([]router.Effect{{Kind: router.EffectPrepare, Name: "p"}})
	equal(t, "prepared", s.pinned(), router.PinSQLPrepare)
	s.apply([]router.Effect{{Kind: router.EffectDeallocateAll}})
	equal(t, "deallocated", s.pinned(), router.PinNone)
	s.apply([]router.Effect{{Kind: router.EffectPin, Pin: router.PinTemp}})
	s.apply([]router.Effect{{Kind: router.EffectDiscard, Name: "temp"}})
	equal(t, "temp discarded", s.pinned(), router.PinNone)
	s.apply([]router.Effect{{Kind: router.EffectPin, Pin: router.PinAdvisoryLock}, {Kind: router.EffectUnlockAll}})
	equal(t, "unlocked", s.pinned(), router.PinNone)
	s.apply([]router.Effect{{Kind: router.EffectPin, Pin: router.PinOpaque}, set("x", "1"), {Kind: router.EffectDiscardAll}})
	equal(t, "all discarded", s.pinned(), router.PinNone)
	equal(t, "settings, too", settingsOf(s.set), "")
}

// TestLocalDefault: SET LOCAL … TO DEFAULT is over with its transaction, and RESET ALL passes over what it hides.
func TestLocalDefault(t *testing.T) {
	s := newState(0)
	s.apply([]router.Effect{set("x", "1"), set("a.b", "1")})
	begin := []router.Effect{
		{Kind: router.EffectBegin}, {Kind: router.EffectReset, Name: "x", Local: true}, {Kind: router.EffectReset, Name: "a.b", Local: true},
	}
	s.apply(begin)
	s.ready(txOpen, false, false)
	equal(t, "within", settingsOf(s.effective), "a.b="+wasReset)
	s.ready(txIdle, true, false)
	equal(t, "behind", settingsOf(s.effective), "x=1 a.b=1")
	s.apply(begin)
	s.apply([]router.Effect{{Kind: router.EffectResetAll}})
	s.ready(txOpen, false, false)
	s.ready(txIdle, true, false)
	equal(t, "behind RESET ALL", settingsOf(s.effective), "a.b=1 x=1")
}

// TestResetAll: RESET ALL leaves who the session is.
func TestResetAll(t *testing.T) {
	s := newState(0)
	s.apply([]router.Effect{
		set("x", "1"),
		{Kind: router.EffectSetRole, Name: "role", Value: "boss"},
		{Kind: router.EffectResetAll},
	})
	equal(t, "left", settingsOf(s.set), "role=boss")
	s.apply([]router.Effect{{Kind: router.EffectReset, Name: "role"}})
	equal(t, "reset", settingsOf(s.set), "")
}

// TestMarks: what a session has seen binds every node but the one that showed it.
func TestMarks(t *testing.T) {
	a, b := &health.Node{ID: 1}, &health.Node{ID: 2}
	s := newState(5)
	need := func(level router.Consistency) [2]uint64 {
		n, own := s.need(level, 50, 60)
		return [2]uint64{n, own}
	}
	equal(t, "at login", need(router.ConsistencySession), [2]uint64{5, 5})
	s.saw(a, 1, 10, false)
	equal(t, "a read on a", need(router.ConsistencySession), [2]uint64{10, 5})
	s.saw(a, 1, 20, false)
	equal(t, "another one", need(router.ConsistencySession), [2]uint64{20, 5})
	s.saw(b, 1, 30, false)
	equal(t, "then on b", need(router.ConsistencySession), [2]uint64{30, 20})
	s.saw(b, 2, 40, false)
	equal(t, "b crashed and came back", need(router.ConsistencySession), [2]uint64{40, 30})
	s.saw(a, 1, 45, true)
	equal(t, "a write", need(router.ConsistencySession), [2]uint64{45, 45})
	equal(t, "application", need(router.ConsistencyApplication), [2]uint64{50, 50})
	equal(t, "global", need(router.ConsistencyGlobal), [2]uint64{60, 60})
	equal(t, "eventual", need(router.ConsistencyEventual), [2]uint64{0, 0})
}

// TestPrivilegedSettings: what a role had the right to set cannot be set on another connection ahead of the role, nor behind
// another one.
func TestPrivilegedSettings(t *testing.T) {
	set := func(name, value string) router.Effect {
		return router.Effect{Kind: router.EffectSet, Name: name, Value: value}
	}
	role := func(name string) router.Effect {
		return router.Effect{Kind: router.EffectSetRole, Name: "role", Value: name}
	}
	for _, c := range []struct {
		name    string
		effects []router.Effect
		want    router.Pin
	}{
		{"behind a role", []router.Effect{role("boss"), set("session_replication_role", "replica")}, router.PinOpaque},
		{"ahead of it", []router.Effect{set("session_replication_role", "replica"), role("bob")}, router.PinNone},
		{"behind no role", []router.Effect{role("'none'"), set("log_statement", "'all'")}, router.PinNone},
		{"what anybody may set", []router.Effect{role("boss"), set("work_mem", "'1MB'"), set("a.b", "'c'")}, router.PinNone},
		{"for the transaction", []router.Effect{role("boss"), {Kind: router.EffectSet, Name: "log_statement", Value: "'all'", Local: true}}, router.PinNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newState(0)
			s.apply(c.effects)
			equal(t, "pin", s.pinned(), c.want)
		})
	}
}

// TestDifference: the SQL that turns one set of settings into another.
func TestDifference(t *testing.T) {
	x := noSettings.with("x", "1")
	for _, c := range []struct {
		name     string
		from, to *settings
		want     string
	}{
		{"nothing", x, noSettings.with("x", "1"), ""},
		{"set", noSettings, x, `SET "x" TO 1`},
		{"reset", x, noSettings, `RESET "x"`},
		{"changed", x, noSettings.with("x", "'2'"), `SET "x" TO '2'`},
		{"custom", noSettings, noSettings.with("a.b", "'c'"), `SET "a"."b" TO 'c'`},
		{"quoted name", noSettings, noSettings.with(`a"b.c`, "1"), `SET "a""b"."c" TO 1`},
		{"time zone", noSettings, noSettings.with("timezone", "INTERVAL '1' HOUR TO MINUTE"), "SET TIME ZONE INTERVAL '1' HOUR TO MINUTE"},
		{"role last", noSettings, noSettings.with("role", "boss").with("x", "1"), `SET "x" TO 1; SET ROLE boss`},
		{"role first", noSettings.with("role", "boss"), x, `RESET ROLE; SET "x" TO 1`},
		{"same role, more settings", noSettings.with("role", "boss"), noSettings.with("role", "boss").with("x", "1"), `RESET ROLE; SET "x" TO 1; SET ROLE boss`},
		{"same role, nothing else", noSettings.with("role", "boss").with("x", "1"), noSettings.with("x", "1").with("role", "boss"), ""},
		{"session authorisation before role", noSettings, noSettings.with("role", "boss").with("session_authorization", "bob"), `SET SESSION AUTHORIZATION bob; SET ROLE boss`},
		{"both reset", noSettings.with("role", "boss").with("session_authorization", "bob"), noSettings, `RESET ROLE; RESET SESSION AUTHORIZATION`},
		{"by function", noSettings, noSettings.with("search_path", byFunction+"'a, b'"), `SELECT pg_catalog.set_config('search_path', 'a, b', false)`},
		{"role by function", noSettings, noSettings.with("role", byFunction+"'boss'"), `SELECT pg_catalog.set_config('role', 'boss', false)`},
	} {
		t.Run(c.name, func(t *testing.T) { equal(t, "SQL", difference(c.from, c.to), c.want) })
	}
}

// TestListValue: literals in a list are identifiers in the form in which the server keeps it.
func TestListValue(t *testing.T) {
	for in, want := range map[string]string{
		"a, b": "a, b", "'a', B": `"a", B`, `"A", 'it''s'`: `"A", "it's"`, "'a\"b'": `"a""b"`, "'x": `"x"`, "": "",
	} {
		equal(t, in, listValue(in), want)
	}
}

// TestValues: durations, booleans and literals as PostgreSQL's settings have them.
func TestValues(t *testing.T) {
	for in, want := range map[string]string{"0": "0s", "250": "250ms", "5s": "5s", "2min": "2m0s", "1h": "1h0m0s", "1d": "24h0m0s", "7us": "7µs", "": "0s", "x": "0s", "99999999999999": "0s", "10 s": "10s"} {
		equal(t, in, parseTimeout(in).String(), want)
	}
	for in, want := range map[string]string{"'a''b'": "a'b", `"x"`: "x", " y ": "y", "'": "'"} {
		equal(t, in, unquote(in), want)
	}
	for _, v := range []string{"on", "TRUE", "yes", "1"} {
		if !isOn(v) || isOff(v) {
			t.Error(v)
		}
	}
	for _, v := range []string{"off", "'false'", "0"} {
		if isOn(v) || !isOff(v) {
			t.Error(v)
		}
	}
	if isOff("") || isOff("nonsense") || isOn("nonsense") {
		t.Error("what is not known is neither")
	}
	for _, v := range []string{"SJIS", "shift_jis_2004", "big5", "GB18030", "uhc", "johab", "Win932"} {
		if !unsafeEncoding(v) {
			t.Error(v)
		}
	}
	if unsafeEncoding("UTF8") || unsafeEncoding("LATIN1") || unsafeEncoding("EUC_JP") {
		t.Error("a safe encoding")
	}
}

// TestOffload: the percentage decides by client.
func TestOffload(t *testing.T) {
	in := 0
	for i := range 1000 {
		host := strings.Repeat("h", i%50+1) + string(rune('a'+i%26))
		if offloaded(100, host, "u") == false || offloaded(0, host, "u") {
			t.Fatal("all and none")
		}
		if offloaded(30, host, "u") {
			in++
		}
	}
	if in < 150 || in > 450 {
		t.Errorf("%d of 1000 at 30 %%", in)
	}
}

// apply carries out the effects of one statement that the server has completed.
func (s *state) apply(effects []router.Effect) {
	for i := range effects {
		s.applyOne(&effects[i])
	}
}
