package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// lease is a connection to a node that a session holds, and what it and those before it have left on it.
type lease struct {
	conn       *pool.Conn
	node       *health.Node
	named      map[string]*onNode // prepared statements by their name on the node
	tick       uint64             // grows with each chunk: what of named was used last
	unnamed    uint64             // version of the unnamed statement, 0 when there is none, or unknownStatement
	shared     bool               // statements have names of ours, and stay for the session that comes next
	custom     nameSet            // of all that has been set on it: those names never go away
	left       string             // names of custom settings that something else may have left on it (router.JoinNames)
	owned      int                // statements that have a client's own name although it is shared
	spoiled    bool               // something may be left on it that nothing removes
	opaque     bool               // what may be left on it is lost when the session gives it back
	sequences  uint64             // serial of the session whose sequence values it has; 0 when it has none
	set        *settings          // what has been SET on it
	unsure     bool               // … is not known: set has names without values
	discard    bool               // a DISCARD ALL of the session has not reached it yet
	statements [router.ClassPrimary + 1]prometheus.Counter
	holder     *holding   // keyTable's note of who has it
	spoke      int64      // health.Clock() when a session has sent a notification over it; 0: none has
	spokeBy    uint64     // that session's serial
	cancelling sync.Mutex // held while a cancel is on its way to the node
	closed     bool       // its socket was closed under the session; guarded by cancelling
	used       int64      // health.Clock() when it was last used
}

// onNode is a prepared statement on a node.
type onNode struct {
	version uint64
	shape   []byte // rowShape of what it returns; nil while it is not known
	used    uint64 // lease.tick
}

// unknownStatement is the version of an unnamed statement that may be there, whoever has made it.
const unknownStatement = ^uint64(0) - 1

// prepared records that the node has a statement.
func (l *lease) prepared(name string, version uint64) {
	if name == "" {
		l.unnamed = version
		return
	}
	if l.named == nil {
		l.named = make(map[string]*onNode)
	}
	if l.shared && version != 0 && l.named[name] == nil && !l.ours(name) {
		l.owned++
	}
	l.named[name] = &onNode{version: version, used: l.tick}
}

// ours says whether a name on the node is one that we have made up.
func (l *lease) ours(name string) bool { return strings.HasPrefix(name, reservedPrefix) }

// shaped records what a statement of the node returns.
func (l *lease) shaped(name string, shape []byte) {
	if on := l.named[name]; on != nil {
		on.shape = shape
	}
}

// wiped records a DISCARD ALL of the node.
func (l *lease) wiped() {
	l.unsure = false
	l.set, l.unnamed, l.sequences, l.owned = noSettings, 0, 0, 0
	clear(l.named)
}

// older says whether the connection was open before a moment of health.Clock.
func (l *lease) older(moment int64) bool {
	return time.Since(l.conn.Opened) > time.Duration(health.Clock()-moment)
}

// forget records that the node has no such statement any more.
func (l *lease) forget(name string) {
	if name == "" {
		l.unnamed = 0
		return
	}
	if l.named[name] != nil && l.owned > 0 && !l.ours(name) {
		l.owned--
	}
	delete(l.named, name)
}

// version is the version of a statement on the node, 0 when it has none of that name.
func (l *lease) version(name string) uint64 {
	if name == "" {
		return l.unnamed
	}
	if on := l.named[name]; on != nil {
		return on.version
	}
	return 0
}

// called is what a statement of the client's is called on the lease. One that the client has not got keeps its name,
// which no shared lease has: the node's error is the client's to hear.
func (l *lease) called(name []byte, st *statement) string {
	if !l.shared || len(name) == 0 || st == nil {
		return string(name)
	}
	return st.node
}

// leaseOf returns the session's lease on node, opening one when it has none. A session
// holds at most one on the primary and one on a standby: another one of the same kind is given up. The
// error is a *pool.ConnectError or the context's.
func (s *session) leaseOf(node *health.Node) (*lease, error) {
	for _, l := range s.leases {
		if l != nil && l.node.ID == node.ID && !s.stale(l) {
			l.node = node
			return l, nil
		}
	}
	slot := slotOf(node)
	for i, l := range s.leases {
		if l != nil && (i == slot || l.node.ID == node.ID) {
			s.giveUp(l)
		}
	}
	l, err := s.open(s.ctx, node)
	if err != nil {
		return nil, err
	}
	s.leases[slot] = l
	return l, nil
}

// The two leases of a session.
const (
	slotPrimary = iota
	slotStandby
	slots
)

// slotOf is where a lease on the node stands.
func slotOf(node *health.Node) int {
	if node.Role == health.RolePrimary {
		return slotPrimary
	}
	return slotStandby
}

// idleTrust is how long a lease that was used is believed to be alive without a look.
const idleTrust = int64(5 * time.Millisecond)

// stale says whether a lease that was idle for a while is gone: the node closed it, or said so.
func (s *session) stale(l *lease) bool {
	now := health.Clock()
	if now-l.used < idleTrust {
		return false
	}
	l.used = now
	if l.conn.TLS {
		return !l.conn.Silent()
	}
	switch l.conn.Link.Look() {
	case pgwire.QuietDead:
		return true
	case pgwire.QuietData:
		return s.hear(l, true) != nil
	}
	return false
}

// open takes a connection to node out of the pool.
func (s *session) open(ctx context.Context, node *health.Node) (*lease, error) {
	if err := s.pass(ctx); err != nil {
		return nil, err
	}
	conn := s.srv.pool.TryGet(&s.homes[slotOf(node)], node.ID, s.startupKey, s)
	if s.waited = conn == nil; s.waited {
		if err := s.lightens(ctx); err != nil {
			return nil, err
		}
		var err error
		if conn, err = s.waitFor(ctx, node); err != nil {
			s.letGo()
			return nil, err
		}
	}
	l, _ := conn.State.(*lease)
	if l == nil {
		l = s.newLease(conn, node)
	}
	l.node, l.shared, l.used = node, s.target.Pooled, s.began
	s.srv.keys.attach(s, l)
	return l, nil
}

// lightens gives back what the session holds without need before it waits: who waits for one connection and keeps another
// stops somebody who does it the other way round. What remains is the open transaction's, and a claim to the primary's, whose
// holders get what they wait for: nobody keeps a standby's connection for longer than a statement or a transaction.
func (s *session) lightens(ctx context.Context) error {
	if !s.target.Pooled || !s.unload() {
		return nil
	}
	return s.pass(ctx)
}

// unload gives back the leases to which nothing binds the session, and says whether there was one.
func (s *session) unload() (gave bool) {
	for slot, l := range s.leases {
		if l == nil || l == s.txLease || l == s.batch || slot == slotPrimary && s.claims(l) {
			continue
		}
		s.releaseOne(l)
		gave = true
	}
	return gave
}

// newLease is what is known of a connection that nobody has used, or that was reset.
func (s *session) newLease(conn *pool.Conn, node *health.Node) *lease {
	l := &lease{conn: conn, set: noSettings, statements: s.srv.metrics.ofNode(s.cluster.Name, node.Name)}
	conn.State = l
	held := backend{s.cluster.Name, node.ID, conn.PID}
	keys := s.srv.keys
	conn.OnClose = func() { keys.forget(held) }
	return l
}

// speakers is how long a connection is left to the session that has sent a notification over it, if there are others.
const speakers = int64(50 * time.Millisecond)

// speaks records that what runs on the lease may send notifications.
func (s *session) speaks(u *router.Unit, l *lease) {
	s.txSpoke = s.txSpoke || u != nil && u.Flags&router.FlagNotifies != 0
	if !s.txSpoke {
		return
	}
	l.spoke, l.spokeBy = health.Clock(), s.serial
	l.holder.speaks(s.pid.Load(), l.spoke)
}

// Rank says how well a pooled connection fits the session: pool.Unfit where it cannot be used.
func (s *session) Rank(conn *pool.Conn) int {
	l, _ := conn.State.(*lease)
	switch {
	case conn.Temporary && s.searchesTemporary():
		return pool.Unfit
	case l == nil:
		return pool.Fit
	case l.custom.count > 0 && l.custom != s.st.set.custom, !router.HasNames(s.left, l.left):
		return pool.Unfit
	case l.sequences == s.serial:
		return pool.Best
	case l.sequences != 0, l.spoke != 0 && l.spokeBy != s.serial && health.Clock()-l.spoke < speakers:
		return pool.Reluctant
	case l.set.same(s.st.set):
		return pool.Good
	}
	return pool.Fit
}

// searchesTemporary says whether search_path names the schema for temporary objects. What it finds there tells a
// process that has made its schema from one that has not.
func (s *session) searchesTemporary() bool {
	path, ok := s.st.set.get("search_path")
	if !ok && s.base == emptyBase {
		return true // nobody knows yet
	} else if !ok {
		path = s.base.setting("search_path")
	}
	return strings.Contains(strings.ToLower(path), "pg_temp")
}

// giveUp ends a lease that the session may have left state on.
func (s *session) giveUp(l *lease) {
	s.srv.keys.detach(s, l)
	s.detach(l)
	s.srv.pool.Drop(l.conn)
}

// begin says that a statement of the session runs on the lease from now on, so that a cancel reaches it;
// a cancel of the one before, which is still under way, is waited for: it would hit this one.
func (l *lease) begin(s *session) {
	l.cancelling.Lock()
	s.running.Store(l)
	l.cancelling.Unlock()
}

// giveBack returns an idle lease to its pool, which wipes it before anybody else gets it.
func (s *session) giveBack(l *lease) {
	l.cancelling.Lock() // a cancel that is under way would hit whoever gets it next
	if l.closed {
		l.cancelling.Unlock()
		s.giveUp(l)
		return
	}
	if !s.target.Pooled {
		s.srv.keys.detach(s, l)
	} // else what it has notified of may still arrive: it is this session's until another has the connection
	s.detach(l)
	l.cancelling.Unlock()
	s.srv.pool.Put(l.conn)
}

// release gives back the leases that the session has no claim to between transactions.
func (s *session) release() {
	if !s.target.Pooled || s.st.tx != txIdle || s.batch != nil || s.deferred.text != "" || s.txLease != nil || s.skipping {
		return
	}
	s.unload()
}

// releaseOne gives back a lease of transaction pooling that is between transactions, or closes what nobody else may get.
func (s *session) releaseOne(l *lease) {
	l.conn.Dirty = l.conn.Dirty || l.owned > 0
	if s.st.set.custom.count > 0 {
		l.custom = s.st.set.custom
	}
	opaque := l.opaque
	// DISCARD ALL leaves the names of custom settings behind.
	kept := !l.spoiled && !l.unsure && !(l.conn.Dirty && (l.custom.count > 0 || l.left != ""))
	if kept {
		s.giveBack(l)
	} else {
		s.giveUp(l)
	}
	if opaque {
		s.forgotten(kept)
	}
}

// leftOpaque notes that something ran on the lease that may leave what nobody can see; lasting says that DISCARD ALL may
// not remove all of it. Either the session keeps the lease from now on, or what is left is lost when the
// transaction is over and nothing else keeps the lease: so with routing.opaque: reset, and on a standby, where a hint may
// have sent it.
func (s *session) leftOpaque(l *lease, lasting bool) {
	l.conn.Dirty, l.conn.Temporary, l.spoiled = true, true, l.spoiled || lasting
	if !s.resetsOpaque() && l.node.Role == health.RolePrimary {
		s.st.leftOpaque(lasting)
		return
	}
	l.opaque = true
}

// resetsOpaque says whether what an opaque statement leaves is lost rather than kept.
func (s *session) resetsOpaque() bool { return s.target.ResetOpaque && s.target.Pooled }

// forgotten counts a lease that was given back with all that was left on it, and tells the client which of its
// parameters are at their beginning again. Those that it has set itself are told when they are set on its next lease.
func (s *session) forgotten(kept bool) {
	if kept {
		s.cluster.metrics.resetKept.Inc()
	} else {
		s.cluster.metrics.resetClosed.Inc()
	}
	var out []byte
	for _, p := range s.base.params {
		told, ok := s.told(p.Name)
		if !ok || told == p.Value || s.sets(p.Name) {
			continue
		}
		s.tells(p.Name, p.Value)
		out = pgwire.AppendParameterStatus(out, p.Name, p.Value)
	}
	now, _ := s.st.set.get(nameSetting)
	if name, ok := s.st.start.get(nameSetting); ok && now == name && s.tells(nameSetting, s.nameShown) {
		out = pgwire.AppendParameterStatus(out, nameSetting, s.nameShown)
	}
	if len(out) > 0 {
		_ = s.client.Write(out) // a link that is broken says so at the next read
	}
}

// sets says whether a parameter follows from what the session has set itself.
func (s *session) sets(param string) bool {
	for i := range s.st.set.pairs {
		name := s.st.set.pairs[i].name
		if strings.EqualFold(name, param) || isIdentity(name) && (param == "is_superuser" || isIdentity(param)) {
			return true
		}
	}
	return false
}

// claims says whether the session must keep its primary connection, and sees to what has to happen to it
// before another session gets it.
func (s *session) claims(l *lease) bool {
	pin := s.st.held()
	switch {
	case pin != router.PinNone:
		l.conn.Dirty = true
		l.spoiled = l.spoiled || s.st.lasts()
		return true
	case len(s.doubts) > 0:
		return true
	}
	return l.sequences == s.serial && s.srv.sequences.known(s)
}

// detach removes a lease from the session.
func (s *session) detach(l *lease) {
	for i := range s.leases {
		if s.leases[i] == l {
			s.leases[i] = nil
		}
	}
	if s.txLease == l {
		s.txLease = nil
	}
	if s.batch == l {
		s.batch = nil
	}
	s.letGo()
}

// atHand is a lease that the session holds already, the last used first; nil when it has none.
func (s *session) atHand() *lease {
	if s.last != nil {
		for _, l := range s.leases {
			if l == s.last {
				return l
			}
		}
	}
	for _, l := range s.leases {
		if l != nil {
			return l
		}
	}
	return nil
}

// errReplay is a lease on which the session's settings could not be put in force.
type errReplay struct{ report []byte }

func (e *errReplay) Error() string { return "the session's settings were refused by the node" }

// prepareLease brings a lease up to the session's settings, when they differ: in a round trip of its own, since what decides
// rights, names or meaning must stand before the client's bytes are read, or in the same write as the chunk, where everything that
// differs may travel with it. c is nil where there is none. The error is the node link's, or *errReplay.
func (s *session) prepareLease(l *lease, c *chunk) error {
	s.ahead = prelude{}
	if s.batch != nil {
		return nil // a query of ours would end it
	}
	if l.discard {
		if err := s.command(l, "DISCARD ALL"); err != nil {
			return err
		}
		l.discard = false
		l.wiped()
	}
	if l.sequences != 0 && l.sequences != s.serial && s.st.tx == txIdle {
		if err := s.command(l, "DISCARD SEQUENCES"); err != nil {
			return err
		}
		l.sequences = 0
	}
	if l.set.same(s.st.set) || s.st.tx != txIdle && s.deferred.text == "" {
		return nil
	}
	sql := difference(l.set, s.st.set)
	if sql != "" && c != nil && s.travels(c, l) {
		s.ahead = prelude{sql: sql, set: s.st.set}
		return nil
	}
	if sql != "" {
		if err := s.command(l, sql); err != nil {
			return err
		}
	}
	l.set, l.unsure, s.careful = s.st.set, false, false
	return nil
}

// command runs a simple query of ours to its end and throws the answer away, but for
// changes of parameters and notifications. Like any simple query it drops the unnamed statement.
func (s *session) command(l *lease, sql string) error {
	l.unnamed = 0
	r := s.relaying()
	s.scratch = pgwire.AppendQuery(s.scratch[:0], sql)
	r.reset(s, l)
	r.push(expectation{typ: pgwire.MsgQuery, swallow: true})
	if err := s.asks(l, s.scratch); err != nil {
		return err
	}
	switch {
	case r.fatal != nil:
		return errLeaseEnded
	case r.failed:
		return &errReplay{report: r.refusal}
	}
	return r.clientErr
}

// difference is the SQL that turns the settings from into the settings to. Role and session
// authorisation are reset first and set last, since they decide what else may be set.
func difference(from, to *settings) string {
	var others []string
	for _, p := range from.ordered() {
		if _, ok := to.get(p.name); !ok && !isIdentity(p.name) {
			others = append(others, "RESET "+settingName(p.name))
		}
	}
	for _, p := range to.ordered() {
		name, value := p.name, p.value
		if old, ok := from.get(name); !isIdentity(name) && !(ok && old == value) {
			if ok && name == "datestyle" {
				others = append(others, "RESET "+settingName(name)) // a value may be one half of the setting
			}
			others = append(others, setting(name, value))
		}
	}
	identity := []string{"role", "session_authorization"}
	same := true
	for _, name := range identity {
		old, had := from.get(name)
		value, ok := to.get(name)
		same = same && had == ok && old == value
	}
	if same && len(others) == 0 {
		return ""
	}
	var all []string
	for _, name := range identity {
		if _, ok := from.get(name); ok {
			all = append(all, "RESET "+settingName(name))
		}
	}
	all = append(all, others...)
	slices.Reverse(identity)
	for _, name := range identity {
		if value, ok := to.get(name); ok {
			all = append(all, setting(name, value))
		}
	}
	return strings.Join(all, "; ")
}

// isIdentity says whether a setting is who the session is.
func isIdentity(name string) bool { return name == "role" || name == "session_authorization" }

// setting is the SQL that gives a setting the value that the client gave it, in the client's own way.
func setting(name, value string) string {
	if value == wasReset {
		return "RESET " + settingName(name)
	}
	if literal, ok := strings.CutPrefix(value, byFunction); ok {
		return "SELECT pg_catalog.set_config(" + quoteLiteral(name) + ", " + literal + ", false)"
	}
	switch {
	case name == "timezone":
		return "SET TIME ZONE " + value
	case isIdentity(name):
		return "SET " + settingName(name) + " " + value
	}
	return "SET " + settingName(name) + " TO " + value
}

// settingName is a setting's name as SET and RESET take it.
func settingName(name string) string {
	switch name {
	case "session_authorization":
		return "SESSION AUTHORIZATION"
	case "role":
		return "ROLE"
	}
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = quoteIdent(p)
	}
	return strings.Join(parts, ".")
}

// quoteLiteral quotes a text without backslashes.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// quoteIdent quotes an identifier.
func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// connectFailure returns the node's own ErrorResponse when it refused a login, and whether the node was
// not reached at all.
func connectFailure(err error) (report []byte, unreachable bool) {
	var ce *pool.ConnectError
	if errors.As(err, &ce) {
		return ce.Response, ce.Unavailable()
	}
	return nil, false
}
