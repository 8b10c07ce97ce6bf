package pool

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// groupKey names a pool: what its limits, its queue and its metrics are for.
type groupKey struct {
	cluster  string
	node     int
	entry    string
	database string
	user     string
}

// node is all pools of one node. They share a lock, because they share limits.
type node struct {
	sync.Mutex
	groups  []*group
	waiting int    // in all of them
	came    uint64 // who waits is numbered
}

// group is one pool. Every connection of it, idle, leased or being opened, holds a slot.
type group struct {
	key      groupKey
	nodeName string
	wait     prometheus.Observer
	quiet    chan<- struct{} // the pool's: told when the last lease of a closed group ends
	node     *node

	mu struct {
		*sync.Mutex // the node's
		limits      Limits
		joined      bool // it is among the node's
		opening     int
		idle        []*Conn // the last was used last
		leased      []*Conn // Conn.slot is the index
		waiters     line
		epoch       uint64 // grows when what is open is retired
		closed      bool
		dead        bool // taken out of the table of pools: use another
		used        time.Time
		aged        time.Time     // when a connection was last closed for its age
		rest        time.Time     // nothing is opened before
		refusal     *ConnectError // what the node said then
		warmth      *Spec         // what Limits.Min is opened with
		alarm       *time.Timer   // rings for those who wait
		rings       time.Time     // … then; zero: it does not
	}
}

// grant is what a Get waits for: an idle connection to use, or a slot to open one in.
type grant struct {
	conn    *Conn
	slot    bool
	epoch   uint64
	victims []*Conn // idle connections that made room and must be closed
	err     error
}

// acquire takes an idle connection or a slot for a waiter (waiter.granted), or queues, where one that asks again has its
// old place. again is true when the group left the table meanwhile: ask the table for another.
func (g *group) acquire(ctx context.Context, w *waiter) (again bool, err error) {
	g.mu.Lock()
	if g.mu.dead {
		g.mu.Unlock()
		w.came = 0
		return true, nil
	}
	if g.mu.closed {
		g.mu.Unlock()
		return false, ErrClosed
	}
	g.join()
	now := now()
	g.mu.used = now
	if w.came == 0 {
		g.node.came++
		w.came = g.node.came
	}
	if first := g.mu.waiters.first; first == nil || w.came < first.came {
		if got, ok := g.take(w.spec, g.mu.limits.Size, now); ok {
			w.granted = got
			g.mu.Unlock()
			return false, got.err
		}
	}
	if w.patience.AtOnce {
		limit, size := g.full()
		refusal := g.mu.refusal
		g.mu.Unlock()
		return false, &WaitError{Limit: limit, Size: size, Node: refusal, Err: ErrBusy}
	}
	g.enqueue(w, now)
	g.mu.Unlock()
	return false, g.await(ctx, w)
}

// await waits until something is granted, or the wait ends.
func (g *group) await(ctx context.Context, w *waiter) error {
	if n := w.patience.Nudge; n != nil {
		n.waiter.Store(w)
		err := g.awaitNudged(ctx, w)
		n.waiter.Store(nil)
		return err
	}
	for {
		select {
		case <-w.look:
			if done, err := g.looks(w); done {
				return err
			}
		case <-w.patience.Cancel:
			return g.giveUp(w, w.patience.Canceled)
		case <-ctx.Done():
			return g.giveUp(w, context.Cause(ctx))
		}
	}
}

// awaitNudged is await where somebody says when to look for an end of the wait.
func (g *group) awaitNudged(ctx context.Context, w *waiter) error {
	for {
		select {
		case <-w.patience.Cancel:
			return g.giveUp(w, w.patience.Canceled)
		default:
		}
		if ctx.Err() != nil {
			return g.giveUp(w, context.Cause(ctx))
		}
		<-w.look
		if done, err := g.looks(w); done {
			return err
		}
	}
}

// looks is what a waiter does that was roused: its wait may be over.
func (g *group) looks(w *waiter) (done bool, err error) {
	g.mu.Lock()
	if !w.queued {
		g.mu.Unlock()
		return true, w.granted.err
	}
	notice, err := w.rung(now())
	g.mu.Unlock()
	if notice {
		w.patience.Notice()
	}
	if err != nil {
		return true, g.giveUp(w, err)
	}
	return false, nil
}

// setAlarm has it ring at a time, or earlier. The lock is held.
func (g *group) setAlarm(at, now time.Time) {
	if at.IsZero() || !g.mu.rings.IsZero() && !at.Before(g.mu.rings) {
		return
	}
	g.mu.rings = at
	if g.mu.alarm == nil {
		g.mu.alarm = time.AfterFunc(at.Sub(now), g.ring)
	} else {
		g.mu.alarm.Reset(at.Sub(now))
	}
}

// alarmRest is the least time between two alarms, each of which looks at all who wait.
const alarmRest = 5 * time.Millisecond

// ring rouses those for whom a time has come, and sees to the reserve.
func (g *group) ring() {
	g.mu.Lock()
	now := now()
	g.mu.rings = time.Time{}
	var next time.Time
	reserve := false
	for w := g.mu.waiters.first; w != nil; w = w.next {
		reserve = due(&w.reserve, now) || reserve
		at := w.alarm()
		if !at.IsZero() && !at.After(now) {
			w.rouse() // and looks again soon: it may have another alarm
		}
		next = earlier(next, at)
	}
	if !next.IsZero() && next.Before(now.Add(alarmRest)) {
		next = now.Add(alarmRest)
	}
	g.setAlarm(next, now)
	var victims []*Conn
	if reserve {
		victims = g.serve(now)
	}
	g.mu.Unlock()
	leaveAll(victims)
}

// join puts the group among its node's. The lock is held.
func (g *group) join() {
	if !g.mu.joined {
		g.mu.joined = true
		g.node.groups = append(g.node.groups, g)
	}
}

// enqueue makes a Get wait. The lock is held.
func (g *group) enqueue(w *waiter, now time.Time) {
	g.node.waiting++
	g.mu.waiters.push(w)
	g.reserves(w)
	g.setAlarm(w.alarm(), now)
}

// reserves says when a waiter may use the reserve. The lock is held.
func (g *group) reserves(w *waiter) {
	w.reserve = time.Time{}
	if g.mu.limits.Reserve > 0 {
		w.reserve = w.began.Add(g.mu.limits.ReserveAfter)
	}
}

// grants gives a waiter what it waits for, and ends its wait. The lock is held.
func (g *group) grants(w *waiter, got grant) {
	g.mu.waiters.remove(w)
	g.node.waiting--
	w.granted, w.reserve = got, time.Time{}
	w.rouse()
}

// wake gives the waiters what there is for them now.
func (g *group) wake() {
	g.mu.Lock()
	victims := g.serve(now())
	g.mu.Unlock()
	leaveAll(victims)
}

// giveUp takes a waiter whose wait has ended out of the queue, and passes on what it was granted
// in that moment. The error is a *WaitError without a key.
func (g *group) giveUp(w *waiter, why error) error {
	g.mu.Lock()
	limit, size := g.full()
	refusal := g.mu.refusal
	if w.queued {
		g.mu.waiters.remove(w)
		g.node.waiting--
		g.mu.Unlock()
	} else {
		got := w.granted
		var victims []*Conn
		switch {
		case got.conn != nil:
			g.unlease(got.conn)
			victims = g.park(got.conn)
		case got.slot:
			g.mu.opening--
			g.ended()
			victims = g.serve(now())
		}
		g.mu.Unlock()
		leaveAll(victims)
	}
	return &WaitError{Limit: limit, Size: size, Node: refusal, Err: why}
}

// pick is the idle connection with the startup key that fits best, the newest of several. The lock is held.
func (g *group) pick(startup string, ranker Ranker) (at, best int) {
	at, best = -1, Unfit
	for i := len(g.mu.idle) - 1; i >= 0 && best < Best; i-- {
		c := g.mu.idle[i]
		if c.Startup != startup {
			continue
		}
		rank := Best
		if ranker != nil {
			rank = ranker.Rank(c)
		}
		if rank > best {
			at, best = i, rank
		}
	}
	return at, best
}

// tryIdle leases an idle connection, unless somebody waits. dead says that the group has left the table.
func (g *group) tryIdle(startup string, ranker Ranker, at time.Time) (c *Conn, dead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.dead || g.mu.closed || g.mu.waiters.length > 0 {
		return nil, g.mu.dead
	}
	g.mu.used = at
	if i, best := g.pick(startup, ranker); best > Reluctant {
		return g.takeIdle(i).conn, false
	}
	return nil, false
}

// take is the idle connection that fits best; or a slot of at most size, if need be that of the idle connection that was
// used longest ago. While the node has no connection to spare and the pool has none either, it is what the node said. The
// lock is held.
func (g *group) take(spec *Spec, size int, now time.Time) (grant, bool) {
	at, best := g.pick(spec.Startup, spec.Ranker)
	if best > Reluctant {
		return g.takeIdle(at), true
	}
	open := g.open()
	resting := g.mu.refusal != nil && g.mu.rest.After(now)
	room := open < size && !resting
	if room && g.fits() {
		return g.takeSlot(nil), true
	}
	if best == Reluctant {
		return g.takeIdle(at), true
	}
	if room {
		if victims, ok := g.makeRoom(); ok {
			return g.takeSlot(victims), true
		}
	}
	if open <= g.ceiling() && len(g.mu.idle) > 0 && !resting {
		victim := g.mu.idle[0]
		g.mu.idle = append(g.mu.idle[:0], g.mu.idle[1:]...)
		return g.takeSlot([]*Conn{victim}), true
	}
	if resting && open == 0 {
		return grant{err: g.mu.refusal}, true
	}
	return grant{}, false
}

// takeIdle leases an idle connection. The lock is held.
func (g *group) takeIdle(at int) grant {
	c := g.mu.idle[at]
	g.mu.idle = append(g.mu.idle[:at], g.mu.idle[at+1:]...)
	g.lease(c)
	return grant{conn: c, epoch: g.mu.epoch}
}

// takeSlot takes a slot. The lock is held.
func (g *group) takeSlot(victims []*Conn) grant {
	g.mu.opening++
	return grant{slot: true, epoch: g.mu.epoch, victims: victims}
}

// ceiling is the largest number of connections, the reserve included. The lock is held.
func (g *group) ceiling() int { return g.mu.limits.Size + g.mu.limits.Reserve }

// serve gives the waiters in front what there is for them, of this pool first and then of those that
// share a limit with it, and returns connections to close. The lock is held.
func (g *group) serve(now time.Time) []*Conn {
	if g.node.waiting == 0 {
		return nil
	}
	if !g.capped() {
		return g.serveOwn(now)
	}
	var others []*group
	for _, o := range g.node.groups {
		if o != g && o.mu.waiters.length > 0 {
			others = append(others, o)
		}
	}
	slices.SortFunc(others, func(a, b *group) int { return cmp.Compare(a.mu.waiters.first.came, b.mu.waiters.first.came) })
	var victims []*Conn
	for _, o := range others {
		if o.open() == 0 && (g.mu.waiters.first == nil || o.mu.waiters.first.came < g.mu.waiters.first.came) {
			victims = append(victims, o.serveOwn(now)...)
		}
	}
	victims = append(victims, g.serveOwn(now)...)
	for _, o := range others {
		victims = append(victims, o.serveOwn(now)...)
	}
	return victims
}

// serveOwn is serve for this pool alone. The lock is held.
func (g *group) serveOwn(now time.Time) []*Conn {
	var victims []*Conn
	for w := g.mu.waiters.first; w != nil; w = g.mu.waiters.first {
		size := g.mu.limits.Size
		if g.mu.limits.Reserve > 0 && now.Sub(w.began) >= g.mu.limits.ReserveAfter {
			size = g.ceiling()
		}
		got, ok := g.take(w.spec, size, now)
		if !ok {
			break
		}
		victims = append(victims, got.victims...)
		got.victims = nil
		g.grants(w, got)
	}
	return victims
}

// starving is the pool that has waited longest for its only connection, longer than anybody of this
// one, and could have one if this pool gave one up; nil when there is none. The lock is held.
func (g *group) starving() *group {
	if !g.capped() || g.node.waiting == g.mu.waiters.length {
		return nil
	}
	own := g.mu.waiters.first
	var found *group
	for _, o := range g.node.groups {
		first := o.mu.waiters.first
		if o == g || first == nil || o.open() > 0 || own != nil && own.came < first.came || !o.fits() {
			continue
		}
		if found == nil || first.came < found.mu.waiters.first.came {
			found = o
		}
	}
	return found
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

// opened turns a slot into the lease of a connection that was opened in the given epoch with a spec.
func (g *group) opened(c *Conn, spec *Spec, epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.opening--
	g.mu.refusal = nil
	c.pool = g
	if epoch != g.mu.epoch {
		c.retired.Store(true)
	}
	g.lease(c)
	g.keep(spec)
}

// failed frees a slot in which nothing could be opened. wait says that the node has no connection to
// spare, but the pool has: who asked may wait for one of those.
func (g *group) failed(err *ConnectError) (wait bool) {
	g.mu.Lock()
	g.mu.opening--
	full := err.Full() && g.mu.limits.LoginRetry > 0
	if full {
		g.mu.rest, g.mu.refusal = time.Now().Add(g.mu.limits.LoginRetry), err
		time.AfterFunc(g.mu.limits.LoginRetry, g.wake)
	}
	wait = full && len(g.mu.idle)+len(g.mu.leased) > 0
	g.ended()
	victims := g.serve(now())
	g.mu.Unlock()
	leaveAll(victims)
	return wait
}

// reopen turns the lease of a connection that turned out dead into a slot; the caller closes it.
func (g *group) reopen(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.opening++
	g.unlease(c)
}

// give ends a lease whose connection can be used again, unless it was retired meanwhile, or its time is over.
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
	now := now()
	open := g.open()
	if g.mu.closed || c.retired.Load() || open >= g.ceiling() || open >= g.mu.limits.Size && g.mu.waiters.length == 0 || g.aged(c, now) {
		g.mu.refusal = nil // the node has one to spare soon
		return append(g.serve(now), c)
	}
	if o := g.starving(); o != nil {
		return append(append(o.serveOwn(now), c), g.serve(now)...)
	}
	c.idleSince = now
	g.mu.idle = append(g.mu.idle, c)
	return g.serve(now)
}

// aged says whether a connection has to go for its age: one of those that are too old does so in each part of
// the lifetime that falls to one. The lock is held.
func (g *group) aged(c *Conn, now time.Time) bool {
	l := &g.mu.limits
	if l.Lifetime == 0 {
		return true
	}
	if now.Sub(c.Opened) < l.Lifetime || now.Sub(g.mu.aged) < l.Lifetime/time.Duration(l.Size) {
		return false
	}
	g.mu.aged = now
	return true
}

// drop ends a lease whose connection the caller closes.
func (g *group) drop(c *Conn) {
	g.mu.Lock()
	g.unlease(c)
	g.mu.refusal = nil // the node has one to spare soon
	victims := g.serve(now())
	g.mu.Unlock()
	leaveAll(victims)
}

// retire takes out the idle connections that match and marks the matching leases; what is being
// opened is marked too, whatever its key. It returns what has to be closed and, if asked for, the
// leases.
func (g *group) retire(match func(Key) bool, leases bool) (idle, leased []*Conn) {
	g.mu.Lock()
	g.mu.epoch++
	g.mu.warmth = nil // until somebody opens one again
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
	return append(idle, g.serve(now())...), leased
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
func (g *group) sweep(now time.Time) []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := g.open()
	out := g.thin(func(c *Conn) bool {
		unused := g.mu.limits.IdleTimeout
		goes := !c.usable(now) || unused > 0 && now.Sub(c.idleSince) >= unused && left > g.mu.limits.Min ||
			g.mu.limits.Lifetime > 0 && g.aged(c, now)
		if goes {
			left--
		}
		return goes
	})
	return append(out, g.serve(now)...)
}

// bury makes a group that has been empty since before the given time unusable; false if it is not.
func (g *group) bury(before time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open() > 0 || g.mu.waiters.length > 0 || !g.mu.used.Before(before) {
		return false
	}
	g.mu.dead = true
	g.node.groups = slices.DeleteFunc(g.node.groups, func(o *group) bool { return o == g })
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
	for w := g.mu.waiters.first; w != nil; w = g.mu.waiters.first {
		g.grants(w, grant{err: ErrClosed})
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
	s := Stat{
		Cluster: g.key.cluster, Node: g.key.node, NodeName: g.nodeName,
		Entry: g.key.entry, Database: g.key.database, User: g.key.user,
		Size: g.mu.limits.Size, Min: g.mu.limits.Min, Reserve: g.mu.limits.Reserve,
		Idle: len(g.mu.idle), Leased: len(g.mu.leased),
		Opening: g.mu.opening, Waiting: g.mu.waiters.length,
	}
	if w := g.mu.waiters.first; w != nil {
		s.Oldest = now().Sub(w.began)
	}
	return s
}

// leaveAll closes connections that are on no list any more.
func leaveAll(conns []*Conn) {
	for _, c := range conns {
		c.leave()
	}
}
