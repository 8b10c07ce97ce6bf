package proxy

import (
	"bytes"
	"context"
	"strconv"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// signalRoutine is the part of a node's warning that says which of its functions has found no such process.
var signalRoutine = []byte("Rpg_signal_backend\x00")

// signals takes a node's warning that a process id is none of its own. Where it is the one that a session of ours was
// given, what pg_cancel_backend or pg_terminate_backend was called for is done to that session, a cancel once the lock is free
// (pass), and its next row says so. The relay's lock is held.
func (r *relay) signals(body []byte) bool {
	const both = router.FlagCancels | router.FlagTerminates
	e := r.front()
	if e == nil || e.unit == nil || e.unit.Flags&both == 0 || e.unit.Flags&both == both || !bytes.Contains(body, signalRoutine) {
		return false
	}
	v, err := pgwire.ErrorFields(body)
	if err != nil {
		return false
	}
	s := r.s.srv.keys.session(firstNumber(v.Message))
	if s == nil || s.cluster != r.s.cluster || !r.s.maySignal(s) {
		return false
	}
	if e.unit.Flags&router.FlagTerminates != 0 {
		r.s.srv.terminate(s)
	} else {
		r.cancels = append(r.cancels, s)
	}
	r.signaled = true
	return true
}

// pass cancels what runs for the sessions that the last messages were about.
func (r *relay) pass() {
	for _, s := range r.cancels {
		r.s.srv.cancelRunning(r.s.ctx, s)
	}
	r.cancels = nil
}

// maySignal says whether the session may end another, as a node judges it.
func (s *session) maySignal(other *session) bool {
	return s.catalog != nil && s.catalog.MaySignal(s.role(), other.user)
}

// succeed makes a row of one false value one of a true one.
func succeed(row []byte) {
	if len(row) != 7 || !bytes.Equal(row[:6], []byte{0, 1, 0, 0, 0, 1}) {
		return
	}
	switch row[6] {
	case 'f':
		row[6] = 't'
	case 0:
		row[6] = 1
	}
}

// firstNumber is the first number in a text, 0 when there is none.
func firstNumber(text []byte) uint32 {
	isDigit := func(c rune) bool { return c >= '0' && c <= '9' }
	begin := bytes.IndexFunc(text, isDigit)
	if begin < 0 {
		return 0
	}
	text = text[begin:]
	if end := bytes.IndexFunc(text, func(c rune) bool { return !isDigit(c) }); end >= 0 {
		text = text[:end]
	}
	n, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// terminate ends a session as pg_terminate_backend does a process. It does not wait for its end.
func (srv *Server) terminate(s *session) {
	for {
		word := s.timing.word.Load()
		if word&doesMask == doesNothing || word&bitEnds != 0 {
			return
		}
		if s.timing.word.CompareAndSwap(word, word|bitEnds) {
			break
		}
	}
	s.cancel(errKilled)
	srv.timekeeper.call()
}

// cancelRunning cancels what runs for a session, or waits to. It returns when the node has taken note.
func (srv *Server) cancelRunning(ctx context.Context, s *session) {
	for {
		if l := s.running.Load(); l != nil && srv.cancelOn(ctx, s, l) {
			return
		}
		select {
		case s.canceled <- struct{}{}: // a statement that waits for a node is cancelled there
			s.nudge.Now()
		default:
		}
		if s.running.Load() == nil {
			return
		}
		select {
		case <-s.canceled: // it runs by now, and may have looked too early
		default:
			return
		}
	}
}

// cancelOn cancels what runs on a lease, and says whether it did: the session may run something elsewhere by now.
func (srv *Server) cancelOn(ctx context.Context, s *session, l *lease) bool {
	// What runs next on this connection waits until the node has taken note.
	l.cancelling.Lock()
	defer l.cancelling.Unlock()
	if s.running.Load() != l {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, s.target.CancelTimeout)
	defer cancel()
	s.figures.cancels.Add(1)
	defer s.figures.cancels.Add(-1)
	if err := l.conn.Cancel(ctx); err != nil {
		srv.log.Warn("cancel", "cluster", s.cluster.Name, "node", l.node.Name, "error", err)
	}
	return true
}
