package proxy

import (
	"bytes"
	"strings"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// readies sees to the prepared statements that the chunk needs. The problem is the client's; the error is the lease's.
func (s *session) readies(c *chunk, l *lease) (*problem, error) {
	if err := s.claim(c, l); err != nil {
		return nil, err
	}
	return s.checkShapes(c, l)
}

// claim makes a shared lease the session's own where the chunk may speak of prepared statements in SQL: they
// have the client's names there, and nobody else's are seen. What the lease lacks of the client's is prepared, in units of its
// own: in the client's it would take a snapshot, behind which SET TRANSACTION is refused, and one that cannot be
// prepared any more would fail what does not speak of it. The error is the lease's.
func (s *session) claim(c *chunk, l *lease) error {
	s.supplied = false
	if s.batch != nil || !l.shared && len(s.named) == 0 || !s.mentions(c) {
		return nil
	}
	r := s.relaying()
	r.reset(s, l)
	r.quote = true
	e := errand{r: r, out: s.scratch[:0]}
	if l.shared {
		for name := range l.named {
			e.close(name) // unlike DEALLOCATE it is done in a failed transaction, and takes no snapshot
		}
		e.sync()
	}
	switch {
	case s.st.tx == txIdle || s.deferred.text != "":
		e.supply(l, s.lacking(l, nil))
		s.supplied = true
	case s.st.tx == txFailed && c.end == endQuery && len(c.items) == 1:
		e.supplyFailed(s, l, &c.items[0])
	}
	s.scratch = e.out
	if len(e.out) > 0 {
		if err := s.asks(l, e.out); err != nil {
			return err
		}
		switch {
		case r.fatal != nil:
			return errLeaseEnded
		case r.clientErr != nil:
			return r.clientErr
		}
	}
	if l.shared {
		l.owned, l.shared, l.conn.Dirty = 0, false, true
	}
	return nil
}

// errand is messages of ours to a node whose answers concern the lease only.
type errand struct {
	r   *relay
	out []byte
}

// close adds a Close of a statement.
func (e *errand) close(node string) {
	e.out = pgwire.AppendClose(e.out, pgwire.KindStatement, node)
	e.r.push(expectation{typ: pgwire.MsgClose, kind: pgwire.KindStatement, swallow: true, node: node})
}

// sync ends a unit, if anything was added to it.
func (e *errand) sync() {
	if len(e.out) == 0 {
		return
	}
	e.out = pgwire.AppendSync(e.out)
	e.r.push(expectation{typ: pgwire.MsgSync, swallow: true})
}

// query adds a simple query.
func (e *errand) query(sql string) {
	e.out = pgwire.AppendQuery(e.out, sql)
	e.r.push(expectation{typ: pgwire.MsgQuery, swallow: true})
}

// supply adds what prepares statements, a unit for each.
func (e *errand) supply(l *lease, lacking []definition) {
	for _, d := range lacking {
		if l.version(d.name) != 0 && !l.shared { // those of a shared one are closed by then
			e.close(d.name)
		}
		e.out = appendParse(e.out, d.st, d.name)
		e.r.push(expectation{typ: pgwire.MsgParse, swallow: true, st: d.st, node: d.name})
		e.sync()
	}
}

// lacking is the client's statements that a lease of its own has not got under their names; wanted limits them to some, nil
// is all.
func (s *session) lacking(l *lease, wanted func(name string) bool) (lacking []definition) {
	for name, st := range s.named {
		if st.parse == nil || !l.shared && l.version(name) == st.version || wanted != nil && !wanted(name) {
			continue
		}
		lacking = append(lacking, definition{name: name, st: st})
	}
	return lacking
}

// supplyFailed does it where a string that begins by leaving the failed transaction uses statements: what it leaves is left ahead
// of it, and stands there failed again behind them.
func (e *errand) supplyFailed(s *session, l *lease, it *item) {
	if it.unit == nil || len(it.unit.Effects) == 0 {
		return
	}
	first := &it.unit.Effects[0]
	if first.Statement != 0 || first.AndChain {
		return
	}
	var leave, enter string
	switch first.Kind {
	case router.EffectRollback, router.EffectCommit:
		leave, enter = "ROLLBACK", "BEGIN"
	case router.EffectRollbackTo:
		leave = "ROLLBACK TO SAVEPOINT " + quoteIdent(first.Name)
	default:
		return
	}
	b := s.client.Buffered()
	text := b[it.at:min(it.end, len(b))]
	lacking := s.lacking(l, func(name string) bool { return speaksOf(it.unit, text, name) })
	if len(lacking) == 0 {
		return
	}
	e.query(leave)
	e.supply(l, lacking)
	if enter != "" {
		e.query(enter)
	}
	e.out = pgwire.AppendBind(e.out, "", reservedStatement)
	e.r.push(expectation{typ: pgwire.MsgBind, swallow: true})
	e.sync()
}

// mentions says whether the chunk may speak of prepared statements in SQL, so that the lease must be the session's own.
func (s *session) mentions(c *chunk) bool {
	b := s.client.Buffered()
	for i := range c.items {
		it := &c.items[i]
		switch {
		case it.typ == pgwire.MsgQuery:
			if mentionsStatements(it.unit, b[it.at:min(it.end, len(b))], claimingWords) {
				return true
			}
		case it.typ != pgwire.MsgClose && it.st != nil:
			if mentionsStatements(it.st.unit, it.st.parse, claimingWords) {
				return true
			}
		}
	}
	return false
}

// What SQL cannot do without when it speaks of prepared statements. DEALLOCATE needs only the one that it names.
var (
	statementWords = []string{"execute", "prepare", "deallocate"}
	claimingWords  = []string{"execute", "prepare"}
)

// mentionsStatements says whether a text may speak of prepared statements. A read does not: the view that
// shows them is for the primary.
func mentionsStatements(u *router.Unit, text []byte, words []string) bool {
	if u == nil || u.Class == router.ClassRead && u.Effects == nil {
		return false
	}
	for _, word := range words {
		for rest := text; len(rest) >= len(word); rest = rest[1:] {
			if rest[0]|0x20 == word[0] && bytes.EqualFold(rest[:len(word)], []byte(word)) && !deallocatePrepare(word, text[:len(text)-len(rest)]) {
				return true
			}
		}
	}
	return false
}

// deallocatePrepare says whether a word is the PREPARE of DEALLOCATE PREPARE, which says nothing: before is what stands in front.
func deallocatePrepare(word string, before []byte) bool {
	const deallocate = "deallocate"
	before = bytes.TrimRight(before, " \t\r\n\f\v")
	at := len(before) - len(deallocate)
	return word == "prepare" && at >= 0 && bytes.EqualFold(before[at:], []byte(deallocate))
}

// listsStatements says whether a text may show all of the client's statements.
func listsStatements(text []byte) bool {
	return bytes.Contains(bytes.ToLower(text), []byte("pg_prepared_statements"))
}

// speaksOf says whether a text may speak of a statement by its name: in SQL letters may be of any
// case, quotes are doubled, and anything may be written as an escape.
func speaksOf(u *router.Unit, text []byte, name string) bool {
	for i := range u.Effects {
		if e := &u.Effects[i]; e.Kind == router.EffectDeallocate && e.Name == name {
			return true
		}
	}
	text = bytes.ToLower(text)
	return strings.Contains(name, `"`) || bytes.Contains(text, []byte(`u&"`)) || containsWord(text, bytes.ToLower([]byte(name)))
}

// containsWord says whether a text has a word that is not a part of a longer identifier.
func containsWord(text, word []byte) bool {
	for at := 0; ; at++ {
		i := bytes.Index(text[at:], word)
		if i < 0 {
			return false
		}
		at += i
		end := at + len(word)
		if (at == 0 || !inIdentifier(text[at-1])) && (end == len(text) || !inIdentifier(text[end])) {
			return true
		}
	}
}

// inIdentifier says whether a byte may stand in an identifier that is not quoted.
func inIdentifier(b byte) bool {
	return b == '_' || b == '$' || b >= 0x80 || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}
