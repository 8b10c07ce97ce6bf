package proxy

import (
	"slices"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/router"
)

// maxDoubts bounds how many units a session remembers until the catalog tells about them.
const maxDoubts = 32

// maxDoubt bounds how long a session whose opaque statements are reset keeps its connection because of a doubt.
const maxDoubt = int64(500 * time.Millisecond)

// doubtful is a text that may be opaque, and its unit at the time. Texts that differ only in constants which
// decide nothing have one unit, and one of them answers for all.
type doubtful struct {
	text string
	unit *router.Unit
	view *router.Catalog // which was asked and did not know its names; nil: none was asked
}

// doubt remembers the texts of a chunk that counts as opaque only because it used names which the
// catalog view does not know yet, as after a CREATE TABLE: whether the session has to be pinned is
// decided when the view knows them. false: the texts are not there any more, or too many.
func (s *session) doubt(c *chunk) bool {
	if c.n == 0 || c.rest > 0 {
		return false
	}
	b := s.client.Buffered()
	for i := range c.items {
		it := &c.items[i]
		if it.unit == nil || it.unit.Flags&router.FlagOpaque == 0 {
			continue
		}
		known := slices.ContainsFunc(s.doubts, func(d doubtful) bool { return d.unit == it.unit })
		switch {
		case known:
		case it.typ == pgwire.MsgQuery:
			sql, err := pgwire.ParseQuery(b[it.at+pgwire.HeaderSize : it.end])
			if err != nil || !s.remember(sql, it.unit) {
				return false
			}
		case it.typ == pgwire.MsgBind: // it tells for its Execute
			if sql, ok := it.st.sql(); !ok || !s.remember(sql, it.unit) {
				return false
			}
		}
	}
	return true
}

// remember adds to the doubts; false: there are too many, or they are too long.
func (s *session) remember(sql []byte, u *router.Unit) bool {
	size := len(sql)
	for i := range s.doubts {
		size += len(s.doubts[i].text)
	}
	if len(s.doubts) >= maxDoubts || size > maxText {
		return false
	}
	if len(s.doubts) == 0 {
		s.doubtsSince = health.Clock()
	}
	s.doubts = append(s.doubts, doubtful{text: string(sql), unit: u})
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
// Inside a transaction nobody else can see that yet. A view that does not know a name may be older than it, so
// the next one has the last word: what that does not know either is gone, and nobody can say what it did.
func (s *session) resolveDoubts() {
	if len(s.doubts) == 0 || s.st.tx != txIdle || s.batch != nil {
		return
	}
	if s.resetsOpaque() && health.Clock()-s.doubtsSince > maxDoubt {
		s.doubtless(router.FlagOpaque | router.FlagLasting)
		s.forgetDoubts()
		return
	}
	if s.env.Catalog == nil || s.txDDL {
		return
	}
	left := s.doubts[:0]
	for _, d := range s.doubts {
		if d.view == s.env.Catalog {
			left = append(left, d)
			continue
		}
		u := s.srv.classifier.Classify([]byte(d.text), &s.env)
		flags := u.Flags
		if l := s.leases[slotPrimary]; l != nil {
			s.leavesNames(l, u)
		}
		switch {
		case flags&router.FlagOpaque == 0:
			s.doubtless(flags)
		case flags&router.FlagUnknownName != 0 && d.view == nil:
			d.view = s.env.Catalog
			left = append(left, d)
		default:
			s.doubtless(flags)
		}
	}
	clear(s.doubts[len(left):]) // the texts and units are not kept alive
	s.doubts = left
}

// doubtless notes what something that was in doubt may have left. It ran on the primary's lease, which the session has
// kept.
func (s *session) doubtless(flags router.Flag) {
	l := s.leases[slotPrimary]
	if l == nil {
		return
	}
	if flags&router.FlagOpaque != 0 {
		s.leftOpaque(l, flags&router.FlagLasting != 0)
	}
	if flags&router.FlagNextval != 0 && s.target.Pooled {
		l.sequences = s.serial
	}
}

// onlyDoubtfulNextval says whether what of a chunk may have called nextval is remembered as doubtful.
func onlyDoubtfulNextval(c *chunk) bool {
	for i := range c.items {
		if u := c.items[i].unit; u != nil && u.Flags&router.FlagNextval != 0 && u.Flags&router.FlagOpaque == 0 {
			return false
		}
	}
	return true
}

// forgetDoubts forgets what was in doubt.
func (s *session) forgetDoubts() {
	clear(s.doubts)
	s.doubts = s.doubts[:0]
}

// refreshed is the unit of a prepared statement as its names are to be read now: settings and catalog may
// have changed since it was prepared.
func (s *session) refreshed(st *statement) *router.Unit {
	s.environment()
	if st.env == s.envOf {
		return st.unit
	}
	if sql, ok := st.sql(); ok {
		st.unit, st.env = s.understand(sql), s.envOf
	}
	return st.unit
}
