package catalog

import "pgweir/router"

// bits is what using a node can do, beside its verdict.
type bits uint8

// The bits.
const (
	bitOpaque bits = 1 << iota
	bitNextval
	bitCurrval
	bitCalls   // calls a function that is not built in; travels along full edges only
	bitLasting // opaque, and DISCARD ALL may not remove all of it
)

// nodeID names a node of a graph.
type nodeID uint32

// state is what is known of using a node so far. It only ever grows.
type state struct {
	verdict router.NameVerdict
	reason  router.Reason
	bits    bits
	names   uint64 // of custom settings that stay on the connection, by builder.left
	safe    bool   // opaque neither sticks nor travels: the configuration vouches for it
}

// edge says that using from can use to. Along a full edge the verdict travels as well.
type edge struct {
	from nodeID
	full bool
}

// graph finds for every node what using it can do in the end.
type graph struct {
	states []state
	froms  []nodeID // of the edges, in the order they were added
	tos    []nodeID
	full   []bool
}

// rank orders verdicts for what one thing uses: a certain reason for the primary weighs more
// than doubt, since a standby hint overrides doubt only.
func rank(v router.NameVerdict) int {
	switch v {
	case router.VerdictRead:
		return 1
	case router.VerdictNode:
		return 2
	case router.VerdictDoubtful:
		return 3
	case router.VerdictPrimary:
		return 4
	}
	return 0
}

// add makes a node.
func (g *graph) add(s state) nodeID {
	g.states = append(g.states, s)
	return nodeID(len(g.states) - 1)
}

// link adds an edge.
func (g *graph) link(from, to nodeID, full bool) {
	g.froms = append(g.froms, from)
	g.tos = append(g.tos, to)
	g.full = append(g.full, full)
}

// raise makes a node's verdict at least v; of two reasons for the same verdict the first of
// the list stays, so that the outcome does not depend on the order of edges.
func (g *graph) raise(n nodeID, v router.NameVerdict, reason router.Reason) bool {
	s := &g.states[n]
	if rank(v) < rank(s.verdict) || rank(v) == rank(s.verdict) && (reason >= s.reason) {
		return false
	}
	s.verdict, s.reason = v, reason
	return true
}

// mark adds bits to a node.
func (g *graph) mark(n nodeID, b bits) bool {
	s := &g.states[n]
	if s.safe {
		b &^= bitOpaque | bitLasting
	}
	if s.bits|b == s.bits {
		return false
	}
	s.bits |= b
	return true
}

// leave adds names of settings to a node.
func (g *graph) leave(n nodeID, names uint64) bool {
	s := &g.states[n]
	if s.safe || s.names|names == s.names {
		return false
	}
	s.names |= names
	return true
}

// solve lets everything travel along the edges until nothing changes.
func (g *graph) solve() {
	starts, users := g.reversed()
	queue := make([]nodeID, 0, len(g.states))
	queued := make([]bool, len(g.states))
	for n := range g.states {
		if s := &g.states[n]; s.bits != 0 || s.names != 0 || rank(s.verdict) > 1 {
			queue = append(queue, nodeID(n))
			queued[n] = true
		}
	}
	for len(queue) > 0 {
		n := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		queued[n] = false
		s := g.states[n]
		for _, u := range users[starts[n]:starts[n+1]] {
			b := s.bits
			if !u.full {
				b &^= bitCalls
			}
			changed := g.mark(u.from, b)
			if g.leave(u.from, s.names) {
				changed = true
			}
			if u.full && g.raise(u.from, s.verdict, s.reason) {
				changed = true
			}
			if changed && !queued[u.from] {
				queued[u.from] = true
				queue = append(queue, u.from)
			}
		}
	}
}

// reversed returns the edges by the node they lead to: those to n are
// users[starts[n]:starts[n+1]].
func (g *graph) reversed() (starts []uint32, users []edge) {
	starts = make([]uint32, len(g.states)+1)
	for _, to := range g.tos {
		starts[to+1]++
	}
	for i := 1; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	users = make([]edge, len(g.tos))
	next := make([]uint32, len(g.states))
	copy(next, starts)
	for i, to := range g.tos {
		users[next[to]] = edge{from: g.froms[i], full: g.full[i]}
		next[to]++
	}
	return starts, users
}
