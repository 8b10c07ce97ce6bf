package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport says which packages of this module each package may import outside of its tests.
// What is not listed imports none of them; "*" stands for all but cmd.
var mayImport = map[string][]string{
	"cmd/pgweir":       {"*"},
	"bench":            {"*"},
	"proxy":            {"proxy/pool", "router", "health", "internal/pgwire", "internal/auth", "internal/catalog"},
	"proxy/pool":       {"internal/pgwire", "internal/auth"},
	"router":           {"health"},
	"internal/catalog": {"router"},
}

// mayReach says which of the modules below are for which packages only: the import path begins
// with the key. Tests may import all of them.
var mayReach = map[string][]string{
	"github.com/jackc/pgproto3/v2":       {},
	"github.com/lib/pq":                  {"bench"},
	"github.com/xdg-go":                  {"internal/pgtest"},
	"github.com/rogpeppe/go-internal":    {},
	"go.uber.org/goleak":                 {},
	"github.com/jackc/pgx/v5/pgconn":     {"cmd/pgweir", "health", "internal/catalog", "internal/auth", "internal/localpg", "internal/pgtest", "router/genfunctions", "bench"},
	"github.com/jackc/pgx/v5/pgproto3":   {"proxy/pool", "internal/pgtest"},
	"github.com/prometheus/client_model": {"internal/admin", "internal/admin/metricstest", "bench"},
	"go.yaml.in/yaml":                    {"cmd/pgweir"},
	"testing":                            {"internal/pgtest", "internal/admin/metricstest"},
}

// pure lists packages of the standard library that a package must do without. time is left
// out: durations are values, and clock lists what reads one.
var pure = map[string][]string{
	"router": {"net", "os", "context", "log", "log/slog", "io/fs", "os/exec", "net/http"},
}

// clock lists the functions of time that read a clock or wait for one.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}

// source is one Go file of this module.
type source struct {
	path string // from the top of the module
	pkg  string // its directory
	test bool
	file *ast.File
}

// sources parses every Go file of the module, other modules below it left out.
func sources(t *testing.T) []source {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var out []source
	set := token.NewFileSet()
	err = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != top {
				return filepath.SkipDir
			}
			if name := entry.Name(); path != top && (name == "testdata" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, source{path: rel, pkg: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"), file: file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d files were found", len(out))
	}
	return out
}

// imports are the paths that a file imports.
func (s source) imports(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, i := range s.file.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, path)
	}
	return out
}

// TestImports holds who imports whom.
func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		for _, path := range s.imports(t) {
			if path == "C" {
				t.Errorf("%s uses cgo", s.path)
			}
			ours, isOurs := strings.CutPrefix(path, "pgweir/")
			switch {
			case isOurs && strings.HasPrefix(ours, "cmd/"):
				t.Errorf("%s imports %s: nothing imports cmd", s.path, path)
			case s.test:
			case isOurs && !slices.Contains(mayImport[s.pkg], ours) && !slices.Contains(mayImport[s.pkg], "*"):
				t.Errorf("%s imports %s", s.path, path)
			case isOurs && strings.HasSuffix(ours, "test"):
				t.Errorf("%s imports %s, which is for tests", s.path, path)
			case slices.Contains(pure[s.pkg], path):
				t.Errorf("%s imports %s, but %s is pure", s.path, path, s.pkg)
			default:
				for module, who := range mayReach {
					if (path == module || strings.HasPrefix(path, module+"/")) && !slices.Contains(who, s.pkg) {
						t.Errorf("%s imports %s", s.path, path)
					}
				}
			}
		}
	}
}

// TestLinkIsTheOnlyWayToASocket holds that proxy speaks to sockets through pgwire.Link: only
// accepting a connection and the handshake before the first message name net.Conn.
func TestLinkIsTheOnlyWayToASocket(t *testing.T) {
	allowed := []string{"proxy/server.go", "proxy/startup.go"}
	for _, s := range sources(t) {
		if s.pkg != "proxy" || s.test || slices.Contains(allowed, filepath.ToSlash(s.path)) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "net" && strings.HasSuffix(sel.Sel.Name, "Conn") {
					t.Errorf("%s names net.%s", s.path, sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestHouseRules holds what structure and style ask of every package: no init, no name that says
// nothing, no sleep but under a fake clock, no clock in a pure package.
func TestHouseRules(t *testing.T) {
	for _, s := range sources(t) {
		switch name := s.file.Name.Name; name {
		case "util", "utils", "common", "models", "manager", "helpers", "misc":
			t.Errorf("%s: the package name %s says nothing", s.path, name)
		}
		fakeClock := slices.Contains(s.imports(t), "testing/synctest")
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s has an init function", s.path)
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				switch {
				case !ok || x.Name != "time":
				case n.Sel.Name == "Sleep" && !fakeClock:
					t.Errorf("%s sleeps", s.path)
				case pure[s.pkg] != nil && !s.test && slices.Contains(clock, n.Sel.Name):
					t.Errorf("%s calls time.%s, but %s is pure", s.path, n.Sel.Name, s.pkg)
				}
			}
			return true
		})
	}
}
