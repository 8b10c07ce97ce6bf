package router

import (
	"math/bits"

	"pgweir/health"
)

// choice is the outcome of choose.
type choice struct {
	node    *health.Node
	primary bool // the node is the primary (reads_on_primary: share)
	stale   bool // there are standbys that may be read but none that is fresh
	soon    bool // … and one of them may be fresh within the wait that is left
}

// candidate is the best node so far.
type candidate struct {
	node        *health.Node
	primary     bool
	near        bool // in the preferred zone
	outstanding int64
	weight      int64 // of all equally good ones, for the draw between them
	held        bool  // the lease at hand or the node of the last read: no draw
}

// choose finds the standby for a read: of those that are fresh enough and have the tags, the
// one with the least requests outstanding for its weight, nodes of the preferred zone first.
// Between equals the lease at hand wins, then the node that the session read last, then a draw
// by weight, which the moment decides.
func (r *routing) choose() choice {
	var best candidate
	var c choice
	draw := mix(uint64(r.now))
	held := r.heldOnly()
	for _, n := range r.snap.Nodes {
		if !r.readable(n) || held != nil && n.Live != held.Live {
			continue
		}
		if !r.fresh(n) {
			c.stale = true
			c.soon = c.soon || r.maySoon(n)
			continue
		}
		best.consider(r, n, false, &draw)
	}
	if p := r.snap.Primary; best.node != nil && r.view.OnPrimary == ReadsShare && p != nil && r.sharing(p) {
		best.consider(r, p, true, &draw)
	}
	c.node, c.primary = best.node, best.primary
	return c
}

// heldOnly is the standby that the session keeps to: it is fresh or may be soon. nil when any will do.
func (r *routing) heldOnly() *health.Node {
	if !r.view.Sticky || r.view.Held == nil {
		return nil
	}
	for _, n := range r.snap.Nodes {
		if n.Live == r.view.Held.Live && r.readable(n) && (r.fresh(n) || r.maySoon(n)) {
			return n
		}
	}
	return nil
}

// readable reports whether n is a standby that may be given reads at all.
func (r *routing) readable(n *health.Node) bool {
	return n.Role == health.RoleStandby && r.mayRead(n) && n.Trusted(r.now)
}

// sharing reports whether the primary may take part in the balancing of this read.
func (r *routing) sharing(p *health.Node) bool {
	return r.mayRead(p) && p.Trusted(r.now) && !r.unproven()
}

// mayRead reports whether reads may be given to a node: its state, weight and tags, and that
// it was not tried for this unit before.
func (r *routing) mayRead(n *health.Node) bool {
	return n.State == health.StateUp && !n.NoReads && n.Weight > 0 && n.Live != nil &&
		!r.view.tried(n) && tagged(n.Tags, r.view.ReadFrom)
}

// tried reports whether the unit was on the node before.
func (v *View) tried(n *health.Node) bool { return v.Avoid>>(uint(n.ID)%64)&1 != 0 }

// tagged reports whether a node with the tags has one of those asked for.
func tagged(tags, want []string) bool {
	if len(want) == 0 {
		return true
	}
	for _, w := range want {
		for _, t := range tags {
			if t == w {
				return true
			}
		}
	}
	return false
}

// fresh reports whether a standby shows enough for the session's level.
func (r *routing) fresh(n *health.Node) bool {
	v := r.view
	if v.Consistency == ConsistencyEventual {
		return within(n, v)
	}
	f := n.Live.Fresh()
	need := v.Need
	if v.LastRead != nil && v.LastRead.Live == n.Live && f.Incarnation == v.LastReadInc {
		need = v.NeedOwn
	}
	return f.AsOf > need
}

// within reports whether a standby's measured lag is below max_lag; lag that is not known is not.
func within(n *health.Node, v *View) bool {
	if n.LagBytes < 0 {
		return v.MaxLagBytes == 0 && v.MaxLagTime == 0
	}
	return (v.MaxLagBytes == 0 || n.LagBytes <= v.MaxLagBytes) && (v.MaxLagTime == 0 || n.LagTime <= v.MaxLagTime)
}

// maySoon reports whether waiting for a stale standby is not in vain by its last lag.
func (r *routing) maySoon(n *health.Node) bool {
	return r.view.FreshnessWait > 0 && r.view.Consistency != ConsistencyEventual &&
		(n.LagBytes < 0 || n.LagTime <= r.view.FreshnessWait)
}

// consider makes n the best if it is.
func (b *candidate) consider(r *routing, n *health.Node, primary bool, draw *uint64) {
	v := r.view
	near := v.PreferZone == "" || n.Zone == v.PreferZone
	load := max(n.Live.Outstanding.Load(), 0)
	held := v.Held != nil && v.Held.Live == n.Live
	last := v.LastRead != nil && v.LastRead.Live == n.Live
	if b.node != nil {
		switch order := b.against(near, load, int64(n.Weight)); {
		case order < 0:
			return
		case order == 0:
			b.weight += int64(n.Weight)
			*draw = mix(*draw)
			win, _ := bits.Mul64(*draw, uint64(b.weight))
			if !held && (b.held || !last && win >= uint64(n.Weight)) {
				return
			}
			*b = candidate{n, primary, near, load, b.weight, held || last}
			return
		}
	}
	*b = candidate{n, primary, near, load, int64(n.Weight), held || last}
}

// against is negative when the best so far is better than a node with this load and weight,
// zero when they are equal.
func (b *candidate) against(near bool, load, weight int64) int64 {
	if near != b.near {
		if near {
			return 1
		}
		return -1
	}
	return b.outstanding*weight - load*int64(b.node.Weight)
}

// mix spreads the bits of a number (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
