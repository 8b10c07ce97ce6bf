package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// dialer opens probe connections. The one that is not a test's is pgDialer.
type dialer interface {
	// dial logs in to the node and finds out what it can be asked; ctx bounds it.
	dial(ctx context.Context, n NodeConfig) (link, error)
}

// link is one probe connection. After an error other than a server's own it is to be closed.
type link interface {
	// probe asks everything, until the deadline.
	probe(ctx context.Context, deadline time.Time) (*observation, error)
	// sample asks for positions only; number, sent are the caller's to fill in.
	sample(ctx context.Context, deadline time.Time) (sample, error)
	close()
}

// pgDialer opens real connections.
type pgDialer struct {
	login  Login
	lookup func(ctx context.Context, host string) ([]string, error) // nil: the system's
	mu     struct {
		sync.Mutex
		histories map[historyKey]readHistory
		addresses map[string][]string // of each name, as it was last looked up
	}
}

// historyKey is a server's run and the timeline that it wrote.
type historyKey struct {
	addr     string
	start    int64
	timeline uint32
}

// readHistory is a history that was read, or when that was tried in vain.
type readHistory struct {
	forks  []fork
	known  bool
	missed time.Time
}

// historyAgain is how long a history that could not be read is left alone.
const historyAgain = 10 * time.Second

// historiesKept bounds what is remembered of servers that are gone.
const historiesKept = 64

// attempt is one way to connect, and whether the error of the one before it allows it.
type attempt struct {
	cfg     *pgconn.Config
	allowed func(error) bool
}

// connect opens one connection with extra startup parameters. pgconn's own fallbacks are not used:
// they turn any failure of TLS into plaintext. Only what libpq's sslmode words mean is tried: for
// prefer plaintext when the server has no TLS, for allow TLS when it refuses plaintext.
func (d *pgDialer) connect(ctx context.Context, n NodeConfig, params map[string]string) (*pgconn.PgConn, error) {
	attempts, err := d.attempts(ctx, n, params)
	if err != nil {
		return nil, err
	}
	var conn *pgconn.PgConn
	for _, a := range attempts {
		if err != nil && (ctx.Err() != nil || !a.allowed(err)) {
			break
		}
		conn, err = pgconn.ConnectConfig(ctx, a.cfg)
		if err == nil {
			return conn, nil
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && ctx.Err() == nil {
		return nil, d.withoutName(ctx, n, dns)
	}
	return nil, err
}

// lookUp looks a name up and remembers what it found.
func (d *pgDialer) lookUp(ctx context.Context, host string) ([]string, error) {
	lookup := d.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	found, err := lookup(ctx, host)
	if err == nil && len(found) > 0 {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.mu.addresses == nil {
			d.mu.addresses = make(map[string][]string)
		}
		d.mu.addresses[host] = found
	}
	return found, err
}

// goneError says that neither a name nor the address that it last had leads to a server.
type goneError struct {
	name *net.DNSError
	addr string
	err  error
}

func (e *goneError) Error() string {
	return fmt.Sprintf("name look-up: %s; at its last address %s: %v", e.name.Err, e.addr, e.err)
}

func (e *goneError) Unwrap() error { return e.err }

// withoutName is what a name that cannot be looked up says of its node. A failed look-up alone proves nothing: the
// addresses that the name had last are tried. Where one answers, whoever that is now, the look-up's error stays;
// nothing is asked there.
func (d *pgDialer) withoutName(ctx context.Context, n NodeConfig, dns *net.DNSError) error {
	d.mu.Lock()
	known := d.mu.addresses[n.Host]
	d.mu.Unlock()
	err := error(dns)
	for _, ip := range known {
		var dialer net.Dialer
		addr := net.JoinHostPort(ip, strconv.Itoa(n.Port))
		conn, e := dialer.DialContext(ctx, "tcp", addr)
		if e == nil {
			_ = conn.Close()
			return dns
		}
		err = &goneError{name: dns, addr: addr, err: e}
	}
	return err
}

// attempts makes the configurations to try in turn.
func (d *pgDialer) attempts(ctx context.Context, n NodeConfig, params map[string]string) ([]attempt, error) {
	cfg, err := pgconn.ParseConfig(d.conninfo(n))
	if err != nil {
		return nil, fmt.Errorf("read the monitor's login: %w", err)
	}
	if d.login.Password != nil {
		if cfg.Password, err = d.login.Password(ctx); err != nil {
			return nil, &loginError{fmt.Errorf("get the monitor's password: %w", err)}
		}
	}
	cfg.ValidateConnect, cfg.LookupFunc = nil, d.lookUp
	cfg.RuntimeParams = map[string]string{"application_name": "pgweir monitor", "search_path": "pg_catalog"}
	for k, v := range params {
		cfg.RuntimeParams[k] = v
	}
	if n.ServerName != "" && cfg.TLSConfig != nil {
		cfg.TLSConfig.ServerName = n.ServerName
	}
	fallbacks := cfg.Fallbacks
	cfg.Fallbacks = nil
	out := []attempt{{cfg: cfg}}
	for _, f := range fallbacks {
		if f.Host != cfg.Host || f.Port != cfg.Port {
			continue
		}
		next := cfg.Copy()
		next.TLSConfig, next.Fallbacks = f.TLSConfig, nil
		allowed := noTLSThere
		if f.TLSConfig != nil {
			allowed = refusesPlaintext
			if n.ServerName != "" {
				next.TLSConfig.ServerName = n.ServerName
			}
		}
		out = append(out, attempt{cfg: next, allowed: allowed})
	}
	return out, nil
}

// noTLSThere says whether the server answered that it does not do TLS.
func noTLSThere(err error) bool {
	return strings.Contains(err.Error(), "server refused TLS connection")
}

// refusesPlaintext says whether the server let nobody in without TLS.
func refusesPlaintext(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "28000"
}

// conninfo is the connection string; everything that the environment could change is said.
func (d *pgDialer) conninfo(n NodeConfig) string {
	mode, db := d.login.SSLMode, d.login.Database
	if mode == "" {
		mode = "prefer"
	}
	if db == "" {
		db = "postgres"
	}
	words := [][2]string{
		{"host", n.Host},
		{"port", strconv.Itoa(n.Port)},
		{"user", d.login.User},
		{"dbname", db},
		{"sslmode", mode},
		{"target_session_attrs", "any"},
	}
	for _, w := range [][2]string{{"sslrootcert", d.login.SSLRootCert}, {"sslcert", d.login.SSLCert}, {"sslkey", d.login.SSLKey}} {
		if w[1] != "" {
			words = append(words, w)
		}
	}
	var b strings.Builder
	for _, w := range words {
		fmt.Fprintf(&b, "%s='%s' ", w[0], strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(w[1]))
	}
	return b.String()
}

// loginError is a login that failed on our side, before the server was asked.
type loginError struct{ err error }

// Error is what failed.
func (e *loginError) Error() string { return e.err.Error() }

// Unwrap is the cause.
func (e *loginError) Unwrap() error { return e.err }

// history is where the timeline of a writable node came from, read once for each run of its server;
// false when it cannot be read.
func (d *pgDialer) history(ctx context.Context, n NodeConfig, o *observation) ([]fork, bool) {
	key := historyKey{n.addr(), o.start, o.timeline}
	d.mu.Lock()
	h := d.mu.histories[key]
	d.mu.Unlock()
	if h.known || time.Since(h.missed) < historyAgain {
		return h.forks, h.known
	}
	forks, err := d.fetchHistory(ctx, n, o.timeline)
	h = readHistory{forks: forks, known: err == nil}
	if err != nil {
		h.missed = time.Now()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.histories == nil || len(d.mu.histories) >= historiesKept {
		d.mu.histories = map[historyKey]readHistory{}
	}
	d.mu.histories[key] = h
	return h.forks, h.known
}

// fetchHistory asks for the history of a timeline over a replication connection of its own (needs
// REPLICATION; Streaming Replication Protocol, TIMELINE_HISTORY).
func (d *pgDialer) fetchHistory(ctx context.Context, n NodeConfig, timeline uint32) ([]fork, error) {
	conn, err := d.connect(ctx, n, map[string]string{"replication": "true"})
	if err != nil {
		return nil, fmt.Errorf("open a replication connection: %w", err)
	}
	defer hangUp(conn)
	results, err := conn.Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("ask for the history of timeline %d: %w", timeline, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
		return nil, fmt.Errorf("ask for the history of timeline %d: unexpected answer", timeline)
	}
	return parseHistory(results[0].Rows[0][1])
}

// hangUp says goodbye without waiting for an answer.
func hangUp(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	// Whether the goodbye arrived makes no difference: the socket is closed either way.
	_ = conn.Close(ctx)
}

// classify says what a failed probe proves.
func classify(err error) failure {
	var pg *pgconn.PgError
	var dns *net.DNSError
	var ours *loginError
	var gone *goneError
	switch {
	case errors.As(err, &gone):
		f := classify(gone.err)
		f.text = "name look-up: " + gone.name.Err + "; its last address: " + f.text
		return f
	case errors.As(err, &pg):
		return classifyServer(pg)
	case errors.As(err, &ours):
		return failure{failLogin, ours.Error()}
	case errors.As(err, &dns):
		return failure{failName, "name look-up: " + dns.Err}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return failure{failRefused, "connection refused"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return failure{failTimeout, "no answer in time"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return failure{failTimeout, "no route to host"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failure{failBroken, "connection reset"}
	}
	return failure{failBroken, err.Error()}
}

// classifyServer says what an error of the server itself proves.
func classifyServer(pg *pgconn.PgError) failure {
	switch {
	case pg.Code == "57P03":
		return failure{failUnready, pg.Message}
	case pg.Code == "57P01", pg.Code == "57P02":
		return failure{failBroken, pg.Message}
	}
	// It is alive and speaks to us: rights, passwords, slots, a missing database.
	return failure{failLogin, fmt.Sprintf("%s (%s)", pg.Message, pg.Code)}
}

// isTimeout says whether a network error is one of time.
func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
