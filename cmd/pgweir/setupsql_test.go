package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/internal/localpg"
)

// TestSetupSQL runs the script twice on a real server, as people do, and asks as the monitor
// what the monitor may know.
func TestSetupSQL(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := newCluster(t, localpg.Config{})
	node := cluster.Nodes[0]
	for _, role := range []string{"pgweir", `We"ird 'role\`} {
		script := setupScriptOf(t, "--promote", "--user", role)
		for range 2 {
			if err := node.Exec(ctx, "postgres", script); err != nil {
				t.Fatalf("role %s: %v", role, err)
			}
		}
	}
	mustExec(t, node, `
		CREATE ROLE intruder LOGIN;
		ALTER FUNCTION pgweir.user_lookup(text) OWNER TO intruder;
		GRANT EXECUTE ON FUNCTION pgweir.user_lookup(text) TO PUBLIC;`)
	mustExec(t, node, setupScriptOf(t))
	mustExec(t, node, `
		ALTER ROLE pgweir PASSWORD 'monitor';
		CREATE ROLE alice LOGIN PASSWORD 'a';
		CREATE ROLE old LOGIN PASSWORD 'a' VALID UNTIL '2001-01-01';
		CREATE ROLE soon LOGIN PASSWORD 'a' VALID UNTIL 'infinity';
		CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'a';
		CREATE ROLE copier LOGIN REPLICATION PASSWORD 'a';
		CREATE ROLE crowd PASSWORD 'a';
		CREATE ROLE nopass LOGIN;`)
	conn, err := pgconn.Connect(ctx, node.DSNFor("postgres", "pgweir", "monitor"))
	if err != nil {
		t.Fatalf("logging in as the monitor: %v", err)
	}
	defer conn.Close(ctx)

	for user, want := range map[string]bool{
		"alice": true, "soon": true, "old": false, "boss": false, "copier": false, "crowd": false, "nopass": false, "nobody": false, "pgweir": false,
	} {
		res := conn.ExecParams(ctx, DefaultAuthQuery, [][]byte{[]byte(user)}, nil, nil, nil).Read()
		if res.Err != nil {
			t.Fatal(res.Err)
		}
		if got := len(res.Rows) == 1 && string(res.Rows[0][0]) == user && strings.HasPrefix(string(res.Rows[0][1]), "SCRAM-SHA-256$"); got != want {
			t.Errorf("user %s: found %v, want %v", user, got, want)
		}
	}
	for _, sql := range []string{
		"SELECT system_identifier FROM pg_control_system()", "SELECT * FROM pg_stat_wal_receiver",
		"SELECT * FROM pg_stat_replication", "ALTER SYSTEM SET primary_conninfo = ''", "ALTER SYSTEM RESET primary_conninfo", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	_, err = conn.Exec(ctx, "SELECT rolpassword FROM pg_authid").ReadAll()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "42501" {
		t.Errorf("the monitor reads pg_authid: %v", err)
	}

	mustExec(t, node, "ALTER ROLE alice CONNECTION LIMIT 5")
	other, err := pgconn.Connect(ctx, node.DSNFor("postgres", "alice", "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	if res := other.ExecParams(ctx, DefaultAuthQuery, [][]byte{[]byte("alice")}, nil, nil, nil).Read(); res.Err == nil {
		t.Error("everybody may look up secrets")
	}
}

// TestSetupSQLRefusesNames holds that no name of a role gets out of its quotes.
func TestSetupSQLRefusesNames(t *testing.T) {
	for _, name := range []string{"", "pg_monitor", "a\nb", strings.Repeat("x", 64)} {
		if _, err := setupSQL(name, false); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

// newCluster starts PostgreSQL for a test, in the version that Debian 12 has where it is here.
func newCluster(t *testing.T, cfg localpg.Config) *localpg.Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts PostgreSQL")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if bins, err := localpg.Find(15); err == nil && os.Getenv(localpg.EnvBins) == "" {
		cfg.Bins = bins
	}
	cluster, err := localpg.New(ctx, cfg)
	if errors.Is(err, localpg.ErrNotFound) {
		t.Fatalf("no PostgreSQL here; make test installs it: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// mustExec runs SQL as superuser.
func mustExec(t *testing.T, node *localpg.Node, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := node.Exec(ctx, "postgres", sql); err != nil {
		t.Fatal(err)
	}
}

// setupScriptOf is what setup-sql prints.
func setupScriptOf(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := run(t.Context(), append([]string{"setup-sql"}, args...), nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
