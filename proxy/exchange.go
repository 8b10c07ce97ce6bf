package proxy

import (
	"errors"
	"strings"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// exchange sends the chunk on lease l and forwards what is owed for it. again says that nothing
// the client could notice has happened and the chunk is to be placed once more. The error ends
// the session.
func (s *session) exchange(c *chunk, l *lease, try *attempt, began int64) (again bool, err error) {
	r := s.relaying()
	skipping := r.skipping && s.batch == l
	r.reset(s, l)
	r.skipping = skipping
	standby := l.node.Role == health.RoleStandby
	u := c.unit
	// A transaction whose BEGIN goes out with this chunk has shown the client nothing yet.
	outside := (s.st.tx == txIdle || s.deferred.text != "" || s.moves.text != "") && s.batch == nil
	if c.rest > 0 || c.end == endOpen {
		s.join(c, s.srv.incomplete) // what is still to come may write
		u = c.unit
	}
	if s.batch == nil {
		s.plan, s.sent = s.plan[:0], s.sent[:0]
	}
	s.leavesNames(l, u)
	s.announceSync(u)
	s.speaks(u, l)
	r.wrote = u != nil && c.executes && (u.Mark == router.MarkWrite && !u.OnlyTx || s.txWrote && u.Flags&router.FlagMayCommit != 0)
	// A Sync that ends a flushed batch makes durable what that wrote, and shows what it read.
	r.wrote = r.wrote || s.batch != nil && s.txWrote
	r.marks = r.wrote || s.batch != nil || u != nil && u.Mark != router.MarkNone
	hinted := try.decision.Reason == router.ReasonHint
	r.net = standby && outside && !hinted
	r.anew = s.st.tx == txIdle && s.batch == nil && u != nil && u.Class == router.ClassRead && (c.end == endSync || c.end == endQuery)
	r.hold = r.net && u != nil && u.Flags&router.FlagCatalog != 0
	l.begin(s)
	if s.ctx.Err() != nil { // whoever ends the session looks for what runs after that
		s.running.Store(nil)
		return false, s.cause()
	}
	select {
	case <-s.canceled: // it came while the statement was on its way here
		s.running.Store(nil)
		return false, s.refuse(c, problemCanceled())
	default:
	}
	l.node.Live.Outstanding.Add(1)
	s.figures.request.Store(began)
	try.number++

	if s.own.explain && c.executes && s.batch == nil {
		if err := s.explainNotice(try.decision); err != nil {
			return false, err
		}
	}
	s.vacate(c)
	long := c.rest > 0 || c.end == endOpen
	out := s.compose(c, l, r)
	sentAt := health.Clock()
	var nodeErr error
	if long {
		nodeErr = s.duplex(c, l, out)
	} else {
		if r.done() { // a node that skips to the next Sync answers nothing
			nodeErr = l.conn.Link.Write(out)
		} else if nodeErr = l.conn.Link.Exchange(out); nodeErr == nil {
			nodeErr = r.run()
		}
		if nodeErr == nil && r.copyIn && r.clientErr == nil {
			s.client.Discard(c.n)
			c.n = 0
			nodeErr = s.duplex(c, l, nil)
		}
	}
	if nodeErr == nil && r.unsynced && r.clientErr == nil && r.fatal == nil {
		nodeErr = s.sync(l)
	}
	s.running.Store(nil)
	l.node.Live.Outstanding.Add(-1)
	s.last = l

	switch {
	case r.clientErr != nil:
		s.torn = s.torn || r.cut
		s.giveUp(l)
		return false, r.clientErr
	case nodeErr != nil || r.fatal != nil:
		return s.broken(c, l, try, nodeErr, outside)
	case r.unset != nil && r.discard:
		return s.sendAgain(c, l)
	case r.discard:
		return s.refused(c, l, try)
	}
	if r.unset != nil {
		s.doubtSettings(l)
	}
	s.settle(c, l, try, began, sentAt)
	if s.st.unlocked && s.st.tx == txIdle && s.batch == nil {
		s.lookForLocks(l)
	}
	if s.st.effective.lacks(nameSetting) {
		s.renames(l)
	}
	s.closeUnsure(l)
	return false, nil
}

// vacate closes the connections to databases that a chunk drops or renames, where no client is left in them: what the pool
// keeps does not count as connected.
func (s *session) vacate(c *chunk) {
	for i := range c.items {
		u := c.items[i].unit
		if u == nil || u.Flags&router.FlagDDL == 0 {
			continue
		}
		for _, e := range u.Effects {
			if e.Kind == router.EffectVacate && s.deserted(e.Name) {
				s.srv.pool.Retire(func(k pool.Key) bool { return k.Cluster == s.cluster.Name && k.Database == e.Name })
			}
		}
	}
}

// leaving is how long a client may take to leave that has said goodbye. A server waits for longer.
const leaving = 100 * time.Millisecond

// deserted says whether no client is in a database, or those that are leaving it have gone.
func (s *session) deserted(database string) bool {
	end := time.NewTimer(leaving)
	defer end.Stop()
	again := time.NewTicker(leaving / 20)
	defer again.Stop()
	for s.srv.keys.connected(s.cluster, database) {
		if database == s.target.Database {
			return false
		}
		select {
		case <-again.C:
		case <-end.C:
			return false
		case <-s.ctx.Done():
			return false
		}
	}
	return true
}

// ownLocks is what asks a node for the session's advisory locks.
const ownLocks = "SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() LIMIT 1"

// lookForLocks takes the pin for advisory locks away, behind an answer that gave some back, if the node
// shows no other. A node that does not say leaves the pin; what has become of the lease shows when it is used next.
func (s *session) lookForLocks(l *lease) {
	s.st.unlocked = false
	if err := s.command(l, ownLocks); err == nil && s.relaying().none {
		s.st.pins[router.PinAdvisoryLock] = false
		s.countPin()
	}
}

// sync ends what the node skips after the failure of something that was put in front of a simple query: the client
// waits for the query's ReadyForQuery.
func (s *session) sync(l *lease) error {
	s.relaying().push(expectation{typ: pgwire.MsgSync})
	s.scratch = pgwire.AppendSync(s.scratch[:0])
	if err := l.conn.Link.Exchange(s.scratch); err != nil {
		return err
	}
	return s.relaying().run()
}

// refused runs a chunk again that a standby would not or could not answer.
func (s *session) refused(c *chunk, l *lease, try *attempt) (again bool, err error) {
	s.pending = s.pending[:0]
	if s.deferred.text != "" || s.st.tx != txIdle {
		s.giveUp(l) // its transaction has failed
	}
	if s.moves.text != "" {
		s.restart()
	}
	cause := causeOf(s.relaying().code)
	s.cluster.metrics.reroutes.WithLabelValues(s.cluster.Name, cause).Inc()
	if cause == causeReadOnly {
		s.learn(c)
		s.cluster.Monitor.Report(l.node.ID, health.EvidenceReadOnly)
		try.primary = true
		return true, nil
	}
	try.avoid |= 1 << (uint(l.node.ID) & 63)
	if try.number >= 2 {
		try.primary = true
	}
	return true, nil
}

// learn teaches the classifier that what the chunk runs is not for a standby.
func (s *session) learn(c *chunk) {
	b := s.client.Buffered()
	for i := range c.items {
		it := &c.items[i]
		switch {
		case it.typ == pgwire.MsgQuery:
			if sql, err := pgwire.ParseQuery(b[it.at+pgwire.HeaderSize : it.end]); err == nil {
				s.srv.classifier.Learn(sql, s.environment())
			}
		case it.typ == pgwire.MsgExecute || it.typ == pgwire.MsgBind:
			if it.st == nil || it.st.parse == nil {
				continue
			}
			if v, err := pgwire.ParseParse(it.st.parse[pgwire.HeaderSize:]); err == nil {
				s.srv.classifier.Learn(v.SQL, s.environment())
				it.st.unit = s.understand(v.SQL)
			}
		}
	}
}

// broken decides what a chunk is worth whose lease broke while it was under way (behaviour.md §4).
func (s *session) broken(c *chunk, l *lease, try *attempt, nodeErr error, outside bool) (again bool, err error) {
	r := s.relaying()
	sent := !r.unread && l.conn.Link.Sent() || c.n == 0 || c.rest > 0 || c.end == endOpen
	read := c.unit != nil && c.unit.Class != router.ClassPrimary && try.decision.Target == router.TargetStandby ||
		c.unit != nil && c.unit.Class == router.ClassRead
	s.lost(l, nodeErr)
	pinned := s.st.held()
	primary := l == s.leases[slotPrimary]
	s.giveUp(l)
	s.pending = s.pending[:0]
	if r.cut {
		return false, errCutMessage
	}
	if s.ctx.Err() != nil {
		return false, s.cause()
	}
	if primary && pinned != router.PinNone {
		return false, s.lostPin(pinned, fatalOf(r))
	}
	if r.fatal != nil && !s.srv.nodeDying(r.fatal) {
		return false, &sessionFatal{report: r.fatal}
	}
	if outside && !r.seen && (!sent || read || s.moves.text != "") && c.n > 0 && c.rest == 0 && c.end != endOpen {
		if s.moves.text != "" {
			s.restart()
		}
		s.cluster.metrics.reroutes.WithLabelValues(s.cluster.Name, causeLost).Inc()
		if l.node.Role == health.RoleStandby {
			try.avoid |= 1 << (uint(l.node.ID) & 63)
			if try.number >= 2 {
				try.primary = true
			}
		}
		return true, nil
	}
	if rollsBack(c.unit) && s.st.tx != txIdle && !r.seen && c.n > 0 {
		s.txDied() // which is what was asked for
		return false, s.answerDead(c)
	}
	return false, s.refuse(c, s.problemBroken(c, sent, read, l))
}

// fatalOf is the node's last word, nil when it said none.
func fatalOf(r *relay) *nodeFatal {
	if r.fatal == nil {
		return nil
	}
	return &nodeFatal{report: r.fatal}
}

// errCutMessage ends a client connection on which half a message was sent.
var errCutMessage = errors.New("node connection broke within a message that the client had begun to receive")

// problemBroken is what a client hears of a statement that was under way when its lease broke.
func (s *session) problemBroken(c *chunk, sent, read bool, l *lease) *problem {
	inTx := s.st.tx != txIdle || s.deferred.text != ""
	unfinished := (c.end == endFlush || c.end == endOpen || s.relaying().copyIn) && !controlsTx(c.unit)
	ends := mayEndBlock(c.unit) && sent
	switch {
	case inTx && ends && (s.txWrote || c.unit == nil || !c.unit.OnlyTx && c.unit.Mark == router.MarkWrite):
		s.txOver()
		return s.problemUnknown(l)
	case inTx && ends:
		s.txOver()
		return s.problemTxLost(c)
	case inTx:
		s.txDied()
		return s.problemTxLost(c)
	case read || !sent:
		return s.problemReadLost(l)
	case unfinished:
		return s.problemTxLost(c) // no Sync was sent, or no end of the copy data
	}
	return s.problemUnknown(l)
}

// controlsTx says whether a unit holds statements that begin or end transactions.
func controlsTx(u *router.Unit) bool {
	if u == nil {
		return false
	}
	for i := range u.Effects {
		if kind := u.Effects[i].Kind; kind == router.EffectBegin || kind.EndsTransaction() {
			return true
		}
	}
	return false
}

// mayEndBlock says whether a unit may end the transaction block that it runs in, so that the block may
// have been committed: what does so by its text, and what was not understood. A write does
// not, nor does a CALL or DO: PostgreSQL lets them commit outside of a block only.
func mayEndBlock(u *router.Unit) bool {
	if u == nil || u.Reason == router.ReasonIncomplete || u.Flags&router.FlagUnparsed != 0 {
		return true
	}
	for i := range u.Effects {
		if u.Effects[i].Kind.EndsTransaction() {
			return true
		}
	}
	return false
}

// rollsBack says whether a unit is one ROLLBACK that was understood completely.
func rollsBack(u *router.Unit) bool {
	return u != nil && u.OnlyTx && u.Effects[0].Kind == router.EffectRollback && !u.Effects[0].AndChain
}

// lost tells everybody who must know that a lease ended unasked.
func (s *session) lost(l *lease, cause error) {
	if s.ctx.Err() != nil {
		return // the session was ended by us, and its lease with it: that says nothing about the node
	}
	s.cluster.Monitor.VoidNode(l.node.ID)
	s.cluster.Monitor.Report(l.node.ID, health.EvidenceBroken)
	s.srv.log.Debug("lease lost", "cluster", s.cluster.Name, "node", l.node.Name, "error", cause)
}

// settle takes over what a chunk that was answered has changed.
func (s *session) settle(c *chunk, l *lease, try *attempt, began, sentAt int64) {
	r := s.relaying()
	if r.failed && l.node.Role == health.RoleStandby && causeOf(r.code) == causeReadOnly && try.decision.Reason != router.ReasonHint && !s.txOnly {
		s.cluster.metrics.misroutes.Inc()
		if c.n > 0 && string(r.code[:]) == codeReadOnly {
			s.learn(c)
		}
	}
	doubtful := false
	if c.unit != nil && c.unit.Flags&router.FlagOpaque != 0 && !r.failed {
		known := c.unit.Flags&router.FlagUnknownName == 0 || l.node.Role == health.RoleStandby
		if doubtful = !known && s.doubt(c); !doubtful {
			s.leftOpaque(l, c.unit.Flags&router.FlagLasting != 0)
		}
	}
	if c.unit != nil && c.unit.Flags&router.FlagNextval != 0 && s.target.Pooled && !(doubtful && onlyDoubtfulNextval(c)) {
		l.sequences = s.serial
	}
	s.leavesNames(l, c.unit)
	s.leaves(c.unit, l)
	s.client.Discard(c.n)
	c.n = 0
	s.settleStatements()
	s.settleTx(c, l)
	s.own.local(s.st.tx)
	if try.decision.Node != nil {
		s.decision = try.decision
	}
	if s.st.tx == txIdle && s.batch == nil {
		s.portal = nil
		clear(s.portals)
	}
	if ddl := c.unit != nil && c.unit.Flags&router.FlagDDL != 0 && (!r.failed || c.unit.Flags&router.FlagMulti != 0); ddl || s.txDDL && s.st.tx == txIdle && s.batch == nil {
		// Within a transaction the view is read before others can see the change: once more at its end.
		s.txDDL = s.st.tx != txIdle || s.batch != nil
		s.target.Marks.ddl.Store(s.cluster.Catalog.Invalidate(s.target.Database))
	}
	s.speaks(c.unit, l)
	s.txSpoke = s.txSpoke && (s.st.tx != txIdle || s.batch != nil)
	s.countPin()
	s.settleSync()
	l.conn.Link.Rest()
	s.timing.settled = s.cluster.observe(c, l, s.decision, began, sentAt)
	l.used = s.timing.settled
	s.count(c, sentAt, l.used)
}

// How many names of custom settings that something else has left a session and a lease remember, of how many bytes.
const (
	maxLeft      = 256
	maxLeftBytes = 32 << 10
)

// leavesNames records that a unit leaves names of custom settings on the lease, whatever becomes of it. A lease that has too many
// of them is nobody else's.
func (s *session) leavesNames(l *lease, u *router.Unit) {
	if u == nil || u.Leaves == "" {
		return
	}
	s.knowsNames(u)
	all, ok := joinLeft(l.left, u)
	l.left, l.spoiled = all, l.spoiled || !ok
}

// knowsNames has connections fit the session on which a unit has left names. One that leaves too many different ones finds
// fewer that fit.
func (s *session) knowsNames(u *router.Unit) {
	s.left, _ = joinLeft(s.left, u)
}

// joinLeft adds the names that a unit leaves to others, unless they are too many: then it returns the others and false.
func joinLeft(names string, u *router.Unit) (all string, ok bool) {
	all = router.JoinNames(names, u.Leaves)
	if len(all) > maxLeftBytes || router.CountNames(all) > maxLeft {
		return names, false
	}
	return all, true
}

// leaves records what a unit may have left on the lease beside what is tracked.
func (s *session) leaves(u *router.Unit, l *lease) {
	if u == nil || !s.target.Pooled {
		return
	}
	if u.Flags&router.FlagCurrval != 0 {
		s.srv.sequences.note(s)
	}
	if !s.relaying().failed {
		return
	}
	if u.Flags&router.FlagOpaque != 0 && !s.relaying().ranNothing(u) {
		l.conn.Dirty, l.conn.Temporary, l.spoiled = true, true, l.spoiled || u.Flags&router.FlagLasting != 0
	}
	// What the statement that failed has set is rolled back, but for the names of custom settings.
	for i := range u.Effects {
		switch u.Effects[i].Kind {
		case router.EffectSet, router.EffectReset:
			l.spoiled = l.spoiled || custom(u.Effects[i].Name)
		}
	}
}

// ranNothing says whether a unit failed because a name in its text that the catalog view does not know is not there either.
func (r *relay) ranNothing(u *router.Unit) bool {
	return u.Flags&router.FlagUnknownName != 0 && u.Statements == 1 && r.pointed && (string(r.code[:]) == codeUndefinedTable || string(r.code[:]) == codeUndefinedFunction)
}

// settleTx takes over the transaction status, the effects and the pins of a chunk.
func (s *session) settleTx(c *chunk, l *lease) {
	r := s.relaying()
	had := s.st.tx != txIdle || s.deferred.text != ""
	if s.deferred.text != "" {
		s.st.push("")
		s.txOnly = l.node.Role == health.RoleStandby
		if s.txOnly && s.movable(s.deferred.mode) {
			s.moves = s.deferred
		}
	}
	s.deferred = deferral{}
	chained, ended := false, false
	if len(r.effects) > 0 && !had && len(s.st.levels) == 0 {
		s.st.push("") // the implicit transaction of a string or batch, which an error rolls back
	}
	s.batchFailed = s.batchFailed || r.failed
	for i := range r.effects {
		e := &r.effects[i]
		chained, ended = chained || e.AndChain, ended || e.Kind.EndsTransaction() || e.Kind == router.EffectDiscardAll
		l.conn.Temporary = l.conn.Temporary || e.Kind == router.EffectPin && e.Pin == router.PinTemp
		s.st.applyOne(e)
		s.wiped(e, l)
	}
	if c.unit != nil && c.executes && c.unit.Mark == router.MarkWrite && !c.unit.OnlyTx {
		s.txWrote = true
	}
	inBatch := c.end != endSync && (r.skipping || c.end != endQuery && c.end != endFunction)
	if inBatch && c.end != endJunk {
		s.batch = l
		return
	}
	s.batch = nil
	committed := r.tag == 'C' || !had && !s.batchFailed
	if ended && r.failed && c.unit != nil && c.unit.Flags&router.FlagOpaque != 0 {
		s.leftOpaque(l, c.unit.Flags&router.FlagLasting != 0) // some of it may be committed
	}
	if ended { // what came behind the end is an implicit transaction of its own
		committed = !s.batchFailed
	}
	s.st.ready(r.status, committed, chained && had)
	s.batchFailed = false
	if r.status == txIdle {
		s.txLease, s.txWrote, s.txOnly, s.moves = nil, false, false, deferral{}
	} else {
		s.txLease = l
		if s.moves.text != "" && (r.status == txFailed || !s.plainRead(c)) {
			s.moves = deferral{} // it is bound to its node
		}
	}
	if l.unsure {
		l.set = anySettings(l.set, s.st.set)
	} else {
		l.set = s.st.set.onNode()
	}
	if s.st.tx == txIdle {
		s.st.resume()
	}
}

// wiped tells the session's other lease of an effect that must reach it too.
func (s *session) wiped(e *router.Effect, l *lease) {
	switch e.Kind {
	case router.EffectDiscardAll:
		l.sequences = 0
		// Nothing is left of what they are about, but for the names of custom settings.
		l.spoiled = l.spoiled || len(s.doubts) > 0
		s.forgetDoubts()
		for _, other := range s.leases {
			if other != nil && other != l {
				other.discard = true
			}
		}
	case router.EffectDiscard:
		if strings.EqualFold(e.Name, "sequences") {
			l.sequences = 0
		}
	case router.EffectVacate:
		s.srv.bases.drop(s.cluster.Name) // whoever logs in hears of a node whether the database is there
	}
}

// txDied remembers that the open transaction's lease is gone: the client is told once, and
// then hears 25P02 until it rolls back.
func (s *session) txDied() {
	if len(s.st.levels) > 0 {
		s.st.set, s.st.effective = s.st.levels[0].set, s.st.levels[0].set
	}
	s.st.resume()
	s.st.levels = nil
	s.txLease, s.batch, s.txWrote, s.txOnly, s.moves = nil, nil, false, false, deferral{}
	s.figures.txBegan, s.figures.ran = 0, false
	s.deferred = deferral{}
	s.dead, s.deadTold = true, false
	s.st.tx = txFailed
}

// txOver ends a transaction whose outcome was told to the client.
func (s *session) txOver() {
	s.txDied()
	s.dead = false
	s.st.tx = txIdle
}
