package proxy

import (
	"errors"
	"slices"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// place finds the lease on which the chunk runs, waiting for a fresh standby or for a primary as
// long as the session's settings allow.
func (s *session) place(c *chunk, try *attempt) (*lease, *problem) {
	if s.batch != nil {
		if l, problem := s.placeInBatch(c); l != nil || problem != nil {
			return l, problem
		}
	}
	if s.txLease != nil {
		if l, problem := s.placeInTx(c, try); l != nil || problem != nil {
			return l, problem
		}
	}
	for {
		d := s.decide(c, try)
		if d.Node == nil {
			if problem := s.wait(c, try, d); problem != nil {
				return nil, problem
			}
			continue
		}
		l, problem := s.leaseFor(c, d, try)
		if problem != nil {
			return nil, problem
		}
		if l == nil {
			continue
		}
		try.decision = d
		s.waitedForFresh(try, d)
		return l, nil
	}
}

// placeInBatch keeps a batch where it began, but for one whose read part a standby has answered
// completely and which turns out to write, or to leave something open: that part is ended, and the
// rest begins on the primary.
func (s *session) placeInBatch(c *chunk) (*lease, *problem) {
	l := s.batch
	moves := c.unit != nil && c.unit.Class == router.ClassPrimary || s.incompletePart(c)
	if l.node.Role != health.RoleStandby || s.txLease != nil || !moves || s.relaying().skipping {
		return l, nil
	}
	s.batch = nil
	r := s.relaying()
	r.reset(s, l)
	r.push(expectation{typ: pgwire.MsgSync, swallow: true})
	err := s.asks(l, pgwire.AppendSync(nil))
	if r.clientErr != nil {
		return nil, clientGone(r.clientErr)
	}
	if err != nil {
		s.lost(l, err)
		s.giveUp(l)
	}
	return nil, nil
}

// placeInTx keeps an open transaction on its lease, as long as that node may still answer. Both results are nil when
// the transaction begins anew.
func (s *session) placeInTx(c *chunk, try *attempt) (*lease, *problem) {
	l := s.txLease
	snap := s.cluster.Monitor.Snapshot()
	if l == s.leases[slotPrimary] && !s.txOnly && snap.Primary != nil && snap.Primary.ID != l.node.ID {
		s.giveUp(l)
		s.txDied()
		return nil, s.problemTxLost(c)
	}
	if s.txOnly && s.st.tx == txOpen && (s.needsPrimary(c) || s.movesOn(c, l, snap, try)) {
		return s.moveTx(c, l)
	}
	s.decision = router.Decision{Node: l.node, Target: targetOf(l.node), Reason: s.txReason()}
	return l, nil
}

// txReason is why a statement of the open transaction runs where it does.
func (s *session) txReason() router.Reason {
	switch {
	case s.txOnly && s.moves.text != "" && !s.declaredReadOnly(s.moves.mode):
		return router.ReasonOptimistic
	case s.txOnly:
		return router.ReasonReadOnlyTx
	}
	return router.ReasonTransaction
}

// targetOf is the kind of a node.
func targetOf(n *health.Node) router.Target {
	if n.Role == health.RoleStandby {
		return router.TargetStandby
	}
	return router.TargetPrimary
}

// txControl says whether a unit only ends or subdivides the transaction, or changes its settings.
func txControl(u *router.Unit) bool {
	for i := range u.Effects {
		switch u.Effects[i].Kind {
		case router.EffectCommit, router.EffectRollback, router.EffectSavepoint, router.EffectRollbackTo, router.EffectRelease:
			return u.Statements == 1
		}
	}
	return u.Class == router.ClassSession
}

// moveTx lets a transaction begin anew that a standby has begun to answer: at READ COMMITTED each statement has
// a snapshot of its own, so nobody sees a difference as long as nothing binds the transaction to its node. One that is
// bound fails as it would by the standby's own word.
func (s *session) moveTx(c *chunk, l *lease) (*lease, *problem) {
	if s.moves.text == "" {
		s.decision = router.Decision{Node: l.node, Target: router.TargetStandby, Reason: router.ReasonReadOnlyTx}
		return nil, problemReadOnlyTx(c.unit)
	}
	if err := s.command(l, "ROLLBACK"); err != nil {
		if s.relaying().clientErr != nil {
			return nil, clientGone(s.relaying().clientErr)
		}
		s.lost(l, err)
		s.giveUp(l)
	} else if s.target.Pooled {
		s.releaseOne(l)
	}
	s.restart()
	s.cluster.metrics.moved.Inc()
	return nil, nil
}

// restart makes the open transaction one whose BEGIN has not been sent, for the statement at hand to take along.
func (s *session) restart() {
	s.st.restart()
	s.deferred, s.moves = s.moves, deferral{}
	s.deferred.at = health.Clock()
	s.txLease, s.txOnly = nil, false
}

// needsPrimary says whether a chunk cannot run in the transaction that a standby answers.
func (s *session) needsPrimary(c *chunk) bool {
	u := c.unit
	if s.moves.text != "" && !s.declaredReadOnly(s.moves.mode) {
		return !s.plainRead(c) && !(u != nil && u.OnlyTx && u.Statements == 1 && endsTx(u) && !u.Effects[0].AndChain && !s.incompletePart(c))
	}
	return u != nil && u.Class == router.ClassPrimary && u.Flags&router.FlagReadInReadOnly == 0 && !txControl(u)
}

// movesOn says whether a read of a transaction that may begin anew would not be sent to its standby if it were the
// first: that misses what must be seen by now, or serves no more reads. Each statement at READ COMMITTED sees what was there
// when it came.
func (s *session) movesOn(c *chunk, l *lease, snap *health.Snapshot, try *attempt) bool {
	if s.moves.text == "" || !c.executes || !s.plainRead(c) {
		return false
	}
	d := router.Route(c.unit, s.view(try), snap, health.Clock())
	switch d.Reason {
	case router.ReasonNotFresh, router.ReasonNoStandby, router.ReasonNoPrimary:
		return true
	}
	return d.Node == nil || d.Target == router.TargetStandby && d.Node.ID != l.node.ID
}

// notPlain are the flags of reads that see or leave something that is the transaction's own, or rest on the catalog
// alone: a function or a view may call now().
const notPlain = router.FlagTxTime | router.FlagCatalog | router.FlagOpaque | router.FlagUnparsed | router.FlagUnknownName |
	router.FlagMulti | router.FlagCopyOut | router.FlagLateRows | router.FlagCurrval | router.FlagNames | router.FlagSerializable

// plainRead says whether a chunk is nothing but a read whose result depends on no more than its own snapshot, and
// which leaves nothing behind in the transaction. One that only closes is none the worse.
func (s *session) plainRead(c *chunk) bool {
	u := c.unit
	if u == nil {
		return c.end == endSync && !slices.ContainsFunc(c.items, func(it item) bool { return it.typ != pgwire.MsgClose })
	}
	return u != nil && u.Class == router.ClassRead && u.Flags&notPlain == 0 && len(u.Effects) == 0 && !s.incompletePart(c) && s.complete(c)
}

// movable says whether a transaction may begin anew on another node: at READ COMMITTED.
func (s *session) movable(m router.TxMode) bool {
	return !m.Snapshot && (m.Isolation == 'r' || m.Isolation == 0 && s.readCommitted)
}

// decide asks the router.
func (s *session) decide(c *chunk, try *attempt) router.Decision {
	snap := s.cluster.Monitor.Snapshot()
	now := try.now
	if try.now = 0; now == 0 {
		now = health.Clock()
	}
	u := c.unit
	if u == nil {
		u = s.srv.incomplete
	}
	if try.primary {
		return s.toPrimary(snap, now, router.ReasonRerun)
	}
	if s.deferred.text != "" {
		if d, ok := s.decideTx(c, snap, now, try); ok {
			return d
		}
	}
	if s.incompletePart(c) {
		return s.toPrimary(snap, now, router.ReasonIncomplete)
	}
	v := s.view(try)
	if u.Class == router.ClassSession {
		if l := s.atHand(); l != nil {
			v.Held = l.node
		}
	}
	d := router.Route(u, v, snap, now)
	if d.Reason == router.ReasonShadow && try.number == 0 {
		v.Mode, v.ListenerMode = router.RouteAuto, router.RouteAuto
		auto := router.Route(u, v, snap, now)
		s.cluster.metrics.shadow.at(auto.Target, auto.Reason).Inc()
	}
	return d
}

// incompletePart says whether the chunk is a part of a batch that must not be on a standby, because
// nobody knows yet what the rest does with what the part leaves open.
func (s *session) incompletePart(c *chunk) bool {
	return c.end == endOpen || c.rest > 0 || c.end == endFlush && !s.complete(c)
}

// complete says whether a flushed part of a batch leaves nothing open, so that the rest may run elsewhere.
func (s *session) complete(c *chunk) bool {
	open := 0
	for i := range c.items {
		switch c.items[i].typ {
		case pgwire.MsgBind:
			open++
		case pgwire.MsgExecute:
			open--
		}
	}
	return !c.limited && !c.portals && open <= 0
}

// anyNode is where a statement goes that needs no particular node: one at hand.
func (s *session) anyNode(snap *health.Snapshot, now int64) (router.Decision, bool) {
	if l := s.atHand(); l != nil {
		for _, n := range snap.Nodes {
			if n.ID == l.node.ID && n.Trusted(now) && n.State != health.StateDown {
				return router.Decision{Node: n, Target: targetOf(n), Reason: router.ReasonSession}, true
			}
		}
	}
	if snap.Primary != nil && snap.Primary.Trusted(now) {
		return router.Decision{Node: snap.Primary, Target: router.TargetPrimary, Reason: router.ReasonSession}, true
	}
	for _, n := range snap.Nodes {
		if n.Role == health.RoleStandby && n.State == health.StateUp && n.Trusted(now) {
			return router.Decision{Node: n, Target: router.TargetStandby, Reason: router.ReasonSession}, true
		}
	}
	return router.Decision{}, false
}

// toPrimary sends a unit to the primary, or makes it wait for one.
func (s *session) toPrimary(snap *health.Snapshot, now int64, why router.Reason) router.Decision {
	if snap.Primary == nil || !snap.Primary.Trusted(now) {
		return router.Decision{Wait: router.WaitPrimary, Reason: router.ReasonNoPrimary}
	}
	return router.Decision{Node: snap.Primary, Target: router.TargetPrimary, Reason: why}
}

// decideTx is where a transaction goes whose BEGIN was deferred: read-only ones to a standby
// when their first statement is a read, all others to the primary, unless they begin optimistically with a plain read.
func (s *session) decideTx(c *chunk, snap *health.Snapshot, now int64, try *attempt) (router.Decision, bool) {
	if s.optimistic(s.deferred.mode) && s.plainRead(c) {
		d := router.Route(c.unit, s.view(try), snap, now)
		if d.Target == router.TargetStandby && d.Reason == router.ReasonRead {
			d.Reason = router.ReasonOptimistic
		}
		if d.Target != router.TargetPrimary || d.Node == nil {
			return d, true
		}
	}
	if !s.readOnlyTx(s.deferred.mode) || c.unit == nil || c.unit.Class == router.ClassPrimary && c.unit.Flags&router.FlagReadInReadOnly == 0 {
		return s.toPrimary(snap, now, router.ReasonTransaction), true
	}
	u := s.srv.plainRead
	if c.unit.Class == router.ClassRead {
		u = c.unit
	}
	d := router.Route(u, s.view(try), snap, now)
	if d.Target == router.TargetStandby && d.Reason == router.ReasonRead {
		d.Reason = router.ReasonReadOnlyTx
	}
	return d, true
}

// readOnlyTx says whether a transaction is read-only at an isolation that a standby has.
func (s *session) readOnlyTx(m router.TxMode) bool {
	if m.Isolation == 'S' || (m.Isolation == 0 && s.serializable) || m.Snapshot {
		return false
	}
	return s.declaredReadOnly(m)
}

// declaredReadOnly says whether a transaction is READ ONLY by its BEGIN or by the session's default.
func (s *session) declaredReadOnly(m router.TxMode) bool {
	if m.ReadOnly != router.Unset {
		return m.ReadOnly == router.Yes
	}
	return s.readOnly
}

// optimistic says whether a transaction may begin on a standby although it may write later. A standby
// refuses a BEGIN READ WRITE.
func (s *session) optimistic(m router.TxMode) bool {
	return s.target.Optimistic && m.ReadOnly == router.Unset && !s.readOnly && s.movable(m)
}

// view is what the router needs to know of the session.
func (s *session) view(try *attempt) router.View {
	t := s.target
	level := t.Consistency
	if s.own.consistencySet {
		level = s.own.consistency
	}
	v := router.View{
		Mode: t.Route, ListenerMode: t.ListenerRoute, Offloaded: s.offloaded, SessionHint: s.own.route,
		Consistency: level, OnPrimary: t.OnPrimary, Pinned: s.pinned(),
		UnsafeEncoding: s.env.UnsafeEncoding, Serializable: s.serializable,
		ReadFrom: t.ReadFrom, PreferZone: t.Zone, MaxLagBytes: t.MaxLagBytes, MaxLagTime: t.MaxLagTime, Avoid: try.avoid,
		LocalHint: s.own.routeLocal, ReadOnly: s.readOnly, FreshnessWait: s.freshnessLeft(try),
	}
	if level == router.ConsistencyGlobal && try.freshMin == 0 {
		try.freshMin = s.cluster.Monitor.Fence().Mark()
	}
	v.Need, v.NeedOwn = s.st.need(level, t.Marks.load(), try.freshMin)
	v.LastRead, v.LastReadInc = s.st.marks.node, s.st.marks.inc
	if l := s.leases[slotStandby]; l != nil {
		v.Held, v.Sticky = l.node, true
	}
	return v
}

// pinned is why the session's reads stay on its primary connection, doubts included.
func (s *session) pinned() router.Pin {
	if p := s.st.pinned(); p != router.PinNone || len(s.doubts) == 0 || s.resetsOpaque() {
		return p
	}
	return router.PinOpaque
}

// freshnessLeft is how much longer the chunk may wait for a sample.
func (s *session) freshnessLeft(try *attempt) time.Duration {
	if try.freshEnd == 0 {
		return s.target.FreshnessWait(s.consistency())
	}
	return max(0, time.Duration(try.freshEnd-health.Clock()))
}

// wait waits for what a decision without a node lacks.
func (s *session) wait(c *chunk, try *attempt, d router.Decision) *problem {
	switch {
	case d.Refuse:
		s.decision = d
		return problemRefused(c.unit)
	case d.Target == router.TargetLocal:
		return problemNotAlone()
	case d.Wait == router.WaitFresh:
		return s.waitFresh(try)
	case d.Wait == router.WaitStandby:
		return s.waitStandby(try)
	}
	return s.hold(try)
}

// waitFresh waits for the next sample, up to freshness_wait in all; after that the router decides
// without waiting.
func (s *session) waitFresh(try *attempt) *problem {
	if try.freshEnd == 0 {
		try.freshEnd = health.Clock() + int64(s.target.FreshnessWait(s.consistency()))
	}
	return s.awaitSample(time.Duration(try.freshEnd - health.Clock()))
}

// awaitSample waits for the next sample that moves anything, for at most limit.
func (s *session) awaitSample(limit time.Duration) *problem {
	if limit <= 0 {
		return nil
	}
	f := s.cluster.Monitor.Fence()
	changed := f.Changed()
	release := f.Demand()
	defer release()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-s.canceled:
		return problemCanceled()
	case <-s.ctx.Done():
		return s.ended()
	}
	return nil
}

// waitStandby holds a read that the primary must not answer until a standby may, up to hold.timeout.
func (s *session) waitStandby(try *attempt) *problem {
	now := health.Clock()
	if try.holdEnd == 0 {
		try.holdEnd = now + int64(s.holdLimit())
	}
	if now >= try.holdEnd {
		if s.heldForTimeout() {
			return problemStatementTimeout()
		}
		return s.problemNotFresh()
	}
	return s.awaitSample(min(standbyPause, time.Duration(try.holdEnd-now)))
}

// standbyPause is how long a read that is held for a standby waits for a sample before it looks
// whether a standby has come back.
const standbyPause = 20 * time.Millisecond

// leaseFor takes the lease on the decided node. Both results are nil when the decision has to be
// made again.
func (s *session) leaseFor(c *chunk, d router.Decision, try *attempt) (*lease, *problem) {
	if pin := s.st.held(); d.Target == router.TargetPrimary && pin != router.PinNone {
		// What the session is pinned for is on a lease that must not be exchanged silently.
		l := s.leases[slotPrimary]
		if l != nil && (l.node.ID != d.Node.ID || s.stale(l)) {
			s.giveUp(l)
			return nil, &problem{ends: s.lostPin(pin, nil)}
		}
	}
	s.waited, s.atOnce = false, s.readsOnHeld(d)
	l, err := s.leaseOf(d.Node)
	s.atOnce = false
	if errors.Is(err, pool.ErrBusy) {
		try.avoid |= 1 << (uint(d.Node.ID) & 63)
		return nil, nil
	}
	if err != nil {
		return nil, s.notConnected(d, err, try)
	}
	if d.Target == router.TargetStandby && s.consistency() != router.ConsistencyEventual && d.Reason != router.ReasonSession {
		if f := d.Node.Live.Fresh(); f.Sample <= l.conn.OpenedMark {
			// A sample vouches only for connections that were open before it was asked for.
			return nil, s.waitVouched(d, try)
		}
	}
	if s.waited && !d.Node.Trusted(health.Clock()) {
		return nil, nil // it took so long that the decision has no evidence any more
	}
	if d.Unproven {
		return s.waitCovered(l, d, try)
	}
	return l, nil
}

// readsOnHeld says whether a read that is to go to a standby runs on the primary's connection, which the session holds, rather
// than waiting for one to the standby: with pool_mode: session those who have one keep it until they end.
func (s *session) readsOnHeld(d router.Decision) bool {
	return d.Target == router.TargetStandby && !s.target.Pooled && s.leases[slotPrimary] != nil && s.target.OnPrimary != router.ReadsNever
}

// waitVouched waits for the sample that vouches for a connection which was just opened; when it
// does not come in time the node is passed over.
func (s *session) waitVouched(d router.Decision, try *attempt) *problem {
	now := health.Clock()
	if try.vouchEnd == 0 {
		try.vouchEnd = now + int64(max(s.target.FreshnessWait(s.consistency()), vouchWait))
	}
	if now >= try.vouchEnd {
		try.avoid |= 1 << (uint(d.Node.ID) & 63)
		return nil
	}
	return s.awaitSample(time.Duration(try.vouchEnd - now))
}

// vouchWait is how long a read waits at least for the first sample behind the opening of its
// connection: opening it took longer, and it happens once.
const vouchWait = 20 * time.Millisecond

// waitCovered waits until the primary is proven to show what the session has read on a standby, up to
// freshness_wait; then the read goes all the same, and is counted.
func (s *session) waitCovered(l *lease, d router.Decision, try *attempt) (*lease, *problem) {
	now := health.Clock()
	if try.freshEnd == 0 {
		try.freshEnd = now + int64(s.target.FreshnessWait(s.consistency()))
	}
	if now < try.freshEnd {
		return nil, s.awaitSample(time.Duration(try.freshEnd - now))
	}
	s.cluster.metrics.unproven.Inc()
	return l, nil
}

// consistency is the level in force.
func (s *session) consistency() router.Consistency {
	if s.own.consistencySet {
		return s.own.consistency
	}
	return s.target.Consistency
}

// notConnected decides what follows when a node could not be connected to. nil: decide again.
func (s *session) notConnected(d router.Decision, err error, try *attempt) *problem {
	if s.ctx.Err() != nil {
		return s.ended()
	}
	var shut *shutError
	if errors.As(err, &shut) {
		return shut.problem
	}
	report, unreachable := connectFailure(err)
	if p := problemWait(err); p != nil {
		return p
	}
	if unreachable {
		s.cluster.Monitor.Report(d.Node.ID, evidenceOf(err))
		if d.Target == router.TargetStandby {
			try.avoid |= 1 << (uint(d.Node.ID) & 63)
			return nil
		}
		return s.holdAfter(try, err)
	}
	if d.Target == router.TargetStandby {
		// This standby will not have us; another one or the primary may.
		try.avoid |= 1 << (uint(d.Node.ID) & 63)
		return nil
	}
	if report == nil {
		return s.problemConnect(err)
	}
	return &problem{raw: report, ends: &sessionFatal{report: report}}
}

// evidenceOf is what a connection that could not be made shows of its node.
func evidenceOf(err error) health.Evidence {
	var ce *pool.ConnectError
	if errors.As(err, &ce) {
		switch {
		case ce.Refused():
			return health.EvidenceRefused
		case ce.Response != nil:
			return health.EvidenceShutdown
		case ce.Timeout():
			return health.EvidenceTimeout
		}
	}
	return health.EvidenceBroken
}
