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
	e := s.errandTo(l)
	if l.shared {
		for name := range l.named {
			e.close(name) // unlike DEALLOCATE it is done in a failed transaction, and takes no snapshot
		}
		e.sync()
	}
	var err error
	switch {
	case s.st.tx == txIdle || s.deferred.text != "":
		err = e.supply(s.lacking(l, nil))
		s.supplied = true
	case s.st.tx == txFailed && c.end == endQuery && len(c.items) == 1:
		err = e.supplyFailed(&c.items[0])
	}
	if err == nil {
		err = e.run()
	}
	if err == nil && l.shared {
		l.owned, l.shared, l.conn.Dirty = 0, false, true
	}
	return err
}

// errand is messages of ours to a node whose answers concern the lease only.
type errand struct {
	s     *session
	l     *lease
	r     *relay
	out   []byte
	units int // in out
}

// errandTo is an errand without a message.
func (s *session) errandTo(l *lease) *errand {
	e := &errand{s: s, l: l, r: s.relaying()}
	e.begin()
	return e
}

// begin makes room for messages.
func (e *errand) begin() {
	e.r.reset(e.s, e.l)
	e.r.quote, e.out, e.units = true, e.s.scratch[:0], 0
}

// maxUnits is how many units an errand sends before it reads the answers, which may be errors.
const maxUnits = 100

// run sends what there is and takes the answers. The error is the lease's.
func (e *errand) run() error {
	e.s.scratch = e.out
	if len(e.out) == 0 {
		return nil
	}
	if err := e.s.asks(e.l, e.out); err != nil {
		return err
	}
	switch {
	case e.r.fatal != nil:
		return errLeaseEnded
	case e.r.clientErr != nil:
		return e.r.clientErr
	}
	e.begin()
	return nil
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
	e.units++
}

// query adds a simple query.
func (e *errand) query(sql string) {
	e.out = pgwire.AppendQuery(e.out, sql)
	e.r.push(expectation{typ: pgwire.MsgQuery, swallow: true})
}

// supply prepares statements, in a unit for each. The last of them may still be to be run.
func (e *errand) supply(lacking []definition) error {
	for _, d := range lacking {
		if e.l.version(d.name) != 0 && !e.l.shared { // those of a shared one are closed by then
			e.close(d.name)
		}
		e.out = appendParse(e.out, d.st, d.name)
		e.r.push(expectation{typ: pgwire.MsgParse, swallow: true, st: d.st, node: d.name})
		if e.sync(); e.units < maxUnits {
			continue
		}
		if err := e.run(); err != nil {
			return err
		}
	}
	return nil
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
func (e *errand) supplyFailed(it *item) error {
	if it.unit == nil || len(it.unit.Effects) == 0 {
		return nil
	}
	first := &it.unit.Effects[0]
	if first.Statement != 0 || first.AndChain {
		return nil
	}
	var leave, enter string
	switch first.Kind {
	case router.EffectRollback, router.EffectCommit:
		leave, enter = "ROLLBACK", "BEGIN"
	case router.EffectRollbackTo:
		leave = "ROLLBACK TO SAVEPOINT " + quoteIdent(first.Name)
	default:
		return nil
	}
	b := e.s.client.Buffered()
	text := bytes.ToLower(b[it.at:min(it.end, len(b))])
	lacking := e.s.lacking(e.l, func(name string) bool { return speaksOf(it.unit, text, name) })
	if len(lacking) == 0 {
		return nil
	}
	e.query(leave)
	if err := e.supply(lacking); err != nil {
		return err
	}
	if enter != "" {
		e.query(enter)
	}
	e.out = pgwire.AppendBind(e.out, "", reservedStatement)
	e.r.push(expectation{typ: pgwire.MsgBind, swallow: true})
	e.sync()
	return nil
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

// listsStatements says whether a text, in lower case, may show all of the client's statements.
func listsStatements(text []byte) bool {
	return bytes.Contains(text, []byte("pg_prepared_statements"))
}

// speaksOf says whether a text, in lower case, may speak of a statement by its name: in SQL letters may be of any
// case, quotes are doubled, and anything may be written as an escape.
func speaksOf(u *router.Unit, text []byte, name string) bool {
	for i := range u.Effects {
		if e := &u.Effects[i]; e.Kind == router.EffectDeallocate && e.Name == name {
			return true
		}
	}
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
