package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgweir/internal/console"
	"pgweir/proxy"
)

// consoleServer is a server of a configuration that does not run.
func consoleServer(t *testing.T, yaml string) *server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pgweir.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := (&Source{File: file, Environ: map[string]string{}}).Load()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPausedPoolsKeepNothingOpen holds that min_pool_size opens nothing for a database that is paused.
func TestPausedPoolsKeepNothingOpen(t *testing.T) {
	s := consoleServer(t, "nodes: [pg-a]\nlisten: \"127.0.0.1:0\"\nadmin: off\nmin_pool_size: 3\ndatabases: {app: {}, other: {}}\n")
	least := func(name string) int { return s.limits("main", name, "u").Min }
	control := &consoleControl{s}
	for _, step := range []struct {
		order      console.Order
		app, other int
	}{
		{console.Order{Verb: console.Pause, Database: "app"}, 0, 3},
		{console.Order{Verb: console.Resume, Database: "app"}, 3, 3},
		{console.Order{Verb: console.Kill, Database: "other"}, 3, 0},
		{console.Order{Verb: console.Pause}, 0, 0},
		{console.Order{Verb: console.Resume}, 3, 3},
	} {
		if err := control.Carry(t.Context(), "root", step.order); err != nil {
			t.Fatalf("%v: %v", step.order, err)
		}
		if app, other := least("app"), least("other"); app != step.app || other != step.other {
			t.Errorf("after %v %d and %d are kept open", step.order, app, other)
		}
	}
}

// TestConsoleUsers holds who is what, and which names are the console's.
func TestConsoleUsers(t *testing.T) {
	s := consoleServer(t, "nodes: [pg-a]\nlisten: \"127.0.0.1:0\"\nadmin: off\nmonitor: {user: watcher, password: p}\n")
	if s.consoleRole("watcher") != console.RoleAdmin || s.consoleRole("anybody") != "" {
		t.Error("without admin.users the monitor's user alone is an admin")
	}
	if _, err := everyCluster(s.clusters).Lookup(t.Context(), "watcher"); err != nil {
		t.Error(err)
	}
	if cfg := s.config.Load(); !cfg.isConsole("pgweir") || !cfg.isConsole("pgbouncer") || cfg.isConsole("app") || cfg.isConsole("") {
		t.Error("pgweir and pgbouncer are the console")
	}
	s = consoleServer(t, "nodes: [pg-a]\nlisten: \"127.0.0.1:0\"\nadmin: {listen: off, users: {eve: stats}}\nconsole: {database: weir}\ndatabases: {pgbouncer: {}, \"*\": {}}\n")
	if s.consoleRole("pgweir") != "" || s.consoleRole("eve") != console.RoleStats {
		t.Error("admin.users says who may")
	}
	if cfg := s.config.Load(); !cfg.isConsole("weir") || cfg.isConsole("pgbouncer") || cfg.isConsole("pgweir") {
		t.Error("console.database moves the console, and a database called pgbouncer is one")
	}
	err := (&consoleControl{s}).Carry(t.Context(), "root", console.Order{Verb: console.Disable, Database: "nowhere"})
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
	if err := s.proxy.Resume("nowhere"); !errors.Is(err, proxy.ErrUnknownDatabase) {
		t.Error(err)
	}
}
