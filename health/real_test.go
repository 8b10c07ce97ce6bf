package health_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pgweir/health"
	"pgweir/internal/localpg"
)

// TestMain fails when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// makeCluster makes a real cluster that ends with the test.
func makeCluster(t *testing.T, cfg localpg.Config) *localpg.Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real servers")
	}
	c, err := localpg.New(t.Context(), cfg)
	if errors.Is(err, localpg.ErrNotFound) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// monitorRole is setup-sql's role in short.
const monitorRole = `CREATE ROLE watch LOGIN REPLICATION PASSWORD 'w'; GRANT pg_monitor TO watch`

// config watches all nodes of c as the role of monitorRole.
func config(t *testing.T, c *localpg.Cluster) health.Config {
	t.Helper()
	cfg := health.DefaultConfig()
	cfg.Cluster = "test"
	cfg.Login = health.Login{
		User: "watch", SSLMode: "disable",
		Password: func(context.Context) (string, error) { return "w", nil },
	}
	cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	for _, n := range c.Nodes {
		node, err := health.NodeAt(n.Addr())
		must(t, err)
		node.Name = n.Name
		cfg.Nodes = append(cfg.Nodes, node)
	}
	return cfg
}

// testWriter writes a log into the test's.
type testWriter struct{ t *testing.T }

// Write logs one line.
func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// run makes a monitor that runs until the test ends or stop is called.
func run(t *testing.T, cfg health.Config) (m *health.Monitor, stop func()) {
	t.Helper()
	m, err := health.New(cfg, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			must(t, <-done)
		}
	}
	t.Cleanup(stop)
	return m, stop
}

// await waits until the snapshot satisfies ok.
func await(t *testing.T, m *health.Monitor, what string, limit time.Duration, ok func(*health.Snapshot) bool) *health.Snapshot {
	t.Helper()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		changed := m.Changed()
		if s := m.Snapshot(); ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-timeout.C:
			s := m.Snapshot()
			for _, n := range s.Nodes {
				t.Logf("%s: %s %s timeline %d: %s", n.Name, n.Role, n.State, n.Timeline, n.Detail)
			}
			t.Fatalf("waited %s in vain until %s; why: %s", limit, what, s.Why)
		}
	}
}

// primaryIs is the condition that the named node takes writes and is trusted.
func primaryIs(name string) func(*health.Snapshot) bool {
	return func(s *health.Snapshot) bool {
		return s.Primary != nil && s.Primary.Name == name && s.Primary.Trusted(health.Clock())
	}
}

// standbysUp is the condition that n standbys may answer reads.
func standbysUp(n int) func(*health.Snapshot) bool {
	return func(s *health.Snapshot) bool {
		up := 0
		for _, node := range s.Nodes {
			if node.Role == health.RoleStandby && node.State == health.StateUp {
				up++
			}
		}
		return up == n
	}
}

// inState is the condition that the named node has that role and state.
func inState(name string, role health.Role, state health.State) func(*health.Snapshot) bool {
	return func(s *health.Snapshot) bool {
		n := s.Named(name)
		return n != nil && n.Role == role && n.State == state
	}
}

// awaitFresh waits until the named node vouches for everything marked before now.
func awaitFresh(t *testing.T, m *health.Monitor, name string, limit time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	mark := m.Fence().Mark()
	release := m.Fence().Demand()
	defer release()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		changed := m.Fence().Changed()
		if m.Snapshot().Named(name).Live.Fresh().AsOf > mark {
			return time.Since(began)
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("%s is not fresh after %s: %+v, mark %d", name, limit, m.Snapshot().Named(name).Live.Fresh(), mark)
		}
	}
}

// TestFailover kills a real primary, promotes a standby, and restarts the old primary writable.
func TestFailover(t *testing.T) {
	c := makeCluster(t, localpg.Config{Standbys: 2})
	ctx := t.Context()
	must(t, c.Exec(ctx, "postgres", monitorRole))
	cfg := config(t, c)
	cfg.StateDir = t.TempDir()
	m, stop := run(t, cfg)
	a, b, d := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	await(t, m, "the primary is found", 5*time.Second, primaryIs(a.Name))
	s := await(t, m, "both standbys are up", 5*time.Second, standbysUp(2))
	epoch := s.Epoch
	if s.Unconfirmed || !s.Positions || s.Timeline != 1 {
		t.Fatalf("unconfirmed %v, positions %v, timeline %d", s.Unconfirmed, s.Positions, s.Timeline)
	}
	must(t, c.Exec(ctx, "postgres", "CREATE TABLE x (i int)"))
	t.Logf("fresh after %s and %s", awaitFresh(t, m, b.Name, time.Second), awaitFresh(t, m, d.Name, time.Second))

	killed := time.Now()
	must(t, a.Kill9())
	s = await(t, m, "the loss is seen", 2*time.Second, func(s *health.Snapshot) bool { return s.Primary == nil })
	t.Logf("loss seen after %s: %s", time.Since(killed), s.Why)
	await(t, m, "the old one is down", 2*time.Second, func(s *health.Snapshot) bool { return s.Named(a.Name).State == health.StateDown })
	t.Logf("down after %s", time.Since(killed))
	if !standbysUp(2)(m.Snapshot()) {
		t.Errorf("reads do not go on")
	}

	added := promoteAndMeasure(t, m, b)
	t.Logf("named %s after pg_is_in_recovery() = false", added)
	if added > time.Second {
		t.Errorf("took %s to name the new primary", added)
	}
	s = m.Snapshot()
	if s.Epoch != epoch+1 || s.Timeline != 2 {
		t.Errorf("epoch %d after %d, timeline %d", s.Epoch, epoch, s.Timeline)
	}
	must(t, d.Follow(ctx, b))
	await(t, m, "the other standby follows", 10*time.Second, inState(d.Name, health.RoleStandby, health.StateUp))
	awaitFresh(t, m, d.Name, 2*time.Second)

	must(t, a.Start(ctx))
	s = await(t, m, "the old one is quarantined", 5*time.Second, inState(a.Name, health.RoleOther, health.StateUp))
	if !strings.Contains(s.Named(a.Name).Detail, "quarantined") || !primaryIs(b.Name)(s) || s.SplitBrain {
		t.Errorf("detail %q, primary %v, split brain %v", s.Named(a.Name).Detail, s.Primary, s.SplitBrain)
	}

	// A restart of the process must not fall for the old primary either, though it is alone now.
	stop()
	must(t, b.Stop(ctx, localpg.Fast))
	m, _ = run(t, cfg)
	s = await(t, m, "the old one is seen", 5*time.Second, inState(a.Name, health.RoleOther, health.StateUp))
	if s.Primary != nil || s.Timeline != 2 {
		t.Errorf("primary %v on timeline %d after a restart with memory", s.Primary, s.Timeline)
	}
	must(t, b.Start(ctx))
	await(t, m, "the right one is back", 5*time.Second, primaryIs(b.Name))
	_, err := a.Rejoin(ctx, b)
	must(t, err)
	await(t, m, "all are back", 10*time.Second, standbysUp(2))
}

// promoteAndMeasure promotes a standby and returns how long after it left recovery the snapshot
// names it.
func promoteAndMeasure(t *testing.T, m *health.Monitor, n *localpg.Node) time.Duration {
	t.Helper()
	left := make(chan time.Time, 1)
	conn, err := n.Connect(t.Context(), "postgres")
	must(t, err)
	go func() {
		defer close(left)
		for t.Context().Err() == nil {
			res := conn.ExecParams(t.Context(), "SELECT pg_is_in_recovery()", nil, nil, nil, nil).Read()
			if res.Err != nil {
				return
			}
			if string(res.Rows[0][0]) == "f" {
				left <- time.Now()
				return
			}
		}
	}()
	named := make(chan time.Time, 1)
	go func() {
		for {
			changed := m.Changed()
			if primaryIs(n.Name)(m.Snapshot()) {
				named <- time.Now()
				return
			}
			<-changed
		}
	}()
	must(t, n.Exec(t.Context(), "postgres", "SELECT pg_promote(false)"))
	at, ok := <-left
	must(t, conn.Close(t.Context()))
	if !ok {
		t.Fatal("the watch of pg_is_in_recovery() ended early")
	}
	select {
	case got := <-named:
		return got.Sub(at)
	case <-time.After(5 * time.Second):
		t.Fatalf("%s is not named: %s", n.Name, m.Snapshot().Why)
		return 0
	}
}

// TestHangAndCrash stops a real primary with SIGSTOP, kills one backend of a standby (which reopens
// it in its past), and lets an idle primary stand behind a page header.
func TestHangAndCrash(t *testing.T) {
	c := makeCluster(t, localpg.Config{Standbys: 1})
	ctx := t.Context()
	must(t, c.Exec(ctx, "postgres", monitorRole))
	m, _ := run(t, config(t, c))
	a, b := c.Nodes[0], c.Nodes[1]
	await(t, m, "the primary is found", 5*time.Second, primaryIs(a.Name))
	await(t, m, "the standby is up", 5*time.Second, standbysUp(1))

	on := m.Fence().SyncCommitOff()
	must(t, a.Exec(ctx, "postgres", "SELECT pg_switch_wal()"))
	awaitFresh(t, m, b.Name, 2*time.Second) // the insert position stands at 40 in a segment
	must(t, a.Exec(ctx, "postgres", "SET synchronous_commit = off; CREATE TABLE y AS SELECT generate_series(1, 1000)"))
	awaitFresh(t, m, b.Name, 2*time.Second)
	on()
	awaitFresh(t, m, b.Name, 2*time.Second)

	before := m.Snapshot().Named(b.Name).Live.Fresh()
	conn, err := b.Connect(ctx, "postgres")
	must(t, err)
	must(t, syscall.Kill(int(conn.PID()), syscall.SIGKILL))
	changed := m.Fence().Changed()
	for m.Snapshot().Named(b.Name).Live.Fresh().Incarnation == before.Incarnation {
		select {
		case <-changed:
			changed = m.Fence().Changed()
		case <-time.After(5 * time.Second):
			t.Fatal("the standby's crash went unnoticed")
		}
	}
	must(t, conn.Close(ctx))
	await(t, m, "the standby is back", 10*time.Second, standbysUp(1))
	awaitFresh(t, m, b.Name, 5*time.Second)

	must(t, a.Pause())
	began := time.Now()
	await(t, m, "trust ends", 3*time.Second, func(s *health.Snapshot) bool { return s.Primary == nil })
	t.Logf("writes held %s after the hang", time.Since(began))
	if !standbysUp(1)(m.Snapshot()) || !m.Snapshot().Named(b.Name).Trusted(health.Clock()) {
		t.Error("the hang of one node touched another")
	}
	await(t, m, "the hung node is down", 5*time.Second, func(s *health.Snapshot) bool { return s.Named(a.Name).State == health.StateDown })
	must(t, a.Resume())
	await(t, m, "the primary is back", 5*time.Second, primaryIs(a.Name))
	if s := m.Snapshot(); s.Epoch != 1 {
		t.Errorf("epoch %d", s.Epoch)
	}
}

// TestRights: what a monitor without pg_monitor and without REPLICATION still sees.
func TestRights(t *testing.T) {
	c := makeCluster(t, localpg.Config{Standbys: 1})
	ctx := t.Context()
	must(t, c.Exec(ctx, "postgres", "CREATE ROLE watch LOGIN PASSWORD 'w'"))
	must(t, c.Exec(ctx, "postgres", "ALTER ROLE postgres SET synchronous_commit = off"))
	m, _ := run(t, config(t, c))
	a, b := c.Nodes[0], c.Nodes[1]
	await(t, m, "the primary is found", 10*time.Second, primaryIs(a.Name))
	await(t, m, "the standby is up", 10*time.Second, standbysUp(1))
	awaitFresh(t, m, b.Name, 2*time.Second)
	must(t, a.Kill9())
	await(t, m, "the loss is seen", 2*time.Second, func(s *health.Snapshot) bool { return s.Primary == nil })
	t.Logf("named %s after pg_is_in_recovery() = false", promoteAndMeasure(t, m, b))
	s := await(t, m, "the new primary", time.Second, primaryIs(b.Name))
	if s.Timeline != 2 {
		t.Errorf("timeline %d", s.Timeline)
	}
}
