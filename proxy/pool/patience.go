package pool

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
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
	// Nudge, if there is one, is nudged after Cancel was sent to or the context of the Get has ended: who stands in line then
	// waits for one thing in place of three, which costs half as much.
	Nudge *Nudge
	// AtOnce is that it does not stand in line: it fails with ErrBusy where there is neither a connection for it nor room
	// for one. Opening one takes its time.
	AtOnce bool
}

// Nudge has a Get that stands in line look whether it is to end. The zero Nudge is ready for one Get at a time.
type Nudge struct{ waiter atomic.Pointer[waiter] }

// Now may be called by anybody at any time.
func (n *Nudge) Now() {
	if w := n.waiter.Load(); w != nil {
		w.rouse() // it may be another's by now, who looks for nothing then
	}
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
