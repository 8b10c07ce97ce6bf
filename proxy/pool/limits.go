package pool

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits is what holds for one pool.
type Limits struct {
	// Size is the largest number of connections, Min the one that is kept open while clients are
	// logged in.
	Size, Min int
	// Reserve is how many more than Size there may be once somebody has waited for ReserveAfter.
	Reserve      int
	ReserveAfter time.Duration
	// MaxDatabase bounds the connections to a node for one entry, whoever the user is, and MaxUser
	// those of one user, whatever the entry; 0: no limit.
	MaxDatabase, MaxUser int
	// ConnectTimeout bounds everything from the dialling to ReadyForQuery.
	ConnectTimeout time.Duration
	// LoginRetry is how long nothing is opened after the node said that it has no connection to
	// spare.
	LoginRetry time.Duration
	// IdleTimeout is how long a connection may lie unused; 0: for ever.
	IdleTimeout time.Duration
	// Lifetime is the age at which a connection is closed when it is unused, one after the other,
	// so that a pool opened at once does not end at once; 0: each is used once.
	Lifetime time.Duration
}

// DefaultLimits is PgBouncer's habits.
func DefaultLimits() Limits {
	return Limits{
		Size:           20,
		ReserveAfter:   5 * time.Second,
		ConnectTimeout: 15 * time.Second,
		LoginRetry:     15 * time.Second,
		IdleTimeout:    10 * time.Minute,
		Lifetime:       time.Hour,
	}
}

// validate returns everything that is wrong, joined.
func (l Limits) validate() error {
	var errs []error
	if l.Size < 1 {
		errs = append(errs, fmt.Errorf("limits: Size: %d: must be at least 1", l.Size))
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"Min", l.Min}, {"Reserve", l.Reserve}, {"MaxDatabase", l.MaxDatabase}, {"MaxUser", l.MaxUser}} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s: %d: must not be negative", n.name, n.value))
		}
	}
	for _, d := range []struct {
		name         string
		value, least time.Duration
	}{
		{"ReserveAfter", l.ReserveAfter, 0},
		{"ConnectTimeout", l.ConnectTimeout, time.Millisecond},
		{"LoginRetry", l.LoginRetry, 0},
		{"IdleTimeout", l.IdleTimeout, 0},
		{"Lifetime", l.Lifetime, 0},
	} {
		if d.value < d.least {
			errs = append(errs, fmt.Errorf("%s: %v: must be at least %v", d.name, d.value, d.least))
		}
	}
	return errors.Join(errs...)
}

// limits is what holds for a pool now.
func (c *Config) limits(k groupKey) Limits {
	if c.Limits == nil {
		return c.Default
	}
	return c.Limits(k.cluster, k.entry, k.user)
}

// Refresh asks Config.Limits again for every pool, and carries out what it says: idle connections
// that are too many are closed, and who waits gets what is allowed now.
func (p *Pool) Refresh() {
	p.generation.Add(1)
	for _, g := range p.all() {
		leaveAll(g.restrict(p.cfg.limits(g.key)))
	}
}

// restrict puts limits in force and returns idle connections that are too many now.
func (g *group) restrict(l Limits) []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.limits = l
	n := min(max(g.open()-l.Size, 0), len(g.mu.idle))
	victims := append([]*Conn(nil), g.mu.idle[:n]...)
	g.mu.idle = append(g.mu.idle[:0], g.mu.idle[n:]...)
	now := now()
	for w := g.mu.waiters.first; w != nil; w = w.next {
		g.reserves(w)
		g.setAlarm(w.reserve, now)
	}
	return append(victims, g.serve(now)...)
}

// The names of the limits that a Get may wait for, as the configuration has them.
const (
	limitSize     = "pool_size"
	limitDatabase = "max_db_connections"
	limitUser     = "max_user_connections"
)

// ceiling is a limit that pools of one node share.
type ceiling struct {
	name string
	max  int
	// shares says whether a pool counts.
	shares func(*group) bool
}

// ceilings is the shared limits that bind the pool. The lock is held.
func (g *group) ceilings() []ceiling {
	var all []ceiling
	if most := g.mu.limits.MaxDatabase; most > 0 {
		all = append(all, ceiling{limitDatabase, most, func(o *group) bool { return o.key.entry == g.key.entry }})
	}
	if most := g.mu.limits.MaxUser; most > 0 {
		all = append(all, ceiling{limitUser, most, func(o *group) bool { return o.key.user == g.key.user }})
	}
	return all
}

// capped says whether a shared limit binds the pool. The lock is held.
func (g *group) capped() bool { return g.mu.limits.MaxDatabase > 0 || g.mu.limits.MaxUser > 0 }

// over is by how many connections a ceiling is short of room for one more, at most 0 when there is room. The
// lock is held.
func (n *node) over(c *ceiling) int {
	open := 0
	for _, g := range n.groups {
		if c.shares(g) {
			open += g.open()
		}
	}
	return open - c.max + 1
}

// fits says whether the shared limits leave room for one more. The lock is held.
func (g *group) fits() bool {
	if !g.capped() {
		return true
	}
	for _, c := range g.ceilings() {
		if g.node.over(&c) > 0 {
			return false
		}
	}
	return true
}

// makeRoom takes idle connections out of pools that share a limit with this one, those unused
// longest first, until it has room for one more. ok is false, and nothing is taken, where that is not enough. The
// lock is held.
func (g *group) makeRoom() (victims []*Conn, ok bool) {
	for _, c := range g.ceilings() {
		over := g.node.over(&c)
		for _, v := range victims {
			if c.shares(v.pool) {
				over--
			}
		}
		for ; over > 0; over-- {
			v := g.node.oldest(&c, victims)
			if v == nil {
				return nil, false
			}
			victims = append(victims, v)
		}
	}
	for _, v := range victims {
		v.pool.thin(func(c *Conn) bool { return c == v })
	}
	return victims, true
}

// oldest is the idle connection under a ceiling that was used longest ago, none of those named. The lock is held.
func (n *node) oldest(c *ceiling, not []*Conn) *Conn {
	var found *Conn
	for _, g := range n.groups {
		if !c.shares(g) {
			continue
		}
		for _, conn := range g.mu.idle {
			if found != nil && !conn.idleSince.Before(found.idleSince) {
				break // the list is in the order of use
			}
			if !slices.Contains(not, conn) {
				found = conn
				break
			}
		}
	}
	return found
}

// full is the limit that keeps the pool from opening one more, by its name and value; the pool's
// own size where none does. The lock is held.
func (g *group) full() (name string, most int) {
	if g.open() < g.mu.limits.Size {
		for _, c := range g.ceilings() {
			if g.node.over(&c) > 0 {
				return c.name, c.max
			}
		}
	}
	return limitSize, g.mu.limits.Size
}
