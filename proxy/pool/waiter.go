package pool

import "time"

// waiter is a Get under way, and its place in a queue while it has found no slot. It is used again: thousands may wait
// at once, each for a moment.
type waiter struct {
	spec     *Spec
	patience *Patience
	began    time.Time
	ends     time.Time     // when the patience is over; zero: never
	tells    time.Time     // when it calls Notice; zero: never, or it has
	over     error         // what its patience has ended with while it opened a connection
	look     chan struct{} // it was granted something, or a time has come; buffered for one

	// With the node's lock held, while it is queued.
	queued     bool
	next, prev *waiter
	came       uint64    // its number among those who came to the node, from 1
	reserve    time.Time // when it may use the pool's reserve; zero: never, or it may
	granted    grant     // its own once it is not queued any more
}

// newWaiter begins a Get.
func (p *Pool) newWaiter(spec *Spec, start time.Time) *waiter {
	w, _ := p.waiters.Get().(*waiter)
	if w == nil {
		w = &waiter{look: make(chan struct{}, 1)}
	}
	w.spec, w.patience, w.began = spec, &spec.Patience, start
	if w.patience.Limit > 0 {
		w.ends = start.Add(w.patience.Limit)
	}
	if n := w.patience.Notify; n > 0 && w.patience.Notice != nil && (w.ends.IsZero() || n < w.patience.Limit) {
		w.tells = start.Add(n)
	}
	return w
}

// forgetWaiter ends a Get. It stands in no queue, and nothing was granted that nobody took.
func (p *Pool) forgetWaiter(w *waiter) {
	select {
	case <-w.look:
	default:
	}
	*w = waiter{look: w.look}
	p.waiters.Put(w)
}

// rouse makes a queued waiter look; it has not done so yet where it was roused before.
func (w *waiter) rouse() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// alarm is when something is to happen next; zero: never. The lock is held where it is queued.
func (w *waiter) alarm() time.Time { return earlier(earlier(w.ends, w.tells), w.reserve) }

// rung says what is due: the notice, once, and the error that ends the wait. The lock is held where it is queued.
func (w *waiter) rung(now time.Time) (notice bool, err error) {
	notice = due(&w.tells, now)
	if !w.ends.IsZero() && !w.ends.After(now) {
		err = w.patience.Over
	}
	return notice, err
}

// earlier is the earlier of two times that are not zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// due says, once, whether a time has come.
func due(at *time.Time, now time.Time) bool {
	if at.IsZero() || at.After(now) {
		return false
	}
	*at = time.Time{}
	return true
}

// line is those who wait for one pool, first come first.
type line struct {
	first, last *waiter
	length      int
}

// push puts a waiter behind all who came before it.
func (l *line) push(w *waiter) {
	l.length++
	w.queued = true
	before := l.last
	for before != nil && before.came > w.came {
		before = before.prev
	}
	if w.prev = before; before == nil {
		w.next, l.first = l.first, w
	} else {
		w.next, before.next = before.next, w
	}
	if w.next == nil {
		l.last = w
	} else {
		w.next.prev = w
	}
}

// remove takes a waiter out.
func (l *line) remove(w *waiter) {
	l.length--
	w.queued = false
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.next, w.prev = nil, nil
}
