package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgweir/internal/localpg"
)

// checkRun is one run of check.
type checkRun struct {
	status   int
	text     string
	findings []Finding
}

// runCheckOn runs check with a configuration in both forms.
func runCheckOn(t *testing.T, config string) checkRun {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pgweir.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out checkRun
	for _, args := range [][]string{{"check", "-c", file}, {"check", "-c", file, "--json"}} {
		var buf strings.Builder
		err := run(t.Context(), args, nil, &buf, io.Discard)
		var status *statusError
		switch {
		case errors.As(err, &status):
			out.status = status.status
		case err != nil:
			t.Fatal(err)
		}
		if len(args) == 3 {
			out.text = buf.String()
		} else if err := json.Unmarshal([]byte(buf.String()), &out.findings); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// has says whether a finding of that grade contains the words.
func (r checkRun) has(grade Grade, check, words string) bool {
	return slices.ContainsFunc(r.findings, func(f Finding) bool {
		return f.Grade == grade && f.Check == check && strings.Contains(f.Message, words)
	})
}

// want fails t unless there is such a finding.
func (r checkRun) want(t *testing.T, grade Grade, check, words string) {
	t.Helper()
	if !r.has(grade, check, words) {
		t.Errorf("no %s of %s says %q:\n%s", grade, check, words, r.text)
	}
}

// TestCheck asks a healthy cluster and the same one after many things were spoilt.
func TestCheck(t *testing.T) {
	cluster := newCluster(t, localpg.Config{
		Standbys: 1, HotStandbyFeedback: true,
		Settings: map[string]string{"wal_receiver_timeout": "4s", "wal_sender_timeout": "4s"},
	})
	primary, standby := cluster.Nodes[0], cluster.Nodes[1]
	mustExec(t, primary, setupScriptOf(t)+"ALTER ROLE pgweir PASSWORD 'monitor';")
	waitReplayed(t, cluster)
	config := fmt.Sprintf(`
state_dir: .
pool_size: 5
nodes: [{name: a, host: 127.0.0.1, port: %d}, {name: b, host: 127.0.0.1, port: %d}]
monitor: {password: monitor}
`, primary.Port(), standby.Port())

	r := runCheckOn(t, config)
	if r.status != 0 {
		t.Errorf("a healthy cluster: status %d\n%s", r.status, r.text)
	}
	r.want(t, Good, "primary", "a is the primary")
	r.want(t, Good, "streaming", "timeline 1")
	r.want(t, Good, "rights", "pg_monitor")
	r.want(t, Good, "logins", "auth.query works")
	r.want(t, Good, "max_connections", "together")
	r.want(t, Good, "receiver", "within 2.5s")
	r.want(t, Good, "conflicts", "hot_standby_feedback is on")
	r.want(t, Good, "settings", "the same on every node")
	r.want(t, Good, "extensions", "postgres")

	for _, sql := range []string{
		"ALTER SYSTEM SET hot_standby_feedback = off", "ALTER SYSTEM SET wal_receiver_timeout = '1min'",
		"ALTER SYSTEM SET TimeZone = 'Asia/Seoul'", "ALTER SYSTEM SET recovery_min_apply_delay = '1s'",
	} {
		mustExec(t, standby, sql)
	}
	mustExec(t, primary, "REVOKE pg_monitor FROM pgweir; REVOKE EXECUTE ON FUNCTION pgweir.user_lookup(text) FROM pgweir")
	waitReplayed(t, cluster)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := standby.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	waitSetting(t, standby, "TimeZone", "Asia/Seoul")
	r = runCheckOn(t, strings.Replace(config, "pool_size: 5", "pool_size: 500", 1))
	if r.status != 2 {
		t.Errorf("a spoilt cluster: status %d\n%s", r.status, r.text)
	}
	r.want(t, Bad, "rights", "has no pg_monitor")
	r.want(t, Advice, "logins", "permission denied")
	r.want(t, Bad, "max_connections", "one pool alone may take 500")
	r.want(t, Advice, "receiver", "for 30.5s")
	r.want(t, Advice, "conflicts", "hot_standby_feedback is off")
	r.want(t, Advice, "settings", "TimeZone differs")
	r.want(t, Advice, "replay", "delayed by 1s")

	if err := primary.Kill9(); err != nil {
		t.Fatal(err)
	}
	r = runCheckOn(t, config)
	r.want(t, Bad, "connect", "refused")
	r.want(t, Bad, "primary", "none of the nodes")
	if r.status != 2 || !strings.Contains(r.text, "→ nobody listens at") {
		t.Errorf("without a primary: status %d\n%s", r.status, r.text)
	}
}

// TestCheckFindsABalancer asks two servers behind one address.
func TestCheckFindsABalancer(t *testing.T) {
	cluster := newCluster(t, localpg.Config{Standbys: 1})
	mustExec(t, cluster.Nodes[0], setupScriptOf(t)+"ALTER ROLE pgweir PASSWORD 'monitor';")
	waitReplayed(t, cluster)
	addr := balance(t, cluster.Nodes[0].Addr(), cluster.Nodes[1].Addr())
	r := runCheckOn(t, "nodes: ['"+addr+"']\nmonitor: {password: monitor}\n")
	r.want(t, Bad, "address", "answers for 2 different servers")
	r = runCheckOn(t, "nodes: ['"+cluster.Nodes[0].Addr()+"', '"+cluster.Nodes[1].Addr()+"']\nmonitor: {password: wrong}\n")
	r.want(t, Bad, "connect", "password authentication failed")
	if !strings.Contains(r.text, "→ check monitor.user and its password") {
		t.Errorf("no fix:\n%s", r.text)
	}
}

// TestCheckOfAWrongConfiguration holds that problems are findings and the status is 2.
func TestCheckOfAWrongConfiguration(t *testing.T) {
	r := runCheckOn(t, "nodes: [pg-a]\nlisen: x\npool_size: 0\n")
	if r.status != 2 || len(r.findings) != 2 {
		t.Errorf("status %d\n%s", r.status, r.text)
	}
}

// balance takes connections and hands them to the targets in turn, as a load balancer does.
func balance(t *testing.T, targets ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for i := 0; ; i++ {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", targets[i%len(targets)])
			if err != nil {
				in.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
				}()
			}
		}
	}()
	return ln.Addr().String()
}

// waitReplayed waits until the standbys have what the primary wrote.
func waitReplayed(t *testing.T, c *localpg.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitReplayed(ctx); err != nil {
		t.Fatal(err)
	}
}

// waitSetting waits until new sessions of a node have a value.
func waitSetting(t *testing.T, n *localpg.Node, name, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := n.Query(ctx, "postgres", "SHOW "+name)
		if err != nil {
			t.Fatal(err)
		}
		if rows[0][0] == want {
			return
		}
		<-tick.C
	}
}

// TestPeersConnections: each process has pools of its own and watches the nodes by itself.
func TestPeersConnections(t *testing.T) {
	peers := "process: 1\npeers: [{process: 2, address: \"w2:6432\"}, {process: 3, address: \"w3:6432\"}]\n"
	for _, c := range []struct {
		config, limit string
		grade         Grade
		phrase        string
	}{
		{"pool_size: 20\n", "30", Good, "at worst 20 connections for clients (pools of every database, for each of 1 role that may log in) and 4 of the monitor, together 24 of 30"},
		{"pool_size: 20\n" + peers, "90", Good, "at worst 20 connections for clients (pools of every database, for each of 1 role that may log in) and 4 of the monitor, in each of 3 processes, together 72 of 90"},
		{"pool_size: 20\n" + peers, "71", Bad, "one pool alone may take 20 connections and the monitor 4 in each of 3 processes, the server takes 71"},
		{"pool_size: 20\ndatabases: {a: {}, b: {}}\n" + peers, "100", Advice, "in each of 3 processes, together 132; the server takes 100"},
		{"pool_size: 20\ndatabases: {a: {}, b: {}}\nmax_client_conn: 25\n" + peers, "100", Good, "at worst 25 connections for clients (max_client_conn) and 4 of the monitor, in each of 3 processes, together 87 of 100"},
	} {
		cfg := loadText(t, "nodes: [a]\n"+c.config)
		a := &facts{node: Node{Name: "a"}, settings: map[string]string{"max_connections": c.limit}, loginRoles: 2}
		j := &judge{cfg: cfg, cluster: cfg.Clusters[0]}
		j.connections(a)
		if len(j.out) != 1 || j.out[0].Grade != c.grade || !strings.Contains(j.out[0].Message, c.phrase) {
			t.Errorf("%q: %+v, want %s with %q", c.config, j.out, c.grade, c.phrase)
		}
		if c.grade == Bad && !strings.Contains(j.out[0].Fix, "at most 19") {
			t.Errorf("the fix is %q", j.out[0].Fix)
		}
	}
}

// TestJudgement holds what cannot be spoilt on one machine: other libraries, other releases,
// two primaries, certificates.
func TestJudgement(t *testing.T) {
	cfg := loadText(t, "nodes: [a, b]\n")
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	node := func(name string) *facts {
		return &facts{
			node: Node{Name: name, Host: name, Port: 5432}, version: 150019, system: "7", timeline: "1", monitor: true,
			settings: map[string]string{
				"max_connections": "100", "superuser_reserved_connections": "3", "wal_receiver_timeout": "4000ms",
				"max_standby_streaming_delay": "30000ms", "hot_standby_feedback": "on",
			},
			collations: map[string]string{"libc": "2.36"}, installed: map[string]string{"postgis": "3.3"}, available: map[string]bool{"postgis 3.3": true},
			loginRoles: 2,
		}
	}
	for _, c := range []struct {
		spoil  func(a, b *facts)
		grade  Grade
		check  string
		phrase string
	}{
		{func(_, b *facts) { b.collations["libc"] = "2.39" }, Bad, "collations", "libc sorts differently: version 2.36 on a, 2.39 on b"},
		{func(_, b *facts) { b.stale = []string{"app"} }, Bad, "collations", "recorded for app"},
		{func(_, b *facts) { b.available = nil }, Bad, "extensions", "postgis 3.3"},
		{func(_, b *facts) { b.version = 150020 }, Advice, "version", "15.19 on a, 15.20 on b"},
		{func(_, b *facts) { b.system = "8" }, Bad, "identity", "system identifier 7 on a, 8 on b"},
		{func(_, b *facts) { b.inRecovery = false }, Bad, "primary", "a and b are writable"},
		{func(_, b *facts) { b.timeline = "2" }, Bad, "timeline", "1 on a, 2 on b"},
		{func(_, b *facts) { b.receiver = "" }, Bad, "streaming", "receives nothing"},
		{func(_, b *facts) { b.replayPaused = true }, Bad, "replay", "paused"},
		{func(_, b *facts) { b.settings["max_connections"] = "50" }, Bad, "settings", "less than the primary's 100"},
		{func(_, b *facts) { b.settings["max_standby_streaming_delay"] = "-1ms" }, Advice, "conflicts", "without end"},
		{func(_, b *facts) { b.settings["wal_receiver_timeout"] = "0ms" }, Advice, "receiver", "for ever"},
		{func(a, _ *facts) { a.superuser = true }, Advice, "rights", "superuser"},
		{func(a, _ *facts) { a.loginRoles = 20 }, Advice, "max_connections", "the server takes 97"},
		{func(a, _ *facts) { a.settings["reserved_connections"] = "90" }, Bad, "max_connections", "one pool alone"},
		{func(a, _ *facts) { a.encrypted, a.certificateEnd = true, now.Add(-time.Hour) }, Bad, "tls", "ended on 2026-11-23"},
		{func(a, _ *facts) { a.encrypted, a.certificateEnd = true, now.Add(49*time.Hour) }, Advice, "tls", "in 2 days"},
		{func(a, _ *facts) { a.encrypted, a.certificateEnd = true, now.AddDate(1, 0, 0) }, Good, "tls", "holds until 2027-11-24"},
		{func(a, _ *facts) { a.failure = errors.New("x509: unknown authority") }, Bad, "connect", "unknown authority"},
		{func(a, _ *facts) { a.version = 130000 }, Advice, "version", "older"},
		{func(a, _ *facts) { a.settings["shared_preload_libraries"] = "timescaledb" }, Advice, "libraries", "timescaledb"},
		{func(_, _ *facts) {}, Good, "primary", "a is the primary"},
	} {
		a, b := node("a"), node("b")
		b.inRecovery, b.receiver = true, "streaming"
		c.spoil(a, b)
		run := checkRun{findings: judgeCluster(cfg, cfg.Clusters[0], []*facts{a, b}, now)}
		var text strings.Builder
		if err := printFindings(&text, run.findings, false); err != nil {
			t.Fatal(err)
		}
		run.text = text.String()
		run.want(t, c.grade, c.check, c.phrase)
		for _, f := range run.findings {
			if f.Grade != Good && f.Fix == "" {
				t.Errorf("%s: %s: has no fix", f.Check, f.Message)
			}
		}
	}
}
