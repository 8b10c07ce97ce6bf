package proxy

import (
	"time"

	"pgweir/health"
)

// hold waits for a primary, up to hold.timeout from the first wait of this chunk. nil: there
// may be one, decide again.
func (s *session) hold(try *attempt) *problem {
	now := health.Clock()
	if try.holdEnd == 0 {
		try.holdEnd = now + int64(s.holdLimit())
	}
	place := s.srv.holds.enter()
	defer s.srv.holds.leave(place)
	s.cluster.held.Add(1)
	defer s.cluster.held.Add(-1)
	s.cluster.metrics.held.Inc()
	defer s.cluster.metrics.held.Dec()
	began := time.Now()
	waits := s.figures.waits()
	defer func() {
		try.held += time.Since(began)
		s.figures.served(waits)
	}()
	timer := time.NewTimer(time.Duration(try.holdEnd - now))
	defer timer.Stop()
	for {
		changed := s.cluster.Monitor.Changed()
		snap := s.cluster.Monitor.Snapshot()
		if snap.Primary != nil && snap.Primary.Trusted(health.Clock()) {
			s.cluster.metrics.holdReleased.Observe(time.Since(began).Seconds())
			return nil
		}
		select {
		case <-changed:
		case <-place.evicted:
			return s.problemNoPrimary(0)
		case <-s.canceled:
			return problemCanceled()
		case <-timer.C:
			s.cluster.metrics.holdTimeout.Observe(time.Since(began).Seconds())
			if s.heldForTimeout() {
				return problemStatementTimeout()
			}
			return s.problemNoPrimary(try.held + time.Since(began))
		case <-s.ctx.Done():
			return s.ended()
		}
	}
}

// drained throws away a cancel that came before there was anything to cancel.
func drained(canceled chan struct{}) {
	select {
	case <-canceled:
	default:
	}
}

// holdLimit is how long a statement may be held: hold.timeout, or the client's statement_timeout
// when that is shorter.
func (s *session) holdLimit() time.Duration {
	limit := s.target.HoldTimeout
	if t := s.statementTimeout(); t > 0 && t < limit {
		return t
	}
	return limit
}

// heldForTimeout says whether it is the client's statement_timeout that ends a hold.
func (s *session) heldForTimeout() bool {
	t := s.statementTimeout()
	return t > 0 && t <= s.target.HoldTimeout
}

// holdAfter waits a little after a primary that is believed to be alive could not be reached: the
// monitor has been told and will know more soon.
func (s *session) holdAfter(try *attempt, cause error) *problem {
	now := health.Clock()
	if try.holdEnd == 0 {
		try.holdEnd = now + int64(s.holdLimit())
	}
	if now >= try.holdEnd {
		return s.problemUnreachable(cause)
	}
	timer := time.NewTimer(min(reconnectPause, time.Duration(try.holdEnd-now)))
	defer timer.Stop()
	select {
	case <-s.cluster.Monitor.Changed():
	case <-timer.C:
	case <-s.ctx.Done():
		return s.ended()
	}
	return nil
}

// reconnectPause is the wait between two tries to reach a primary that the monitor still believes in.
const reconnectPause = 50 * time.Millisecond
