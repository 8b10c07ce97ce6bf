package health

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// fakeNode is a server as the monitor's connections see it.
type fakeNode struct {
	mu sync.Mutex
	observation
	insert  lsn
	refuse  error         // what dialling answers
	hung    bool          // takes connections and answers nothing
	delay   time.Duration // of each answer
	samples int
	asked   []time.Time // when samples were requested
	starts  []int64     // more than one: each connection meets the next server
	dials   int
	epoch   int // connections of an older one are broken
}

// fakeNet is a dialer to fake nodes, by host.
type fakeNet map[string]*fakeNode

// fakeLink is a connection to a fake node.
type fakeLink struct {
	node  *fakeNode
	start int64
	epoch int
}

// dial connects unless the node refuses or hangs.
func (d fakeNet) dial(ctx context.Context, n NodeConfig) (link, error) {
	f := d[n.Host]
	if f == nil {
		return nil, &net.DNSError{Err: "no such host"}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	if f.refuse != nil {
		return nil, f.refuse
	}
	if f.hung {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return nil, ctx.Err()
	}
	l := &fakeLink{node: f, start: f.start, epoch: f.epoch}
	if len(f.starts) > 0 {
		l.start = f.starts[f.dials%len(f.starts)]
	}
	return l, nil
}

// answer waits as the node makes its clients wait.
func (l *fakeLink) answer(ctx context.Context, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	l.node.mu.Lock()
	hung, delay, broken := l.node.hung, l.node.delay, l.epoch != l.node.epoch
	l.node.mu.Unlock()
	switch {
	case broken:
		return syscall.ECONNRESET
	case hung:
		<-ctx.Done()
		return ctx.Err()
	case delay > 0:
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// probe answers with what the node is.
func (l *fakeLink) probe(ctx context.Context, deadline time.Time) (*observation, error) {
	sent := Clock()
	if err := l.answer(ctx, deadline); err != nil {
		return nil, err
	}
	l.node.mu.Lock()
	defer l.node.mu.Unlock()
	o := l.node.observation
	o.sent, o.start = sent, l.start
	return &o, nil
}

// sample answers with the node's positions.
func (l *fakeLink) sample(ctx context.Context, deadline time.Time) (sample, error) {
	l.node.mu.Lock()
	l.node.samples++
	l.node.asked = append(l.node.asked, time.Now())
	l.node.mu.Unlock()
	if err := l.answer(ctx, deadline); err != nil {
		return sample{}, err
	}
	l.node.mu.Lock()
	defer l.node.mu.Unlock()
	n := l.node
	return sample{recovery: n.recovery, timeline: n.timeline, replay: n.replayed, flush: n.flush, insert: n.insert, xmin: 1, xmax: 1, next: 1}, nil
}

// close does nothing: there is no socket.
func (l *fakeLink) close() {}

// set changes a node.
func (f *fakeNode) set(change func(*fakeNode)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// fakePrimary writes on a timeline.
func fakePrimary(timeline uint32) *fakeNode {
	f := &fakeNode{observation: observation{system: ours, timeline: timeline, start: 1, flush: 1000, forks: true, can: allCapabilities, version: 150020}}
	return f
}

// fakeStandby streams on a timeline.
func fakeStandby(timeline uint32) *fakeNode {
	return &fakeNode{observation: observation{
		system: ours, recovery: true, timeline: timeline, start: 1, received: 1000, replayed: 1000,
		receiving: true, follows: timeline, can: allCapabilities, version: 150020,
	}}
}

// crash ends a node's process: its connections break and new ones are refused.
func (f *fakeNode) crash() {
	f.set(func(f *fakeNode) { f.epoch++; f.refuse = syscall.ECONNREFUSED })
}

// promote makes a standby the primary of the next timeline.
func (f *fakeNode) promote() {
	f.set(func(f *fakeNode) {
		f.history = append(slices.Clone(f.history), fork{f.timeline, f.received})
		f.timeline++
		f.recovery, f.flush, f.receiving, f.follows, f.received, f.replayed, f.forks = false, f.received, false, 0, 0, 0, true
	})
}

// rig is a monitor over fake nodes a, b, c.
type rig struct {
	*Monitor
	nodes fakeNet
	stop  func()
}

// startRig runs a monitor inside of a bubble; stop must be called before the bubble ends.
func startRig(t *testing.T, nodes fakeNet, change func(*Config)) *rig {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Cluster = "fake"
	cfg.Login.User = "watch"
	cfg.Log = slog.New(slog.DiscardHandler)
	for _, name := range []string{"a", "b", "c", "d"} {
		if nodes[name] != nil {
			cfg.Nodes = append(cfg.Nodes, NodeConfig{Name: name, Host: name, Port: 5432, Weight: 1})
		}
	}
	if change != nil {
		change(&cfg)
	}
	m, err := newMonitor(cfg, nil, nodes)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	r := &rig{Monitor: m, nodes: nodes}
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return r
}

// after lets time pass and everything that is due happen.
func (r *rig) after(d time.Duration) *Snapshot {
	time.Sleep(d)
	synctest.Wait()
	return r.Snapshot()
}

// expect fails unless the primary is the named node ("" for none), trusted.
func (r *rig) expect(t *testing.T, name string) {
	t.Helper()
	s := r.Snapshot()
	got := ""
	if s.Primary != nil && s.Primary.Trusted(Clock()) {
		got = s.Primary.Name
	}
	if got != name {
		t.Fatalf("primary %q, not %q; why: %s", got, name, s.Why)
	}
}

// happened counts events of a kind.
func (r *rig) happened(kind EventKind) int {
	n := 0
	for _, e := range r.Events() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// trio is a primary and two standbys.
func trio() fakeNet {
	return fakeNet{"a": fakePrimary(1), "b": fakeStandby(1), "c": fakeStandby(1)}
}

// TestMonitorFailover: crash, promotion by somebody else, the old primary back, and back in line.
func TestMonitorFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(10 * time.Millisecond)
		r.expect(t, "a")
		epoch := r.Snapshot().Epoch
		r.nodes["a"].crash()
		r.Report(r.Snapshot().Named("a").ID, EvidenceBroken)
		if s := r.after(50 * time.Millisecond); s.Named("a").State != StateDown {
			t.Fatalf("two refused connections are not enough: %s %s", s.Named("a").State, s.Named("a").Detail)
		}
		r.expect(t, "")
		for _, n := range r.Snapshot().Nodes[1:] {
			if n.State != StateUp || !n.Trusted(Clock()) {
				t.Errorf("reads stopped on %s: %s %s", n.Name, n.State, n.Detail)
			}
		}
		r.after(time.Second)
		r.nodes["b"].promote()
		r.after(20 * time.Millisecond)
		r.expect(t, "b")
		if s := r.Snapshot(); s.Epoch != epoch+1 || s.Timeline != 2 || s.Named("c").State != StateLagging {
			t.Fatalf("epoch %d after %d, timeline %d, c %s: a standby of the old line must not read", s.Epoch, epoch, s.Timeline, s.Named("c").State)
		}
		r.after(300 * time.Millisecond)
		if n := r.happened(EventQuarantined); n != 0 {
			t.Errorf("%d quarantine events about a node that is down", n)
		}
		r.nodes["a"].set(func(f *fakeNode) { f.refuse, f.start = nil, 2 })
		if s := r.after(500 * time.Millisecond); s.Named("a").Role != RoleOther || !strings.Contains(s.Named("a").Detail, "quarantined") {
			t.Fatalf("old primary: %s %s", s.Named("a").Role, s.Named("a").Detail)
		}
		r.expect(t, "b")
		if n := r.happened(EventQuarantined); n != 1 {
			t.Errorf("%d quarantine events", n)
		}
		r.nodes["c"].set(func(f *fakeNode) { f.timeline, f.follows = 2, 2 })
		if s := r.after(300 * time.Millisecond); s.Named("c").State != StateUp {
			t.Fatalf("c follows: %s %s", s.Named("c").State, s.Named("c").Detail)
		}
		if r.Snapshot().Epoch != epoch+1 || r.happened(EventPrimaryChanged) != 2 {
			t.Errorf("epoch %d, %d changes", r.Snapshot().Epoch, r.happened(EventPrimaryChanged))
		}
	})
}

// TestMonitorHang: silence takes trust after the window, the state after fall probes, and stops no
// other node's probes; one answer gives everything back and wakes who waits.
func TestMonitorHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(time.Second)
		r.expect(t, "a")
		a := r.Snapshot().Named("a")
		r.nodes["a"].set(func(f *fakeNode) { f.hung = true })
		r.after(701 * time.Millisecond)
		if a.Trusted(Clock()) {
			t.Fatal("trusted after the window")
		}
		if s := r.Snapshot(); s.Primary != nil || s.Named("a").State != StateSuspect {
			t.Fatalf("primary %v, a %s", s.Primary, s.Named("a").State)
		}
		if !r.Snapshot().Named("b").Trusted(Clock()) {
			t.Fatal("the stuck probe blocks another node's")
		}
		if s := r.after(1500 * time.Millisecond); s.Named("a").State != StateDown {
			t.Fatalf("a is %s after three silent probes", s.Named("a").State)
		}
		r.nodes["a"].set(func(f *fakeNode) { f.hung = false })
		wake := r.Changed()
		r.after(time.Second)
		r.expect(t, "a")
		select {
		case <-wake:
		default:
			t.Error("who waits was not woken")
		}
		if s := r.Snapshot(); s.Epoch != 1 {
			t.Errorf("epoch %d: the primary never changed", s.Epoch)
		}
	})
}

// TestMonitorFlap: a node that answers every other time neither changes the epoch nor stays trusted
// without evidence, and a login that fails is no death.
func TestMonitorFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(time.Second)
		for range 20 {
			r.nodes["a"].set(func(f *fakeNode) { f.epoch++; f.refuse = syscall.ECONNRESET })
			r.after(150 * time.Millisecond)
			r.nodes["a"].set(func(f *fakeNode) { f.refuse = nil })
			r.after(250 * time.Millisecond)
		}
		r.after(time.Second)
		r.expect(t, "a")
		if s := r.Snapshot(); s.Epoch != 1 {
			t.Errorf("epoch %d", s.Epoch)
		}
		r.nodes["a"].set(func(f *fakeNode) { f.epoch++; f.refuse = &loginError{errors.New("no password")} })
		s := r.after(10 * time.Second)
		if n := s.Named("a"); n.State != StateSuspect || n.Trusted(Clock()) {
			t.Errorf("after failed logins: %s, trusted %v", n.State, n.Trusted(Clock()))
		}
	})
}

// TestMonitorStopped: evidence dies with the clock alone, and late replies are none.
func TestMonitorStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), func(c *Config) { c.ProbeTimeout = 5 * time.Second })
		defer r.stop()
		r.after(time.Second)
		s := r.Snapshot()
		if !s.Primary.Trusted(Clock()) || s.Primary.Trusted(Clock()+int64(DefaultTrustWindow)+int64(250*time.Millisecond)) {
			t.Fatal("trust does not follow the clock")
		}
		r.nodes["a"].set(func(f *fakeNode) { f.delay = 600 * time.Millisecond })
		before := s.Primary.Live.Fresh()
		r.after(3 * time.Second)
		if s.Primary.Trusted(Clock()) {
			t.Error("a reply that took longer than the window counts")
		}
		if got := s.Primary.Live.Fresh(); got.AsOf > before.AsOf+1 {
			t.Errorf("late samples count: %+v after %+v", got, before)
		}
	})
}

// TestMonitorDemand: a demand starts samples at once, keeps them fast while it is held, one in
// flight at a time, and lets them rest afterwards.
func TestMonitorDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio()
		nodes["a"].delay = time.Millisecond
		r := startRig(t, nodes, nil)
		defer r.stop()
		r.after(1030 * time.Millisecond)
		count := func(n string) int { nodes[n].mu.Lock(); defer nodes[n].mu.Unlock(); return nodes[n].samples }
		idle := count("b")
		r.after(time.Second)
		if n := count("b") - idle; n < 18 || n > 22 {
			t.Errorf("%d samples of a standby in an idle second", n)
		}
		mark := r.Fence().Mark()
		release := r.Fence().Demand()
		r.after(2100 * time.Microsecond)
		if f := r.Snapshot().Named("b").Live.Fresh(); f.AsOf <= mark {
			t.Errorf("fresh as of %d two milliseconds after the demand, mark %d", f.AsOf, mark)
		}
		before := count("a")
		r.after(100 * time.Millisecond)
		release()
		if n := count("a") - before; n < 45 || n > 51 {
			t.Errorf("%d samples of the primary in 100 ms of demand", n)
		}
		before = count("a")
		r.after(time.Second)
		if n := count("a") - before; n > 7 {
			t.Errorf("%d samples of the primary in a second without demand", n)
		}
		for i, at := range nodes["a"].asked[2:] { // the first came behind the connection's own probe
			if gap := at.Sub(nodes["a"].asked[i+1]); gap < 2*time.Millisecond {
				t.Fatalf("samples %s apart", gap)
			}
		}
	})
}

// TestMonitorIncarnation: the end of a connection voids freshness, VoidNode too, both until sampled.
func TestMonitorIncarnation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(time.Second)
		b := r.Snapshot().Named("b")
		was := b.Live.Fresh()
		if was.AsOf == 0 {
			t.Fatal("not fresh")
		}
		r.nodes["b"].set(func(f *fakeNode) { f.epoch++; f.replayed = 10 })
		r.after(300 * time.Millisecond)
		if got := b.Live.Fresh(); got.AsOf != 0 || got.Incarnation == was.Incarnation {
			t.Errorf("reopened in its past: %+v after %+v", got, was)
		}
		r.nodes["b"].set(func(f *fakeNode) { f.replayed = 1000 })
		r.after(300 * time.Millisecond)
		was = b.Live.Fresh()
		r.VoidNode(b.ID)
		if got := b.Live.Fresh(); got.AsOf != 0 {
			t.Errorf("void: %+v", got)
		}
		r.after(5 * time.Millisecond)
		if got := b.Live.Fresh(); got.AsOf == 0 || got.Incarnation == was.Incarnation {
			t.Errorf("sampled again at once: %+v", got)
		}
	})
}

// TestMonitorMemory: a line is written before it is shown, survives a restart, and a memory that
// cannot be written holds writes.
func TestMonitorMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		withDir := func(c *Config) { c.StateDir = dir }
		r := startRig(t, trio(), withDir)
		r.after(time.Second)
		if _, err := os.Stat(filepath.Join(dir, "fake.json")); err != nil {
			t.Fatal(err)
		}
		r.nodes["b"].promote()
		r.after(100 * time.Millisecond)
		r.expect(t, "b")
		r.stop()

		// Started again, with the new primary gone: the old one alone is not believed.
		nodes := trio()
		nodes["b"].crash()
		nodes["c"].crash()
		r = startRig(t, nodes, withDir)
		r.after(time.Minute)
		r.expect(t, "")
		if s := r.Snapshot(); s.Timeline != 2 || !strings.Contains(s.Why, "quarantined") {
			t.Errorf("timeline %d, why %s", s.Timeline, s.Why)
		}
		r.stop()

		// The memory of members: c was a standby, so its promotion is accepted after a restart.
		nodes = trio()
		nodes["a"].crash()
		nodes["b"].crash()
		nodes["c"].set(func(f *fakeNode) { f.history = []fork{{1, 1000}}; f.timeline = 2 })
		nodes["c"].promote()
		r = startRig(t, nodes, withDir)
		defer r.stop()
		r.after(time.Second)
		r.expect(t, "c")
		if r.Snapshot().Timeline != 3 || r.Snapshot().Unconfirmed {
			t.Errorf("timeline %d, unconfirmed %v", r.Snapshot().Timeline, r.Snapshot().Unconfirmed)
		}

		away := dir + ".away"
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		nodes["a"].set(func(f *fakeNode) {
			f.observation, f.refuse, f.start = fakeStandby(3).observation, nil, 7
		})
		r.after(time.Second)
		nodes["c"].crash()
		nodes["a"].promote()
		r.after(time.Second)
		r.expect(t, "")
		if s := r.Snapshot(); !strings.Contains(s.Why, "cannot be remembered") || r.happened(EventMemory) == 0 {
			t.Errorf("why %s", s.Why)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		r.after(time.Second)
		r.expect(t, "a")
	})
}

// TestMonitorUnreadableMemory: a broken memory stops the start instead of being forgotten.
func TestMonitorUnreadableMemory(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "version": `{"version": 9}`, "position": `{"version": 1, "fork": "x", "flushed": "0/0"}`,
		"node": `{"version": 1, "fork": "0/0", "flushed": "0/0", "nodes": {"a:1": {"timeline": 1, "received": "?"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Cluster, cfg.Login.User, cfg.StateDir = "fake", "watch", t.TempDir()
			cfg.Nodes = []NodeConfig{{Host: "a", Port: 1, Weight: 1}}
			if err := os.WriteFile(filepath.Join(cfg.StateDir, "fake.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := newMonitor(cfg, nil, fakeNet{}); err == nil {
				t.Fatal("started")
			}
		})
	}
}

// TestMonitorOrders: what people say, and the errors for what makes no sense.
func TestMonitorOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(time.Second)
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			r.after(300 * time.Millisecond)
		}
		ok(r.Drain("b"))
		if n := r.Snapshot().Named("b"); n.State != StateDraining || n.Detail != "draining" {
			t.Errorf("drained: %s %s", n.State, n.Detail)
		}
		ok(r.Undrain("b"))
		if n := r.Snapshot().Named("b"); n.State != StateUp {
			t.Errorf("undrained: %s", n.State)
		}
		ok(r.Quarantine("a"))
		r.expect(t, "")
		ok(r.Accept("a"))
		r.expect(t, "a")
		// Split brain, and a person's way out of it.
		r.nodes["b"].set(func(f *fakeNode) { f.recovery, f.flush, f.forks = false, 1000, true })
		r.after(500 * time.Millisecond)
		r.expect(t, "")
		if !r.Snapshot().SplitBrain || r.happened(EventSplitBrain) != 1 {
			t.Errorf("split brain %v", r.Snapshot().SplitBrain)
		}
		ok(r.Accept("b"))
		r.expect(t, "b")
		if n := r.Snapshot().Named("a"); n.Role != RoleOther || r.Snapshot().SplitBrain || r.happened(EventSplitBrainOver) != 1 {
			t.Errorf("the other one: %s %s", n.Role, n.Detail)
		}
		for _, err := range []error{r.Drain("x"), r.Forget("a"), r.Forget("x"), r.Accept("x")} {
			if err == nil {
				t.Error("an order that makes no sense was taken")
			}
		}
		// A new system identifier, as after pg_upgrade.
		for _, n := range r.nodes {
			n.set(func(f *fakeNode) { f.system, f.epoch = 42, f.epoch+1; f.start = 9 })
		}
		r.nodes["a"].set(func(f *fakeNode) {
			f.observation = fakeStandby(1).observation
			f.system, f.start = 42, 9
		})
		r.after(time.Second)
		r.expect(t, "")
		if why := r.Snapshot().Why; !strings.Contains(why, "42") || !strings.Contains(why, "7000") {
			t.Errorf("why lacks an identifier: %s", why)
		}
		ok(r.AdoptCluster())
		r.expect(t, "b")
	})
}

// TestMonitorAcceptOlder: a person may insist on a primary that a standby has left.
func TestMonitorAcceptOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := startRig(t, trio(), func(c *Config) { c.StateDir = dir })
		defer r.stop()
		r.after(time.Second)
		r.nodes["c"].set(func(f *fakeNode) { f.timeline, f.follows = 2, 2 })
		r.after(time.Second)
		r.expect(t, "")
		if why := r.Snapshot().Why; !strings.Contains(why, "c follows timeline 2") {
			t.Errorf("why: %s", why)
		}
		if err := r.Accept("a"); err != nil {
			t.Fatal(err)
		}
		r.after(time.Second)
		r.expect(t, "a")
		if n := r.Snapshot().Named("c"); n.State != StateLagging {
			t.Errorf("c: %s", n.State)
		}
		// An order about a node that dies before it is carried out does not wait for its return.
		if err := r.AdoptCluster(); err != nil {
			t.Fatal(err)
		}
		r.after(300 * time.Millisecond)
		m, err := r.store.load()
		if err != nil || m.Node == "" && m.Timeline != 0 {
			t.Errorf("memory after ADOPT CLUSTER: %+v %v", m, err)
		}
	})
}

// TestMonitorNodes: a reload keeps what stays, drains what goes, and forgets it later.
func TestMonitorNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio()
		nodes["d"] = nil
		r := startRig(t, nodes, nil)
		defer r.stop()
		r.after(time.Second)
		ids := map[string]int{}
		for _, n := range r.Snapshot().Nodes {
			ids[n.Name] = n.ID
		}
		nodes["d"] = fakeStandby(1)
		list := []NodeConfig{
			{Name: "d", Host: "d", Port: 5432, Weight: 1},
			{Name: "first", Host: "a", Port: 5432, Weight: 3, Zone: "z", Tags: []string{"y", "x"}},
			{Name: "b", Host: "b", Port: 5432},
		}
		if err := r.SetNodes(append(list, list[0])); err == nil {
			t.Error("a doubled node was taken")
		}
		if err := r.SetNodes(list); err != nil {
			t.Fatal(err)
		}
		s := r.after(time.Second)
		first := s.Named("first")
		if first == nil || first.ID != ids["a"] || first.Weight != 3 || first.Zone != "z" || !slices.Equal(first.Tags, []string{"x", "y"}) || s.Primary != first {
			t.Fatalf("renamed: %+v", first)
		}
		if n := s.Named("d"); n == nil || n.State != StateUp || s.Nodes[0] != n {
			t.Errorf("new: %+v", n)
		}
		if n := s.Named("c"); n == nil || n.State != StateDraining {
			t.Errorf("gone: %+v", n)
		}
		if s.Epoch != 1 {
			t.Errorf("epoch %d", s.Epoch)
		}
		s = r.after(11 * time.Minute)
		if s.Named("c") != nil {
			t.Error("never forgotten")
		}
		if err := r.SetNodes(append(list, NodeConfig{Name: "c", Host: "c", Port: 5432, Weight: 1})); err != nil {
			t.Fatal(err)
		}
		if n := r.after(time.Second).Named("c"); n == nil || n.State != StateUp || n.ID == ids["c"] {
			t.Errorf("back: %+v, it was %d", n, ids["c"])
		}
	})
}

// TestMonitorSeveral: an address behind which connections meet different servers is refused.
func TestMonitorSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio()
		nodes["c"].starts = []int64{100, 200}
		r := startRig(t, nodes, nil)
		defer r.stop()
		s := r.after(20 * time.Second)
		n := s.Named("c")
		if n.State != StateDown || !strings.Contains(n.Detail, "several servers") || !strings.Contains(n.Detail, "dns://c:5432") || r.happened(EventSeveral) != 1 {
			t.Fatalf("%s %s, %d events", n.State, n.Detail, r.happened(EventSeveral))
		}
		r.expect(t, "a")
		// A restart is not that.
		nodes["b"].crash()
		r.after(time.Second)
		nodes["b"].set(func(f *fakeNode) { f.refuse, f.start = nil, 2 })
		if n := r.after(20 * time.Second).Named("b"); n.State != StateUp {
			t.Errorf("after a restart: %s %s", n.State, n.Detail)
		}
	})
}

// TestMonitorCapabilities: without positions freshness is timed, and nothing is lagging for it.
func TestMonitorCapabilities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio()
		for _, n := range nodes {
			n.can = 0
			n.received, n.replayed, n.receiving, n.timeline, n.follows, n.flush, n.system = 0, 0, false, 0, 0, 0, 0
		}
		r := startRig(t, nodes, nil)
		defer r.stop()
		s := r.after(time.Second)
		r.expect(t, "a")
		if r.happened(EventCapability) != 3 {
			t.Errorf("%d events about what cannot be asked", r.happened(EventCapability))
		}
		if s.Positions || s.Named("b").State != StateUp {
			t.Errorf("positions %v, b %s %s", s.Positions, s.Named("b").State, s.Named("b").Detail)
		}
		nodes["a"].crash()
		nodes["b"].set(func(f *fakeNode) { f.recovery = false })
		r.after(2 * time.Second)
		r.expect(t, "b")
	})
}

// TestMonitorMetrics: the names of interface.md, counters from zero, series of forgotten nodes gone.
func TestMonitorMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	m.begin("x")
	if n := testutil.ToFloat64(m.changes.WithLabelValues("x")); n != 0 {
		t.Errorf("starts at %v", n)
	}
	s := &Snapshot{Cluster: "x", Nodes: []*Node{{ID: 1, Name: "n", Role: RoleStandby, State: StateUp, Timeline: 3, LagBytes: 7, LagTime: 2 * time.Second}}, SplitBrain: true}
	m.measure(s, map[int]time.Duration{1: 1500 * time.Millisecond})
	want := `
# HELP pgweir_node_role 1 for the role that the node has, 0 for the others.
# TYPE pgweir_node_role gauge
pgweir_node_role{cluster="x",node="n",role="other"} 0
pgweir_node_role{cluster="x",node="n",role="primary"} 0
pgweir_node_role{cluster="x",node="n",role="standby"} 1
pgweir_node_role{cluster="x",node="n",role="unknown"} 0
# HELP pgweir_node_fresh_age_seconds Age of the primary's sample that the node has replayed, -1 while it vouches for nothing.
# TYPE pgweir_node_fresh_age_seconds gauge
pgweir_node_fresh_age_seconds{cluster="x",node="n"} 1.5
# HELP pgweir_split_brain 1 while several members are writable and neither follows from the other.
# TYPE pgweir_split_brain gauge
pgweir_split_brain{cluster="x"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "pgweir_node_role", "pgweir_node_fresh_age_seconds", "pgweir_split_brain"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	m.forget("x", "n")
	if n := testutil.CollectAndCount(m.role); n != 0 {
		t.Errorf("%d series of a forgotten node", n)
	}
}
