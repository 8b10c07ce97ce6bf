package deploy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/internal/localpg"
)

// TestEveryQueryReturnsData runs a real cluster, pgweir in front of it and a Prometheus that
// scrapes it with the files that stand here, lets clients read and write while the primary dies,
// and asks every query of the dashboard and of the rules.
func TestEveryQueryReturnsData(t *testing.T) {
	if testing.Short() {
		t.Skip("starts PostgreSQL and Prometheus")
	}
	prometheus := tool(t, "prometheus", "prometheus")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	cluster, err := localpg.New(ctx, localpg.Config{Standbys: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	program := pgweir(t)
	for _, sql := range []string{
		output(t, program, "setup-sql"),
		"ALTER ROLE pgweir PASSWORD 'pgweirpassword'; CREATE ROLE myuser LOGIN PASSWORD 'mypassword'",
		"CREATE TABLE sample (id serial PRIMARY KEY, name text); GRANT ALL ON sample, sample_id_seq TO myuser",
	} {
		if err := cluster.Exec(ctx, "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	weir := startWeir(ctx, t, program, cluster)
	prom := startPrometheus(ctx, t, prometheus, weir.admin)
	started := time.Now()
	dsn := fmt.Sprintf("postgres://myuser:mypassword@%s/postgres?sslmode=disable", weir.listen)

	traffic, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 3 {
		wg.Go(func() { work(traffic, dsn) })
	}
	supervisor := localpg.NewSupervisor(cluster, localpg.SupervisorConfig{Say: func(s string) { t.Log("supervisor: " + s) }})
	wg.Go(func() { _ = supervisor.Run(traffic) })

	// Everything must have been seen twice before rates say something.
	prom.wait(ctx, t, `sum(rate(pgweir_statements_total[10s])) > 0`)
	primary, err := cluster.Primary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := primary.Kill9(); err != nil {
		t.Fatal(err)
	}
	prom.wait(ctx, t, `sum(increase(pgweir_primary_changes_total[30s])) > 0`)
	prom.wait(ctx, t, `sum(increase(pgweir_hold_seconds_count[30s])) > 0`)

	for _, q := range allQueries(t) {
		expr := strings.NewReplacer("$cluster", ".*", "$__rate_interval", "10s").Replace(q.expr)
		if !prom.has(ctx, t, expr, started) {
			t.Errorf("%s: no data for %s", q.where, expr)
		}
	}
}

// work is one client: reads, writes, a transaction and a setting, over and over. Errors are a
// failover's and mean another connection.
func work(ctx context.Context, dsn string) {
	for ctx.Err() == nil {
		conn, err := pgconn.Connect(ctx, dsn)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		for err == nil && ctx.Err() == nil {
			for _, sql := range []string{
				"INSERT INTO sample (name) VALUES ('x')", "SELECT count(*) FROM sample",
				"SET application_name = 'work'", "BEGIN; SELECT 1; COMMIT", "SELECT now()",
			} {
				if _, err = conn.Exec(ctx, sql).ReadAll(); err != nil {
					break
				}
			}
			if err == nil {
				err = conn.ExecParams(ctx, "SELECT name FROM sample WHERE id = $1", [][]byte{[]byte("1")}, nil, nil, nil).Read().Err
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = conn.Close(closing)
		cancel()
	}
}

// weir is a running pgweir.
type weir struct {
	listen, admin string // addresses
}

// startWeir runs the program in front of the cluster until the test ends.
func startWeir(ctx context.Context, t *testing.T, program string, cluster *localpg.Cluster) weir {
	t.Helper()
	// However slow the machine is, reads wait for their standby and nodes are not taken for dead.
	args := []string{
		"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--freshness-wait", "2s",
		"--probe-timeout", "5s", "--trust-window", "5s",
	}
	for _, n := range cluster.Nodes {
		args = append(args, "--node", fmt.Sprintf("host=127.0.0.1 port=%d user=pgweir", n.Port()))
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PGWEIR_MONITOR_PASSWORD=pgweirpassword", "PGWEIR_STATE_DIR="+t.TempDir())
	var w weir
	address := regexp.MustCompile(`msg="?(admin listens|listening)"? address=(\S+)`)
	follow(t, cmd, func(line string) bool {
		if m := address.FindStringSubmatch(line); m != nil && m[1] == "listening" {
			w.listen = m[2]
		} else if m != nil {
			w.admin = m[2]
		}
		return w.listen != "" && w.admin != ""
	})
	return w
}

// follow starts a command, stops it when the test ends, and returns when seen has been told a
// line of its log that it waits for.
func follow(t *testing.T, cmd *exec.Cmd, seen func(line string) bool) {
	t.Helper()
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan bool), make(chan struct{})
	var lines []string
	go func() {
		defer close(ended)
		waits := true
		scanner := bufio.NewScanner(log)
		for scanner.Scan() {
			lines = append(lines, scanner.Text())
			if waits && seen(scanner.Text()) {
				waits = false
				close(ready)
			}
		}
		_, _ = io.Copy(io.Discard, log)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("%s ended", filepath.Base(cmd.Path))
	case <-time.After(time.Minute):
		t.Fatalf("%s is not ready after a minute", filepath.Base(cmd.Path))
	}
}

// server is a running Prometheus.
type server struct{ url string }

// startPrometheus runs Prometheus with the files of deploy, scraping pgweir at that address.
func startPrometheus(ctx context.Context, t *testing.T, program, admin string) server {
	t.Helper()
	dir := t.TempDir()
	own := freeAddr(t)
	content, err := os.ReadFile("prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("pgweir:9187", admin, "localhost:9090", own,
		"interval: 5s", "interval: 1s", "timeout: 4s", "timeout: 1s").Replace(string(content))
	if !strings.Contains(here, admin) || !strings.Contains(here, own) {
		t.Fatal("prometheus.yml has other targets than this test knows")
	}
	for name, content := range map[string]string{"prometheus.yml": here, "rules.yml": string(rules)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, program, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+own)
	follow(t, cmd, func(line string) bool { return strings.Contains(line, "Server is ready") })
	return server{"http://" + own}
}

// freeAddr is a loopback address where nobody listens at the moment.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// wait returns when a query has a result.
func (s server) wait(ctx context.Context, t *testing.T, expr string) {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	limit, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for !s.has(ctx, t, expr, time.Now().Add(-time.Second)) {
		select {
		case <-tick.C:
		case <-limit.Done():
			t.Fatalf("never true: %s", expr)
		}
	}
}

// has says whether a query had at least one number between since and now. NaN is none: a
// percentile of nothing.
func (s server) has(ctx context.Context, t *testing.T, expr string, since time.Time) bool {
	t.Helper()
	now := time.Now()
	form := url.Values{
		"query": {expr}, "step": {"1"},
		"start": {strconv.FormatInt(since.Unix(), 10)}, "end": {strconv.FormatInt(now.Unix(), 10)},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v1/query_range?"+form.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Values [][2]any }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Status != "success" {
		t.Fatalf("%s: %s", expr, answer.Error)
	}
	for _, series := range answer.Data.Result {
		for _, v := range series.Values {
			if v[1] != "NaN" {
				return true
			}
		}
	}
	return false
}
