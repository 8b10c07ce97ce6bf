package health

import "sync/atomic"

// Fence orders what clients have seen against what the samples of the monitor show
// (freshness.md, "The mechanism"). One per cluster. All methods may be called from any
// goroutine and never block.
type Fence struct {
	counter atomic.Uint64
	demand  atomic.Int64 // how many sessions wait for a fresher sample
	wake    chan struct{}
	changed atomic.Pointer[chan struct{}]
}

// Mark is the number that a reply received just now is remembered with: every sample request
// numbered above it was made after the reply.
func (f *Fence) Mark() uint64 { return f.counter.Load() }

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

// Fresh is the node's freshness; the zero value when nothing vouches for it.
func (l *Live) Fresh() Freshness {
	if p := l.fresh.Load(); p != nil {
		return *p
	}
	return Freshness{}
}
