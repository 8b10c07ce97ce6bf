package proxy

import (
	"errors"
	"runtime"
	"runtime/debug"
	"time"
)

// A client that is silent costs what its session keeps, and what its goroutine keeps: a stack that is several times as large.
// So a session that holds nothing and waits for its client for a while gives its goroutine up: its link is parked, and
// the first byte, or whoever ends the session, starts another goroutine that goes on where it was.
//
// Only the timekeeper sees who has waited for a while. It asks by a deadline that is over, which a session must expect
// where it finds it: so the session says that it may be asked, and who asks and who stops waiting meet in timing.parks.
const (
	parksNot   uint32 = iota // it must not be asked
	parksMay                 // it waits and may be asked
	parksOnce                // somebody is about to set the deadline
	parksAsked               // the deadline is set
)

// How many sessions are asked at a time, since they all run for a moment then, and after what time the next ones are.
const (
	maxParked = 500
	parkAgain = 50 * time.Millisecond
)

// silenced counts the sessions that were asked since memory was given back. The runtime keeps what the collector may need next,
// which is a lot where many clients were busy and are silent now.
type silenced struct {
	sessions int
	back     int64  // health.Clock() when memory was given back
	giveBack func() // nil: debug.FreeOSMemory
}

// Memory is given back when so many sessions have fallen silent, and not again for a while: it costs a collection.
const (
	manySilent    = 200
	giveBackAgain = time.Minute
)

// add counts sessions. When no more than that were found memory is given back a moment later, when their goroutines are gone.
func (c *silenced) add(n int, now int64) {
	c.sessions += n
	if n == maxParked || c.sessions < manySilent || c.back != 0 && now-c.back < int64(giveBackAgain) {
		return
	}
	c.sessions, c.back = 0, now
	giveBack := c.giveBack
	if giveBack == nil {
		giveBack = debug.FreeOSMemory
	}
	time.AfterFunc(parkAgain, giveBack)
}

// errParks says that a session may be parked.
var errParks = errors.New("client is silent")

// fillParking waits for more bytes of the client. The error is errParks where the session may go on without a goroutine.
func (s *session) fillParking() error {
	if s.work != nil || s.holdsAny() || !s.client.Parkable() {
		return s.client.Fill()
	}
	p := &s.timing.parks
	p.Store(parksMay)
	err := s.client.Fill()
	if p.CompareAndSwap(parksMay, parksNot) {
		return err
	}
	for p.Load() != parksAsked {
		runtime.Gosched()
	}
	p.Store(parksNot)
	if e := s.noDeadline(); e != nil {
		return e
	}
	if isTimeout(err) && !s.isWanted() {
		return errParks
	}
	return err
}

// noDeadline takes a deadline of ours from the client's link. One that somebody else has set meanwhile, who wants the session to
// look, goes with it, and so it is set again.
func (s *session) noDeadline() error {
	err := s.client.SetReadDeadline(time.Time{})
	if s.ctx.Err() != nil || !s.inDuplex && s.srv.isDraining() { // a duplex exchange goes on to its end
		_ = s.client.SetReadDeadline(past)
	}
	return err
}

// holdsAny says whether the session has a lease.
func (s *session) holdsAny() bool {
	for _, l := range s.leases {
		if l != nil {
			return true
		}
	}
	return false
}

// isWanted says whether the session is to end, or to look whether it should.
func (s *session) isWanted() bool { return s.ctx.Err() != nil || s.srv.isDraining() }

// mayPark says whether the session has been silent for so long that it is worth asking.
func (s *session) mayPark(now int64) bool {
	t := &s.timing
	if t.parks.Load() != parksMay {
		return false
	}
	word, after := t.word.Load(), t.times.Load().Park
	return after > 0 && word&(doesMask|bitEnds) == doesIdle && now-int64(word&clockMask) > int64(after)
}

// askToPark wakes the session if it still waits.
func (s *session) askToPark() {
	if p := &s.timing.parks; p.CompareAndSwap(parksMay, parksOnce) {
		_ = s.client.SetReadDeadline(past)
		p.Store(parksAsked)
	}
}

// park leaves a session without a goroutine until Resume; false where its link cannot be parked.
func (srv *Server) park(s *session) bool {
	srv.conns.Add(1)
	if !srv.lot.Park(s.client, s) {
		srv.conns.Done()
		return false
	}
	// From here on another goroutine may run it.
	if s.isWanted() {
		srv.lot.Wake(s.client)
	}
	return true
}

// Resume goes on with a session that was parked.
func (s *session) Resume() {
	go func() {
		defer s.srv.conns.Done()
		s.srv.goesOn(s)
	}()
}
