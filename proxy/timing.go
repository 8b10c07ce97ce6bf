package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pgweir/health"
)

// Times are the limits of time of a session; 0: none. A client that is over one of them is told so with FATAL, and
// its connection ends.
type Times struct {
	Query           time.Duration // from a unit's arrival to the end of its answer, waits included
	Transaction     time.Duration // from BEGIN, or of a statement without one
	IdleTransaction time.Duration // between two statements of a transaction
	Idle            time.Duration // outside of a transaction
	Life            time.Duration // since the login; the client leaves when it is idle outside of a transaction
	// Check is no limit but how often it is looked whether the client of a statement that runs is still there; after
	// what time first says the session's own client_connection_check_interval.
	Check time.Duration
	// Park is no limit either but how long a client is silent before its session gives its goroutine up.
	Park time.Duration
}

// timeLimit is a limit of time.
type timeLimit uint8

// The limits, in the order in which they are looked at.
const (
	limitNone timeLimit = iota
	limitQuery
	limitTransaction
	limitIdleTransaction
	limitIdle
	limitLife
	timeLimits
)

// String is the limit's name in the configuration; "" for none.
func (l timeLimit) String() string {
	switch l {
	case limitQuery:
		return "query_timeout"
	case limitTransaction:
		return "transaction_timeout"
	case limitIdleTransaction:
		return "idle_transaction_timeout"
	case limitIdle:
		return "client_idle_timeout"
	case limitLife:
		return "client_lifetime"
	}
	return ""
}

// each is every limit with its value, in order.
func (t *Times) each() [timeLimits]time.Duration {
	return [timeLimits]time.Duration{
		limitQuery: t.Query, limitTransaction: t.Transaction, limitIdleTransaction: t.IdleTransaction, limitIdle: t.Idle, limitLife: t.Life,
	}
}

// How often sessions are looked at: a quarter of the shortest limit, within bounds.
const (
	minPause = 10 * time.Millisecond
	maxPause = time.Second
	never    = time.Duration(math.MaxInt64)
)

// pause is how often a session with these limits has to be looked at.
func (t *Times) pause() time.Duration {
	shortest := never
	for _, d := range t.each() {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	pause := never
	for _, d := range [...]time.Duration{t.Check, t.Park} {
		if d > 0 {
			pause = min(pause, max(d, minPause))
		}
	}
	if shortest == never {
		return pause
	}
	return min(max(shortest/4, minPause), maxPause, pause)
}

// What a session does, and since when, is one word: a reading of health.Clock whose low bits are flags. The session
// exchanges it at each change, and whoever ends the session adds bitEnds to the word that he has judged. So one of them
// comes first: a session whose word has changed is not ended for what it did before, and one that is ended
// learns of it before it does anything else.
const (
	doesIdle    uint64 = 1 // waits for its client outside of a transaction
	doesIdleTx  uint64 = 2 // … within one
	doesRun     uint64 = 3 // a unit, until it is answered to its end
	doesMask    uint64 = 3
	bitLeave    uint64 = 4 // it is to leave as soon as it is idle
	bitEnds     uint64 = 8 // it ends; its context tells why, at once
	clockMask   uint64 = ^uint64(15)
	doesNothing uint64 = 0 // its life has not begun, or is over
)

// timing is what a session publishes of its time.
type timing struct {
	word  atomic.Uint64         // what it does
	tx    atomic.Int64          // health.Clock() when the open transaction began; 0: none is open
	times atomic.Pointer[Times] // what holds
	parks atomic.Uint32         // whether it may be parked: see park.go
	check atomic.Int64          // client_connection_check_interval as a time.Duration; 0: off

	// Only of the session's goroutine.
	busy    bool  // a unit runs
	inTx    bool  // tx is set
	leaves  bool  // bitLeave was seen
	settled int64 // health.Clock() at the end of the last answer of a node; 0: taken already

	// Only of those who look at all sessions.
	told  int64  // health.Clock() when its end was decided
	freed *lease // the lease that was closed under it
	shut  bool   // so was its client's socket
}

// starts says that a unit of the client has arrived, or a further part of it. The error ends the session.
func (s *session) starts() error {
	s.began = health.Clock()
	t := &s.timing
	if t.busy {
		return nil
	}
	t.busy = true
	if old := t.word.Swap(uint64(s.began)&clockMask | doesRun); old&(bitEnds|bitLeave) != 0 {
		return s.noticed(old)
	}
	return nil
}

// rests says that what the client sent was answered; within a batch nothing changes. The error ends the session.
func (s *session) rests() error {
	t := &s.timing
	now := t.settled
	t.settled = 0
	if s.batch != nil || s.skipping {
		return nil
	}
	if now == 0 {
		now = health.Clock()
	}
	t.busy = false
	does := doesIdle
	switch {
	case s.st.tx != txIdle:
		does = doesIdleTx
		if !t.inTx {
			t.inTx = true
			t.tx.Store(int64(t.word.Load() & clockMask))
		}
	case t.inTx:
		t.inTx = false
		t.tx.Store(0)
	}
	word := uint64(now)&clockMask | does
	if t.leaves && does == doesIdle {
		word = doesNothing
	}
	old := t.word.Swap(word)
	if old&(bitEnds|bitLeave) != 0 {
		if err := s.noticed(old); err != nil {
			return err
		}
	}
	if !t.leaves || does != doesIdle {
		return nil
	}
	if word != doesNothing && !t.word.CompareAndSwap(word, doesNothing) {
		return s.noticed(bitEnds) // somebody was faster
	}
	s.cluster.closes(limitLife)
	return &overTime{limitLife, t.times.Load().Life}
}

// noticed takes note of what others have added to the word.
func (s *session) noticed(word uint64) error {
	if word&bitEnds != 0 {
		<-s.ctx.Done() // at once: whoever sets the bit says why
		return s.cause()
	}
	s.timing.leaves = true
	return nil
}

// asks runs what is not the client's on a lease and takes the answer: the relay has been told what to expect. Whoever
// ends the session finds the lease meanwhile.
func (s *session) asks(l *lease, out []byte) error {
	s.asking.Store(l)
	defer s.asking.Store(nil)
	if s.ctx.Err() != nil {
		return s.cause()
	}
	if err := l.conn.Link.Exchange(out); err != nil {
		return err
	}
	return s.relaying().run()
}

// overTime is the end of a session that is over a limit of time.
type overTime struct {
	limit timeLimit
	value time.Duration
}

// Error names the limit.
func (e *overTime) Error() string { return fmt.Sprintf("over %s (%s)", e.limit, e.value) }

// look decides whether the session ends, and says so in its word; the limit is none where it does not. It takes no lock and
// waits for nothing.
func (s *session) look(now int64) (timeLimit, time.Duration) {
	t := &s.timing
	word := t.word.Load()
	if word&doesMask == doesNothing || word&bitEnds != 0 {
		return limitNone, 0
	}
	limit, value := s.judge(word, now)
	if life := t.times.Load().Life; limit == limitNone && life > 0 && now-s.figures.since > int64(life) {
		if word&doesMask != doesIdle {
			t.word.CompareAndSwap(word, word|bitLeave) // where it fails the session is about to be looked at anew
			return limitNone, 0
		}
		limit, value = limitLife, life
	}
	if limit == limitNone || !t.word.CompareAndSwap(word, word|bitEnds) {
		return limitNone, 0
	}
	return limit, value
}

// vanished says whether the client of a statement that runs is gone: then nobody needs the answer, and others wait for
// the connection. A node looks likewise, but sees only us. The word is for the caller to exchange.
func (s *session) vanished(now int64) (word uint64, gone bool) {
	t := &s.timing
	word = t.word.Load()
	check := t.check.Load()
	if check <= 0 || word&(doesMask|bitEnds) != doesRun || now-int64(word&clockMask) <= check {
		return word, false
	}
	return word, s.client.Gone()
}

// errVanished ends a session whose client is gone while something runs for it.
var errVanished = errors.New("client is gone")

// judge is the first limit that the session is over by its word, and the limit's value. What it reads behind the word may
// belong to a later one: then the word has changed.
func (s *session) judge(word uint64, now int64) (timeLimit, time.Duration) {
	t, f := &s.timing, &s.figures
	since, times := int64(word&clockMask), t.times.Load()
	var over [timeLimits]bool
	is := func(limit time.Duration, from int64) bool { return limit > 0 && now-from > int64(limit) }
	switch word & doesMask {
	case doesRun:
		over[limitQuery] = is(times.Query, since)
		if t.tx.Load() == 0 && f.waiting.Load() == 0 { // a statement that waits has not begun its transaction
			over[limitTransaction] = is(times.Transaction, max(since, f.got.Load()))
		}
	case doesIdleTx:
		over[limitIdleTransaction] = is(times.IdleTransaction, since)
	case doesIdle:
		over[limitIdle] = is(times.Idle, since)
	}
	if tx := t.tx.Load(); tx != 0 {
		over[limitTransaction] = is(times.Transaction, tx)
	}
	for l, value := range times.each() {
		if over[l] {
			return timeLimit(l), value
		}
	}
	return limitNone, 0
}

// timekeeper looks at all sessions every so often; it sleeps while none has a limit.
type timekeeper struct {
	wake    chan struct{} // buffered for one
	pause   atomic.Int64  // until the next look, at most
	reloads atomic.Uint64 // how often the limits were asked for anew

	silenced silenced // only of the timekeeper's goroutine
}

// newTimekeeper sleeps.
func newTimekeeper() *timekeeper {
	k := &timekeeper{wake: make(chan struct{}, 1)}
	k.pause.Store(int64(never))
	return k
}

// heed makes sure that a session with these limits is looked at in time. Its door has it already.
func (k *timekeeper) heed(t *Times) {
	if want := t.pause(); int64(want) < k.pause.Load() {
		k.call()
	}
}

// call has sessions looked at now.
func (k *timekeeper) call() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run looks at sessions until stop is closed. Cancels on their way to nodes end with ctx.
func (k *timekeeper) run(ctx context.Context, srv *Server, stop <-chan struct{}, wg *sync.WaitGroup) {
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-k.wake:
		case <-timer.C:
		}
		k.pause.Store(int64(never)) // who comes from now on and may be missed wakes us again
		pause := srv.lookAtAll(ctx, wg)
		k.pause.Store(int64(pause))
		timer.Reset(pause)
	}
}

// lookAtAll ends the sessions that are over a limit, and returns when to look again.
func (srv *Server) lookAtAll(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	type ending struct {
		s     *session
		cause error
	}
	var begin []ending
	var again, running, silent []*session
	pause, now := never, health.Clock()
	for _, at := range srv.doors.all() {
		at.mu.Lock()
		for s := range at.mu.sessions {
			pause = min(pause, s.timing.times.Load().pause())
			if s.timing.word.Load()&bitEnds != 0 {
				again = append(again, s)
			} else if limit, value := s.look(now); limit != limitNone {
				s.cluster.closes(limit)
				begin = append(begin, ending{s, &overTime{limit, value}})
			} else if s.timing.times.Load().Check > 0 && s.timing.word.Load()&doesMask == doesRun {
				running = append(running, s)
			} else if len(silent) < maxParked && s.mayPark(now) {
				silent = append(silent, s)
			}
		}
		at.mu.Unlock()
	}
	for _, s := range silent {
		s.askToPark()
	}
	if len(silent) == maxParked {
		pause = parkAgain
	}
	srv.timekeeper.silenced.add(len(silent), now)
	for _, s := range running {
		if word, gone := s.vanished(now); gone && s.timing.word.CompareAndSwap(word, word|bitEnds) {
			begin = append(begin, ending{s, errVanished})
		}
	}
	for _, e := range begin {
		e.s.timing.told = now
		e.s.cancel(e.cause)
		_ = e.s.client.SetWriteDeadline(time.Now().Add(goodbye))
		again = append(again, e.s)
	}
	for _, s := range again {
		srv.rouse(ctx, s, now, wg)
	}
	if len(again) > 0 {
		pause = min(pause, killAgain)
	}
	return pause
}

// rouse wakes a session that is to end, whatever it waits for. It may have to be called again: the session may be setting
// a deadline of its own.
func (srv *Server) rouse(ctx context.Context, s *session, now int64, wg *sync.WaitGroup) {
	t := &s.timing
	if t.told == 0 {
		t.told = now
		_ = s.client.SetWriteDeadline(time.Now().Add(goodbye))
	}
	_ = s.client.SetReadDeadline(past)
	if l := s.occupied(); l != nil && l != t.freed {
		t.freed = l
		wg.Go(func() { srv.stop(ctx, s, l) })
	}
	if !t.shut && now-t.told > int64(killGrace) {
		t.shut = true
		wg.Go(func() { _ = s.client.Close() })
	}
}

// occupied is the lease on which something runs for the session, nil when there is none.
func (s *session) occupied() *lease {
	if l := s.running.Load(); l != nil {
		return l
	}
	return s.asking.Load()
}

// Refresh puts another admission in force for clients that come, and asks Config.Resolve again for the limits of time of those
// that are in.
func (srv *Server) Refresh(a Admission) {
	srv.admission.Store(&a)
	srv.timekeeper.reloads.Add(1)
	for _, at := range srv.doors.all() {
		for _, s := range at.members() {
			srv.retime(s)
		}
	}
}

// retime asks for the limits of one session anew. Where its database is gone from the configuration the old ones stay.
func (srv *Server) retime(s *session) {
	target, err := srv.cfg.Resolve(s.listener, s.target.Entry, s.user)
	if err != nil {
		return
	}
	if target.Times != *s.timing.times.Load() {
		s.timing.times.Store(&target.Times)
		srv.timekeeper.heed(&target.Times)
	}
}

// closes counts a client that is disconnected.
func (c *Cluster) closes(l timeLimit) {
	c.closed[l].Add(1)
	c.metrics.closed[l].Inc()
}

// Closed is how many clients were disconnected because they were over a limit of time.
type Closed struct {
	Limit   string
	Clients int64
}

// Closed is the clients that were disconnected since the process started, for each limit of time.
func (c *Cluster) Closed() []Closed {
	var out []Closed
	for l := limitNone + 1; l < timeLimits; l++ {
		out = append(out, Closed{l.String(), c.closed[l].Load()})
	}
	return out
}

// closedBy resolves the series of the limits of one cluster.
func closedBy(vec *prometheus.CounterVec, cluster string) (c [timeLimits]prometheus.Counter) {
	for l := limitNone + 1; l < timeLimits; l++ {
		c[l] = vec.WithLabelValues(cluster, l.String())
	}
	return c
}
