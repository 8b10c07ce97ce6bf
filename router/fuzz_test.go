package router

import (
	"bytes"
	"path/filepath"
	"testing"
)

// FuzzClassify: the classifier never fails; a read or session verdict does not change under
// comments and white space; a write behind a semicolon sends the text to the primary; the
// cache says what the parser says.
func FuzzClassify(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		for _, g := range readGolden(f, file) {
			f.Add([]byte(g.text), g.env.StdStrings)
		}
	}
	catalog := shopCatalog()
	c := New(Config{CacheSize: 256, CacheBytes: 1 << 20})
	f.Fuzz(func(t *testing.T, text []byte, std bool) {
		env := &Env{Cluster: "main", Database: "shop", Catalog: catalog, StdStrings: std, Path: shopPath}
		u, _ := parse(text, env, nil)
		u = withHint(u, leadingHint(text))
		got := describe(u)
		for range 3 {
			if again := describe(c.Classify(text, env)); again != got {
				t.Fatalf("%q is %s, and from the cache %s", text, got, again)
			}
		}
		Split(text, std)
		checkUnit(t, text, u)
		if u.Class == ClassPrimary {
			return
		}
		for _, padded := range [][]byte{
			append(bytes.Clone(text), "\n-- the end"...),
			append(bytes.Clone(text), "\n/* the /* end */ */"...),
			append([]byte("/* traced */ \t"), text...),
		} {
			if p, _ := parse(padded, env, nil); p.Class != u.Class || p.Reason != u.Reason || p.Mark != u.Mark {
				t.Fatalf("%q is %s, and padded %s", text, got, describe(p))
			}
		}
		for _, behind := range []string{"\n;DELETE FROM t", "\n; SELECT nextval('ids')", "\n;\nSELECT 1 FOR UPDATE"} {
			if p, _ := parse(append(bytes.Clone(text), behind...), env, nil); p.Class != ClassPrimary {
				t.Fatalf("%q is %s, and with %q behind it %s", text, got, behind, describe(p))
			}
		}
	})
}

// checkUnit checks what holds for every unit.
func checkUnit(t *testing.T, text []byte, u *Unit) {
	t.Helper()
	switch {
	case u.Reason == ReasonUnknown || u.Reason >= reasonCount,
		u.Class == ClassRead && u.Mark == MarkWrite,
		u.Class == ClassSession && u.Mark != MarkNone,
		u.Class != ClassPrimary && (u.Certain || u.StandbyError || u.Flags&(FlagOpaque|FlagUnparsed|FlagUnknownName) != 0),
		u.StandbyError && !u.Certain,
		u.OnlyTx && len(u.Effects) != 1:
		t.Fatalf("%q is %s", text, describe(u))
	}
}
