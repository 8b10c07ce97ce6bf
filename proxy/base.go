package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/router"
)

// base is what a login of one (cluster, database, user, startup parameters) on the primary starts with.
// It is immutable.
type base struct {
	read     int64          // health.Clock() when the node was asked
	began    uint64         // Cluster.began at that time
	syncOff  bool           // synchronous_commit is off
	params   []pgwire.Param // ParameterStatus, in the node's order
	settings map[string]string
}

// emptyBase stands in until the first node has been asked.
var emptyBase = &base{}

// param is a parameter that the node reported.
func (b *base) param(name string) (string, bool) {
	for i := range b.params {
		if b.params[i].Name == name {
			return b.params[i].Value, true
		}
	}
	return "", false
}

// setting is the value of one of baseSettings, or of a reported parameter.
func (b *base) setting(name string) string {
	if v, ok := b.settings[name]; ok {
		return v
	}
	v, _ := b.param(name)
	return v
}

// baseSettings are read from a new connection: nodes report none of them by themselves (search_path
// since PostgreSQL 18).
func baseSettings() []string {
	return []string{
		"search_path", "role", "default_transaction_isolation", "default_transaction_read_only",
		"default_transaction_deferrable", "statement_timeout", "idle_session_timeout", "synchronous_commit",
		"client_connection_check_interval",
	}
}

// baseKey is what logins that start alike have in common.
type baseKey struct{ cluster, database, user, startup string }

// bases remembers the base of every kind of login that a node has accepted.
type bases struct {
	mu struct {
		sync.Mutex
		m map[baseKey]*base
	}
}

// baseTTL is how long logins are answered from what a node has said before where nobody tells that it has changed.
const baseTTL = 30 * time.Second

// maxBases bounds what is remembered; startup parameters are the clients' to choose.
const maxBases = 10_000

// get is the base of s. Where none is known a node is asked, and its lease stays with the session.
func (b *bases) get(s *session) (*base, error) {
	key := baseKey{s.cluster.Name, s.target.Database, s.user, s.startupKey}
	b.mu.Lock()
	known := b.mu.m[key]
	b.mu.Unlock()
	if known != nil && known.began == s.cluster.began.Load() && health.Clock()-known.read < int64(baseTTL) {
		return known, nil
	}
	made, err := s.readBase()
	if err != nil {
		return nil, err
	}
	b.put(key, made)
	return made, nil
}

// put remembers a base.
func (b *bases) put(key baseKey, made *base) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.m == nil || len(b.mu.m) >= maxBases {
		b.mu.m = make(map[baseKey]*base)
	}
	b.mu.m[key] = made
}

// drop forgets what was remembered of a cluster's database: its settings may have changed.
func (b *bases) drop(cluster string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.mu.m {
		if k.cluster == cluster {
			delete(b.mu.m, k)
		}
	}
}

// firstLease is a lease on the primary, or, while there is none, on any standby; a client that
// starts up while no node is up waits.
func (s *session) firstLease() (*lease, error) {
	var try attempt
	for {
		snap := s.cluster.Monitor.Snapshot()
		d, ok := s.anyNode(snap, health.Clock())
		if !ok {
			if p := s.hold(&try); p != nil {
				return nil, p.asLogin()
			}
			continue
		}
		if try.avoid&(1<<(uint(d.Node.ID)&63)) != 0 {
			d = s.toPrimary(snap, health.Clock(), router.ReasonSession)
			if d.Node == nil {
				if p := s.hold(&try); p != nil {
					return nil, p.asLogin()
				}
				continue
			}
		}
		l, err := s.leaseOf(d.Node)
		if err == nil {
			return l, nil
		}
		if p := s.notConnected(d, err, &try); p != nil {
			return nil, p.asLogin()
		}
	}
}

// asLogin is a problem that ends a login.
func (p *problem) asLogin() error {
	if p.ends != nil && p.raw == nil {
		return p.ends
	}
	if p.raw != nil {
		return &sessionFatal{report: p.raw}
	}
	return &loginProblem{p}
}

// baseQuery asks for baseSettings.
func baseQuery() string {
	return "SELECT pg_catalog.current_setting('" + strings.Join(baseSettings(), "'), pg_catalog.current_setting('") + "')"
}

// readBase asks a node what the session starts with.
func (s *session) readBase() (*base, error) {
	b := &base{read: health.Clock(), began: s.cluster.began.Load(), settings: make(map[string]string)}
	names := baseSettings()
	a, err := s.inquire(baseQuery())
	if err != nil {
		return nil, err
	}
	if len(a.values) != len(names) {
		return nil, errors.New("node refused to show a session's settings")
	}
	b.params = append(b.params, a.params...)
	for i, n := range names {
		b.settings[n] = a.values[i]
	}
	b.syncOff = isOff(b.settings["synchronous_commit"])
	return b, nil
}

// rebase takes over what connections start with since that has changed, which the connections that the session gets from
// now on do: routing must know it, and the client is told of what nodes report. A session that keeps a connection keeps what that
// began with, and one that finds no node is none the wiser.
func (s *session) rebase() error {
	if s.base.began == s.cluster.began.Load() || s.batch != nil || s.st.tx != txIdle || s.deferred.text != "" || s.skipping || s.inDuplex {
		return nil
	}
	for _, l := range s.leases {
		if l != nil {
			return nil
		}
	}
	if snap := s.cluster.Monitor.Snapshot(); snap.Primary == nil || !snap.Primary.Trusted(health.Clock()) {
		return nil
	}
	set, effective := s.st.set, s.st.effective
	s.st.set, s.st.effective = noSettings, noSettings
	s.began = health.Clock() // the time that it may wait for a connection counts from now
	now, err := s.srv.bases.get(s)
	s.st.set, s.st.effective = set, effective
	s.reports = s.reports[:0]
	if err != nil {
		if s.ctx.Err() != nil {
			return s.cause()
		}
		return nil
	}
	old := s.base
	s.base, s.envOf = now, envKey{}
	var out []byte
	for _, p := range now.params {
		was, _ := old.param(p.Name)
		told, ok := s.told(p.Name)
		_, own := effective.get(strings.ToLower(p.Name))
		if !ok {
			told = was
		}
		switch p.Name {
		case "in_hot_standby", "is_superuser", "session_authorization":
			own = true // not what the server starts with, but who the session is
		}
		if own {
			s.tells(p.Name, told)
		} else if s.tells(p.Name, p.Value); told != p.Value {
			out = pgwire.AppendParameterStatus(out, p.Name, p.Value)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return s.client.Write(out)
}

// answer is what a node said to a question of ours.
type answer struct {
	params  []pgwire.Param // what it reported at its login
	values  []string       // of the last row; nil where it refused
	notices []byte         // whole messages
}

// inquire asks a node a question during the login, on a connection that has no settings but those of its login. The lease stays
// with the session. Connections that died in the pool do not count: there is an end of them.
func (s *session) inquire(sql string) (answer, error) {
	began := health.Clock()
	for tries := 0; ; {
		l, err := s.firstLease()
		if err != nil {
			return answer{}, err
		}
		a := answer{params: l.conn.Params}
		wake := context.AfterFunc(s.ctx, func() { _ = l.conn.Link.SetDeadline(past) })
		if err = s.prepareLease(l, nil); err == nil {
			err = a.read(l, sql)
		}
		if !wake() && err == nil {
			err = s.cause() // its deadline may be set at any moment
		}
		if err == nil {
			return a, nil
		}
		s.lost(l, err)
		s.giveUp(l)
		if s.ctx.Err() != nil {
			return answer{}, s.cause()
		}
		if !l.older(began) {
			tries++
		}
		if tries == 2 {
			return answer{}, fmt.Errorf("asking a node at a login: %w", err)
		}
	}
}

// read asks the node of a lease and takes its answer.
func (a *answer) read(l *lease, sql string) error {
	l.unnamed = 0
	if err := l.conn.Link.Write(pgwire.AppendQuery(nil, sql)); err != nil {
		return err
	}
	for {
		typ, body, err := l.conn.Link.ReadMessage(maxWhole)
		if err != nil {
			return err
		}
		switch typ {
		case pgwire.MsgDataRow:
			row, err := pgwire.ParseDataRow(body)
			if err != nil {
				return err
			}
			a.values = nil
			for v, ok := row.Next(); ok; v, ok = row.Next() {
				a.values = append(a.values, string(v))
			}
		case pgwire.MsgNoticeResponse:
			a.notices = pgwire.AppendMessage(a.notices, typ, body)
		case pgwire.MsgErrorResponse:
			a.values = nil
		case pgwire.MsgReadyForQuery:
			return nil
		}
	}
}
