package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// Bounds of what is collected before anything is sent.
const (
	maxChunk = 64 << 10 // bytes of a unit that are read before it is bound to a node, beside its long texts
	maxText  = 1 << 20  // bytes of SQL, where a message has more than maxChunk, that are read as a whole: it decides
	// maxEffects is how many changes of the session's state a text may make, of maxChunk bytes altogether. Each is carried out in
	// the time that what is there already takes, and stays, so a text with more counts as one that nobody has read.
	maxEffects = router.MaxEffects
	// silence is how long a client may leave a batch unfinished before what is there is sent: it
	// may rightly wait for an error or a CopyInResponse, which PostgreSQL sends without a Sync.
	silence = 20 * time.Millisecond
)

// ending is how a chunk ends.
type ending uint8

// The endings of a chunk.
const (
	endOpen      ending = iota // the batch goes on: the limit was reached, or the client fell silent
	endFlush                   // Flush
	endSync                    // Sync
	endQuery                   // a simple query, with or without an unfinished batch in front
	endFunction                // FunctionCall, likewise
	endTerminate               // Terminate
	endJunk                    // copy data outside of a COPY, which PostgreSQL ignores
)

// statement is one prepared statement as the client defined it.
type statement struct {
	parse   []byte       // the whole Parse message; nil when it is too long to keep
	unit    *router.Unit // what executing it may do, as read with env
	env     envKey
	shape   []byte // rowShape of what it returned where it was prepared first; nil: not known
	params  []byte // body of its ParameterDescription, kept only while shapes are compared
	version uint64 // the same for the same text, parameter types and settings that it depends on
	plans   string // settings.plans, where version belongs to it
	named   bool   // not the unnamed statement: nodes may share it under node
	node    string // what it is called on a lease that is shared
}

// item is one message of a chunk that has an answer.
type item struct {
	typ     byte
	kind    byte   // Describe, Close: pgwire.KindStatement or KindPortal
	meaning int32  // where the last item before it stands, from 1, that may change what a name means; 0: nowhere
	at, end int    // its bytes in the chunk
	name    []byte // of the statement; in the client's buffer
	portal  []byte // Bind, Execute, Describe, Close of a portal
	st      *statement
	unit    *router.Unit // Query and Execute: what it may do
}

// chunk is what is read from the client and sent in one piece: a simple query, a batch up to
// its Sync or Flush, or as much of a longer one as fits. Its bytes are the first n of the
// client's buffer and stay there until the chunk is settled, so that it can be sent again.
type chunk struct {
	n     int // bytes
	end   ending
	items []item
	unit  *router.Unit // all of it joined; nil when it holds nothing that runs
	texts int          // bytes of messages with SQL that are longer than maxChunk
	// rest is how many bytes of the last message are still to be read and passed through.
	rest     int
	executes bool // something in it runs
	limited  bool // an Execute with a row limit
	portals  bool // a Bind to a named portal
}

// collect reads one chunk. inBatch says that it continues a batch. The error is the client
// link's, or a *pgwire.ProtocolError that ends the connection.
func (s *session) collect(inBatch bool) error {
	if err := s.collectMeasured(inBatch); err != nil {
		return err
	}
	if err := s.rebase(); err != nil {
		return err
	}
	return s.parse(&s.chunk)
}

// collectMeasured begins a new chunk and finds how far it goes; parse is to follow.
func (s *session) collectMeasured(inBatch bool) error {
	for len(s.client.Buffered()) == 0 && s.work == nil {
		if err := s.fillClient(); err != nil {
			return err
		}
	}
	c := &s.wake().chunk
	*c = chunk{items: c.items[:0]}
	return s.measure(c, inBatch)
}

// measure finds how far the chunk goes.
func (s *session) measure(c *chunk, inBatch bool) error {
	for {
		b := s.client.Buffered()
		typ, size, err := pgwire.ParseHeader(b[c.n:])
		if errors.Is(err, io.ErrShortBuffer) {
			if open, err := s.more(c, inBatch); open || err != nil {
				return err
			}
			continue
		}
		if limit, ok := pgwire.ClientLimit(typ); !ok {
			return pgwire.UnexpectedClientMessage(typ)
		} else if err != nil || size > limit {
			return pgwire.ErrMessageLength
		}
		total := pgwire.HeaderSize + size
		long := total > maxChunk
		text := long && (typ == pgwire.MsgQuery || typ == pgwire.MsgParse) && c.texts+total <= maxText
		switch {
		case !text && c.n > 0 && c.n-c.texts+total > maxChunk:
			c.end = endOpen
			return nil
		case long && !text:
			return s.measureLong(c, typ, total, inBatch)
		case len(b)-c.n < total:
			if long && s.srv.cfg.GiveWay != nil {
				s.srv.cfg.GiveWay() // a client that is fast enough would never let the goroutine wait
			}
			if open, err := s.more(c, inBatch); open || err != nil {
				return err
			}
			continue
		}
		if typ == pgwire.MsgTerminate && c.n > 0 {
			c.end = endOpen
			return nil
		}
		stray := c.n == 0 && !inBatch
		c.n += total
		if text {
			c.texts += total
		}
		if end, ok := endingOf(typ); ok && (end != endJunk || stray) {
			c.end = end
			return nil
		}
	}
}

// measureLong takes a message that is longer than a chunk: what has come of it is the chunk,
// the rest passes through.
func (s *session) measureLong(c *chunk, typ byte, total int, inBatch bool) error {
	for len(s.client.Buffered()) < maxChunk/2 {
		if err := s.fillClient(); err != nil {
			return err
		}
	}
	c.n = min(total, len(s.client.Buffered()))
	c.rest = total - c.n
	c.end = endOpen
	if end, ok := endingOf(typ); ok && (end != endJunk || !inBatch) {
		c.end = end
	}
	return nil
}

// more waits for more of the chunk; open says that the client fell silent within its batch.
func (s *session) more(c *chunk, inBatch bool) (open bool, err error) {
	if c.n == 0 {
		return false, s.fillClient()
	}
	if err := s.client.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return false, err
	}
	err = s.client.Fill()
	if e := s.noDeadline(); e != nil && err == nil {
		err = e
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if s.ctx.Err() != nil {
			return false, err
		}
		c.end = endOpen
		return true, nil
	}
	return false, err
}

// isCopy says whether a message belongs to a COPY FROM STDIN.
func isCopy(typ byte) bool {
	return typ == pgwire.MsgCopyData || typ == pgwire.MsgCopyDone || typ == pgwire.MsgCopyFail
}

// endingOf says whether a message ends a chunk, and how.
func endingOf(typ byte) (ending, bool) {
	switch typ {
	case pgwire.MsgSync:
		return endSync, true
	case pgwire.MsgFlush:
		return endFlush, true
	case pgwire.MsgQuery:
		return endQuery, true
	case pgwire.MsgFunctionCall:
		return endFunction, true
	case pgwire.MsgTerminate:
		return endTerminate, true
	}
	return endJunk, isCopy(typ)
}

// parse reads the messages of a measured chunk and classifies what they run.
func (s *session) parse(c *chunk) error {
	if s.batch == nil && !s.inDuplex {
		s.plan, s.sent = s.plan[:0], s.sent[:0]
	}
	b := s.client.Buffered()[:c.n]
	for at := 0; at < len(b); {
		typ, size, err := pgwire.ParseHeader(b[at:])
		if err != nil {
			return err
		}
		end := at + pgwire.HeaderSize + size
		it := item{typ: typ, at: at, end: end}
		at = end
		switch {
		case end > len(b):
			s.parseLong(c, &it, len(b))
			return nil
		case typ == pgwire.MsgSync || typ == pgwire.MsgFlush || typ == pgwire.MsgTerminate || typ == pgwire.MsgCopyData:
			continue // nothing answers it by itself; c.end says how the chunk ends
		}
		s.parseItem(c, &it, b[it.at+pgwire.HeaderSize:end])
	}
	return nil
}

// parseLong takes a message that is not there as a whole: nothing in it is looked at, so it runs
// on the primary.
func (s *session) parseLong(c *chunk, it *item, end int) {
	it.end = end
	switch it.typ {
	case pgwire.MsgCopyData:
		return
	case pgwire.MsgParse:
		b := s.client.Buffered()[it.at+pgwire.HeaderSize : end]
		it.name, _, _ = bytes.Cut(b, []byte{0})
		it.st = s.define(it.name, nil, s.srv.incomplete)
	case pgwire.MsgBind:
		b := s.client.Buffered()[it.at+pgwire.HeaderSize : end]
		it.portal, b, _ = bytes.Cut(b, []byte{0})
		it.name, _, _ = bytes.Cut(b, []byte{0})
		if it.st = s.lookup(c, it.name); it.st != nil {
			it.unit = it.st.unit
		}
	}
	whole := s.srv.incomplete
	switch it.typ {
	case pgwire.MsgQuery:
		whole = s.srv.unread
	case pgwire.MsgFunctionCall:
		whole = s.calls(s.client.Buffered()[it.at+pgwire.HeaderSize : end])
	}
	s.join(c, whole)
	c.executes = true
	if it.unit == nil {
		it.unit = whole
	}
	c.add(it)
}

// calls is what a FunctionCall may do, by the oid that its body begins with.
func (s *session) calls(body []byte) *router.Unit {
	if len(body) >= 4 && ofLargeObjects(binary.BigEndian.Uint32(body)) {
		return s.srv.largeObject
	}
	return s.srv.functionCall
}

// ofLargeObjects says whether a function is one of those of large objects, which drivers call by FunctionCall (libpq's
// fe-lobj.c): they leave nothing that outlives the transaction.
func ofLargeObjects(oid uint32) bool {
	switch oid { // pg_proc.dat
	case 952, 953, 954, 955, // lo_open, lo_close, loread, lowrite
		956, 957, 715, 958, // lo_lseek, lo_creat, lo_create, lo_tell
		964, 1004, // lo_unlink, lo_truncate
		3170, 3171, 3172: // lo_lseek64, lo_tell64, lo_truncate64
		return true
	}
	return false
}

// parseItem takes one whole message. A message whose body is malformed is left to the node,
// whose error it is.
func (s *session) parseItem(c *chunk, it *item, body []byte) {
	switch it.typ {
	case pgwire.MsgQuery:
		sql, err := pgwire.ParseQuery(body)
		it.unit = s.srv.incomplete
		if err == nil {
			it.unit = s.classify(sql)
		}
		if len(c.items) > 0 {
			s.join(c, s.srv.incomplete)
		}
		s.join(c, it.unit)
		c.executes = true
	case pgwire.MsgParse:
		v, err := pgwire.ParseParse(body)
		unit := s.srv.incomplete
		if err == nil {
			unit = s.classify(v.SQL)
			it.name = v.Name
		}
		b := s.client.Buffered()
		it.st = s.define(it.name, b[it.at:it.end], unit)
		s.joinUnbound(c, it.st.unit)
	case pgwire.MsgBind:
		v, err := pgwire.ParseBind(body)
		if err == nil {
			it.name, it.portal = v.Statement, v.Portal
			it.st = s.lookup(c, it.name)
			c.portals = c.portals || len(v.Portal) > 0
		}
		if it.st != nil {
			it.unit = s.refreshed(it.st)
			if err == nil && it.unit.Flags&router.FlagSettingParam != 0 {
				it.unit = bound(it.unit, it.st, v.Rest)
			}
			s.join(c, it.unit)
		}
	case pgwire.MsgDescribe, pgwire.MsgClose:
		it.kind, it.name, _ = pgwire.ParseDescribe(body)
		if it.kind == pgwire.KindStatement {
			it.st = s.lookup(c, it.name)
		} else {
			it.portal, it.name = it.name, nil
		}
		if it.st != nil && it.typ == pgwire.MsgDescribe {
			s.joinUnbound(c, s.refreshed(it.st))
		}
	case pgwire.MsgExecute:
		portal, limit, err := pgwire.ParseExecute(body)
		if err == nil {
			it.portal = portal
			c.limited = c.limited || limit > 0
		}
		it.unit = s.portalUnit(c, portal)
		s.join(c, it.unit)
		c.executes = true
	case pgwire.MsgFunctionCall:
		it.unit = s.calls(body)
		s.join(c, it.unit)
		c.executes = true
	}
	c.add(it)
}

// join adds what one message may do to what the chunk may do.
func (s *session) join(c *chunk, u *router.Unit) {
	switch {
	case u == nil || c.unit == u:
	case c.unit == nil:
		c.unit = u
	default:
		c.unit = router.Join(c.unit, u)
	}
}

// joinUnbound is join for a statement that is only parsed or described: what its parameters decide is told by Bind.
func (s *session) joinUnbound(c *chunk, u *router.Unit) {
	if u.Flags&router.FlagSettingParam == 0 {
		s.join(c, u)
	}
}

// bound is the unit of a statement that sets settings to its parameters, as a Bind gives them; u where they cannot
// be known.
func bound(u *router.Unit, st *statement, rest []byte) *router.Unit {
	args, err := pgwire.ParseArguments(rest)
	if err != nil || st.parse == nil {
		return u
	}
	v, err := pgwire.ParseParse(st.parse[pgwire.HeaderSize:])
	if err != nil {
		return u
	}
	known := u.Bound(func(param int) (string, bool, bool) {
		if param < 1 || param > args.Count || param <= v.Types.Len() && !isText(v.Types.At(param-1)) {
			return "", false, false
		}
		a := args
		var value []byte
		for range param {
			value, _ = a.Next()
		}
		return string(value), value == nil, true
	})
	if known == nil {
		return u
	}
	return known
}

// isText says whether values of a type are their own text, in both formats: left to the node, text or varchar.
func isText(oid uint32) bool { return oid == 0 || oid == 25 || oid == 1043 }

// define makes the statement that a Parse asks for. It is the session's only when the node
// has said ParseComplete. message is nil for one that is not there as a whole. One that is too long to keep stays where
// it was prepared, so that is on the primary, whatever it does.
func (s *session) define(name, message []byte, unit *router.Unit) *statement {
	var st *statement
	switch {
	case len(name) > 0:
		st = &statement{named: true}
	case s.inDuplex || s.parsesUnnamed():
		st = &statement{} // the object of the one before is still looked at
	default:
		// The two objects take turns: one is the session's, the other what is being asked for.
		s.turn = !s.turn
		st = s.unnamedOf(s.turn)
		if st == s.unnamed {
			s.turn = !s.turn
			st = s.unnamedOf(s.turn)
		}
	}
	st.unit, st.env, st.shape = unit, s.envOf, nil
	switch {
	case message == nil, len(name) > 0 && len(message) > maxChunk:
		st.parse = nil
		if unit != s.srv.incomplete {
			st.unit = router.Join(unit, s.srv.incomplete)
		}
	case cap(st.parse) > maxChunk:
		st.parse = bytes.Clone(message)
	default:
		st.parse = append(st.parse[:0], message...)
	}
	s.identify(st, len(name))
	return st
}

// parsesUnnamed says whether the chunk has a Parse of the unnamed statement already.
func (s *session) parsesUnnamed() bool {
	for i := range s.chunk.items {
		if s.chunk.items[i].typ == pgwire.MsgParse && len(s.chunk.items[i].name) == 0 {
			return true
		}
	}
	return false
}

// unnamedOf is one of the two objects for the unnamed statement.
func (s *session) unnamedOf(second bool) *statement {
	if s.unnamedPair == nil {
		s.unnamedPair = new([2]statement)
	}
	if second {
		return &s.unnamedPair[1]
	}
	return &s.unnamedPair[0]
}

// identify gives a statement the version that every session has for the same text under the same
// settings. What a FETCH returns is settled by the cursor that was open when it was prepared, and a server crashes when it is
// asked for it after that has gone (PostgreSQL 15.18), so nobody gets another's. nameLen is the length of the name in its Parse.
func (s *session) identify(st *statement, nameLen int) {
	st.plans = s.st.effective.plans
	if !st.named || !s.target.Pooled || st.parse == nil || st.unit.Flags&router.FlagLateRows != 0 {
		st.version = s.srv.statements.next()
	} else {
		st.version = s.srv.statements.intern(st.plans, st.parse[pgwire.HeaderSize+nameLen+1:])
	}
	if st.named && s.target.Pooled {
		st.node = s.srv.statements.name(st.version)
	}
}

// renewed makes a statement another one, on a lease that sessions share, when settings that its meaning may depend
// on have changed since it was identified.
func (s *session) renewed(st *statement, name []byte, l *lease) {
	if st != nil && st.named && l.shared && st.plans != s.st.effective.plans && st.parse != nil {
		s.identify(st, len(name))
	}
}

// deallocates says whether a statement is gone after a unit has run.
func deallocates(u *router.Unit, name []byte) bool {
	if u == nil || len(name) == 0 {
		return false
	}
	for i := range u.Effects {
		switch e := &u.Effects[i]; e.Kind {
		case router.EffectDeallocateAll, router.EffectDiscardAll:
			return true
		case router.EffectDeallocate:
			if e.Name == string(name) {
				return true
			}
		}
	}
	return false
}

// lookup is the statement that a name means at this point of the chunk, nil when there is none.
func (s *session) lookup(c *chunk, name []byte) *statement {
	for n := c.meaning(); n > 0; n = c.items[n-1].meaning {
		it := &c.items[n-1]
		if it.typ == pgwire.MsgExecute {
			if deallocates(it.unit, name) {
				return nil
			}
			continue
		}
		if string(it.name) != string(name) {
			continue
		}
		if it.typ == pgwire.MsgParse {
			return it.st
		}
		return nil // closed
	}
	if st, ok := s.defined(name); ok {
		return st
	}
	if len(name) == 0 {
		return s.unnamed
	}
	return s.named[string(name)]
}

// add appends an item.
func (c *chunk) add(it *item) {
	it.meaning = c.meaning()
	c.items = append(c.items, *it)
}

// meaning is where the last item stands, from 1, that may change what a name means; 0 when there is none.
func (c *chunk) meaning() int32 {
	n := len(c.items)
	if n == 0 {
		return 0
	}
	if it := &c.items[n-1]; !it.means() {
		return it.meaning
	}
	return int32(n)
}

// means says whether the item may change what the name of a statement means.
func (it *item) means() bool {
	switch it.typ {
	case pgwire.MsgParse:
		return true
	case pgwire.MsgClose:
		return it.kind == pgwire.KindStatement
	case pgwire.MsgExecute:
		return it.unit != nil && slices.ContainsFunc(it.unit.Effects, func(e router.Effect) bool {
			switch e.Kind {
			case router.EffectDeallocateAll, router.EffectDiscardAll, router.EffectDeallocate:
				return true
			}
			return false
		})
	}
	return false
}

// portalUnit is what executing a portal may do: that of its Bind.
func (s *session) portalUnit(c *chunk, portal []byte) *router.Unit {
	for i := len(c.items) - 1; i >= 0; i-- {
		it := &c.items[i]
		if it.typ == pgwire.MsgBind && string(it.portal) == string(portal) {
			return it.unit
		}
	}
	u := s.portals[string(portal)]
	if len(portal) == 0 {
		u = s.portal
	}
	if u != nil {
		return u
	}
	return s.srv.incomplete
}
