package health

import (
	"fmt"
	"slices"
)

// book is everything the monitor knows of its cluster. Whoever touches it holds the monitor's
// lock; nothing in it waits or calls out.
type book struct {
	cfg    *Config
	nodes  []*facts
	absent map[string]memoryOfNode // remembered nodes that are not in nodes, by address
	lastID int
	line   line
	epoch  uint64
	since  int64 // Clock when the looking began

	pending  bool // see inquiry.pending
	split    bool
	primary  int // ID of the node that may be written to, 0 for none
	ordained int // ID of the node that a person accepted and that is not yet the line's, 0 for none
	stands   map[int]standing
	downs    map[int]bool
	several  map[int]bool

	wake  bool // a node is trusted again: waiters must look even if the snapshot is the same
	dirty bool // the memory on disk is older than the book
}

// newBook makes an empty book; nodes come by set.
func newBook(cfg *Config, now int64) *book {
	return &book{
		cfg: cfg, since: now, absent: map[string]memoryOfNode{},
		stands: map[int]standing{}, downs: map[int]bool{}, several: map[int]bool{},
	}
}

// find is the node with that ID, nil if there is none.
func (b *book) find(id int) *facts {
	for _, f := range b.nodes {
		if f.id == id {
			return f
		}
	}
	return nil
}

// named is the node with that name, nil if there is none.
func (b *book) named(name string) *facts {
	for _, f := range b.nodes {
		if f.cfg.name() == name {
			return f
		}
	}
	return nil
}

// set makes nodes the wanted ones: known addresses keep what is known of them, new ones join,
// missing ones drain until they are forgotten. It returns the new ones.
func (b *book) set(nodes []NodeConfig, now int64) (added []*facts, events []Event) {
	wanted := make(map[string]bool, len(nodes))
	ordered := make([]*facts, 0, len(nodes))
	for _, n := range nodes {
		slices.Sort(n.Tags)
		wanted[n.addr()] = true
		i := slices.IndexFunc(b.nodes, func(f *facts) bool { return f.cfg.addr() == n.addr() })
		if i >= 0 {
			f := b.nodes[i]
			f.cfg, f.gone = n, 0
			ordered = append(ordered, f)
			continue
		}
		f := b.join(n)
		added = append(added, f)
		ordered = append(ordered, f)
		events = append(events, Event{Kind: EventNodeAdded, Node: n.name(), Text: n.addr()})
	}
	for _, f := range b.nodes {
		if wanted[f.cfg.addr()] {
			continue
		}
		if f.gone == 0 {
			f.gone = now
			events = append(events, Event{Kind: EventNodeLeft, Node: f.cfg.name(), Text: fmt.Sprintf(
				"left the configuration; it drains, and counts for the majority for %s", b.cfg.DiscoveryForget)})
		}
		ordered = append(ordered, f)
	}
	b.nodes = ordered
	b.findPrimary()
	return added, events
}

// join makes the facts of a new node, with what the memory has of its address.
func (b *book) join(n NodeConfig) *facts {
	b.lastID++
	f := &facts{id: b.lastID, cfg: n, live: new(Live)}
	if old, ok := b.absent[n.addr()]; ok {
		// recall was tried on every entry when the memory was read.
		if err := f.recall(old); err == nil {
			delete(b.absent, n.addr())
		}
	}
	return f
}

// findPrimary looks for the line's node among the nodes.
func (b *book) findPrimary() {
	b.line.primary = 0
	for _, f := range b.nodes {
		if f.cfg.addr() == b.line.Node {
			b.line.primary = f.id
		}
	}
}

// forget removes a node; what the memory has of it stays.
func (b *book) forget(f *facts) {
	b.absent[f.cfg.addr()] = f.remember()
	b.nodes = slices.DeleteFunc(b.nodes, func(o *facts) bool { return o == f })
	delete(b.stands, f.id)
	delete(b.downs, f.id)
	delete(b.several, f.id)
	b.findPrimary()
}

// expire forgets the nodes that left long enough ago and returns them.
func (b *book) expire(now int64) []*facts {
	var old []*facts
	for _, f := range b.nodes {
		if f.gone != 0 && now-f.gone > int64(b.cfg.DiscoveryForget) {
			old = append(old, f)
		}
	}
	for _, f := range old {
		b.forget(f)
	}
	return old
}

// answered takes an answered probe of node id.
func (b *book) answered(id int, o *observation, now int64) []Event {
	f := b.find(id)
	if f == nil {
		return nil
	}
	var events []Event
	if lacks := o.can.lacking(); lacks != "" && (f.obs == nil || f.obs.can != o.can) {
		events = append(events, Event{Kind: EventCapability, Node: f.cfg.name(), Text: "cannot be asked for " + lacks})
	}
	before := f.trusted(now, b.cfg.TrustWindow)
	f.answered(o, b.cfg.Rise, now)
	received := f.received
	f.follow(b.line.System, b.line.Timeline)
	b.dirty = b.dirty || f.received != received
	b.advanceFlush(f, o.flush, o.timeline)
	b.show(f, before, now)
	return append(events, b.learnFork(f, o)...)
}

// learnFork completes a line that was accepted before its history was read.
func (b *book) learnFork(f *facts, o *observation) []Event {
	if f.id != b.line.primary || b.line.Fork != 0 || !o.writable() || o.timeline != b.line.Timeline || len(o.history) == 0 {
		return nil
	}
	last := o.history[len(o.history)-1]
	b.line.Fork, b.dirty = last.end, true
	text := fmt.Sprintf("timeline %d left timeline %d at %s", o.timeline, last.timeline, last.end)
	if lost := lossBehind(b.nodes, f, last); lost != "" {
		text += "; " + lost
	}
	return []Event{{Kind: EventFork, Node: f.cfg.name(), Text: text}}
}

// sampled takes a sample of node id as evidence: it agrees with the newest probe, or it voids that
// evidence until a probe has looked. It reports whether it agreed.
func (b *book) sampled(id int, s sample, now int64) bool {
	f := b.find(id)
	if f == nil || f.obs == nil {
		return false
	}
	if f.obs.recovery != s.recovery {
		f.evidence = 0
		f.live.evidence.Store(0)
		return false
	}
	before := f.trusted(now, b.cfg.TrustWindow)
	f.evidence = max(f.evidence, s.sent)
	f.contact = max(f.contact, s.sent)
	b.advanceFlush(f, s.flush, s.timeline)
	b.show(f, before, now)
	return true
}

// advanceFlush remembers how far the line's primary was seen to have flushed.
func (b *book) advanceFlush(f *facts, flush lsn, timeline uint32) {
	if f.id == b.line.primary && timeline == b.line.Timeline && flush > b.line.Flushed {
		b.line.Flushed = flush
		b.dirty = true
	}
}

// show makes f's evidence count for traffic, unless the newest answer and what traffic was told
// of the node differ; then that waits for the next snapshot.
func (b *book) show(f *facts, trusted bool, now int64) {
	if f.evidence == 0 || f.shown != RoleUnknown && (f.shown == RoleStandby) != f.obs.recovery {
		f.live.evidence.Store(0)
		return
	}
	f.live.evidence.Store(f.evidence)
	if !trusted && f.trusted(now, b.cfg.TrustWindow) {
		b.wake = true
	}
}

// failed takes a missed probe of node id.
func (b *book) failed(id int, miss failure, now int64) {
	if f := b.find(id); f != nil {
		f.failed(miss, b.cfg.Fall, now)
		if f.evidence == 0 {
			f.live.evidence.Store(0)
		}
	}
}

// inquiry is what a decision at now rests on.
func (b *book) inquiry(now int64) inquiry {
	return inquiry{cfg: b.cfg, nodes: b.nodes, line: b.line, since: b.since, now: now, pending: b.pending, ordain: b.ordained}
}

// commit takes a verdict whose new line, if it has one, is written to the memory; it returns what
// happened.
func (b *book) commit(v verdict, now int64) []Event {
	var events []Event
	if v.accept != nil {
		events = append(events, b.accept(v))
	}
	for _, f := range b.nodes {
		s := v.stands[f.id]
		b.noteRival(f, now)
		if old := b.stands[f.id]; old != s.standing {
			b.stands[f.id] = s.standing
			if e, ok := standingEvent(f, s); ok {
				events = append(events, e)
			}
		}
		events = append(events, b.nodeEvents(f, now)...)
	}
	if v.split != b.split {
		b.split = v.split
		kind, text := EventSplitBrainOver, "writes may go on"
		if v.split {
			kind, text = EventSplitBrain, v.why
		}
		events = append(events, Event{Kind: kind, Text: text})
	}
	if v.unconfirmed != b.pending && v.primary != nil {
		b.pending, b.dirty = v.unconfirmed, true
		kind, text := EventConfirmed, "a majority of the nodes has answered, and none knows a newer timeline"
		if v.unconfirmed {
			kind, text = EventUnconfirmed, "accepted without memory and without a majority of the nodes"
		}
		events = append(events, Event{Kind: kind, Node: v.primary.cfg.name(), Text: text})
	}
	return append(events, b.writable(v)...)
}

// writable notes who may be written to now.
func (b *book) writable(v verdict) []Event {
	id := 0
	if v.primary != nil {
		id = v.primary.id
	}
	old := b.primary
	b.primary = id
	switch {
	case old == id || v.accept != nil:
		return nil
	case id == 0:
		return []Event{{Kind: EventPrimaryLost, Text: "writes are held: " + v.why}}
	case b.epoch > 0:
		return []Event{{Kind: EventPrimaryBack, Node: v.primary.cfg.name(), Text: "takes writes"}}
	}
	return nil
}

// accept begins a new line.
func (b *book) accept(v verdict) Event {
	old := b.line
	b.line = *v.accept
	b.epoch++
	b.ordained = 0
	f := b.find(v.accept.primary)
	text := fmt.Sprintf("timeline %d", b.line.Timeline)
	name := b.line.Node
	if f != nil {
		f.member = true
		name = f.cfg.name()
	}
	if old.known() && old.Timeline != b.line.Timeline && b.line.Fork != 0 {
		text = fmt.Sprintf("timeline %d, which left timeline %d at %s", b.line.Timeline, old.Timeline, b.line.Fork)
	}
	if v.loss != "" {
		text += "; " + v.loss
	}
	return Event{Kind: EventPrimaryChanged, Node: name, Text: text}
}

// noteRival remembers a node that was writable on the line's own timeline while its primary still
// answered: that it is left alone later does not make it the same data.
func (b *book) noteRival(f *facts, now int64) {
	p := b.find(b.line.primary)
	if p == nil || p == f || f.rival || !f.obs.writable() || !p.obs.writable() || f.down || p.down || now < f.writable {
		return
	}
	same := f.obs.timeline == b.line.Timeline && p.obs.timeline == b.line.Timeline && f.obs.system == b.line.System
	if same && f.writable != 0 && p.evidence > f.writable && f.evidence > 0 {
		f.rival, b.dirty = true, true
	}
}

// standingEvent is what to tell when a node's standing became s.
func standingEvent(f *facts, s standsAs) (Event, bool) {
	e := Event{Node: f.cfg.name(), Text: s.why}
	switch s.standing {
	case standsBelow, standsQuarantine:
		e.Kind = EventQuarantined
	case standsUnproven, standsFork:
		e.Kind = EventUnproven
	case standsForeign:
		e.Kind = EventForeign
	default:
		return e, false
	}
	return e, s.why != ""
}

// nodeEvents tells what became of a node's probes.
func (b *book) nodeEvents(f *facts, now int64) []Event {
	var events []Event
	if f.down != b.downs[f.id] {
		b.downs[f.id] = f.down
		e := Event{Kind: EventNodeUp, Node: f.cfg.name(), Text: "answers again"}
		if f.down {
			e = Event{Kind: EventNodeDown, Node: f.cfg.name(), Text: f.last.text}
		}
		events = append(events, e)
	}
	if several := f.refused(now); several != b.several[f.id] {
		b.several[f.id] = several
		if several {
			events = append(events, Event{Kind: EventSeveral, Node: f.cfg.name(), Text: f.severalT})
		}
	}
	return events
}

// snapshot is what traffic may know, by the verdict v, which was committed.
func (b *book) snapshot(v verdict, now int64, fence *Fence) *Snapshot {
	s := &Snapshot{
		Cluster: b.cfg.Cluster, Epoch: b.epoch, Why: v.why, SplitBrain: v.split, Unconfirmed: b.pending,
		System: b.line.System, Timeline: b.line.Timeline, Positions: true,
	}
	for _, f := range b.nodes {
		n := b.node(f, v, now, fence)
		s.Nodes = append(s.Nodes, n)
		if v.primary == f {
			s.Primary, s.Why = n, ""
		}
		if f.id == b.line.primary && f.obs != nil && f.obs.can&canPositions == 0 {
			s.Positions = false
		}
	}
	return s
}

// settle is called when s has become what traffic sees: evidence counts for the roles in it.
func (b *book) settle(s *Snapshot) {
	b.wake = false
	for _, f := range b.nodes {
		if n := s.Node(f.id); n != nil {
			f.shown = n.Role
			f.live.evidence.Store(f.evidence)
		}
	}
}

// node is f as a snapshot shows it.
func (b *book) node(f *facts, v verdict, now int64, fence *Fence) *Node {
	n := &Node{
		ID: f.id, Name: f.cfg.name(), Addr: f.cfg.addr(), Host: f.cfg.Host, Zone: f.cfg.Zone, Tags: f.cfg.Tags,
		Weight: f.cfg.Weight, NoReads: f.cfg.NoReads, State: f.health(now, b.cfg), LagBytes: -1,
		TrustWindow: b.cfg.TrustWindow, Live: f.live,
	}
	if f.cfg.ServerName != "" {
		n.Host = f.cfg.ServerName
	}
	n.Detail = f.words(n.State, now)
	if f.obs == nil {
		return n
	}
	n.Version, n.Timeline, n.Settings = f.obs.version, f.obs.timeline, f.obs.settings
	s := v.stands[f.id]
	switch {
	case f.obs.recovery:
		n.Role = RoleStandby
		b.lag(n, f, now, fence)
	case f == v.primary, f.id == b.line.primary && f.obs.timeline == b.line.Timeline && !f.manual && !f.outvoted:
		n.Role, n.LagBytes = RolePrimary, 0
		if f.obs.readOnly && n.Detail == "" {
			n.Detail = "default_transaction_read_only is on"
		}
	default:
		n.Role = RoleOther
		if n.State != StateDown {
			n.Detail = s.why
		}
	}
	return n
}

// lag judges how far behind a standby is; what cannot be measured counts as lagging.
func (b *book) lag(n *Node, f *facts, now int64, fence *Fence) {
	rep := fence.lag(f.id, now)
	if rep.bytes < 0 {
		rep = b.lagWithoutPrimary(f)
	}
	n.LagBytes, n.LagTime = rep.bytes, rep.time
	if n.State != StateUp {
		return
	}
	foreign := b.line.System != 0 && f.obs.system != b.line.System
	switch {
	case foreign:
		n.Detail = fmt.Sprintf("has system identifier %d, the cluster %d", f.obs.system, b.line.System)
	case !b.line.known():
		n.Detail = "no primary is known yet"
	case f.obs.timeline != b.line.Timeline:
		n.Detail = fmt.Sprintf("follows timeline %d, the cluster is on %d", f.obs.timeline, b.line.Timeline)
	case f.obs.can&canPositions == 0:
		return
	case rep.bytes < 0:
		n.Detail = "lag is not known"
	case rep.bytes > b.cfg.MaxLagBytes:
		n.Detail = fmt.Sprintf("%d bytes behind", rep.bytes)
	case rep.time > b.cfg.MaxLagTime:
		n.Detail = fmt.Sprintf("%s behind", ago(int64(rep.time)))
	default:
		return
	}
	if f.obs.paused {
		n.Detail += ", replay is paused"
	}
	n.State = StateLagging
}

// lagWithoutPrimary measures against the furthest position that any standby of the line received,
// for as long as no sample of a primary is there.
func (b *book) lagWithoutPrimary(f *facts) lagReport {
	rep := lagReport{bytes: -1, fresh: -1}
	if f.obs.replayed == 0 || f.obs.timeline != b.line.Timeline {
		return rep
	}
	far := b.line.Flushed
	for _, o := range b.nodes {
		if o.received.Timeline == b.line.Timeline {
			far = max(far, o.received.Position)
		}
	}
	rep.bytes = max(0, int64(far)-int64(f.obs.replayed))
	return rep
}
