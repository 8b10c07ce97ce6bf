package catalog

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/router"
)

// Pauses between reads of one database.
const (
	retryMin     = 250 * time.Millisecond // after a first failure, doubled with each further one
	retryMax     = 30 * time.Second
	missedPause  = 2 * time.Second // after a read, before an unknown name has it done again
	demandShare  = 5               // demanded reads pause this many times a read's own duration
	missedShare  = 10
	refreshShare = 50
	forever      = 1000 * time.Hour
)

// Database is a session's handle on the view of its database. All methods work on a nil
// handle, which knows nothing, and none but Load of the Manager blocks.
type Database struct {
	m        *Manager
	name     string
	current  atomic.Pointer[snapshot]
	used     atomic.Bool   // since the last look of run
	demanded atomic.Uint64 // stamps handed out by Invalidate
	served   atomic.Uint64 // the stamp that the current view covers
	missed   atomic.Bool
	full     atomic.Bool // the next read must not lean on the cache
	kick     chan struct{}
	mu       struct {
		sync.Mutex
		attempt *attempt // the running or next one
		last    *attempt // the last finished one; nil before the first
	}
}

// attempt is one read that any number of logins wait for.
type attempt struct {
	done chan struct{}
	err  error // set before done is closed
}

// newDatabase returns a handle whose run has yet to be started.
func newDatabase(m *Manager, name string) *Database {
	d := &Database{m: m, name: name, kick: make(chan struct{}, 1)}
	d.mu.attempt = &attempt{done: make(chan struct{})}
	return d
}

// View returns the current view, nil while there is none; then statements whose names
// matter belong on the primary. The view may be older than DDL that has just passed by:
// see Settled.
func (d *Database) View() *router.Catalog {
	s := d.snapshot()
	if s == nil {
		return nil
	}
	return s.catalog
}

// snapshot returns the current snapshot and notes that somebody wanted it.
func (d *Database) snapshot() *snapshot {
	if d == nil {
		return nil
	}
	if !d.used.Load() {
		d.used.Store(true)
	}
	s := d.current.Load()
	if s == nil {
		d.wake()
	}
	return s
}

// Path resolves search_path for a role (the current one, SET ROLE included) as the server
// does: "$user", unknown schemas and those without USAGE left out, pg_catalog in front
// unless named. Equal paths are one pointer. It is nil when that cannot be known: no view,
// a role the view does not know yet (the catalog is then read again soon), a setting that is
// no list of names. A statement is then to be classified without the view, since a default
// path would be a guess. It is to be asked again when View has another generation.
func (d *Database) Path(role, searchPath string, temp bool) *router.Path {
	s := d.snapshot()
	if s == nil {
		return nil
	}
	p := s.path(&d.m.interner, pathKey{role: role, searchPath: searchPath, temp: temp})
	if p == nil {
		d.Missed()
	}
	return p
}

// Serializable tells whether a session of that role starts with default_transaction_isolation
// serializable, by ALTER ROLE, ALTER DATABASE or the server's configuration. Without a view
// the answer is no.
func (d *Database) Serializable(role string) bool {
	s := d.snapshot()
	return s != nil && s.serializable(role)
}

// Invalidate says that DDL has taken effect in this database, and has it read again soon.
// The stamp is for Settled.
func (d *Database) Invalidate() uint64 {
	if d == nil {
		return 0
	}
	stamp := d.demanded.Add(1)
	d.wake()
	return stamp
}

// Settled tells whether the current view was read after Invalidate returned stamp. Until
// then a session that changed the catalog itself should not trust View.
func (d *Database) Settled(stamp uint64) bool { return d == nil || d.served.Load() >= stamp }

// Missed says that a statement used a name which the view does not know: the database is
// read again soon, but not as soon as after Invalidate.
func (d *Database) Missed() {
	if d != nil && !d.missed.Load() && !d.missed.Swap(true) {
		d.wake()
	}
}

// reset has the database read again at once and in full.
func (d *Database) reset() {
	d.full.Store(true)
	d.Invalidate()
}

// wake makes run look at what is due.
func (d *Database) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// load waits for the first view or the next failure.
func (d *Database) load(ctx context.Context) (*Database, error) {
	for {
		d.mu.Lock()
		next, last := d.mu.attempt, d.mu.last
		d.mu.Unlock()
		switch {
		case d.snapshot() != nil:
			return d, nil
		case last != nil && noSuchDatabase(last.err):
			return nil, last.err
		case last != nil && last.err != nil:
			return d, last.err
		}
		select {
		case <-next.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// finish ends the current attempt with err and lets its waiters go.
func (d *Database) finish(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.attempt.err = err
	close(d.mu.attempt.done)
	d.mu.last, d.mu.attempt = d.mu.attempt, &attempt{done: make(chan struct{})}
}

// schedule is what run remembers of its reads.
type schedule struct {
	ended    time.Time     // the last attempt
	took     time.Duration // the last successful read
	failures int           // since then
	idle     time.Time     // since when nobody has asked
}

// run reads the database whenever it is due, until ctx ends or the database is gone.
func (d *Database) run(ctx context.Context) {
	s := schedule{idle: time.Now()}
	known := newCache()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			d.m.forget(d)
			d.finish(context.Cause(ctx))
			return
		case <-timer.C:
		case <-d.kick:
		}
		now := time.Now()
		if d.used.Swap(false) {
			s.idle = now
		}
		if wait := d.due(s).Sub(now); wait > 0 {
			timer.Reset(wait)
			continue
		}
		if now.Sub(s.idle) >= d.m.cfg.IdleAfter {
			d.current.Store(nil)
			known = newCache()
			s = schedule{ended: now, idle: now}
			timer.Reset(forever)
			if !d.sleep(ctx) {
				continue
			}
		}
		if gone := d.attempt(ctx, &s, known); gone {
			return
		}
		timer.Reset(max(time.Until(d.due(s)), 0))
	}
}

// sleep waits until somebody wants the view again; false when ctx ended instead.
func (d *Database) sleep(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-d.kick:
			if d.used.Load() {
				return true
			}
		}
	}
}

// due returns when the next read should start.
func (d *Database) due(s schedule) time.Time {
	switch {
	case d.full.Load():
		return time.Time{}
	case s.failures > 0:
		return s.ended.Add(min(retryMin<<min(s.failures-1, 10), retryMax))
	case d.current.Load() == nil:
		return time.Time{}
	case d.demanded.Load() > d.served.Load():
		return s.ended.Add(demandShare * s.took)
	case d.missed.Load():
		return s.ended.Add(max(missedPause, missedShare*s.took))
	}
	return s.ended.Add(max(d.m.cfg.RefreshInterval, refreshShare*s.took))
}

// attempt reads once and publishes the outcome; gone tells that the database does not exist.
func (d *Database) attempt(ctx context.Context, s *schedule, known *cache) (gone bool) {
	select {
	case d.m.slots <- struct{}{}:
		defer func() { <-d.m.slots }()
	case <-ctx.Done():
		return false
	}
	stamp, first := d.demanded.Load(), d.current.Load() == nil
	d.missed.Store(false)
	if d.full.Swap(false) {
		known.clear()
	}
	started := time.Now()
	readCtx, cancel := context.WithTimeoutCause(ctx, d.m.cfg.LoadTimeout, errLoadTimeout)
	snap, err := d.m.read(readCtx, d.name, known)
	cancel()
	s.ended = time.Now()
	log := d.m.cfg.Logger.With("database", d.name)
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		s.failures++
		known.clear()
		d.m.cfg.Metrics.failed(d.m.cfg.Cluster)
		if gone = noSuchDatabase(err); gone {
			d.current.Store(nil)
			d.m.forget(d)
		}
		log.Warn("could not read the catalog", "error", err, "have_view", d.current.Load() != nil, "failures", s.failures)
		d.finish(err)
		return gone
	}
	s.failures, s.took = 0, s.ended.Sub(started)
	snap.readAt = started
	snap.catalog.Generation = d.m.nextGeneration()
	d.current.Store(snap)
	d.served.Store(stamp)
	d.m.cfg.Metrics.loaded(d.m.cfg.Cluster, s.took)
	if first {
		log.Info("read the catalog", "functions", len(snap.catalog.Functions), "relations", len(snap.catalog.Relations), "took", s.took)
	} else {
		log.Debug("read the catalog again", "functions", len(snap.catalog.Functions), "relations", len(snap.catalog.Relations), "took", s.took)
	}
	d.finish(nil)
	return false
}

// errLoadTimeout is why a read that took too long was given up.
var errLoadTimeout = errors.New("reading the catalog took longer than the load timeout")

// noSuchDatabase tells whether err is the server's 3D000.
func noSuchDatabase(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "3D000"
}
