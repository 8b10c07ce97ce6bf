package pool

import (
	"context"
	"sync"
	"time"
)

// Patience is how long a Get may take, and what else ends it. The zero Patience has no end of its own.
type Patience struct {
	// Limit is how long it may take from the call on; 0: without end. Over is what it fails with then.
	Limit time.Duration
	Over  error
	// Notify is after what time Notice is called, once; 0: never. Notice may be called by another goroutine, before
	// Get returns.
	Notify time.Duration
	Notice func()
	// Cancel ends it at once, with Canceled.
	Cancel   <-chan struct{}
	Canceled error
}

// wait is a Patience under way.
type wait struct {
	*Patience
	ends, tells time.Time // zero: never
	timer       *time.Timer
}

// patient begins a wait.
func (p *Patience) patient(start time.Time) *wait {
	w := &wait{Patience: p}
	if p == nil {
		w.Patience = &Patience{}
		return w
	}
	if p.Limit > 0 {
		w.ends = start.Add(p.Limit)
	}
	if p.Notify > 0 && p.Notice != nil && (p.Limit <= 0 || p.Notify < p.Limit) {
		w.tells = start.Add(p.Notify)
	}
	return w
}

// alarm is a channel that speaks when rung is to be called; nil: never.
func (w *wait) alarm() <-chan time.Time {
	next := w.ends
	if !w.tells.IsZero() {
		next = w.tells
	}
	switch {
	case next.IsZero():
		return nil
	case w.timer == nil:
		w.timer = time.NewTimer(time.Until(next))
	default:
		w.timer.Reset(time.Until(next))
	}
	return w.timer.C
}

// rung is what the alarm is for: the notice, or the error that ends the wait.
func (w *wait) rung() error {
	if !w.tells.IsZero() {
		w.tells = time.Time{}
		w.Notice()
		return nil
	}
	return w.Over
}

// over ends the wait.
func (w *wait) over() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// context is a context that the wait ends, until stop is called.
func (w *wait) context(ctx context.Context) (_ context.Context, stop func()) {
	if w.ends.IsZero() && w.tells.IsZero() && w.Cancel == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		alarm := w.alarm()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-w.Cancel:
				cancel(w.Canceled)
			case <-alarm:
				if err := w.rung(); err != nil {
					cancel(err)
				}
				alarm = w.alarm()
			}
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}
