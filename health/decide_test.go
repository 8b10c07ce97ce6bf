package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The clock of the tables: everything that is fresh was sent at asked, and the decision falls at at.
const (
	asked = int64(100 * time.Second)
	at    = asked + int64(50*time.Millisecond)
	ours  = uint64(7000)
)

// fact changes a node of a table.
type fact func(*facts)

// node makes a node with that name that has not answered.
func node(name string, changes ...fact) *facts {
	f := &facts{cfg: NodeConfig{Name: name, Host: name, Port: 5432, Weight: 1}, live: new(Live)}
	for _, c := range changes {
		c(f)
	}
	return f
}

// writes makes it a fresh writable node on a timeline, with what it came from ("1@100" …).
func writes(timeline uint32, from ...string) fact {
	return func(f *facts) {
		f.obs = &observation{sent: asked, system: ours, timeline: timeline, start: 1, flush: 1000, forks: true, can: allCapabilities}
		for _, s := range from {
			var tli uint32
			var end lsn
			if _, err := fmt.Sscanf(s, "%d@%d", &tli, &end); err != nil {
				panic("BUG: history " + s)
			}
			f.obs.history = append(f.obs.history, fork{tli, end})
		}
		f.evidence, f.contact = asked, asked
	}
}

// follows makes it a fresh standby that streams on a timeline.
func follows(timeline uint32) fact {
	return func(f *facts) {
		f.obs = &observation{
			sent: asked, system: ours, recovery: true, timeline: timeline, start: 1, received: 100, replayed: 100,
			receiving: true, follows: timeline, can: allCapabilities,
		}
		f.evidence, f.contact = asked, asked
	}
}

// idleStandby makes it a fresh standby without a receiver.
func idleStandby(timeline uint32) fact {
	return func(f *facts) {
		follows(timeline)(f)
		f.obs.receiving, f.obs.follows = false, 0
	}
}

// member makes it a member that was seen to receive, and to replay, up to a position.
func member(timeline uint32, received lsn) fact {
	return func(f *facts) {
		f.member, f.watched = true, true
		f.received, f.replayed = mark{timeline, received}, mark{timeline, received}
	}
}

// silent makes it one whose newest answer is older than the trust window.
func silent(f *facts) {
	f.evidence = asked - int64(time.Second)
	f.obs.sent = f.evidence
	f.contact = f.evidence
}

// dead makes it down: nobody listens, the host answers.
func dead(f *facts) {
	f.down, f.downAt, f.evidence, f.contact = true, asked, 0, asked
	f.last = failure{failRefused, "connection refused"}
}

// lost makes it down and its host silent.
func lost(f *facts) {
	dead(f)
	f.contact = 1
	f.last = failure{failTimeout, "no answer in time"}
}

// unread takes the history away.
func unread(f *facts) { f.obs.history, f.obs.forks = nil, false }

// system gives it another system identifier.
func system(id uint64) fact { return func(f *facts) { f.obs.system = id } }

// sends names where a standby's receiver is connected.
func sends(host string) fact {
	return func(f *facts) { f.obs.sender, f.obs.senderAt = host, 5432 }
}

// lineOf is a line of our system whose primary is the named node.
func lineOf(timeline uint32, primary string) line {
	return line{System: ours, Timeline: timeline, Node: primary + ":5432", Flushed: 1000}
}

// deciding is one row of the table.
type deciding struct {
	name  string
	line  line
	nodes []*facts
	after time.Duration // since the looking began; 0: a second
	with  func(*inquiry)

	primary     string // "" for nobody
	accept      uint32 // timeline of the accepted line, 0 for none
	split       bool
	unconfirmed bool
	why         string              // a part of why
	loss        string              // a part of loss
	stands      map[string]standing // of some nodes
}

// inquire makes the inquiry of a row.
func (d deciding) inquire() inquiry {
	cfg := DefaultConfig()
	since := at - int64(time.Second)
	if d.after != 0 {
		since = at - int64(d.after)
	}
	q := inquiry{cfg: &cfg, nodes: d.nodes, line: d.line, since: since, now: at}
	for i, f := range q.nodes {
		f.id = i + 1
		if f.cfg.addr() == d.line.Node {
			q.line.primary = f.id
		}
	}
	if d.with != nil {
		d.with(&q)
	}
	return q
}

// TestDecide goes through the rules of failover.md.
func TestDecide(t *testing.T) {
	rows := slices.Concat(rules1And2(), rule3(), rule4(), rule5(), rules6To8(), orders())
	seen := map[string]bool{}
	for _, d := range rows {
		if seen[d.name] {
			t.Fatalf("two rows are named %q", d.name)
		}
		seen[d.name] = true
		t.Run(d.name, func(t *testing.T) { d.check(t) })
	}
	t.Logf("%d rows", len(rows))
}

// check decides a row, in the given order of nodes and in all others: rule 9.
func (d deciding) check(t *testing.T) {
	d.compare(t, decide(d.inquire()))
	for range len(d.nodes) {
		d.nodes = append(d.nodes[1:], d.nodes[0])
		d.compare(t, decide(d.inquire()))
	}
	slices.Reverse(d.nodes)
	d.compare(t, decide(d.inquire()))
}

// compare says where a verdict differs from the row.
func (d deciding) compare(t *testing.T, v verdict) {
	t.Helper()
	got := ""
	if v.primary != nil {
		got = v.primary.cfg.name()
	}
	if got != d.primary {
		t.Errorf("primary %q, not %q; why: %s", got, d.primary, v.why)
	}
	var accepted uint32
	if v.accept != nil {
		accepted = v.accept.Timeline
	}
	if accepted != d.accept {
		t.Errorf("accepted timeline %d, not %d", accepted, d.accept)
	}
	if v.split != d.split || v.unconfirmed != d.unconfirmed {
		t.Errorf("split brain %v, unconfirmed %v", v.split, v.unconfirmed)
	}
	if !strings.Contains(v.why, d.why) || got == "" && v.why == "" {
		t.Errorf("why is %q, without %q", v.why, d.why)
	}
	if !strings.Contains(v.loss, d.loss) || d.loss == "" && v.loss != "" {
		t.Errorf("loss is %q, not %q", v.loss, d.loss)
	}
	for _, f := range d.nodes {
		if want, ok := d.stands[f.cfg.name()]; ok && v.stands[f.id].standing != want {
			t.Errorf("%s has standing %d, not %d (%s)", f.cfg.name(), v.stands[f.id].standing, want, v.stands[f.id].why)
		}
	}
}

// rules1And2: candidates, and the incumbent going on.
func rules1And2() []deciding {
	return []deciding{
		{
			name: "incumbent goes on", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1)), node("c", follows(1))},
		},
		{
			name: "incumbent goes on alone in a cluster of one", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1))},
		},
		{
			name: "incumbent goes on while the standbys are refused", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1), dead), node("c", follows(1), dead)},
		},
		{
			name: "stale evidence is none", line: lineOf(1, "a"), why: "no answer for",
			nodes: []*facts{node("a", writes(1), silent), node("b", follows(1)), node("c", follows(1))},
		},
		{
			name: "another system identifier is no candidate", line: lineOf(1, "a"), why: "system identifier 9, the cluster 7000",
			nodes:  []*facts{node("a", writes(1), system(9)), node("b", follows(1)), node("c", follows(1))},
			stands: map[string]standing{"a": standsForeign},
		},
		{
			name: "a foreign writable node does not stop the incumbent", line: lineOf(1, "a"), primary: "a",
			nodes:  []*facts{node("a", writes(1)), node("b", follows(1)), node("x", writes(5), system(9))},
			stands: map[string]standing{"x": standsForeign},
		},
		{
			name: "an address that answers for several servers is no candidate", line: lineOf(1, "a"), why: "several servers",
			nodes: []*facts{node("a", writes(1), func(f *facts) { f.several, f.severalT = asked, "answers for several servers" }), node("b", follows(1))},
		},
		{
			name: "the incumbent was demoted", line: lineOf(1, "a"), why: "standby",
			nodes: []*facts{node("a", follows(1)), node("b", follows(1)), node("c", follows(1))},
		},
	}
}

// rule3: another node, or another timeline.
func rule3() []deciding {
	standby := member(1, 100)
	return []deciding{
		{
			name: "promoted standby at its furthest position", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@100")), node("c", follows(1))},
		},
		{
			name: "promoted standby while the old primary is only silent", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes: []*facts{node("a", writes(1), silent), node("b", standby, writes(2, "1@100")), node("c", follows(1))},
		},
		{
			name: "promoted standby while the old primary still writes", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes:  []*facts{node("a", writes(1)), node("b", standby, writes(2, "1@100")), node("c", follows(1))},
			stands: map[string]standing{"a": standsIncumbent},
		},
		{
			name: "the tail of a record that never ended is no loss of its own", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, func(f *facts) { f.received.Position = 130 }, writes(2, "1@100")), node("c", follows(1))},
		},
		{
			name: "forked below what it had replayed", line: lineOf(1, "a"), why: "after it had replayed up to 0/64",
			nodes:  []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@99")), node("c", follows(1))},
			stands: map[string]standing{"b": standsUnproven},
		},
		{
			name: "forked far below what it had received", line: lineOf(1, "a"), why: "after it had received",
			nodes:  []*facts{node("a", writes(1), dead), node("b", standby, func(f *facts) { f.received.Position = 101 + partialRecord }, writes(2, "1@100"))},
			stands: map[string]standing{"b": standsUnproven},
		},
		{
			name: "another standby further on is a loss, reported", line: lineOf(1, "a"), primary: "b", accept: 2, loss: "50 bytes of timeline 1 that c had received",
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@100")), node("c", member(1, 150), follows(1))},
		},
		{
			name: "a clone that was never a standby is unproven", line: lineOf(1, "a"), why: "never seen as a standby",
			nodes:  []*facts{node("a", writes(1), dead), node("b", writes(2, "1@100")), node("c", follows(1))},
			stands: map[string]standing{"b": standsUnproven},
		},
		{
			name: "never seen as a standby, but a majority streams from it", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(2, "1@100")), node("c", follows(2)), node("d", follows(2))},
		},
		{
			name: "never seen as a standby, and half streams from it", line: lineOf(1, "a"), why: "never seen as a standby",
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(2, "1@100")), node("c", follows(2)), node("d", follows(1))},
		},
		{
			name: "a timeline that did not come from ours", line: lineOf(2, "a"), why: "timeline 3 did not come from timeline 2",
			nodes:  []*facts{node("a", writes(2), dead), node("b", member(2, 100), writes(3, "1@90")), node("c", follows(2))},
			stands: map[string]standing{"b": standsFork},
		},
		{
			name: "two promotions were missed", line: lineOf(1, "a"), primary: "b", accept: 3,
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(3, "1@100", "2@200")), node("c", follows(3))},
		},
		{
			name: "positions of an older timeline do not count", line: lineOf(2, "a"), primary: "b", accept: 3,
			nodes: []*facts{node("a", writes(2), dead), node("b", member(1, 500), writes(3, "1@90", "2@120")), node("c", follows(2))},
		},
		{
			name: "the incumbent itself on a higher timeline", line: lineOf(1, "a"), primary: "a", accept: 3,
			nodes: []*facts{node("a", member(0, 0), writes(3, "1@100", "2@120")), node("b", follows(3)), node("c", follows(3))},
		},
		{
			name: "history unread, the same server was seen as a standby", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(2), unread, func(f *facts) { f.member, f.server, f.serverOn = true, 1, 1 }), node("c", follows(1))},
		},
		{
			name: "history unread, the server was restarted, its checkpoint names our timeline", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(2), unread, func(f *facts) { f.member, f.server, f.serverOn, f.obs.previous = true, 9, 1, 1 }), node("c", follows(1))},
		},
		{
			name: "history unread, restarted, nothing else known", line: lineOf(1, "a"), why: "history of timeline 2 could not be read",
			nodes:  []*facts{node("a", writes(1), dead), node("b", writes(2), unread, func(f *facts) { f.member, f.server, f.serverOn = true, 9, 1 }), node("c", follows(1))},
			stands: map[string]standing{"b": standsUnproven},
		},
		{
			name: "history unread, restarted, below what it had replayed", line: lineOf(1, "a"), why: "could not be read",
			nodes: []*facts{node("a", writes(1), dead), node("b", member(1, 2000), writes(2), unread), node("c", follows(1))},
		},
		{
			name: "history unread and another fork of an older timeline", line: lineOf(2, "a"), why: "could not be read",
			nodes: []*facts{node("a", writes(2), dead), node("b", writes(3), unread, func(f *facts) { f.member, f.server, f.serverOn = true, 1, 1 }), node("c", follows(2))},
		},
		{
			name: "shared storage: the other address has everything", line: lineOf(1, "a"), primary: "b", accept: 1,
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(1))},
		},
		{
			name: "the same timeline, but behind what the primary had flushed", line: lineOf(1, "a"), why: "which had reached",
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(1), func(f *facts) { f.obs.flush = 999 })},
		},
		{
			name: "the same timeline, and it was a rival while the primary lived", line: lineOf(1, "a"), why: "beside its primary",
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(1), func(f *facts) { f.rival = true })},
		},
		{
			name: "the promoted node fell silent again before it was accepted", line: lineOf(1, "a"), why: "no answer for",
			nodes: []*facts{node("a", writes(1)), node("b", standby, writes(2, "1@100"), silent), node("c", follows(1))},
		},
	}
}

// rule4: two or more writable nodes.
func rule4() []deciding {
	standby := member(1, 100)
	return []deciding{
		{
			name: "the highest of two descendants in one history wins", line: lineOf(1, "a"), primary: "c", accept: 3,
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@100")), node("c", standby, writes(3, "1@100", "2@120"))},
		},
		{
			name: "three writable nodes in one history", line: lineOf(1, "a"), primary: "c", accept: 3,
			nodes: []*facts{node("a", writes(1)), node("b", standby, writes(2, "1@100")), node("c", standby, writes(3, "1@100", "2@120"))},
		},
		{
			name: "two promoted to the same timeline", line: lineOf(1, "a"), split: true, why: "split brain: b on timeline 2 and c on timeline 2",
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@100")), node("c", standby, writes(2, "1@100"))},
		},
		{
			name: "two promoted to the same timeline beside the incumbent", line: lineOf(1, "a"), split: true, why: "split brain",
			nodes: []*facts{node("a", writes(1)), node("b", standby, writes(2, "1@100")), node("c", standby, writes(2, "1@100"))},
		},
		{
			name: "two descendants, one not in the other's history", line: lineOf(1, "a"), split: true, why: "split brain",
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@100")), node("c", standby, writes(3, "1@100"))},
		},
		{
			name: "two promoted, one of them silent but not down", line: lineOf(1, "a"), split: true, why: "split brain",
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@100"), silent), node("c", standby, writes(2, "1@100"))},
		},
		{
			name: "two promoted, one of them down", line: lineOf(1, "a"), primary: "c", accept: 2,
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, writes(2, "1@100"), dead), node("c", standby, writes(2, "1@100"))},
		},
		{
			name: "two promoted, one of them a standby again", line: lineOf(1, "a"), primary: "c", accept: 2,
			nodes: []*facts{node("a", writes(1), dead), node("b", standby, idleStandby(1)), node("c", standby, writes(2, "1@100"))},
		},
		{
			name: "a member writable on the incumbent's timeline", line: lineOf(1, "a"), split: true, why: "split brain: a on timeline 1 and b on timeline 1",
			nodes:  []*facts{node("a", writes(1)), node("b", standby, writes(1)), node("c", follows(1))},
			stands: map[string]standing{"b": standsFork},
		},
		{
			name: "a member on an unrelated fork that fell silent beside the incumbent", line: lineOf(2, "a"), split: true, why: "split brain",
			nodes: []*facts{node("a", writes(2, "1@90")), node("b", member(2, 100), writes(3, "1@80"), silent), node("c", follows(2))},
		},
		{
			name: "a stranger writable on the incumbent's timeline", line: lineOf(1, "a"), primary: "a",
			nodes:  []*facts{node("a", writes(1)), node("x", writes(1)), node("c", follows(1))},
			stands: map[string]standing{"x": standsUnproven},
		},
		{
			name: "an unproven clone does not stop the incumbent", line: lineOf(1, "a"), primary: "a",
			nodes:  []*facts{node("a", writes(1)), node("x", writes(2, "1@90")), node("c", follows(1))},
			stands: map[string]standing{"x": standsUnproven},
		},
		{
			name: "a member on an unrelated fork beside the incumbent", line: lineOf(2, "a"), split: true, why: "split brain",
			nodes: []*facts{node("a", writes(2, "1@90")), node("b", member(2, 100), writes(3, "1@80")), node("c", follows(2))},
		},
		{
			name: "a stranger on an unrelated fork beside the incumbent", line: lineOf(2, "a"), primary: "a",
			nodes:  []*facts{node("a", writes(2, "1@90")), node("x", writes(3, "1@80")), node("c", follows(2))},
			stands: map[string]standing{"x": standsUnproven},
		},
		{
			name: "two addresses of the same dead primary's timeline", line: lineOf(1, "a"), split: true, why: "split brain",
			nodes: []*facts{node("a", writes(1), dead), node("b", writes(1)), node("c", writes(1))},
		},
		{
			name: "the old primary returns writable", line: lineOf(2, "b"), primary: "b",
			nodes:  []*facts{node("a", member(0, 0), writes(1)), node("b", writes(2, "1@100")), node("c", follows(2))},
			stands: map[string]standing{"a": standsBelow, "b": standsIncumbent},
		},
	}
}

// rule5: memory, and the start without one.
func rule5() []deciding {
	return []deciding{
		{
			name: "with memory the old primary alone is quarantined", line: lineOf(2, "b"), why: "quarantined: writable on timeline 1, the cluster is on 2",
			nodes:  []*facts{node("a", writes(1)), node("b"), node("c")},
			stands: map[string]standing{"a": standsBelow},
			after:  time.Hour,
		},
		{
			name: "with memory the incumbent needs no majority", line: lineOf(2, "b"), primary: "b",
			nodes: []*facts{node("b", writes(2, "1@100")), node("a", dead, func(f *facts) { f.contact = asked })},
		},
		{
			name: "with memory a successor that was a standby then", line: lineOf(1, "a"), primary: "b", accept: 2,
			nodes: []*facts{node("a"), node("b", member(1, 100), writes(2, "1@100")), node("c", follows(2))},
		},
		{
			name: "without memory a majority accepts", primary: "a", accept: 1,
			nodes: []*facts{node("a", writes(1)), node("b", follows(1)), node("c")},
		},
		{
			name: "without memory two of two accept", primary: "a", accept: 1,
			nodes: []*facts{node("a", writes(1)), node("b", follows(1))},
		},
		{
			name: "without memory one of one accepts", primary: "a", accept: 4,
			nodes: []*facts{node("a", writes(4, "3@50"))},
		},
		{
			name: "without memory one of two waits for the grace", why: "fewer than half of the nodes have answered",
			nodes: []*facts{node("a", writes(1)), node("b")},
		},
		{
			name: "without memory one of two after the grace", primary: "a", accept: 1, unconfirmed: true, after: 5 * time.Second,
			nodes: []*facts{node("a", writes(1)), node("b")},
		},
		{
			name: "without memory one of three after the grace, the others' hosts silent", accept: 1, unconfirmed: true, after: 6 * time.Second, why: "primary.require: peers",
			nodes: []*facts{node("a", writes(1)), node("b"), node("c")},
		},
		{
			name: "without memory a standby knows a higher timeline", why: "b knows timeline 2", after: time.Hour,
			nodes: []*facts{node("a", writes(1)), node("b", follows(2)), node("c", follows(1))},
		},
		{
			name: "without memory the promoted and the old one, a majority streams from the new", primary: "b", accept: 2,
			nodes:  []*facts{node("a", writes(1)), node("b", writes(2, "1@100")), node("c", follows(2))},
			stands: map[string]standing{"a": standsUnproven},
		},
		{
			name: "without memory the promoted and the old one, nobody streams yet", why: "several nodes are writable",
			nodes: []*facts{node("a", writes(1)), node("b", writes(2, "1@100")), node("c", idleStandby(1))},
		},
		{
			name: "without memory the promoted and the old one, after the grace", primary: "b", accept: 2, unconfirmed: true, after: 5 * time.Second,
			nodes: []*facts{node("a", writes(1)), node("b", writes(2, "1@100")), node("c", idleStandby(1))},
		},
		{
			name: "without memory the primary with its standbys and a clone", primary: "a", accept: 1, after: 5 * time.Second,
			nodes:  []*facts{node("a", writes(1)), node("x", writes(2, "1@100")), node("b", follows(1)), node("c", follows(1))},
			stands: map[string]standing{"x": standsUnproven},
		},
		{
			name: "without memory two on the same timeline", split: true, why: "split brain", after: 5 * time.Second,
			nodes: []*facts{node("a", writes(1)), node("b", writes(1)), node("c", idleStandby(1))},
		},
		{
			name: "without memory two on the same timeline, a majority connected to one", primary: "a", accept: 1,
			nodes: []*facts{node("a", writes(1)), node("b", writes(1)), node("c", follows(1), sends("a"))},
		},
		{
			name: "without memory two unrelated timelines", split: true, why: "split brain", after: 5 * time.Second,
			nodes: []*facts{node("a", writes(2, "1@50")), node("b", writes(3, "1@100")), node("c", idleStandby(1))},
		},
		{
			name: "without memory nodes of different clusters", why: "different clusters, by their system identifiers: a 7000, b 9", after: time.Hour,
			nodes: []*facts{node("a", writes(1)), node("b", writes(1), system(9))},
		},
		{
			name: "without memory one node of another cluster", primary: "a", accept: 1,
			nodes:  []*facts{node("a", writes(1)), node("b", follows(1)), node("x", writes(1), system(9))},
			stands: map[string]standing{"x": standsForeign},
		},
		{
			name: "without memory only standbys", why: "standby", after: time.Hour,
			nodes: []*facts{node("a", follows(1)), node("b", follows(1))},
		},
		{
			name: "everything down at the start", why: "a down", after: time.Hour,
			nodes: []*facts{node("a", dead), node("b", dead)},
		},
		{
			name: "unconfirmed until a majority has answered", line: lineOf(1, "a"), primary: "a", unconfirmed: true,
			nodes: []*facts{node("a", writes(1)), node("b")}, with: func(q *inquiry) { q.pending = true },
		},
		{
			name: "confirmed when a majority has answered", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1))}, with: func(q *inquiry) { q.pending = true },
		},
	}
}

// rules6To8: newer lines, nobody, and a proxy that is cut off.
func rules6To8() []deciding {
	none := func(q *inquiry) { c := *q.cfg; c.PrimaryRequire = "none"; q.cfg = &c }
	peers := func(q *inquiry) { c := *q.cfg; c.PrimaryRequire = "peers"; q.cfg = &c }
	return []deciding{
		{
			name: "a member follows a timeline above the incumbent's", line: lineOf(1, "a"), why: "c follows timeline 2: a newer primary",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1), lost), node("c", member(1, 100), follows(2))},
		},
		{
			name: "a stranger follows a timeline above the incumbent's", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1)), node("x", follows(2))},
		},
		{
			name: "an address of several servers follows a timeline above the incumbent's", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1)), node("c", member(1, 100), follows(2), func(f *facts) { f.several = asked })},
		},
		{
			name: "a quarantined member follows a timeline above the incumbent's", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1)), node("c", member(1, 100), follows(2), func(f *facts) { f.manual = true })},
		},
		{
			name: "no candidate: nobody", line: lineOf(1, "a"), why: "a down 0.1 s (connection refused)",
			nodes: []*facts{node("a", writes(1), dead), node("b", follows(1))},
		},
		{
			name: "cut off with the primary", line: lineOf(1, "a"), why: "primary.require: peers",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1), lost), node("c", follows(1), lost)},
		},
		{
			name: "cut off with the primary, but one standby receives from it", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", follows(1)), node("c", lost), node("d", lost), node("e", lost)},
		},
		{
			name: "cut off with the primary and a standby that does not receive", line: lineOf(1, "a"), why: "primary.require: peers",
			nodes: []*facts{node("a", writes(1)), node("b", idleStandby(1)), node("c", lost), node("d", lost)},
		},
		{
			name: "the standbys' hosts refuse, which is enough", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", dead), node("c", lost)},
		},
		{
			name: "cut off, primary.require none", line: lineOf(1, "a"), primary: "a", with: none,
			nodes: []*facts{node("a", writes(1)), node("b", lost), node("c", lost)},
		},
		{
			name: "two nodes, one lost, the default", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1)), node("b", lost)},
		},
		{
			name: "two nodes, one lost, primary.require peers", line: lineOf(1, "a"), with: peers, why: "primary.require: peers",
			nodes: []*facts{node("a", writes(1)), node("b", lost)},
		},
		{
			name: "new connections time out", line: lineOf(1, "a"), why: "new connections time out",
			nodes: []*facts{node("a", writes(1), func(f *facts) { f.noFresh = 3 }), node("b", follows(1))},
		},
	}
}

// orders: what people said.
func orders() []deciding {
	quarantine := func(f *facts) { f.manual = true }
	drain := func(f *facts) { f.drained = true }
	return []deciding{
		{
			name: "a quarantined primary is not written to", line: lineOf(1, "a"), why: "quarantined by QUARANTINE",
			nodes:  []*facts{node("a", writes(1), quarantine), node("b", follows(1)), node("c", follows(1))},
			stands: map[string]standing{"a": standsQuarantine},
		},
		{
			name: "a drained primary is written to", line: lineOf(1, "a"), primary: "a",
			nodes: []*facts{node("a", writes(1), drain), node("b", follows(1))},
		},
		{
			name: "ACCEPT of an unproven node", line: lineOf(1, "a"), primary: "x", accept: 2,
			nodes: []*facts{node("x", writes(2, "1@90")), node("a", writes(1), func(f *facts) { f.outvoted = true }), node("c", follows(1))},
			with:  func(q *inquiry) { q.ordain = idOf(q, "x") },
		},
		{
			name: "ACCEPT of a node that does not answer waits", line: lineOf(1, "a"), why: "no answer",
			nodes: []*facts{node("x", writes(2, "1@90"), silent), node("a", writes(1), func(f *facts) { f.outvoted = true })},
			with:  func(q *inquiry) { q.ordain = idOf(q, "x") },
		},
		{
			name: "an outvoted rival is no split brain", line: lineOf(1, "a"), primary: "a",
			nodes:  []*facts{node("a", writes(1)), node("b", member(1, 100), writes(1), func(f *facts) { f.outvoted = true }), node("c", follows(1))},
			stands: map[string]standing{"b": standsQuarantine},
		},
	}
}

// idOf is the ID of the named node.
func idOf(q *inquiry, name string) int {
	for _, f := range q.nodes {
		if f.cfg.name() == name {
			return f.id
		}
	}
	panic("BUG: no node " + name)
}
