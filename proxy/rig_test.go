package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"pgweir/health"
	"pgweir/internal/auth"
	"pgweir/internal/catalog"
	"pgweir/internal/pgtest"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// TestMain finds goroutines that a test left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ahead is a number of the fence that no mark of a test reaches.
const ahead = 1 << 40

// fakeMonitor is a cluster's health as a test says it.
type fakeMonitor struct {
	fence health.Fence
	mu    struct {
		sync.Mutex
		snap    *health.Snapshot
		changed chan struct{}
		reports []string
		voided  []int
	}
}

func (m *fakeMonitor) Snapshot() *health.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.snap
}

func (m *fakeMonitor) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.changed
}

func (m *fakeMonitor) Fence() *health.Fence { return &m.fence }

func (m *fakeMonitor) Report(node int, e health.Evidence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.reports = append(m.mu.reports, fmt.Sprintf("%d:%d", node, e))
}

func (m *fakeMonitor) VoidNode(node int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.voided = append(m.mu.voided, node)
}

// set swaps the snapshot.
func (m *fakeMonitor) set(s *health.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.snap = s
	if m.mu.changed != nil {
		close(m.mu.changed)
	}
	m.mu.changed = make(chan struct{})
}

// voids is which nodes' freshness was voided.
func (m *fakeMonitor) voids() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.voided)
}

// rig is a server in front of three scripted nodes, of which the first is the primary.
type rig struct {
	t       testing.TB
	mon     *fakeMonitor
	nodes   []*fakePG
	primary *fakePG
	srv     *Server
	cluster *Cluster
	addr    string
	cfg     Config
	reads   atomic.Int64                                                      // of the catalog
	dial    func(ctx context.Context, network, addr string) (net.Conn, error) // instead of the pool's own
	stop    func()                                                            // begins to stop the server

	mu      sync.Mutex
	target  Target
	limits  pool.Limits
	created []string // tables that the catalog has beside those of testCatalog
	serial  bool     // … with a sequence
	views   map[*fakePG]*health.Node
}

// p, a and b are the primary and the two standbys as the rig starts them.
func (r *rig) p() *fakePG { return r.nodes[0] }
func (r *rig) a() *fakePG { return r.nodes[1] }
func (r *rig) b() *fakePG { return r.nodes[2] }

// rigOption changes a rig before its server starts.
type rigOption func(r *rig)

// withTarget changes what sessions get.
func withTarget(f func(t *Target)) rigOption { return func(r *rig) { f(&r.target) } }

// withPools changes what holds for all pools.
func withPools(f func(l *pool.Limits)) rigOption { return func(r *rig) { f(&r.limits) } }

// withConfig changes the server's configuration.
func withConfig(f func(c *Config)) rigOption { return func(r *rig) { f(&r.cfg) } }

// withoutB leaves one standby.
func withoutB(r *rig) { r.views[r.b()].NoReads = true }

// without leaves the primary alone.
func alone(r *rig) { r.views[r.a()].NoReads, r.views[r.b()].NoReads = true, true }

// newRig starts the nodes and the server. Everything ends with the test.
func newRig(t testing.TB, options ...rigOption) *rig {
	t.Helper()
	r := &rig{t: t, mon: &fakeMonitor{}, views: map[*fakePG]*health.Node{}}
	for i, name := range []string{"primary", "standby-a", "standby-b"} {
		n := newFakePG(t, name, i > 0)
		r.nodes = append(r.nodes, n)
		role := health.RoleStandby
		if i == 0 {
			role = health.RolePrimary
		}
		r.views[n] = &health.Node{
			ID: i + 1, Name: name, Addr: n.Addr(), Host: "127.0.0.1", Weight: 1, Role: role, State: health.StateUp,
			Detail: "up", TrustWindow: time.Hour, Timeline: 1,
			Live: health.NewLive(health.Freshness{AsOf: ahead, Sample: ahead, Covered: ahead, Incarnation: 1}, health.Clock()),
		}
	}
	r.primary = r.p()
	log := slog.New(slog.DiscardHandler)
	reg := prometheus.NewRegistry()
	metrics, err := NewMetrics(reg)
	must(t, err)
	poolMetrics, err := pool.NewMetrics(reg)
	must(t, err)
	poolConfig := pool.DefaultConfig()
	poolConfig.NodeSettings = nil
	r.limits = pool.DefaultLimits()
	r.limits.Size, r.limits.ConnectTimeout = 10, 5*time.Second
	poolConfig.Limits = func(_, _, _ string) pool.Limits {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.limits
	}
	poolConfig.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) { return r.dial(ctx, network, addr) }
	r.dial = (&net.Dialer{}).DialContext
	p, err := pool.New(poolConfig, poolMetrics)
	must(t, err)
	catConfig := catalog.DefaultConfig()
	catConfig.Cluster = "main"
	cat := catalog.Staged(catConfig, []string{"alice", "bob", "boss"}, func(context.Context, string) (*router.Catalog, error) {
		r.reads.Add(1)
		c := testCatalog()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, table := range r.created {
			c.Relations[router.QName{Schema: "public", Name: table}] = router.RelInfo{Kind: 'r', Persistence: 'p', Read: router.VerdictRead, WriteNextval: r.serial}
		}
		return c, nil
	})
	secret, err := auth.ParseSecret("secret")
	must(t, err)
	plain, err := pool.NewTLS(pool.SSLDisable, pool.TLSFiles{})
	must(t, err)
	hashed, err := auth.ParseSecret(md5Of("alice", "secret"))
	must(t, err)
	r.cluster = NewCluster("main", r.mon, cat, auth.Static{"alice": hashed, "bob": secret}, plain, metrics)
	r.target = Target{
		Cluster: r.cluster, Entry: "app", Database: "app", Marks: r.cluster.MarksOf("app"), Consistency: router.ConsistencySession,
		Offload: 100, FreshnessWait: func(router.Consistency) time.Duration { return 10 * time.Millisecond },
		BeginDefer: time.Hour, HoldTimeout: 10 * time.Second, ConnectTimeout: 5 * time.Second, CancelTimeout: 10 * time.Second,
	}
	r.cfg = DefaultConfig()
	r.cfg.Resolve = func(_ int, database, _ string) (*Target, error) {
		if database == "nowhere" {
			return new(Target), fmt.Errorf("database %q does not exist", database)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		target := r.target
		return &target, nil
	}
	r.cfg.ClientTLS = noTLS
	r.cfg.Process, r.cfg.LoginTimeout = 7, 20*time.Second
	r.cfg.Classifier, r.cfg.Pool, r.cfg.Metrics, r.cfg.Log = router.New(router.DefaultConfig()), p, metrics, log
	for _, o := range options {
		o(r)
	}
	r.publish()
	r.srv, err = New(r.cfg)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	var wg sync.WaitGroup
	wg.Go(func() { _ = cat.Run(ctx) })
	wg.Go(func() { r.srv.Serve(ctx, 5*time.Second, l) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		_ = p.Close(context.Background())
	})
	return r
}

// target changes what sessions get that log in from now on.
func (r *rig) retarget(f func(t *Target)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.target)
}

// publish swaps the snapshot for what the rig's views say now.
func (r *rig) publish() {
	s := &health.Snapshot{Cluster: "main", Epoch: 1, Positions: true, Timeline: 1, System: 1, Why: "none is up"}
	for _, n := range r.nodes {
		v := *r.views[n]
		s.Nodes = append(s.Nodes, &v)
		if n == r.primary {
			s.Primary, s.Why = &v, ""
		}
	}
	r.mon.set(s)
}

// change publishes a snapshot in which one node is different.
func (r *rig) change(n *fakePG, f func(v *health.Node)) {
	v := *r.views[n]
	f(&v)
	r.views[n] = &v
	r.publish()
}

// kill ends a node and everybody hears of it: the monitor shows it down.
func (r *rig) kill(n *fakePG) {
	n.Close()
	if r.primary == n {
		r.primary = nil
	}
	r.change(n, func(v *health.Node) { v.State, v.Detail = health.StateDown, "down (connection refused)" })
}

// promote makes a standby the primary.
func (r *rig) promote(n *fakePG) {
	n.setStandby(false)
	r.primary = n
	r.change(n, func(v *health.Node) { v.Role, v.Timeline = health.RolePrimary, 2 })
}

// show sets what a node vouches for.
func (r *rig) show(n *fakePG, f health.Freshness) { r.views[n].Live.Show(f, health.Clock()) }

// stale makes a node fresh as of nothing.
func (r *rig) stale(n *fakePG) { r.show(n, health.Freshness{Sample: ahead, Incarnation: 1}) }

// client logs in as alice.
func (r *rig) client(params ...string) *client {
	r.t.Helper()
	return r.connect(pgtest.ClientConfig{Params: params})
}

// connect logs in; what the configuration leaves out is filled in.
func (r *rig) connect(cfg pgtest.ClientConfig) *client {
	r.t.Helper()
	cfg.Addr, cfg.Timeout = r.addr, 15*time.Second
	if cfg.User == "" {
		cfg.User = "alice"
	}
	if cfg.Database == "" {
		cfg.Database = "app"
	}
	cfg.Password = "secret"
	c, err := pgtest.Connect(cfg)
	if err != nil {
		r.t.Fatalf("connect: %v", err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return &client{RawClient: c, t: r.t, r: r}
}

// session is the server's side of a client.
func (r *rig) session(c *client) *session {
	r.srv.keys.mu.Lock()
	defer r.srv.keys.mu.Unlock()
	return r.srv.keys.mu.sessions[c.PID]
}

// forgetAll empties the logs of all nodes.
func (r *rig) forgetAll() {
	for _, n := range r.nodes {
		n.forget()
	}
}

// ran is how often a text was executed, as "primary=1 standby-a=0 standby-b=0" without the zeros, or "never".
func (r *rig) ran(sql string) string {
	var out []string
	for _, n := range r.nodes {
		if k := n.ran(sql); k > 0 {
			out = append(out, fmt.Sprintf("%s=%d", n.name, k))
		}
	}
	if len(out) == 0 {
		return "never"
	}
	return strings.Join(out, " ")
}

// await waits until cond holds.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// held waits until n statements wait for a primary.
func (r *rig) held(n int) {
	r.t.Helper()
	await(r.t, fmt.Sprintf("%d held statements", n), func() bool { return r.cluster.Held() == n })
}

// counter is the value of a counter of the proxy.
func counter(c prometheus.Collector) float64 { return testutil.ToFloat64(c) }

// client is a raw client that fails its test.
type client struct {
	*pgtest.RawClient
	t testing.TB
	r *rig
}

// query runs a simple query and returns the answer in short.
func (c *client) query(sql string) string {
	c.t.Helper()
	return c.run(pgtest.Query(sql))
}

// ext runs one statement in the extended protocol.
func (c *client) ext(sql string) string {
	c.t.Helper()
	return c.run(pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
}

// run sends messages and returns the whole answer in short.
func (c *client) run(ms ...pgtest.Message) string {
	c.t.Helper()
	got, err := c.Exchange(ms...)
	if err != nil {
		c.t.Fatalf("%v: %v after %q", shortSent(ms), err, short(got))
	}
	return short(got)
}

// runs is run for either protocol.
func (c *client) runs(protocol, sql string) string {
	c.t.Helper()
	if protocol == "extended" {
		return c.ext(sql)
	}
	return c.query(sql)
}

// sendSQL sends one statement in either protocol and does not wait.
func (c *client) sendSQL(protocol, sql string) {
	c.t.Helper()
	if protocol == "extended" {
		c.send(pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
		return
	}
	c.send(pgtest.Query(sql))
}

// send sends and does not wait.
func (c *client) send(ms ...pgtest.Message) {
	c.t.Helper()
	if err := c.Send(ms...); err != nil {
		c.t.Fatalf("send %v: %v", shortSent(ms), err)
	}
}

// ready reads up to the n-th ReadyForQuery.
func (c *client) ready(n int) string {
	c.t.Helper()
	got, err := c.ReadUntilReady(n)
	if err != nil {
		c.t.Fatalf("read: %v after %q", err, short(got))
	}
	return short(got)
}

// until reads up to a message of one of the types.
func (c *client) until(types ...byte) string {
	c.t.Helper()
	got, err := c.ReadUntilType(types...)
	if err != nil {
		c.t.Fatalf("read: %v after %q", err, short(got))
	}
	return short(got)
}

// end reads until the server closes the connection.
func (c *client) end() string {
	c.t.Helper()
	got, err := c.ReadToEnd()
	if err != nil {
		c.t.Fatalf("read to the end: %v after %q", err, short(got))
	}
	return short(got)
}

// silent fails the test if the server says anything within a moment.
func (c *client) silent() {
	c.t.Helper()
	_ = c.Conn().SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	var b [1]byte
	n, err := c.Conn().Read(b[:])
	if n > 0 || !isTimeout(err) {
		c.t.Fatalf("the server spoke: %q %v", b[:n], err)
	}
}

// short prints messages of a server in short: their letters, and of those that say something, what.
func short(ms []pgtest.Message) string {
	var out []string
	for _, m := range ms {
		out = append(out, shortOne(m))
	}
	return strings.Join(out, " ")
}

// shortOne is short for one message.
func shortOne(m pgtest.Message) string {
	switch m.Type {
	case 'D':
		return "D(" + strings.Join(pgtest.Rows([]pgtest.Message{m})[0], ",") + ")"
	case 'C':
		return "C(" + strings.TrimRight(string(m.Body), "\x00") + ")"
	case 'Z':
		return "Z(" + string(m.Body) + ")"
	case 'E', 'N':
		by := ""
		if pgtest.Field(m, 'R') == "pgweir" {
			by = " pgweir"
		}
		return fmt.Sprintf("%c(%s %s%s)", m.Type, pgtest.Field(m, 'S'), pgtest.Field(m, 'C'), by)
	case 'S':
		name, value, _ := strings.Cut(strings.TrimRight(string(m.Body), "\x00"), "\x00")
		return "S(" + name + "=" + value + ")"
	case 'd':
		if len(m.Body) > 40 {
			return fmt.Sprintf("d(%d bytes)", len(m.Body))
		}
		return "d(" + string(m.Body) + ")"
	}
	return string(m.Type)
}

// shortSent is the letters of messages of a client.
func shortSent(ms []pgtest.Message) string {
	var b strings.Builder
	for _, m := range ms {
		b.WriteByte(m.Type)
	}
	return b.String()
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// equal compares what was got with what should be.
func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\n got  %v\n want %v", what, got, want)
	}
}

// both runs a test in both protocols.
func both(t *testing.T, f func(t *testing.T, protocol string)) {
	for _, p := range []string{"simple", "extended"} {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

// testCatalog is what the rig's database says of its names: a table t without peculiarities, a
// view v and a function f that are reads by the catalog's word alone, a volatile function w, a
// function o that leaves something in the session, a function k that leaves what DISCARD ALL removes, an unlogged
// table u, and functions n and m, which leave the name of a setting.
func testCatalog() *router.Catalog {
	name := func(n string) router.QName { return router.QName{Schema: "public", Name: n} }
	return &router.Catalog{
		Functions: map[router.QName]router.FuncInfo{
			name("f"): {Verdict: router.VerdictRead}, name("w"): {Verdict: router.VerdictDoubtful},
			name("o"): {Verdict: router.VerdictDoubtful, Opaque: true, Lasting: true},
			name("k"): {Verdict: router.VerdictDoubtful, Opaque: true},
			name("n"): {Verdict: router.VerdictDoubtful, Leaves: "a.b"}, name("m"): {Verdict: router.VerdictRead, Leaves: "a.b"},
		},
		Relations: map[router.QName]router.RelInfo{
			name("t"): {Kind: 'r', Persistence: 'p', Read: router.VerdictRead},
			name("v"): {Kind: 'v', Persistence: 'p', Read: router.VerdictRead, Calls: true},
			name("u"): {Kind: 'r', Persistence: 'u', Read: router.VerdictPrimary},
		},
	}
}
