package router

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files and generated pages")

// goldenCase is one text of a golden file and the verdict expected.
type goldenCase struct {
	file string
	line int
	text string
	want string
	env  Env
}

// readGolden reads a golden file: texts of one or more lines, each with a line "=> verdict"
// behind it. Lines that start with "# " between cases are comments, lines that start with "@"
// set what the cases behind them run with: "@catalog none|assume|shop|triggered" (shop with an event trigger), "@path a, b", "@temp on|off",
// "@std on|off", "@unsafe on|off".
func readGolden(t testing.TB, file string) []goldenCase {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	env := Env{Cluster: "main", Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}
	var cases []goldenCase
	var text []string
	for i, line := range strings.Split(string(raw), "\n") {
		switch {
		case strings.HasPrefix(line, "=> "):
			s := strings.Join(text, "\n")
			s = strings.ReplaceAll(s, `\x00`, "\x00")
			s = strings.ReplaceAll(s, `\uFEFF`, "\uFEFF")
			cases = append(cases, goldenCase{file, i + 1, s, line[3:], env})
			text = nil
		case len(text) == 0 && (line == "" || strings.HasPrefix(line, "# ")):
		case len(text) == 0 && strings.HasPrefix(line, "@"):
			goldenDirective(t, &env, line)
		default:
			text = append(text, line)
		}
	}
	if len(text) > 0 {
		t.Fatalf("%s: text without a verdict: %q", file, text)
	}
	return cases
}

// goldenDirective changes env as a line with "@" says.
func goldenDirective(t testing.TB, env *Env, line string) {
	t.Helper()
	key, value, _ := strings.Cut(line[1:], " ")
	switch key {
	case "catalog":
		switch value {
		case "none":
			env.Catalog = nil
		case "assume":
			env.Catalog = &Catalog{AssumeTables: true}
		case "shop":
			env.Catalog = shopCatalog()
		case "triggered":
			env.Catalog = shopCatalog()
			env.Catalog.Generation, env.Catalog.OpaqueDDL = 2, true
		default:
			t.Fatalf("no catalog %q", value)
		}
	case "path":
		env.Path = &Path{Schemas: strings.Split(value, ", ")}
	case "temp":
		env.Path = &Path{Schemas: env.Path.Schemas, Temp: value == "on"}
	case "std":
		env.StdStrings = value == "on"
	case "unsafe":
		env.UnsafeEncoding = value == "on"
	default:
		t.Fatalf("unknown directive %q", line)
	}
}

// describe is a unit as golden files have it: class, reason, mark, target, and what else it says.
func describe(u *Unit) string {
	words := []string{u.Class.String(), u.Reason.String(), u.Mark.String()}
	if u.Certain {
		words = append(words, "certain")
	}
	if u.StandbyError {
		words = append(words, "25006")
	}
	if u.OnlyTx {
		words = append(words, "onlytx")
	}
	for i, name := range flagNames {
		if u.Flags&(1<<i) != 0 {
			words = append(words, "+"+name)
		}
	}
	switch u.Flags & (FlagOpaque | FlagLasting) {
	case FlagOpaque:
		words = append(words, "+passing") // DISCARD ALL removes it
	case FlagLasting:
		words = append(words, "+lasting-without-opaque")
	}
	if u.Hint != HintNone {
		words = append(words, fmt.Sprintf("hint=%d", u.Hint))
	}
	for i := range u.Effects {
		words = append(words, describeEffect(&u.Effects[i]))
	}
	return strings.Join(words, " ")
}

// flagNames are the flags as golden files have them, by their bits.
var flagNames = []string{
	"catalog", "opaque", "nextval", "ddl", "maycommit", "copyin", "copyout", "multi", "serializable", "txtime", "unparsed",
	"pgweir", "currval", "readinreadonly", "unknownname", "names", "begin", "reads", "settingparam", "cancels", "terminates", "notifies",
}

// effectNames are the kinds of effect as golden files have them.
var effectNames = map[EffectKind]string{
	EffectSet: "set", EffectReset: "reset", EffectResetAll: "resetall", EffectSetRole: "setrole", EffectSetSessionAuth: "setauth",
	EffectSetCharacteristics: "characteristics", EffectSetTransaction: "settx", EffectDiscardAll: "discardall", EffectDiscard: "discard",
	EffectPrepare: "prepare", EffectDeallocate: "deallocate", EffectDeallocateAll: "deallocateall", EffectListen: "listen",
	EffectUnlisten: "unlisten", EffectPin: "pin", EffectUnlockAll: "unlockall", EffectUnlock: "unlock", EffectVacate: "vacate", EffectSetParam: "setparam", EffectBegin: "begin",
	EffectCommit: "commit", EffectRollback: "rollback", EffectSavepoint: "savepoint", EffectRollbackTo: "rollbackto",
	EffectRelease: "release", EffectPrepareTransaction: "preparetx", EffectDeclare: "declare", EffectCloseCursor: "close",
}

// describeEffect is an effect as golden files have it.
func describeEffect(e *Effect) string {
	var args []string
	add := func(ok bool, s string) {
		if ok {
			args = append(args, s)
		}
	}
	tri := []string{"", "yes", "no"}
	add(e.Kind == EffectPin, e.Pin.String())
	add(e.Name != "" && e.Value == "", e.Name)
	add(e.Value != "", e.Name+"="+e.Value)
	add(e.Local, "local")
	add(e.AndChain, "chain")
	add(e.ByFunction, "function")
	add(e.Param != 0, fmt.Sprintf("$%d", e.Param))
	add(e.Tx.Isolation != 0, "isolation="+string(rune(e.Tx.Isolation)))
	add(e.Tx.ReadOnly != Unset, "readonly="+tri[e.Tx.ReadOnly])
	add(e.Tx.Deferrable != Unset, "deferrable="+tri[e.Tx.Deferrable])
	add(e.Tx.Snapshot, "snapshot")
	return effectNames[e.Kind] + "(" + strings.Join(args, ",") + ")"
}

// quietFlags are not written into golden files: the class and the reason say them.
const quietFlags = FlagMayCommit | FlagReads | FlagLateRows

// golden is describe without what is implied, with where an ordinary session's unit goes.
func golden(u *Unit) string {
	n := *u
	n.Flags &^= quietFlags
	words := strings.SplitN(describe(&n), " ", 4)
	target := Route(u, View{Offloaded: true}, testCluster(), testNow).Target.String()
	return strings.Join(slices.Insert(words, min(3, len(words)), target), " ")
}

// goldenMatch reports whether a verdict is the one wanted: its first words have to be, and
// all of them where more than class and reason stand there.
func goldenMatch(got, want string) bool {
	g, w := strings.Fields(got), strings.Fields(want)
	if len(w) <= 2 {
		return slices.Equal(g[:len(w)], w)
	}
	return got == want
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	total := 0
	for _, file := range files {
		cases := readGolden(t, file)
		total += len(cases)
		c := New(Config{})
		verdicts := map[int]string{}
		for _, g := range cases {
			u := c.Classify([]byte(g.text), &g.env)
			again := c.Classify([]byte(g.text), &g.env)
			third := c.Classify([]byte(g.text), &g.env)
			got := golden(u)
			if golden(again) != got || golden(third) != got {
				t.Errorf("%s:%d: %q: %s, and from the cache %s, %s", g.file, g.line, g.text, got, golden(again), golden(third))
			}
			verdicts[g.line] = got
			if *update && goldenMatch(got, strings.Join(strings.Fields(g.want)[:2], " ")) {
				continue
			}
			if !goldenMatch(got, g.want) {
				t.Errorf("%s:%d: %q\n got %s\nwant %s", g.file, g.line, g.text, got, g.want)
			}
		}
		if *update && !t.Failed() {
			rewriteGolden(t, file, verdicts)
		}
	}
	if total < 400 {
		t.Errorf("%d statements in the golden files; 400 are the least", total)
	}
}

// rewriteGolden puts the whole verdicts into a golden file.
func rewriteGolden(t *testing.T, file string, verdicts map[int]string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(raw), "\n")
	for n, v := range verdicts {
		lines[n-1] = "=> " + v
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// shopPath is the path of a session in the golden database.
var shopPath = &Path{Schemas: []string{"pg_catalog", "app", "public"}}

// shopCatalog is the golden database.
func shopCatalog() *Catalog {
	table := RelInfo{Kind: 'r', Persistence: 'p', Read: VerdictRead}
	read := FuncInfo{Verdict: VerdictRead}
	doubt := FuncInfo{Verdict: VerdictDoubtful}
	return &Catalog{
		Generation: 1,
		Functions: map[QName]FuncInfo{
			{"public", "stable_fn"}:   read,
			{"app", "price"}:          read,
			{"public", "price"}:       read,
			{"public", "volatile_fn"}: doubt,
			{"public", "both_fn"}:     read,
			{"app", "both_fn"}:        doubt,
			{"other", "hidden_fn"}:    read,
			{"public", "timeofday"}:   doubt,
			{"app", "audit"}:          {Verdict: VerdictDoubtful, Opaque: true, Lasting: true},
			{"app", "holds_lock"}:     {Verdict: VerdictDoubtful, Opaque: true},
			{"app", "stable_opaque"}:  {Verdict: VerdictRead, Opaque: true, Lasting: true},
			{"app", "new_id"}:         {Verdict: VerdictDoubtful, Nextval: true},
			{"app", "node_port"}:      {Verdict: VerdictNode},
			{"app", "transfer"}:       {Verdict: VerdictDoubtful},
			{"app", "transfer_dyn"}:   {Verdict: VerdictDoubtful, Opaque: true, Lasting: true},
			{"app", "groups"}:         doubt,
			{"app", "Mixed Case"}:     doubt,
		},
		Relations: map[QName]RelInfo{
			{"public", "t"}:                table,
			{"public", "u"}:                table,
			{"public", "sample"}:           {Kind: 'r', Persistence: 'p', Read: VerdictRead, WriteNextval: true},
			{"app", "users"}:               table,
			{"app", "orders"}:              {Kind: 'p', Persistence: 'p', Read: VerdictRead, WriteNextval: true},
			{"app", "audited"}:             {Kind: 'r', Persistence: 'p', Read: VerdictRead, WriteOpaque: true, WriteLasting: true},
			{"app", "lock_written"}:        {Kind: 'r', Persistence: 'p', Read: VerdictRead, WriteOpaque: true},
			{"app", "set"}:                 table,
			{"public", "pgbench_accounts"}: table,
			{"app", "cache"}:               {Kind: 'r', Persistence: 'u', Read: VerdictPrimary},
			{"app", "scratch"}:             {Kind: 'r', Persistence: 't', Read: VerdictPrimary},
			{"app", "remote"}:              {Kind: 'f', Persistence: 'p', Read: VerdictPrimary},
			{"app", "ids"}:                 {Kind: 'S', Persistence: 'p', Read: VerdictPrimary},
			{"app", "plain_view"}:          {Kind: 'v', Persistence: 'p', Read: VerdictRead},
			{"app", "volatile_view"}:       {Kind: 'v', Persistence: 'p', Read: VerdictDoubtful},
			{"app", "writing_view"}:        {Kind: 'v', Persistence: 'p', Read: VerdictPrimary},
			{"app", "stat_view"}:           {Kind: 'v', Persistence: 'p', Read: VerdictNode},
			{"app", "cache_view"}:          {Kind: 'v', Persistence: 'p', Read: VerdictPrimary, Reason: ReasonUnlogged},
			{"app", "secured"}:             {Kind: 'r', Persistence: 'p', Read: VerdictRead, Calls: true},
			{"app", "opaque_view"}:         {Kind: 'v', Persistence: 'p', Read: VerdictRead, ReadOpaque: true, ReadLasting: true},
			{"app", "lock_view"}:           {Kind: 'v', Persistence: 'p', Read: VerdictRead, ReadOpaque: true},
			{"app", "report"}:              {Kind: 'm', Persistence: 'p', Read: VerdictRead},
			{"other", "hidden"}:            table,
		},
		VolatileOperators:  map[string]bool{"<#>": true, "<##>": true},
		VolatileTypes:      map[string]bool{"bad_domain": true, "loud_domain": true},
		AttributeFunctions: map[string]bool{"full_name": true, "loud_name": true},
		OpaqueNames:        map[string]bool{"<##>": true, "loud_domain": true, "loud_name": true},
		FixedSettings:      map[string]bool{"ext.fixed": true},
	}
}
