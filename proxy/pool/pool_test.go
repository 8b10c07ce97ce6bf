package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"pgweir/internal/pgtest"
)

// waiting lets the pool come to n waiters.
func waiting(t *testing.T, p *Pool, n int) {
	t.Helper()
	until(t, func() bool { return total(p).Waiting == n })
}

// until tries often, and gives up with the test's time.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not come to pass")
		}
	}
}

func TestNewestFirst(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, nil)
	spec := specFor(t, n.Addr())
	a, b := get(t, p, spec), get(t, p, spec)
	p.Put(a)
	p.Put(b)
	if get(t, p, spec) != b || get(t, p, spec) != a || n.Accepted() != 2 {
		t.Error("not the one used last")
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, sized(1))
	spec := specFor(t, n.Addr())
	c := get(t, p, spec)
	order := make(chan int, 10)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			c, err := p.Get(t.Context(), spec)
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			if i%3 == 0 {
				p.Drop(c)
			} else {
				p.Put(c)
			}
		})
		waiting(t, p, i+1)
	}
	p.Put(c)
	wg.Wait()
	for i := range 10 {
		if got := <-order; got != i {
			t.Errorf("%d came as number %d", got, i)
		}
	}
	if s := total(p); s.Leased+s.Opening+s.Waiting != 0 || s.Idle > 1 {
		t.Errorf("%+v", s)
	}
}

func TestNobodyOvertakes(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, sized(1))
	spec := specFor(t, n.Addr())
	c := get(t, p, spec)
	got := make(chan *Conn)
	other := clone(spec)
	other.Startup = "other"
	go func() {
		c, _ := p.Get(t.Context(), other)
		got <- c
	}()
	waiting(t, p, 1)
	p.Put(c) // it has the wrong startup key for the waiter, whose turn it is
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	second := <-got
	if _, err := p.Get(ctx, spec); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if second == nil || second.Startup != "other" || second == c {
		t.Errorf("%+v", second)
	}
	if s := total(p); s.Leased != 1 || s.Idle != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, sized(1))
	spec := specFor(t, n.Addr())
	c := get(t, p, spec)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	done := make(chan error)
	go func() {
		_, err := p.Get(ctx, spec)
		done <- err
	}()
	waiting(t, p, 1)
	cancel(gone)
	err := <-done
	var we *WaitError
	if !errors.As(err, &we) || !errors.Is(err, gone) || we.Size != 1 || we.Key != spec.Key || !strings.Contains(err.Error(), `"app" as "alice"`) {
		t.Error(err)
	}
	waiting(t, p, 0)
	p.Put(c)
}

func TestOtherStartupKeyMakesRoom(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, sized(2))
	spec := specFor(t, n.Addr())
	a, b := get(t, p, spec), get(t, p, spec)
	p.Put(a)
	p.Put(b)
	spec.Startup = "other"
	c := get(t, p, spec)
	spec.Startup = ""
	if got := get(t, p, spec); got != b || c == a {
		t.Error("not the oldest went")
	}
	if s := total(p); s.Leased != 2 || s.Idle != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSmallerAndLargerLimit(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, sized(4))
	spec := specFor(t, n.Addr())
	conns := []*Conn{get(t, p, spec), get(t, p, spec), get(t, p, spec), get(t, p, spec)}
	for _, c := range conns[1:] {
		p.Put(c)
	}
	limit(p, func(l *Limits) { l.Size = 2 })
	c := get(t, p, spec)
	if s := total(p); s.Leased != 2 || s.Idle != 0 {
		t.Errorf("%+v", s)
	}
	done := make(chan *Conn)
	go func() {
		c, _ := p.Get(t.Context(), spec)
		done <- c
	}()
	waiting(t, p, 1)
	limit(p, func(l *Limits) { l.Size = 4 })
	p.Put(get(t, p, spec))
	p.Put(<-done)
	p.Put(c)
	p.Put(conns[0])
	if s := total(p); s.Leased != 0 || s.Idle != 4 {
		t.Errorf("%+v", s)
	}
}

func TestFailedLoginFreesItsSlot(t *testing.T) {
	n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		if c.N == 1 {
			return errors.Join(c.Startup(), c.Send(pgtest.Error("FATAL", "57P03", "the database system is starting up")))
		}
		return friendly(c)
	})
	p := newPool(t, sized(1))
	spec := specFor(t, n.Addr())
	var ce *ConnectError
	if _, err := p.Get(t.Context(), spec); !errors.As(err, &ce) || !ce.Unavailable() {
		t.Error(err)
	}
	p.Put(get(t, p, spec))
}

func TestRetiredAreNotReused(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, nil)
	spec := specFor(t, n.Addr())
	idle, leased := get(t, p, spec), get(t, p, spec)
	p.Put(idle)
	other := clone(spec)
	other.Node = 2
	untouched := get(t, p, other)
	p.Put(untouched)
	p.CloseNode("main", 1)
	if s := total(p); s.Idle != 1 || s.Leased != 1 || !leased.Retired() {
		t.Errorf("%+v", s)
	}
	p.Put(leased)
	if s := total(p); s.Idle != 1 || s.Leased != 0 {
		t.Errorf("%+v", s)
	}
	if get(t, p, other) != untouched {
		t.Error("another node's connection went")
	}
	p.CloseNode("other cluster", 2)
	if untouched.Retired() {
		t.Error("another cluster's node")
	}
}

func TestBreakWakesTheHolder(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, nil)
	c := get(t, p, specFor(t, n.Addr()))
	done := make(chan error)
	go func() { done <- c.Link.Fill() }()
	p.Break("main", 1)
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	p.Drop(c)
	if s := total(p); s != (Stat{}) {
		t.Errorf("%+v", s)
	}
}

func TestRetiredWhileOpening(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		close(started)
		<-release
		return friendly(c)
	})
	p := newPool(t, nil)
	go func() {
		<-started
		p.CloseNode("main", 1)
		close(release)
	}()
	c := get(t, p, specFor(t, n.Addr()))
	if !c.Retired() {
		t.Error("opened before the node was closed, and to be used after it")
	}
	p.Put(c)
	if s := total(p); s != (Stat{}) {
		t.Errorf("%+v", s)
	}
}

func TestBadResets(t *testing.T) {
	for name, answer := range map[string][]pgtest.Message{
		"error":       {pgtest.Error("ERROR", "25001", "no"), pgtest.ReadyForQuery('I')},
		"transaction": {pgtest.CommandComplete("DISCARD ALL"), pgtest.ReadyForQuery('T')},
		"rows":        {pgtest.DataRow("x"), pgtest.ReadyForQuery('I')},
		"silence":     {},
		"fatal":       {pgtest.Error("FATAL", "57P01", "terminating connection due to administrator command")},
	} {
		t.Run(name, func(t *testing.T) {
			n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
				return errors.Join(c.LoginTrust(), c.Serve(func(pgtest.Message) []pgtest.Message { return answer }))
			})
			p := newPool(t, func(c *Config) {
				if name == "silence" {
					c.ResetTimeout = 50 * time.Millisecond
				}
			})
			c := get(t, p, specFor(t, n.Addr()))
			c.Dirty = true
			p.Put(c)
			if s := total(p); s != (Stat{}) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestTooOld(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, func(c *Config) { c.Default.IdleTimeout, c.Default.Lifetime = time.Minute, time.Hour })
	spec := specFor(t, n.Addr())
	a := get(t, p, spec)
	p.Put(a)
	p.sweep(time.Now().Add(30 * time.Second))
	if s := total(p); s.Idle != 1 {
		t.Errorf("%+v", s)
	}
	p.sweep(time.Now().Add(2 * time.Minute))
	if s := total(p); s.Idle != 0 {
		t.Errorf("%+v", s)
	}
	b := get(t, p, spec)
	b.Opened = time.Now().Add(-2 * time.Hour)
	p.Put(b)
	if s := total(p); s.Idle+s.Leased != 0 {
		t.Errorf("%+v", s)
	}
	p.sweep(time.Now().Add(10 * time.Minute))
	if n := len(p.Stats()); n != 0 {
		t.Errorf("%d empty pools are remembered", n)
	}
	p.Put(get(t, p, spec))
}

func TestClosedByTheNodeWhileIdle(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, nil)
	spec := specFor(t, n.Addr())
	a, b := get(t, p, spec), get(t, p, spec)
	p.Put(a)
	p.Put(b)
	n.KillConns()
	until(t, func() bool { return !a.Silent() && !b.Silent() })
	a.idleSince, b.idleSince = a.idleSince.Add(-idleTrust), b.idleSince.Add(-idleTrust)
	if c := get(t, p, spec); c == a || c == b {
		t.Error("a dead connection was given out")
	}
	p.sweep(time.Now())
	if s := total(p); s.Idle != 0 || s.Leased != 1 {
		t.Errorf("%+v", s)
	}
}

func TestGoodbye(t *testing.T) {
	said := make(chan error, 1)
	n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		if err := c.LoginTrust(); err != nil {
			return err
		}
		_, err := c.Expect('X')
		said <- err
		return nil
	})
	p := newPool(t, nil)
	p.Put(get(t, p, specFor(t, n.Addr())))
	p.CloseNode("main", 1)
	if err := <-said; err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, sized(1))
	spec := specFor(t, n.Addr())
	c := get(t, p, spec)
	waiter := make(chan error)
	go func() {
		_, err := p.Get(t.Context(), spec)
		waiter <- err
	}()
	waiting(t, p, 1)
	closed := make(chan error)
	go func() { closed <- p.Close(t.Context()) }()
	if err := <-waiter; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := p.Get(t.Context(), spec); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	p.Put(c)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestCloseByForce(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, nil)
	c := get(t, p, specFor(t, n.Addr()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := c.Link.Fill(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	p.Drop(c)
}

func TestCancelRequest(t *testing.T) {
	n := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error {
		c.Secret = []byte{9, 8, 7, 6}
		return friendly(c)
	})
	p := newPool(t, nil)
	c := get(t, p, specFor(t, n.Addr()))
	if err := c.Cancel(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-n.Cancels; got.PID != 4711 || string(got.Secret) != "\x09\x08\x07\x06" {
		t.Errorf("%+v", got)
	}
	p.Drop(c)
	silent := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error { return c.Stall() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := CancelRequest(ctx, Target{Addr: silent.Addr()}, false, 1, []byte{1, 2, 3, 4}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := CancelRequest(t.Context(), Target{Addr: silent.Addr()}, false, 0, nil); err == nil {
		t.Error("a cancel without a key")
	}
}

// TestForwardCancel: a request that is passed on is sent once, encrypted as the mode says.
func TestForwardCancel(t *testing.T) {
	ca := pgtest.NewCA(t)
	secure := pgtest.NewFakeTLSNode(t, &tls.Config{Certificates: []tls.Certificate{ca.TLS(ca.Issue("peer", "peer.example"))}}, inTunnel)
	open := pgtest.NewFakeNode(t, (*pgtest.FakeConn).Startup)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode  SSLMode
		files TLSFiles
		host  string
		peer  *pgtest.FakeNode
		wrong string // in the error; "": the peer has the request
	}{
		{mode: SSLPrefer, peer: secure},
		{mode: SSLPrefer, peer: open},
		{mode: SSLDisable, peer: open},
		{mode: SSLAllow, peer: open},
		{mode: SSLRequire, peer: secure},
		{mode: SSLRequire, peer: open, wrong: "TLS"},
		{mode: SSLVerifyFull, files: TLSFiles{RootCert: file}, host: "peer.example", peer: secure},
		{mode: SSLVerifyFull, files: TLSFiles{RootCert: file}, host: "other.example", peer: secure, wrong: "other.example"},
	} {
		conf, err := NewTLS(c.mode, c.files)
		if err != nil {
			t.Fatal(err)
		}
		before := c.peer.Accepted()
		err = ForwardCancel(t.Context(), Target{Addr: c.peer.Addr(), Host: c.host, TLS: conf}, 1<<31|7, []byte{1, 2, 3, 4, 5})
		if n := c.peer.Accepted() - before; n != 1 {
			t.Errorf("%v: %d connections", c.mode, n)
		}
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) || len(c.peer.Cancels) > 0 {
				t.Errorf("%v: %v, and %d requests came", c.mode, err, len(c.peer.Cancels))
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.mode, err)
			continue
		}
		if got := <-c.peer.Cancels; got.PID != 1<<31|7 || string(got.Secret) != "\x01\x02\x03\x04\x05" || len(c.peer.Cancels) > 0 {
			t.Errorf("%v: got %+v and %d more", c.mode, got, len(c.peer.Cancels))
		}
	}
}

// inTunnel is the script of a peer that fails its test when a request comes in the clear.
func inTunnel(c *pgtest.FakeConn) error {
	err := c.Startup()
	if _, ok := c.Conn().(*tls.Conn); ok {
		return err
	}
	if strings.Contains(err.Error(), "CancelRequest") {
		return errors.New("a request in the clear")
	}
	return nil // the handshake was refused
}

// TestManyAtOnce lets many goroutines do everything at random and checks the limit throughout.
func TestManyAtOnce(t *testing.T) {
	const size = 3
	n := pgtest.NewFakeNode(t, friendly)
	p := newPool(t, sized(size))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 60 {
				spec := specFor(t, n.Addr())
				spec.Startup = fmt.Sprint(r.IntN(2))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(20))*time.Millisecond)
				c, err := p.Get(ctx, spec)
				cancel()
				if s := total(p); s.Leased+s.Idle+s.Opening > size {
					t.Errorf("%+v", s)
				}
				if err != nil {
					continue
				}
				switch c.Dirty = r.IntN(2) == 0; r.IntN(8) {
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
	if s := total(p); s.Leased+s.Opening+s.Waiting != 0 || s.Idle > size {
		t.Errorf("%+v", s)
	}
}

func TestMetrics(t *testing.T) {
	n := pgtest.NewFakeNode(t, friendly)
	reg := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Default.Size = 7
	p, err := New(cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	spec := specFor(t, n.Addr())
	c := get(t, p, spec)
	p.Put(get(t, p, spec))
	want := `# HELP pgweir_pool_connections Connections to a node, by state: idle, leased or opening.
# TYPE pgweir_pool_connections gauge
pgweir_pool_connections{cluster="main",database="app",node="pg-a",state="idle",user="alice"} 1
pgweir_pool_connections{cluster="main",database="app",node="pg-a",state="leased",user="alice"} 1
pgweir_pool_connections{cluster="main",database="app",node="pg-a",state="opening",user="alice"} 0
# HELP pgweir_pool_size Largest number of connections of the pool.
# TYPE pgweir_pool_size gauge
pgweir_pool_size{cluster="main",database="app",node="pg-a",user="alice"} 7
# HELP pgweir_pool_waiting Sessions waiting for a connection because the pool is full.
# TYPE pgweir_pool_waiting gauge
pgweir_pool_waiting{cluster="main",database="app",node="pg-a",user="alice"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "pgweir_pool_connections", "pgweir_pool_size", "pgweir_pool_waiting"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "pgweir_lease_wait_seconds"); err != nil || n != 1 {
		t.Error(n, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	for i := range maxSeries * 2 { // pools that nothing was opened in count as well
		g, err := p.group(&Spec{Key: Key{Cluster: "main", Node: 1, Entry: fmt.Sprint(i), User: "u"}, NodeName: "pg-a"})
		if err != nil || g == nil {
			t.Fatal(err)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "pgweir_pool_size"); err != nil || n != maxSeries+1 {
		t.Error(n, err)
	}
	p.Drop(c)
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{}, m); err == nil || strings.Count(err.Error(), "\n") < 5 {
		t.Error(err)
	}
	for _, word := range []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"} {
		if mode, err := ParseSSLMode(word); err != nil || mode.String() != word {
			t.Error(word, mode, err)
		}
	}
	if _, err := ParseSSLMode("on"); err == nil {
		t.Error("sslmode on")
	}
	for _, f := range []struct {
		mode  SSLMode
		files TLSFiles
	}{
		{SSLVerifyCA, TLSFiles{}},
		{SSLVerifyFull, TLSFiles{}},
		{SSLRequire, TLSFiles{RootCert: "system"}},
		{SSLRequire, TLSFiles{RootCert: "/nonexistent"}},
		{SSLRequire, TLSFiles{Cert: "x"}},
		{SSLRequire, TLSFiles{Cert: "x", Key: "y"}},
	} {
		if _, err := NewTLS(f.mode, f.files); err == nil {
			t.Errorf("%v %+v", f.mode, f.files)
		}
	}
	if closedByNode(io.EOF) != errClosedByNode {
		t.Error("io.EOF")
	}
}

func TestHostNames(t *testing.T) {
	ca := pgtest.NewCA(t)
	leaf := func(cn string, names ...string) func(host string) bool {
		c := ca.TLS(ca.Issue(cn, names...)).Leaf
		return func(host string) bool { return verifyHost(c, host) == nil }
	}
	old, wild, san := leaf("DB.example"), leaf("*.example"), leaf("db.example", "other.example", "127.0.0.1")
	for name, ok := range map[string]bool{
		"common name": old("db.EXAMPLE"), "wildcard": wild("db.example"), "alternative": san("other.example"), "address": san("127.0.0.1"),
		"not another name": !old("x.example"), "not two labels": !wild("a.db.example"), "not none": !wild("example") && !wild(".example"),
		"no common name beside alternatives": !san("db.example"), "not another address": !san("127.0.0.2"), "not without a name": !old(""),
	} {
		if !ok {
			t.Error(name)
		}
	}
}
