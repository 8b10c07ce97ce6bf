package catalog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/router"
)

// Config is what a Manager needs.
type Config struct {
	// Cluster is the name that logs and metrics carry.
	Cluster string
	// Target says which node to read a database on and how to log in there: the primary,
	// or any readable node while there is none. It is called once for each read and may
	// block until ctx ends. Fallbacks of what it returns are ignored.
	Target func(ctx context.Context, database string) (*pgconn.Config, error)
	// Rules are the names the configuration vouches for.
	Rules Rules
	// RefreshInterval is how old a view grows before it is read again. A database whose
	// reading is slow is read less often: at most 2 % of the time is spent on it.
	RefreshInterval time.Duration
	// StatementTimeout bounds each query of a read on the server, LoadTimeout the whole read.
	StatementTimeout time.Duration
	LoadTimeout      time.Duration
	// IdleAfter is how long a view is kept that nobody asks for.
	IdleAfter time.Duration
	// MaxLoads bounds how many databases are read at the same time.
	MaxLoads int
	// Logger gets one Info line at a database's first view, Warn when a read fails.
	Logger *slog.Logger
	// Metrics may be shared by the managers of all clusters; nil counts nothing.
	Metrics *Metrics
}

// DefaultConfig returns the defaults; Cluster and Target are to be filled in.
func DefaultConfig() Config {
	return Config{
		RefreshInterval:  time.Minute,
		StatementTimeout: 30 * time.Second,
		LoadTimeout:      2 * time.Minute,
		IdleAfter:        time.Hour,
		MaxLoads:         4,
		Logger:           slog.New(slog.DiscardHandler),
	}
}

// Validate returns everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Target == nil {
		errs = append(errs, errors.New("catalog: Target is missing"))
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"RefreshInterval", c.RefreshInterval},
		{"StatementTimeout", c.StatementTimeout},
		{"LoadTimeout", c.LoadTimeout},
		{"IdleAfter", c.IdleAfter},
	} {
		if d.d <= 0 {
			errs = append(errs, fmt.Errorf("catalog: %s is %v, must be positive", d.name, d.d))
		}
	}
	if c.MaxLoads < 1 {
		errs = append(errs, fmt.Errorf("catalog: MaxLoads is %d, must be at least 1", c.MaxLoads))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("catalog: Logger is missing"))
	}
	return errors.Join(append(errs, c.Rules.Validate())...)
}

// Manager keeps the views of one cluster's databases. Its methods may be called by any
// number of goroutines.
type Manager struct {
	cfg        Config
	read       readFunc
	generation atomic.Uint64
	slots      chan struct{}
	created    chan *Database
	interner   interner
	databases  atomic.Pointer[map[string]*Database] // replaced as a whole, under mu
	mu         sync.Mutex
}

// readFunc reads one database; cache carries what the last read learned and may be empty.
type readFunc func(ctx context.Context, database string, cache *cache) (*snapshot, error)

// New returns a manager that serves as long as Run runs.
func New(cfg Config) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	compiled, err := compileRules(cfg.Rules)
	if err != nil {
		return nil, err
	}
	m := newManager(cfg, nil)
	m.read = func(ctx context.Context, database string, c *cache) (*snapshot, error) {
		target, err := cfg.Target(ctx, database)
		if err != nil {
			return nil, fmt.Errorf("choose a node: %w", err)
		}
		return readDatabase(ctx, target, cfg.StatementTimeout, compiled, c)
	}
	return m, nil
}

// Read reads one database once, for a command that asks a server without serving clients.
// The handle keeps what was read and is never refreshed.
func Read(ctx context.Context, target *pgconn.Config, rules Rules, statementTimeout time.Duration) (*Database, error) {
	compiled, err := compileRules(rules)
	if err != nil {
		return nil, err
	}
	snap, err := readDatabase(ctx, target, statementTimeout, compiled, newCache())
	if err != nil {
		return nil, err
	}
	m := newManager(DefaultConfig(), nil)
	snap.catalog.Generation = m.nextGeneration()
	d := newDatabase(m, target.Database)
	d.current.Store(snap)
	return d, nil
}

// newManager builds a manager around a reader.
func newManager(cfg Config, read readFunc) *Manager {
	m := &Manager{cfg: cfg, read: read, slots: make(chan struct{}, cfg.MaxLoads), created: make(chan *Database)}
	m.databases.Store(&map[string]*Database{})
	// Generations are cache keys: each manager counts from a random start, so that those of
	// a process do not meet.
	var seed [8]byte
	_, _ = rand.Read(seed[:])
	m.generation.Store(binary.LittleEndian.Uint64(seed[:]) &^ (1<<24 - 1))
	return m
}

// Run serves until ctx ends and returns its cause. Every database is read by a goroutine
// that Run waits for.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case d := <-m.created:
			wg.Go(func() { d.run(ctx) })
		}
	}
}

// Load returns the handle of a database once there has been an attempt to read it: at once
// when there is a view or the last attempt has just failed. With an error there is no view
// yet, and View returns nil until a later attempt succeeds; the handle is nil only when the
// database does not exist, or ctx ended first. Nothing is read before Run runs.
func (m *Manager) Load(ctx context.Context, database string) (*Database, error) {
	d, fresh := m.enter(database)
	if fresh {
		select {
		case m.created <- d:
		case <-ctx.Done():
			m.forget(d)
			d.finish(context.Cause(ctx))
			return nil, context.Cause(ctx)
		}
	}
	return d.load(ctx)
}

// enter returns the entry of a database, and whether it was made now.
func (m *Manager) enter(database string) (d *Database, fresh bool) {
	if d := m.Database(database); d != nil {
		return d, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.databases.Load()
	if d := old[database]; d != nil {
		return d, false
	}
	d = newDatabase(m, database)
	next := maps.Clone(old)
	next[database] = d
	m.databases.Store(&next)
	return d, true
}

// forget takes d out of the map; a later Load starts anew.
func (m *Manager) forget(d *Database) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := *m.databases.Load(); old[d.name] == d {
		next := maps.Clone(old)
		delete(next, d.name)
		m.databases.Store(&next)
	}
}

// Database returns the handle of a database that was loaded before, nil otherwise. It takes
// no lock.
func (m *Manager) Database(database string) *Database { return (*m.databases.Load())[database] }

// View returns the current view of a database, nil while there is none.
func (m *Manager) View(database string) *router.Catalog { return m.Database(database).View() }

// Path resolves a session's search_path in a database: see Database.Path.
func (m *Manager) Path(database, role, searchPath string, temp bool) *router.Path {
	return m.Database(database).Path(role, searchPath, temp)
}

// Invalidate says that DDL passed by in a database: see Database.Invalidate.
func (m *Manager) Invalidate(database string) uint64 { return m.Database(database).Invalidate() }

// Reset has every database read again at once and in full, as after a failover: the new
// primary may lack what the old one had. Views stay until their successors are there.
func (m *Manager) Reset() {
	for _, d := range *m.databases.Load() {
		d.reset()
	}
}

// nextGeneration returns a number no other view of this process has.
func (m *Manager) nextGeneration() uint64 { return m.generation.Add(1) }

// oldest returns the age of the oldest view and how many there are.
func (m *Manager) oldest(now time.Time) (age time.Duration, views int) {
	for _, d := range *m.databases.Load() {
		if s := d.current.Load(); s != nil {
			views++
			age = max(age, now.Sub(s.readAt))
		}
	}
	return age, views
}
