package health

import (
	"testing"
	"testing/synctest"
	"time"
)

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
