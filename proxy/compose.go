package proxy

import (
	"bytes"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// planned is a statement as it will be on the lease when the messages before the present one
// have been carried out.
type planned struct {
	name    string
	version uint64
}

// compose returns what is to be sent for the chunk, and pushes what is owed for it. Usually
// these are the client's own bytes; only where something has to go in front of one of its messages (a deferred
// BEGIN, a statement that the lease lacks) are they copied. The result is valid until the next
// compose or command.
func (s *session) compose(c *chunk, l *lease, r *relay) []byte {
	b := s.client.Buffered()[:c.n]
	k := composer{s: s, l: l, r: r, b: b, out: s.scratch[:0]}
	if s.deferred.text != "" {
		k.out = pgwire.AppendQuery(k.out, s.deferred.text)
		k.touched = true
		r.push(expectation{typ: pgwire.MsgQuery, kind: byte(txOpen), swallow: true})
		k.setPlan(nil, 0)
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
}

// before makes sure that all bytes of the client in front of at are in out.
func (k *composer) before(at int) {
	k.out = append(k.out, k.b[k.copied:at]...)
	k.copied, k.touched = at, true
}

// version is what the lease will have under name when the present message is reached.
func (k *composer) version(name []byte) uint64 {
	for i := len(k.s.plan) - 1; i >= 0; i-- {
		if k.s.plan[i].name == string(name) {
			return k.s.plan[i].version
		}
	}
	return k.l.version(name)
}

// setPlan records what the lease will have under name.
func (k *composer) setPlan(name []byte, version uint64) {
	k.s.plan = append(k.s.plan, planned{string(name), version})
}

// item plans one message.
func (k *composer) item(c *chunk, i int) {
	it := &c.items[i]
	switch it.typ {
	case pgwire.MsgParse:
		if len(it.name) > 0 {
			before := chunk{items: c.items[:i]}
			k.provide(k.s.lookup(&before, it.name), it.name, it.at)
		}
		if len(it.name) == 0 {
			// The node drops the old one before it looks at the new text.
			k.l.unnamed = 0
			k.s.defines("", nil)
		}
		k.setPlan(it.name, it.st.version)
		k.s.sent = append(k.s.sent, definition{string(it.name), it.st})
		k.r.push(expectation{typ: it.typ, st: it.st, name: string(it.name)})
		if len(it.name) > 0 && it.end <= len(k.b) && !describes(c.items[i+1:], it.name) {
			// The shape of its rows must be known before the statement is used on another lease.
			k.before(it.end)
			k.out = pgwire.AppendDescribe(k.out, pgwire.KindStatement, it.name)
			k.r.push(expectation{typ: pgwire.MsgDescribe, kind: pgwire.KindStatement, swallow: true, st: it.st})
		}
	case pgwire.MsgBind:
		k.provide(it.st, it.name, it.at)
		k.s.bound(it.portal, it.unit)
		k.r.push(expectation{typ: it.typ})
	case pgwire.MsgDescribe:
		if it.kind == pgwire.KindStatement {
			k.provide(it.st, it.name, it.at)
			k.r.push(expectation{typ: it.typ, kind: it.kind, st: it.st})
			return
		}
		k.r.push(expectation{typ: it.typ, kind: it.kind})
	case pgwire.MsgClose:
		if it.kind == pgwire.KindStatement {
			k.setPlan(it.name, 0)
			k.s.sent = append(k.s.sent, definition{string(it.name), nil})
		}
		k.r.push(expectation{typ: it.typ, kind: it.kind, name: string(it.name)})
	case pgwire.MsgQuery:
		k.query(it)
	case pgwire.MsgExecute:
		if it.st != nil && it.st.parse != nil {
			k.mentioned(it.st.parse, it)
		}
		k.r.push(expectation{typ: it.typ, unit: it.unit})
	default:
		k.r.push(expectation{typ: it.typ, unit: it.unit})
	}
}

// describes says whether the client's next message describes the statement.
func describes(items []item, name []byte) bool {
	return len(items) > 0 && items[0].typ == pgwire.MsgDescribe && items[0].kind == pgwire.KindStatement &&
		string(items[0].name) == string(name)
}

// mentioned makes the lease have all the client's statements where the text may speak of them in SQL:
// EXECUTE, DEALLOCATE, pg_prepared_statements.
func (k *composer) mentioned(text []byte, it *item) {
	if len(k.s.named) == 0 || it.unit.Class == router.ClassRead {
		return
	}
	lower := bytes.ToLower(text)
	if !bytes.Contains(lower, []byte("execute")) && !bytes.Contains(lower, []byte("deallocate")) &&
		!bytes.Contains(lower, []byte("pg_prepared_statement")) {
		return
	}
	for name, st := range k.s.named {
		k.provide(st, []byte(name), it.at)
	}
}

// query plans a simple query: it ends the unnamed statement.
func (k *composer) query(it *item) {
	k.mentioned(k.b[it.at:it.end], it)
	k.setPlan(nil, 0)
	k.r.push(expectation{typ: it.typ, unit: it.unit})
}

// provide makes the lease have st under name in front of the message at at; st is nil when the client
// has no such statement, and then the lease must not have one either.
func (k *composer) provide(st *statement, name []byte, at int) {
	have := k.version(name)
	var want uint64
	if st != nil {
		want = st.version
	}
	if have == want || (st != nil && st.parse == nil) {
		return
	}
	k.before(at)
	if have != 0 && (len(name) > 0 || st == nil) {
		k.out = pgwire.AppendClose(k.out, pgwire.KindStatement, name)
		k.r.push(expectation{typ: pgwire.MsgClose, kind: pgwire.KindStatement, swallow: true, name: string(name)})
	}
	if st != nil {
		k.out = append(k.out, st.parse...)
		k.r.push(expectation{typ: pgwire.MsgParse, swallow: true, st: st, name: string(name)})
	}
	k.setPlan(name, want)
}
