package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgweir/internal/localpg"
)

// The role and the database of the load. The role owns the database and is no superuser.
const (
	benchUser     = "bench"
	benchDatabase = "bench"
)

// rig is everything that is running: the nodes and the candidates. Made by newRig, ended by close.
type rig struct {
	options
	say      func(format string, args ...any)
	dir      string // of everything but the nodes
	as       account
	module   string // where go.mod stands
	program  string // pgweir
	crowded  bool   // what is started now has small pools
	other    string // the build beside it, "" without one
	cluster  *localpg.Cluster
	password string // of benchUser
	verifier string // the same as the nodes store it
	proxies  []*candidate
	missing  []string // candidates that are not installed
}

// newRig brings the nodes up and starts every candidate that is installed. After an error nothing
// is left running.
func newRig(ctx context.Context, o options, say func(string, ...any)) (r *rig, err error) {
	r = &rig{options: o, say: say, password: strings.ToLower(rand.Text())}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.as, err = serverAccount(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "pgweir-bench-"); err != nil {
		return nil, fmt.Errorf("make a directory for the proxies: %w", err)
	}
	if err = r.as.give(r.dir); err != nil {
		return nil, err
	}
	if err = r.build(ctx); err != nil {
		return nil, err
	}
	if err = r.startNodes(ctx); err != nil {
		return nil, err
	}
	if err = r.prepare(ctx); err != nil {
		return nil, err
	}
	return r, r.startProxies(ctx)
}

// build makes the program to measure from the tree.
func (r *rig) build(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module; the bench is run inside of it: %w", err)
	}
	r.module = strings.TrimSpace(string(out))
	r.program = filepath.Join(r.dir, "pgweir")
	if r.options.beside != "" {
		r.other = filepath.Join(r.dir, "pgweir.beside")
		if err := copyProgram(r.other, r.options.beside); err != nil {
			return err
		}
	}
	if r.options.pgweir == "" {
		r.say("building pgweir")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", r.program, "./cmd/pgweir")
		cmd.Dir = r.module
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build pgweir: %w: %s", err, bytes.TrimSpace(out))
		}
		return os.Chmod(r.program, 0o755) //nolint:gosec // another user runs it
	}
	return copyProgram(r.program, r.options.pgweir)
}

// copyProgram puts a program where the user that runs it may read it.
func copyProgram(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy the program to measure: %w", err)
	}
	return os.WriteFile(to, text, 0o755) //nolint:gosec // another user runs it
}

// startNodes brings up a primary and two standbys.
func (r *rig) startNodes(ctx context.Context) error {
	bins, err := localpg.Find(15)
	if errors.Is(err, localpg.ErrNotFound) {
		bins, err = localpg.Find(0)
	}
	if err != nil {
		return err
	}
	r.say("starting a primary and two standbys of PostgreSQL %d", bins.Version)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	r.cluster, err = localpg.New(ctx, localpg.Config{Bins: bins, Standbys: 2, Settings: r.settings()})
	return err
}

// settings are the servers' settings, over those of localpg: enough connections for a session each of
// the idle clients, data in memory, no work of the server's own in between.
func (r *rig) settings() map[string]string {
	return map[string]string{
		"max_connections": strconv.Itoa(max(r.idle, 100) + 300),
		"shared_buffers":  "256MB",
		"max_wal_size":    "2GB",
		"autovacuum":      "off",
	}
}

// prepare makes roles, tables and the function that tells who answered.
func (r *rig) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	script, err := exec.CommandContext(ctx, r.program, "setup-sql").Output()
	if err != nil {
		return fmt.Errorf("run pgweir setup-sql: %w", err)
	}
	primary := r.cluster.Nodes[0]
	for _, s := range []struct{ db, sql string }{
		{"postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", benchUser, r.password)},
		{"postgres", fmt.Sprintf("CREATE DATABASE %s OWNER %s", benchDatabase, benchUser)},
		{"postgres", string(script)},
		{"postgres", fmt.Sprintf("ALTER ROLE pgweir PASSWORD '%s'", r.cluster.Password)},
		{benchDatabase, fmt.Sprintf("CREATE UNLOGGED TABLE bench_copy (id int, filler text); ALTER TABLE bench_copy OWNER TO %s", benchUser)},
	} {
		if err := primary.Exec(ctx, s.db, s.sql); err != nil {
			return fmt.Errorf("prepare the database: %w", err)
		}
	}
	if r.verifier, err = primary.Value(ctx, "postgres", fmt.Sprintf("SELECT rolpassword FROM pg_authid WHERE rolname = '%s'", benchUser)); err != nil {
		return fmt.Errorf("read the verifier of %s: %w", benchUser, err)
	}
	if err := r.cluster.InstallNodePort(ctx, benchDatabase); err != nil {
		return err
	}
	r.say("filling pgbench's tables, scale %d", r.scale)
	if _, err := r.pgbench(ctx, primary.Port(), "-i", "-q", "-s", strconv.Itoa(r.scale)); err != nil {
		return err
	}
	return r.cluster.WaitReplayed(ctx)
}

// pgbench runs pgbench against a port as benchUser and returns what it printed to standard output.
func (r *rig) pgbench(ctx context.Context, port int, args ...string) (string, error) {
	path := r.cluster.Bins().Path("pgbench")
	if !r.cluster.Bins().Has("pgbench") {
		path = "pgbench"
	}
	args = append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", benchUser, benchDatabase)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = r.dir, append(r.cluster.Environ(), "PGPASSWORD="+r.password, "PGSSLMODE=disable")
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		text := bytes.TrimSpace(errs.Bytes())
		return "", fmt.Errorf("run pgbench %s: %w: %s", strings.Join(args, " "), err, text[max(0, len(text)-1000):])
	}
	return out.String(), nil
}

// dsn is a connection URL to a port, as benchUser.
func (r *rig) dsn(port int) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(benchUser, r.password),
		Host: "127.0.0.1:" + strconv.Itoa(port), Path: "/" + benchDatabase, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// close ends everything and removes what it wrote.
func (r *rig) close() error {
	var errs []error
	for _, p := range r.proxies {
		errs = append(errs, p.stop())
	}
	if r.cluster != nil {
		errs = append(errs, r.cluster.Close())
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}
