package proxy

import (
	"bytes"
	"encoding/binary"
	"maps"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// planned is a statement as it will be on the lease when the messages before the present one
// have been carried out.
type planned struct {
	name    string // on the node
	version uint64
	all     bool // nothing, under any name
}

// compose returns what is to be sent for the chunk, and pushes what is owed for it. Usually
// these are the client's own bytes; only where something has to go in front of one of its messages (a deferred
// BEGIN, a statement that the lease lacks) are they copied. The result is valid until the next
// compose or command.
func (s *session) compose(c *chunk, l *lease, r *relay) []byte {
	b := s.client.Buffered()[:c.n]
	k := composer{s: s, l: l, r: r, b: b, out: s.scratch[:0], failed: s.st.tx == txFailed}
	k.goesAhead(s.ahead)
	if s.deferred.text != "" {
		k.out = s.appendBegin(k.out, l, r, s.deferred.keepsPortal(c.items))
		k.touched = true
		k.setPlan("", l.unnamed)
	}
	if l.shared {
		l.tick++
		k.evict()
	}
	for i := range c.items {
		k.item(c, i)
	}
	if c.end == endSync {
		r.push(expectation{typ: pgwire.MsgSync})
	}
	if !k.touched {
		return b
	}
	k.out = append(k.out, b[k.copied:]...)
	s.scratch = k.out
	return k.out
}

// composer is the state of one compose.
type composer struct {
	s       *session
	l       *lease
	r       *relay
	b, out  []byte
	copied  int // bytes of b that are in out
	touched bool
	ahead   bool // what is put in stands in front of a simple query
	failed  bool // the transaction has failed that is open when the present message is reached
}

// before makes sure that all bytes of the client in front of at are in out.
func (k *composer) before(at int) {
	k.out = append(k.out, k.b[k.copied:at]...)
	k.copied, k.touched = at, true
}

// version is what the lease will have under name when the present message is reached.
func (k *composer) version(name string) uint64 {
	for i := len(k.s.plan) - 1; i >= 0; i-- {
		if p := &k.s.plan[i]; p.all && name != "" {
			return 0
		} else if !p.all && p.name == name {
			return p.version
		}
	}
	return k.l.version(name)
}

// setPlan records what the lease will have under name.
func (k *composer) setPlan(name string, version uint64) {
	k.s.plan = append(k.s.plan, planned{name: name, version: version})
}

// item plans one message.
func (k *composer) item(c *chunk, i int) {
	it := &c.items[i]
	switch it.typ {
	case pgwire.MsgParse:
		k.parse(c, i)
	case pgwire.MsgBind:
		if it.st != nil {
			k.mentioned(it.st.unit, it.st.parse, it.at)
		}
		node := k.provide(it.st, it.name, it.at)
		k.rename(it, node)
		k.s.bound(it.portal, it.unit)
		k.r.push(expectation{typ: it.typ, st: it.st})
	case pgwire.MsgDescribe:
		if it.kind == pgwire.KindStatement {
			if it.st != nil {
				k.mentioned(it.st.unit, it.st.parse, it.at)
			}
			node := k.provide(it.st, it.name, it.at)
			k.rename(it, node)
			k.r.push(expectation{typ: it.typ, kind: it.kind, st: it.st, node: node})
			return
		}
		k.r.push(expectation{typ: it.typ, kind: it.kind})
	case pgwire.MsgClose:
		node := string(it.name)
		if it.kind == pgwire.KindStatement {
			// On a shared lease nothing has the client's own name: the node says CloseComplete, and keeps its statement.
			k.setPlan(node, 0)
			k.s.sent = append(k.s.sent, definition{name: node})
		}
		k.r.push(expectation{typ: it.typ, kind: it.kind, name: node, node: node})
	case pgwire.MsgQuery:
		k.query(it)
	default:
		k.r.push(expectation{typ: it.typ, unit: it.unit})
		if it.typ == pgwire.MsgExecute && it.unit != nil && it.unit.Effects != nil {
			k.deallocate(it.unit)
			k.failed = k.failed && !leavesFailure(it.unit)
		}
	}
}

// leavesFailure says whether executing a unit in a failed transaction brings the session out of it.
func leavesFailure(u *router.Unit) bool {
	for i := range u.Effects {
		if kind := u.Effects[i].Kind; kind.EndsTransaction() || kind == router.EffectRollbackTo {
			return true
		}
	}
	return false
}

// deallocate plans what executing a unit does to statements: what stands behind it finds them gone.
func (k *composer) deallocate(u *router.Unit) {
	for i := range u.Effects {
		switch e := &u.Effects[i]; e.Kind {
		case router.EffectDeallocateAll, router.EffectDiscardAll:
			k.s.plan = append(k.s.plan, planned{all: true})
			k.s.sent = append(k.s.sent, definition{all: true})
		case router.EffectDeallocate:
			k.setPlan(e.Name, 0)
			k.s.sent = append(k.s.sent, definition{name: e.Name})
		}
	}
}

// parse plans a Parse.
func (k *composer) parse(c *chunk, i int) {
	it := &c.items[i]
	if it.st.parse != nil {
		k.mentioned(it.st.unit, it.st.parse, it.at) // EXECUTE has the rows of what it names
	}
	name, node := string(it.name), string(it.name)
	if name == "" {
		// The node drops the old one before it looks at the new text, unless it skips to the next Sync.
		k.l.unnamed = unknownStatement
	} else {
		before := chunk{items: c.items[:i]}
		old := k.s.lookup(&before, it.name)
		switch {
		case !k.l.shared:
			k.provide(old, it.name, it.at)
		case old != nil:
			// The client has such a statement: the node is made to have one, and says so in its own words.
			if k.version(name) == 0 {
				k.stand(name, it.at)
			}
		default:
			node = it.st.node
			k.clear(node, it.at)
		}
	}
	k.rename(it, node)
	k.setPlan(node, it.st.version)
	k.s.sent = append(k.s.sent, definition{name: name, st: it.st})
	k.r.push(expectation{typ: it.typ, st: it.st, name: name, node: node})
	whole := c.rest == 0 || i+1 < len(c.items)
	if name != "" && whole && !describes(c.items[i+1:], it.name) {
		// The shape of its rows must be known before the statement is used on another lease.
		k.before(it.end)
		k.out = pgwire.AppendDescribe(k.out, pgwire.KindStatement, node)
		k.r.push(expectation{typ: pgwire.MsgDescribe, kind: pgwire.KindStatement, swallow: true, st: it.st, node: node})
	}
}

// rename puts the name of a statement on the node into a message of the client's.
func (k *composer) rename(it *item, node string) {
	if node == string(it.name) {
		return
	}
	k.before(it.at)
	head := k.b[it.at : it.at+pgwire.HeaderSize]
	length := int(binary.BigEndian.Uint32(head[1:])) + len(node) - len(it.name)
	k.out = binary.BigEndian.AppendUint32(append(k.out, head[0]), uint32(length))
	at := it.at + pgwire.HeaderSize
	skip := 0 // in front of the name: a Bind's portal, a Describe's kind
	switch it.typ {
	case pgwire.MsgBind:
		skip = len(it.portal) + 1
	case pgwire.MsgDescribe:
		skip = 1
	}
	k.out = append(append(k.out, k.b[at:at+skip]...), node...)
	k.copied = at + skip + len(it.name)
}

// describes says whether the client's next message describes the statement.
func describes(items []item, name []byte) bool {
	return len(items) > 0 && items[0].typ == pgwire.MsgDescribe && items[0].kind == pgwire.KindStatement &&
		string(items[0].name) == string(name)
}

// mentioned makes the lease have all the client's statements where the text may speak of them in SQL:
// EXECUTE, DEALLOCATE, pg_prepared_statements.
func (k *composer) mentioned(u *router.Unit, text []byte, at int) {
	if len(k.s.named) == 0 && len(k.s.sent) == 0 || !mentionsStatements(u, text, statementWords) {
		return
	}
	uses := mentionsStatements(u, text, claimingWords)
	if uses && k.failed {
		return // what it uses cannot be made now
	}
	text = bytes.ToLower(text)
	all := !k.s.supplied && listsStatements(text)
	for name, st := range k.statements() {
		switch have := k.version(name); {
		case !k.l.shared && !all && !speaksOf(u, text, name):
		case !k.l.shared && k.failed:
			if have == 0 {
				k.stand(name, at)
			}
		case !k.l.shared:
			k.provide(st, []byte(name), at)
		case st.parse == nil || !speaksOf(u, text, name):
		// Under the client's own name, beside the one that is shared.
		case uses && have != st.version:
			k.clear(name, at)
			k.make(st, name, at)
		case !uses && have == 0:
			k.stand(name, at)
		}
	}
}

// statements is what the client has by name when the present message is reached.
func (k *composer) statements() map[string]*statement {
	if len(k.s.sent) == 0 {
		return k.s.named
	}
	now := maps.Clone(k.s.named)
	if now == nil {
		now = make(map[string]*statement)
	}
	for _, d := range k.s.sent {
		switch {
		case d.all:
			clear(now)
		case d.name == "":
		case d.st == nil:
			delete(now, d.name)
		default:
			now[d.name] = d.st
		}
	}
	return now
}

// standIn is the version of an empty statement that is there to be dropped.
const standIn = ^uint64(0)

// stand makes the lease have an empty statement under the given name: DEALLOCATE asks for no more, and the
// client's own may not be possible any more.
func (k *composer) stand(name string, at int) {
	k.before(at)
	k.out = pgwire.AppendParse(k.out, name, "", pgwire.OIDs{})
	k.r.push(expectation{typ: pgwire.MsgParse, swallow: true, st: &statement{version: standIn}, node: name, ahead: k.ahead})
	k.setPlan(name, standIn)
}

// query plans a simple query: it ends the unnamed statement.
func (k *composer) query(it *item) {
	k.ahead = true
	k.mentioned(it.unit, k.b[it.at:it.end], it.at)
	k.ahead = false
	k.setPlan("", 0)
	k.r.push(expectation{typ: it.typ, unit: it.unit})
}

// provide makes the lease have st in front of the message at at, and returns what it is called there; st is nil
// when the client has no such statement, and then the lease must not have one of that name either.
func (k *composer) provide(st *statement, name []byte, at int) (node string) {
	k.s.renewed(st, name, k.l)
	node = k.l.called(name, st)
	have := k.version(node)
	var want uint64
	if st != nil {
		want = st.version
	}
	if on := k.l.named[node]; on != nil {
		on.used = k.l.tick
	}
	switch {
	case have == want || st != nil && st.parse == nil:
	case st == nil:
		k.clear(node, at)
	case node == "":
		k.make(st, node, at)
	default:
		k.clear(node, at)
		k.make(st, node, at)
	}
	return node
}

// clear makes the lease have no statement of that name.
func (k *composer) clear(node string, at int) {
	if k.version(node) == 0 {
		return
	}
	k.before(at)
	k.out = pgwire.AppendClose(k.out, pgwire.KindStatement, node)
	k.r.push(expectation{typ: pgwire.MsgClose, kind: pgwire.KindStatement, swallow: true, node: node, ahead: k.ahead})
	k.setPlan(node, 0)
}

// make prepares st on the lease under the given name.
func (k *composer) make(st *statement, node string, at int) {
	k.before(at)
	k.out = appendParse(k.out, st, node)
	k.r.push(expectation{typ: pgwire.MsgParse, swallow: true, st: st, node: node, ahead: k.ahead})
	k.setPlan(node, st.version)
}

// appendParse appends the Parse of a statement under another name than the client's.
func appendParse(to []byte, st *statement, node string) []byte {
	body := st.parse[pgwire.HeaderSize:]
	body = body[bytes.IndexByte(body, 0)+1:]
	to = binary.BigEndian.AppendUint32(append(to, pgwire.MsgParse), uint32(4+len(node)+1+len(body)))
	return append(append(append(to, node...), 0), body...)
}

// evict closes what the lease has in excess of maxPrepared, that which was used longest ago first.
func (k *composer) evict() {
	if k.r.skipping {
		return // the node would not hear it
	}
	for excess := len(k.l.named) - maxPrepared; excess > 0; excess-- {
		oldest, used := "", k.l.tick
		for name, on := range k.l.named {
			if on.used < used && k.version(name) != 0 {
				oldest, used = name, on.used
			}
		}
		if oldest == "" {
			return
		}
		k.clear(oldest, k.copied)
	}
}

// maxPrepared is how many prepared statements a shared connection keeps.
const maxPrepared = 200
