package health

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// simRecord is one record of the simulated log: the end of a transaction, or its first record.
type simRecord struct {
	end    lsn
	xid    uint64
	id     uint64 // of the transaction; ids that a crash took back are handed out again, this is not
	commit bool   // else a transaction's first record, or its abort
	ends   bool
}

// simNode is a simulated server.
type simNode struct {
	id       int
	live     *Live
	primary  bool
	gone     bool
	timeline uint32
	wal      []simRecord       // primary: all inserted; standby: all received
	flushed  int               // primary: how many of wal are flushed
	replayed int               // standby: how many of wal are replayed
	restart  int               // standby: where a crash reopens
	next     uint64            // primary: next transaction id
	running  map[uint64]int    // stage by xid
	ids      map[uint64]uint64 // id by xid
	request  *simRequest
	conns    []simConn
	upstream *simNode
	fresh    bool // the sampler has not connected since the last crash
}

// The stages of a running transaction on the primary.
const (
	simRuns = iota
	simCommitted
	simWaitsForStandby
)

// simRequest is a sample on its way.
type simRequest struct {
	number uint64
	answer *sample
}

// simConn is a lease; opened is its mark.
type simConn struct{ opened uint64 }

// simSeen is what a client was told: a write acknowledged or a read answered.
type simSeen struct {
	mark uint64
	node int // 0 for writes
	inc  uint64
	txs  []uint64 // ids of transactions seen committed
}

// sim is a cluster with its fence and all that clients were told.
type sim struct {
	t      *testing.T
	rnd    *rand.Rand
	fence  Fence
	nodes  []*simNode
	seen   []simSeen
	last   uint64          // newest transaction's id
	asyncs []func()        // sessions that turned it off
	lost   map[uint64]bool // transactions that a failover or crash took back
	moved  [4]int          // how much of what was tried
	waits  int             // a commit waits for its standby about that many steps
	odds   [11]int         // how often each kind of step is done
	now    int64
}

// primary is the simulated primary, nil when there is none.
func (s *sim) primary() *simNode {
	for _, n := range s.nodes {
		if n.primary && !n.gone {
			return n
		}
	}
	return nil
}

// newSim makes a primary and two standbys.
func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), lost: map[uint64]bool{}}
	for i := range 3 {
		n := &simNode{id: i + 1, live: new(Live), timeline: 1, fresh: true}
		s.nodes = append(s.nodes, n)
		s.fence.join(n.id, n.live)
	}
	s.waits = 1 + s.rnd.IntN(12)
	for i := range s.odds {
		s.odds[i] = simOdds()[i] * (1 + s.rnd.IntN(4))
		if i >= 5 && s.rnd.IntN(3) == 0 {
			s.odds[i] = 0 // some histories know no crash, no failover, no asynchronous commit …
		}
	}
	p := s.nodes[0]
	p.primary, p.next, p.running, p.ids = true, 100, map[uint64]int{}, map[uint64]uint64{}
	s.nodes[1].upstream, s.nodes[2].upstream = p, p
	s.fence.setLine(1, 1)
	return s
}

// simOdds is how often each kind of step is done on average.
func simOdds() [11]int { return [11]int{60, 50, 90, 40, 20, 6, 8, 5, 5, 2, 5} }

// end is the position behind the first n records.
func end(wal []simRecord, n int) lsn {
	if n == 0 {
		return 1
	}
	return wal[n-1].end
}

// insert appends a record on the primary.
func (n *simNode) insert(r simRecord) {
	r.end = end(n.wal, len(n.wal)) + 8
	r.id = n.ids[r.xid]
	n.wal = append(n.wal, r)
}

// remember keeps what a client was told, the newest of it.
func (s *sim) remember(told simSeen) {
	if len(s.seen) == 80 {
		s.seen = append(s.seen[:0], s.seen[20:]...)
	}
	s.seen = append(s.seen, told)
}

// visible are the transactions that the node shows as committed.
func (s *sim) visible(n *simNode) []uint64 {
	shown := n.wal
	if !n.primary {
		shown = n.wal[:n.replayed]
	}
	var txs []uint64
	for _, r := range shown {
		if _, runs := n.running[r.xid]; r.commit && !runs {
			txs = append(txs, r.id)
		}
	}
	return txs
}

// write lets the primary's transactions go on by one step.
func (s *sim) write() {
	p := s.primary()
	if p == nil {
		return
	}
	if len(p.running) < 4 && s.rnd.IntN(2) == 0 {
		p.running[p.next] = simRuns
		s.last++
		p.ids[p.next] = s.last
		p.insert(simRecord{xid: p.next})
		p.next++
		return
	}
	for _, xid := range sortedKeys(p.running) {
		if s.rnd.IntN(2) == 0 {
			s.stepTransaction(p, xid)
			return
		}
	}
}

// sortedKeys makes walks over a map repeatable.
func sortedKeys(m map[uint64]int) []uint64 {
	var keys []uint64
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// stepTransaction moves one transaction towards its acknowledgement.
func (s *sim) stepTransaction(p *simNode, xid uint64) {
	at := slices.IndexFunc(p.wal, func(r simRecord) bool { return r.xid == xid && r.commit })
	switch p.running[xid] {
	case simRuns:
		if s.rnd.IntN(6) == 0 {
			delete(p.running, xid)
			p.insert(simRecord{xid: xid, ends: true})
			return
		}
		p.insert(simRecord{xid: xid, commit: true, ends: true})
		if len(s.asyncs) > 0 && s.rnd.IntN(2) == 0 {
			delete(p.running, xid)
			s.acknowledge(p.ids[xid])
			return
		}
		p.running[xid] = simCommitted
	case simCommitted:
		p.flushed = max(p.flushed, at+1)
		p.running[xid] = simWaitsForStandby
	case simWaitsForStandby:
		if s.rnd.IntN(s.waits) > 0 {
			return
		}
		delete(p.running, xid)
		s.acknowledge(p.ids[xid])
	}
}

// acknowledge tells a client that its commit is done.
func (s *sim) acknowledge(id uint64) {
	s.remember(simSeen{mark: s.fence.Mark(), txs: []uint64{id}})
}

// replicate moves a standby along: receiving only what is flushed, replaying only what is received.
func (s *sim) replicate(n *simNode) {
	if n.primary || n.gone || n.upstream == nil {
		return
	}
	u := n.upstream
	sent := u.wal[:u.flushed]
	if !u.primary {
		sent = u.wal
	}
	if u.gone {
		sent = n.wal
	}
	if len(sent) > len(n.wal) && samePrefix(n.wal, sent) {
		n.wal = slices.Clone(sent[:len(n.wal)+1+s.rnd.IntN(len(sent)-len(n.wal))])
		n.timeline = u.timeline
	}
	if n.replayed < len(n.wal) {
		n.replayed += 1 + s.rnd.IntN(len(n.wal)-n.replayed)
	}
	if s.rnd.IntN(4) == 0 {
		n.restart = max(n.restart, n.replayed-s.rnd.IntN(6))
	}
}

// samePrefix says whether b goes on from a.
func samePrefix(a, b []simRecord) bool { return len(a) <= len(b) && slices.Equal(a, b[:len(a)]) }

// sample moves a node's sampler: request, answer at some moment, delivery at another.
func (s *sim) sample(n *simNode) {
	switch {
	case n.gone:
		return
	case n.fresh:
		s.fence.void(n.id)
		n.fresh = false
		if n.primary {
			s.fence.setLine(n.id, n.timeline)
		}
	case n.request == nil:
		n.request = &simRequest{number: s.fence.next()}
	case n.request.answer == nil:
		n.request.answer = s.answer(n)
	default:
		a := *n.request.answer
		a.number, a.sent = n.request.number, s.now
		n.request = nil
		s.fence.observe(n.id, a)
		s.moved[0]++
	}
}

// answer is what the node says of itself now.
func (s *sim) answer(n *simNode) *sample {
	a := &sample{recovery: !n.primary, timeline: n.timeline}
	done, low := uint64(99), uint64(0)
	shown := n.wal
	if !n.primary {
		shown = n.wal[:n.replayed]
	}
	for _, r := range shown {
		if _, runs := n.running[r.xid]; r.ends && !runs {
			done = max(done, r.xid)
		}
	}
	for xid := range n.running {
		if low == 0 || xid < low {
			low = xid
		}
	}
	a.xmax = done + 1
	a.xmin = a.xmax
	if low != 0 {
		a.xmin = min(a.xmin, low)
	}
	a.next = n.next
	a.replay = end(n.wal, n.replayed)
	if n.primary {
		a.replay = 0
		a.flush, a.insert = end(n.wal, n.flushed), end(n.wal, len(n.wal))
	}
	return a
}

// crash kills a node's processes. It comes back by itself, a standby at its restart point, the
// primary without what it had not flushed.
func (s *sim) crash(n *simNode) {
	n.conns, n.fresh = nil, true
	if n.request != nil && n.request.answer == nil || s.rnd.IntN(2) == 0 {
		n.request = nil // otherwise the answer is on its way already
	}
	if n.request != nil {
		a := *n.request.answer
		a.number, a.sent = n.request.number, s.now
		n.request = nil
		if s.rnd.IntN(2) == 0 {
			s.fence.observe(n.id, a)
		} else {
			s.fence.void(n.id)
			n.fresh = false
			s.fence.observe(n.id, a)
		}
	}
	if !n.primary {
		n.replayed = min(n.replayed, n.restart)
		return
	}
	s.unhappened(n.wal[n.flushed:])
	n.wal = n.wal[:n.flushed]
	n.running = map[uint64]int{}
	n.next = 100
	for _, r := range n.wal {
		n.next = max(n.next, r.xid+1)
	}
}

// unhappened remembers which transactions nobody can be owed any more.
func (s *sim) unhappened(wal []simRecord) {
	for _, r := range wal {
		if r.commit {
			s.lost[r.id] = true
		}
	}
}

// failover ends the primary and promotes a standby; the other follows if it can.
func (s *sim) failover() {
	old := s.primary()
	to := s.nodes[s.rnd.IntN(len(s.nodes))]
	if old == nil || to == old || to.gone || to.timeline != old.timeline {
		return
	}
	old.gone, old.primary, old.conns, old.request = true, false, nil, nil
	to.replayed = len(to.wal)
	s.unhappened(old.wal[len(to.wal):])
	to.primary, to.flushed, to.timeline, to.upstream = true, len(to.wal), to.timeline+1, nil
	to.running, to.ids, to.next = map[uint64]int{}, map[uint64]uint64{}, 100
	to.request = nil
	for _, r := range to.wal {
		to.next = max(to.next, r.xid+1)
	}
	s.fence.setLine(to.id, to.timeline)
	for _, n := range s.nodes {
		if n != to {
			n.upstream = to
		}
	}
	s.moved[1]++
}

// rejoin brings a node that is gone or cannot follow back as a copy of the primary.
func (s *sim) rejoin(n *simNode) {
	p := s.primary()
	if p == nil || n == p || !n.gone && samePrefix(n.wal, p.wal) {
		return
	}
	s.crash(n)
	n.gone, n.primary, n.upstream, n.running = false, false, p, nil
	n.timeline = p.timeline
	n.wal = slices.Clone(p.wal[:p.flushed])
	n.replayed = s.rnd.IntN(len(n.wal) + 1)
	n.restart = n.replayed
}

// read lets a client read over a lease, if the fence allows it, and checks what it sees.
func (s *sim) read(n *simNode) {
	if n.gone {
		return
	}
	if len(n.conns) == 0 || s.rnd.IntN(8) == 0 {
		n.conns = append(n.conns, simConn{opened: s.fence.Mark()})
	}
	c := n.conns[s.rnd.IntN(len(n.conns))]
	f := n.live.Fresh()
	txs := s.visible(n)
	switch {
	case n.primary:
	case f.AsOf == 0 || c.opened >= f.Sample:
		return
	default:
		s.checkStandby(n, f, txs)
		s.moved[2]++
	}
	s.remember(simSeen{mark: s.fence.Mark(), node: n.id, inc: f.Incarnation, txs: txs})
}

// set makes looking up fast.
func (s *sim) set(txs []uint64) []bool {
	has := make([]bool, s.last+1)
	for _, tx := range txs {
		has[tx] = true
	}
	return has
}

// checkStandby fails when a standby that the fence calls fresh lacks something it vouches for.
func (s *sim) checkStandby(n *simNode, f Freshness, txs []uint64) {
	has := s.set(txs)
	for _, told := range s.seen {
		own := told.node == n.id && told.inc == f.Incarnation
		if !own && told.mark >= f.AsOf {
			continue
		}
		for _, tx := range told.txs {
			if !s.lost[tx] && !has[tx] {
				s.t.Fatalf("node %d, fresh as of %d (sample %d, incarnation %d), lacks transaction %d, told at mark %d by node %d",
					n.id, f.AsOf, f.Sample, f.Incarnation, tx, told.mark, told.node)
			}
		}
	}
}

// checkCovered fails when the primary lacks what a standby showed and Covered says it has.
func (s *sim) checkCovered() {
	p := s.primary()
	if p == nil || s.fence.mu.ledger.primary != p.id {
		return
	}
	has := s.set(s.visible(p))
	for _, told := range s.seen {
		if told.node == 0 || told.node == p.id {
			continue
		}
		if told.mark >= s.nodes[told.node-1].live.Fresh().Covered {
			continue
		}
		s.moved[3]++
		for _, tx := range told.txs {
			if !s.lost[tx] && !has[tx] {
				s.t.Fatalf("primary %d lacks transaction %d, told at mark %d by node %d, covered up to %d",
					p.id, tx, told.mark, told.node, s.nodes[told.node-1].live.Fresh().Covered)
			}
		}
	}
}

// step does one random thing.
func (s *sim) step() {
	s.now += 1_000_000
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	total := 0
	for _, o := range s.odds {
		total += o
	}
	k, kind := s.rnd.IntN(total), 0
	for k >= s.odds[kind] {
		k -= s.odds[kind]
		kind++
	}
	switch kind {
	case 0:
		s.write()
	case 1:
		s.replicate(n)
	case 2:
		s.sample(n)
	case 3:
		s.read(n)
	case 4:
		s.checkCovered()
	case 5:
		if p := s.primary(); p != nil {
			p.flushed = len(p.wal) - s.rnd.IntN(len(p.wal)-p.flushed+1)
		}
	case 6:
		s.toggleAsync()
	case 7:
		s.fence.void(n.id)
	case 8:
		if !n.gone {
			s.crash(n)
		}
	case 9:
		s.failover()
	case 10:
		s.rejoin(n)
	}
}

// toggleAsync lets a session turn synchronous_commit off, or on again.
func (s *sim) toggleAsync() {
	if len(s.asyncs) > 1 || len(s.asyncs) == 1 && s.rnd.IntN(2) == 0 {
		s.asyncs[0]()
		s.asyncs = s.asyncs[1:]
		return
	}
	s.asyncs = append(s.asyncs, s.fence.SyncCommitOff())
}

// TestFenceHistories tries the fence against random histories: no read that it allows may lack
// what it vouches for.
func TestFenceHistories(t *testing.T) {
	var moved [4]int
	runs := 6000
	if testing.Short() {
		runs = 4000
	}
	for seed := range uint64(runs) {
		s := newSim(t, seed)
		for range 400 {
			s.step()
		}
		for i, n := range s.moved {
			moved[i] += n
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d samples, %d failovers, %d reads on fresh standbys, %d reads covered", moved[0], moved[1], moved[2], moved[3])
	for i, n := range moved {
		if n < runs/4 {
			t.Errorf("the histories try too little of thing %d: %d in %d runs", i, n, runs)
		}
	}
}
