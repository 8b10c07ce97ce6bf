package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pgweir/internal/auth"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
)

// Many clients share few connections: how much that costs beside as many clients as connections.
const (
	crowdConnections = 20   // to nodes that answer reads, all together
	crowdFew         = 20   // clients: nobody waits
	crowdMany        = 2000 // clients: nearly all wait
)

// crowd is what was measured of a candidate with few and with many clients, round by round.
type crowd struct{ few, many []sample }

// rates are the throughputs with many clients over those with few of the same round.
func (c *crowd) rates() []float64 {
	out := make([]float64, len(c.few))
	for i := range out {
		out[i] = c.many[i].rate / c.few[i].rate
	}
	return out
}

// costs are likewise of the proxy's processor time for a query.
func (c *crowd) costs() []float64 {
	return c.perQuery(func(s sample) procTime { return s.used })
}

// loads are likewise of the load's own processor time: what many sockets cost anybody.
func (c *crowd) loads() []float64 {
	return c.perQuery(func(s sample) procTime { return s.load })
}

// perQuery is a processor time for a query with many clients over that with few, round by round.
func (c *crowd) perQuery(of func(sample) procTime) []float64 {
	out := make([]float64, len(c.few))
	for i := range out {
		few, many := c.few[i], c.many[i]
		out[i] = of(many).total().Seconds() / many.pieces / (of(few).total().Seconds() / few.pieces)
	}
	return out
}

// measureCrowd runs few and many clients in turns against processes of their own, whose pools are small.
func (r *rig) measureCrowd(ctx context.Context, rep *report) error {
	r.crowded = true
	defer func() { r.crowded = false }()
	rep.crowds = make(map[kind]*crowd)
	for _, k := range []kind{pgbouncer, weir, beside} {
		if !slices.ContainsFunc(r.proxies, func(c *candidate) bool { return c.kind == k }) {
			continue
		}
		err := r.fresh(ctx, k, func(c *candidate) (err error) {
			rep.crowds[k], err = r.crowdOf(ctx, c)
			return err
		})
		if err != nil {
			return fmt.Errorf("%d clients on %d connections of %s: %w", crowdMany, crowdConnections, k, err)
		}
	}
	return nil
}

// crowdOf measures one candidate.
func (r *rig) crowdOf(ctx context.Context, c *candidate) (*crowd, error) {
	var out crowd
	var few, many []net.Conn
	defer func() {
		for _, conn := range append(few, many...) {
			_ = conn.Close()
		}
	}()
	var err error
	if few, err = r.connectAll(ctx, c.port, crowdFew); err != nil {
		return nil, err
	}
	if many, err = r.connectAll(ctx, c.port, crowdMany); err != nil {
		return nil, err
	}
	if _, err := r.press(ctx, c, many, time.Second); err != nil { // to warm up
		return nil, err
	}
	for round := range r.rounds {
		for _, of := range []struct {
			conns []net.Conn
			to    *[]sample
		}{{few, &out.few}, {many, &out.many}} {
			s, err := r.press(ctx, c, of.conns, time.Duration(r.seconds)*time.Second)
			if err != nil {
				return nil, err
			}
			s.round = round
			*of.to = append(*of.to, s)
			r.say("round %d  %4d clients on %d connections    %-20s %7.2f µs/query  %9.1f/s", round+1, len(of.conns), crowdConnections, c.kind,
				s.cost(workload{scale: 1e6}), s.rate)
		}
	}
	return &out, nil
}

// connectAll logs n clients in.
func (r *rig) connectAll(ctx context.Context, port, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	errs := make([]error, n)
	logins, err := logins()
	if err != nil {
		return nil, err
	}
	plain, err := pool.NewTLS(pool.SSLDisable, pool.TLSFiles{})
	if err != nil {
		return nil, err
	}
	spec := &pool.Spec{
		Key:    pool.Key{Database: benchDatabase, User: benchUser},
		Target: pool.Target{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), TLS: plain}, Keys: auth.Keys{Password: r.password},
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				c, err := logins.Get(ctx, spec)
				if err != nil {
					errs[i] = err
					return
				}
				conns[i] = c.Link.Conn()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, context.Cause(ctx))...); err != nil {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, err
	}
	return conns, nil
}

// logins is a pool that logs clients in. Nobody else reads of its connections, as a pgconn.PgConn may at any time.
func logins() (*pool.Pool, error) {
	metrics, err := pool.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	cfg := pool.DefaultConfig()
	cfg.NodeSettings, cfg.Default.Size = nil, crowdMany
	return pool.New(cfg, metrics)
}

// press lets every client run one query after the other for a time.
func (r *rig) press(ctx context.Context, c *candidate, conns []net.Conn, span time.Duration) (sample, error) {
	var stop atomic.Bool
	var queries atomic.Int64
	errs := make([]error, len(conns))
	before, err := usage(c.child.pid())
	if err != nil {
		return sample{}, err
	}
	own, err := ownUsage()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	var wg sync.WaitGroup
	for i, conn := range conns {
		if errs[i] = conn.SetDeadline(began.Add(span + time.Minute)); errs[i] != nil {
			break
		}
		wg.Go(func() {
			n := int64(0)
			defer func() { queries.Add(n) }()
			var buf []byte
			for aid := i; !stop.Load(); aid += len(conns) {
				if buf, errs[i] = ask(conn, buf, fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d", aid%(100_000*r.scale)+1)); errs[i] != nil {
					return
				}
				n++
			}
		})
	}
	err = pause(ctx, span)
	stop.Store(true)
	wg.Wait()
	took := time.Since(began)
	after, e := usage(c.child.pid())
	ownAfter, eOwn := ownUsage()
	if err = errors.Join(append(errs, err, e, eOwn)...); err != nil {
		return sample{}, err
	}
	n := float64(queries.Load())
	return sample{work: work{pieces: n, rate: n / took.Seconds()}, used: after.since(before), load: ownAfter.since(own)}, nil
}

// ask runs one query and reads to its end; an error of the server is one. It returns the buffer for the next one.
func ask(conn net.Conn, buf []byte, sql string) ([]byte, error) {
	buf = pgwire.AppendQuery(buf[:0], sql)
	if _, err := conn.Write(buf); err != nil {
		return buf, err
	}
	buf = slices.Grow(buf[:0], 1024)
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return buf, err
		}
		buf = buf[:len(buf)+n]
		if len(buf) > 0 && buf[0] == pgwire.MsgErrorResponse {
			return buf, fmt.Errorf("%s: %q", sql, buf)
		}
		if bytes.HasSuffix(buf, []byte("Z\x00\x00\x00\x05I")) {
			return buf, nil
		}
		if len(buf) == cap(buf) {
			return buf, io.ErrShortBuffer
		}
	}
}
