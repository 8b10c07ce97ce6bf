package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"pgweir/health"
	"pgweir/internal/auth"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// routine is the field R of every error of ours, so that drivers can tell.
const routine = "pgweir"

// The SQLSTATEs of our own errors (PostgreSQL's Appendix A).
const (
	codeUnknownOutcome     = "08007" // transaction_resolution_unknown
	codeSerialization      = "40001" // serialization_failure
	codeReadOnly           = "25006" // read_only_sql_transaction
	codeUndefinedTable     = "42P01" // undefined_table
	codeUndefinedFunction  = "42883" // undefined_function
	codeAborted            = "25P02" // in_failed_sql_transaction
	codeCanceled           = "57014" // query_canceled
	codeAdminShutdown      = "57P01" // admin_shutdown
	codeCannotConnect      = "57P03" // cannot_connect_now
	codeIdleSession        = "57P05" // idle_session_timeout
	codeIdleTransaction    = "25P03" // idle_in_transaction_session_timeout
	codeLongTransaction    = "25P04" // transaction_timeout
	codeTooMany            = "53300" // too_many_connections
	codeNoDatabase         = "3D000" // invalid_catalog_name
	codeInvalidValue       = "22023" // invalid_parameter_value
	codeUndefinedObject    = "42704" // undefined_object
	codeNotSupported       = "0A000" // feature_not_supported
	codeAuthFailed         = "28000" // invalid_authorization_specification
	codeConnFailure        = "08006" // connection_failure
	codeNotReady           = "55000" // object_not_in_prerequisite_state
	codeForbidden          = "42501" // insufficient_privilege
	codeSyntax             = "42601" // syntax_error
	codeNoStatement        = "26000" // invalid_sql_statement_name
	codeDuplicateStatement = "42P05" // duplicate_prepared_statement
	codeNoPortal           = "34000" // invalid_cursor_name
	codeInternal           = "XX000" // internal_error
)

// problem is what a client is told in the place of an answer.
type problem struct {
	code    string
	message string
	detail  string
	hint    string
	routine string // of PostgreSQL's, where drivers look at it; "" is ours
	before  []byte // messages that come in front of the error
	raw     []byte // the node's own ErrorResponse body, instead of all of the above
	ends    error  // the session ends with this; nothing is said here
}

// report is the problem as an ErrorResponse.
func (p *problem) report(severity string) []byte {
	if p.raw != nil {
		return pgwire.AppendMessage(p.before, pgwire.MsgErrorResponse, p.raw)
	}
	from := routine
	if p.routine != "" {
		from = p.routine
	}
	return pgwire.AppendError(p.before, pgwire.Report{
		Severity: severity, Code: p.code, Message: p.message, Detail: p.detail, Hint: p.hint, Routine: from,
	})
}

// refuse answers the chunk with an error of ours. Inside a transaction or batch that a node has
// open, the node is made to fail as well, so that what remains is what PostgreSQL leaves.
func (s *session) refuse(c *chunk, p *problem) error {
	if p.ends != nil {
		return p.ends
	}
	if s.ctx.Err() != nil {
		return s.cause() // what goes wrong after that is nobody's business
	}
	if l := s.failing(); l != nil {
		if err := s.failOn(l, c); err != nil {
			s.lost(l, err)
			s.giveUp(l)
			s.txDied()
			s.deadTold = true
		} else {
			s.batch = nil
			if s.st.tx != txIdle {
				s.st.tx = txFailed
			}
		}
	}
	if s.deferred.text != "" {
		s.txDied() // no node has heard of it; to the client it has failed like any other
		s.deadTold = true
	}
	s.pending = s.pending[:0]
	out := p.report("ERROR")
	if err := s.dropRest(c); err != nil {
		return err
	}
	c.n = 0
	if c.end == endSync || c.end == endQuery || c.end == endFunction {
		s.batch = nil
		out = pgwire.AppendReadyForQuery(out, byte(s.st.tx))
	} else {
		s.skipping = true
	}
	return s.client.Write(out)
}

// failing is the lease on which something is open that an error must fail.
func (s *session) failing() *lease {
	if s.batch != nil {
		return s.batch
	}
	return s.txLease
}

// reservedStatement names a prepared statement that is never prepared: a Bind of it fails.
const reservedStatement = "pgweir_never_prepared"

// failOn makes the open transaction or batch on l fail.
func (s *session) failOn(l *lease, _ *chunk) error {
	out := pgwire.AppendBind(s.scratch[:0], "", reservedStatement)
	out = pgwire.AppendSync(out)
	s.scratch = out
	r := s.relaying()
	r.reset(s, l)
	r.push(expectation{typ: pgwire.MsgBind, swallow: true})
	r.push(expectation{typ: pgwire.MsgSync, swallow: true})
	if err := s.asks(l, out); err != nil {
		return err
	}
	if r.fatal != nil {
		return errLeaseEnded
	}
	return r.clientErr
}

// nodesInWords lists the cluster's nodes and their states for DETAIL.
func (s *session) nodesInWords() string {
	snap := s.cluster.Monitor.Snapshot()
	parts := make([]string, 0, len(snap.Nodes))
	for _, n := range snap.Nodes {
		parts = append(parts, n.Name+" "+nodeInWords(n))
	}
	return strings.Join(parts, ", ")
}

// nodeInWords is what a node is and how it is.
func nodeInWords(n *health.Node) string {
	words := n.Role.String() + " " + n.State.String()
	if n.Detail != "" {
		return n.Role.String() + " " + n.Detail
	}
	return words
}

// problemNoPrimary ends a hold.
func (s *session) problemNoPrimary(waited time.Duration) *problem {
	detail := s.nodesInWords() + "; promotion: external."
	if waited > 0 {
		detail += fmt.Sprintf(" Waited %s.", waited.Round(time.Second/10))
	} else {
		detail += " Too many statements are waiting already."
	}
	return &problem{
		code: codeCannotConnect, message: fmt.Sprintf("no primary available in cluster %q", s.cluster.Name), detail: detail,
		hint: "Reads are still served. pgweir promotes nobody: a cluster manager or a person has to. See SHOW pgweir.status.",
	}
}

// problemUnreachable ends the tries to connect to a primary that is there by its probes.
func (s *session) problemUnreachable(cause error) *problem {
	return &problem{
		code: codeCannotConnect, message: fmt.Sprintf("cannot connect to the primary of cluster %q", s.cluster.Name),
		detail: s.nodesInWords() + ". " + cause.Error() + ".",
		hint:   "The primary answers its health checks; see whether its max_connections or the pool's size is exhausted.",
	}
}

// problemNotFresh ends the wait for a standby where the primary must not answer reads.
func (s *session) problemNotFresh() *problem {
	return &problem{
		code: codeCannotConnect, message: fmt.Sprintf("no standby of cluster %q is fresh enough for this session", s.cluster.Name),
		detail: s.nodesInWords() + ". Reads do not go to the primary here (reads_on_primary: never).",
		hint:   "Lower the consistency level for this session (SET pgweir.consistency), or let reads fall back to the primary.",
	}
}

// problemTxLost is what a client inside a transaction hears, once.
func (s *session) problemTxLost(*chunk) *problem {
	s.deadTold = s.dead
	return &problem{
		code: codeSerialization, message: "the transaction was lost together with its server",
		detail: s.nodesInWords() + ".",
		hint:   "Nothing of it was committed. Roll back and run the transaction again.",
	}
}

// problemReadLost is a read whose node died in the middle of its answer.
func (s *session) problemReadLost(l *lease) *problem {
	return &problem{
		code: codeSerialization, message: "the server answering this query was lost in the middle of its answer",
		detail: fmt.Sprintf("Node %s. %s.", l.node.Name, s.nodesInWords()),
		hint:   "The rows received so far are incomplete. Run the query again.",
	}
}

// problemUnknown is a write whose outcome nobody knows.
func (s *session) problemUnknown(l *lease) *problem {
	code := codeUnknownOutcome
	if s.srv.cfg.UnknownSQLState != "" {
		code = s.srv.cfg.UnknownSQLState
	}
	return &problem{
		code: code, message: "the server was lost before it confirmed this statement",
		detail: fmt.Sprintf("Node %s. %s.", l.node.Name, s.nodesInWords()),
		hint:   "It may have been committed: check before repeating.",
	}
}

// problemReadOnlyTx is a write in a read-only transaction that a standby is answering, and what a
// standby itself would say.
func problemReadOnlyTx(u *router.Unit) *problem {
	command := u.Command
	if command == "" {
		command = "this statement"
	}
	return &problem{
		code: codeReadOnly, message: fmt.Sprintf("cannot execute %s in a read-only transaction", command),
		detail: "The transaction runs on a standby, because it began READ ONLY.",
		hint:   "Begin the transaction's first statement with the comment /* pgweir: primary */ to run it on the primary.",
	}
}

// problemRefused is a write for which a standby was asked.
func problemRefused(u *router.Unit) *problem {
	command := u.Command
	if command == "" {
		command = "this statement"
	}
	return &problem{
		code: codeReadOnly, message: fmt.Sprintf("cannot execute %s in a read-only transaction", command),
		detail: "The session or the statement asked for a standby (pgweir.route, route: standby).",
		hint:   "Use the comment /* pgweir: primary */, or SET pgweir.route = 'auto'.",
	}
}

// problemAborted is PostgreSQL's own answer in a failed transaction.
func problemAborted() *problem {
	return &problem{
		code: codeAborted, message: "current transaction is aborted, commands ignored until end of transaction block",
	}
}

// problemStatementTimeout is a statement that was held as long as the client allows.
func problemStatementTimeout() *problem {
	return &problem{
		code: codeCanceled, message: "canceling statement due to statement timeout",
		detail: "The statement waited for a server and was not sent.",
	}
}

// problemWait is why there is no connection where it is not the node's address that is of no use; nil for
// all other errors.
func problemWait(err error) *problem {
	var full *pool.WaitError
	var refused *pool.ConnectError
	switch {
	case errors.Is(err, errWaitStatement):
		return problemStatementTimeout()
	case errors.Is(err, errWaitCanceled):
		return problemCanceled()
	case errors.As(err, &full):
		hint := "Raise " + full.Limit + ", or have fewer clients hold connections."
		if full.Node != nil {
			hint = hintServerFull
		}
		return &problem{
			code: codeTooMany, message: "no connection to a server became free in time", detail: err.Error() + ".", hint: hint,
		}
	case errors.As(err, &refused) && refused.Full():
		return problemServerFull(refused)
	}
	return nil
}

// hintServerFull is what can be done about a node without connections to spare.
const hintServerFull = "The server takes no more connections: raise its max_connections, or lower pool_size or max_db_connections."

// problemServerFull is a node that has no connection to spare, where the pool has none either.
func problemServerFull(refused *pool.ConnectError) *problem {
	return &problem{code: refused.SQLState, message: refused.Message, hint: hintServerFull}
}

// problemLoginLate is the end of a login for which no node did in time what it needs.
func problemLoginLate() *problem {
	return &problem{
		code: codeCannotConnect, message: "no server answered in time for this login",
		hint: "The login took as long as client_login_timeout allows. Try again.",
	}
}

// problemIdle is the end of a session that was idle for longer than it asked for.
func problemIdle() *problem {
	return &problem{code: codeIdleSession, message: "terminating connection due to idle-session timeout"}
}

// problemOverTime is the end of a session that is over one of the configuration's limits of time, in PgBouncer's words where it
// has the limit.
func problemOverTime(e *overTime) *problem {
	const unknown = "A write or COMMIT that was under way may have been carried out: check before repeating."
	switch e.limit {
	case limitQuery:
		return &problem{
			code: codeCanceled, message: "query timeout", hint: unknown,
			detail: fmt.Sprintf("The statement took longer than %s (query_timeout), waits included, and was cancelled.", e.value),
		}
	case limitTransaction:
		return &problem{
			code: codeLongTransaction, message: "transaction timeout", hint: unknown,
			detail: fmt.Sprintf("The transaction took longer than %s (transaction_timeout) and was ended.", e.value),
		}
	case limitIdleTransaction:
		return &problem{
			code: codeIdleTransaction, message: "idle transaction timeout",
			detail: fmt.Sprintf("The client was idle within a transaction for longer than %s (idle_transaction_timeout). Nothing of it was committed.", e.value),
		}
	case limitIdle:
		return &problem{
			code: codeIdleSession, message: "client_idle_timeout",
			detail: fmt.Sprintf("The client was idle for longer than %s.", e.value),
		}
	}
	return &problem{
		code: codeAdminShutdown, message: "client_lifetime", hint: "Connect again.",
		detail: fmt.Sprintf("The client has been connected for longer than %s.", e.value),
	}
}

// problemShape is PostgreSQL's own error for a statement whose rows have changed since it was prepared. The JDBC driver
// prepares again only when it sees the routine.
func problemShape() *problem {
	return &problem{code: codeNotSupported, message: "cached plan must not change result type", routine: "RevalidateCachedQuery"}
}

// problemCanceled is a statement that was cancelled while it waited.
func problemCanceled() *problem {
	return &problem{code: codeCanceled, message: "canceling statement due to user request"}
}

// problemConnect is a node that answers and will not let the session in for reasons of its own.
func (s *session) problemConnect(err error) *problem {
	return &problem{
		code: codeConnFailure, message: fmt.Sprintf("cannot log in to the primary of cluster %q", s.cluster.Name), detail: err.Error() + ".",
		hint: "The user's password verifier must be the same on every node and where pgweir looks users up.",
	}
}

// problemReplay is a lease on which the session's settings cannot be put in force.
func problemReplay(err error) *problem {
	return &problem{
		code: codeConnFailure, message: "cannot put this session's settings in force on another server",
		detail: err.Error() + ".",
		hint:   "RESET what the session has SET, or reconnect.",
	}
}

// problemValue is a value that a setting of ours does not take.
func problemValue(name, value, accepted string) *problem {
	return &problem{
		code: codeInvalidValue, message: fmt.Sprintf("invalid value for parameter %q: %q", name, value),
		hint: "Available values: " + accepted + ".",
	}
}

// problemNotAlone is a statement about pgweir.* among others.
func problemNotAlone() *problem {
	return &problem{
		code: codeNotSupported, message: "SET and SHOW of pgweir.* must be sent alone",
		hint: "Send it as a query or batch of its own.",
	}
}

// problemUnknownOwn is a setting of ours that is not there.
func problemUnknownOwn(name string) *problem {
	return &problem{
		code: codeUndefinedObject, message: fmt.Sprintf("unrecognized configuration parameter %q", "pgweir."+name),
		hint: "There are pgweir.route, pgweir.consistency, pgweir.explain, pgweir.last_route and pgweir.status.",
	}
}

// clientGone wraps an error of the client's link that was met while placing a statement.
func clientGone(err error) *problem { return &problem{ends: err} }

// ended is the problem of a session whose context is over.
func (s *session) ended() *problem { return &problem{ends: s.cause()} }

// lostPin ends a session that was pinned to a connection which is gone.
func (s *session) lostPin(pin router.Pin, fatal *nodeFatal) error {
	if fatal != nil && !s.srv.nodeDying(fatal.report) {
		return &sessionFatal{report: fatal.report}
	}
	return &pinLost{pin: pin, nodes: s.nodesInWords()}
}

// pinLost is the end of a session whose state was on a connection that is gone.
type pinLost struct {
	pin   router.Pin
	nodes string
}

func (e *pinLost) Error() string {
	return "connection with the session's state was lost: " + e.pin.String()
}

// refusedByStandby says whether an error means that the statement needs the primary or another
// standby (routing.md, "Errors a standby answers with").
func refusedByStandby(v *pgwire.ErrorView) bool {
	return causeOf([5]byte(pad(v.Code))) != "" && fitting(v)
}

// pad makes five bytes of a SQLSTATE.
func pad(code []byte) []byte {
	var b [5]byte
	copy(b[:], code)
	return b[:]
}

// The causes of running a unit again; labels of reroutes_total.
const (
	causeReadOnly = "read_only"
	causeConflict = "conflict"
	causeLost     = "node_lost"
)

// causeOf is why a standby's error makes the unit run again, "" when it does not.
func causeOf(code [5]byte) string {
	switch string(code[:]) {
	case "25006", "0A000", "55000", "XX000":
		return causeReadOnly
	case "40001", "40P01", "57P04":
		return causeConflict
	}
	return ""
}

// fitting looks at the message where the SQLSTATE alone says too little. The text is only
// looked at in its untranslated routine and in what PostgreSQL says in English: another language
// means that the error passes, unless its code alone decides.
func fitting(v *pgwire.ErrorView) bool {
	switch string(v.Code) {
	case "25006", "40P01", "57P04":
		return true
	case "40001":
		return strings.Contains(string(v.Message), "conflict with recovery") || string(v.Routine) == "ProcessInterrupts"
	}
	m := string(v.Message)
	return strings.Contains(m, "recovery") || strings.Contains(m, "temporary or unlogged relations")
}

// nodeDying says whether a FATAL means the node, and not only this one connection: it is
// shutting down or has crashed, or a standby had to end the connection for its replay.
func (srv *Server) nodeDying(report []byte) bool {
	v, err := pgwire.ErrorFields(report)
	if err != nil {
		return true
	}
	switch string(v.Code) {
	case "57P01", "57P02", "57P03", "57P04", "40001", "40P01":
		return true
	}
	return false
}

// isTimeout says whether an error is a deadline.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// The causes with which a session's context ends.
var (
	errDraining = errors.New("the proxy is shutting down")
	errKilled   = errors.New("an administrator ended the session")
)

// unsaid is the end of a session whose client has been sent a part of a message: nothing can be said behind that.
type unsaid struct{ cause error }

// Error is the cause.
func (e *unsaid) Error() string { return e.cause.Error() }

// farewell is what a client hears when its connection ends for reason, nil when there is nobody to
// tell or nothing to say.
func farewell(reason error) []byte {
	var protocol *pgwire.ProtocolError
	var fatal *sessionFatal
	var pin *pinLost
	var login *auth.Error
	var p *loginProblem
	var late *overTime
	switch {
	case errors.As(reason, &late):
		return problemOverTime(late).report("FATAL")
	case errors.As(reason, &fatal):
		return pgwire.AppendMessage(nil, pgwire.MsgErrorResponse, fatal.report)
	case errors.As(reason, &pin):
		return (&problem{
			code: codeAdminShutdown, message: "terminating connection: the server that held this session's state was lost",
			detail: fmt.Sprintf("The session was pinned to it: %s. %s.", pin.pin, pin.nodes),
			hint:   "Reconnect and set up the session again.",
		}).report("FATAL")
	case errors.As(reason, &p):
		return p.problem.report("FATAL")
	case errors.As(reason, &login):
		return (&problem{code: login.SQLState, message: login.Message, detail: login.Detail}).report("FATAL")
	case errors.As(reason, &protocol):
		if protocol.LogOnly {
			return nil
		}
		return (&problem{
			code: protocol.Code, message: protocol.Message, detail: protocol.Detail, hint: protocol.Hint,
		}).report("FATAL")
	case errors.Is(reason, errLoginLate):
		return problemLoginLate().report("FATAL")
	case errors.Is(reason, errDraining), errors.Is(reason, errKilled):
		return (&problem{
			code: codeAdminShutdown, message: "terminating connection due to administrator command", detail: "pgweir: " + reason.Error() + ".",
		}).report("FATAL")
	}
	return nil
}

// side names who caused the end of a connection, for the log.
func side(reason error) string {
	var protocol *pgwire.ProtocolError
	var login *auth.Error
	var p *loginProblem
	var fatal *sessionFatal
	var pin *pinLost
	var late *overTime
	var mute *unsaid
	switch {
	case errors.As(reason, &mute):
		return side(mute.cause)
	case errors.Is(reason, errTerminate), errors.Is(reason, io.EOF), errors.Is(reason, errVanished):
		return "client"
	case errors.As(reason, &protocol), errors.As(reason, &login):
		return "client"
	case errors.Is(reason, errDraining), errors.Is(reason, errKilled), errors.As(reason, &late):
		return "proxy"
	case errors.Is(reason, errLoginLate):
		return "node"
	case errors.As(reason, &fatal), errors.As(reason, &pin), errors.Is(reason, errCutMessage):
		return "node"
	case errors.As(reason, &p):
		return "login"
	case errors.Is(reason, syscall.ECONNRESET), errors.Is(reason, syscall.EPIPE), errors.Is(reason, net.ErrClosed):
		return "client"
	}
	return "unknown"
}

// loginProblem ends a connection before its session has begun.
type loginProblem struct{ problem *problem }

func (e *loginProblem) Error() string {
	if e.problem.raw != nil {
		return "node refused the login"
	}
	return e.problem.message
}
