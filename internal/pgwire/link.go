package pgwire

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Sizes of a Link's read buffer in bytes. A link that is idle holds none; the first read takes
// a small one from a pool, and a read that fills it is followed by a large one.
const (
	smallBuffer = 8 << 10
	largeBuffer = 64 << 10
	idleBuffer  = 256 // what a link without the raw engine keeps to wait with
)

// buffers lends read buffers of the two sizes.
type buffers struct{ small, large sync.Pool }

var pooled = &buffers{
	small: sync.Pool{New: func() any { return new([smallBuffer]byte) }},
	large: sync.Pool{New: func() any { return new([largeBuffer]byte) }},
}

// A MessageTooLong says that the peer announced a message longer than the reader would take.
type MessageTooLong struct {
	Type byte
	Size int // bytes of the body
	Max  int
}

func (e *MessageTooLong) Error() string {
	return fmt.Sprintf("message %q of %d bytes is longer than the %d allowed", e.Type, e.Size, e.Max)
}

// Link is one end of a protocol conversation: a socket and the bytes read from it that nobody
// has used yet. It is the only way in which the proxy touches a socket.
//
// One goroutine may read and another may write at the same time; the reader owns everything
// about the buffer (Buffered, Fill, Discard, ReadMessage, Exchange), the writer only Write.
// Exchange does both and may run only while nobody else writes. Close and the deadlines may be
// called from anywhere.
//
// On Linux a plain TCP or Unix socket is read and written with non-blocking system calls inside
// the runtime's poller callbacks: no read is tried that is bound to find nothing, and no
// system call hands the processor to the scheduler. Everything else goes through net.Conn.
type Link struct {
	conn net.Conn
	raw  syscall.RawConn // nil: through conn

	buf   []byte // nil while idle; buf[r:w] is unread
	r, w  int
	grow  bool // the last read filled the buffer
	small *[smallBuffer]byte
	large *[largeBuffer]byte
	idle  *[idleBuffer]byte // only without the raw engine

	read, written uint64 // bytes since the Link was made; the reader's and the writer's

	// State of the poller callbacks, which are bound once so that no call allocates.
	onRead  func(fd uintptr) bool
	onWrite func(fd uintptr) bool
	readErr error
	request []byte // Exchange: to be written before the first wait
	sent    bool   // the request was handed to the kernel whole
	listed  bool   // the Lot knows the socket
	out     []byte
	outErr  error

	lot    atomic.Pointer[Lot] // in which it is parked; nil: in none
	ticket uint64              // of the last time that it was, under the Lot's lock
}

// NewLink takes over c: from here on only the Link reads from it, writes to it and closes it.
func NewLink(c net.Conn) *Link {
	l := &Link{conn: c}
	l.attach()
	return l
}

// attach chooses the engine for the present socket.
func (l *Link) attach() {
	l.raw = rawConn(l.conn)
	if l.raw == nil {
		l.onRead, l.onWrite = nil, nil
		return
	}
	l.onRead, l.onWrite = l.readReady, l.writeReady
}

// Conn is the socket, for its addresses and TLS state only.
func (l *Link) Conn() net.Conn { return l.conn }

// StartTLS replaces the socket by c, which speaks TLS over it. The caller has made sure that
// nothing was buffered before the handshake: bytes that came in the clear must never be read as if they had
// come through the tunnel.
func (l *Link) StartTLS(c net.Conn) {
	if l.w > l.r {
		panic("BUG: StartTLS with plaintext in the buffer")
	}
	l.conn = c
	l.attach()
}

// Buffered returns the bytes that were read and not yet discarded. The slice is valid until the
// next Fill, Exchange, ReadMessage or Discard.
func (l *Link) Buffered() []byte { return l.buf[l.r:l.w] }

// Received is how many bytes Fill has read since the Link was made. It belongs to the reader.
func (l *Link) Received() uint64 { return l.read }

// Written is how many bytes were given to Write. It belongs to the writer.
func (l *Link) Written() uint64 { return l.written }

// Discard drops the first n buffered bytes.
func (l *Link) Discard(n int) {
	l.r += n
	if l.r > l.w {
		panic("BUG: Discard of bytes that were not read")
	}
	if l.r == l.w {
		l.r, l.w = 0, 0
	}
}

// Fill waits until at least one more byte stands behind what is buffered, and returns the
// socket's error otherwise (io.EOF at the end of the stream, os.ErrDeadlineExceeded after a
// deadline: then nothing was lost and Fill may be called again). It grows the buffer as needed, so
// the caller bounds how much it lets stand there.
func (l *Link) Fill() error {
	if l.raw == nil {
		return l.fillConn()
	}
	l.readErr = nil
	if err := l.raw.Read(l.onRead); err != nil {
		return err
	}
	return l.readErr
}

// Exchange writes p whole and then waits as Fill does. It is the fast way to ask a question:
// the request goes out when the wait for the answer has begun, so the goroutine parks once.
// Sent says afterwards whether all of p was handed to the kernel.
func (l *Link) Exchange(p []byte) error {
	l.sent = false
	if l.raw == nil {
		if err := l.Write(p); err != nil {
			return err
		}
		l.sent = true
		return l.Fill()
	}
	l.readErr, l.request = nil, p
	err := l.raw.Read(l.onRead)
	rest := l.request
	l.request = nil
	if err != nil {
		return err
	}
	if l.readErr != nil || rest == nil {
		return l.readErr
	}
	// The socket did not take all of the request at once.
	if err := l.Write(rest); err != nil {
		return err
	}
	l.sent = true
	return l.Fill()
}

// Sent says whether the last Exchange handed its whole request to the kernel.
func (l *Link) Sent() bool { return l.sent }

// readReady is the poller's callback of Fill and Exchange: false parks until the socket is readable.
func (l *Link) readReady(fd uintptr) bool {
	if l.request != nil {
		n, errno := rawWrite(fd, l.request)
		switch {
		case errno == 0 && n == len(l.request):
			l.request, l.sent = nil, true
			return false
		case errno == 0:
			l.request = l.request[n:]
		case errno == syscall.EAGAIN:
		default:
			l.readErr = &net.OpError{Op: "write", Net: "tcp", Err: errno}
		}
		return true
	}
	l.room()
	n, errno := rawRead(fd, l.buf[l.w:])
	switch {
	case errno == 0 && n > 0:
		l.grow = n == len(l.buf)-l.w
		l.w += n
		l.read += uint64(n)
		return true
	case errno == 0:
		l.readErr = io.EOF
	case errno == syscall.EAGAIN:
		l.release()
		return false
	default:
		l.readErr = &net.OpError{Op: "read", Net: "tcp", Err: errno}
	}
	l.release()
	return true
}

// fillConn is Fill through net.Conn.
func (l *Link) fillConn() error {
	if l.r == l.w {
		l.release()
		if l.idle == nil {
			l.idle = new([idleBuffer]byte)
		}
		n, err := l.conn.Read(l.idle[:])
		if n > 0 {
			l.room()
			l.w = copy(l.buf, l.idle[:n])
			l.read += uint64(n)
			return nil
		}
		return noProgress(err)
	}
	l.room()
	n, err := l.conn.Read(l.buf[l.w:])
	if n > 0 {
		l.grow = n == len(l.buf)-l.w
		l.w += n
		l.read += uint64(n)
		return nil
	}
	return noProgress(err)
}

// noProgress turns a read of nothing without an error into one.
func noProgress(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// room makes sure that there is space behind the buffered bytes.
func (l *Link) room() {
	switch {
	case l.buf == nil && l.grow:
		l.large = pooled.large.Get().(*[largeBuffer]byte)
		l.buf = l.large[:]
	case l.buf == nil:
		l.small = pooled.small.Get().(*[smallBuffer]byte)
		l.buf = l.small[:]
	case l.grow && l.r == l.w && l.small != nil:
		l.replace(0)
	}
	if l.w < len(l.buf) {
		return
	}
	if l.r > 0 && l.r >= len(l.buf)/2 {
		l.w = copy(l.buf, l.buf[l.r:l.w])
		l.r = 0
		return
	}
	l.replace(2 * len(l.buf))
}

// replace moves the unread bytes into a larger buffer of at least size bytes.
func (l *Link) replace(size int) {
	unread := l.buf[l.r:l.w]
	small, large := l.small, l.large
	l.small, l.large = nil, nil
	if size <= largeBuffer {
		l.large = pooled.large.Get().(*[largeBuffer]byte)
		l.buf = l.large[:]
	} else {
		l.buf = make([]byte, size)
	}
	l.r, l.w = 0, copy(l.buf, unread)
	giveBack(small, large)
}

// Rest gives the read buffer back when nothing is in it: the link will be idle for a while.
func (l *Link) Rest() { l.release() }

// release gives the buffer back when nothing is in it.
func (l *Link) release() {
	if l.r != l.w || l.buf == nil {
		return
	}
	giveBack(l.small, l.large)
	l.buf, l.small, l.large, l.r, l.w, l.grow = nil, nil, nil, 0, 0, false
}

// giveBack returns pooled buffers.
func giveBack(small *[smallBuffer]byte, large *[largeBuffer]byte) {
	if small != nil {
		pooled.small.Put(small)
	}
	if large != nil {
		pooled.large.Put(large)
	}
}

// Quiet is what a look at an idle socket finds.
type Quiet uint8

// What a look at a socket finds.
const (
	QuietYes  Quiet = iota // nothing to read
	QuietData              // the peer has said something
	QuietDead              // the stream has ended or broken
)

// Look looks at the socket without waiting and without reading anything. Without the raw engine it
// can only say that all is quiet.
func (l *Link) Look() Quiet {
	if l.w > l.r {
		return QuietData
	}
	if l.raw == nil {
		return QuietYes
	}
	found := QuietDead
	if err := l.raw.Control(func(fd uintptr) { found = rawLook(fd) }); err != nil {
		return QuietDead
	}
	return found
}

// Gone says whether the peer has closed its side of the stream or the stream is broken, whatever is still to be read.
// Unlike the other methods it may be called at any time, by anybody. It never knows on systems without the raw
// engine.
func (l *Link) Gone() bool {
	conn := l.conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	raw := rawConn(conn)
	if raw == nil {
		return false
	}
	gone := false
	if err := raw.Control(func(fd uintptr) { gone = rawGone(fd) }); err != nil {
		return true
	}
	return gone
}

// ReadMessage waits for one whole message and returns its type and body; the body is valid
// until the next call of any reading method. A length that no message can have is a *ProtocolError, one
// above max bytes a *MessageTooLong, and the stream is of no use after either.
func (l *Link) ReadMessage(maxBody int) (byte, []byte, error) {
	for {
		b := l.Buffered()
		if len(b) >= HeaderSize {
			typ, n, err := ParseHeader(b)
			if err != nil {
				return 0, nil, err
			}
			if n > maxBody {
				return 0, nil, &MessageTooLong{Type: typ, Size: n, Max: maxBody}
			}
			if len(b) >= HeaderSize+n {
				body := b[HeaderSize : HeaderSize+n : HeaderSize+n]
				l.r += HeaderSize + n // not Discard: an empty buffer may be given back only by the next read
				return typ, body, nil
			}
		}
		if err := l.Fill(); err != nil {
			return 0, nil, err
		}
	}
}

// Write sends p whole, or returns an error after which nothing more can be sent.
func (l *Link) Write(p []byte) error {
	l.written += uint64(len(p))
	if l.raw == nil {
		_, err := l.conn.Write(p)
		return err
	}
	l.out, l.outErr = p, nil
	err := l.raw.Write(l.onWrite)
	l.out = nil
	if err != nil {
		return err
	}
	return l.outErr
}

// writeReady is the poller's callback of Write: false parks until the socket takes more.
func (l *Link) writeReady(fd uintptr) bool {
	for len(l.out) > 0 {
		n, errno := rawWrite(fd, l.out)
		if errno == syscall.EAGAIN {
			return false
		}
		if errno != 0 {
			l.outErr = &net.OpError{Op: "write", Net: "tcp", Err: errno}
			return true
		}
		l.out = l.out[n:]
	}
	return true
}

// SetDeadline, SetReadDeadline and SetWriteDeadline bound waits as those of net.Conn do; a
// deadline in the past wakes a waiting Fill or Write of another goroutine. One for reading that is set on a parked link resumes it.
func (l *Link) SetDeadline(t time.Time) error {
	err := l.conn.SetDeadline(t)
	l.unpark()
	return err
}

// SetReadDeadline bounds Fill, Exchange and ReadMessage.
func (l *Link) SetReadDeadline(t time.Time) error {
	err := l.conn.SetReadDeadline(t)
	l.unpark()
	return err
}

// SetWriteDeadline bounds Write and Exchange.
func (l *Link) SetWriteDeadline(t time.Time) error { return l.conn.SetWriteDeadline(t) }

// Close closes the socket; a Fill or Write that waits returns net.ErrClosed.
func (l *Link) Close() error {
	err := l.conn.Close()
	l.unpark()
	return err
}

// Parkable says whether a Lot may take the link: it has a socket of its own on a system that can wait for many.
func (l *Link) Parkable() bool { return l.raw != nil }

// unpark resumes the link if it is parked.
func (l *Link) unpark() {
	if lot := l.lot.Load(); lot != nil {
		lot.Wake(l)
	}
}
