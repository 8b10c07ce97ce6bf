package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgweir/internal/localpg"
)

// pgxModule is whose tests TestPgxSuite runs: the version that go.mod names.
const pgxModule = "github.com/jackc/pgx/v5"

// pgxKnown lists what may differ, and why.
const pgxKnown = "../../scripts/pgx.known"

// pgxSource is a copy of pgx's source, of which `go test` may write into its directories.
func pgxSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	from, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", pgxModule).Output()
	must(t, err)
	must(t, os.CopyFS(dir, os.DirFS(strings.TrimSpace(string(from)))))
	return dir
}

// pgxDatabase makes a database with what pgx's tests want to find there.
func pgxDatabase(t *testing.T, cl *localpg.Cluster, name string) {
	t.Helper()
	must(t, cl.Exec(t.Context(), "postgres", "CREATE DATABASE "+name))
	must(t, cl.Exec(t.Context(), name, "CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE DOMAIN uint64 AS numeric(20,0)"))
	must(t, cl.WaitReplayed(t.Context()))
}

// verdicts are how tests ended (pass, fail or skip), by package and name.
type verdicts map[string]string

// count is how many tests ended in that way.
func (v verdicts) count(how string) int {
	n := 0
	for _, w := range v {
		if w == how {
			n++
		}
	}
	return n
}

// runPgx runs pgx's tests, or those that only names, against an address. What they print goes to the log file of that name.
func runPgx(t *testing.T, src, addr, database, log string, only []string) verdicts {
	t.Helper()
	args := []string{"test", "-json", "-count=1", "-p=1", "-timeout=10m"}
	if only != nil {
		tops := map[string]bool{}
		packages := map[string]bool{}
		for _, name := range only {
			pkg, test, _ := strings.Cut(name, " ")
			top, _, _ := strings.Cut(test, "/")
			packages["./"+strings.TrimPrefix(strings.TrimPrefix(pkg, pgxModule), "/")], tops["^"+top+"$"] = true, true
		}
		args = append(append(args, "-run="+strings.Join(slices.Sorted(maps.Keys(tops)), "|")), slices.Sorted(maps.Keys(packages))...)
	} else {
		args = append(args, "./...")
	}
	out, err := os.Create(log)
	must(t, err)
	defer out.Close()
	dsn := fmt.Sprintf("host=127.0.0.1 port=%s user=%s password='%s' dbname=%s sslmode=disable", port(addr), superUser, superPassword, database)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = src
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "GOFLAGS=-mod=mod", "GOWORK=off", "PGX_TEST_DATABASE="+dsn, "PGX_TEST_TCP_CONN_STRING="+dsn, "PGX_TEST_SCRAM_PASSWORD_CONN_STRING="+dsn)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, out), &stderr
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	temporary := regexp.MustCompile(`/\S*/Test\w+/\d+`) // a directory whose name is new in each run
	v := verdicts{}
	lines := bufio.NewScanner(&stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Package, Test string }
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Test != "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			v[e.Package+" "+temporary.ReplaceAllString(e.Test, "TMP")] = e.Action
		}
	}
	must(t, lines.Err())
	if len(v) == 0 {
		t.Fatalf("no test ran:\n%s", stderr.String())
	}
	return v
}

// known reads pgxKnown: the reasons for which tests may differ, by kind of run and name.
func known(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile(pgxKnown)
	must(t, err)
	out := map[string]map[string]string{"transaction": {}, "session": {}}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] == "#":
		case len(fields) < 4 || out[fields[0]] == nil:
			t.Fatalf("%s: %q is no kind, package, test and reason", pgxKnown, line)
		default:
			out[fields[0]][path.Join(pgxModule, fields[1])+" "+fields[2]] = strings.Join(fields[3:], " ")
		}
	}
	return out
}

// short is the name of a test as the list has it.
func short(name string) string {
	pkg, test, _ := strings.Cut(name, " ")
	pkg = strings.TrimPrefix(strings.TrimPrefix(pkg, pgxModule), "/")
	if pkg == "" {
		pkg = "."
	}
	return pkg + " " + test
}

// TestPgxKnown keeps the list in a form that TestPgxSuite can read.
func TestPgxKnown(t *testing.T) {
	lists := known(t)
	for name := range lists["session"] {
		if lists["transaction"][name] == "" {
			t.Errorf("%s differs in a session's own connection only", short(name))
		}
	}
}

// TestPgxSuite runs pgx's own tests on the primary and through pgweir: the same ones must pass. Those that are listed as differing
// because a session has no process of its own are run once more where it has: pool_mode: session, backend_pid: real, route: primary.
func TestPgxSuite(t *testing.T) {
	if os.Getenv("PGX_SUITE") == "" {
		t.Skip("PGX_SUITE is not set (make pgx-suite)")
	}
	lists := known(t)
	src := pgxSource(t)
	logs := os.Getenv("PGX_OUT")
	if logs == "" {
		logs = t.TempDir()
	}
	cl := newCluster(t, localpg.Config{Standbys: 2, Settings: map[string]string{
		"max_connections": "300", "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.max": "20000",
	}})
	must(t, cl.Exec(t.Context(), "postgres", "CREATE EXTENSION pg_stat_statements"))
	run := func(kind, addr string, only []string) verdicts {
		t.Helper()
		pgxDatabase(t, cl, "pgx_"+kind)
		began := time.Now()
		v := runPgx(t, src, addr, "pgx_"+kind, filepath.Join(logs, kind+".json"), only)
		t.Logf("%s: %d passed, %d failed, %d skipped, %v", kind, v.count("pass"), v.count("fail"), v.count("skip"), time.Since(began).Round(time.Second))
		return v
	}

	direct := run("direct", cl.Nodes[0].Addr(), nil)
	pooled := run("transaction", StartProxy(t, cl, proxyConfig{}).Addr, nil)
	t.Logf("transaction: standbys answered %s", pgxShare(t, cl))
	again := slices.Collect(maps.Keys(lists["transaction"]))
	for _, name := range slices.Sorted(maps.Keys(direct)) {
		reason, listed := lists["transaction"][name]
		switch was, is := direct[name], pooled[name]; {
		case was == "fail":
			t.Logf("fails on the primary as well, or only there: %s (through pgweir: %s)", short(name), is)
		case was == is && listed:
			t.Logf("listed, and passes: %s", short(name))
		case was == is:
		case listed:
			t.Logf("differs: %s: %s", short(name), reason)
		default:
			t.Errorf("differs, and is not listed: %s: %s on the primary, %q through pgweir", short(name), was, is)
			again = append(again, name)
		}
	}
	own := run("session", StartProxy(t, cl, proxyConfig{Extra: "pool_mode: session\nbackend_pid: real\nroute: primary\n"}).Addr, again)
	for _, name := range again {
		reason, listed := lists["session"][name]
		switch {
		case direct[name] != "pass":
			t.Errorf("is listed, and does not pass on the primary: %s: %q", short(name), direct[name])
		case own[name] != "pass" && listed:
			t.Logf("differs in a session's own connection too: %s: %s", short(name), reason)
		case own[name] != "pass":
			t.Errorf("differs in a session's own connection too, and is not listed: %s: %q", short(name), own[name])
		}
	}
}

// pgxShare is how many of the SELECTs of the run through pgweir's transaction pooling standbys have answered, as the nodes count them.
func pgxShare(t *testing.T, cl *localpg.Cluster) string {
	t.Helper()
	var all, standbys int
	for i, n := range cl.Nodes {
		v, err := n.Value(t.Context(), "postgres", `SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
			WHERE d.datname = 'pgx_transaction' AND s.query ~* '^[\s(]*(select|values|table|with)\M'`)
		must(t, err)
		calls, err := strconv.Atoi(v)
		must(t, err)
		all += calls
		if i > 0 {
			standbys += calls
		}
	}
	if standbys == 0 {
		t.Error("no standby has answered anything: that says nothing of read splitting")
	}
	return fmt.Sprintf("%d of %d SELECTs", standbys, all)
}
