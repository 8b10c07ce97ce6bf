package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// Proxy is a running pgweir, as its own process.
type Proxy struct {
	Addr    string // where clients connect
	Standby string // a listener with route: standby
	Admin   string // where HTTP answers

	t    testing.TB
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// proxyConfig is what a test may say about the proxy that it starts.
type proxyConfig struct {
	Clusters map[string]*localpg.Cluster // nil: one cluster main
	Extra    string                      // more lines of YAML at the top level
	Users    map[string]string           // more users with passwords
	Console  map[string]string           // admin.users
	NoAuth   bool                        // do not install setup-sql's function
	MayFail  bool                        // the process may end by itself
	Addr     string                      // where clients connect; "": a free address
	Listen   []string                    // more entries of listen, in YAML

	DefaultProbes bool // leave trust_window and probe.timeout at their defaults
}

// StartProxy runs `pgweir serve` in front of a cluster until the test ends, and returns when
// /readyz says yes. The nodes are watched with the role that `pgweir setup-sql` makes, and
// clients are looked up with its function.
func StartProxy(t testing.TB, c *localpg.Cluster, cfg proxyConfig) *Proxy {
	t.Helper()
	bin := program(t)
	if cfg.Clusters == nil {
		cfg.Clusters = map[string]*localpg.Cluster{"main": c}
	}
	for _, c := range cfg.Clusters {
		if !cfg.NoAuth {
			setupRole(t, bin, c)
		}
	}
	dir, err := os.MkdirTemp("", "pgweir-e2e-proxy-")
	must(t, err)
	p := &Proxy{Addr: freeAddr(t), Standby: freeAddr(t), Admin: freeAddr(t), t: t, dir: dir, done: make(chan struct{})}
	if cfg.Addr != "" {
		p.Addr = cfg.Addr
	}
	file := filepath.Join(dir, "pgweir.yaml")
	must(t, os.WriteFile(file, []byte(p.yaml(cfg)), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	p.cmd = exec.Command(bin, "serve", "-c", file)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") {
			p.cmd.Env = append(p.cmd.Env, kv)
		}
	}
	dieWithUs(p.cmd.SysProcAttr)
	var wg sync.WaitGroup
	quit := make(chan struct{})
	started := make(chan error)
	wg.Go(func() {
		runtime.LockOSThread() // the child lives as long as the thread that started it
		started <- p.cmd.Start()
		<-quit
	})
	must(t, <-started)
	must(t, log.Close())
	wg.Go(func() {
		p.err = p.cmd.Wait()
		close(p.done)
	})
	t.Cleanup(func() {
		p.stop(cfg.MayFail)
		close(quit)
		wg.Wait()
		must(t, os.RemoveAll(dir))
	})
	must(t, within(context.Background(), 30*time.Second, func() error { return p.ready() }))
	return p
}

// setupRole runs setup-sql's script on the cluster's primary and gives its role a password.
func setupRole(t testing.TB, bin string, c *localpg.Cluster) {
	t.Helper()
	out, err := exec.Command(bin, "setup-sql").Output()
	must(t, err)
	must(t, c.Exec(context.Background(), "postgres", string(out)))
	must(t, c.Exec(context.Background(), "postgres", "ALTER ROLE pgweir PASSWORD 'watcher'"))
	must(t, c.WaitReplayed(context.Background()))
}

// yaml is the configuration file.
func (p *Proxy) yaml(cfg proxyConfig) string {
	var b strings.Builder
	listen := append([]string{fmt.Sprintf("%q, {addr: %q, route: standby}", p.Addr, p.Standby)}, cfg.Listen...)
	fmt.Fprintf(&b, "listen: [%s]\nadmin:\n  listen: %q\n", strings.Join(listen, ", "), p.Admin)
	if len(cfg.Console) > 0 {
		b.WriteString("  users:\n")
		for name, role := range cfg.Console {
			fmt.Fprintf(&b, "    %s: %s\n", name, role)
		}
	}
	b.WriteString("log: {level: debug}\nusers:\n")
	fmt.Fprintf(&b, "  %s: {password: %q}\n", superUser, superPassword)
	for name, password := range cfg.Users {
		fmt.Fprintf(&b, "  %s: {password: %q}\n", name, password)
	}
	b.WriteString("clusters:\n")
	for name, c := range cfg.Clusters {
		fmt.Fprintf(&b, "  %s:\n    monitor: {user: pgweir, password: watcher}\n", name)
		if !cfg.DefaultProbes {
			// Tests share few cores with the servers: a node that answers late is not dead.
			b.WriteString("    trust_window: 3s\n    probe: {timeout: 3s}\n")
		}
		b.WriteString("    nodes:\n")
		for _, n := range c.Nodes {
			fmt.Fprintf(&b, "      - {name: %s, host: 127.0.0.1, port: %d}\n", n.Name, n.Port())
		}
	}
	b.WriteString(cfg.Extra)
	return b.String()
}

// freeAddr is an address on loopback that nobody listens on, and never the same twice. The port is below those that the
// kernel gives to outgoing connections only by chance; the proxy fails loudly if it was taken.
func freeAddr(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		addr := l.Addr().String()
		must(t, l.Close())
		if _, given := env.addrs.LoadOrStore(addr, true); !given {
			return addr
		}
	}
}

// ready asks /readyz.
func (p *Proxy) ready() error {
	select {
	case <-p.done:
		p.t.Fatalf("the proxy ended: %v\n%s", p.err, p.log())
	default:
	}
	resp, err := http.Get("http://" + p.Admin + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

// log is the end of what the proxy wrote.
func (p *Proxy) log() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-16<<10):])
}

// stop ends the proxy and fails the test if it had ended by itself or if the race detector or a
// panic spoke.
func (p *Proxy) stop(mayFail bool) {
	select {
	case <-p.done:
		if !mayFail {
			p.t.Errorf("the proxy ended by itself: %v", p.err)
		}
	default:
		for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGTERM, os.Kill} {
			if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				p.t.Error(err)
			}
			timer := time.NewTimer(3 * time.Second)
			select {
			case <-p.done:
			case <-timer.C:
				continue
			}
			timer.Stop()
			break
		}
		<-p.done
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		p.t.Error(err)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "BUG: "} {
		if bytes.Contains(text, []byte(bad)) {
			p.t.Errorf("the proxy's log holds %q", bad)
		}
	}
	for line := range bytes.Lines(text) {
		if bytes.Count(line, []byte(" cluster=")) > 1 {
			p.t.Errorf("a line of the proxy's log names the cluster twice: %s", line)
		}
	}
	if p.t.Failed() {
		p.t.Logf("end of the proxy's log:\n%s", p.log())
	}
}

// Client logs in through the proxy.
func (p *Proxy) Client(t testing.TB, params ...string) *pgtest.RawClient {
	t.Helper()
	return client(t, p.Addr, appUser, appPassword, appDatabase, params...)
}

// client logs in at an address until the test ends.
func client(t testing.TB, addr, user, password, database string, params ...string) *pgtest.RawClient {
	t.Helper()
	c, err := pgtest.Connect(pgtest.ClientConfig{Addr: addr, User: user, Password: password, Database: database, Params: params, Timeout: 60 * time.Second, Check: secondOpinion()})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask runs one statement and returns the first value of its answer; an error ends the test.
func ask(t testing.TB, c *pgtest.RawClient, sql string) string {
	t.Helper()
	ms, err := c.Query(sql)
	must(t, err)
	if e := pgtest.FirstError(ms); e != nil {
		t.Fatalf("%s: %v", sql, e)
	}
	if rows := pgtest.Rows(ms); len(rows) > 0 && len(rows[0]) > 0 {
		return rows[0][0]
	}
	return ""
}

// askPort runs a statement whose first value is node_port() and returns the node that answered.
func askPort(t testing.TB, cl *localpg.Cluster, c *pgtest.RawClient, sql string) *localpg.Node {
	t.Helper()
	v := ask(t, c, sql)
	for _, n := range cl.Nodes {
		if fmt.Sprint(n.Port()) == v {
			return n
		}
	}
	t.Fatalf("%s: answered %q, which is no node's port", sql, v)
	return nil
}
