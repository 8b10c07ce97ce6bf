package proxy

import (
	"encoding/binary"
	"slices"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// rowShape is what of a row description a cached plan must not change: names, types and type
// modifiers of the columns. It is never empty, not even for a statement without rows.
func rowShape(typ byte, body []byte) []byte {
	shape := []byte{typ}
	if typ != pgwire.MsgRowDescription {
		return shape
	}
	rows, err := pgwire.ParseRowDescription(body)
	if err != nil {
		return shape
	}
	for {
		c, ok := rows.Next()
		if !ok {
			return shape
		}
		shape = append(append(shape, c.Name...), 0)
		shape = binary.BigEndian.AppendUint32(shape, c.Type)
		shape = binary.BigEndian.AppendUint32(shape, uint32(c.TypeMod))
	}
}

// anotherShape is the version under which a lease has a statement whose rows are not those that the
// client knows: it is made again, and looked at again, whenever the client uses it.
const anotherShape = ^uint64(0)

// checkShapes makes sure that no statement which this lease does not have yet would give the client other
// rows than on the lease where it was prepared: PostgreSQL refuses that (0A000), and a client that was not
// told would decode the rows wrongly. It costs a round trip at a statement's first use on a lease, for the unnamed one when
// the client was told of its rows in an earlier unit and the lease does not have it any more.
// The problem is the node's or ours; the error is the lease's.
func (s *session) checkShapes(c *chunk, l *lease) (*problem, error) {
	if s.batch != nil || s.st.tx == txFailed {
		return nil, nil
	}
	for i := range c.items {
		it := &c.items[i]
		if it.st == nil || it.st.shape == nil || it.st.parse == nil || it.typ == pgwire.MsgParse || it.typ == pgwire.MsgClose {
			continue
		}
		if it.st.unit != nil && it.st.unit.Flags&router.FlagLateRows != 0 {
			continue // PostgreSQL does not hold it to what Describe said
		}
		s.renewed(it.st, it.name, l)
		if l.hasShape(l.called(it.name, it.st), it.st) {
			continue
		}
		if p, err := s.checkShape(it, l); p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil
}

// hasShape says whether the lease has the statement under a name, with the rows that the client knows of. The unnamed one
// belongs to one session, whose rows the node itself compares for as long as it has it.
func (l *lease) hasShape(node string, st *statement) bool {
	if node == "" {
		return l.unnamed == st.version
	}
	on := l.named[node]
	return on != nil && on.version == st.version && (on.shape == nil || slices.Equal(on.shape, st.shape))
}

// checkShape prepares one statement on the lease and compares its rows.
func (s *session) checkShape(it *item, l *lease) (*problem, error) {
	r := s.relaying()
	r.reset(s, l)
	out := s.scratch[:0]
	name := l.called(it.name, it.st)
	if name == "" {
		l.unnamed = unknownStatement // the node drops it before it looks at the text
	} else if l.version(name) != 0 {
		out = pgwire.AppendClose(out, pgwire.KindStatement, name)
		r.push(expectation{typ: pgwire.MsgClose, kind: pgwire.KindStatement, swallow: true, node: name})
	}
	out = appendParse(out, it.st, name)
	r.push(expectation{typ: pgwire.MsgParse, swallow: true, st: it.st, node: name})
	out = pgwire.AppendDescribe(out, pgwire.KindStatement, name)
	fresh := &statement{}
	r.push(expectation{typ: pgwire.MsgDescribe, kind: pgwire.KindStatement, swallow: true, st: fresh, node: name})
	out = pgwire.AppendSync(out)
	r.push(expectation{typ: pgwire.MsgSync, swallow: true})
	s.scratch = out
	r.quote = true
	if err := s.asks(l, out); err != nil {
		return nil, err
	}
	switch {
	case r.clientErr != nil:
		return clientGone(r.clientErr), nil
	case r.fatal != nil:
		return nil, errLeaseEnded
	case r.failed:
		return &problem{raw: r.refusal}, nil
	case !slices.Equal(fresh.shape, it.st.shape):
		l.prepared(name, anotherShape)
		p := problemShape()
		if it.typ == pgwire.MsgDescribe {
			// PostgreSQL tells the parameters before it looks whether the plan still holds.
			p.before = pgwire.AppendMessage(nil, pgwire.MsgParameterDescription, fresh.params)
		}
		return p, nil
	}
	return nil, nil
}
