package pool

import (
	"context"
	"slices"
	"sync"
	"time"
)

// keep remembers what connections are kept open with (Limits.Min): nothing of the session that asked for
// it last, but its login. The lock is held.
func (g *group) keep(spec *Spec) {
	if g.mu.limits.Min == 0 {
		g.mu.warmth = nil
		return
	}
	kept := *spec
	kept.Ranker, kept.Patience, kept.Home = nil, Patience{}, nil
	kept.Params = slices.Clone(spec.Params)
	g.mu.warmth = &kept
}

// connectTimeout is Limits.ConnectTimeout.
func (g *group) connectTimeout() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.limits.ConnectTimeout
}

// warm opens what pools lack of Limits.Min, one after the other in each, where clients are logged in for whom it
// could be used. The goroutines it starts are added to wg.
func (p *Pool) warm(ctx context.Context, now time.Time, wg *sync.WaitGroup) {
	for _, g := range p.all() {
		p.mu.RLock()
		wanted := p.mu.clients[clientKey{g.key.cluster, g.key.entry, g.key.user}] > 0
		p.mu.RUnlock()
		if spec, epoch := g.warmUp(now, wanted); spec != nil {
			wg.Go(func() { p.keepWarm(ctx, g, spec, epoch) })
		}
	}
}

// warmUp takes a slot for a connection that nobody has asked for, and says with what to open it; nil
// where none is to be opened.
func (g *group) warmUp(now time.Time, wanted bool) (*Spec, uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !wanted:
		g.mu.warmth = nil
		return nil, 0
	case g.mu.warmth == nil || g.mu.closed || g.mu.dead || g.mu.rest.After(now) || g.mu.limits.Lifetime == 0:
		return nil, 0
	case g.open() >= min(g.mu.limits.Min, g.mu.limits.Size) || !g.fits():
		return nil, 0
	}
	g.mu.opening++
	return g.mu.warmth, g.mu.epoch
}

// keepWarm opens connections until the pool has what it should.
func (p *Pool) keepWarm(ctx context.Context, g *group, spec *Spec, epoch uint64) {
	for spec != nil {
		conn, err := p.cfg.login(ctx, spec, g.connectTimeout())
		if err != nil {
			g.cooled(err)
			return
		}
		g.opened(conn, spec, epoch)
		p.Put(conn)
		spec, epoch = g.warmUp(time.Now(), true)
	}
}

// cooled frees a slot in which nothing could be opened that nobody had asked for: for a while none is
// tried again, nor with what the node has refused.
func (g *group) cooled(err *ConnectError) {
	g.failed(err)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.rest = time.Now().Add(g.mu.limits.LoginRetry)
	if err.Response != nil && !err.Full() {
		g.mu.warmth = nil
	}
}
