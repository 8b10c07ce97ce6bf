package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgweir/internal/pgwire"
)

// Pool is all connections to all nodes. Its methods may be called from any goroutine.
type Pool struct {
	cfg     Config
	metrics *Metrics
	quiet   chan struct{} // Close is told of progress; buffered for one
	// generation grows when the limits change.
	generation atomic.Uint64
	waiters    sync.Pool

	mu struct {
		sync.RWMutex
		groups  map[groupKey]*group
		nodes   map[nodeKey]*node
		clients map[clientKey]int
		closed  bool
	}
}

// nodeKey names a node.
type nodeKey struct {
	cluster string
	node    int
}

// clientKey names what clients log in to.
type clientKey struct{ cluster, entry, user string }

// Join says that a client is logged in for whom connections are to be kept open (Limits.Min), until Leave.
func (p *Pool) Join(cluster, entry, user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.clients[clientKey{cluster, entry, user}]++
}

// Leave takes a Join back.
func (p *Pool) Leave(cluster, entry, user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := clientKey{cluster, entry, user}
	if p.mu.clients[key]--; p.mu.clients[key] <= 0 {
		delete(p.mu.clients, key)
	}
}

// New is a pool without connections; it opens none before the first Get. The metrics must not
// be nil.
func New(cfg Config, m *Metrics) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("pool configuration: %w", err)
	}
	p := &Pool{cfg: cfg, metrics: m, quiet: make(chan struct{}, 1)}
	p.mu.groups = make(map[groupKey]*group)
	p.mu.nodes = make(map[nodeKey]*node)
	p.mu.clients = make(map[clientKey]int)
	m.add(p)
	return p, nil
}

// Run closes idle connections that are dead, too old or unused for too long, and opens those that are to be
// kept open, until ctx ends. It does not close the pool.
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			p.sweep(now)
			p.warm(ctx, now, &wg)
		}
	}
}

// How often idle connections are looked at, and after how long without use an empty pool is
// forgotten together with its series.
const (
	sweepEvery = time.Second
	forget     = 5 * time.Minute
)

// sweep is one round of Run.
func (p *Pool) sweep(now time.Time) {
	for _, g := range p.all() {
		leaveAll(g.sweep(now))
		if !g.bury(now.Add(-forget)) {
			continue
		}
		p.mu.Lock()
		if p.mu.groups[g.key] == g {
			delete(p.mu.groups, g.key)
			p.forgetNode(g.node)
		}
		p.mu.Unlock()
	}
}

// forgetNode takes a node off the table that no pool is left of. The table's lock is held.
func (p *Pool) forgetNode(n *node) {
	for _, g := range p.mu.groups {
		if g.node == n {
			return
		}
	}
	for key, other := range p.mu.nodes {
		if other == n {
			delete(p.mu.nodes, key)
		}
	}
}

// Get is a lease on a connection for the spec's key: the idle one that was used last, or a new one,
// opened by this call. While the pool is full, or the node has none to spare, it waits its turn until ctx or the spec's
// Patience ends. Nothing of the spec is kept. Errors are *WaitError, *ConnectError or ErrClosed.
func (p *Pool) Get(ctx context.Context, spec *Spec) (*Conn, error) {
	w := p.newWaiter(spec, now())
	defer p.forgetWaiter(w)
	var g *group
	if spec.Home.of(spec.Node) {
		g = spec.Home.group
	}
	for {
		if g == nil {
			var err error
			if g, err = p.group(spec); err != nil {
				return nil, err
			}
		}
		again, err := g.acquire(ctx, w)
		if again {
			g = nil
			continue
		}
		if err != nil {
			var full *WaitError
			if errors.As(err, &full) {
				full.Key, full.Waited = spec.Key, now().Sub(w.began)
			}
			return nil, err
		}
		conn, cerr := p.finish(ctx, w, g)
		if cerr == nil {
			if spec.Home != nil {
				spec.Home.group = g
			}
			g.wait.Observe(now().Sub(w.began).Seconds())
			return conn, nil
		}
		switch wait := g.failed(cerr); {
		case wait && w.over != nil:
			return nil, &WaitError{Key: spec.Key, Node: cerr, Waited: now().Sub(w.began), Err: w.over}
		case !wait || ctx.Err() != nil:
			return nil, cerr
		}
	}
}

// Home remembers the pool that Get found for a key, for TryGet. The zero Home remembers nothing.
type Home struct{ group *group }

// of says whether it remembers a pool of the node.
func (h *Home) of(node int) bool { return h != nil && h.group != nil && h.group.key.node == node }

// TryGet is a lease on an idle connection that Get would use; nil where Get would have to open one or to wait, or
// did not use the home yet. The key is the one that the home was used with, but for the node, which is given, and the
// startup key.
func (p *Pool) TryGet(home *Home, node int, startup string, ranker Ranker) *Conn {
	if !home.of(node) {
		return nil
	}
	g, start := home.group, now()
	c, dead := g.tryIdle(startup, ranker, start)
	switch {
	case dead:
		home.group = nil
	case c != nil && !c.usable(start):
		p.Drop(c)
		return nil
	case c != nil:
		g.wait.Observe(0)
	}
	return c
}

// finish makes a lease of what was granted; where it cannot, the slot is still taken.
func (p *Pool) finish(ctx context.Context, w *waiter, g *group) (*Conn, *ConnectError) {
	leaveAll(w.granted.victims)
	if c := w.granted.conn; c != nil {
		if c.usable(now()) {
			return c, nil
		}
		g.reopen(c)
		c.leave()
	}
	return p.connect(ctx, w, g)
}

// connect opens a connection in the slot that was granted.
func (p *Pool) connect(ctx context.Context, w *waiter, g *group) (*Conn, *ConnectError) {
	ctx, stop := w.context(ctx)
	defer stop()
	conn, err := p.cfg.login(ctx, w.spec, g.connectTimeout())
	if err != nil {
		return nil, err
	}
	g.opened(conn, w.spec, w.granted.epoch)
	return conn, nil
}

// Put ends a lease: the connection is between statements, outside of a transaction, and all its
// answers have been read. A Dirty one is reset first, within Config.ResetTimeout; where that
// fails, or the connection was retired, it is closed. The caller must not touch it any more.
func (p *Pool) Put(c *Conn) {
	if c.retired.Load() || len(c.Link.Buffered()) > 0 {
		c.pool.drop(c)
		c.leave()
		return
	}
	if c.Dirty {
		if err := c.reset(); err != nil {
			p.Drop(c)
			return
		}
		c.Dirty, c.State = false, nil
	}
	c.pool.give(c)
}

// Drop ends a lease and closes the connection, whatever it is doing.
func (p *Pool) Drop(c *Conn) {
	c.close()
	c.pool.drop(c)
}

// errReset says that DISCARD ALL did not do what it should.
var errReset = errors.New("DISCARD ALL was not answered as expected")

// reset sends DISCARD ALL and waits for its end.
func (c *Conn) reset() error {
	if err := c.Link.SetDeadline(time.Now().Add(c.cfg.ResetTimeout)); err != nil {
		return err
	}
	if err := c.Link.Write(pgwire.AppendQuery(nil, "DISCARD ALL")); err != nil {
		return err
	}
	for range maxLoginMessages {
		typ, body, err := c.Link.ReadMessage(maxLoginMessage)
		if err != nil {
			return err
		}
		switch typ {
		case pgwire.MsgReadyForQuery:
			status, err := pgwire.ParseReadyForQuery(body)
			if err != nil || status != pgwire.TxIdle {
				return errReset
			}
			return c.Link.SetDeadline(time.Time{})
		case pgwire.MsgParameterStatus:
			name, value, err := pgwire.ParseParameterStatus(body)
			if err != nil {
				return err
			}
			c.setParam(string(name), string(value))
		case pgwire.MsgCommandComplete, pgwire.MsgNoticeResponse, pgwire.MsgNotificationResponse:
		default:
			return errReset
		}
	}
	return errReset
}

// CloseNode closes the idle connections to a node and has the leased ones closed when they are
// given back: the node left, or drains.
func (p *Pool) CloseNode(cluster string, node int) {
	p.Retire(func(k Key) bool { return k.Cluster == cluster && k.Node == node })
}

// Retire closes the idle connections whose keys match, and has the leased ones closed when they
// are given back: what they were opened with is out of date.
func (p *Pool) Retire(match func(Key) bool) { p.retire(match, false) }

// Break does what CloseNode does and closes the sockets of the leased connections as well: the
// next read or write of whoever holds one fails. For a node that is down, or no longer the
// primary.
func (p *Pool) Break(cluster string, node int) {
	p.retire(func(k Key) bool { return k.Cluster == cluster && k.Node == node }, true)
}

// retire is Retire and Break.
func (p *Pool) retire(match func(Key) bool, leases bool) {
	for _, g := range p.all() {
		idle, leased := g.retire(match, leases)
		for _, c := range leased {
			_ = c.Link.Close()
		}
		leaveAll(idle)
	}
}

// Close refuses all further Gets, closes what is idle, and waits for the leases to end; when ctx
// ends first their sockets are closed, and the context's cause is returned.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	for _, g := range p.all() {
		leaveAll(g.shut())
	}
	for p.busy() {
		select {
		case <-p.quiet:
		case <-ctx.Done():
			for _, g := range p.all() {
				for _, c := range g.leases() {
					_ = c.Link.Close()
				}
			}
			return context.Cause(ctx)
		}
	}
	return nil
}

// busy says whether anything is leased or being opened.
func (p *Pool) busy() bool {
	for _, s := range p.Stats() {
		if s.Leased+s.Opening > 0 {
			return true
		}
	}
	return false
}

// Stat is the numbers of the connections of one user to one database of one node.
type Stat struct {
	Cluster  string
	Node     int
	NodeName string
	Entry    string // the name that clients ask for
	Database string
	User     string
	Size     int // the limit
	Min      int
	Reserve  int
	Idle     int
	Leased   int
	Opening  int
	Waiting  int           // sessions
	Oldest   time.Duration // how long the session in front has waited
}

// Stats is the numbers of all pools, in no order.
func (p *Pool) Stats() []Stat {
	groups := p.all()
	out := make([]Stat, 0, len(groups))
	for _, g := range groups {
		out = append(out, g.stat())
	}
	return out
}

// all is a copy of the table of pools.
func (p *Pool) all() []*group {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Collect(maps.Values(p.mu.groups))
}

// group is the pool for a spec, made if there is none.
func (p *Pool) group(spec *Spec) (*group, error) {
	key := groupKey{cluster: spec.Cluster, node: spec.Node, entry: spec.Entry, database: spec.Database, user: spec.User}
	p.mu.RLock()
	g, closed := p.mu.groups[key], p.mu.closed
	p.mu.RUnlock()
	if closed {
		return nil, ErrClosed
	}
	if g != nil && !g.buried() {
		return g, nil
	}
	for {
		generation := p.generation.Load()
		if now, err := p.makeGroup(key, g, spec, p.cfg.limits(key), generation); now != nil || err != nil {
			return now, err
		}
	}
}

// makeGroup puts a group in the place of one that is buried. Both results are nil when the limits have changed
// meanwhile.
func (p *Pool) makeGroup(key groupKey, buried *group, spec *Spec, limits Limits, generation uint64) (*group, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.mu.groups[key]
	switch {
	case p.mu.closed:
		return nil, ErrClosed
	case now != nil && now != buried:
		return now, nil
	case p.generation.Load() != generation:
		return nil, nil
	}
	at := nodeKey{key.cluster, key.node}
	n := p.mu.nodes[at]
	if n == nil {
		n = new(node)
		p.mu.nodes[at] = n
	}
	fresh := &group{
		key: key, nodeName: spec.NodeName, quiet: p.quiet, node: n,
		wait: p.metrics.leaseWait(spec.Cluster, spec.NodeName),
	}
	fresh.mu.Mutex, fresh.mu.limits = &n.Mutex, limits
	p.mu.groups[key] = fresh
	return fresh, nil
}

// buried says whether the group has left, or is about to leave, the table.
func (g *group) buried() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.dead
}
