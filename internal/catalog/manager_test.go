package catalog

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"pgweir/router"
)

// script is a reader for tests of the schedule: each read takes a time and ends as told.
type script struct {
	reads   atomic.Int64
	running atomic.Int64
	most    atomic.Int64
	takes   atomic.Int64 // time.Duration
	fail    atomic.Pointer[error]
}

// read is the script's readFunc.
func (s *script) read(ctx context.Context, _ string, _ *cache) (*snapshot, error) {
	s.reads.Add(1)
	if n := s.running.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	defer s.running.Add(-1)
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(time.Duration(s.takes.Load())):
	}
	if err := s.fail.Load(); err != nil && *err != nil {
		return nil, *err
	}
	return &snapshot{catalog: &router.Catalog{}, rights: &rights{}}, nil
}

// failWith makes reads fail from now on; nil ends it.
func (s *script) failWith(err error) { s.fail.Store(&err) }

// testConfig is a configuration around a script.
func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Cluster = "c"
	cfg.Target = func(context.Context, string) (*pgconn.Config, error) { return nil, errors.New("not used") }
	cfg.Logger = slog.New(slog.DiscardHandler)
	return cfg
}

// inBubble runs a test with a running manager whose clock is fake.
func inBubble(t *testing.T, cfg Config, test func(t *testing.T, m *Manager, s *script)) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.takes.Store(int64(10 * time.Millisecond))
		m := newManager(cfg, s.read)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		test(t, m, s)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// mustLoad loads a database.
func mustLoad(t *testing.T, m *Manager, name string) *Database {
	t.Helper()
	d, err := m.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantReads compares the number of reads so far.
func wantReads(t *testing.T, s *script, want int64) {
	t.Helper()
	synctest.Wait()
	if got := s.reads.Load(); got != want {
		t.Errorf("%d reads, want %d", got, want)
	}
}

// TestLoadIsShared: logins at the same time wait for one read, and generations differ.
func TestLoadIsShared(t *testing.T) {
	inBubble(t, testConfig(), func(t *testing.T, m *Manager, s *script) {
		done := make(chan error)
		for range 20 {
			go func() {
				_, err := m.Load(t.Context(), "a")
				done <- err
			}()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		wantReads(t, s, 1)
		b := mustLoad(t, m, "b")
		if m.View("a") == nil || m.View("a").Generation == b.View().Generation {
			t.Error("two databases share a generation")
		}
		if m.View("c") != nil || m.Database("c") != nil || m.Path("c", "r", "public", false) != nil {
			t.Error("a database that was never loaded is known")
		}
	})
}

// TestRefresh: by the timer, less often where reading is slow.
func TestRefresh(t *testing.T) {
	inBubble(t, testConfig(), func(t *testing.T, m *Manager, s *script) {
		d := mustLoad(t, m, "a")
		first := d.View()
		time.Sleep(59 * time.Second)
		wantReads(t, s, 1)
		time.Sleep(2 * time.Second)
		wantReads(t, s, 2)
		if d.View() == first || d.View().Generation == first.Generation {
			t.Error("the view was not replaced")
		}
		s.takes.Store(int64(6 * time.Second))
		time.Sleep(66 * time.Second)
		wantReads(t, s, 3)
		time.Sleep(290 * time.Second)
		wantReads(t, s, 3)
		time.Sleep(20 * time.Second)
		wantReads(t, s, 4)
	})
}

// TestInvalidate: DDL has the database read again; a read that was under way does not count.
func TestInvalidate(t *testing.T) {
	inBubble(t, testConfig(), func(t *testing.T, m *Manager, s *script) {
		d := mustLoad(t, m, "a")
		s.takes.Store(int64(time.Second))
		first := d.Invalidate()
		time.Sleep(500 * time.Millisecond) // the read has begun
		second := m.Invalidate("a")
		for range 100 {
			d.Invalidate() // a migration: still one read
		}
		if d.Settled(first) {
			t.Error("settled before the read ended")
		}
		time.Sleep(600 * time.Millisecond)
		synctest.Wait()
		if !d.Settled(first) || d.Settled(second) {
			t.Errorf("settled: first %v, second %v", d.Settled(first), d.Settled(second))
		}
		time.Sleep(time.Minute)
		wantReads(t, s, 3)
		if !d.Settled(second + 100) {
			t.Error("the later DDL was not read")
		}
	})
}

// TestMissed: an unknown name has the database read again, but not at once and not for each.
func TestMissed(t *testing.T) {
	inBubble(t, testConfig(), func(t *testing.T, m *Manager, s *script) {
		d := mustLoad(t, m, "a")
		d.Missed()
		d.Missed()
		time.Sleep(time.Second)
		wantReads(t, s, 1)
		time.Sleep(1100 * time.Millisecond)
		wantReads(t, s, 2)
		if d.Path("stranger", "public", false) != nil {
			t.Error("a role that is not known has a path")
		}
		time.Sleep(2100 * time.Millisecond)
		wantReads(t, s, 3)
	})
}

// TestFailure: the old view stays, the pauses grow, logins are told at once.
func TestFailure(t *testing.T) {
	inBubble(t, testConfig(), func(t *testing.T, m *Manager, s *script) {
		d := mustLoad(t, m, "a")
		view := d.View()
		s.failWith(errors.New("no node"))
		d.Invalidate()
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.View() != view {
			t.Error("a failure took the view away")
		}
		if n := s.reads.Load(); n < 7 || n > 11 {
			t.Errorf("%d reads in a minute of failures", n)
		}
		b, err := m.Load(t.Context(), "b")
		if err == nil || b == nil || b.View() != nil {
			t.Errorf("Load of a database that cannot be read: %v, %v", b, err)
		}
		before := time.Now()
		if _, err := m.Load(t.Context(), "b"); err == nil || time.Since(before) != 0 {
			t.Errorf("a second login waited %v and got %v", time.Since(before), err)
		}
		s.failWith(nil)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if d.View() == view || b.View() == nil {
			t.Error("nobody recovered")
		}
	})
}

// TestReset: a failover has everything read again at once, past a pause.
func TestReset(t *testing.T) {
	inBubble(t, testConfig(), func(t *testing.T, m *Manager, s *script) {
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			mustLoad(t, m, name)
		}
		s.failWith(errors.New("no node"))
		m.Invalidate("a")
		time.Sleep(20 * time.Second)
		s.failWith(nil)
		s.takes.Store(int64(time.Second))
		s.most.Store(0)
		reads := s.reads.Load()
		m.Reset()
		time.Sleep(2500 * time.Millisecond)
		wantReads(t, s, reads+8)
		if n := s.most.Load(); n != 4 {
			t.Errorf("%d reads at the same time, want MaxLoads, 4", n)
		}
	})
}

// TestMissingDatabase: it is not kept, and its name can come to life later.
func TestMissingDatabase(t *testing.T) {
	inBubble(t, testConfig(), func(t *testing.T, m *Manager, s *script) {
		s.failWith(&pgconn.PgError{Code: "3D000"})
		d, err := m.Load(t.Context(), "a")
		if d != nil || err == nil {
			t.Errorf("Load of a missing database: %v, %v", d, err)
		}
		if d.View() != nil || d.Path("r", "public", false) != nil || d.Serializable("r") || d.Invalidate() != 0 || !d.Settled(0) {
			t.Error("a nil handle knows something")
		}
		d.Missed()
		if m.Database("a") != nil {
			t.Error("a missing database is kept")
		}
		s.failWith(nil)
		mustLoad(t, m, "a")
	})
}

// TestIdle: a view that nobody asks for goes, and comes back when somebody does.
func TestIdle(t *testing.T) {
	cfg := testConfig()
	reg := prometheus.NewRegistry()
	cfg.Metrics = NewMetrics(reg)
	inBubble(t, cfg, func(t *testing.T, m *Manager, s *script) {
		stop := cfg.Metrics.Watch(m)
		d := mustLoad(t, m, "a")
		time.Sleep(2 * time.Hour)
		reads := s.reads.Load()
		if reads < 58 || reads > 62 {
			t.Errorf("%d reads before it fell asleep", reads)
		}
		time.Sleep(10 * time.Hour)
		wantReads(t, s, reads)
		if n := testutil.ToFloat64(cfg.Metrics.loads.WithLabelValues("c", "ok")); n != float64(reads) {
			t.Errorf("%v reads counted", n)
		}
		if d.View() != nil {
			t.Error("a view was kept")
		}
		if _, err := m.Load(t.Context(), "a"); err != nil || d.View() == nil {
			t.Errorf("it did not wake up: %v", err)
		}
		time.Sleep(50 * time.Minute)
		d.View()
		time.Sleep(50 * time.Minute)
		if d.View() == nil {
			t.Error("a view in use went away")
		}
		problems, err := testutil.GatherAndLint(reg)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v %v", problems, err)
		}
		stop()
		if n, err := testutil.GatherAndCount(reg, "pgweir_catalog_views"); n != 0 || err != nil {
			t.Errorf("gauges stay after stop: %d, %v", n, err)
		}
	})
}

// TestEnd: logins that wait when Run ends are let go.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.takes.Store(int64(time.Hour))
		m := newManager(testConfig(), s.read)
		early, cancelEarly := context.WithTimeout(t.Context(), time.Second)
		defer cancelEarly()
		if d, err := m.Load(early, "a"); d != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load before Run: %v, %v", d, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done, loaded := make(chan error), make(chan error)
		go func() { done <- m.Run(ctx) }()
		go func() {
			_, err := m.Load(context.Background(), "a")
			loaded <- err
		}()
		time.Sleep(time.Second)
		cancel()
		<-done
		if err := <-loaded; err == nil {
			t.Error("the login that waited has a view")
		}
	})
}

// TestConfig: every mistake is named.
func TestConfig(t *testing.T) {
	if _, err := New(Config{Rules: Rules{ReadOnlyFunctions: []string{"f(int)"}}}); err == nil {
		t.Error("an empty configuration is accepted")
	} else {
		for _, word := range []string{"Target", "RefreshInterval", "StatementTimeout", "LoadTimeout", "IdleAfter", "MaxLoads", "Logger", "f(int)"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q is not named in: %v", word, err)
			}
		}
	}
	if err := testConfig().Validate(); err != nil {
		t.Error(err)
	}
}
