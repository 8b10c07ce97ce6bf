package health

import (
	"sync"
	"sync/atomic"
)

// Fence orders what clients have seen against what the samples of the monitor show
// (freshness.md, "The mechanism"). One per cluster. All methods may be called from any
// goroutine and never wait for a node. The zero value works and knows no node.
type Fence struct {
	counter atomic.Uint64
	demand  atomic.Int64 // how many sessions wait for a fresher sample
	changed atomic.Pointer[chan struct{}]
	mu      struct {
		sync.Mutex
		ledger ledger
		kick   func() // wakes the samplers; nil before the monitor runs
	}
}

// Mark is the number that a reply received just now is remembered with: every sample request
// numbered above it was made after the reply.
func (f *Fence) Mark() uint64 { return f.counter.Load() }

// next numbers a sample request that is about to be made.
func (f *Fence) next() uint64 { return f.counter.Add(1) }

// Demand asks for fast sampling for as long as the caller holds it: one sample of every node
// starts at once unless one that was requested later than this call is on its way, then one each
// sampling.min_interval. release may be called several times; it must be called.
func (f *Fence) Demand() (release func()) {
	f.demand.Add(1)
	f.mu.Lock()
	kick := f.mu.kick
	f.mu.Unlock()
	if kick != nil {
		kick()
	}
	var once atomic.Bool
	return func() {
		if once.CompareAndSwap(false, true) {
			f.demand.Add(-1)
		}
	}
}

// wanted says whether somebody waits for a fresher sample.
func (f *Fence) wanted() bool { return f.demand.Load() > 0 }

// onDemand sets what Demand calls to wake the samplers.
func (f *Fence) onDemand(kick func()) {
	f.mu.Lock()
	f.mu.kick = kick
	f.mu.Unlock()
}

// Changed returns a channel that is closed at the next sample that moves what any node vouches
// for. Take it before looking at Live.Fresh, or a move in between is missed.
func (f *Fence) Changed() <-chan struct{} {
	for {
		if p := f.changed.Load(); p != nil {
			return *p
		}
		ch := make(chan struct{})
		if f.changed.CompareAndSwap(nil, &ch) {
			return ch
		}
	}
}

// notify wakes whoever took Changed.
func (f *Fence) notify() {
	if p := f.changed.Swap(nil); p != nil {
		close(*p)
	}
}

// SyncCommitOff says that a session is about to have synchronous_commit off: from now on the fence
// is the insert position, which covers commits that are acknowledged before they are flushed. It
// must be called before the statement that turns it off is sent. on is to be called when the
// session has it on again or has ended; it may be called several times. The fence goes back to the
// flush position only when that has passed everything inserted until then.
func (f *Fence) SyncCommitOff() (on func()) {
	f.mu.Lock()
	f.mu.ledger.asyncSessions++
	f.mu.ledger.inserting, f.mu.ledger.passed = true, 0
	f.mu.Unlock()
	var once atomic.Bool
	return func() {
		if !once.CompareAndSwap(false, true) {
			return
		}
		f.mu.Lock()
		f.mu.ledger.asyncSessions--
		f.mu.ledger.releasedAt, f.mu.ledger.passed = f.Mark(), 0
		f.mu.Unlock()
	}
}

// observe takes the answer to a sample request.
func (f *Fence) observe(id int, s sample) {
	f.mu.Lock()
	moved := f.mu.ledger.observe(id, s)
	f.mu.Unlock()
	if moved {
		f.notify()
	}
}

// setLine says which node's positions count from now on, on which timeline; node 0: none is known.
// Nothing is fresh until that node has been sampled, unless nothing changed.
func (f *Fence) setLine(primary int, timeline uint32) {
	f.mu.Lock()
	moved := f.mu.ledger.setLine(primary, timeline)
	f.mu.Unlock()
	if moved {
		f.notify()
	}
}

// join makes a node known to the fence; live is where its freshness is shown.
func (f *Fence) join(id int, live *Live) {
	f.mu.Lock()
	f.mu.ledger.join(id, live)
	f.mu.Unlock()
}

// leave forgets a node; what it vouched for is void.
func (f *Fence) leave(id int) {
	f.void(id)
	f.mu.Lock()
	delete(f.mu.ledger.nodes, id)
	f.mu.Unlock()
}

// void makes a node's freshness void until a sample that was requested after this call.
func (f *Fence) void(id int) {
	f.mu.Lock()
	moved := f.mu.ledger.void(id, f.next())
	f.mu.Unlock()
	if moved {
		f.notify()
	}
}

// lag is how far a node's replay stands behind the newest position known of the primary.
func (f *Fence) lag(id int, now int64) lagReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.ledger.lag(id, now)
}

// Freshness is what one sample of a node vouches for. It is immutable.
type Freshness struct {
	AsOf        uint64 // writes acknowledged with marks below it have been replayed
	Sample      uint64 // number of the node's own sample request: connections opened at or after it are not vouched for
	Covered     uint64 // reads on this node with marks below it are visible on the primary (xmin/xmax rule)
	Incarnation uint64 // changes whenever what the node showed before may be undone
}

// Live is what changes of a node between two snapshots.
type Live struct {
	fresh       atomic.Pointer[Freshness]
	evidence    atomic.Int64 // Clock() at the sending of the newest probe that was answered
	Outstanding atomic.Int64 // statements in flight, kept by the proxy, read by the balancer
}

// NewLive makes a Live that shows f and whose newest evidence was sent at that Clock. The monitor
// keeps its own; this one is for tests of what routes by it.
func NewLive(f Freshness, evidence int64) *Live {
	l := new(Live)
	l.fresh.Store(&f)
	l.evidence.Store(evidence)
	return l
}

// Fresh is the node's freshness; the zero value when nothing vouches for it.
func (l *Live) Fresh() Freshness {
	if p := l.fresh.Load(); p != nil {
		return *p
	}
	return Freshness{}
}

// Evidence is the Clock at the sending of the newest probe that was answered, 0 when there is none.
func (l *Live) Evidence() int64 { return l.evidence.Load() }
