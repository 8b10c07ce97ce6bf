package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"pgweir/internal/pgwire"
)

// tick is the grain of the server's coarse clock: how long one side of a session is silent
// before the other is watched as well.
const tick = 5 * time.Millisecond

// clock starts the watches that have come due. A session that waits costs one append; one that
// waits less than a tick nothing more, and nothing runs while nobody waits.
type clock struct {
	wake chan struct{}
	mu   struct {
		sync.Mutex
		due     []*watch // since the last tick
		seq     []uint32
		running bool
	}
}

// newClock is a clock that stands still until somebody waits.
func newClock() *clock { return &clock{wake: make(chan struct{}, 1)} }

// run drives the clock until stop is closed.
func (c *clock) run(stop <-chan struct{}, wg *sync.WaitGroup) {
	t := time.NewTicker(tick)
	defer t.Stop()
	var older []*watch
	var olderSeq []uint32
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		c.mu.Lock()
		due, seq := c.mu.due, c.mu.seq
		c.mu.due, c.mu.seq = older[:0], olderSeq[:0]
		idle := len(due) == 0
		c.mu.running = !idle
		c.mu.Unlock()
		for i, w := range due {
			w.begin(seq[i], wg)
		}
		clear(due)
		older, olderSeq = due, seq
		if idle {
			t.Stop()
			select {
			case <-stop:
				return
			case <-c.wake:
			}
			t.Reset(tick)
		}
	}
}

// arm asks for w to begin watching at the next tick.
func (c *clock) arm(w *watch, seq uint32) {
	c.mu.Lock()
	c.mu.due = append(c.mu.due, w)
	c.mu.seq = append(c.mu.seq, seq)
	running := c.mu.running
	c.mu.running = true
	c.mu.Unlock()
	if !running {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// The states of a watch, in the low bits of its word; the rest counts the waits. With no bit set it
// is off.
const (
	_ uint32 = iota
	watchArmed
	watchOn
	watchSpoke
	watchStop
	watchBits = 3
	watchMask = 1<<watchBits - 1
)

// watch lets a session that waits for its client hear a held lease that speaks first. While it
// is on, its goroutine owns the reading side of the lease.
type watch struct {
	word   atomic.Uint32
	lease  *pgwire.Link
	client *pgwire.Link
	done   chan error
}

// start arms the watch of lease while the session is about to wait for client.
func (w *watch) start(c *clock, lease, client *pgwire.Link) {
	w.lease, w.client = lease, client
	if w.done == nil {
		w.done = make(chan error, 1)
	}
	seq := w.word.Load()>>watchBits + 1
	w.word.Store(seq<<watchBits | watchArmed)
	c.arm(w, seq)
}

// begin starts watching, if the wait that armed it still lasts.
func (w *watch) begin(seq uint32, wg *sync.WaitGroup) {
	if !w.word.CompareAndSwap(seq<<watchBits|watchArmed, seq<<watchBits|watchOn) {
		return
	}
	wg.Go(func() {
		err := w.lease.Fill()
		if w.word.CompareAndSwap(seq<<watchBits|watchOn, seq<<watchBits|watchSpoke) {
			_ = w.client.SetReadDeadline(past)
		}
		w.done <- err
	})
}

// stop ends the watch and gives the lease back to the caller. spoke says that the lease has
// something to say: bytes are buffered, or err is why nothing more will come.
func (w *watch) stop() (spoke bool, err error) {
	word := w.word.Load()
	seq := word >> watchBits
	if w.word.CompareAndSwap(seq<<watchBits|watchArmed, seq<<watchBits) {
		return false, nil
	}
	if w.word.CompareAndSwap(seq<<watchBits|watchOn, seq<<watchBits|watchStop) {
		_ = w.lease.SetReadDeadline(past)
		err = <-w.done
		_ = w.lease.SetReadDeadline(time.Time{})
		if isTimeout(err) {
			return false, nil
		}
		return true, err
	}
	err = <-w.done
	_ = w.client.SetReadDeadline(time.Time{})
	return true, err
}

// past is a deadline that wakes whoever waits.
var past = time.Unix(1, 0)
