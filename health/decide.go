package health

import (
	"fmt"
	"slices"
	"strings"
)

// inquiry is everything a decision rests on. decide changes nothing of it.
type inquiry struct {
	cfg     *Config
	nodes   []*facts // configured order, those that left at the end
	line    line     // not known before the first primary was accepted
	since   int64    // Clock when the looking began, for startup.grace
	now     int64
	pending bool // the line was accepted without a majority's word and has not got it since
	ordain  int  // ID of the node that a person accepted, 0 for none
}

// verdict is what follows from an inquiry.
type verdict struct {
	primary     *facts // who may be written to now, nil for nobody
	why         string // why nobody
	accept      *line  // a new line to remember before primary is written to; nil to keep the old
	loss        string // with accept: what other nodes had received and the new line lacks, in words
	split       bool
	unconfirmed bool
	stands      map[int]standsAs // of every node
}

// decide answers "which node is the primary" by the rules of failover.md. Equal inquiries have
// equal verdicts; the order in which evidence arrived plays no part.
func decide(q inquiry) verdict {
	v := verdict{stands: make(map[int]standsAs, len(q.nodes))}
	switch f := q.find(q.ordain); {
	case f != nil && q.candidate(f):
		v.stands[f.id] = standsAs{standing: standsIncumbent}
		q.adopt(&v, f)
	case !q.line.known():
		q.begin(&v)
	default:
		q.goOn(&v)
	}
	q.limit(&v)
	return v
}

// candidate says whether f is writable on fresh evidence (rule 1).
func (q *inquiry) candidate(f *facts) bool {
	return q.lingers(f) && f.trusted(q.now, q.cfg.TrustWindow)
}

// lingers says whether f was writable when it last answered and is not known to be gone: it may be
// writable still.
func (q *inquiry) lingers(f *facts) bool {
	return f.obs.writable() && !f.down && !f.manual && !f.outvoted && !f.refused(q.now)
}

// answers says whether f's newest answer still says something about the cluster.
func (q *inquiry) answers(f *facts) bool {
	return f.obs != nil && !f.down && !f.manual && !f.refused(q.now)
}

// goOn decides while there is a line (rules 2 to 5).
func (q *inquiry) goOn(v *verdict) {
	incumbent := q.find(q.line.primary)
	busy := incumbent != nil && q.lingers(incumbent) && incumbent.obs.timeline == q.line.Timeline
	var good, forks []*facts
	for _, f := range q.nodes {
		if f.down || f.refused(q.now) {
			continue
		}
		s := judge(f, q.line, q.streamed(f), busy)
		v.stands[f.id] = s
		switch s.standing {
		case standsIncumbent, standsDescends:
			if q.lingers(f) {
				good = append(good, f)
			}
		case standsFork:
			if q.lingers(f) {
				forks = append(forks, f)
			}
		}
	}
	if len(forks) > 0 && len(forks)+len(good) >= 2 {
		q.splitBrain(v, append(good, forks...))
		return
	}
	best := highest(good)
	for _, f := range good {
		same := f != best && f.obs.timeline == best.obs.timeline
		if same || f != best && f.obs.timeline > q.line.Timeline && !descendsFrom(best, f) {
			q.splitBrain(v, good)
			return
		}
	}
	if best == nil || !q.candidate(best) {
		// An incumbent that only fell silent is waited for; so is a successor that did.
		best = nil
		v.why = q.nobody(v)
	}
	if best != nil && v.stands[best.id].standing == standsDescends {
		q.adopt(v, best)
		return
	}
	v.primary = best
	v.unconfirmed = q.pending && !q.confirmed(q.line)
}

// descendsFrom says whether f's history holds the timeline of g: then g's is over.
func descendsFrom(f, g *facts) bool {
	if f.obs.timeline == g.obs.timeline {
		return false
	}
	if !f.obs.forks {
		return f.obs.previous == g.obs.timeline
	}
	_, ok := f.obs.forkOf(g.obs.timeline)
	return ok
}

// highest is the node on the highest timeline, nil for none; of several the first, which matters
// only where the caller then finds that they rule each other out.
func highest(nodes []*facts) *facts {
	var best *facts
	for _, f := range nodes {
		if best == nil || f.obs.timeline > best.obs.timeline {
			best = f
		}
	}
	return best
}

// splitBrain forbids writes because of several members (rule 4).
func (q *inquiry) splitBrain(v *verdict, nodes []*facts) {
	v.split = true
	var parts []string
	for _, f := range nodes {
		parts = append(parts, fmt.Sprintf("%s on timeline %d", f.cfg.name(), f.obs.timeline))
	}
	slices.Sort(parts)
	v.why = "split brain: " + strings.Join(parts, " and ") + " are both writable and neither follows from the other; ACCEPT decides"
}

// adopt makes f the primary of a new line (rule 3), to be remembered before it is written to.
func (q *inquiry) adopt(v *verdict, f *facts) {
	left := v.stands[f.id].fork
	v.primary = f
	v.accept = &line{
		System: f.obs.system, Timeline: f.obs.timeline, Fork: left,
		Node: f.cfg.addr(), Flushed: f.obs.flush, primary: f.id,
	}
	if q.line.System != 0 && f.obs.system == 0 {
		v.accept.System = q.line.System
	}
	if left != 0 && f.obs.timeline != q.line.Timeline {
		v.loss = lossBehind(q.nodes, f, fork{q.line.Timeline, left})
	}
}

// lossBehind says in words what nodes other than f had received of a timeline beyond its end.
func lossBehind(nodes []*facts, f *facts, at fork) string {
	var furthest lsn
	var who string
	for _, o := range nodes {
		if o != f && o.received.Timeline == at.timeline && o.received.Position > furthest {
			furthest, who = o.received.Position, o.cfg.name()
		}
	}
	if furthest <= at.end {
		return ""
	}
	return fmt.Sprintf("%d bytes of timeline %d that %s had received are not in it", furthest-at.end, at.timeline, who)
}

// begin decides while there is no line (rule 5, second half).
func (q *inquiry) begin(v *verdict) {
	system, why := q.system()
	var cands []*facts
	top, topName := uint32(0), ""
	for _, f := range q.nodes {
		if !q.answers(f) {
			continue
		}
		if f.obs.system != system {
			v.stands[f.id] = standsAs{standing: standsForeign, why: fmt.Sprintf("has system identifier %d, others %d", f.obs.system, system)}
			continue
		}
		if f.obs.timeline > top {
			top, topName = f.obs.timeline, f.cfg.name()
		}
		if f.obs.writable() {
			v.stands[f.id] = standsAs{why: "not accepted yet: looking for more nodes"}
			cands = append(cands, f)
		}
	}
	grace := q.now-q.since >= int64(q.cfg.StartupGrace)
	switch {
	case why != "":
		v.why = why
		return
	case len(cands) == 0:
		v.why = q.nobody(v)
		return
	case len(cands) > 1:
		q.beginAmong(v, cands, grace)
		return
	}
	f := cands[0]
	if top > f.obs.timeline {
		v.why = fmt.Sprintf("%s is on timeline %d, but %s knows timeline %d: a newer primary exists; ACCEPT accepts the older one",
			f.cfg.name(), f.obs.timeline, topName, top)
		v.stands[f.id] = standsAs{standing: standsUnproven, why: v.why}
		return
	}
	q.beginWith(v, f, grace)
}

// beginWith accepts the only candidate when a majority has answered, or the grace is over.
func (q *inquiry) beginWith(v *verdict, f *facts, grace bool) {
	l := line{System: f.obs.system, Timeline: f.obs.timeline, primary: f.id}
	confirmed := q.confirmed(l)
	if !q.candidate(f) || !confirmed && !grace {
		v.why = fmt.Sprintf("%s is writable, but fewer than half of the nodes have answered; waiting up to %s for more", f.cfg.name(), q.cfg.StartupGrace)
		return
	}
	v.stands[f.id] = standsAs{standing: standsIncumbent}
	if n := len(f.obs.history); n > 0 {
		v.stands[f.id] = standsAs{standing: standsIncumbent, fork: f.obs.history[n-1].end}
	}
	q.adopt(v, f)
	v.loss = ""
	v.unconfirmed = !confirmed
}

// beginAmong decides between several writable nodes without memory. A majority that streams from
// the highest settles it at once. After the grace a majority for any does, and failing that the
// highest if the others' timelines are over in its history.
func (q *inquiry) beginAmong(v *verdict, cands []*facts, grace bool) {
	best := highest(cands)
	for _, f := range cands {
		if f.obs.timeline == best.obs.timeline && q.streamed(f) {
			best = f
		}
	}
	if !q.streamed(best) {
		if !grace {
			v.why = "several nodes are writable: " + q.names(cands) + "; looking for which of them the others follow"
			return
		}
		i := slices.IndexFunc(cands, q.streamed)
		if i >= 0 {
			best = cands[i]
		} else if slices.ContainsFunc(cands, func(f *facts) bool { return f != best && !descendsFrom(best, f) }) {
			q.splitBrain(v, cands)
			return
		}
	}
	for _, f := range cands {
		if f != best {
			v.stands[f.id] = standsAs{standing: standsUnproven, why: "unproven: writable beside " + best.cfg.name()}
		}
	}
	q.beginWith(v, best, true)
	v.unconfirmed = v.primary != nil && !q.streamed(best)
}

// system is the identifier that the answering nodes agree on; if they do not, that of a majority
// of the configured ones, or a complaint.
func (q *inquiry) system() (uint64, string) {
	count := map[uint64]int{}
	for _, f := range q.nodes {
		if q.answers(f) {
			count[f.obs.system]++
		}
	}
	var parts []string
	for id, n := range count {
		if len(count) == 1 || 2*n > len(q.nodes) {
			return id, ""
		}
		for _, f := range q.nodes {
			if q.answers(f) && f.obs.system == id {
				parts = append(parts, fmt.Sprintf("%s %d", f.cfg.name(), id))
			}
		}
	}
	if len(count) == 0 {
		return 0, ""
	}
	slices.Sort(parts)
	return 0, "the nodes belong to different clusters, by their system identifiers: " + strings.Join(parts, ", ")
}

// confirmed says whether a majority of the nodes has answered and none knows a higher timeline
// than l's (rule 5).
func (q *inquiry) confirmed(l line) bool {
	n := 0
	for _, f := range q.nodes {
		if !q.answers(f) || f.obs.system != l.System {
			continue
		}
		if f.obs.timeline > l.Timeline {
			return false
		}
		n++
	}
	return 2*n > len(q.nodes)
}

// streamed says whether a majority of the configured nodes, f itself included, has what f writes:
// their receivers are on f's timeline, and where another writable node is on it too, connected to f.
func (q *inquiry) streamed(f *facts) bool {
	if !f.obs.writable() {
		return false
	}
	alone := true
	for _, o := range q.nodes {
		if o != f && q.lingers(o) && o.obs.timeline == f.obs.timeline {
			alone = false
		}
	}
	n := 1
	for _, o := range q.nodes {
		if o == f || !q.answers(o) || !o.obs.recovery || !o.obs.receiving || o.obs.system != f.obs.system {
			continue
		}
		if o.obs.follows == f.obs.timeline && (alone || connectedTo(o.obs, f)) {
			n++
		}
	}
	return 2*n > len(q.nodes)
}

// connectedTo says whether a standby's receiver names f's address or the one that f sees itself at.
func connectedTo(o *observation, f *facts) bool {
	return o.senderAt == f.cfg.Port && (o.sender == f.cfg.Host || o.sender == f.obs.server || o.sender == f.cfg.ServerName)
}

// limit takes the primary away where rules beyond the choice forbid writes: a newer line that
// somebody follows (rules 5 and 6), and a proxy that may be cut off (rule 8).
func (q *inquiry) limit(v *verdict) {
	if v.primary == nil {
		return
	}
	l := q.line
	if v.accept != nil {
		l = *v.accept
	}
	for _, f := range q.nodes {
		if f != v.primary && q.answers(f) && f.member && f.obs.recovery && f.obs.timeline > l.Timeline && f.obs.system == l.System {
			v.primary, v.accept = nil, nil
			v.why = fmt.Sprintf("%s follows timeline %d: a newer primary than that of timeline %d exists, and it does not answer here; QUARANTINE %s leaves that node out",
				f.cfg.name(), f.obs.timeline, l.Timeline, f.cfg.name())
			return
		}
	}
	if state := v.primary.health(q.now, q.cfg); state != StateUp && state != StateDraining {
		v.why = v.primary.cfg.name() + " " + v.primary.words(state, q.now)
		v.primary = nil
		return
	}
	if q.cfg.requirePeers(len(q.nodes)) && !q.connected(l) {
		v.primary = nil
		v.why = "this proxy sees neither a majority of the nodes nor a standby that receives from the primary: it may be cut off (primary.require: peers)"
	}
}

// connected is rule 8: a majority of the hosts answers, be it by refusing, or a standby receives
// from the line.
func (q *inquiry) connected(l line) bool {
	window := int64(q.cfg.Fall) * int64(max(q.cfg.ProbeTimeout, q.cfg.ProbeInterval))
	seen := 0
	for _, f := range q.nodes {
		if f.contact != 0 && q.now-f.contact <= window {
			seen++
		}
		if q.answers(f) && f.trusted(q.now, q.cfg.TrustWindow) && f.obs.recovery && f.obs.receiving && f.obs.follows == l.Timeline {
			return true
		}
	}
	return 2*seen > len(q.nodes)
}

// nobody says in words why there is no primary: each node and what it is.
func (q *inquiry) nobody(v *verdict) string {
	var parts []string
	for _, f := range q.nodes {
		state := f.health(q.now, q.cfg)
		word := f.words(state, q.now)
		if s := v.stands[f.id]; s.why != "" && (state == StateUp || state == StateDraining) {
			word = s.why
		}
		if word == "" {
			word = "standby"
		}
		parts = append(parts, f.cfg.name()+" "+word)
	}
	return strings.Join(parts, ", ")
}

// names lists nodes for people.
func (q *inquiry) names(nodes []*facts) string {
	var names []string
	for _, f := range nodes {
		names = append(names, f.cfg.name())
	}
	return strings.Join(names, ", ")
}

// find is the node with that ID, nil if there is none.
func (q *inquiry) find(id int) *facts {
	for _, f := range q.nodes {
		if f.id == id {
			return f
		}
	}
	return nil
}
