package proxy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/router"
)

// reply is what pgweir says itself to a unit that holds one statement: successes only. An error
// of ours always has a real one behind it, or no lease at all.
type reply struct {
	tag     string
	columns []string // nil: no rows
	rows    [][]string
	notice  *pgwire.Report
}

// answer handles what needs no node: a BEGIN that can wait, the end of a transaction that did
// nothing, pgweir's own settings, and a transaction whose node is gone.
func (s *session) answer(c *chunk) (done bool, err error) {
	if s.dead {
		return true, s.answerDead(c)
	}
	if s.batch != nil || c.unit == nil || c.rest > 0 {
		return false, nil
	}
	if n := s.begins(c); n > 0 {
		head := chunk{n: c.items[n].at, items: c.items[:n], unit: c.items[n-1].unit, end: endOpen}
		return true, s.deferBegin(&head, head.unit) // what follows is collected anew
	}
	u, executes := s.lone(c)
	if u == nil {
		return false, nil
	}
	ours := u.Flags&router.FlagPgweir != 0 || u.OnlyTx || u.Show == "transaction_read_only"
	switch {
	case !ours || !s.plain(c.items):
		return false, nil
	case u.Flags&router.FlagPgweir != 0:
		return s.answerOwn(c, u, executes)
	case !executes:
		return false, nil
	case u.Show == "transaction_read_only" && s.readsOnly() && s.st.tx != txFailed:
		return true, s.send(c, &reply{tag: "SHOW", columns: []string{u.Show}, rows: [][]string{{"on"}}}, s.st.tx)
	case s.deferred.text != "" && u.OnlyTx:
		return s.answerDeferred(c, u)
	case u.OnlyTx && s.st.tx == txIdle && u.Effects[0].Kind == router.EffectBegin && s.target.BeginDefer > 0:
		return true, s.deferBegin(c, u)
	}
	return false, nil
}

// readsOnly says whether the session came in where only standbys answer, so that it finds itself on one
// (target_session_attrs, targetServerType).
func (s *session) readsOnly() bool {
	return s.target.Route == router.RouteStandby || s.target.ListenerRoute == router.RouteStandby
}

// begins is how many messages in front of a batch are a BEGIN which may go to a standby together with the first
// statement behind it; 0 where it begins otherwise, or ends there.
func (s *session) begins(c *chunk) int {
	if c.end != endSync || s.st.tx != txIdle || s.target.BeginDefer == 0 {
		return 0
	}
	n := 0
	if len(c.items) > 0 && c.items[0].typ == pgwire.MsgParse {
		n = 1
	}
	if len(c.items) < n+3 || c.items[n].typ != pgwire.MsgBind || c.items[n+1].typ != pgwire.MsgExecute || s.foreign(&c.items[0]) {
		return 0
	}
	bind, execute, next := &c.items[n], &c.items[n+1], &c.items[n+2]
	u := execute.unit
	if bind.st == nil || bind.st.unit != u || len(bind.portal)+len(execute.portal) > 0 || next.at != execute.end ||
		n > 0 && c.items[0].st != bind.st {
		return 0
	}
	if u.Statements != 1 || !u.OnlyTx || u.Effects[0].Kind != router.EffectBegin || !s.plain(c.items[:n+2]) {
		return 0
	}
	if uses, _ := usesPortal(c.items[n+2:]); uses {
		return 0
	}
	if m := u.Effects[0].Tx; !s.readOnlyTx(m) && !s.optimistic(m) {
		return 0
	}
	return n + 2
}

// usesPortal says whether messages speak of the unnamed portal that was there before them; replaced, whether they put another in
// its place first.
func usesPortal(items []item) (uses, replaced bool) {
	for i := range items {
		it := &items[i]
		switch {
		case len(it.portal) > 0:
		case it.typ == pgwire.MsgBind || it.typ == pgwire.MsgQuery:
			return false, true
		case it.typ == pgwire.MsgExecute, it.kind == pgwire.KindPortal:
			return true, false
		}
	}
	return false, false
}

// foreign says whether a message speaks of a statement that only a node knows: one that is not there, or has been
// already.
func (s *session) foreign(it *item) bool {
	switch it.typ {
	case pgwire.MsgParse:
		return len(it.name) > 0 && (s.named[string(it.name)] != nil || s.st.pins[router.PinSQLPrepare])
	case pgwire.MsgBind:
		return it.st == nil
	case pgwire.MsgDescribe:
		return it.kind == pgwire.KindStatement && it.st == nil
	}
	return false
}

// plain says whether messages neither declare nor bind parameters, and describe and execute no portal but the one that was just
// bound: otherwise a node has something to say.
func (s *session) plain(items []item) bool {
	b := s.client.Buffered()
	var bound *item
	for i := range items {
		if items[i].st.declares() {
			return false
		}
		switch it := &items[i]; it.typ {
		case pgwire.MsgBind:
			v, err := pgwire.ParseBind(b[it.at+pgwire.HeaderSize : it.end])
			if err != nil {
				return false
			}
			if args, err := pgwire.ParseArguments(v.Rest); err != nil || args.Count != 0 {
				return false
			}
			bound = it
		case pgwire.MsgDescribe, pgwire.MsgExecute:
			if it.typ == pgwire.MsgDescribe && it.kind == pgwire.KindStatement {
				continue
			}
			if bound == nil || string(bound.portal) != string(it.portal) {
				return false
			}
		}
	}
	return true
}

// declares says whether the Parse of a statement gives types of parameters.
func (st *statement) declares() bool {
	if st == nil || st.parse == nil {
		return false
	}
	v, err := pgwire.ParseParse(st.parse[pgwire.HeaderSize:])
	return err != nil || v.Types.Len() > 0
}

// lone is the unit of a chunk that speaks of one statement, runs it at most once, completely, and has
// nothing beside it that a node would have to judge; nil for any other.
func (s *session) lone(c *chunk) (u *router.Unit, executes bool) {
	if c.end != endSync && c.end != endQuery || c.unit.Statements != 1 {
		return nil, false
	}
	for i := range c.items {
		it := &c.items[i]
		if s.foreign(it) {
			return nil, false
		}
		switch it.typ {
		case pgwire.MsgExecute, pgwire.MsgQuery:
			if executes || it.unit != c.unit {
				return nil, false
			}
			executes = true
		case pgwire.MsgClose, pgwire.MsgFunctionCall, pgwire.MsgCopyDone, pgwire.MsgCopyFail:
			return nil, false
		}
	}
	return c.unit, executes
}

// send answers the chunk with r and consumes it. status is the transaction status from now on.
func (s *session) send(c *chunk, r *reply, status txBlock) error {
	out := s.scratch[:0]
	if r.notice != nil {
		out = pgwire.AppendNotice(out, *r.notice)
	}
	shape := func() {
		if r.columns != nil {
			out = pgwire.AppendTextColumns(out, r.columns...)
		} else {
			out = pgwire.AppendEmpty(out, pgwire.MsgNoData)
		}
	}
	run := func() {
		for _, row := range r.rows {
			out = pgwire.AppendTextRow(out, row...)
		}
		out = pgwire.AppendCommandComplete(out, r.tag)
	}
	for i := range c.items {
		it := &c.items[i]
		switch it.typ {
		case pgwire.MsgParse:
			out = pgwire.AppendEmpty(out, pgwire.MsgParseComplete)
			s.defines(string(it.name), it.st)
		case pgwire.MsgBind:
			out = pgwire.AppendEmpty(out, pgwire.MsgBindComplete)
		case pgwire.MsgClose:
			out = pgwire.AppendEmpty(out, pgwire.MsgCloseComplete)
			if it.kind == pgwire.KindStatement {
				s.defines(string(it.name), nil)
			}
		case pgwire.MsgDescribe:
			if it.kind == pgwire.KindStatement {
				out = append(out, pgwire.MsgParameterDescription, 0, 0, 0, 6, 0, 0)
			}
			shape()
		case pgwire.MsgExecute:
			run()
		case pgwire.MsgQuery:
			if r.columns != nil {
				shape()
			}
			run()
			s.defines("", nil)
		}
	}
	if c.end != endOpen {
		out = pgwire.AppendReadyForQuery(out, byte(status))
	}
	s.st.tx = status
	s.settleStatements()
	s.client.Discard(c.n)
	s.scratch = out
	return s.client.Write(out)
}

// deferBegin answers a BEGIN that goes out with the first statement behind it.
func (s *session) deferBegin(c *chunk, u *router.Unit) error {
	text := s.text(c)
	if text == "" {
		text = "BEGIN"
	}
	s.deferred = deferral{text: text, mode: u.Effects[0].Tx, at: health.Clock()}
	for i := range c.items {
		if it := &c.items[i]; it.typ == pgwire.MsgExecute {
			s.deferred.bound, s.deferred.portal = true, string(it.portal)
		}
	}
	tag := "BEGIN"
	if u.Command == "START" {
		tag = "START TRANSACTION"
	}
	return s.send(c, &reply{tag: tag}, txOpen)
}

// appendBegin appends the deferred BEGIN. Where the client may still speak of its portal, which is told by portal, that is there behind it.
func (s *session) appendBegin(out []byte, l *lease, r *relay, portal bool) []byte {
	d := &s.deferred
	if !portal {
		l.unnamed = 0
		r.push(expectation{typ: pgwire.MsgQuery, kind: byte(txOpen), swallow: true})
		return pgwire.AppendQuery(out, d.text)
	}
	l.unnamed = unknownStatement
	out = pgwire.AppendParse(out, "", d.text, pgwire.OIDs{})
	r.push(expectation{typ: pgwire.MsgParse, swallow: true, st: &statement{version: unknownStatement}})
	out = pgwire.AppendBind(out, d.portal, "")
	r.push(expectation{typ: pgwire.MsgBind, swallow: true})
	out = pgwire.AppendExecute(out, d.portal, 0)
	r.push(expectation{typ: pgwire.MsgExecute, swallow: true})
	out = pgwire.AppendSync(out)
	r.push(expectation{typ: pgwire.MsgSync, kind: byte(txOpen), swallow: true})
	return out
}

// keepsPortal says whether messages leave the portal of a deferred BEGIN in place, or speak of it first.
func (d *deferral) keepsPortal(items []item) bool {
	if !d.bound || d.portal != "" {
		return d.bound
	}
	_, replaced := usesPortal(items)
	return !replaced
}

// text is a copy of the text of the one statement that a chunk runs.
func (s *session) text(c *chunk) string {
	b := s.client.Buffered()
	for i := range c.items {
		it := &c.items[i]
		switch {
		case it.typ == pgwire.MsgQuery:
			if sql, err := pgwire.ParseQuery(b[it.at+pgwire.HeaderSize : it.end]); err == nil {
				return string(sql)
			}
		case it.typ == pgwire.MsgBind && it.st != nil && it.st.parse != nil:
			if v, err := pgwire.ParseParse(it.st.parse[pgwire.HeaderSize:]); err == nil {
				return string(v.SQL)
			}
		}
	}
	return ""
}

// answerDeferred ends a transaction of which no node has heard.
func (s *session) answerDeferred(c *chunk, u *router.Unit) (bool, error) {
	e := &u.Effects[0]
	if e.AndChain {
		return false, nil
	}
	var tag string
	switch e.Kind {
	case router.EffectCommit:
		tag = "COMMIT"
	case router.EffectRollback:
		tag = "ROLLBACK"
	default:
		return false, nil
	}
	s.deferred = deferral{}
	s.own.local(txIdle)
	return true, s.send(c, &reply{tag: tag}, txIdle)
}

// beginNow sends a deferred BEGIN that has waited long enough to the primary.
func (s *session) beginNow() error {
	c := &s.wake().chunk
	*c = chunk{items: c.items[:0], end: endQuery}
	began := health.Clock()
	drained(s.canceled)
	var try attempt
	for {
		l, problem := s.placeBegin(&try)
		if problem != nil {
			if problem.ends != nil {
				return problem.ends
			}
			// There is no primary: the next statement finds out, and is held as any other.
			s.deferred.at = health.Clock() + int64(time.Hour)
			return nil
		}
		if err := s.prepareLease(l, nil); err != nil {
			var refused *errReplay
			dead := !errors.As(err, &refused) && s.ctx.Err() == nil && s.relaying().clientErr == nil
			s.giveUp(l)
			if dead {
				s.lost(l, err)
			}
			if dead && l.older(began) {
				continue
			}
			if try.replays++; try.replays < 2 && s.relaying().clientErr == nil {
				continue
			}
			return err
		}
		r := s.relaying()
		r.reset(s, l)
		out := s.appendBegin(s.scratch[:0], l, r, s.deferred.bound)
		s.scratch = out
		err := s.asks(l, out)
		if s.ctx.Err() != nil {
			return s.cause()
		}
		if r.clientErr != nil {
			return r.clientErr
		}
		if err != nil || r.fatal != nil {
			s.lost(l, err)
			s.giveUp(l)
			if l.older(began) {
				continue
			}
			if try.number++; try.number < 3 {
				continue
			}
			s.txDied()
			return nil
		}
		s.st.push("")
		s.deferred = deferral{}
		s.txLease, l.used = l, health.Clock()
		s.last = l
		return nil
	}
}

// placeBegin finds the primary for a BEGIN of its own; it does not wait for one.
func (s *session) placeBegin(try *attempt) (*lease, *problem) {
	snap := s.cluster.Monitor.Snapshot()
	d := s.toPrimary(snap, health.Clock(), router.ReasonTransaction)
	if d.Node == nil {
		return nil, &problem{}
	}
	l, err := s.leaseOf(d.Node)
	if err != nil {
		if s.ctx.Err() != nil {
			return nil, s.ended()
		}
		return nil, &problem{}
	}
	try.decision = d
	return l, nil
}

// answerDead answers for a transaction whose node is gone: 40001 once, then 25P02, until the
// client ends it. What ends it at once needs no second word: ROLLBACK gets what it asks for, a
// failed COMMIT leaves no transaction behind.
func (s *session) answerDead(c *chunk) error {
	if !s.deadTold && !rollsBack(c.unit) {
		if u := c.unit; u != nil && u.OnlyTx && u.Effects[0].Kind == router.EffectCommit && c.end != endFlush && c.end != endOpen {
			s.txOver() // a COMMIT that fails ends the transaction
		} else {
			s.deadTold = true
		}
		return s.refuse(c, s.problemTxLost(c))
	}
	for i := range c.items {
		it := &c.items[i]
		if it.unit == nil || !endsTx(it.unit) {
			continue
		}
		if it.typ == pgwire.MsgQuery || it.typ == pgwire.MsgExecute {
			s.dead, s.deadTold = false, false
			s.own.local(txIdle)
			return s.send(c, &reply{tag: "ROLLBACK"}, txIdle)
		}
	}
	if len(c.items) == 0 {
		s.client.Discard(c.n)
		if c.end == endSync {
			return s.client.Write(pgwire.AppendReadyForQuery(nil, byte(txFailed)))
		}
		return nil
	}
	return s.refuse(c, problemAborted())
}

// endsTx says whether a unit begins by ending the transaction.
func endsTx(u *router.Unit) bool {
	if len(u.Effects) == 0 {
		return false
	}
	k := u.Effects[0].Kind
	return k == router.EffectCommit || k == router.EffectRollback
}

// ownSettings are pgweir's own settings of a session.
type ownSettings struct {
	route, routeLocal router.Hint
	consistency       router.Consistency
	consistencySet    bool
	explain           bool
}

// hint is the routing hint in force by setting.
func (o *ownSettings) hint() router.Hint {
	if o.routeLocal != router.HintNone {
		return o.routeLocal
	}
	return o.route
}

// local ends what SET LOCAL has set, when the transaction is over.
func (o *ownSettings) local(tx txBlock) {
	if tx == txIdle {
		o.routeLocal = router.HintNone
	}
}

// answerOwn carries out SET and SHOW of pgweir.*; where the chunk only prepares or describes it, it
// tells the shape.
func (s *session) answerOwn(c *chunk, u *router.Unit, executes bool) (bool, error) {
	if !executes && u.Show == "" {
		return true, s.send(c, &reply{}, s.st.tx)
	}
	if u.Show != "" {
		value, p := s.showOwn(strings.TrimPrefix(u.Show, "pgweir."))
		if p != nil {
			return true, s.refuse(c, p)
		}
		return true, s.send(c, &reply{tag: "SHOW", columns: []string{u.Show}, rows: [][]string{{value}}}, s.st.tx)
	}
	if len(u.Effects) != 1 {
		return false, nil
	}
	e := &u.Effects[0]
	tag := "SET"
	value := unquote(e.Value)
	if e.Kind == router.EffectReset {
		tag, value = "RESET", ""
		if u.Command == "SET" {
			tag = "SET"
		}
	}
	if p := s.setOwn(strings.TrimPrefix(e.Name, "pgweir."), value, e.Local); p != nil {
		return true, s.refuse(c, p)
	}
	return true, s.send(c, &reply{tag: tag}, s.st.tx)
}

// setOwn changes one setting of pgweir; an empty value puts the default back.
func (s *session) setOwn(name, value string, local bool) *problem {
	switch name {
	case "route":
		h, ok := parseHint(value)
		if !ok {
			return problemValue("pgweir."+name, value, "primary, standby, auto")
		}
		if local {
			s.own.routeLocal = h
			if s.deferred.text == "" && s.st.tx != txIdle {
				s.cluster.metrics.hintsIgnored.Inc()
			}
			return nil
		}
		s.own.route = h
	case "consistency":
		if value == "" {
			s.own.consistencySet = false
			return nil
		}
		level, ok := ParseConsistency(value)
		if !ok {
			return problemValue("pgweir."+name, value, "eventual, session, application, global")
		}
		s.own.consistency, s.own.consistencySet = level, true
	case "explain":
		on, ok := parseBool(value)
		if !ok {
			return problemValue("pgweir."+name, value, "on, off")
		}
		s.own.explain = on
	default:
		return problemUnknownOwn(name)
	}
	return nil
}

// showOwn is the value of one setting of pgweir.
func (s *session) showOwn(name string) (string, *problem) {
	switch name {
	case "last_route":
		return s.lastRoute(), nil
	case "route":
		return hintName(s.own.hint()), nil
	case "consistency":
		return ConsistencyName(s.consistency()), nil
	case "explain":
		if s.own.explain {
			return "on", nil
		}
		return "off", nil
	case "status":
		return s.status(), nil
	}
	return "", problemUnknownOwn(name)
}

// lastRoute says where the last statement went, and why.
func (s *session) lastRoute() string {
	d := s.decision
	if d.Node == nil {
		return "none yet"
	}
	kind := "primary"
	if d.Target == router.TargetStandby {
		kind = "standby"
	}
	out := fmt.Sprintf("%s %s · %s", kind, d.Node.Name, d.Reason)
	if d.Target == router.TargetStandby && d.Node.LagTime >= 0 {
		out += fmt.Sprintf(" · lag %s", d.Node.LagTime.Round(time.Millisecond))
	}
	return out
}

// status is one line about the cluster and the session.
func (s *session) status() string {
	snap := s.cluster.Monitor.Snapshot()
	parts := []string{"cluster " + s.cluster.Name}
	if snap.Primary == nil {
		parts = append(parts, "no primary: "+snap.Why)
	}
	for _, n := range snap.Nodes {
		parts = append(parts, n.Name+" "+nodeInWords(n))
	}
	if p := s.st.held(); p != router.PinNone {
		parts = append(parts, "pinned: "+p.String())
	}
	return strings.Join(parts, " · ")
}

// explainNotice tells the client where its statement goes.
func (s *session) explainNotice(d router.Decision) error {
	s.decision = d
	return s.client.Write(pgwire.AppendNotice(nil, pgwire.Report{
		Severity: "NOTICE", Code: "00000", Message: "pgweir: " + s.lastRoute(), Routine: routine,
	}))
}

// parseHint reads a value of pgweir.route; the empty one is the default.
func parseHint(v string) (router.Hint, bool) {
	switch strings.ToLower(v) {
	case "", "default":
		return router.HintNone, true
	case "auto":
		return router.HintAuto, true
	case "primary":
		return router.HintPrimary, true
	case "standby":
		return router.HintStandby, true
	}
	return router.HintNone, false
}

// hintName is the inverse of parseHint.
func hintName(h router.Hint) string {
	switch h {
	case router.HintPrimary:
		return "primary"
	case router.HintStandby:
		return "standby"
	}
	return "auto"
}

// ParseConsistency reads the name of a level.
func ParseConsistency(v string) (router.Consistency, bool) {
	for _, c := range []router.Consistency{
		router.ConsistencyEventual, router.ConsistencySession, router.ConsistencyApplication, router.ConsistencyGlobal,
	} {
		if strings.EqualFold(v, ConsistencyName(c)) {
			return c, true
		}
	}
	return 0, false
}

// ConsistencyName is the name of a level as people write it.
func ConsistencyName(c router.Consistency) string {
	switch c {
	case router.ConsistencyEventual:
		return "eventual"
	case router.ConsistencySession:
		return "session"
	case router.ConsistencyGlobal:
		return "global"
	}
	return "application"
}

// unquote is the value of a setting out of the client's own text of it.
func unquote(v string) string {
	v = strings.TrimSpace(strings.TrimPrefix(v, byFunction))
	if len(v) >= 2 && (v[0] == '\'' || v[0] == '"') && v[len(v)-1] == v[0] {
		q := string(v[0])
		return strings.ReplaceAll(v[1:len(v)-1], q+q, q)
	}
	return v
}

// parseBool reads a boolean as PostgreSQL's settings do; the empty one is off.
func parseBool(v string) (on, ok bool) {
	switch strings.ToLower(v) {
	case "on", "true", "yes", "1", "t", "y":
		return true, true
	case "", "off", "false", "no", "0", "f", "n":
		return false, true
	}
	return false, false
}

// isOn is a boolean setting that the server has accepted.
func isOn(v string) bool {
	on, _ := parseBool(unquote(v))
	return on
}
