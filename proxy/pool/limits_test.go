package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/internal/pgtest"
)

// asked is a Get that runs in a goroutine.
type asked struct {
	conn chan *Conn
	err  error // valid once conn is closed or has delivered
}

// queue begins a Get that has to wait behind n others.
func queue(t *testing.T, p *Pool, spec *Spec, n int) *asked {
	t.Helper()
	a := &asked{conn: make(chan *Conn, 1)}
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var c *Conn
		c, a.err = p.Get(ctx, spec)
		a.conn <- c
	}()
	waiting(t, p, n+1)
	return a
}

// got is what it came to.
func (a *asked) got(t *testing.T) *Conn {
	t.Helper()
	c := <-a.conn
	if a.err != nil {
		t.Fatal(a.err)
	}
	return c
}

// specOf is a spec for another entry and user.
func specOf(t *testing.T, addr, entry, user string) *Spec {
	t.Helper()
	s := specFor(t, addr)
	s.Entry, s.Database, s.User = entry, entry, user
	return s
}

// idleOf is how many connections of a user are idle.
func idleOf(p *Pool, entry, user string) (n int) {
	for _, s := range p.Stats() {
		if s.Entry == entry && s.User == user {
			n += s.Idle
		}
	}
	return n
}

func TestSharedLimitTakesIdleOnesOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		limit  func(*Limits)
		others [2]string // entry, user
	}{
		"max_db_connections":   {func(l *Limits) { l.MaxDatabase = 3 }, [2]string{"app", "bob"}},
		"max_user_connections": {func(l *Limits) { l.MaxUser = 3 }, [2]string{"report", "alice"}},
		"both":                 {func(l *Limits) { l.MaxDatabase, l.MaxUser = 3, 3 }, [2]string{"app", "bob"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := pgtest.NewFakeNode(t, friendly)
			p := newPool(t, func(cfg *Config) { c.limit(&cfg.Default) })
			mine, theirs := specOf(t, n.Addr(), "app", "alice"), specOf(t, n.Addr(), c.others[0], c.others[1])
			conns := []*Conn{get(t, p, mine), get(t, p, mine), get(t, p, mine)}
			p.Put(conns[1])
			p.Put(conns[0])
			first := get(t, p, theirs)
			if again := get(t, p, mine); again != conns[0] {
				t.Error("not the one unused longest made room")
			}
			// All three are in use: who comes now waits until one of any pool is free.
			a := queue(t, p, theirs, 0)
			p.Put(conns[2])
			second := a.got(t)
			if s := total(p); s.Leased != 3 || s.Idle+s.Opening+s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
			p.Put(first)
			p.Put(second)
			p.Put(conns[0])
			if s := total(p); s.Idle != 3 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestBothSharedLimitsTakeOneOfEach(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) { c.Default.MaxDatabase, c.Default.MaxUser = 1, 1 })
	p.Put(get(t, p, specOf(t, n.Addr(), "app", "bob")))
	busy := get(t, p, specOf(t, n.Addr(), "report", "alice"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := p.Get(ctx, specOf(t, n.Addr(), "app", "alice"))
		done <- err
	}()
	waiting(t, p, 1)
	if idleOf(p, "app", "bob") != 1 {
		t.Error("a connection was closed although that does not help")
	}
	cancel()
	var we *WaitError
	if err := <-done; !errors.As(err, &we) || we.Limit != "max_db_connections" && we.Limit != "max_user_connections" || we.Size != 1 {
		t.Error(err)
	}
	p.Put(busy)
	p.Put(get(t, p, specOf(t, n.Addr(), "app", "alice")))
	if s := total(p); s.Idle != 1 || idleOf(p, "app", "alice") != 1 {
		t.Errorf("%+v", s)
	}
}

func TestOtherNodesAndClustersCountForThemselves(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) { c.Default.MaxDatabase, c.Default.MaxUser = 1, 1 })
	a := specFor(t, n.Addr())
	b, c := clone(a), clone(a)
	b.Node = 2
	c.Cluster = "other"
	get(t, p, a)
	get(t, p, b)
	get(t, p, c)
}

func TestNobodyStarvesUnderASharedLimit(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) { c.Default.MaxDatabase = 1 })
	alice, bob := specOf(t, n.Addr(), "app", "alice"), specOf(t, n.Addr(), "app", "bob")
	c := get(t, p, alice)
	b := queue(t, p, bob, 0)
	a := queue(t, p, alice, 1)
	p.Put(c)
	p.Put(b.got(t)) // not the own pool's waiter, who came later
	p.Put(a.got(t))

	limit(p, func(l *Limits) { l.MaxDatabase = 2 })
	ca, cb := get(t, p, alice), get(t, p, bob)
	b = queue(t, p, bob, 0)
	a = queue(t, p, alice, 1)
	p.Put(ca) // bob has one: it stays where it is
	if got := a.got(t); got != ca {
		t.Error("a connection was closed for a pool that has one")
	}
	p.Put(cb)
	p.Put(b.got(t))
	p.Put(ca)
}

func TestReserve(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) {
		c.Default.Size, c.Default.Reserve, c.Default.ReserveAfter = 1, 1, 30*time.Millisecond
	})
	spec := specFor(t, n.Addr())
	first := get(t, p, spec)
	began := time.Now()
	second := get(t, p, spec)
	if waited := time.Since(began); waited < 30*time.Millisecond {
		t.Errorf("the reserve was touched after %v", waited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var we *WaitError
	if _, err := p.Get(ctx, spec); !errors.As(err, &we) || we.Limit != "pool_size" {
		t.Error(err)
	}
	a := queue(t, p, spec, 0)
	p.Put(second)
	if got := a.got(t); got != second {
		t.Error("a connection of the reserve was closed although somebody waits")
	}
	p.Put(second)
	p.Put(first)
	if s := total(p); s.Idle != 1 {
		t.Errorf("%+v: the reserve was kept", s)
	}
}

func TestMinimumIsKeptOpen(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) { c.Default.Size, c.Default.Min, c.Default.Lifetime = 5, 3, 24*time.Hour })
	spec := specFor(t, n.Addr())
	warm := func() Stat {
		var wg sync.WaitGroup
		p.warm(t.Context(), time.Now(), &wg)
		wg.Wait()
		return total(p)
	}
	p.Put(get(t, p, spec))
	if s := warm(); s.Idle != 1 {
		t.Errorf("without clients: %+v", s)
	}
	p.Join("main", "app", "alice")
	p.Drop(get(t, p, spec))
	p.Put(get(t, p, spec))
	if s := warm(); s.Idle != 3 {
		t.Errorf("%+v", s)
	}
	p.sweep(time.Now().Add(time.Hour))
	if s := total(p); s.Idle != 3 {
		t.Errorf("%+v: closed for being unused", s)
	}
	p.CloseNode("main", 1)
	if s := warm(); s.Idle != 0 {
		t.Errorf("%+v: opened to a node that is not used any more", s)
	}
	p.Put(get(t, p, spec))
	limit(p, func(l *Limits) { l.Min = 10 })
	if s := warm(); s.Idle != 5 {
		t.Errorf("%+v: min above the size", s)
	}
	p.Leave("main", "app", "alice")
	p.CloseNode("main", 1)
	p.Put(get(t, p, spec))
	if s := warm(); s.Idle != 1 {
		t.Errorf("%+v: nobody is logged in", s)
	}
}

// crowded is a node that has room for so many connections.
func crowded(t *testing.T, room *atomic.Int64, tries *atomic.Int64) *pgtest.FakeNode {
	t.Helper()
	return pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		tries.Add(1)
		if room.Add(-1) < 0 {
			room.Add(1)
			return errors.Join(c.Startup(), c.Send(pgtest.Error("FATAL", "53300", "sorry, too many clients already")))
		}
		defer room.Add(1)
		return friendly(c)
	})
}

func TestNodeWithoutRoom(t *testing.T) {
	var room, tries atomic.Int64
	room.Store(1)
	n := crowded(t, &room, &tries)
	p := newPool(t, func(c *Config) { c.Default.LoginRetry = time.Hour })
	spec := specFor(t, n.Addr())
	c := get(t, p, spec)
	a := queue(t, p, spec, 0) // refused, and waits for the one there is
	b := queue(t, p, spec, 1)
	p.Put(c)
	if got := a.got(t); got != c {
		t.Error("another connection")
	}
	p.Put(c)
	p.Put(b.got(t))
	if got := tries.Load(); got != 2 {
		t.Errorf("%d logins were tried", got)
	}
	p.Drop(get(t, p, spec)) // which makes room
	until(t, func() bool { return room.Load() == 1 })
	p.Drop(get(t, p, spec))
	until(t, func() bool { return room.Load() == 1 })

	room.Store(0)
	before := tries.Load()
	for range 3 {
		var ce *ConnectError
		if _, err := p.Get(t.Context(), spec); !errors.As(err, &ce) || ce.SQLState != "53300" {
			t.Error(err)
		}
	}
	if got := tries.Load() - before; got != 1 {
		t.Errorf("%d logins were tried", got)
	}
}

func TestNodeWithoutRoomIsAskedAgain(t *testing.T) {
	var room, tries atomic.Int64
	room.Store(1)
	n := crowded(t, &room, &tries)
	p := newPool(t, func(c *Config) { c.Default.LoginRetry = 20 * time.Millisecond })
	spec := specFor(t, n.Addr())
	c := get(t, p, spec)
	a := queue(t, p, spec, 0)
	room.Add(1)
	p.Put(a.got(t))
	p.Put(c)
}

func TestTooOldOneAfterTheOther(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) { c.Default.Size, c.Default.Lifetime, c.Default.IdleTimeout = 4, time.Hour, 0 })
	spec := specFor(t, n.Addr())
	conns := []*Conn{get(t, p, spec), get(t, p, spec), get(t, p, spec), get(t, p, spec)}
	for _, c := range conns {
		p.Put(c)
	}
	at := time.Now().Add(61 * time.Minute)
	for i, after := range []time.Duration{0, time.Minute, 16 * time.Minute, 20 * time.Minute, 32 * time.Minute} {
		p.sweep(at.Add(after))
		if s, want := total(p), []int{3, 3, 2, 2, 1}[i]; s.Idle != want {
			t.Errorf("after %v: %+v, want %d", after, s, want)
		}
	}
	limit(p, func(l *Limits) { l.Lifetime = 0 })
	p.Put(get(t, p, spec))
	if s := total(p); s.Idle != 0 {
		t.Errorf("%+v: used twice", s)
	}
}

func TestLimitsOfEach(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) {
		c.Limits = func(cluster, entry, user string) Limits {
			l := DefaultLimits()
			if cluster == "main" && entry == "report" && user == "bob" {
				l.Size = 1
			}
			return l
		}
	})
	for _, spec := range []*Spec{specOf(t, n.Addr(), "app", "bob"), specOf(t, n.Addr(), "report", "alice"), specOf(t, n.Addr(), "report", "bob")} {
		p.Put(get(t, p, spec))
	}
	for _, s := range p.Stats() {
		want := 20
		if s.Entry == "report" && s.User == "bob" {
			want = 1
		}
		if s.Size != want {
			t.Errorf("%+v", s)
		}
	}
}

func TestManyUnderSharedLimits(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	const size, perEntry, perUser = 3, 4, 5
	p := newPool(t, func(c *Config) {
		c.Default.Size, c.Default.MaxDatabase, c.Default.MaxUser = size, perEntry, perUser
		c.Default.Reserve, c.Default.ReserveAfter, c.Default.Min = 1, 5*time.Millisecond, 2
	})
	check := func() {
		p.mu.RLock()
		at := p.mu.nodes[nodeKey{"main", 1}]
		p.mu.RUnlock()
		if at == nil {
			return
		}
		entries, users := map[string]int{}, map[string]int{}
		at.Lock()
		defer at.Unlock()
		for _, g := range at.groups {
			if g.open() > size+1 {
				t.Errorf("%+v: %d connections", g.key, g.open())
			}
			entries[g.key.entry] += g.open()
			users[g.key.user] += g.open()
		}
		for _, n := range entries {
			if n > perEntry {
				t.Errorf("%d connections for an entry", n)
			}
		}
		for _, n := range users {
			if n > perUser {
				t.Errorf("%d connections of a user", n)
			}
		}
	}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(i)))
			for range 60 {
				spec := specOf(t, n.Addr(), fmt.Sprint("db", r.IntN(3)), fmt.Sprint("user", r.IntN(3)))
				spec.Startup = fmt.Sprint(r.IntN(2))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(30))*time.Millisecond)
				c, err := p.Get(ctx, spec)
				cancel()
				check()
				if err != nil {
					continue
				}
				switch r.IntN(8) {
				case 0:
					p.Drop(c)
				case 1:
					p.CloseNode("main", 1)
					p.Put(c)
				case 2:
					p.sweep(time.Now())
					p.Put(c)
				default:
					p.Put(c)
				}
			}
		})
	}
	wg.Wait()
	check()
	if s := total(p); s.Leased+s.Opening+s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	// Nobody who is let in is left behind.
	for e := range 3 {
		for u := range 3 {
			p.Put(get(t, p, specOf(t, n.Addr(), fmt.Sprint("db", e), fmt.Sprint("user", u))))
		}
	}
}
