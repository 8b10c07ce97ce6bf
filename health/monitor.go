package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Evidence is what traffic noticed about a node. It changes no role: it makes the monitor look at
// once instead of at the next probe.
type Evidence uint8

// The kinds of evidence.
const (
	EvidenceRefused  Evidence = iota // a connection was refused
	EvidenceBroken                   // reset or ended
	EvidenceShutdown                 // 57P01, 57P02, 57P03
	EvidenceReadOnly                 // 25006 from a node believed primary
	EvidenceTimeout                  // a connection was not made in time
)

// Monitor watches one cluster: Run asks the nodes, Snapshot says what follows. All methods may be
// called from any goroutine, also before and after Run.
type Monitor struct {
	cfg     *Config
	log     *slog.Logger
	metrics *Metrics
	dialer  dialer
	store   *store
	fence   Fence
	snap    atomic.Pointer[Snapshot]
	changed atomic.Pointer[chan struct{}]
	kick    chan struct{} // look again
	lookup  chan struct{} // discover again
	mu      struct {
		sync.Mutex
		book     *book
		static   []NodeConfig
		found    []NodeConfig
		watchers map[int]*watcher
		events   []Event
		saveErr  string
		lookErr  string
		savedAt  int64
	}
}

// New makes a monitor and reads its memory. metrics may be nil. Snapshot works at once and shows
// that nothing is known; Run must be called for that to change.
func New(cfg Config, metrics *Metrics) (*Monitor, error) {
	return newMonitor(cfg, metrics, &pgDialer{login: cfg.Login})
}

// newMonitor is New with another way to reach the nodes.
func newMonitor(cfg Config, metrics *Metrics, d dialer) (*Monitor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure monitor of cluster %q: %w", cfg.Cluster, err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	st, err := newStore(cfg.StateDir, cfg.Cluster)
	if err != nil {
		return nil, err
	}
	old, err := st.load()
	if err != nil {
		return nil, err
	}
	if metrics == nil {
		metrics = NewMetrics(nil)
	}
	m := &Monitor{
		cfg: &cfg, log: cfg.Log, metrics: metrics, dialer: d, store: st,
		kick: make(chan struct{}, 1), lookup: make(chan struct{}, 1),
	}
	now := Clock()
	m.mu.book = newBook(m.cfg, now)
	m.mu.watchers = map[int]*watcher{}
	if err := m.mu.book.recall(old); err != nil {
		return nil, fmt.Errorf("read memory of cluster %q: %w", cfg.Cluster, err)
	}
	m.mu.static = slices.Clone(cfg.Nodes)
	m.setLocked(now)
	m.metrics.begin(cfg.Cluster)
	first := make(chan struct{})
	m.changed.Store(&first)
	m.step()
	return m, nil
}

// Snapshot is what is known now; never nil.
func (m *Monitor) Snapshot() *Snapshot { return m.snap.Load() }

// Changed returns a channel that is closed at the next swap of the snapshot, also when only a node
// that was not trusted is so again. Take it before Snapshot.
func (m *Monitor) Changed() <-chan struct{} { return *m.changed.Load() }

// Fence is the cluster's fence.
func (m *Monitor) Fence() *Fence { return &m.fence }

// Report tells what traffic noticed of a node; it is probed at once.
func (m *Monitor) Report(nodeID int, e Evidence) {
	m.mu.Lock()
	w := m.mu.watchers[nodeID]
	m.mu.Unlock()
	if w == nil {
		return
	}
	signal(w.probe)
	signal(w.sample)
	if e == EvidenceRefused || e == EvidenceTimeout {
		signal(w.fresh)
	}
}

// VoidNode says that a lease of the node ended unasked: the server may have crashed and reopened in
// its past, so its freshness is void until it is sampled again, which happens at once.
func (m *Monitor) VoidNode(nodeID int) {
	m.fence.void(nodeID)
	m.mu.Lock()
	w := m.mu.watchers[nodeID]
	m.mu.Unlock()
	if w != nil {
		signal(w.sample)
		signal(w.probe)
	}
}

// SetNodes replaces the configured nodes, as a reload does. An address that stays keeps its ID and
// everything known of it; one that is gone drains and counts for the majority until
// discovery.forget has passed.
func (m *Monitor) SetNodes(nodes []NodeConfig) error {
	if err := errors.Join(validateNodes(nodes)...); err != nil {
		return fmt.Errorf("set nodes of cluster %q: %w", m.cfg.Cluster, err)
	}
	m.mu.Lock()
	m.mu.static = slices.Clone(nodes)
	events := m.setLocked(Clock())
	m.mu.Unlock()
	m.tell(events)
	signal(m.kick)
	return nil
}

// setLocked gives the book the union of configured and discovered nodes.
func (m *Monitor) setLocked(now int64) []Event {
	nodes := slices.Clone(m.mu.static)
	for _, n := range m.mu.found {
		taken := func(o NodeConfig) bool { return o.addr() == n.addr() || o.name() == n.name() }
		if !slices.ContainsFunc(nodes, taken) {
			nodes = append(nodes, n)
		}
	}
	added, events := m.mu.book.set(nodes, now)
	for _, f := range added {
		m.fence.join(f.id, f.live)
	}
	return events
}

// Run watches until ctx ends, writes the memory, and returns nil then. It must be called once.
func (m *Monitor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.fence.onDemand(m.wakeSamplers)
	defer m.fence.onDemand(nil)
	stops := map[int]context.CancelCauseFunc{}
	defer func() {
		for _, stop := range stops {
			stop(errStopped)
		}
	}()
	if m.cfg.Discover != "" {
		wg.Go(func() { discover(ctx, m.cfg, m.lookup, m.foundNodes, m.missedLookup) })
	}
	ticker := time.NewTicker(max(m.cfg.ProbeInterval/2, time.Millisecond))
	defer ticker.Stop()
	for {
		for _, w := range m.reconcile(stops) {
			wctx, stop := context.WithCancelCause(ctx)
			stops[w.id] = stop
			wg.Go(func() { w.run(wctx) })
		}
		m.step()
		select {
		case <-ctx.Done():
			m.save(Clock(), true)
			return nil
		case <-m.kick:
		case <-ticker.C:
			m.save(Clock(), false)
			m.measure()
		}
	}
}

// reconcile stops the watchers of nodes that are no more and makes those of new ones, which the
// caller runs.
func (m *Monitor) reconcile(stops map[int]context.CancelCauseFunc) []*watcher {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, stop := range stops {
		if m.mu.book.find(id) == nil {
			stop(errStopped)
			delete(stops, id)
			delete(m.mu.watchers, id)
		}
	}
	var started []*watcher
	for _, f := range m.mu.book.nodes {
		if m.mu.watchers[f.id] == nil {
			w := newWatcher(m, f.id, f.cfg)
			m.mu.watchers[f.id] = w
			started = append(started, w)
		}
	}
	return started
}

// step decides, writes a new line to the memory, and only then shows it. It is called by Run alone,
// and by New before that.
func (m *Monitor) step() {
	now := Clock()
	m.mu.Lock()
	expired := m.mu.book.expire(now)
	v := decide(m.mu.book.inquiry(now))
	var mem *memory
	if v.accept != nil {
		mem = m.mu.book.remember(*v.accept)
	}
	m.mu.Unlock()
	m.forgotten(expired)
	events := m.settle(&v, mem)

	m.mu.Lock()
	b := m.mu.book
	if v.accept == nil && m.mu.saveErr == "" {
		b.ordained = 0 // an order is for now: it must not strike when the node comes back one day
	}
	events = append(events, b.commit(v, now)...)
	m.fence.setLine(b.line.primary, b.line.Timeline)
	snap := b.snapshot(v, now, &m.fence)
	if b.wake || !equalSnapshots(m.snap.Load(), snap) {
		m.publish(snap)
	}
	b.settle(m.snap.Load())
	m.mu.Unlock()
	if v.accept != nil {
		m.metrics.primaryChanged(m.cfg.Cluster)
		m.wakeSamplers()
	}
	m.tell(events)
}

// settle writes the memory of a new line. Rule 5 wants that before the first write: without it the
// line is not accepted, and that is tried again.
func (m *Monitor) settle(v *verdict, mem *memory) []Event {
	if mem == nil {
		return nil
	}
	err := m.store.save(mem)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.mu.saveErr = ""
		m.mu.savedAt = Clock()
		return nil
	}
	v.accept, v.primary, v.unconfirmed = nil, nil, m.mu.book.pending
	v.why = "the new primary cannot be remembered: " + err.Error()
	if m.mu.saveErr == err.Error() {
		return nil
	}
	m.mu.saveErr = err.Error()
	return []Event{{Kind: EventMemory, Text: v.why}}
}

// publish shows s and wakes who waits. Only step calls it.
func (m *Monitor) publish(s *Snapshot) {
	m.snap.Store(s)
	next := make(chan struct{})
	close(*m.changed.Swap(&next))
}

// saveEvery is how often positions that moved are written to the memory.
const saveEvery = int64(5 * time.Second)

// save writes the memory if it is older than what is known; last: whatever its age.
func (m *Monitor) save(now int64, last bool) {
	m.mu.Lock()
	b := m.mu.book
	if !b.dirty || !last && now-m.mu.savedAt < saveEvery {
		m.mu.Unlock()
		return
	}
	mem := b.remember(b.line)
	b.dirty = false
	m.mu.savedAt = now
	m.mu.Unlock()
	err := m.store.save(mem)
	if err == nil {
		return
	}
	m.mu.Lock()
	b.dirty = true
	known := m.mu.saveErr == err.Error()
	m.mu.saveErr = err.Error()
	m.mu.Unlock()
	if !known {
		m.tell([]Event{{Kind: EventMemory, Text: err.Error()}})
	}
}

// answered takes an answered probe.
func (m *Monitor) answered(id int, o *observation) {
	now := Clock()
	if now-o.sent > int64(m.cfg.TrustWindow) {
		return // late: it says what was, not what is
	}
	m.mu.Lock()
	events := m.mu.book.answered(id, o, now)
	m.mu.Unlock()
	m.tell(events)
	signal(m.kick)
}

// missed takes a missed probe.
func (m *Monitor) missed(id int, f failure) {
	m.mu.Lock()
	m.mu.book.failed(id, f, Clock())
	m.mu.Unlock()
	signal(m.lookup)
	signal(m.kick)
}

// freshMissed takes the outcome of a new connection, nil for success.
func (m *Monitor) freshMissed(id int, miss *failure) {
	m.mu.Lock()
	if f := m.mu.book.find(id); f != nil {
		f.freshFailed(miss)
	}
	m.mu.Unlock()
	signal(m.kick)
}

// sampled takes a sample as evidence and says whether it agrees with the newest probe.
func (m *Monitor) sampled(id int, s sample) bool {
	m.mu.Lock()
	agrees := m.mu.book.sampled(id, s, Clock())
	wake := m.mu.book.wake
	m.mu.Unlock()
	m.metrics.sampled(m.cfg.Cluster)
	if wake {
		signal(m.kick)
	}
	return agrees
}

// falling says whether the node has missed probes but is not down, so that the next one decides.
func (m *Monitor) falling(id int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.mu.book.find(id)
	return f != nil && f.misses > 0 && !f.down
}

// rising says whether the node is down but answers.
func (m *Monitor) rising(id int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.mu.book.find(id)
	return f != nil && f.oks > 0 && f.down
}

// idle is how often the node is sampled while nobody waits.
func (m *Monitor) idle(id int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.mu.book
	f := b.find(id)
	switch {
	case f == nil || f.obs == nil || !f.obs.recovery:
		return m.cfg.ProbeInterval
	case b.primary == 0 && b.line.known():
		// Somebody is about to be promoted, and clients wait for it.
		return min(m.cfg.StandbyInterval, m.cfg.ProbeInterval) / 5
	}
	return min(m.cfg.StandbyInterval, m.cfg.ProbeInterval)
}

// worthSampling says whether the node's samples can help somebody who waits: it is the primary, or
// a standby of its line that may answer reads.
func (m *Monitor) worthSampling(id int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.mu.book
	f := b.find(id)
	switch {
	case f == nil || f.obs == nil || f.obs.can&canPositions == 0:
		return false
	case f.obs.recovery:
		return f.obs.timeline == b.line.Timeline && f.cfg.Weight > 0 && !f.cfg.NoReads && !f.drained && !f.manual && f.gone == 0
	}
	return f.id == b.line.primary
}

// wakeSamplers makes every node that is worth it be sampled now.
func (m *Monitor) wakeSamplers() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.mu.watchers {
		signal(w.sample)
	}
}

// foundNodes takes the answer of discovery.
func (m *Monitor) foundNodes(nodes []NodeConfig) {
	m.mu.Lock()
	m.mu.lookErr = ""
	if slices.EqualFunc(m.mu.found, nodes, func(a, b NodeConfig) bool { return a.addr() == b.addr() }) {
		m.mu.Unlock()
		return
	}
	m.mu.found = nodes
	events := m.setLocked(Clock())
	m.mu.Unlock()
	m.tell(events)
	signal(m.kick)
}

// missedLookup logs a discovery that found nothing, once for each new reason.
func (m *Monitor) missedLookup(err error) {
	m.mu.Lock()
	known := m.mu.lookErr == err.Error()
	m.mu.lookErr = err.Error()
	m.mu.Unlock()
	if !known {
		m.log.Warn("discovery found nothing, nodes stay as they are", "error", err)
	}
}

// forgotten cleans up after nodes that left the book.
func (m *Monitor) forgotten(nodes []*facts) {
	var events []Event
	for _, f := range nodes {
		m.fence.leave(f.id)
		m.metrics.forget(m.cfg.Cluster, f.cfg.name())
		events = append(events, Event{Kind: EventNodeForgotten, Node: f.cfg.name(), Text: "counts for the majority no more"})
	}
	m.tell(events)
}

// tell logs events and keeps the newest.
func (m *Monitor) tell(events []Event) {
	if len(events) == 0 {
		return
	}
	for i := range events {
		events[i].At = time.Now()
		events[i].log(m.log)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.events = append(m.mu.events, events...)
	if n := len(m.mu.events) - eventsKept; n > 0 {
		m.mu.events = slices.Clone(m.mu.events[n:])
	}
}

// Events are the newest things that happened, oldest first, at most 100.
func (m *Monitor) Events() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.events)
}

// measure brings the gauges up to date.
func (m *Monitor) measure() {
	s := m.Snapshot()
	now := Clock()
	fresh := make(map[int]time.Duration, len(s.Nodes))
	for _, n := range s.Nodes {
		fresh[n.ID] = m.fence.lag(n.ID, now).fresh
	}
	m.metrics.measure(s, fresh)
}

// equalSnapshots says whether nobody could tell a from b.
func equalSnapshots(a, b *Snapshot) bool {
	if a == nil || len(a.Nodes) != len(b.Nodes) || (a.Primary == nil) != (b.Primary == nil) {
		return false
	}
	if a.Primary != nil && a.Primary.ID != b.Primary.ID {
		return false
	}
	for i, n := range a.Nodes {
		if !equalNodes(n, b.Nodes[i]) {
			return false
		}
	}
	return a.Epoch == b.Epoch && a.Why == b.Why && a.Positions == b.Positions && a.SplitBrain == b.SplitBrain &&
		a.Unconfirmed == b.Unconfirmed && a.System == b.System && a.Timeline == b.Timeline
}

// equalNodes compares what snapshots show of a node.
func equalNodes(a, b *Node) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Addr == b.Addr && a.Host == b.Host && a.Zone == b.Zone &&
		slices.Equal(a.Tags, b.Tags) && a.Weight == b.Weight && a.NoReads == b.NoReads && a.Role == b.Role &&
		a.State == b.State && a.Timeline == b.Timeline && a.Detail == b.Detail && a.LagBytes == b.LagBytes &&
		a.LagTime == b.LagTime && a.Version == b.Version && a.Settings == b.Settings && a.Live == b.Live
}
