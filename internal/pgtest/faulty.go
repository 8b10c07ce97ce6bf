package pgtest

import (
	"net"
	"sync"
	"time"
)

// FaultyConn is a connection with faults that a test puts in. Without any it is the connection
// below. Faults may be put in and taken out at any time. A stalled read or write notices at once;
// one that has begun on the connection below is finished there first.
type FaultyConn struct {
	net.Conn
	in, out     *fault
	read, write *deadline
	closed      chan struct{}
	once        sync.Once
}

// NewFaultyConn takes over conn.
func NewFaultyConn(conn net.Conn) *FaultyConn {
	return &FaultyConn{
		Conn: conn, in: newFault(), out: newFault(), read: newDeadline(), write: newDeadline(),
		closed: make(chan struct{}),
	}
}

// fault is what is wrong with one direction.
type fault struct {
	mu struct {
		sync.Mutex
		passed  int           // bytes that have gone through
		split   int           // at most so many bytes at once; 0 is any number
		cutAt   int           // after so many bytes comes err; −1 is never
		err     error         // of the cut
		stallAt int           // after so many bytes nothing moves; −1 is never
		changed chan struct{} // closed at the next change of the faults
	}
}

// newFault is a direction without faults.
func newFault() *fault {
	f := &fault{}
	f.mu.cutAt, f.mu.stallAt = -1, -1
	f.mu.changed = make(chan struct{})
	return f
}

// change puts a fault in and wakes who waits.
func (f *fault) change(put func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	put()
	close(f.mu.changed)
	f.mu.changed = make(chan struct{})
}

// allow says how many of n bytes may pass now. None with an error is a cut, none without one a
// stall until changed is closed.
func (f *fault) allow(n int) (allowed int, changed <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	allowed = n
	if f.mu.split > 0 {
		allowed = min(allowed, f.mu.split)
	}
	if f.mu.cutAt >= 0 {
		if f.mu.passed >= f.mu.cutAt {
			return 0, nil, f.mu.err
		}
		allowed = min(allowed, f.mu.cutAt-f.mu.passed)
	}
	if f.mu.stallAt >= 0 {
		allowed = min(allowed, max(0, f.mu.stallAt-f.mu.passed))
	}
	return allowed, f.mu.changed, nil
}

// pass counts bytes that have gone through.
func (f *fault) pass(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.passed += n
}

// count is how many bytes have gone through.
func (f *fault) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.passed
}

// SplitReads lets a read return at most n bytes.
func (c *FaultyConn) SplitReads(n int) { c.in.change(func() { c.in.mu.split = n }) }

// SplitWrites hands the connection below at most n bytes at once.
func (c *FaultyConn) SplitWrites(n int) { c.out.change(func() { c.out.mu.split = n }) }

// CutReads lets n more bytes be read; then every read returns err.
func (c *FaultyConn) CutReads(n int, err error) { c.in.cut(n, err) }

// CutWrites lets n more bytes be written; then every write returns err. A write that would pass
// the limit is done in part.
func (c *FaultyConn) CutWrites(n int, err error) { c.out.cut(n, err) }

// cut puts an error n bytes from here.
func (f *fault) cut(n int, err error) {
	f.change(func() { f.mu.cutAt, f.mu.err = f.mu.passed+n, err })
}

// StallReads lets n more bytes be read; then reads wait for Resume, their deadline or Close.
func (c *FaultyConn) StallReads(n int) {
	c.in.change(func() { c.in.mu.stallAt = c.in.mu.passed + n })
}

// StallWrites lets n more bytes be written; then writes wait for Resume, their deadline or Close.
func (c *FaultyConn) StallWrites(n int) {
	c.out.change(func() { c.out.mu.stallAt = c.out.mu.passed + n })
}

// Resume ends all stalls.
func (c *FaultyConn) Resume() {
	c.in.change(func() { c.in.mu.stallAt = -1 })
	c.out.change(func() { c.out.mu.stallAt = -1 })
}

// BytesRead is how many bytes were read through it.
func (c *FaultyConn) BytesRead() int { return c.in.count() }

// BytesWritten is how many bytes were written through it.
func (c *FaultyConn) BytesWritten() int { return c.out.count() }

// Read implements net.Conn.
func (c *FaultyConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return c.Conn.Read(p)
	}
	n, err := c.turn(c.in, c.read, len(p))
	if err != nil {
		return 0, err
	}
	n, err = c.Conn.Read(p[:n])
	c.in.pass(n)
	return n, err
}

// Write implements net.Conn.
func (c *FaultyConn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := c.turn(c.out, c.write, len(p)-done)
		if err != nil {
			return done, err
		}
		n, err = c.Conn.Write(p[done : done+n])
		c.out.pass(n)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// turn waits until at least one of n bytes may pass.
func (c *FaultyConn) turn(f *fault, d *deadline, n int) (int, error) {
	for {
		allowed, changed, err := f.allow(n)
		if err != nil || allowed > 0 {
			return allowed, err
		}
		if err := d.err(); err != nil {
			return 0, err
		}
		select {
		case <-changed:
		case <-d.passed():
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
}

// SetDeadline implements net.Conn.
func (c *FaultyConn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *FaultyConn) SetReadDeadline(t time.Time) error {
	c.read.set(t)
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *FaultyConn) SetWriteDeadline(t time.Time) error {
	c.write.set(t)
	return c.Conn.SetWriteDeadline(t)
}

// CloseWrite ends this side's direction of the connection below.
func (c *FaultyConn) CloseWrite() error { return closeWrite(c.Conn) }

// Close implements net.Conn; it wakes everybody who waits.
func (c *FaultyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
