package proxy

import (
	"crypto/md5"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"pgweir/internal/pgtest"
)

// noTLS is a listener without TLS.
func noTLS(int) (*tls.Config, bool) { return nil, false }

// md5Of is a password as pg_authid keeps it with password_encryption = md5.
func md5Of(user, password string) string {
	sum := md5.Sum([]byte(password + user))
	return "md5" + hex.EncodeToString(sum[:])
}

// fakePG is a scripted node that knows as much of PostgreSQL as a proxy can tell: transactions,
// prepared statements, portals, errors that skip to Sync, copies. It writes down all it is sent.
type fakePG struct {
	*pgtest.FakeNode
	name string

	mu        sync.Mutex
	standby   bool
	log       []string
	counts    map[string]int
	hooks     map[string]func(b *backendPG) error
	startup   func(b *backendPG) error
	backends  []*backendPG
	cancelled uint32
	column    string
	dropped   string
}

// newFakePG starts a node.
func newFakePG(t testing.TB, name string, standby bool) *fakePG {
	n := &fakePG{name: name, standby: standby, counts: map[string]int{}, hooks: map[string]func(b *backendPG) error{}}
	n.FakeNode = pgtest.NewFakeNode(t, n.serve)
	return n
}

// on has f answer a text instead of the usual answer, until it is replaced; nil puts that back.
func (n *fakePG) on(sql string, f func(b *backendPG) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hooks[sql] = f
}

// stalls has a node stop at sql when it comes: began is closed then, and then answers when finish is.
func (n *fakePG) stalls(sql string, then func(b *backendPG) error) (began, finish chan struct{}) {
	began, finish = make(chan struct{}), make(chan struct{})
	n.on(sql, func(b *backendPG) error {
		close(began)
		if err := b.StallUntil(finish); err != nil {
			return err
		}
		return then(b)
	})
	return began, finish
}

// drop has the node refuse to prepare a text from now on, as after a DROP TABLE.
func (n *fakePG) drop(sql string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropped = sql
}

// lacks says whether a text cannot be prepared.
func (n *fakePG) lacks(sql string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return sql != "" && sql == n.dropped
}

// onStartup has f say what follows the StartupMessage; nil is a login.
func (n *fakePG) onStartup(f func(b *backendPG) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.startup = f
}

// setStandby says whether the node is in recovery.
func (n *fakePG) setStandby(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.standby = on
}

// isStandby says whether the node is in recovery.
func (n *fakePG) isStandby() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standby
}

// note writes down what was received.
func (n *fakePG) note(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, line)
}

// runs counts the execution of a text and returns its hook.
func (n *fakePG) runs(sql string) func(b *backendPG) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[sql]++
	return n.hooks[sql]
}

// ran is how often a text was executed since forget.
func (n *fakePG) ran(sql string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts[sql]
}

// got is what was received since forget, joined by " | ".
func (n *fakePG) got() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.log, " | ")
}

// forget empties the log.
func (n *fakePG) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log, n.counts = nil, map[string]int{}
}

// last is the newest connection.
func (n *fakePG) last() *backendPG {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.backends[len(n.backends)-1]
}

// live is how many connections are open.
func (n *fakePG) live() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := 0
	for _, b := range n.backends {
		if !b.closed {
			k++
		}
	}
	return k
}

// backendPG is one connection to a node.
type backendPG struct {
	*pgtest.FakeConn
	n       *fakePG
	out     []pgtest.Message
	tx      byte
	skip    bool // to the next Sync
	simple  bool // a Query is being answered
	failed  bool
	limit   int32
	stmts   map[string]string
	portals map[string]*portalPG
	guc     *gucPG
	closed  bool // guarded by n.mu
}

// portalPG is an open portal.
type portalPG struct {
	sql string
	at  int
}

// serve is the life of one connection.
func (n *fakePG) serve(c *pgtest.FakeConn) error {
	b := &backendPG{FakeConn: c, n: n, tx: 'I', stmts: map[string]string{}, portals: map[string]*portalPG{}}
	if err := c.Startup(); err != nil {
		return err
	}
	n.mu.Lock()
	c.PID = uint32(1000*len(n.name) + c.N)
	c.Secret = []byte{byte(c.N), 1, 2, 3}
	n.backends = append(n.backends, b)
	startup := n.startup
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		b.closed = true
		n.mu.Unlock()
	}()
	if startup != nil {
		if err := startup(b); err != nil {
			return err
		}
	}
	for i := range c.Status {
		if v := c.Param(c.Status[i][0]); v != "" {
			c.Status[i][1] = v
		}
	}
	b.guc = newGUC(c.Status)
	if err := c.Ready(); err != nil {
		return err
	}
	for {
		m, err := c.Read()
		if err != nil {
			return err
		}
		if err := b.message(m); err != nil {
			return err
		}
	}
}

// say adds a message to the answer.
func (b *backendPG) say(ms ...pgtest.Message) { b.out = append(b.out, ms...) }

// flush sends the answer so far.
func (b *backendPG) flush() error {
	if len(b.out) == 0 {
		return nil
	}
	err := b.Send(b.out...)
	b.out = nil
	return err
}

// error answers with an error and flushes, as PostgreSQL does.
func (b *backendPG) error(code, message string) error {
	b.say(pgtest.Error("ERROR", code, message))
	if b.tx == 'T' {
		b.tx = 'E'
	}
	b.guc.ends(false)
	b.failed = true
	b.skip = !b.simple
	return b.flush()
}

// fatal says FATAL and closes.
func (b *backendPG) fatal(code, message string) error {
	b.say(pgtest.Error("FATAL", code, message))
	if err := b.flush(); err != nil {
		return err
	}
	return io.EOF
}

// ends says FATAL unasked, from outside of the script, and ends the stream.
func (b *backendPG) ends(code, message string) error {
	if err := b.Send(pgtest.Error("FATAL", code, message)); err != nil {
		return err
	}
	return b.CloseWrite()
}

// die closes the connection without a word; what was not flushed is lost.
func (b *backendPG) die() error {
	_ = b.CloseHard()
	return io.EOF
}

// ready ends a unit.
func (b *backendPG) ready() error {
	if b.tx == 'I' {
		b.guc.ends(true)
	}
	b.say(b.guc.report()...)
	b.say(pgtest.ReadyForQuery(b.tx))
	if b.tx != 'T' {
		b.portals = map[string]*portalPG{}
	}
	return b.flush()
}

// str cuts a NUL-terminated string off a body.
func str(body []byte) (string, []byte) {
	i := strings.IndexByte(string(body), 0)
	if i < 0 {
		return string(body), nil
	}
	return string(body[:i]), body[i+1:]
}

// message is one step of a backend.
func (b *backendPG) message(m pgtest.Message) error {
	switch m.Type {
	case 'X':
		b.n.note("X")
		return io.EOF
	case 'Q':
		sql, _ := str(m.Body)
		if b.skip {
			b.n.note("skipped Q")
			return nil
		}
		b.n.note("Q " + sql)
		return b.query(sql)
	case 'S':
		b.n.note("S")
		b.skip = false
		return b.ready()
	case 'H':
		b.n.note("H")
		return b.flush()
	case 'd', 'c', 'f':
		b.n.note("junk " + string(m.Type))
		return nil
	case 'F':
		b.n.note("F")
		b.say(pgtest.Msg('V', pgtest.Value("ok")))
		return b.ready()
	}
	if b.skip {
		b.n.note("skipped " + string(m.Type))
		return nil
	}
	return b.extended(m)
}

// extended is a message of the extended protocol.
func (b *backendPG) extended(m pgtest.Message) error {
	switch m.Type {
	case 'P':
		name, rest := str(m.Body)
		sql, _ := str(rest)
		b.n.note(fmt.Sprintf("P %s %s", name, sql))
		if _, ok := b.stmts[name]; ok && name != "" {
			return b.error("42P05", "prepared statement already exists")
		}
		delete(b.stmts, name)
		if strings.HasPrefix(sql, "BROKEN") {
			return b.error("42601", "syntax error")
		}
		if b.n.lacks(sql) {
			return b.error("42P01", "relation does not exist")
		}
		if b.tx == 'E' && sql != "" && !strings.HasPrefix(sql, "ROLLBACK") && !strings.HasPrefix(sql, "COMMIT") {
			return b.error("25P02", "current transaction is aborted")
		}
		b.stmts[name] = sql
		b.say(pgtest.ParseComplete())
	case 'B':
		portal, rest := str(m.Body)
		name, _ := str(rest)
		b.n.note(fmt.Sprintf("B %s %s", portal, name))
		sql, ok := b.stmts[name]
		if !ok {
			return b.error("26000", "prepared statement does not exist")
		}
		b.portals[portal] = &portalPG{sql: sql}
		b.say(pgtest.BindComplete())
	case 'D':
		name, _ := str(m.Body[1:])
		b.n.note(fmt.Sprintf("D %c %s", m.Body[0], name))
		return b.describe(m.Body[0], name)
	case 'C':
		name, _ := str(m.Body[1:])
		b.n.note(fmt.Sprintf("C %c %s", m.Body[0], name))
		if m.Body[0] == 'S' {
			delete(b.stmts, name)
		} else {
			delete(b.portals, name)
		}
		b.say(pgtest.CloseComplete())
	case 'E':
		portal, rest := str(m.Body)
		b.limit = int32(binary.BigEndian.Uint32(rest))
		p, ok := b.portals[portal]
		if !ok {
			b.n.note("E " + portal)
			return b.error("34000", "portal does not exist")
		}
		b.n.note("E " + p.sql)
		return b.execute(p)
	default:
		return fmt.Errorf("node %s got an unexpected message %q %q", b.n.name, m.Type, m.Body)
	}
	return nil
}

// describe answers a Describe.
func (b *backendPG) describe(kind byte, name string) error {
	sql, ok := b.stmts[name]
	if kind == 'P' {
		var p *portalPG
		if p, ok = b.portals[name]; ok {
			sql = p.sql
		}
	}
	if !ok {
		code := "26000"
		if kind == 'P' {
			code = "34000"
		}
		return b.error(code, "does not exist")
	}
	if kind == 'S' {
		b.say(pgtest.ParameterDescription())
	}
	if returnsRows(sql) {
		b.say(pgtest.RowDescription(b.n.shapeName()))
	} else {
		b.say(pgtest.NoData())
	}
	return nil
}

// returnsRows says whether a text is a query.
func returnsRows(sql string) bool {
	switch firstWord(sql) {
	case "SELECT", "VALUES", "SHOW":
		return true
	}
	return false
}

// firstWord is the first word of a text behind comments, in upper case.
func firstWord(sql string) string {
	for strings.HasPrefix(sql, "/*") {
		_, rest, _ := strings.Cut(sql, "*/")
		sql = strings.TrimSpace(rest)
	}
	i := strings.IndexAny(sql, " (;")
	if i < 0 {
		i = len(sql)
	}
	return strings.ToUpper(sql[:i])
}

// query answers a simple query, which may hold several statements.
func (b *backendPG) query(sql string) error {
	delete(b.stmts, "")
	b.simple, b.failed, b.limit = true, false, 0
	defer func() { b.simple = false }()
	if strings.TrimSpace(sql) == "" {
		b.say(pgtest.EmptyQueryResponse())
		return b.ready()
	}
	var parts []string
	for _, part := range strings.Split(sql, ";") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	for _, part := range parts {
		if err := b.execute(&portalPG{sql: part}); err != nil {
			return err
		}
		if b.failed {
			break
		}
	}
	return b.ready()
}

// execute answers one statement.
func (b *backendPG) execute(p *portalPG) error {
	if hook := b.n.runs(p.sql); hook != nil {
		return hook(b)
	}
	return b.usual(p)
}

// usual is the answer without a hook.
func (b *backendPG) usual(p *portalPG) error {
	word := firstWord(p.sql)
	if b.tx == 'E' && word != "ROLLBACK" && word != "COMMIT" && word != "ABORT" && word != "END" {
		return b.error("25P02", "current transaction is aborted")
	}
	switch word {
	case "BEGIN", "START":
		if b.tx == 'T' {
			b.say(pgtest.Notice("WARNING", "25001", "there is already a transaction in progress"))
		}
		b.tx = 'T'
		if word == "START" {
			word = "START TRANSACTION"
		}
		b.say(pgtest.CommandComplete(word))
	case "COMMIT", "END", "ROLLBACK", "ABORT":
		b.endTx(word, p.sql)
	case "SELECT", "VALUES", "SHOW":
		return b.rows(p)
	case "INSERT":
		if b.n.isStandby() {
			return b.error("25006", "cannot execute INSERT in a read-only transaction")
		}
		b.say(pgtest.CommandComplete("INSERT 0 1"))
	case "COPY":
		return b.copy(p.sql)
	case "DEALLOCATE":
		name := strings.TrimSpace(strings.TrimPrefix(p.sql, "DEALLOCATE"))
		if name == "ALL" {
			b.stmts = map[string]string{}
		} else if _, ok := b.stmts[name]; !ok {
			return b.error("26000", "prepared statement does not exist")
		}
		delete(b.stmts, name)
		b.say(pgtest.CommandComplete("DEALLOCATE"))
	case "DISCARD":
		b.stmts = map[string]string{}
		if p.sql == "DISCARD ALL" {
			if b.tx != 'I' {
				return b.error("25001", "DISCARD ALL cannot run inside a transaction block")
			}
			b.guc.set("RESET ALL")
		}
		b.say(pgtest.CommandComplete(p.sql))
	case "SET", "RESET":
		b.guc.set(p.sql)
		b.say(pgtest.CommandComplete(word))
	case "CREATE":
		b.say(pgtest.CommandComplete("CREATE TABLE"))
	default:
		b.say(pgtest.CommandComplete(word))
	}
	return nil
}

// endTx answers COMMIT and its kin.
func (b *backendPG) endTx(word, sql string) {
	if strings.HasPrefix(sql, "ROLLBACK TO") {
		b.tx = 'T'
		b.say(pgtest.CommandComplete("ROLLBACK"))
		return
	}
	tag := "ROLLBACK"
	if (word == "COMMIT" || word == "END") && b.tx != 'E' {
		tag = "COMMIT"
	}
	if b.tx == 'I' {
		b.say(pgtest.Notice("WARNING", "25P01", "there is no transaction in progress"))
	}
	b.guc.ends(tag == "COMMIT")
	b.tx = 'I'
	if strings.Contains(sql, "AND CHAIN") {
		b.tx = 'T'
	}
	b.say(pgtest.CommandComplete(tag))
}

// rows answers a query: a SELECT returns the node's name, VALUES one row for each parenthesis.
func (b *backendPG) rows(p *portalPG) error {
	switch {
	case strings.HasPrefix(p.sql, "SELECT pg_catalog.current_setting"):
		b.say(pgtest.RowDescription("a"), pgtest.DataRow(`"$user", public`, "none", "read committed", "off", "off", "0", "0", "on", "0"), pgtest.CommandComplete("SELECT 1"))
		return nil
	case p.sql == "SELECT 1/0":
		return b.error("22012", "division by zero")
	}
	if b.simple {
		b.say(pgtest.RowDescription("v"))
	}
	if firstWord(p.sql) != "VALUES" {
		b.say(pgtest.DataRow(b.n.name), pgtest.CommandComplete("SELECT 1"))
		return nil
	}
	total := strings.Count(p.sql, "(")
	sent := 0
	for p.at < total {
		if b.limit > 0 && sent == int(b.limit) {
			b.say(pgtest.PortalSuspended())
			return nil
		}
		p.at++
		sent++
		b.say(pgtest.DataRow(fmt.Sprintf("%s %d", b.n.name, p.at)))
	}
	b.say(pgtest.CommandComplete(fmt.Sprintf("SELECT %d", sent)))
	return nil
}

// copy answers COPY … FROM STDIN and COPY … TO STDOUT.
func (b *backendPG) copy(sql string) error {
	if !strings.Contains(sql, "FROM STDIN") {
		b.say(pgtest.CopyOutResponse(1), pgtest.CopyData("1\n"), pgtest.CopyData("2\n"), pgtest.CopyDone(), pgtest.CommandComplete("COPY 2"))
		return nil
	}
	b.say(pgtest.CopyInResponse(1))
	if err := b.flush(); err != nil {
		return err
	}
	lines := 0
	for {
		m, err := b.Read()
		if err != nil {
			return err
		}
		switch m.Type {
		case 'd':
			lines += strings.Count(string(m.Body), "\n")
			if strings.Contains(string(m.Body), "bad") {
				return b.error("22P02", "invalid input syntax")
			}
		case 'c':
			b.n.note("c")
			b.say(pgtest.CommandComplete(fmt.Sprintf("COPY %d", lines)))
			return nil
		case 'f':
			b.n.note("f")
			return b.error("57014", "COPY from stdin failed")
		case 'H', 'S': // ignored during COPY
			b.n.note("ignored " + string(m.Type))
		default:
			b.n.note("fails the COPY: " + string(m.Type))
			if err := b.error("08P01", fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", m.Type)); err != nil {
				return err
			}
			return b.message(m)
		}
	}
}

// setShape has the node describe its rows otherwise.
func (n *fakePG) setShape(column string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.column = column
}

// shapeName is the name of the column that every query returns.
func (n *fakePG) shapeName() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.column == "" {
		return "v"
	}
	return n.column
}

// backendOf is a connection that fits.
func (n *fakePG) backendOf(fits func(b *backendPG) bool) *backendPG {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range n.backends {
		if !b.closed && fits(b) {
			return b
		}
	}
	return nil
}
