package proxy

import (
	"pgweir/internal/pgwire"
	"pgweir/router"
)

// maxDoubts bounds how many texts a session remembers until the catalog tells about them.
const maxDoubts = 32

// doubt remembers the texts of a chunk that counts as opaque only because it used names which the
// catalog view does not know yet, as after a CREATE TABLE: whether the session has to be pinned is
// decided when the view knows them. false: the texts are not there any more, or too many.
func (s *session) doubt(c *chunk) bool {
	if c.n == 0 || c.rest > 0 || len(s.doubts)+len(c.items) > maxDoubts {
		return false
	}
	b := s.client.Buffered()
	for i := range c.items {
		it := &c.items[i]
		if it.unit == nil || it.unit.Flags&router.FlagOpaque == 0 {
			continue
		}
		switch it.typ {
		case pgwire.MsgQuery:
			sql, err := pgwire.ParseQuery(b[it.at+pgwire.HeaderSize : it.end])
			if err != nil {
				return false
			}
			s.doubts = append(s.doubts, string(sql))
		case pgwire.MsgBind, pgwire.MsgExecute:
			sql, ok := it.st.sql()
			if it.typ == pgwire.MsgExecute {
				continue // its Bind tells
			}
			if !ok {
				return false
			}
			s.doubts = append(s.doubts, string(sql))
		}
	}
	return true
}

// sql is the text of a statement; ok is false when it is not kept.
func (st *statement) sql() (sql []byte, ok bool) {
	if st == nil || st.parse == nil {
		return nil, false
	}
	v, err := pgwire.ParseParse(st.parse[pgwire.HeaderSize:])
	return v.SQL, err == nil
}

// resolveDoubts looks again at what was in doubt, with a view that knows what was created meanwhile.
// Inside a transaction nobody else can see that yet.
func (s *session) resolveDoubts() {
	if len(s.doubts) == 0 || s.env.Catalog == nil || s.st.tx != txIdle || s.batch != nil || s.txDDL {
		return
	}
	for _, text := range s.doubts {
		if s.srv.classifier.Classify([]byte(text), &s.env).Flags&router.FlagOpaque != 0 {
			s.st.pins[router.PinOpaque] = true
		}
	}
	s.doubts = s.doubts[:0]
}

// refreshed is the unit of a prepared statement as its names are to be read now: settings and catalog may
// have changed since it was prepared.
func (s *session) refreshed(st *statement) *router.Unit {
	env := s.environment()
	if st.env == s.envOf {
		return st.unit
	}
	if sql, ok := st.sql(); ok {
		st.unit, st.env = s.srv.classifier.Classify(sql, env), s.envOf
	}
	return st.unit
}
