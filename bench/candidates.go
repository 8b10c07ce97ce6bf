package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/internal/localpg"
)

// kind names a candidate: the heading of its column.
type kind string

// The candidates.
const (
	pgbouncer kind = "PgBouncer"
	haproxy   kind = "HAProxy"
	pgpool    kind = "Pgpool-II"
	weir      kind = "pgweir"
	weirAll   kind = "pgweir, all processors"
	beside    kind = "beside" // the build that -beside names
)

// candidate is one running proxy.
type candidate struct {
	kind    kind
	session bool   // PgBouncer's second process, in session mode
	version string // and mode, for people
	port    int
	admin   int // pgweir's port for HTTP
	child   *child
}

// stop ends it.
func (c *candidate) stop() error { return c.child.stop() }

// plan is how to start a candidate: what launch needs.
type plan struct {
	kind    kind
	session bool
	version string
	admin   int
	command command
	files   func(port int) map[string]string // name in the candidate's directory → text
}

// startProxies starts every candidate that this run measures.
func (r *rig) startProxies(ctx context.Context) error {
	for _, k := range []kind{pgbouncer, haproxy, pgpool, weir, weirAll, beside} {
		if r.quick && (k == pgpool || k == weirAll) || k == weirAll && r.maxprocs > 0 || k == beside && r.other == "" {
			continue
		}
		plans, err := r.plans(ctx, k)
		if errors.Is(err, exec.ErrNotFound) && k != pgbouncer {
			r.missing = append(r.missing, string(k))
			continue
		}
		if err != nil {
			return err
		}
		for _, p := range plans {
			c, err := r.launch(ctx, p)
			if err != nil {
				return err
			}
			r.proxies = append(r.proxies, c)
		}
	}
	return nil
}

// plans are the processes of a candidate. The error wraps exec.ErrNotFound where it is not installed.
func (r *rig) plans(ctx context.Context, k kind) ([]plan, error) {
	switch k {
	case pgbouncer:
		return r.planPgBouncer(ctx)
	case haproxy:
		return r.planHAProxy(ctx)
	case pgpool:
		return r.planPgpool(ctx)
	case weir:
		return r.planPgweir(ctx, weir, r.program, r.maxprocs)
	case weirAll:
		return r.planPgweir(ctx, weirAll, r.program, runtime.NumCPU())
	case beside:
		return r.planPgweir(ctx, beside, r.other, r.maxprocs)
	}
	panic("BUG: candidate " + string(k))
}

// launch starts a process and returns when it answers a query.
func (r *rig) launch(ctx context.Context, p plan) (*candidate, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if p.command.dir, err = os.MkdirTemp(r.dir, "proxy-"); err != nil {
		return nil, err
	}
	if err := r.as.give(p.command.dir); err != nil {
		return nil, err
	}
	for name, text := range p.files(port) {
		file := filepath.Join(p.command.dir, name)
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), r.as.give(file)); err != nil {
			return nil, fmt.Errorf("write the configuration of %s: %w", p.kind, err)
		}
	}
	p.command.as = r.as
	r.say("starting %s", p.version)
	ch, err := startChild(p.command)
	if err != nil {
		return nil, err
	}
	c := &candidate{kind: p.kind, session: p.session, version: p.version, port: port, admin: p.admin, child: ch}
	err = ch.await(ctx, func(ctx context.Context) error {
		conn, err := r.connect(ctx, port)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, oneRead).ReadAll()
		return errors.Join(err, conn.Close(ctx))
	})
	if err == nil {
		err = r.askProcs(ctx, c)
	}
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// oneRead is a query that any node may answer.
const oneRead = "SELECT abalance FROM pgbench_accounts WHERE aid = 1"

// connect logs in to a port as benchUser, within ten seconds.
func (r *rig) connect(ctx context.Context, port int) (*pgconn.PgConn, error) {
	conf, err := pgconn.ParseConfig(r.dsn(port))
	if err != nil {
		return nil, err
	}
	conf.Fallbacks = nil
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return pgconn.ConnectConfig(ctx, conf)
}

// find is where a candidate's program is; the variable with its name in capitals comes first.
func find(name string) (string, error) {
	if path := os.Getenv(strings.ToUpper(name)); path != "" {
		return exec.LookPath(path)
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name) // not everybody's PATH has it
}

// versionOf runs a program that prints its version and returns the first number with a dot in it.
func versionOf(ctx context.Context, path string, arg string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, arg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	v := regexp.MustCompile(`\d+(\.\d+)+`).FindString(string(out))
	if v == "" {
		return "", fmt.Errorf("ask %s for its version: it says %q", path, out)
	}
	return v, nil
}

// planPgBouncer is PgBouncer before the primary, in transaction mode; where that has no prepared
// statements, a second one in session mode.
func (r *rig) planPgBouncer(ctx context.Context) ([]plan, error) {
	path, err := find("pgbouncer")
	if err != nil {
		return nil, fmt.Errorf("find PgBouncer, with which everything is compared: %w", err)
	}
	version, err := versionOf(ctx, path, "--version")
	if err != nil {
		return nil, err
	}
	prepared := hasPrepared(version)
	one := func(mode string) plan {
		return plan{
			kind: pgbouncer, session: mode == "session", version: fmt.Sprintf("PgBouncer %s, %s mode", version, mode),
			command: command{path: path, args: []string{"pgbouncer.ini"}, ask: []syscall.Signal{syscall.SIGTERM}},
			files: func(port int) map[string]string {
				return map[string]string{
					"pgbouncer.ini": pgbouncerINI(mode, prepared, port, r.cluster.Nodes[0], r.idle, r.poolSize(100)),
					"userlist.txt":  fmt.Sprintf("%q %q\n", benchUser, r.verifier),
				}
			},
		}
	}
	if prepared {
		return []plan{one("transaction")}, nil
	}
	return []plan{one("transaction"), one("session")}, nil
}

// hasPrepared says whether a version of PgBouncer has prepared statements in transaction mode.
func hasPrepared(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (a > 1 || a == 1 && b >= 21)
}

// pgbouncerINI is PgBouncer's configuration: key pass-through as
// pgweir does it, and no line in the log for each client.
func pgbouncerINI(mode string, prepared bool, port int, primary *localpg.Node, idle, pool int) string {
	ini := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = userlist.txt
pool_mode = %s
max_client_conn = %d
default_pool_size = %d
log_connections = 0
log_disconnections = 0
`, primary.Port(), port, mode, max(idle, crowdMany)+500, pool)
	if prepared {
		ini += "max_prepared_statements = 200\n"
	}
	return ini
}

// planHAProxy is HAProxy in TCP mode before the primary.
func (r *rig) planHAProxy(ctx context.Context) ([]plan, error) {
	path, err := find("haproxy")
	if err != nil {
		return nil, err
	}
	version, err := versionOf(ctx, path, "-v")
	if err != nil {
		return nil, err
	}
	return []plan{{
		kind: haproxy, version: fmt.Sprintf("HAProxy %s, TCP mode, its default of threads", version),
		command: command{path: path, args: []string{"-db", "-f", "haproxy.cfg"}, ask: []syscall.Signal{syscall.SIGTERM}},
		files: func(port int) map[string]string {
			return map[string]string{"haproxy.cfg": fmt.Sprintf(`global
    maxconn %d
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:%d
    server primary 127.0.0.1:%d
`, r.idle+500, port, r.cluster.Nodes[0].Port())}
		},
	}}, nil
}

// planPgweir is a build of pgweir with everything on, before all nodes; procs is its GOMAXPROCS, 0
// for what it chooses itself.
func (r *rig) planPgweir(ctx context.Context, k kind, program string, procs int) ([]plan, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask pgweir for its version: %w", err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	adminPort, err := freePort()
	if err != nil {
		return nil, err
	}
	extra := strings.Fields(r.with)
	var env []string
	if procs > 0 {
		env = []string{"GOMAXPROCS=" + strconv.Itoa(procs)}
	}
	return []plan{{
		kind: k, version: strings.Join(append([]string{version + ", transaction mode"}, extra...), " "), admin: adminPort,
		command: command{
			path: program, args: append([]string{"serve", "-c", "pgweir.yaml"}, extra...), env: env,
			ask: []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM},
		},
		files: func(port int) map[string]string {
			return map[string]string{"pgweir.yaml": pgweirYAML(port, adminPort, r.cluster, r.poolSize(2*(r.idle+200))/2)}
		},
	}}, nil
}

// pgweirYAML is the configuration of pgweir. The nodes share few processors with all candidates, so
// one that answers late is not taken for dead; all else that bears on the cost is the default.
func pgweirYAML(port, adminPort int, c *localpg.Cluster, pool int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: [\"127.0.0.1:%d\"]\nadmin: {listen: \"127.0.0.1:%d\"}\n", port, adminPort)
	fmt.Fprintf(&b, "route: auto\nconsistency: application\npool_size: %d\ntrust_window: 3s\nprobe: {timeout: 3s}\n", pool)
	fmt.Fprintf(&b, "clusters:\n  main:\n    monitor: {user: pgweir, password: %q}\n    nodes:\n", c.Password)
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "      - {name: %s, host: 127.0.0.1, port: %d}\n", n.Name, n.Port())
	}
	return b.String()
}

// poolSize is how many connections a candidate may have to the nodes that answer reads, all together; enough is so many that
// nobody waits.
func (r *rig) poolSize(enough int) int {
	if r.crowded {
		return crowdConnections
	}
	return enough
}
