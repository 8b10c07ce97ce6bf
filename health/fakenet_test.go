package health

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
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
