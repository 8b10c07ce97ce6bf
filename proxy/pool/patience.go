package pool

import (
	"context"
	"errors"
	"math"
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
	// AtOnce is that it does not stand in line: it fails with ErrBusy where there is neither a connection for it nor room
	// for one. Opening one takes its time.
	AtOnce bool
}

// ErrBusy is in the *WaitError of a Get with Patience.AtOnce.
var ErrBusy = errors.New("no connection is free")

// context is a context that the patience ends as well, until stop is called; waiter.over says so.
func (w *waiter) context(ctx context.Context) (_ context.Context, stop func()) {
	if w.alarm().IsZero() && w.patience.Cancel == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		timer := time.NewTimer(w.left())
		defer timer.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-w.patience.Cancel:
				w.over = w.patience.Canceled
			case <-timer.C:
				notice, err := w.rung(now())
				if notice {
					w.patience.Notice()
				}
				w.over = err
				timer.Reset(w.left())
			}
			if w.over != nil {
				cancel(w.over)
			}
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// left is the time until something is to happen, which may be never.
func (w *waiter) left() time.Duration {
	at := w.alarm()
	if at.IsZero() {
		return math.MaxInt64
	}
	return at.Sub(now())
}
