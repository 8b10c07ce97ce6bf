package auth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The queries of SQL = "": the function of setup-sql, and what it does where the monitor may read
// the catalog itself. VALID UNTIL is honoured by both; superusers and replication roles come in
// only by other sources.
const (
	lookupFunction = "SELECT u.* FROM pgweir.user_lookup($1::text) AS u"
	lookupCatalog  = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid" +
		" WHERE rolname = $1::text AND rolcanlogin AND NOT rolsuper AND NOT rolreplication" +
		" AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())"
)

// fixedPath is the search_path of every query: nothing that a user can create is found without
// its schema's name.
const fixedPath = "pg_catalog, pg_temp"

// ErrQueryRights says that the monitor may neither call the function nor read the catalog.
var ErrQueryRights = errors.New("auth_query: the monitor's role may neither call pgweir.user_lookup(text) nor read pg_authid " +
	"(run the output of \"pgweir setup-sql\" on the primary)")

// QueryConfig is how secrets are asked of a node.
type QueryConfig struct {
	// Target is the node to ask now, with the monitor's name and password: the primary, or
	// any standby of its line while there is none. It is called before every query, so that
	// a failover moves the connection. Fallbacks of the result are not used, so a TLS failure
	// never turns into plaintext.
	Target func(ctx context.Context) (*pgconn.Config, error)
	// SQL takes the user's name as $1 and returns at most one row: the secret, or the user's
	// name and the secret. Names in it need their schema. "": pgweir.user_lookup($1) or, where
	// that cannot be called, pg_authid.
	SQL string
	// TTL is how long a secret is used without asking again, NegativeTTL how long a user stays
	// unknown, and missing rights missing.
	TTL         time.Duration
	NegativeTTL time.Duration
	// Timeout bounds one query, the connection included.
	Timeout time.Duration
	// MaxEntries bounds what is remembered.
	MaxEntries int
}

// DefaultQueryConfig is a QueryConfig for a target.
func DefaultQueryConfig(target func(ctx context.Context) (*pgconn.Config, error)) QueryConfig {
	return QueryConfig{
		Target: target, TTL: 10 * time.Second, NegativeTTL: 2 * time.Second,
		Timeout: 5 * time.Second, MaxEntries: 10_000,
	}
}

// Validate returns everything that is wrong, joined.
func (c QueryConfig) Validate() error {
	var errs []error
	if c.Target == nil {
		errs = append(errs, errors.New("no Target"))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout %v: must be above 0", c.Timeout))
	}
	if c.MaxEntries < 1 {
		errs = append(errs, fmt.Errorf("room for %d entries: must be at least 1", c.MaxEntries))
	}
	return errors.Join(errs...)
}

// Query asks a node for secrets (PgBouncer's auth_query). Answers are remembered for a while, and
// all who want to know the same at once wait for one query. It holds at most one connection.
type Query struct {
	cfg  QueryConfig
	turn chan struct{} // holds one token; whoever has it owns conn
	conn *queryConn

	mu struct {
		sync.Mutex
		known   map[string]queryEntry
		flights map[string]*flight
		barred  time.Time // until when ErrQueryRights is not tried again
		closed  bool
	}
}

// queryEntry is one remembered answer.
type queryEntry struct {
	secret Secret // zero: no such user
	until  time.Time
}

// flight is a query that somebody is making.
type flight struct {
	done    chan struct{} // closed when secret and err are set
	secret  Secret
	err     error
	aborted bool // because of the asker's own context, not of the node
	stale   bool // Forget was called meanwhile: not to be remembered
}

// queryConn is the connection, and which of the queries works on it.
type queryConn struct {
	*pgconn.PgConn
	host     string
	port     uint16
	user     string
	database string
	sql      string
}

// NewQuery makes no connection before the first Lookup.
func NewQuery(cfg QueryConfig) (*Query, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("auth_query configuration: %w", err)
	}
	q := &Query{cfg: cfg, turn: make(chan struct{}, 1)}
	q.turn <- struct{}{}
	q.mu.known = make(map[string]queryEntry)
	q.mu.flights = make(map[string]*flight)
	return q, nil
}

// Lookup is the node's answer, or the remembered one. ErrQueryRights says that no answer can be
// had with these rights; other errors are the node's or the network's.
func (q *Query) Lookup(ctx context.Context, user string) (Secret, error) {
	for {
		secret, f, mine, err := q.enter(user)
		switch {
		case err != nil:
			return Secret{}, err
		case f == nil:
			return found(secret)
		case mine:
			q.fly(ctx, user, f)
		default:
			select {
			case <-f.done:
			case <-ctx.Done():
				return Secret{}, context.Cause(ctx)
			}
		}
		if f.aborted && ctx.Err() == nil {
			continue // the one who asked for all of us gave up
		}
		if f.err != nil {
			return Secret{}, f.err
		}
		return found(f.secret)
	}
}

// found is the result for a secret that may be the zero one.
func found(secret Secret) (Secret, error) {
	if secret.IsZero() {
		return Secret{}, ErrNoUser
	}
	return secret, nil
}

// enter is the remembered answer, or the flight to wait for, which is the caller's own to make if
// mine is set.
func (q *Query) enter(user string) (secret Secret, f *flight, mine bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return Secret{}, nil, false, errors.New("auth_query is closed")
	}
	if time.Now().Before(q.mu.barred) {
		return Secret{}, nil, false, ErrQueryRights
	}
	if e, ok := q.mu.known[user]; ok {
		if time.Now().Before(e.until) {
			return e.secret, nil, false, nil
		}
		delete(q.mu.known, user)
	}
	if f := q.mu.flights[user]; f != nil {
		return Secret{}, f, false, nil
	}
	f = &flight{done: make(chan struct{})}
	q.mu.flights[user] = f
	return Secret{}, f, true, nil
}

// fly makes the query of a flight and remembers its answer.
func (q *Query) fly(ctx context.Context, user string, f *flight) {
	secret, err := q.ask(ctx, user)
	q.mu.Lock()
	defer q.mu.Unlock()
	f.secret, f.err, f.aborted = secret, err, err != nil && ctx.Err() != nil
	delete(q.mu.flights, user)
	if err == nil && !f.stale && !q.mu.closed {
		q.remember(user, secret)
	}
	if errors.Is(err, ErrQueryRights) {
		q.mu.barred = time.Now().Add(q.cfg.NegativeTTL)
	}
	close(f.done)
}

// remember keeps an answer; where there are too many already, any other goes. The lock is held.
func (q *Query) remember(user string, secret Secret) {
	ttl := q.cfg.TTL
	if secret.IsZero() {
		ttl = q.cfg.NegativeTTL
	}
	if ttl <= 0 {
		return
	}
	for name := range q.mu.known {
		if len(q.mu.known) < q.cfg.MaxEntries {
			break
		}
		delete(q.mu.known, name)
	}
	q.mu.known[user] = queryEntry{secret: secret, until: time.Now().Add(ttl)}
}

// Forget drops the remembered secret of a user whose proof failed. That a user is unknown stays
// remembered, or guessing names would cost a query each.
func (q *Query) Forget(user string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e, ok := q.mu.known[user]; ok && !e.secret.IsZero() {
		delete(q.mu.known, user)
	}
	if f := q.mu.flights[user]; f != nil {
		f.stale = true
	}
}

// ask makes one query when it is its turn; a connection that turns out broken is replaced once.
func (q *Query) ask(ctx context.Context, user string) (Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.Timeout)
	defer cancel()
	select {
	case <-q.turn:
	case <-ctx.Done():
		return Secret{}, fmt.Errorf("auth_query: waiting for its turn: %w", context.Cause(ctx))
	}
	defer func() { q.turn <- struct{}{} }()
	cfg, err := q.cfg.Target(ctx)
	if err != nil {
		return Secret{}, fmt.Errorf("auth_query: %w", err)
	}
	if q.conn != nil && (q.conn.IsClosed() || !q.conn.leadsTo(cfg)) {
		q.drop()
	}
	used := q.conn != nil
	secret, err := q.run(ctx, cfg, user)
	if err != nil && used && q.conn == nil && ctx.Err() == nil {
		secret, err = q.run(ctx, cfg, user)
	}
	return secret, err
}

// leadsTo says whether the connection is to the node, database and role of a configuration.
func (c *queryConn) leadsTo(cfg *pgconn.Config) bool {
	return c.host == cfg.Host && c.port == cfg.Port && c.user == cfg.User && c.database == cfg.Database
}

// drop closes the connection. The turn is held.
func (q *Query) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = q.conn.Close(ctx)
	q.conn = nil
}

// run connects if need be and makes the query. The turn is held; conn is nil after an error that
// the connection did not survive.
func (q *Query) run(ctx context.Context, cfg *pgconn.Config, user string) (Secret, error) {
	if q.conn == nil {
		conn, err := q.connect(ctx, cfg)
		if err != nil {
			return Secret{}, err
		}
		q.conn = conn
	}
	secret, err := q.conn.lookup(ctx, user)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && q.cfg.SQL == "" && q.conn.sql == lookupFunction && missing(pg.Code) {
		q.conn.sql = lookupCatalog
		secret, err = q.conn.lookup(ctx, user)
		if errors.As(err, &pg) && pg.Code == "42501" {
			err = ErrQueryRights
		}
	}
	if err == nil {
		return secret, nil
	}
	if !errors.As(err, &pg) || q.conn.IsClosed() || errors.Is(err, ErrQueryRights) {
		q.drop() // and look for the function again on the next connection
	}
	return Secret{}, err
}

// missing says whether an SQLSTATE means that the function cannot be called: there is none, or no
// schema, or no right.
func missing(code string) bool { return code == "42883" || code == "3F000" || code == "42501" }

// connect opens the connection with settings that no user's can change.
func (q *Query) connect(ctx context.Context, cfg *pgconn.Config) (*queryConn, error) {
	own := cfg.Copy()
	own.Fallbacks = nil
	if own.RuntimeParams == nil {
		own.RuntimeParams = make(map[string]string)
	}
	own.RuntimeParams["search_path"] = fixedPath
	own.RuntimeParams["application_name"] = "pgweir auth_query"
	conn, err := pgconn.ConnectConfig(ctx, own)
	if err != nil {
		return nil, fmt.Errorf("auth_query: connecting to %s:%d: %w", cfg.Host, cfg.Port, err)
	}
	sql := q.cfg.SQL
	if sql == "" {
		sql = lookupFunction
	}
	return &queryConn{PgConn: conn, host: cfg.Host, port: cfg.Port, user: cfg.User, database: cfg.Database, sql: sql}, nil
}

// lookup makes the query once. The zero Secret is a user that the node does not know.
func (c *queryConn) lookup(ctx context.Context, user string) (Secret, error) {
	res := c.ExecParams(ctx, c.sql, [][]byte{[]byte(user)}, nil, nil, nil).Read()
	var pg *pgconn.PgError
	if errors.As(res.Err, &pg) && pg.Code == "22021" {
		return Secret{}, nil // a name that the database's encoding cannot hold
	}
	if res.Err != nil {
		return Secret{}, fmt.Errorf("auth_query: %w", res.Err)
	}
	if len(res.Rows) == 0 {
		return Secret{}, nil
	}
	row := res.Rows[0]
	if len(row) == 0 || len(res.Rows) > 1 {
		return Secret{}, fmt.Errorf("auth_query returned %d rows of %d columns: expected one row with the user's name and secret",
			len(res.Rows), len(row))
	}
	text := row[0]
	if len(row) > 1 {
		if string(row[0]) != user {
			return Secret{}, errors.New("auth_query returned another user than the one it was asked for")
		}
		text = row[1]
	}
	secret, err := ParseSecret(string(text))
	if err != nil {
		return Secret{}, fmt.Errorf("auth_query for user %q: %w", user, err)
	}
	return secret, nil
}

// Close ends the connection; later Lookups fail. It waits for a query that is under way.
func (q *Query) Close() {
	q.mu.Lock()
	q.mu.closed = true
	clear(q.mu.known)
	q.mu.Unlock()
	<-q.turn
	if q.conn != nil {
		q.drop()
	}
	q.turn <- struct{}{}
}
