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

// alarm is a channel that speaks when rung is to be called; nil: never.
func (w *waiter) alarm() <-chan time.Time {
	next := w.ends
	for _, at := range []time.Time{w.tells, w.reserve} {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	switch {
	case next.IsZero():
		return nil
	case w.timer == nil:
		w.timer = time.NewTimer(next.Sub(now()))
	default:
		w.timer.Reset(next.Sub(now()))
	}
	return w.timer.C
}

// rung does what the alarm is for: the notice, or the error that ends the wait. reserve says that the pool's reserve
// may be used now.
func (w *waiter) rung() (reserve bool, err error) {
	now := now()
	if due(&w.tells, now) {
		w.patience.Notice()
	}
	if due(&w.ends, now) {
		return false, w.patience.Over
	}
	return due(&w.reserve, now), nil
}

// due says, once, whether a time has come.
func due(at *time.Time, now time.Time) bool {
	if at.IsZero() || at.After(now) {
		return false
	}
	*at = time.Time{}
	return true
}

// context is a context that the wait ends as well, until stop is called.
func (w *waiter) context(ctx context.Context) (_ context.Context, stop func()) {
	if w.ends.IsZero() && w.tells.IsZero() && w.patience.Cancel == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		alarm := w.alarm()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-w.patience.Cancel:
				cancel(w.patience.Canceled)
			case <-alarm:
				if _, err := w.rung(); err != nil {
					cancel(err)
				}
				alarm = w.alarm()
			}
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}
