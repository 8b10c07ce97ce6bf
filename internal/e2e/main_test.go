package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pgweir/internal/localpg"
)

// The role and database that most tests use. The role owns the database and is no superuser.
const (
	appUser     = "app"
	appPassword = "app secret"
	appDatabase = "appdb"
)

// superUser is a second superuser, for what only one may do; it logs in through pgweir by the
// configuration, since setup-sql's function does not give superusers out.
const (
	superUser     = "boss"
	superPassword = "boss secret"
)

// env is what the tests of the package share: one cluster of a primary and two standbys, made
// when the first test asks, and the built program.
var env struct {
	sync.Mutex
	dir     string // of the built program
	cluster *localpg.Cluster
	built   error
	builds  sync.Once
	addrs   sync.Map // that freeAddr has given out
}

// TestMain runs the tests and removes what they share.
func TestMain(m *testing.M) {
	code := m.Run()
	if env.cluster != nil {
		if err := env.cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if env.dir != "" {
		if err := os.RemoveAll(env.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sharedCluster is the cluster that is never hurt: a primary and two standbys with the
// application's role and database, and pg_stat_statements.
func sharedCluster(t testing.TB) *localpg.Cluster {
	t.Helper()
	env.Lock()
	defer env.Unlock()
	if env.cluster == nil {
		c, err := makeCluster(context.Background(), localpg.Config{Standbys: 2, Settings: map[string]string{
			"shared_preload_libraries": "pg_stat_statements",
			"max_connections":          "150",
		}})
		if errors.Is(err, localpg.ErrNotFound) {
			t.Skip(err)
		}
		must(t, err)
		must(t, c.Exec(context.Background(), "postgres", "CREATE EXTENSION pg_stat_statements"))
		env.cluster = c
	}
	return env.cluster
}

// newCluster makes a cluster for one test, which may hurt it.
func newCluster(t testing.TB, cfg localpg.Config) *localpg.Cluster {
	t.Helper()
	c, err := makeCluster(t.Context(), cfg)
	if errors.Is(err, localpg.ErrNotFound) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("log of %s (port %d):\n%s", n.Name, n.Port(), n.Logs(30))
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// makeCluster starts a cluster with the roles and the database of the tests.
func makeCluster(ctx context.Context, cfg localpg.Config) (*localpg.Cluster, error) {
	c, err := localpg.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for _, s := range []struct{ db, sql string }{
		{"postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'; CREATE ROLE %s SUPERUSER LOGIN PASSWORD '%s'", appUser, appPassword, superUser, superPassword)},
		{"postgres", fmt.Sprintf("CREATE DATABASE %s OWNER %s", appDatabase, appUser)},
	} {
		if err := c.Exec(ctx, s.db, s.sql); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.Exec(ctx, appDatabase, "ALTER SCHEMA public OWNER TO "+appUser); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.InstallNodePort(ctx, appDatabase); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// program is the path of the built pgweir; the test is skipped or failed where it cannot be had.
func program(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("PGWEIR_BIN"); p != "" {
		return p
	}
	env.builds.Do(func() {
		env.dir, env.built = os.MkdirTemp("", "pgweir-e2e-")
		if env.built != nil {
			return
		}
		args := []string{"build", "-o", filepath.Join(env.dir, "pgweir")}
		if raceEnabled {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "pgweir/cmd/pgweir")...).CombinedOutput()
		if err != nil {
			env.built = fmt.Errorf("build pgweir: %w\n%s", err, out)
		}
	})
	must(t, env.built)
	return filepath.Join(env.dir, "pgweir")
}

// eventually asks until it gets no complaint, for at most limit.
func eventually(t testing.TB, limit time.Duration, try func() error) {
	t.Helper()
	if err := within(t.Context(), limit, try); err != nil {
		t.Fatal(err)
	}
}

// within is eventually for callers that handle the last complaint themselves.
func within(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %v: %w", limit, err)
		}
	}
}
