package proxy

import (
	"bytes"
	"slices"
	"strings"

	"pgweir/health"
	"pgweir/router"
)

// level is what a transaction or a savepoint goes back to when it is rolled back.
type level struct {
	savepoint string // "" for the transaction itself
	set       *settings
	effective *settings
	listens   []string
	temporary bool // temporary relations were there, which DISCARD TEMP removes for good only when it is committed
}

// txBlock is the transaction status a client believes in: the byte of ReadyForQuery.
type txBlock byte

// The transaction statuses of ReadyForQuery (PostgreSQL's "Message Formats").
const (
	txIdle   txBlock = 'I'
	txOpen   txBlock = 'T'
	txFailed txBlock = 'E'
)

// marks is what a session has seen, as numbers of the fence's counter (freshness.md).
type marks struct {
	write uint64 // every standby must be fresh as of later than this
	read  uint64 // … and this, but for the node that answered the last read
	own   uint64 // what that node needs
	node  *health.Node
	inc   uint64 // that node's incarnation when it answered
}

// state is what a session remembers, apart from sockets: the transaction, the settings, the
// pins, what it has seen. It is pure: nothing in it waits or fails.
type state struct {
	tx        txBlock
	start     *settings // what the session started with beside what its connections start with: RESET goes back to it
	set       *settings // what survives the transaction that is open now
	effective *settings // set, and what SET LOCAL put on top
	levels    []level   // the open transaction and its savepoints
	pins      [16]bool  // by router.Pin
	unlocked  bool      // an advisory lock was given back since pg_locks was last asked for others
	lasting   bool      // PinOpaque stands for something of which DISCARD ALL may leave a part
	custom    bool      // custom settings were made, which outlive DISCARD ALL on a lease
	listens   []string
	told      bool // the client was told the process id of its primary connection: reads still spread
	marks     marks
}

// newState is the state of a session that has just logged in; login is the fence's mark at that moment.
func newState(login uint64) state {
	return state{tx: txIdle, start: noSettings, set: noSettings, effective: noSettings, marks: marks{write: login}}
}

// startWith makes a set what the session starts with.
func (s *state) startWith(set *settings) { s.start, s.set, s.effective = set, set, set }

// reset returns a set after RESET of a name has reached a node.
func (s *state) reset(from *settings, name string) *settings {
	if _, ok := s.start.get(name); ok {
		return from.with(name, atDefault)
	}
	return from.reset(name)
}

// started returns a set behind which only what the session started with is left, as RESET of each leaves it on a node.
func (s *state) started(from *settings) *settings {
	for i := range s.start.pairs {
		from = from.with(s.start.pairs[i].name, atDefault)
	}
	return from
}

// resume puts what the session started with back in force, where the node is at its own default: the lease is brought up to it
// before the client's next statement.
func (s *state) resume() {
	for i := range s.start.pairs {
		p := &s.start.pairs[i]
		if s.set.lacks(p.name) {
			s.set = s.set.with(p.name, p.value)
		}
		if s.effective.lacks(p.name) {
			s.effective = s.effective.with(p.name, p.value)
		}
	}
	if s.tx == txIdle {
		s.effective = s.set
	}
}

// pinned is the first reason for which the session keeps its primary connection. LISTEN alone
// does not bind reads.
func (s *state) pinned() router.Pin {
	for p := range s.pins {
		if s.pins[p] && router.Pin(p) != router.PinListen {
			return router.Pin(p)
		}
	}
	return router.PinNone
}

// held is the first reason for which the session's primary connection must not be lost.
func (s *state) held() router.Pin {
	if p := s.pinned(); p != router.PinNone {
		return p
	}
	if s.pins[router.PinListen] {
		return router.PinListen
	}
	if s.told {
		return router.PinBackendPID
	}
	return router.PinNone
}

// leftOpaque pins the session for what nobody can see; lasting says that DISCARD ALL may not remove all of it.
func (s *state) leftOpaque(lasting bool) {
	s.pins[router.PinOpaque] = true
	s.lasting = s.lasting || lasting
}

// lasts says whether the session may have left on its connection what DISCARD ALL does not remove.
func (s *state) lasts() bool { return s.pins[router.PinOpaque] && s.lasting }

// applyOne carries out one effect of a statement that the server has completed.
func (s *state) applyOne(e *router.Effect) {
	switch e.Kind {
	case router.EffectSet, router.EffectSetRole, router.EffectSetCharacteristics:
		value := e.Value
		if e.ByFunction {
			value = byFunction + value
		}
		s.assign(e.Name, value, e.Local)
	case router.EffectReset:
		s.change(e.Local, func(from *settings) *settings { return s.reset(from, e.Name) })
		s.custom = s.custom || custom(e.Name)
	case router.EffectResetAll:
		s.resetAll()
	case router.EffectSetSessionAuth:
		s.assign("session_authorization", e.Value, e.Local)
		s.pins[router.PinSessionAuthorization] = true
	case router.EffectDiscardAll:
		s.custom = s.custom || s.lasts()
		s.set, s.effective = s.started(s.set.customOnly()), s.started(s.effective.customOnly())
		s.pins, s.lasting = [16]bool{}, false
		s.listens = nil
		s.over(true) // it commits at once, whatever becomes of the batch
	case router.EffectDiscard:
		if strings.EqualFold(e.Name, "temp") || strings.EqualFold(e.Name, "temporary") {
			s.pins[router.PinTemp] = false
		}
		if strings.EqualFold(e.Name, "sequences") {
			s.pins[router.PinSequence] = false
		}
	case router.EffectListen:
		if !slices.Contains(s.listens, e.Name) {
			s.listens = append(slices.Clip(s.listens), e.Name)
		}
		s.pins[router.PinListen] = true
	case router.EffectUnlisten:
		s.unlisten(e.Name)
	case router.EffectPrepare:
		s.pins[router.PinSQLPrepare] = true
	case router.EffectDeallocateAll:
		s.pins[router.PinSQLPrepare] = false
	case router.EffectPin:
		s.pins[e.Pin] = true
	case router.EffectBegin:
		if len(s.levels) == 0 {
			s.push("")
		}
	case router.EffectCommit, router.EffectPrepareTransaction:
		s.over(s.tx != txFailed)
	case router.EffectRollback:
		s.over(false)
	case router.EffectUnlockAll:
		s.pins[router.PinAdvisoryLock] = false
	case router.EffectUnlock:
		s.unlocked = s.pins[router.PinAdvisoryLock]
	case router.EffectSavepoint:
		s.push(e.Name)
	case router.EffectRollbackTo:
		s.backTo(e.Name)
	case router.EffectRelease:
		s.releaseTo(e.Name)
	}
}

// assign is SET: without LOCAL it outlives the transaction if that commits.
func (s *state) assign(name, value string, local bool) {
	s.custom = s.custom || custom(name)
	if old, ok := s.effective.get(name); ok && name == "datestyle" {
		value = dateStyle(old, value)
	}
	if role, ok := s.effective.get("role"); ok && !local && !strings.EqualFold(unquote(role), "none") && privileged(name) {
		s.leftOpaque(false) // on another connection it would have to be set by who has the right, whoever that is by then
	}
	s.change(local, func(from *settings) *settings { return from.with(name, value) })
}

// change changes what is in force, and, where it is not for the transaction only, what survives it.
func (s *state) change(local bool, f func(from *settings) *settings) {
	from := s.effective
	s.effective = f(from)
	switch {
	case local:
	case s.set == from:
		s.set = s.effective
	default:
		s.set = f(s.set)
	}
}

// resetAll is RESET ALL: role and session authorisation are not touched by it, nor what SET LOCAL has put at its default
// until the end of the transaction, whatever it is then.
func (s *state) resetAll() {
	var left []pair
	for _, p := range s.set.pairs {
		if v, ok := s.effective.get(p.name); !ok || custom(p.name) && v == wasReset {
			left = append(left, p)
		}
	}
	keep := func(from *settings) *settings {
		to := s.started(from.customOnly())
		for _, name := range []string{"session_authorization", "role"} {
			if v, ok := from.get(name); ok {
				to = to.with(name, v)
			}
		}
		return to
	}
	s.set, s.effective = keep(s.set), keep(s.effective)
	s.set = s.set.merged(left)
}

// codeInvalidName is invalid_name.
const codeInvalidName = "42602"

// removed forgets the custom settings that a node's notice names: a library that was loaded has taken their prefix
// for itself, and the server has thrown them away, whatever becomes of the transaction.
func (s *state) removed(notice []byte) {
	for _, p := range s.effective.pairs {
		name := p.name
		if !custom(name) || !bytes.Contains(notice, []byte(`"`+name+`"`)) {
			continue
		}
		s.set, s.effective = s.set.without(name), s.effective.without(name)
		for i := range s.levels {
			l := &s.levels[i]
			l.set, l.effective = l.set.without(name), l.effective.without(name)
		}
	}
}

// unlisten forgets one channel, or all for "*".
func (s *state) unlisten(channel string) {
	if channel == "*" {
		s.listens = nil
	} else {
		s.listens = slices.DeleteFunc(slices.Clone(s.listens), func(c string) bool { return c == channel })
	}
	s.pins[router.PinListen] = len(s.listens) > 0
}

// push opens a level.
func (s *state) push(savepoint string) {
	s.levels = append(s.levels, level{
		savepoint: savepoint, set: s.set, effective: s.effective, listens: s.listens, temporary: s.pins[router.PinTemp],
	})
}

// over ends the transaction that is open at this point of a string or batch; what follows is another one.
func (s *state) over(committed bool) {
	if len(s.levels) == 0 {
		return
	}
	if !committed {
		s.set = s.levels[0].set.after(s.set)
		s.restore(&s.levels[0])
	}
	s.set = s.set.after(s.effective)
	s.levels, s.effective, s.tx = nil, s.set, txIdle
	s.push("")
}

// backTo restores what stood at the newest savepoint of that name, which stays open.
func (s *state) backTo(name string) {
	if i := s.savepoint(name); i >= 0 {
		l := s.levels[i]
		s.set, s.effective, s.levels = l.set.after(s.set), l.effective.after(s.effective), s.levels[:i+1]
		s.restore(&l)
		if s.tx == txFailed {
			s.tx = txOpen
		}
	}
}

// releaseTo closes the newest savepoint of that name and all inside it, keeping their effects.
func (s *state) releaseTo(name string) {
	if i := s.savepoint(name); i >= 0 {
		s.levels = s.levels[:i]
	}
}

// savepoint is the index of the newest level of that name, -1 when there is none.
func (s *state) savepoint(name string) int {
	for i := len(s.levels) - 1; i > 0; i-- {
		if s.levels[i].savepoint == name {
			return i
		}
	}
	return -1
}

// restore puts what the session listens to back to what it was, and what a rolled back DISCARD TEMP seemed to
// have removed.
func (s *state) restore(l *level) {
	s.listens = l.listens
	s.pins[router.PinListen] = len(l.listens) > 0
	s.pins[router.PinTemp] = s.pins[router.PinTemp] || l.temporary
}

// restart makes the open transaction one that no node knows; it has changed nothing.
func (s *state) restart() { s.levels = nil }

// ready takes over the transaction status of a ReadyForQuery. committed says how the last
// transaction ended, when one ended; chained that the next began at once.
func (s *state) ready(status txBlock, committed, chained bool) {
	if (status == txIdle || chained) && len(s.levels) > 0 {
		if !committed {
			s.set = s.levels[0].set.after(s.set)
			s.restore(&s.levels[0])
		}
		s.set = s.set.after(s.effective) // SET LOCAL leaves a custom setting behind, too
		s.levels, s.effective = nil, s.set
	}
	if status != txIdle && len(s.levels) == 0 {
		s.push("")
	}
	if status == txIdle {
		s.effective = s.set
	}
	s.tx = status
}

// saw records that a unit which ran on node was answered: at is the fence's mark when the
// reply was received, wrote that it may have written.
func (s *state) saw(node *health.Node, inc, at uint64, wrote bool) {
	if wrote && at > s.marks.write {
		s.marks.write = at
	}
	m := &s.marks
	if m.node == nil || m.node.ID != node.ID || m.inc != inc {
		m.own = m.read
		m.node, m.inc = node, inc
	}
	m.read = at
}

// need is the smallest fresh-as-of number above which any standby may serve the session, and
// the one for the node that answered its last read.
func (s *state) need(level router.Consistency, database, now uint64) (need, own uint64) {
	if level == router.ConsistencyEventual {
		return 0, 0
	}
	need, own = max(s.marks.write, s.marks.read), max(s.marks.write, s.marks.own)
	switch level {
	case router.ConsistencyApplication:
		need, own = max(need, database), max(own, database)
	case router.ConsistencyGlobal:
		need, own = max(need, now), max(own, now)
	}
	return need, own
}
