package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"pgweir/internal/localpg"
)

// server is the one PostgreSQL that the tests of this package share; each makes a database
// of its own.
type server struct {
	once    sync.Once
	cluster *localpg.Cluster
	err     error
}

// shared is started by the first test that needs it and ended by TestMain.
var shared server

// TestMain runs the tests and ends the server.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// node returns the shared server.
func node(t testing.TB) *localpg.Node {
	t.Helper()
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		shared.cluster, shared.err = localpg.New(ctx, localpg.Config{
			Settings: map[string]string{"shared_preload_libraries": "pg_stat_statements"},
		})
	})
	if errors.Is(shared.err, localpg.ErrNotFound) {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster.Nodes[0]
}

// run runs SQL as the superuser.
func run(t testing.TB, db, sql string) {
	t.Helper()
	if err := node(t).Exec(t.Context(), db, sql); err != nil {
		t.Fatal(err)
	}
}

// database makes a database that goes with the test.
func database(t testing.TB, name string) {
	t.Helper()
	run(t, "postgres", "CREATE DATABASE "+name)
	t.Cleanup(func() {
		if err := node(t).Exec(context.Background(), "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
}

// target returns how to log in to the server as user.
func target(t testing.TB, db, user, password string) *pgconn.Config {
	t.Helper()
	cfg, err := pgconn.ParseConfig(node(t).DSNFor(db, user, password))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// super is target for the superuser.
func super(t testing.TB, db string) *pgconn.Config {
	return target(t, db, localpg.Superuser, shared.cluster.Password)
}

// read reads a database as the superuser, once.
func read(t testing.TB, db string, r Rules, c *cache) *snapshot {
	t.Helper()
	compiled, err := compileRules(r)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := readDatabase(t.Context(), super(t, db), time.Minute, compiled, c)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}
