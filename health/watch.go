package health

import (
	"context"
	"errors"
	"sync"
	"time"
)

// retryAfter is how soon a failed probe is repeated where an answer would come quickly.
const retryAfter = 20 * time.Millisecond

// watcher asks one node, by three loops that do not wait for each other: probes, samples, and now
// and then a new connection. Each owns its connection.
type watcher struct {
	m      *Monitor
	id     int
	node   NodeConfig
	probe  chan struct{} // probe now
	sample chan struct{} // sample now
	fresh  chan struct{} // try a new connection now
}

// newWatcher makes a watcher; run starts it.
func newWatcher(m *Monitor, id int, node NodeConfig) *watcher {
	return &watcher{
		m: m, id: id, node: node,
		probe: make(chan struct{}, 1), sample: make(chan struct{}, 1), fresh: make(chan struct{}, 1),
	}
}

// signal wakes whoever waits on ch; a second signal before it woke is the same one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run asks until ctx ends; its connections are closed when it returns.
func (w *watcher) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { w.probeLoop(ctx) })
	wg.Go(func() { w.sampleLoop(ctx) })
	wg.Go(func() { w.freshLoop(ctx) })
	wg.Wait()
}

// dial opens a connection within the probe's time-out.
func (w *watcher) dial(ctx context.Context) (link, error) {
	ctx, cancel := context.WithTimeout(ctx, w.m.cfg.ProbeTimeout)
	defer cancel()
	return w.m.dialer.dial(ctx, w.node)
}

// ask probes over l, which may be nil.
func (w *watcher) ask(ctx context.Context, l link) (*observation, error) {
	return l.probe(ctx, time.Now().Add(w.m.cfg.ProbeTimeout))
}

// probeLoop asks everything each probe.interval, and at once when somebody has a reason.
func (w *watcher) probeLoop(ctx context.Context) {
	var l link
	defer func() {
		if l != nil {
			l.close()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.probe:
		}
		began := time.Now()
		next, err := w.probeOnce(ctx, l)
		l = next
		if ctx.Err() != nil {
			return
		}
		wait := w.m.cfg.ProbeInterval - time.Since(began)
		if err != nil {
			wait = w.retry(err, wait)
		} else if w.m.rising(w.id) {
			wait = min(wait, retryAfter)
		}
		timer.Reset(max(wait, 0))
	}
}

// retry is how long to wait after a failed probe: a refused connection is tried a second time at
// once, since two are enough.
func (w *watcher) retry(err error, wait time.Duration) time.Duration {
	if w.m.falling(w.id) && classify(err).kind != failLogin {
		return min(wait, retryAfter)
	}
	return wait
}

// probeOnce probes over l, or over a new connection if there is none or the old one has ended: that
// alone is no evidence of death. It returns the connection to use next, nil for none.
func (w *watcher) probeOnce(ctx context.Context, l link) (link, error) {
	if l != nil {
		o, err := w.ask(ctx, l)
		if err == nil {
			w.m.answered(w.id, o)
			return l, nil
		}
		l.close()
		w.m.fence.void(w.id)
		if f := classify(err); f.kind == failTimeout || ctx.Err() != nil {
			w.m.missed(w.id, f)
			return nil, err
		}
	}
	l, err := w.dial(ctx)
	if err != nil {
		w.m.missed(w.id, classify(err))
		return nil, err
	}
	o, err := w.ask(ctx, l)
	if err != nil {
		l.close()
		w.m.missed(w.id, classify(err))
		return nil, err
	}
	w.m.answered(w.id, o)
	return l, nil
}

// sampleLoop asks for positions: fast while somebody waits for a fresher sample, else at the
// interval of the node's role. One request is in flight at a time.
func (w *watcher) sampleLoop(ctx context.Context) {
	var l link
	defer func() {
		if l != nil {
			l.close()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.sample:
		}
		began := time.Now()
		var err error
		if l == nil {
			l, err = w.sampleFrom(ctx)
		}
		if err == nil {
			err = w.sampleOnce(ctx, l)
		}
		if err != nil && l != nil {
			l.close()
			l = nil
			w.m.fence.void(w.id)
			signal(w.probe)
		}
		if ctx.Err() != nil {
			return
		}
		if !w.pause(ctx, timer, began, err != nil) {
			return
		}
	}
}

// pause sets the timer for the next sample. Nothing is asked twice within sampling.min_interval,
// so that much is waited out here, also when a demand came in the meantime.
func (w *watcher) pause(ctx context.Context, timer *time.Timer, began time.Time, failed bool) bool {
	cfg := w.m.cfg
	least := cfg.SamplingMinInterval - time.Since(began)
	if failed {
		least = retryAfter
	}
	if least > 0 {
		timer.Reset(least)
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		}
	}
	idle := cfg.ProbeInterval
	if !failed {
		idle = w.m.idle(w.id)
	}
	if w.m.fence.wanted() && !failed && w.m.worthSampling(w.id) {
		timer.Reset(0)
		return true
	}
	timer.Reset(max(idle-time.Since(began), 0))
	return true
}

// sampleFrom opens the connection that samples come from and begins a new incarnation of the node:
// what an earlier connection saw may have been undone by a crash that ended it.
func (w *watcher) sampleFrom(ctx context.Context) (link, error) {
	l, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	w.m.fence.void(w.id)
	o, err := w.ask(ctx, l)
	if err != nil {
		l.close()
		return nil, err
	}
	w.m.answered(w.id, o)
	return l, nil
}

// sampleOnce takes one sample. When the node is not what it was, it is probed on the spot and
// sampled as what it is the next time.
func (w *watcher) sampleOnce(ctx context.Context, l link) error {
	number, sent := w.m.fence.next(), Clock()
	s, err := l.sample(ctx, time.Now().Add(w.m.cfg.ProbeTimeout))
	if err != nil {
		return err
	}
	if Clock()-sent > int64(w.m.cfg.TrustWindow) {
		return nil // late: the process or the node was stopped in between
	}
	s.number, s.sent = number, sent
	if w.m.sampled(w.id, s) && !s.turned {
		w.m.fence.observe(w.id, s)
		return nil
	}
	o, err := w.ask(ctx, l)
	if err != nil {
		return err
	}
	w.m.answered(w.id, o)
	signal(w.sample)
	return nil
}

// freshLoop makes a new connection now and then: a hung postmaster looks healthy over an old one.
func (w *watcher) freshLoop(ctx context.Context) {
	timer := time.NewTimer(w.m.cfg.FreshInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.fresh:
		}
		err := w.freshOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := w.m.cfg.FreshInterval
		var miss *failure
		if err != nil {
			f := classify(err)
			miss, wait = &f, w.m.cfg.ProbeInterval
		}
		w.m.freshMissed(w.id, miss)
		timer.Reset(wait)
	}
}

// freshPatience is how many probe time-outs a new connection may take: a busy server is slow to let
// somebody in, and it is one that lets nobody in which is looked for.
const freshPatience = 5

// freshOnce logs in, probes and hangs up.
func (w *watcher) freshOnce(ctx context.Context) error {
	dctx, cancel := context.WithTimeout(ctx, freshPatience*w.m.cfg.ProbeTimeout)
	defer cancel()
	l, err := w.m.dialer.dial(dctx, w.node)
	if err != nil {
		return err
	}
	defer l.close()
	o, err := w.ask(ctx, l)
	if err != nil {
		return err
	}
	w.m.answered(w.id, o)
	return nil
}

// errStopped is why a watcher's context ends.
var errStopped = errors.New("node is watched no more")
