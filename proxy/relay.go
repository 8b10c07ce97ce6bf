package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

const (
	// maxWhole is the longest message of a node that is forwarded only when it is there as a
	// whole, so that a break falls between messages.
	maxWhole = 64 << 10
	// keepBack is how much of a standby's answer is kept while the class rests on the catalog.
	keepBack = 16 << 10
)

// expectation is one answer that a node owes.
type expectation struct {
	typ     byte         // the client's message that asked for it
	kind    byte         // Describe, Close: pgwire.KindStatement or KindPortal; a swallowed Query: the status it must leave
	swallow bool         // we asked, not the client
	ahead   bool         // … in front of a simple query, behind which no Sync comes
	unit    *router.Unit // Query, Execute
	st      *statement   // Parse, Bind; Describe: whose shape the answer tells
	name    string       // Parse, Close: the client's name of the statement
	node    string       // Parse, Describe, Close: the name on the node
	set     *settings    // a swallowed Query that went ahead: what the lease has behind it
}

// relay forwards a node's answers to the client until nothing more is owed. In a duplex
// exchange one goroutine runs it while another sends and pushes expectations; mu guards
// what both touch.
type relay struct {
	s    *session
	l    *lease
	node *pgwire.Link

	mu       sync.Mutex
	queue    []expectation
	head     int
	skipping bool // an error was answered: nothing before the next Sync is
	unsynced bool // … and that Sync is ours to send
	copyIn   bool // the node reads copy data
	open     bool // more will be pushed: an empty queue is not the end

	// The rest belongs to the goroutine that relays.
	duplex   bool // another goroutine sends meanwhile
	quote    bool // nothing is the client's: errors are only kept in refusal
	hold     bool // keep back up to keepBack bytes
	net      bool // a refusal of the standby may be swallowed
	wrote    bool // replies leave a write mark
	marks    bool // ReadyForQuery leaves a mark: data was seen or written
	discard  bool // swallow everything until ReadyForQuery
	anew     bool // nobody notices if the chunk is sent again behind its answer
	out, pos int  // the buffer: [:out] goes to the client, [out:pos] is dead, the rest unread
	through  int  // bytes of a long message still to come
	drop     bool // … which nobody gets

	seen       bool // the client was sent a byte
	cut        bool // … but not the end of the last message
	status     txBlock
	failed     bool // an ErrorResponse was among the client's answers
	code       [5]byte
	pointed    bool       // … which points into the client's text
	fatal      []byte     // body of the node's FATAL
	instead    []byte     // what the client gets in place of the message that was just taken
	refusal    []byte     // body of the error that something of ours was answered with
	unset      []byte     // body of the error that what went ahead was answered with; nil: it was not refused
	canceled   bool       // … by a cancel
	recancel   bool       // that cancel is to be passed on again
	unread     bool       // the node ended before it read what the client has sent
	none       bool       // a query of ours returned no row
	statements int        // of the client's simple query that have been completed
	signaled   bool       // the row that comes is of a signal to a session of ours
	cancels    []*session // of which a cancel was asked
	tag        byte       // 'C' COMMIT, 'R' ROLLBACK: the last of the two
	clientErr  error
	effects    []router.Effect // of the statements that were completed
	events     chan struct{}   // duplex: the node asks for copy data
}

// reset prepares for the answers of lease l.
func (r *relay) reset(s *session, l *lease) {
	queue, effects, events := r.queue[:0], r.effects[:0], r.events
	*r = relay{s: s, l: l, node: l.conn.Link, queue: queue, effects: effects, events: events, status: s.st.tx}
}

// push adds an expectation, unless an error has made the node skip what asked for it.
func (r *relay) push(e expectation) {
	if r.skipping {
		if e.typ != pgwire.MsgSync {
			return
		}
		r.skipping = false
	}
	r.queue = append(r.queue, e)
}

// done says whether nothing more is owed.
func (r *relay) done() bool {
	return r.front() == nil && !r.open && !r.copyIn && r.through == 0
}

// errHostile is an answer that no PostgreSQL gives.
var errHostile = errors.New("node broke the protocol")

// run forwards until nothing more is owed, or, where nobody else sends meanwhile, until the node
// asks for copy data. The error is the node's link's; an error of the
// client's link is left in clientErr and ends the run as well.
func (r *relay) run() error {
	for {
		if err := r.step(); err != nil || r.clientErr != nil || r.fatal != nil {
			return err
		}
		if r.recancel {
			r.cancelAgain()
		}
		r.mu.Lock()
		done := r.done() || r.copyIn && !r.duplex
		r.mu.Unlock()
		if done {
			return nil
		}
		if err := r.node.Fill(); err != nil {
			return err
		}
	}
}

// step looks at all that is buffered and forwards what may go.
func (r *relay) step() error {
	b := r.node.Buffered()
	err := r.scan(b)
	r.pass()
	r.mu.Lock()
	done := r.done() || r.copyIn
	r.mu.Unlock()
	if r.out > 0 && (done || err != nil || !r.hold || r.seen || r.out > keepBack || r.through > 0) {
		r.seen = true
		if e := r.s.client.Write(b[:r.out]); e != nil {
			r.clientErr, r.s.torn = e, true
		}
		r.out = 0
	}
	if r.out == 0 {
		r.node.Discard(r.pos)
		r.pos = 0
	}
	return err
}

// scan walks over the messages in b from pos on.
func (r *relay) scan(b []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.pos < len(b) {
		if r.through > 0 {
			n := min(r.through, len(b)-r.pos)
			r.take(b, n, !r.drop)
			r.through -= n
			r.cut = r.through > 0 && !r.drop
			continue
		}
		if r.done() {
			return nil
		}
		typ, size, err := pgwire.ParseHeader(b[r.pos:])
		if errors.Is(err, io.ErrShortBuffer) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errHostile, err)
		}
		total := pgwire.HeaderSize + size
		if total > len(b)-r.pos {
			if total <= maxWhole {
				return nil
			}
			keep, err := r.long(typ)
			if err != nil {
				return err
			}
			r.through, r.drop = total, !keep
			continue
		}
		if typ == pgwire.MsgDataRow || typ == pgwire.MsgCopyData {
			if r.signaled {
				r.signaled = false
				succeed(b[r.pos+pgwire.HeaderSize : r.pos+total])
			}
			e := r.front()
			r.take(b, total, !r.discard && (e == nil || !e.swallow))
			continue
		}
		keep, err := r.message(typ, b[r.pos+pgwire.HeaderSize:r.pos+total])
		if err != nil {
			return err
		}
		if r.instead != nil {
			r.out = r.replace(b)
			keep = false
		}
		r.take(b, total, keep)
		if r.fatal != nil {
			return nil
		}
	}
	return nil
}

// replace sends what is ready for the client and the message that stands in for the next one.
func (r *relay) replace(b []byte) (out int) {
	r.seen = true
	err := r.s.client.Write(b[:r.out])
	if err == nil {
		err = r.s.client.Write(r.instead)
	}
	r.instead = nil
	if err != nil {
		r.clientErr, r.s.torn = err, true
	}
	return 0
}

// take moves n bytes from the unread part to what goes to the client, or to what nobody gets.
func (r *relay) take(b []byte, n int, keep bool) {
	if keep {
		if r.out != r.pos {
			copy(b[r.out:], b[r.pos:r.pos+n])
		}
		r.out += n
	}
	r.pos += n
}

// long takes a message that is forwarded in pieces: only data is that long, or an error or a row
// description of a size that nothing here needs to read.
func (r *relay) long(typ byte) (keep bool, err error) {
	switch typ {
	case pgwire.MsgDataRow, pgwire.MsgCopyData, pgwire.MsgNoticeResponse:
		return !r.discard, nil
	case pgwire.MsgRowDescription, pgwire.MsgParameterDescription, pgwire.MsgFunctionCallResponse, pgwire.MsgErrorResponse:
		return r.message(typ, nil)
	}
	return false, fmt.Errorf("%w: message %q of more than %d bytes", errHostile, typ, maxWhole)
}

// message takes one message and says whether the client gets it. body is nil for a long one.
func (r *relay) message(typ byte, body []byte) (keep bool, err error) {
	if r.front() == nil && typ != pgwire.MsgErrorResponse && !isAsync(typ) && !r.copyIn {
		return false, fmt.Errorf("%w: message %q that nothing asked for", errHostile, typ)
	}
	switch typ {
	case pgwire.MsgParseComplete:
		return r.parsed()
	case pgwire.MsgBindComplete:
		return r.pop(pgwire.MsgBind, true)
	case pgwire.MsgCloseComplete:
		return r.closed()
	case pgwire.MsgParameterDescription:
		if e := r.front(); e != nil && r.quote && e.st != nil {
			e.st.params = append([]byte(nil), body...)
		}
		return r.pop(pgwire.MsgDescribe, false)
	case pgwire.MsgRowDescription, pgwire.MsgNoData:
		return r.described(typ, body)
	case pgwire.MsgCommandComplete, pgwire.MsgEmptyQueryResponse, pgwire.MsgPortalSuspended:
		return r.completed(typ, body)
	case pgwire.MsgFunctionCallResponse:
		return r.pop(pgwire.MsgFunctionCall, false)
	case pgwire.MsgCopyInResponse:
		return r.wantsCopy()
	case pgwire.MsgCopyOutResponse, pgwire.MsgCopyDone:
		return !r.discard, nil
	case pgwire.MsgErrorResponse:
		return r.error(body)
	case pgwire.MsgNoticeResponse:
		if r.signals(body) {
			return false, nil
		}
		e := r.front()
		if r.wrote && localOnly(body) {
			r.s.cluster.metrics.localOnly.Inc()
		}
		if bytes.Contains(body, []byte("C"+codeInvalidName+"\x00")) {
			r.s.st.removed(body)
		}
		return !r.discard && (e == nil || !e.swallow), nil
	case pgwire.MsgNotificationResponse:
		return r.s.notified(body)
	case pgwire.MsgParameterStatus:
		return r.parameter(body)
	case pgwire.MsgReadyForQuery:
		return r.ready(body)
	}
	return false, fmt.Errorf("%w: message of type %q", errHostile, typ)
}

// localOnly says whether a notice tells that a commit is acknowledged which its synchronous standby does
// not have: the wait for it was cancelled.
func localOnly(body []byte) bool {
	return bytes.Contains(body, []byte("C01000\x00")) && bytes.Contains(body, []byte("wait for synchronous replication"))
}

// isAsync says whether a node may send this at any time.
func isAsync(typ byte) bool {
	return typ == pgwire.MsgNoticeResponse || typ == pgwire.MsgNotificationResponse || typ == pgwire.MsgParameterStatus
}

// front is the oldest expectation, nil when there is none. The ends of copy data that nobody read
// are passed over.
func (r *relay) front() *expectation {
	for r.head < len(r.queue) && isCopy(r.queue[r.head].typ) {
		r.advance()
	}
	if r.head == len(r.queue) {
		return nil
	}
	return &r.queue[r.head]
}

// keep says whether the client gets the answer to e.
func (r *relay) keep(e *expectation) bool { return !e.swallow && !r.discard }

// pop takes an answer to a message of type typ; last says that it is the last one to it.
func (r *relay) pop(typ byte, last bool) (bool, error) {
	e := r.front()
	if e == nil || e.typ != typ {
		return false, fmt.Errorf("%w: an answer to %q out of order", errHostile, typ)
	}
	if last {
		r.advance()
	}
	return r.keep(e), nil
}

// described is the last answer to a Describe, or the beginning of a simple query's rows.
func (r *relay) described(typ byte, body []byte) (bool, error) {
	e := r.front()
	if e == nil {
		return false, fmt.Errorf("%w: RowDescription out of order", errHostile)
	}
	if e.typ == pgwire.MsgQuery {
		return r.keep(e), nil
	}
	if e.st != nil && (e.st.shape == nil || !e.swallow) {
		e.st.shape = rowShape(typ, body)
		r.l.shaped(e.node, e.st.shape)
	}
	return r.pop(pgwire.MsgDescribe, true)
}

// advance drops the oldest expectation.
func (r *relay) advance() {
	r.head++
	if r.head == len(r.queue) {
		r.queue, r.head = r.queue[:0], 0
	}
}

// parsed is ParseComplete: the lease has the statement, and the session once it is settled.
func (r *relay) parsed() (bool, error) {
	e := r.front()
	if e == nil || e.typ != pgwire.MsgParse {
		return false, fmt.Errorf("%w: ParseComplete out of order", errHostile)
	}
	x := *e
	r.advance()
	r.l.prepared(x.node, x.st.version)
	if !x.swallow {
		r.s.defines(x.name, x.st)
	}
	return r.keep(&x), nil
}

// closed is CloseComplete.
func (r *relay) closed() (bool, error) {
	e := r.front()
	if e == nil || e.typ != pgwire.MsgClose {
		return false, fmt.Errorf("%w: CloseComplete out of order", errHostile)
	}
	x := *e
	r.advance()
	if x.kind == pgwire.KindStatement {
		r.l.forget(x.node)
		if !x.swallow {
			r.s.defines(x.name, nil)
		}
	}
	return r.keep(&x), nil
}

// completed is the end of one statement.
func (r *relay) completed(typ byte, body []byte) (bool, error) {
	e := r.front()
	if e == nil || (e.typ != pgwire.MsgQuery && e.typ != pgwire.MsgExecute) {
		return false, fmt.Errorf("%w: CommandComplete out of order", errHostile)
	}
	x := *e
	if x.typ == pgwire.MsgExecute {
		r.advance()
	}
	if x.swallow {
		r.none = string(body) == "SELECT 0\x00"
		return false, nil
	}
	if typ == pgwire.MsgCommandComplete {
		r.statements++
		r.tagged(body)
		if r.wrote {
			r.s.mark(r.l, true)
		}
		if x.typ == pgwire.MsgExecute && x.unit != nil && x.unit.Effects != nil {
			r.affect(x.unit.Effects...)
		}
	}
	return r.keep(&x), nil
}

// affect takes the effects of what was completed. Statements are gone from the lease at once, and for the client in the order
// in which they were made and closed.
func (r *relay) affect(effects ...router.Effect) {
	r.effects = append(r.effects, effects...)
	for i := range effects {
		switch e := &effects[i]; e.Kind {
		case router.EffectDeallocateAll, router.EffectDiscardAll:
			clear(r.l.named)
			r.l.owned = 0
			r.s.pending = append(r.s.pending, definition{all: true})
		case router.EffectDeallocate:
			r.l.forget(e.Name)
			r.s.defines(e.Name, nil)
		}
	}
}

// tagged remembers how a transaction ended.
func (r *relay) tagged(tag []byte) {
	if len(tag) < 7 {
		return
	}
	switch string(tag[:len(tag)-1]) {
	case "COMMIT", "PREPARE TRANSACTION":
		r.tag = 'C'
	case "ROLLBACK":
		r.tag = 'R'
	}
}

// wantsCopy is CopyInResponse: what follows on the client's side is data, and every Sync or
// Flush that was sent behind the COPY is ignored by the node.
func (r *relay) wantsCopy() (bool, error) {
	e := r.front()
	if e == nil || (e.typ != pgwire.MsgQuery && e.typ != pgwire.MsgExecute) || e.swallow {
		return false, fmt.Errorf("%w: CopyInResponse out of order", errHostile)
	}
	kept := *e
	for i := r.head + 1; i < len(r.queue); i++ {
		if isCopy(r.queue[i].typ) {
			// The client has sent the data and its end already: only what stands between is ignored.
			r.head = i
			r.queue[i] = kept
			return r.keep(&kept), nil
		}
	}
	r.copyIn = true
	r.queue = r.queue[:r.head+1]
	if r.events != nil {
		select {
		case r.events <- struct{}{}:
		default:
		}
	}
	return r.keep(e), nil
}

// error is an ErrorResponse: what the client asked for up to the next Sync is not answered.
func (r *relay) error(body []byte) (keep bool, err error) {
	var v pgwire.ErrorView
	if body != nil {
		if v, err = pgwire.ErrorFields(body); err != nil {
			return false, fmt.Errorf("%w: %w", errHostile, err)
		}
	}
	if v.Fatal() {
		if e := r.front(); e != nil && e.typ == pgwire.MsgQuery && e.swallow {
			r.unread = true
		}
		r.fatal = append([]byte(nil), body...)
		copy(r.code[:], v.Code)
		r.withdraw()
		return false, nil
	}
	e := r.front()
	if e == nil {
		return !r.discard, nil
	}
	if e.set != nil {
		r.notSet(body, &v)
		return false, nil
	}
	if !r.failed {
		copy(r.code[:], v.Code)
		r.pointed = v.Position != nil
	}
	if e.swallow {
		r.refusal = append([]byte(nil), body...)
	} else if e.typ == pgwire.MsgParse && e.name == "" {
		r.s.defines("", nil) // the old one went before the new text was looked at
	} else if e.unit != nil && e.typ == pgwire.MsgQuery {
		r.interrupted(e.unit, r.statements)
	} else if e.unit != nil && e.typ == pgwire.MsgExecute {
		r.interrupted(e.unit, 0)
	}
	r.failed, r.unsynced = true, e.ahead
	if r.copyIn && e.typ == pgwire.MsgExecute {
		r.open = true // the node skips to the next Sync, which is still to come
	}
	r.copyIn = false
	if r.net && !r.seen && refusedByStandby(&v) {
		r.discard = true
		r.withdraw()
	}
	// What fails of what we put in front of the client's messages is the client's error to hear.
	swallow := e.swallow && e.typ != pgwire.MsgParse && e.typ != pgwire.MsgClose && e.typ != pgwire.MsgDescribe
	swallow = swallow || r.quote
	if e.typ != pgwire.MsgQuery && e.typ != pgwire.MsgFunctionCall {
		r.skip()
	}
	if keep = !swallow && !r.discard; keep && r.l.shared && bytes.Contains(body, []byte(r.s.srv.statements.prefix)) {
		r.instead = pgwire.AppendMessage(nil, pgwire.MsgErrorResponse, r.s.ownNames(body, e.st))
	}
	return keep, nil
}

// interrupted takes the effects of a text whose statement of that number, from 0, has failed: those before it were
// completed, and an advisory lock that it took itself outlives it.
func (r *relay) interrupted(u *router.Unit, failed int) {
	for i := range u.Effects {
		e := &u.Effects[i]
		switch {
		case e.Statement < failed:
			r.affect(*e)
		case e.Statement == failed && e.Kind == router.EffectPin && e.Pin == router.PinAdvisoryLock:
			r.effects = append(r.effects, *e, router.Effect{Kind: router.EffectUnlock})
		}
	}
}

// withdraw drops what stands ready for the client, if it has not been sent a byte yet: the chunk may be
// run again, or its answer is an error of ours.
func (r *relay) withdraw() {
	if !r.seen {
		r.out = 0
	}
}

// skip drops what the node will not answer after an error in a batch.
func (r *relay) skip() {
	for r.head < len(r.queue) {
		if r.queue[r.head].typ == pgwire.MsgSync {
			return
		}
		r.head++
	}
	r.queue, r.head, r.skipping = r.queue[:0], 0, true
}

// ready is ReadyForQuery.
func (r *relay) ready(body []byte) (bool, error) {
	status, err := pgwire.ParseReadyForQuery(body)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errHostile, err)
	}
	e := r.front()
	if e == nil || (e.typ != pgwire.MsgQuery && e.typ != pgwire.MsgSync && e.typ != pgwire.MsgFunctionCall) {
		return false, fmt.Errorf("%w: ReadyForQuery out of order", errHostile)
	}
	x := *e
	r.advance()
	if x.swallow {
		if x.typ == pgwire.MsgQuery {
			r.l.forget("") // any simple query drops it
		}
		if x.kind != 0 && status != x.kind {
			return false, fmt.Errorf("%w: something of ours left the transaction status %q", errHostile, status)
		}
		if x.set != nil {
			r.setAhead(x.set)
		}
		return false, nil
	}
	if x.typ == pgwire.MsgQuery {
		r.l.forget("")
		r.s.defines("", nil)
		if !r.failed && x.unit != nil {
			r.affect(x.unit.Effects...)
		}
	}
	r.copyIn = false
	r.status = txBlock(status)
	if !r.discard && r.marks {
		r.s.mark(r.l, r.wrote)
	}
	if !r.discard && (r.failed || len(r.effects) > 0) {
		if _, told := r.renamed(r.effects); told != nil {
			r.instead = pgwire.AppendReadyForQuery(told, status)
		}
	}
	return !r.discard, nil
}

// setPID overwrites the sender of a NotificationResponse in place.
func setPID(body []byte, pid uint32) { binary.BigEndian.PutUint32(body, pid) }
