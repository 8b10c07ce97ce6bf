package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"pgweir/internal/auth"
	"pgweir/internal/pgwire"
)

// Console is what answers instead of a node where a client asks for a database that is none. The proxy speaks the
// protocol for it; all of its functions may be called by many goroutines.
type Console struct {
	// Serves says whether a client that asks for the database gets the console.
	Serves func(database string) bool
	// Users knows the secrets of those who may log in.
	Users auth.Source
	// Admit says whether a user who has proven who he is may use the console, and what reads his
	// commands: any number of them in a simple query. Its errors, and those of commands, may be *ConsoleError.
	Admit func(user string) (read func(sql string) ([]ConsoleCommand, error), ok bool)
	// Params is what the console reports at login.
	Params []pgwire.Param
}

// ConsoleCommand is a command that was understood and not yet run.
type ConsoleCommand struct {
	Columns []ConsoleColumn // nil: it returns no rows
	Waits   bool            // it may take long: it is cancelled when its client leaves
	Run     func(ctx context.Context) (ConsoleResult, error)
}

// ConsoleColumn is a column of a result. Of the types text, int4, int8 and numeric both formats are spoken.
type ConsoleColumn struct {
	Name string
	Type uint32 // OID
}

// ConsoleResult is what a command returned.
type ConsoleResult struct {
	Rows   [][][]byte // values in text; nil is NULL
	Tag    string
	Notice string // sent before everything else
	Detail string // of the notice
}

// ConsoleError is an error as the client is to hear it.
type ConsoleError struct{ Code, Message, Detail, Hint string }

// Error is the message.
func (e *ConsoleError) Error() string { return e.Message }

// Bounds of what a console's client may have the process keep, and of how many there may be: the console
// is there when max_client_conn is reached.
const (
	consoleMessage    = 64 << 10
	consoleStatements = 100
	consoleClients    = 32
)

// OIDs of the types that the console's columns may have.
const (
	typeInt8    = 20
	typeInt4    = 23
	typeNumeric = 1700
)

// consoleSession is a client of the console. One goroutine runs it.
type consoleSession struct {
	srv        *Server
	link       *pgwire.Link
	ctx        context.Context
	user       string
	name       string // the database that it asked for
	since      time.Time
	pid        uint32
	secret     []byte
	read       func(sql string) ([]ConsoleCommand, error)
	end        context.CancelCauseFunc // ends the connection
	cancel     atomic.Pointer[context.CancelCauseFunc]
	statements map[string]*ConsoleCommand // nil: the empty query
	portals    map[string]*consolePortal
	skipping   bool // an error was answered in the batch: nothing until Sync
	out        []byte
}

// consolePortal is a command that was bound and perhaps run.
type consolePortal struct {
	command *ConsoleCommand // nil: the empty query
	formats []uint16
	result  *ConsoleResult // nil: not run yet
	sent    int            // rows
}

// problemConsoleFull is a console with as many clients as it takes.
func problemConsoleFull() *problem {
	return &problem{
		code: codeTooMany, message: "sorry, too many clients of the console already", detail: fmt.Sprintf("pgweir takes %d.", consoleClients),
	}
}

// console takes a client that asks for the console from its StartupMessage to the end of its connection.
func (a *arrival) console(st *pgwire.Startup) error {
	srv, conf := a.srv, a.srv.cfg.Console
	if srv.consoles.Add(1) > consoleClients {
		srv.consoles.Add(-1)
		return &loginProblem{problemConsoleFull()}
	}
	defer srv.consoles.Add(-1)
	if _, err := a.authenticate(st, conf.Users, nil); err != nil {
		return err
	}
	read, ok := conf.Admit(st.User)
	if !ok {
		return &loginProblem{problemNoConsole(st.User, st.Database)}
	}
	if st.Replication != pgwire.ReplicationNone {
		return &loginProblem{&problem{code: codeNotSupported, message: "the console speaks no replication protocol"}}
	}
	cs := &consoleSession{
		srv: srv, link: a.link, ctx: a.ctx, end: a.cancel, user: st.User, name: st.Database, since: time.Now(), read: read,
		statements: make(map[string]*ConsoleCommand), portals: make(map[string]*consolePortal),
	}
	srv.keys.registerConsole(cs, st.Version >= pgwire.Version32)
	defer srv.keys.unregisterConsole(cs)
	if err := a.link.SetDeadline(time.Time{}); err != nil {
		return err
	}
	var out []byte
	for _, p := range conf.Params {
		out = pgwire.AppendParameterStatus(out, p.Name, p.Value)
	}
	out = pgwire.AppendBackendKeyData(out, cs.pid, cs.secret)
	if err := a.link.Write(pgwire.AppendReadyForQuery(out, byte(txIdle))); err != nil {
		return err
	}
	return cs.run()
}

// problemNoConsole is a user who has no business on the console.
func problemNoConsole(user, database string) *problem {
	return &problem{
		code: codeForbidden, message: fmt.Sprintf("permission denied for database %q", database),
		detail: fmt.Sprintf("It is the console of pgweir, and user %q is not among its users.", user),
		hint:   "admin.users says who they are; without it, only the monitor's user is one.",
	}
}

// run serves the client until it leaves. The error is the reason, never nil.
func (cs *consoleSession) run() error {
	for {
		if cs.ctx.Err() != nil {
			return context.Cause(cs.ctx)
		}
		if cs.srv.isDraining() && !cs.skipping {
			return errDraining
		}
		typ, body, err := cs.link.ReadMessage(consoleMessage)
		if err == nil {
			err = cs.serve(typ, body)
		}
		switch {
		case err == nil:
		case cs.ctx.Err() != nil:
			return context.Cause(cs.ctx)
		case isTimeout(err) && cs.srv.isDraining():
			return errDraining
		default:
			return err
		}
	}
}

// serve answers one message.
func (cs *consoleSession) serve(typ byte, body []byte) error {
	switch typ {
	case pgwire.MsgTerminate:
		return errTerminate
	case pgwire.MsgSync:
		cs.skipping = false
		clear(cs.portals)
		cs.out = pgwire.AppendReadyForQuery(cs.out, byte(txIdle))
		return cs.flush()
	case pgwire.MsgFlush:
		return cs.flush()
	case pgwire.MsgCopyData, pgwire.MsgCopyDone, pgwire.MsgCopyFail:
		return nil
	case pgwire.MsgQuery:
		sql, err := pgwire.ParseQuery(body)
		if err != nil {
			return err
		}
		cs.skipping = false
		cs.simple(string(sql))
		cs.out = pgwire.AppendReadyForQuery(cs.out, byte(txIdle))
		return cs.flush()
	case pgwire.MsgParse, pgwire.MsgBind, pgwire.MsgDescribe, pgwire.MsgExecute, pgwire.MsgClose:
		if cs.skipping {
			return nil
		}
		err := cs.extended(typ, body)
		var protocol *pgwire.ProtocolError
		if errors.As(err, &protocol) {
			return err
		}
		if err != nil {
			cs.refuse(err)
			cs.skipping = true
		}
		return nil
	case pgwire.MsgFunctionCall:
		cs.refuse(&ConsoleError{Code: codeNotSupported, Message: "the console has no functions"})
		cs.out = pgwire.AppendReadyForQuery(cs.out, byte(txIdle))
		return cs.flush()
	}
	return &pgwire.ProtocolError{Code: pgwire.CodeProtocolViolation, Message: fmt.Sprintf("invalid frontend message type %d", typ)}
}

// flush sends what has been composed.
func (cs *consoleSession) flush() error {
	err := cs.link.Write(cs.out)
	cs.out = nil
	return err
}

// refuse composes an error.
func (cs *consoleSession) refuse(err error) {
	p := &problem{code: codeInternal, message: err.Error()}
	var told *ConsoleError
	if errors.As(err, &told) {
		p = &problem{code: told.Code, message: told.Message, detail: told.Detail, hint: told.Hint}
	}
	cs.out = append(cs.out, p.report("ERROR")...)
}

// simple runs the commands of a simple query up to the first that fails.
func (cs *consoleSession) simple(sql string) {
	commands, err := cs.read(sql)
	if err != nil {
		cs.refuse(err)
		return
	}
	if len(commands) == 0 {
		cs.out = pgwire.AppendEmpty(cs.out, pgwire.MsgEmptyQueryResponse)
	}
	for i := range commands {
		c := &commands[i]
		res, err := cs.execute(c)
		if err != nil {
			cs.refuse(err)
			return
		}
		if c.Columns != nil {
			cs.describe(c, nil)
		}
		p := &consolePortal{command: c, result: res}
		cs.send(p, 0)
	}
}

// extended answers a message of the extended protocol. A *pgwire.ProtocolError ends the connection.
func (cs *consoleSession) extended(typ byte, body []byte) error {
	switch typ {
	case pgwire.MsgParse:
		return cs.parse(body)
	case pgwire.MsgBind:
		return cs.bind(body)
	case pgwire.MsgDescribe:
		kind, name, err := pgwire.ParseDescribe(body)
		if err != nil {
			return err
		}
		return cs.describeNamed(kind, string(name))
	case pgwire.MsgExecute:
		name, limit, err := pgwire.ParseExecute(body)
		if err != nil {
			return err
		}
		return cs.runPortal(string(name), int(limit))
	}
	kind, name, err := pgwire.ParseClose(body)
	if err != nil {
		return err
	}
	if kind == pgwire.KindStatement {
		delete(cs.statements, string(name))
	} else {
		delete(cs.portals, string(name))
	}
	cs.out = pgwire.AppendEmpty(cs.out, pgwire.MsgCloseComplete)
	return nil
}

// parse makes a statement.
func (cs *consoleSession) parse(body []byte) error {
	v, err := pgwire.ParseParse(body)
	if err != nil {
		return err
	}
	commands, err := cs.read(string(v.SQL))
	name := string(v.Name)
	switch _, known := cs.statements[name]; {
	case err != nil:
		return err
	case len(commands) > 1:
		return &ConsoleError{Code: codeSyntax, Message: "cannot insert multiple commands into a prepared statement"}
	case known && name != "":
		return &ConsoleError{Code: codeDuplicateStatement, Message: fmt.Sprintf("prepared statement %q already exists", name)}
	case len(cs.statements) >= consoleStatements && !known:
		return &ConsoleError{Code: codeTooMany, Message: fmt.Sprintf("the console keeps %d prepared statements for a client", consoleStatements)}
	}
	cs.statements[name] = nil
	if len(commands) == 1 {
		cs.statements[name] = &commands[0]
	}
	cs.out = pgwire.AppendEmpty(cs.out, pgwire.MsgParseComplete)
	return nil
}

// bind makes a portal.
func (cs *consoleSession) bind(body []byte) error {
	v, err := pgwire.ParseBind(body)
	if err != nil {
		return err
	}
	args, err := pgwire.ParseArguments(v.Rest)
	if err != nil {
		return err
	}
	command, err := cs.statement(string(v.Statement))
	if err != nil {
		return err
	}
	if args.Count != 0 {
		return &ConsoleError{Code: pgwire.CodeProtocolViolation, Message: fmt.Sprintf(
			"bind message supplies %d parameters, but prepared statement %q requires 0", args.Count, v.Statement)}
	}
	if len(cs.portals) >= consoleStatements {
		return &ConsoleError{Code: codeTooMany, Message: fmt.Sprintf("the console keeps %d portals for a client", consoleStatements)}
	}
	p := &consolePortal{command: command}
	if command != nil {
		for i := range command.Columns {
			p.formats = append(p.formats, args.Results.For(i))
		}
	}
	cs.portals[string(v.Portal)] = p
	cs.out = pgwire.AppendEmpty(cs.out, pgwire.MsgBindComplete)
	return nil
}

// statement is a prepared statement; nil without an error is the empty query.
func (cs *consoleSession) statement(name string) (*ConsoleCommand, error) {
	command, ok := cs.statements[name]
	if !ok {
		return nil, &ConsoleError{Code: codeNoStatement, Message: fmt.Sprintf("prepared statement %q does not exist", name)}
	}
	return command, nil
}

// portal is a portal that was bound.
func (cs *consoleSession) portal(name string) (*consolePortal, error) {
	p := cs.portals[name]
	if p == nil {
		return nil, &ConsoleError{Code: codeNoPortal, Message: fmt.Sprintf("portal %q does not exist", name)}
	}
	return p, nil
}

// describeNamed answers a Describe.
func (cs *consoleSession) describeNamed(kind byte, name string) error {
	if kind == pgwire.KindPortal {
		p, err := cs.portal(name)
		if err != nil {
			return err
		}
		cs.describe(p.command, p.formats)
		return nil
	}
	command, err := cs.statement(name)
	if err != nil {
		return err
	}
	cs.out = pgwire.AppendMessage(cs.out, pgwire.MsgParameterDescription, []byte{0, 0})
	cs.describe(command, nil)
	return nil
}

// describe composes what rows a command returns; nil formats are text.
func (cs *consoleSession) describe(c *ConsoleCommand, formats []uint16) {
	if c == nil || c.Columns == nil {
		cs.out = pgwire.AppendEmpty(cs.out, pgwire.MsgNoData)
		return
	}
	columns := make([]pgwire.Column, len(c.Columns))
	for i, col := range c.Columns {
		columns[i] = pgwire.Column{Name: []byte(col.Name), Type: col.Type, TypeSize: -1, TypeMod: -1}
		switch col.Type {
		case typeInt4:
			columns[i].TypeSize = 4
		case typeInt8:
			columns[i].TypeSize = 8
		}
		if formats != nil {
			columns[i].Format = formats[i]
		}
	}
	cs.out = pgwire.AppendRowDescription(cs.out, columns...)
}

// runPortal answers an Execute: a portal is run once, and its rows go out as many at a time as were asked for.
func (cs *consoleSession) runPortal(name string, limit int) error {
	p, err := cs.portal(name)
	if err != nil {
		return err
	}
	if p.command == nil {
		cs.out = pgwire.AppendEmpty(cs.out, pgwire.MsgEmptyQueryResponse)
		return nil
	}
	if p.result == nil {
		if p.result, err = cs.execute(p.command); err != nil {
			return err
		}
	}
	cs.send(p, limit)
	return nil
}

// send composes rows of a portal, at most limit of them if that is above zero, and its end.
func (cs *consoleSession) send(p *consolePortal, limit int) {
	res := p.result
	if res.Notice != "" {
		cs.out = pgwire.AppendNotice(cs.out, pgwire.Report{
			Severity: "NOTICE", Code: "00000", Message: res.Notice, Detail: res.Detail, Routine: routine,
		})
		res.Notice = ""
	}
	rows := res.Rows[p.sent:]
	if limit > 0 && limit <= len(rows) {
		rows = rows[:limit]
	}
	for _, row := range rows {
		cs.out = pgwire.AppendDataRow(cs.out, encoded(p, row)...)
	}
	p.sent += len(rows)
	if limit > 0 && len(rows) == limit {
		cs.out = pgwire.AppendEmpty(cs.out, pgwire.MsgPortalSuspended)
		return
	}
	cs.out = pgwire.AppendCommandComplete(cs.out, res.Tag)
}

// encoded is a row in the formats that the portal was bound with.
func encoded(p *consolePortal, row [][]byte) [][]byte {
	if p.formats == nil {
		return row
	}
	out := make([][]byte, len(row))
	for i, v := range row {
		out[i] = v
		if v != nil && p.formats[i] == 1 {
			out[i] = binaryValue(p.command.Columns[i].Type, v)
		}
	}
	return out
}

// binaryValue is a value of one of the console's types in binary format.
func binaryValue(typ uint32, v []byte) []byte {
	if typ == pgwire.TypeText {
		return v
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		panic("BUG: a number of the console is none: " + string(v))
	}
	switch typ {
	case typeInt4:
		return binary.BigEndian.AppendUint32(nil, uint32(int32(n)))
	case typeInt8:
		return binary.BigEndian.AppendUint64(nil, uint64(n))
	}
	return numeric(n)
}

// numeric is a whole number in numeric's binary format: digits to the base 10,000, the weight of the first, sign and
// display scale.
func numeric(n int64) []byte {
	sign := uint16(0)
	u := uint64(n)
	if n < 0 {
		sign, u = 0x4000, -u
	}
	var digits []uint16
	for ; u > 0; u /= 10_000 {
		digits = append(digits, uint16(u%10_000))
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(len(digits)))
	out = binary.BigEndian.AppendUint16(out, uint16(max(len(digits)-1, 0)))
	out = binary.BigEndian.AppendUint16(out, sign)
	out = binary.BigEndian.AppendUint16(out, 0)
	for i := len(digits) - 1; i >= 0; i-- {
		out = binary.BigEndian.AppendUint16(out, digits[i])
	}
	return out
}

// errConsoleCanceled and errConsoleGone end a command.
var (
	errConsoleCanceled = errors.New("canceled by its client")
	errConsoleGone     = errors.New("client left")
)

// execute runs a command until its end, its client's cancel request, or its client's end.
func (cs *consoleSession) execute(c *ConsoleCommand) (*ConsoleResult, error) {
	ctx, cancel := context.WithCancelCause(cs.ctx)
	defer cancel(nil)
	cs.cancel.Store(&cancel)
	defer cs.cancel.Store(nil)
	if c.Waits {
		defer cs.watch(cancel)()
	}
	res, err := c.Run(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errConsoleCanceled) {
		return nil, &ConsoleError{Code: codeCanceled, Message: "canceling statement due to user request"}
	}
	return &res, err
}

// watch cancels a command when its client leaves; what is returned ends the watch.
func (cs *consoleSession) watch(cancel context.CancelCauseFunc) (stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		// A client that sends more meanwhile is there; what it has sent is read when its turn comes.
		if err := cs.link.Fill(); err != nil && !isTimeout(err) {
			cancel(errConsoleGone)
		}
	})
	return func() {
		_ = cs.link.SetReadDeadline(past)
		wg.Wait()
		_ = cs.link.SetReadDeadline(time.Time{})
	}
}

// canceled says that a cancel request came for what the client runs now.
func (cs *consoleSession) canceled() {
	if cancel := cs.cancel.Load(); cancel != nil {
		(*cancel)(errConsoleCanceled)
	}
}

// kill ends the connection.
func (cs *consoleSession) kill() {
	cs.end(errKilled)
	_ = cs.link.SetReadDeadline(past)
}

// ConsoleView is what can be seen of a client of the console.
type ConsoleView struct {
	ClientView
	Waits bool // a command runs
}

// view is what can be seen of the client from outside.
func (cs *consoleSession) view() ConsoleView {
	socket := cs.link.Conn()
	return ConsoleView{
		ClientView: ClientView{
			PID: cs.pid, User: cs.user, Entry: cs.name, Addr: socket.RemoteAddr(), Local: socket.LocalAddr(), TLS: encryption(cs.link), Since: cs.since,
		},
		Waits: cs.cancel.Load() != nil,
	}
}

// ConsoleClients is every client of the console, in no order.
func (srv *Server) ConsoleClients() []ConsoleView {
	var out []ConsoleView
	for _, cs := range srv.keys.consoles() {
		out = append(out, cs.view())
	}
	return out
}
