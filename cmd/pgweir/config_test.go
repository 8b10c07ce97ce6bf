package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"pgweir/proxy"
	"pgweir/router"
)

// update rewrites the golden files: go test ./cmd/pgweir -update.
var update = flag.Bool("update", false, "rewrite golden files")

// golden is one case of testdata/wrong or testdata/good: a configuration, variables, flags and
// other files, and what is said of them.
type golden struct {
	path    string
	archive *txtar.Archive
	dir     string
}

// openGolden lays the files of a case out in a directory of its own and goes there.
func openGolden(t *testing.T, path string) *golden {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{path: path, archive: archive, dir: t.TempDir()}
	for _, f := range archive.Files {
		if err := os.WriteFile(filepath.Join(g.dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(g.dir)
	return g
}

// lines are the lines of one file of the case, none when it is not there.
func (g *golden) lines(name string) []string {
	for _, f := range g.archive.Files {
		if f.Name == name {
			return strings.FieldsFunc(string(f.Data), func(r rune) bool { return r == '\n' })
		}
	}
	return nil
}

// load reads the case's configuration as a command would.
func (g *golden) load(t *testing.T) (*Config, error) {
	t.Helper()
	fs := newFlagSet("test", "")
	src := newSource(fs, g.lines("env"))
	args := g.lines("flags")
	if g.lines("pgweir.yaml") != nil {
		args = append([]string{"-c", "pgweir.yaml"}, args...)
	}
	if err := parseFlags(fs, args, 0, nil); err != nil {
		t.Fatal(err)
	}
	return src.Load()
}

// check compares got with the file want of the case, or writes it there.
func (g *golden) check(t *testing.T, got string) {
	t.Helper()
	want := strings.Join(g.lines("want"), "\n")
	if got = strings.TrimSpace(got); got == want {
		return
	}
	if !*update {
		t.Errorf("%s:\n--- got\n%s\n--- want\n%s", g.path, got, want)
		return
	}
	set := false
	for i := range g.archive.Files {
		if g.archive.Files[i].Name == "want" {
			g.archive.Files[i].Data, set = []byte(got+"\n"), true
		}
	}
	if !set {
		g.archive.Files = append(g.archive.Files, txtar.File{Name: "want", Data: []byte(got + "\n")})
	}
	if err := os.WriteFile(g.path, txtar.Format(g.archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

// goldenFiles are the cases of a directory, as absolute names.
func goldenFiles(t *testing.T, dir string, least int) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
	if err != nil || len(files) < least {
		t.Fatalf("testdata/%s has %d cases, %d are wanted (%v)", dir, len(files), least, err)
	}
	for i := range files {
		if files[i], err = filepath.Abs(files[i]); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestWrongConfigurations holds every message that a wrong configuration gets.
func TestWrongConfigurations(t *testing.T) {
	for _, file := range goldenFiles(t, "wrong", 40) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			g := openGolden(t, file)
			cfg, err := g.load(t)
			var problems Problems
			if cfg != nil || !errors.As(err, &problems) {
				t.Fatalf("accepted, or not told as problems: %v", err)
			}
			g.check(t, err.Error())
		})
	}
}

// TestGoodConfigurations holds what config print shows of configurations in all their forms.
func TestGoodConfigurations(t *testing.T) {
	for _, file := range goldenFiles(t, "good", 5) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			g := openGolden(t, file)
			cfg, err := g.load(t)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for _, w := range cfg.Warnings {
				out.WriteString("warning: " + w + "\n")
			}
			for _, e := range cfg.Effective() {
				if e.Source != "default" || strings.HasPrefix(e.Path, "databases") {
					out.WriteString(e.Path + " = " + e.Value + "  # " + e.Source + "\n")
				}
			}
			if strings.Contains(out.String(), "hunter2") {
				t.Error("a secret is shown")
			}
			g.check(t, out.String())
		})
	}
}

// TestExampleOfTheManual holds the lookup order over the levels, on the manual's own example.
func TestExampleOfTheManual(t *testing.T) {
	file, err := filepath.Abs("testdata/good/manual.txt")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := openGolden(t, file).load(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		listener       int
		database, user string
		cluster, name  string
		route          router.RouteMode
		size           int
		wait           time.Duration
	}{
		{0, "app", "alice", "shop", "app", router.RouteAuto, 40, 10 * time.Millisecond},
		{1, "app", "alice", "shop", "app", router.RouteStandby, 40, 10 * time.Millisecond},
		{0, "report", "alice", "shop", "app", router.RouteStandby, 8, 10 * time.Millisecond},
		{0, "app", "batch", "shop", "app", router.RoutePrimary, 4, 10 * time.Millisecond},
		{1, "app", "batch", "shop", "app", router.RouteStandby, 4, 10 * time.Millisecond},
		{0, "other", "alice", "ledger", "other", router.RouteShadow, 20, 20 * time.Millisecond},
	} {
		s, err := cfg.Settings(c.listener, c.database, c.user)
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		if s.Cluster.Name != c.cluster || s.DBName != c.name || s.Route != c.route || s.Pool.Size != c.size || s.FreshnessWait != c.wait {
			t.Errorf("%v: got cluster %s, database %s, route %v, pool_size %d, freshness_wait %s",
				c, s.Cluster.Name, s.DBName, s.Route, s.Pool.Size, s.FreshnessWait)
		}
	}
}

// TestSettingsLevels holds that each level stands above the ones behind it.
func TestSettingsLevels(t *testing.T) {
	cfg := loadText(t, `
listen: [":1", {addr: ":2", consistency: global}]
pool_size: 1
reads_on_primary: never
prefer: zone
zone: z1
databases:
  a: {pool_size: 3, consistency: eventual}
  b: {}
clusters:
  main: {nodes: [x, y], pool_size: 2, freshness_wait: 7ms}
users:
  u: {pool_size: 4, databases: {a: {pool_size: 5, prefer: none}}}
`)
	size := func(listener int, database, user string) Settings {
		s, err := cfg.Settings(listener, database, user)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for want, got := range map[int]int{
		2: size(0, "b", "v").Pool.Size, 3: size(0, "a", "v").Pool.Size,
		4: size(0, "b", "u").Pool.Size, 5: size(0, "a", "u").Pool.Size,
	} {
		if got != want {
			t.Errorf("pool_size %d, want %d", got, want)
		}
	}
	s := size(1, "a", "v")
	if s.Consistency != router.ConsistencyGlobal || s.ReadsOnPrimary != router.ReadsNever || s.PreferZone != "z1" {
		t.Errorf("got %+v", s)
	}
	if s.FreshnessWait != 7*time.Millisecond || s.WaitAt(router.ConsistencySession) != 7*time.Millisecond {
		t.Errorf("freshness_wait %s", s.FreshnessWait)
	}
	if got := size(0, "a", "u").PreferZone; got != "" {
		t.Errorf("prefer: none is not obeyed: %q", got)
	}
	cfg = loadText(t, `
query_timeout: 1s
client_lifetime: 1h
clusters: {main: {nodes: [x, y], transaction_timeout: 2s}}
databases: {a: {query_timeout: 3s, client_idle_timeout: 4s}, b: {}}
users: {u: {query_timeout: 5s, databases: {a: {idle_transaction_timeout: 6s}}}, v: {client_idle_timeout: 0}}
`)
	for _, c := range []struct {
		database, user string
		want           proxy.Times
	}{
		{"b", "w", proxy.Times{Query: time.Second, Transaction: 2 * time.Second, Life: time.Hour}},
		{"a", "w", proxy.Times{Query: 3 * time.Second, Transaction: 2 * time.Second, Idle: 4 * time.Second, Life: time.Hour}},
		{"a", "v", proxy.Times{Query: 3 * time.Second, Transaction: 2 * time.Second, Life: time.Hour}},
		{"a", "u", proxy.Times{Query: 5 * time.Second, Transaction: 2 * time.Second, IdleTransaction: 6 * time.Second, Idle: 4 * time.Second, Life: time.Hour}},
		{"b", "u", proxy.Times{Query: 5 * time.Second, Transaction: 2 * time.Second, Life: time.Hour}},
	} {
		if s, err := cfg.Settings(0, c.database, c.user); err != nil || s.Times != c.want {
			t.Errorf("%s as %s: %+v, %v", c.database, c.user, s.Times, err)
		}
	}
	_, err := cfg.Settings(0, "c", "u")
	var none *NoDatabaseError
	if !errors.As(err, &none) || none.Database != "c" {
		t.Errorf("got %v", err)
	}
}

// loadText loads one configuration that must be right.
func loadText(t *testing.T, text string) *Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pgweir.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := (&Source{File: file}).Load()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestEveryKeyHasOneFlagAndVariable holds that no two settings share a name on the command line.
func TestEveryKeyHasOneFlagAndVariable(t *testing.T) {
	flags, variables := map[string]string{}, map[string]string{}
	for _, k := range keys() {
		if before := flags[k.flag]; before != "" {
			t.Errorf("--%s sets %s and %s", k.flag, before, k.path)
		}
		if before := variables[k.variable()]; before != "" {
			t.Errorf("%s sets %s and %s", k.variable(), before, k.path)
		}
		flags[k.flag], variables[k.variable()] = k.path, k.path
	}
	for _, want := range []string{"node", "nodes", "listen", "admin", "route", "hold-timeout", "monitor-password-file", "discover", "zone"} {
		if flags[want] == "" {
			t.Errorf("there is no --%s", want)
		}
	}
}
