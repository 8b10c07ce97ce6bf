package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgweir/internal/pgtest"
)

// slotOf is a pool of one connection whose only slot is taken, by nobody who would open anything in it.
func slotOf(t *testing.T, p *Pool, spec *Spec) *group {
	t.Helper()
	g, err := p.group(spec)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := g.acquire(t.Context(), p.newWaiter(spec, now())); again || err != nil {
		t.Fatal(again, err)
	}
	return g
}

// wait is a spec that waits so long.
func wait(spec *Spec, notify, limit time.Duration, notice func()) *Spec {
	spec = clone(spec)
	spec.Patience = Patience{Limit: limit, Over: errOver, Notify: notify, Notice: notice}
	return spec
}

var errOver = errors.New("it has waited long enough")

// late is how late an alarm may ring.
const late = alarmRest

func TestEverybodyIsToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, sized(1))
		spec := specFor(t, "192.0.2.1:5432")
		slotOf(t, p, spec)
		start := time.Now()
		var wg sync.WaitGroup
		join := func(name string, notify, limit time.Duration) {
			came := time.Now()
			told := time.Duration(-1)
			mine := wait(spec, notify, limit, func() { told = time.Since(came) })
			wg.Go(func() {
				ctx, cancel := context.WithDeadline(t.Context(), start.Add(time.Hour))
				defer cancel()
				_, err := p.Get(ctx, mine)
				took, end := time.Since(came), limit
				var full *WaitError
				if limit == 0 {
					end = time.Hour - came.Sub(start)
				} else if !errors.Is(err, errOver) {
					t.Errorf("%s: %v", name, err)
				}
				if !errors.As(err, &full) || took < end || took > end+late {
					t.Errorf("%s: ended after %v, want %v: %v", name, took, end, err)
				}
				if notify > 0 && notify != limit && (told < notify || told > notify+late) || (notify == 0 || notify == limit) && told >= 0 {
					t.Errorf("%s: told after %v, want %v", name, told, notify)
				}
			})
			synctest.Wait()
		}
		join("without an end", 0, 0)
		join("late", 0, 30*time.Second)
		join("early", 0, time.Second)
		join("told and over", 500*time.Millisecond, 2*time.Second)
		join("told only", 3*time.Second, 0)
		join("told when it is over", time.Second, time.Second)
		time.Sleep(1500 * time.Millisecond)
		join("later", 100*time.Millisecond, 200*time.Millisecond)
		join("long", time.Minute, 10*time.Minute)
		r := rand.New(rand.NewPCG(3, 4))
		for i := range 200 {
			time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
			limit := time.Duration(1+r.IntN(20_000)) * time.Millisecond
			join(fmt.Sprint(i), time.Duration(1+r.IntN(int(limit/time.Millisecond)))*time.Millisecond, limit)
		}
		wg.Wait()
		if s := total(p); s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestTimesHoldBehindALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, sized(1))
		spec := specFor(t, "192.0.2.1:5432")
		g := slotOf(t, p, spec)
		w := p.newWaiter(wait(spec, 0, 10*time.Second, nil), now())
		time.Sleep(9 * time.Second) // the node took so long to say that it is full
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.acquire(t.Context(), w); !errors.Is(err, errOver) || time.Since(start) > time.Second+late {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
		synctest.Wait()
		if _, err := p.Get(t.Context(), wait(spec, 0, 5*time.Second, nil)); !errors.Is(err, errOver) || time.Since(start) > 5*time.Second+late {
			t.Errorf("who came later: after %v: %v", time.Since(start), err)
		}
		wg.Wait()
	})
}

func TestReserveThatIsGivenWhileOneWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, sized(1))
		spec := specFor(t, "192.0.2.1:5432")
		g := slotOf(t, p, spec)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.acquire(t.Context(), p.newWaiter(wait(spec, 0, time.Minute, nil), now())); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took < 3*time.Second || took > 3*time.Second+late {
				t.Errorf("the reserve was used after %v", took)
			}
		})
		synctest.Wait()
		time.Sleep(time.Second)
		limit(p, func(l *Limits) { l.Reserve, l.ReserveAfter = 1, 3*time.Second })
		wg.Wait()
	})
}

func TestPatienceThatEndsWhileTheNodeIsAskedAgain(t *testing.T) {
	for name, c := range map[string]struct{ cancel bool }{"its time is over": {}, "a cancel comes": {true}} {
		t.Run(name, func(t *testing.T) {
			var logins atomic.Int64
			hangs := make(chan struct{})
			n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
				switch logins.Add(1) {
				case 1:
					return friendly(c)
				case 2:
					return errors.Join(c.Startup(), c.Send(pgtest.Error("FATAL", "53300", "sorry, too many clients already")))
				}
				close(hangs) // it never answers whether it speaks TLS
				return c.Swallow()
			})
			p := newPool(t, nil)
			spec := specFor(t, n.Addr())
			get(t, p, spec)
			var err error
			if spec.TLS, err = NewTLS(SSLAllow, TLSFiles{}); err != nil {
				t.Fatal(err)
			}
			canceled := make(chan struct{}, 1)
			spec.Patience = Patience{Limit: 100 * time.Millisecond, Over: errOver, Cancel: canceled, Canceled: errOver}
			if c.cancel {
				spec.Patience.Limit = time.Hour
				go func() { <-hangs; canceled <- struct{}{} }()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := p.Get(ctx, spec); !errors.Is(err, errOver) {
				t.Error(err)
			}
		})
	}
}

// TestNudge: who stands in line learns by a nudge that its context has ended or that it was cancelled, whenever that was, and
// gets what it waits for all the same where it is nudged for nothing.
func TestNudge(t *testing.T) {
	errEnded, errCanceled := errors.New("ended"), errors.New("canceled")
	for _, c := range []struct {
		what  string
		early bool // before it waits
		do    func(end context.CancelCauseFunc, cancel chan struct{}, free func())
		want  error
	}{
		{"the context", false, func(end context.CancelCauseFunc, _ chan struct{}, _ func()) { end(errEnded) }, errEnded},
		{"the context, early", true, func(end context.CancelCauseFunc, _ chan struct{}, _ func()) { end(errEnded) }, errEnded},
		{"a cancel", false, func(_ context.CancelCauseFunc, cancel chan struct{}, _ func()) { cancel <- struct{}{} }, errCanceled},
		{"a cancel, early", true, func(_ context.CancelCauseFunc, cancel chan struct{}, _ func()) { cancel <- struct{}{} }, errCanceled},
		{"nothing", false, func(_ context.CancelCauseFunc, _ chan struct{}, free func()) { synctest.Wait(); free() }, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, sized(1))
				spec := specFor(t, "192.0.2.1:5432")
				g := slotOf(t, p, spec)
				nudge, cancel := new(Nudge), make(chan struct{}, 1)
				ctx, end := context.WithCancelCause(t.Context())
				spec.Patience = Patience{Cancel: cancel, Canceled: errCanceled, Nudge: nudge}
				do := func() {
					c.do(end, cancel, func() { g.failed(&ConnectError{Err: errOver}) })
					nudge.Now()
				}
				if c.early {
					do()
				}
				w := p.newWaiter(spec, now())
				got := make(chan error)
				go func() {
					_, err := g.acquire(ctx, w)
					got <- err
				}()
				synctest.Wait()
				nudge.Now()
				synctest.Wait()
				if !c.early {
					do()
				}
				if err := <-got; !errors.Is(err, c.want) {
					t.Errorf("%v", err)
				}
				nudge.Now() // it is nobody's any more
			})
		})
	}
}

func TestWhoIsRefusedKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, sized(3))
		spec := specFor(t, "192.0.2.1:5432")
		g, err := p.group(spec)
		if err != nil {
			t.Fatal(err)
		}
		free := func() { g.failed(&ConnectError{Err: errOver}) }
		var ws []*waiter
		for range 3 {
			w := p.newWaiter(spec, now())
			if again, err := g.acquire(t.Context(), w); again || err != nil {
				t.Fatal(again, err)
			}
			ws = append(ws, w)
		}
		for range ws {
			free()
		}
		limit(p, func(l *Limits) { l.Size = 1 })
		slotOf(t, p, spec)
		var order []uint64
		var wg sync.WaitGroup
		for _, i := range []int{1, 2, 0} {
			wg.Go(func() {
				if _, err := g.acquire(t.Context(), ws[i]); err != nil {
					t.Error(err)
				}
				order = append(order, ws[i].came)
			})
			synctest.Wait()
		}
		for range ws {
			free()
			synctest.Wait()
		}
		wg.Wait()
		if !slices.IsSorted(order) {
			t.Errorf("served in the order %v", order)
		}
	})
}

func TestManyWhoseWaitsEnd(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	var shape atomic.Uint64
	p := newPool(t, func(c *Config) {
		c.Limits = func(string, string, string) Limits {
			l, now := DefaultLimits(), shape.Load()
			l.Size, l.MaxDatabase, l.LoginRetry = 1+int(now%3), int(now/3%3)*2, time.Millisecond
			if now%2 == 0 {
				l.Reserve, l.ReserveAfter = 1, time.Duration(now%5)*time.Millisecond
			}
			return l
		}
	})
	var told, taken, ended atomic.Int64
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(5, uint64(i)))
			spec := specOf(t, n.Addr(), "app", fmt.Sprint("user", i%3))
			spec.Home = new(Home)
			spec.Patience = Patience{Over: errOver, Canceled: errOver, Notice: func() { told.Add(1) }}
			for range 100 {
				spec.Startup = fmt.Sprint(r.IntN(2))
				canceled := make(chan struct{}, 1)
				spec.Patience.Cancel = canceled
				spec.Patience.Limit = time.Duration(r.IntN(4)) * time.Millisecond
				spec.Patience.Notify = time.Duration(r.IntN(3)) * time.Millisecond
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				switch r.IntN(4) {
				case 0:
					time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, func() { canceled <- struct{}{} })
				case 1:
					time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, cancel)
				}
				c := p.TryGet(spec.Home, spec.Node, spec.Startup, nil)
				if c == nil {
					var err error
					if c, err = p.Get(ctx, spec); errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					} else if err != nil {
						ended.Add(1)
					}
				}
				cancel()
				switch {
				case c == nil:
				case r.IntN(8) == 0:
					p.Drop(c)
				default:
					taken.Add(1)
					if c.Startup != spec.Startup || c.User != spec.User {
						t.Errorf("%+v for %+v", c.Key, spec.Key)
					}
					p.Put(c)
				}
				switch r.IntN(30) {
				case 0:
					shape.Store(r.Uint64N(30))
					p.Refresh()
				case 1:
					p.sweep(time.Now().Add(forget + time.Hour)) // buries what is empty
				}
			}
		})
	}
	wg.Wait()
	if s := total(p); s.Leased+s.Opening+s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	if told.Load() == 0 || taken.Load() == 0 || ended.Load() == 0 {
		t.Errorf("%d were told, %d got one, %d gave up: this shows nothing", told.Load(), taken.Load(), ended.Load())
	}
	t.Logf("%d were told, %d got one, %d gave up", told.Load(), taken.Load(), ended.Load())
}

// TestAtOnce: who does not stand in line hears at once that nothing is free, and that it would overtake; where there is room it gets
// what others get.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, sized(1))
		spec := specFor(t, "192.0.2.1:5432")
		g := slotOf(t, p, spec)
		hasty := clone(spec)
		hasty.Patience = Patience{Limit: time.Hour, Over: errOver, AtOnce: true}
		start := time.Now()
		var full *WaitError
		if _, err := p.Get(t.Context(), hasty); !errors.Is(err, ErrBusy) || !errors.As(err, &full) || full.Size != 1 {
			t.Errorf("full: %v", err)
		}
		if took := time.Since(start); took > 0 || g.stat().Waiting > 0 {
			t.Errorf("it waited for %v", took)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := p.Get(t.Context(), wait(spec, 0, time.Minute, nil)); !errors.Is(err, errOver) {
				t.Errorf("who was there first: %v", err)
			}
		})
		synctest.Wait()
		if _, err := p.Get(t.Context(), hasty); !errors.Is(err, ErrBusy) {
			t.Errorf("behind another: %v", err)
		}
		wg.Wait()
	})
}
