package pgtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Pipe is two connected ends in memory with room for size bytes each way: a write of more waits
// until the other end reads, as a socket's does. Deadlines, half-close and close behave as those
// of TCP. Unlike sockets it works in a testing/synctest bubble.
func Pipe(size int) (a, b *PipeEnd) {
	ab, ba := newStream(size), newStream(size)
	return newPipeEnd(ba, ab), newPipeEnd(ab, ba)
}

// PipeEnd is one end of a Pipe.
type PipeEnd struct {
	in, out     *stream
	read, write *deadline
	closed      chan struct{}
	once        sync.Once
}

// newPipeEnd is an end that reads from in and writes to out.
func newPipeEnd(in, out *stream) *PipeEnd {
	return &PipeEnd{
		in: in, out: out, read: newDeadline(), write: newDeadline(),
		closed: make(chan struct{}),
	}
}

// stream is one direction: a bounded buffer.
type stream struct {
	size int
	mu   struct {
		sync.Mutex
		buf     []byte
		ended   bool          // nothing more is written
		broken  bool          // nothing more is read
		changed chan struct{} // closed at the next change
	}
}

// newStream is an empty buffer.
func newStream(size int) *stream {
	s := &stream{size: size}
	s.mu.changed = make(chan struct{})
	return s
}

// wake tells everybody who waits that something changed. The lock is held.
func (s *stream) wake() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// get moves bytes into p. With nothing to move, wait is closed at the next change.
func (s *stream) get(p []byte) (n int, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.buf) == 0 {
		if s.mu.ended {
			return 0, nil, io.EOF
		}
		return 0, s.mu.changed, nil
	}
	n = copy(p, s.mu.buf)
	s.mu.buf = append(s.mu.buf[:0], s.mu.buf[n:]...)
	s.wake()
	return n, nil, nil
}

// put moves bytes out of p as far as there is room. With no room, wait is closed at the next
// change.
func (s *stream) put(p []byte) (n int, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.ended || s.mu.broken {
		return 0, nil, io.ErrClosedPipe
	}
	n = min(len(p), s.size-len(s.mu.buf))
	if n == 0 {
		return 0, s.mu.changed, nil
	}
	s.mu.buf = append(s.mu.buf, p[:n]...)
	s.wake()
	return n, nil, nil
}

// end lets nothing more be written; what is in the buffer can still be read.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ended = true
	s.wake()
}

// breakOff forgets the buffer; writers get an error.
func (s *stream) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.broken, s.mu.buf = true, nil
	s.wake()
}

// Unread is how many bytes this end has written that the other has not read.
func (e *PipeEnd) Unread() int {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	return len(e.out.mu.buf)
}

// Read implements net.Conn.
func (e *PipeEnd) Read(p []byte) (int, error) {
	for {
		if err := e.usable(e.read); err != nil {
			return 0, err
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, wait, err := e.in.get(p)
		if n > 0 || err != nil {
			return n, err
		}
		e.wait(wait, e.read)
	}
}

// Write implements net.Conn.
func (e *PipeEnd) Write(p []byte) (int, error) {
	done := 0
	for {
		if err := e.usable(e.write); err != nil {
			return done, err
		}
		if done == len(p) {
			return done, nil
		}
		n, wait, err := e.out.put(p[done:])
		done += n
		if err != nil {
			return done, err
		}
		if n == 0 {
			e.wait(wait, e.write)
		}
	}
}

// usable is the error of an end that is closed or late.
func (e *PipeEnd) usable(d *deadline) error {
	select {
	case <-e.closed:
		return net.ErrClosed
	default:
		return d.err()
	}
}

// wait returns when something happens that a read or write should look at.
func (e *PipeEnd) wait(changed <-chan struct{}, d *deadline) {
	select {
	case <-changed:
	case <-d.passed():
	case <-e.closed:
	}
}

// Close implements net.Conn: the other end reads what was written and then io.EOF.
func (e *PipeEnd) Close() error {
	err := os.ErrClosed
	e.once.Do(func() {
		close(e.closed)
		e.out.end()
		e.in.breakOff()
		err = nil
	})
	return err
}

// CloseWrite ends this end's direction and leaves the other open.
func (e *PipeEnd) CloseWrite() error {
	e.out.end()
	return nil
}

// LocalAddr implements net.Conn.
func (e *PipeEnd) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr implements net.Conn.
func (e *PipeEnd) RemoteAddr() net.Addr { return pipeAddr{} }

// SetDeadline implements net.Conn.
func (e *PipeEnd) SetDeadline(t time.Time) error {
	e.read.set(t)
	e.write.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (e *PipeEnd) SetReadDeadline(t time.Time) error {
	e.read.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (e *PipeEnd) SetWriteDeadline(t time.Time) error {
	e.write.set(t)
	return nil
}

// pipeAddr is the address of both ends.
type pipeAddr struct{}

// Network implements net.Addr.
func (pipeAddr) Network() string { return "pipe" }

// String implements net.Addr.
func (pipeAddr) String() string { return "pipe" }
