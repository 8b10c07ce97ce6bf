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

// lease is a connection to a node that a session holds, and what the session has left on it.
type lease struct {
	conn       *pool.Conn
	node       *health.Node
	named      map[string]uint64 // prepared statements by the client's name: the version that is there
	unnamed    uint64            // version of the unnamed statement, 0 when there is none
	set        *settings         // what has been SET on it
	discard    bool              // a DISCARD ALL of the session has not reached it yet
	statements [router.ClassPrimary + 1]prometheus.Counter
	cancelling sync.Mutex // held while a cancel is on its way to the node
	used       int64      // health.Clock() when it was last used
}

// prepared records that the node has a statement.
func (l *lease) prepared(name string, version uint64) {
	if name == "" {
		l.unnamed = version
		return
	}
	if l.named == nil {
		l.named = make(map[string]uint64)
	}
	l.named[name] = version
}

// forget records that the node has no such statement any more.
func (l *lease) forget(name string) {
	if name == "" {
		l.unnamed = 0
		return
	}
	delete(l.named, name)
}

// version is the version of a statement on the node, 0 when it has none of that name.
func (l *lease) version(name []byte) uint64 {
	if len(name) == 0 {
		return l.unnamed
	}
	return l.named[string(name)]
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
	slot := slotStandby
	if node.Role == health.RolePrimary {
		slot = slotPrimary
	}
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
	if wait := s.poolWait(); wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	fence := s.cluster.Monitor.Fence()
	conn, err := s.srv.pool.Get(ctx, pool.Spec{
		Key: pool.Key{
			Cluster: s.cluster.Name, Node: node.ID, Database: s.target.Database, User: s.user, Startup: s.startupKey,
		},
		Target: pool.Target{Addr: node.Addr, Host: node.Host, TLS: s.cluster.NodeTLS}, NodeName: node.Name,
		Keys: s.keys, Params: s.startupParams, OpenedMark: fence.Mark, Size: s.target.PoolSize,
	})
	if err != nil {
		return nil, err
	}
	l := &lease{conn: conn, node: node, set: noSettings, used: health.Clock(), statements: s.srv.metrics.ofNode(s.cluster.Name, node.Name)}
	s.srv.keys.attach(s, l)
	return l, nil
}

// poolWait bounds the wait for a connection: query_wait_timeout, or the client's statement_timeout
// where that is shorter; 0 is no bound.
func (s *session) poolWait() time.Duration {
	wait := s.target.WaitTimeout
	if t := s.statementTimeout(); t > 0 && (wait == 0 || t < wait) {
		wait = t
	}
	return wait
}

// giveUp ends a lease that the session may have left state on.
func (s *session) giveUp(l *lease) {
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
	s.detach(l)
	l.cancelling.Unlock()
	s.srv.pool.Put(l.conn)
}

// detach removes a lease from the session.
func (s *session) detach(l *lease) {
	s.srv.keys.detach(s, l)
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

// prepareLease brings a lease up to the session's settings, in a round trip of its own and only
// when they differ: what decides rights or names must stand before the client's bytes are read. The
// error is the node link's, or *errReplay.
func (s *session) prepareLease(l *lease) error {
	if l.discard {
		if err := s.command(l, "DISCARD ALL"); err != nil {
			return err
		}
		l.discard, l.set, l.unnamed = false, noSettings, 0
		clear(l.named)
	}
	if l.set == s.st.set || (s.st.tx != txIdle && s.deferred.text == "") {
		return nil
	}
	if sql := difference(l.set, s.st.set); sql != "" {
		if err := s.command(l, sql); err != nil {
			return err
		}
		l.unnamed = 0
	}
	l.set = s.st.set
	return nil
}

// command runs a simple query of ours to its end and throws the answer away, but for
// changes of parameters and notifications.
func (s *session) command(l *lease, sql string) error {
	s.scratch = pgwire.AppendQuery(s.scratch[:0], sql)
	r := &s.relay
	r.reset(s, l)
	r.push(expectation{typ: pgwire.MsgQuery, swallow: true})
	if err := l.conn.Link.Exchange(s.scratch); err != nil {
		return err
	}
	if err := r.run(); err != nil {
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
	for _, name := range from.names {
		if _, ok := to.get(name); !ok && !isIdentity(name) {
			others = append(others, "RESET "+settingName(name))
		}
	}
	for _, name := range to.names {
		value, _ := to.get(name)
		if old, ok := from.get(name); !isIdentity(name) && !(ok && old == value) {
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
