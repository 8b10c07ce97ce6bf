package health

import (
	"slices"
	"sort"
	"time"
)

// sample is the answer to one cheap question about positions.
type sample struct {
	number   uint64 // value of the fence's counter when it was requested
	sent     int64  // Clock at the request
	recovery bool
	turned   bool   // the server is not what it was when this connection probed it: no positions here
	timeline uint32 // a lower bound on a standby; 0 when nothing is known
	replay   lsn    // standby
	flush    lsn    // primary
	insert   lsn    // primary, page header taken off
	xmin     uint64 // primary: every older transaction has ended there
	xmax     uint64 // standby: every transaction it shows is older
	next     uint64 // primary: no transaction had this id or a higher one when the sample was taken; 0 unknown
	async    bool   // primary: somebody may commit with synchronous_commit off
}

// point is one number with what was seen of it and when.
type point struct {
	number uint64
	value  uint64
	at     int64
}

// The sizes of the ledger's histories, each thinned when full.
const (
	historySize  = 4096
	coverSize    = 1024
	lagSize      = 2048
	lagPrecision = 20 * time.Millisecond
)

// ledger is the fence's arithmetic: samples in, freshness out. It is a plain value without a
// clock or a lock, so that its rules can be tried against simulated histories.
type ledger struct {
	primary  int    // whose positions count; 0 none
	timeline uint32 // on which line
	fence    []point
	flushed  []point // flush positions and when each was first seen, for lag
	xmin     uint64  // highest seen on this line
	nodes    map[int]*reading

	asyncSessions int    // sessions known to have synchronous_commit off
	releasedAt    uint64 // number at which the last of them let go
	asyncRules    bool   // a setting of the server, a role or a database had it off; stays
	inserting     bool   // the insert position is the fence
	passed        lsn    // flush must have passed it before it is the fence again; 0 not yet known
}

// reading is what the ledger keeps of one node.
type reading struct {
	live        *Live
	incarnation uint64
	voidAt      uint64 // samples requested up to here count for nothing
	number      uint64 // of the newest sample
	timeline    uint32
	replay      lsn
	asOf        uint64
	asOfAt      int64
	covered     uint64
	shown       []point // xmax by number, not yet covered
	floor       uint64  // lowest xmin that covers what earlier incarnations showed
	floorFrom   uint64  // floor is taken from a primary sample above this number; 0: floor stands
}

// join makes a node known.
func (l *ledger) join(id int, live *Live) {
	if l.nodes == nil {
		l.nodes = make(map[int]*reading)
	}
	if l.nodes[id] == nil {
		l.nodes[id] = &reading{live: live, incarnation: 1}
		l.nodes[id].publish()
	}
}

// setLine changes whose positions count. A change voids all freshness: positions of one line say
// nothing about another. It reports whether anything moved.
func (l *ledger) setLine(primary int, timeline uint32) bool {
	if primary == l.primary && timeline == l.timeline {
		return false
	}
	l.primary, l.timeline = primary, timeline
	l.fence, l.flushed = nil, nil
	l.xmin = 0
	// What was inserted on the old line need not be flushed on this one, but whoever commits
	// without flushing may do so here at once.
	l.inserting, l.passed = l.inserting || l.asyncRules || l.asyncSessions > 0, 0
	for _, r := range l.nodes {
		r.asOf, r.asOfAt, r.covered, r.shown = 0, 0, 0, nil
		if r.voidAt > 0 {
			r.floor, r.floorFrom = 0, r.voidAt
		}
		r.publish()
	}
	return true
}

// void ends an incarnation: what the node showed so far may be undone, so it vouches for nothing
// until a sample with a number above at.
func (l *ledger) void(id int, at uint64) bool {
	r := l.nodes[id]
	if r == nil {
		return false
	}
	r.incarnation++
	r.voidAt = at
	r.number, r.timeline, r.replay = 0, 0, 0
	r.asOf, r.asOfAt = 0, 0
	// covered stays: what was visible on the primary is visible. But the new incarnation's xmax
	// may be older than what the old one showed.
	r.shown = nil
	r.floorFrom = at
	if id == l.primary {
		l.xmin = 0 // ids whose records a crash lost are handed out again
	}
	r.publish()
	return true
}

// observe takes a sample and reports whether what any node vouches for has moved.
func (l *ledger) observe(id int, s sample) bool {
	r := l.nodes[id]
	if r == nil || s.number <= r.voidAt || s.number <= r.number {
		return false
	}
	r.number = s.number
	if s.timeline > r.timeline {
		r.timeline = s.timeline
	}
	if s.recovery {
		return l.observeStandby(r, s)
	}
	r.replay = 0
	if id != l.primary || r.timeline != l.timeline || l.timeline == 0 {
		return r.publish()
	}
	return l.observePrimary(r, s)
}

// observeStandby takes a standby's replay position.
func (l *ledger) observeStandby(r *reading, s sample) bool {
	if s.replay > r.replay {
		r.replay = s.replay
	}
	if l.timeline != 0 && r.timeline == l.timeline {
		r.shown = pushPoint(r.shown, point{number: s.number, value: s.xmax, at: s.sent}, coverSize)
		l.advance(r)
	}
	return r.publish()
}

// observePrimary takes the primary's positions and looks anew at every standby.
func (l *ledger) observePrimary(r *reading, s sample) bool {
	l.flushed = pushFlushed(l.flushed, point{number: s.number, value: uint64(s.flush), at: s.sent})
	l.fence = pushPoint(l.fence, point{number: s.number, value: uint64(l.bound(s)), at: s.sent}, historySize)
	if s.xmin > l.xmin {
		l.xmin = s.xmin
	}
	r.asOf, r.asOfAt = s.number, s.sent
	moved := r.publish()
	for _, other := range l.nodes {
		if other.floorFrom != 0 && s.number > other.floorFrom && s.next != 0 {
			other.floor, other.floorFrom = s.next, 0
		}
		if other == r || other.replay == 0 || other.timeline != l.timeline {
			continue
		}
		l.advance(other)
		moved = other.publish() || moved
	}
	return moved
}

// bound is the position that everything acknowledged before the sample was requested lies at or
// below: the flush position while every commit waits for its flush, else the insert position.
func (l *ledger) bound(s sample) lsn {
	if s.async {
		l.asyncRules = true
	}
	if l.asyncRules || l.asyncSessions > 0 {
		l.inserting, l.passed = true, 0
		return s.insert
	}
	if !l.inserting {
		return s.flush
	}
	if l.passed == 0 && s.number > l.releasedAt {
		l.passed = s.insert
	}
	if l.passed == 0 || s.flush < l.passed {
		return s.insert
	}
	l.inserting, l.passed = false, 0
	return s.flush
}

// advance moves a standby's two numbers as far as what is known allows.
func (l *ledger) advance(r *reading) {
	if i := lastAtOrBelow(l.fence, uint64(r.replay)); i >= 0 && l.fence[i].number > r.asOf {
		r.asOf, r.asOfAt = l.fence[i].number, l.fence[i].at
	}
	if r.floorFrom != 0 || l.xmin < r.floor || l.xmin == 0 {
		return
	}
	i := lastAtOrBelow(r.shown, l.xmin)
	if i < 0 {
		return
	}
	if r.shown[i].number > r.covered {
		r.covered = r.shown[i].number
	}
	r.shown = slices.Delete(r.shown, 0, i+1)
}

// publish shows what the node vouches for now and reports whether that differs from before.
func (r *reading) publish() bool {
	next := Freshness{AsOf: r.asOf, Sample: r.number, Covered: r.covered, Incarnation: r.incarnation}
	if r.asOf == 0 {
		next.Sample = 0
	}
	if old := r.live.fresh.Load(); old != nil && *old == next {
		return false
	}
	r.live.fresh.Store(&next)
	return true
}

// pushPoint appends p to points that grow strictly in number and in value, dropping those that it
// makes useless: with a later number, a lower or equal value says more.
func pushPoint(points []point, p point, size int) []point {
	for len(points) > 0 && points[len(points)-1].value >= p.value {
		points = points[:len(points)-1]
	}
	return append(thin(points, size), p)
}

// pushFlushed appends p unless the position is known; the time is when it was first seen.
func pushFlushed(points []point, p point) []point {
	n := len(points)
	if n > 0 && p.value <= points[n-1].value {
		return points
	}
	if n > 1 && p.at-points[n-2].at < int64(lagPrecision) {
		points[n-1].value = p.value // its time is the older one: lag is never told too small
		return points
	}
	return append(thin(points, lagSize), p)
}

// thin drops every other point of the older half of a full history; any subset of a history is
// true, only coarser.
func thin(points []point, size int) []point {
	if len(points) < size {
		return points
	}
	kept := points[:0]
	for i, p := range points {
		if i >= size/2 || i%2 == 1 {
			kept = append(kept, p)
		}
	}
	return kept
}

// lastAtOrBelow is the index of the last point whose value is at or below v, -1 if there is none.
func lastAtOrBelow(points []point, v uint64) int {
	return sort.Search(len(points), func(i int) bool { return points[i].value > v }) - 1
}

// lagReport is how far behind a standby is.
type lagReport struct {
	bytes int64         // -1 unknown
	time  time.Duration // since when the primary has been known to be further, 0 if it is not
	fresh time.Duration // age of the primary sample that the node is fresh as of; -1 none
}

// lag measures a standby against the primary's history of flush positions.
func (l *ledger) lag(id int, now int64) lagReport {
	r := l.nodes[id]
	rep := lagReport{bytes: -1, fresh: -1}
	if r == nil {
		return rep
	}
	if r.asOf != 0 {
		rep.fresh = time.Duration(now - r.asOfAt)
	}
	if id == l.primary {
		rep.bytes = 0
		return rep
	}
	if len(l.flushed) == 0 || r.replay == 0 || r.timeline != l.timeline {
		return rep
	}
	newest := l.flushed[len(l.flushed)-1].value
	rep.bytes = max(0, int64(newest)-int64(r.replay))
	if i := lastAtOrBelow(l.flushed, uint64(r.replay)) + 1; i < len(l.flushed) {
		rep.time = time.Duration(now - l.flushed[i].at)
	}
	return rep
}
