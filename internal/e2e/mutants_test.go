package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutant is pgweir with one protection of a shared connection off.
type mutant struct {
	name     string
	file     string // below the root of the module
	old, new string // old stands in it once
}

// mutants are what TestLeaks must find.
var mutants = []mutant{
	{
		"custom settings stay", "proxy/lease.go",
		"\tcase l.custom.count > 0 && l.custom != s.st.set.custom, !router.HasNames(s.left, l.left):\n\t\treturn pool.Unfit\n", "",
	},
	{"settings are not replayed", "proxy/lease.go", "\tif sql != \"\" {\n", "\tif sql == \"-\" {\n"},
	{"settings do not go ahead", "proxy/compose.go", "\tk.goesAhead(s.ahead)\n", ""},
	{"a name that was reset is gone", "proxy/state.go", "return from.with(name, atDefault)", "return from.reset(name)"},
	{"settings are not reset", "proxy/lease.go", "if _, ok := to.get(p.name); !ok && !isIdentity(p.name) {", "if _, ok := to.get(p.name); !ok && p.name == \"\" {"},
	{"a role stays", "proxy/lease.go", "\t\tif _, ok := from.get(name); ok {\n\t\t\tall = append", "\t\tif _, ok := from.get(name); ok && name == \"\" {\n\t\t\tall = append"},
	{"pinned connections are shared", "proxy/lease.go", "\tcase pin != router.PinNone:\n", "\tcase pin > router.PinOpaque+100:\n"},
	{"a connection is not wiped", "proxy/pool/pool.go", "\tif c.Dirty {\n", "\tif c.Dirty && c.State == c {\n"},
	{"what a trigger set stays", "proxy/startup.go", "if l.spoiled || l.left != \"\" || len(s.doubts) > 0 || s.st.custom || s.st.lasts() || ", "if "},
	{"SQL sees everybody's statements", "proxy/claim.go", "|| !s.mentions(c) {", "|| true {"},
}

// TestMutantsApply keeps the list in step with the code.
func TestMutantsApply(t *testing.T) {
	for _, m := range mutants {
		if _, err := m.source(); err != nil {
			t.Error(err)
		}
	}
}

// source is the changed file.
func (m *mutant) source() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join("..", "..", m.file))
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(b), m.old); n != 1 {
		return nil, &mutantError{m, n}
	}
	return []byte(strings.Replace(string(b), m.old, m.new, 1)), nil
}

// mutantError is a mutant that does not fit the code.
type mutantError struct {
	m *mutant
	n int
}

func (e *mutantError) Error() string {
	return e.m.name + ": what it replaces stands " + map[bool]string{true: "nowhere", false: "more than once"}[e.n == 0] + " in " + e.m.file
}

// build makes the program.
func (m *mutant) build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	src, err := m.source()
	must(t, err)
	changed, overlay, bin := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "pgweir")
	must(t, os.WriteFile(changed, src, 0o600))
	original, err := filepath.Abs(filepath.Join("..", "..", m.file))
	must(t, err)
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	must(t, err)
	must(t, os.WriteFile(overlay, list, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", bin, "pgweir/cmd/pgweir").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// TestLeakMutants runs TestLeaks on each mutant: it must fail within a minute. It takes some minutes, so it
// runs on request only: make leak-mutants.
func TestLeakMutants(t *testing.T) {
	if os.Getenv("LEAK_MUTANTS") == "" {
		t.Skip("runs with LEAK_MUTANTS=1")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			bin := m.build(t)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			hunt := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestLeaks$", "-test.v")
			hunt.Env = append(os.Environ(), "PGWEIR_BIN="+bin, "LEAK_TIME=1m")
			began := time.Now()
			out, err := hunt.CombinedOutput()
			if err == nil {
				t.Fatal("nothing was found")
			}
			text := string(out)
			i := strings.Index(text, ": client ")
			if i < 0 {
				t.Fatalf("the hunt ended without a find:\n%s", text)
			}
			line, _, _ := strings.Cut(text[i+2:], "\n")
			t.Logf("after %v with the start: %.200s", time.Since(began).Round(time.Second), line)
		})
	}
}
