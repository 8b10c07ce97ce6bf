package pool

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// groupKey names a pool: what its limit, its queue and its metrics are for.
type groupKey struct {
	cluster  string
	node     int
	database string
	user     string
}

// group is one pool. Every connection of it, idle, leased or being opened, holds a slot.
type group struct {
	key      groupKey
	nodeName string
	wait     prometheus.Observer
	quiet    chan<- struct{} // the pool's: told when the last lease of a closed group ends

	mu struct {
		sync.Mutex
		size    int // the limit
		opening int
		idle    []*Conn // the last was used last
		leased  []*Conn // Conn.slot is the index
		waiters list.List
		epoch   uint64 // grows when what is open is retired
		closed  bool
		dead    bool // taken out of the table of pools: use another
		used    time.Time
	}
}

// waiter is a Get that found no slot.
type waiter struct {
	spec  *Spec
	grant chan grant // buffered for one
	place *list.Element
}

// grant is what a Get waits for: an idle connection to use, or a slot to open one in.
type grant struct {
	conn   *Conn
	slot   bool
	epoch  uint64
	victim *Conn // an idle connection that made room and must be closed
	err    error
}

// acquire takes an idle connection or a slot, or queues. again is true when the group left the
// table meanwhile: ask the table for another.
func (g *group) acquire(ctx context.Context, spec *Spec, size int) (got grant, again bool, err error) {
	g.mu.Lock()
	if g.mu.dead {
		g.mu.Unlock()
		return grant{}, true, nil
	}
	if g.mu.closed {
		g.mu.Unlock()
		return grant{}, false, ErrClosed
	}
	g.mu.used = time.Now()
	victims := g.resize(size)
	if g.mu.waiters.Len() == 0 {
		if got, ok := g.take(spec); ok {
			g.mu.Unlock()
			leaveAll(victims)
			return got, false, nil
		}
	}
	w := &waiter{spec: spec, grant: make(chan grant, 1)}
	w.place = g.mu.waiters.PushBack(w)
	g.mu.Unlock()
	leaveAll(victims)
	select {
	case got := <-w.grant:
		return got, false, got.err
	case <-ctx.Done():
	}
	return grant{}, false, g.giveUp(ctx, w)
}

// resize sets the limit and returns idle connections that are too many now. The lock is held.
func (g *group) resize(size int) []*Conn {
	if size == g.mu.size {
		return nil
	}
	g.mu.size = size
	n := min(max(g.open()-size, 0), len(g.mu.idle))
	victims := append([]*Conn(nil), g.mu.idle[:n]...)
	g.mu.idle = append(g.mu.idle[:0], g.mu.idle[n:]...)
	return append(victims, g.serve()...)
}

// giveUp takes a waiter whose context ended out of the queue, and passes on what it was granted
// in that moment.
func (g *group) giveUp(ctx context.Context, w *waiter) error {
	g.mu.Lock()
	select {
	case got := <-w.grant:
		var victims []*Conn
		switch {
		case got.conn != nil:
			g.unlease(got.conn)
			victims = g.park(got.conn)
		case got.slot:
			g.mu.opening--
			g.ended()
			victims = g.serve()
		}
		g.mu.Unlock()
		if got.victim != nil {
			victims = append(victims, got.victim)
		}
		leaveAll(victims)
	default:
		g.mu.waiters.Remove(w.place)
		g.mu.Unlock()
	}
	return context.Cause(ctx)
}

// take is the idle connection with the spec's startup key that fits best, the newest of several; or a slot,
// if need be that of the idle connection that was used longest ago. The lock is held.
func (g *group) take(spec *Spec) (grant, bool) {
	at, best := -1, Unfit
	for i := len(g.mu.idle) - 1; i >= 0 && best < Best; i-- {
		c := g.mu.idle[i]
		if c.Startup != spec.Startup {
			continue
		}
		rank := Best
		if spec.Rank != nil {
			rank = spec.Rank(c)
		}
		if rank > best {
			at, best = i, rank
		}
	}
	room := g.open() < g.mu.size
	if best > Reluctant || best == Reluctant && !room {
		c := g.mu.idle[at]
		g.mu.idle = append(g.mu.idle[:at], g.mu.idle[at+1:]...)
		g.lease(c)
		return grant{conn: c, epoch: g.mu.epoch}, true
	}
	if room {
		g.mu.opening++
		return grant{slot: true, epoch: g.mu.epoch}, true
	}
	if len(g.mu.idle) > 0 {
		victim := g.mu.idle[0]
		g.mu.idle = append(g.mu.idle[:0], g.mu.idle[1:]...)
		g.mu.opening++
		return grant{slot: true, epoch: g.mu.epoch, victim: victim}, true
	}
	return grant{}, false
}

// serve gives the waiters in front what there is for them and returns connections to close. The
// lock is held.
func (g *group) serve() []*Conn {
	var victims []*Conn
	for e := g.mu.waiters.Front(); e != nil; e = g.mu.waiters.Front() {
		w := e.Value.(*waiter)
		got, ok := g.take(w.spec)
		if !ok {
			break
		}
		g.mu.waiters.Remove(e)
		if got.victim != nil {
			victims = append(victims, got.victim)
			got.victim = nil
		}
		w.grant <- got
	}
	return victims
}

// open is the number of slots in use. The lock is held.
func (g *group) open() int { return g.mu.opening + len(g.mu.idle) + len(g.mu.leased) }

// ended tells whoever closes the pool that nothing is in use any more. The lock is held.
func (g *group) ended() {
	if !g.mu.closed || g.mu.opening+len(g.mu.leased) > 0 {
		return
	}
	select {
	case g.quiet <- struct{}{}:
	default:
	}
}

// lease puts a connection on the list of leases. The lock is held.
func (g *group) lease(c *Conn) {
	c.slot = len(g.mu.leased)
	g.mu.leased = append(g.mu.leased, c)
}

// unlease takes it off. The lock is held.
func (g *group) unlease(c *Conn) {
	last := len(g.mu.leased) - 1
	g.mu.leased[c.slot] = g.mu.leased[last]
	g.mu.leased[c.slot].slot = c.slot
	g.mu.leased[last] = nil
	g.mu.leased = g.mu.leased[:last]
	g.ended()
}

// opened turns a slot into the lease of a connection that was opened in the given epoch.
func (g *group) opened(c *Conn, epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.opening--
	c.pool = g
	if epoch != g.mu.epoch {
		c.retired.Store(true)
	}
	g.lease(c)
}

// failed frees a slot in which nothing could be opened.
func (g *group) failed() {
	g.mu.Lock()
	g.mu.opening--
	g.ended()
	victims := g.serve()
	g.mu.Unlock()
	leaveAll(victims)
}

// reopen turns the lease of a connection that turned out dead into a slot; the caller closes it.
func (g *group) reopen(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.opening++
	g.unlease(c)
}

// give ends a lease whose connection can be used again, unless it was retired meanwhile.
func (g *group) give(c *Conn) {
	g.mu.Lock()
	g.unlease(c)
	victims := g.park(c)
	g.mu.Unlock()
	leaveAll(victims)
}

// park makes a connection that is on no list idle, or hands it to a waiter, and returns what
// has to be closed. The lock is held.
func (g *group) park(c *Conn) []*Conn {
	if g.mu.closed || c.retired.Load() || g.open() >= g.mu.size {
		return append(g.serve(), c)
	}
	c.idleSince = time.Now()
	g.mu.idle = append(g.mu.idle, c)
	return g.serve()
}

// drop ends a lease whose connection the caller closes.
func (g *group) drop(c *Conn) {
	g.mu.Lock()
	g.unlease(c)
	victims := g.serve()
	g.mu.Unlock()
	leaveAll(victims)
}

// retire takes out the idle connections that match and marks the matching leases; what is being
// opened is marked too, whatever its key. It returns what has to be closed and, if asked for, the
// leases.
func (g *group) retire(match func(Key) bool, leases bool) (idle, leased []*Conn) {
	g.mu.Lock()
	g.mu.epoch++
	all := append(append([]*Conn(nil), g.mu.idle...), g.mu.leased...)
	g.mu.Unlock()
	matching := make(map[*Conn]bool)
	for _, c := range all {
		if match(c.Key) {
			matching[c] = true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	idle = g.thin(func(c *Conn) bool { return matching[c] })
	for _, c := range g.mu.leased {
		if !matching[c] {
			continue
		}
		c.retired.Store(true)
		if leases {
			leased = append(leased, c)
		}
	}
	return append(idle, g.serve()...), leased
}

// thin takes the idle connections off the list that are not to stay. The lock is held.
func (g *group) thin(goes func(*Conn) bool) []*Conn {
	var out []*Conn
	kept := g.mu.idle[:0]
	for _, c := range g.mu.idle {
		if goes(c) {
			out = append(out, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(g.mu.idle[len(kept):])
	g.mu.idle = kept
	return out
}

// sweep takes out idle connections that are too old, unused for too long, or dead. The look at
// their sockets does not block.
func (g *group) sweep(now time.Time, idleTimeout time.Duration) []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := g.thin(func(c *Conn) bool {
		return !c.usable(now) || idleTimeout > 0 && now.Sub(c.idleSince) >= idleTimeout
	})
	return append(out, g.serve()...)
}

// bury makes a group that has been empty since before the given time unusable; false if it is not.
func (g *group) bury(before time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open() > 0 || g.mu.waiters.Len() > 0 || !g.mu.used.Before(before) {
		return false
	}
	g.mu.dead = true
	return true
}

// shut refuses all further work and returns the idle connections, to be closed.
func (g *group) shut() []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.closed = true
	g.mu.epoch++
	idle := g.mu.idle
	g.mu.idle = nil
	for _, c := range g.mu.leased {
		c.retired.Store(true)
	}
	for e := g.mu.waiters.Front(); e != nil; e = g.mu.waiters.Front() {
		g.mu.waiters.Remove(e)
		e.Value.(*waiter).grant <- grant{err: ErrClosed}
	}
	return idle
}

// leases is the connections in use.
func (g *group) leases() []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*Conn(nil), g.mu.leased...)
}

// stat is the group's numbers.
func (g *group) stat() Stat {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stat{
		Cluster: g.key.cluster, Node: g.key.node, NodeName: g.nodeName,
		Database: g.key.database, User: g.key.user,
		Size: g.mu.size, Idle: len(g.mu.idle), Leased: len(g.mu.leased),
		Opening: g.mu.opening, Waiting: g.mu.waiters.Len(),
	}
}

// leaveAll closes connections that are on no list any more.
func leaveAll(conns []*Conn) {
	for _, c := range conns {
		c.leave()
	}
}
