package proxy

import (
	"errors"
	"io"
	"sync"
	"time"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// duplex carries a batch or a COPY of any length: this goroutine sends what the client sends,
// another one forwards what the node answers, and neither waits for the other, so both
// directions may be full at once. It returns when the node owes nothing more and the client has ended the
// batch. first is what goes out before anything else is read; c is the chunk it belongs to,
// of which c.rest bytes are still to come.
func (s *session) duplex(c *chunk, l *lease, first []byte) error {
	r := s.relaying()
	d := &duplex{s: s, c: c, l: l, unit: c.unit, down: make(chan error, 1)}
	if r.events == nil {
		r.events = make(chan struct{}, 1)
	}
	simple := c.end == endQuery || c.end == endFunction
	if c.rest > 0 || !simple {
		r.open = !simple && c.end != endSync
	}
	s.inDuplex, r.duplex = true, true
	var wg sync.WaitGroup
	wg.Go(func() {
		err := r.run()
		// The result is there before the sender is woken: it looks for it after each reset of
		// the deadline.
		d.down <- err
		if err != nil || r.clientErr != nil || r.fatal != nil {
			_ = s.client.SetReadDeadline(past)
			_ = l.conn.Link.SetWriteDeadline(past)
		}
	})
	up := d.send(first)
	if up != nil && !d.ended {
		// The client is gone, or the node takes nothing more: nothing is left to be relayed.
		if errors.Is(up, errClientSide) {
			_ = l.conn.Link.Close()
		} else {
			_ = l.conn.Link.SetReadDeadline(time.Now().Add(lastWords))
		}
	}
	if !d.ended {
		d.downErr = <-d.down
	}
	wg.Wait()
	s.inDuplex = false
	_ = s.noDeadline()
	_ = l.conn.Link.SetWriteDeadline(time.Time{})
	r.open = false
	if errors.Is(up, errClientSide) && r.clientErr == nil && d.downErr != nil {
		r.clientErr = up
	}
	if d.downErr != nil {
		return d.downErr
	}
	if up != nil && !d.ended && r.clientErr == nil && r.fatal == nil {
		if errors.Is(up, errClientSide) {
			r.clientErr = up
			return nil
		}
		return up
	}
	return nil
}

// lastWords is how long a node that takes nothing more may still say why.
const lastWords = 2 * time.Second

// errClientSide marks an error of the client's link.
var errClientSide = errors.New("client")

// duplex is the sending side of one duplex exchange.
type duplex struct {
	s       *session
	c       *chunk
	l       *lease
	unit    *router.Unit // of all chunks so far
	down    chan error
	ended   bool // down has returned
	downErr error
}

// over says whether the relay has returned.
func (d *duplex) over() bool {
	if d.ended {
		return true
	}
	select {
	case d.downErr = <-d.down:
		d.ended = true
	default:
	}
	return d.ended
}

// send is the client's direction: the rest of the first chunk, copy data while the node asks for it,
// further chunks until the batch ends. nil: all was sent, the relay ends by itself.
func (d *duplex) send(first []byte) error {
	s, r := d.s, &d.s.relay
	if len(first) > 0 {
		if err := d.l.conn.Link.Write(first); err != nil {
			return err
		}
		s.client.Discard(d.c.n)
		d.c.n = 0
	}
	if err := d.passRest(); err != nil {
		return err
	}
	for {
		r.mu.Lock()
		copyIn, open := r.copyIn, r.open
		r.mu.Unlock()
		switch {
		case copyIn:
			if err := d.copyIn(); err != nil || d.ended {
				return err
			}
		case open:
			if err := d.next(); err != nil || d.ended {
				return err
			}
		default:
			// All was sent. A COPY may still be asked for: a query string can hold several.
			select {
			case <-r.events:
			case d.downErr = <-d.down:
				d.ended = true
				return nil
			}
		}
	}
}

// passRest forwards the rest of a long message.
func (d *duplex) passRest() error {
	for d.c.rest > 0 {
		b := d.s.client.Buffered()
		if len(b) == 0 {
			if err := d.fill(); err != nil || d.ended {
				return err
			}
			continue
		}
		n := min(d.c.rest, len(b))
		if err := d.l.conn.Link.Write(b[:n]); err != nil {
			return err
		}
		d.s.client.Discard(n)
		d.c.rest -= n
	}
	return nil
}

// fill waits for more bytes of the client. An error of the client's link is marked; when the
// relay has ended meanwhile, ended is set and there is no error.
func (d *duplex) fill() error {
	stops := false
	for {
		if d.over() {
			return nil
		}
		err := d.s.client.Fill()
		if err == nil || d.over() {
			return nil
		}
		if isTimeout(err) && d.s.ctx.Err() == nil && !stops && d.s.srv.isDraining() {
			// The server stops: the batch goes on to its end. Whoever sets the deadline from here on has another reason.
			stops = true
			_ = d.s.noDeadline()
			continue
		}
		return d.interrupted(err)
	}
}

// interrupted is what fill makes of an error of the client's link.
func (d *duplex) interrupted(err error) error {
	if isTimeout(err) && d.s.ctx.Err() == nil {
		d.downErr = <-d.down
		d.ended = true
		return nil
	}
	return errors.Join(errClientSide, err)
}

// copyIn forwards copy data until the client ends it or the node has given up.
func (d *duplex) copyIn() error {
	s, r := d.s, &d.s.relay
	for {
		b := s.client.Buffered()
		n, last, err := copyRun(b)
		if err != nil {
			return errors.Join(errClientSide, err)
		}
		if n == 0 && len(b) < pgwire.HeaderSize {
			if err := d.fill(); err != nil || d.over() {
				return err
			}
			continue
		}
		r.mu.Lock()
		over := !r.copyIn
		if !over && last != 0 && d.c.end == endQuery {
			r.copyIn = false
		}
		if !over && (last == pgwire.MsgCopyDone || last == pgwire.MsgCopyFail) && d.c.end != endQuery {
			// In the extended protocol the Sync is still to come.
			r.copyIn, r.open = false, true
			d.c.end = endOpen
		}
		r.mu.Unlock()
		if over || d.over() {
			return nil
		}
		if n == 0 { // a message that has no place here: the node says what it thinks of it
			n = min(len(b), messageSize(b))
			d.c.rest = messageSize(b) - n
		} else if n > len(b) {
			d.c.rest, n = n-len(b), len(b)
		}
		if err := d.l.conn.Link.Write(b[:n]); err != nil {
			return err
		}
		s.client.Discard(n)
		if err := d.passRest(); err != nil || last != 0 || d.ended {
			return err
		}
	}
}

// messageSize is the whole size of the message that b begins with.
func messageSize(b []byte) int {
	_, n, err := pgwire.ParseHeader(b)
	if err != nil {
		return len(b)
	}
	return pgwire.HeaderSize + n
}

// copyRun finds how many bytes of b are messages that a COPY FROM STDIN takes, up to the one that
// ends it; n may exceed len(b) by what is missing of the last. last is the ending message's type.
func copyRun(b []byte) (n int, last byte, err error) {
	for n < len(b) {
		typ, size, err := pgwire.ParseHeader(b[n:])
		if errors.Is(err, io.ErrShortBuffer) {
			return n, 0, nil
		}
		if limit, ok := pgwire.ClientLimit(typ); !ok {
			return n, 0, pgwire.UnexpectedClientMessage(typ)
		} else if err != nil || size > limit {
			return n, 0, pgwire.ErrMessageLength
		}
		switch typ {
		case pgwire.MsgCopyData, pgwire.MsgSync, pgwire.MsgFlush:
		case pgwire.MsgCopyDone, pgwire.MsgCopyFail:
			return n + pgwire.HeaderSize + size, typ, nil
		default:
			return n, 0, nil
		}
		n += pgwire.HeaderSize + size
	}
	return n, 0, nil
}

// next collects and sends one more chunk of the batch. Its relay goes on meanwhile.
func (d *duplex) next() error {
	s, r := d.s, &d.s.relay
	for len(s.client.Buffered()) == 0 {
		if err := d.fill(); err != nil || d.over() {
			return err
		}
		r.mu.Lock()
		copyIn := r.copyIn
		r.mu.Unlock()
		if copyIn {
			return nil
		}
	}
	if err := s.collectMeasured(true); err != nil {
		if d.over() {
			return nil
		}
		return errors.Join(errClientSide, err)
	}
	r.mu.Lock()
	if r.copyIn {
		r.mu.Unlock()
		return nil
	}
	d.c = &s.chunk
	if err := s.parse(d.c); err != nil {
		r.mu.Unlock()
		return errors.Join(errClientSide, err)
	}
	s.join(d.c, d.unit) // what the batch as a whole may have done is settled at its end
	d.unit = d.c.unit
	out := s.compose(d.c, d.l, r)
	if d.c.end == endSync || d.c.end == endQuery || d.c.end == endFunction || d.c.end == endTerminate {
		r.open = false
	}
	r.mu.Unlock()
	if err := d.l.conn.Link.Write(out); err != nil {
		return err
	}
	s.client.Discard(d.c.n)
	d.c.n = 0
	if d.c.end == endTerminate {
		return errors.Join(errClientSide, errTerminate)
	}
	return d.passRest()
}
