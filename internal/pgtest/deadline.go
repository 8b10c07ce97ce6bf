package pgtest

import (
	"os"
	"sync"
	"time"
)

// deadline is a moment that can be moved, and a channel that is closed when it has passed.
type deadline struct {
	mu struct {
		sync.Mutex
		timer *time.Timer
		moves int
		done  chan struct{}
	}
}

// newDeadline is a deadline that never comes.
func newDeadline() *deadline {
	d := &deadline{}
	d.mu.done = make(chan struct{})
	return d
}

// set moves the deadline; the zero time is never. Who waits for passed sees the new one.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.moves++
	if d.mu.timer != nil {
		d.mu.timer.Stop()
		d.mu.timer = nil
	}
	select {
	case <-d.mu.done:
		d.mu.done = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	if wait := time.Until(t); wait > 0 {
		move := d.mu.moves
		d.mu.timer = time.AfterFunc(wait, func() { d.pass(move) })
		return
	}
	close(d.mu.done)
}

// pass lets the deadline of one call of set pass, unless it was moved since.
func (d *deadline) pass(move int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.moves == move {
		close(d.mu.done)
	}
}

// passed is closed when the deadline has passed. After that a moved deadline has another channel.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.done
}

// err is os.ErrDeadlineExceeded if the deadline has passed.
func (d *deadline) err() error {
	select {
	case <-d.passed():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}
