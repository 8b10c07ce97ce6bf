package pool

import (
	"sync"
	"time"
)

// waiter is a Get under way, and its place in a queue while it has found no slot. It is used again: thousands may wait
// at once, each for a moment.
type waiter struct {
	spec     *Spec
	patience *Patience
	began    time.Time
	ends     time.Time // when the patience is over; zero: never
	tells    time.Time // when it calls Notice; zero: never, or it has
	reserve  time.Time // when it may use the pool's reserve; zero: never, or it knows
	timer    *time.Timer
	signal   chan struct{} // that it was granted something; buffered for one

	granted grant // by the holder of the node's lock, before the signal

	// With the node's lock held.
	next, prev *waiter
	queued     bool
	came       uint64 // grows with each of the node's
}

var waiters = sync.Pool{New: func() any { return &waiter{signal: make(chan struct{}, 1)} }}

// newWaiter begins a Get.
func newWaiter(spec *Spec, start time.Time) *waiter {
	w := waiters.Get().(*waiter)
	p := &spec.Patience
	w.spec, w.patience, w.began = spec, p, start
	if p.Limit > 0 {
		w.ends = start.Add(p.Limit)
	}
	if p.Notify > 0 && p.Notice != nil && (p.Limit <= 0 || p.Notify < p.Limit) {
		w.tells = start.Add(p.Notify)
	}
	return w
}

// over ends it. It stands in no queue, and nothing was granted that nobody took.
func (w *waiter) over() {
	if w.timer != nil {
		w.timer.Stop()
	}
	*w = waiter{timer: w.timer, signal: w.signal}
	waiters.Put(w)
}

// line is those who wait for one pool, first come first.
type line struct {
	first, last *waiter
	length      int
}

// push puts a waiter at the end, or in front of all.
func (l *line) push(w *waiter, front bool) {
	l.length++
	w.queued = true
	switch {
	case l.first == nil:
		l.first, l.last = w, w
	case front:
		w.next, l.first.prev, l.first = l.first, w, w
	default:
		w.prev, l.last.next, l.last = l.last, w, w
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
