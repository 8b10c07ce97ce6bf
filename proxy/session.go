package proxy

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"pgweir/health"
	"pgweir/internal/auth"
	"pgweir/internal/catalog"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// session is one client connection from its login to its end. One goroutine runs it; what
// others may touch says so.
type session struct {
	srv     *Server
	client  *pgwire.Link
	ctx     context.Context // the connection's own: it carries the cause of the end to whoever waits on the session's behalf
	cancel  context.CancelCauseFunc
	nudge   *pool.Nudge // for who ends ctx or sends to canceled
	cluster *Cluster
	target  *Target
	// listener is the index of the one that it came in by.
	listener int
	user     string
	keys     *auth.Keys // what logs it in to nodes

	startupParams []pgwire.Param // what every node login of this session starts with
	startupKey    string
	name          given  // the application_name that the client came with, which is no part of them
	nameShown     string // … as nodes show it
	pid           atomic.Uint32
	secret        []byte
	offloaded     bool

	st          state
	base        *base
	params      map[string]string // ParameterStatus values that differ from the base
	reports     []pgwire.Param    // ParameterStatus that came while something of ours ran
	leases      [slots]*lease
	homes       [slots]pool.Home // of the pools that they come from
	last        *lease           // the lease that was used last
	txLease     *lease           // of the open transaction
	batch       *lease           // of the unfinished batch
	left        string           // custom settings whose names the session may have left on its connections (router.JoinNames)
	deferred    deferral
	doubts      []doubtful // what has names that the catalog view does not know yet
	doubtsSince int64      // health.Clock() when the first of them ran
	syncOn      func()     // ends the fence's knowledge of synchronous_commit = off; nil while it is on
	pinShown    router.Pin // what pinned_clients counts this session under
	deadTold    bool       // the client knows of it
	batchFailed bool       // an error was answered in the unfinished batch
	batchLost   bool       // the unfinished batch's lease is gone, and the client does not know yet
	dead        bool       // the open transaction's lease is gone: 25P02 until ROLLBACK
	txWrote     bool
	txSpoke     bool // the open transaction sends notifications
	txDDL       bool // the open transaction changed the catalog
	txOnly      bool // the open transaction has only read and runs on a standby
	turn        bool // which of unnamedPair was made last
	atOnce      bool // the next connection is not to be waited for
	waited      bool // for the last connection that was opened or taken
	inDuplex    bool // another goroutine reads the lease
	draining    bool // the server is stopping
	skipping    bool // an error of ours was answered in a batch: nothing until Sync

	moves deferral // the BEGIN of the open transaction on a standby, while it may begin anew elsewhere

	own ownSettings // pgweir.*

	*work                                // nil while nothing runs: see wake
	supplied               bool          // the lease was given the client's statements ahead of the chunk, as far as it takes them
	careful                bool          // settings were refused that went ahead: they are waited for the next time
	serial                 uint64        // of this session, never used again
	unnamedPair            *[2]statement // nil until there was one
	unnamed                *statement
	named                  map[string]*statement
	portals                map[string]*router.Unit
	portal                 *router.Unit      // the unnamed one
	catalog                *catalog.Database // nil until it was read once
	env                    router.Env
	envOf                  envKey
	idleTimeout            time.Duration
	began                  int64 // health.Clock() when the last statement began
	serializable, readOnly bool  // the session's defaults, as environment last found them
	readCommitted          bool  // likewise
	watch                  watch
	decision               router.Decision // the last one that was answered, for SHOW pgweir.last_route

	canceled chan struct{}         // a cancel that came while no statement ran on a node
	running  atomic.Pointer[lease] // the lease on which a statement runs now; the cancel table reads it
	asking   atomic.Pointer[lease] // … on which something runs that is not the client's
	timing   timing
	torn     bool // the client was sent a part of a message whose end will not come
	door     *door
	figures  figures
}

// deferral is a BEGIN that was answered and not yet sent.
type deferral struct {
	text string // "" when there is none
	mode router.TxMode
	at   int64 // health.Clock() when it was answered

	bound  bool   // it was executed by the extended protocol
	portal string // … as this portal, which stays until the end of the transaction
}

// definition is a prepared statement that a node has made or closed (st nil), or the end of all named ones.
type definition struct {
	name string
	st   *statement
	all  bool
}

// errTerminate ends a session whose client said goodbye.
var errTerminate = errors.New("client said Terminate")

// settlesIn comes before the first run.
func (s *session) settlesIn() {
	s.release() // what the login needed
	s.rest()
	s.timing.word.Store(uint64(health.Clock())&clockMask | doesIdle)
}

// run serves the client until it leaves, something ends the connection or the client has been silent for so long that it may be
// parked. The error is the reason, never nil; it is errParks where run is to be called again.
func (s *session) run() error {
	for {
		err := s.collect(s.batch != nil || s.skipping)
		if err == nil {
			err = s.starts()
		}
		if err == nil {
			err = s.serve()
			s.release()
			s.rest()
			s.shed()
			if err == nil {
				err = s.rests()
			}
		} else if errors.Is(err, errDeferredLong) {
			err = s.beginNow()
		}
		switch {
		case s.ctx.Err() != nil && (s.torn || errors.Is(err, errCutMessage)):
			return &unsaid{s.cause()}
		case s.ctx.Err() != nil:
			return s.cause()
		case isTimeout(err) && s.srv.isDraining():
			// The server is stopping: this session goes on to the end of its transaction.
			s.draining = true
			if err := s.client.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			if s.ctx.Err() != nil {
				return s.cause()
			}
		case err != nil:
			return err
		}
		if s.draining && s.st.tx == txIdle && s.batch == nil && !s.skipping {
			return errDraining
		}
	}
}

// shed lets go of the memory that a long text has left behind.
func (s *session) shed() {
	if s.batch != nil {
		return
	}
	if s.unnamedPair == nil {
		return
	}
	for i := range s.unnamedPair {
		if st := &s.unnamedPair[i]; st != s.unnamed && cap(st.parse) > maxChunk {
			st.parse = nil
		}
	}
}

// serve answers one chunk.
func (s *session) serve() error {
	c := &s.chunk
	switch {
	case s.skipping:
		return s.skip(c)
	case c.end == endTerminate && len(c.items) == 0:
		return errTerminate
	case c.end == endJunk:
		return s.dropJunk(c)
	case len(c.items) == 0 && s.batch == nil && c.end == endFlush:
		s.client.Discard(c.n)
		return nil
	case len(c.items) == 0 && s.batch == nil && c.end == endSync:
		s.client.Discard(c.n)
		return s.client.Write(pgwire.AppendReadyForQuery(nil, byte(s.st.tx)))
	}
	if s.batchLost {
		s.batchLost = false
		return s.refuse(c, s.problemTxLost(c))
	}
	if done, err := s.answer(c); done || err != nil {
		return err
	}
	return s.carry(c)
}

// skip throws a batch away up to its Sync, which gets its ReadyForQuery.
func (s *session) skip(c *chunk) error {
	if c.rest > 0 {
		if err := s.dropRest(c); err != nil {
			return err
		}
	} else {
		s.client.Discard(c.n)
	}
	switch c.end {
	case endSync:
		s.skipping = false
		return s.client.Write(pgwire.AppendReadyForQuery(nil, byte(s.st.tx)))
	case endTerminate:
		return errTerminate
	}
	return nil
}

// dropJunk ignores copy data outside of a COPY, as PostgreSQL does.
func (s *session) dropJunk(c *chunk) error {
	if c.rest > 0 {
		return s.dropRest(c)
	}
	s.client.Discard(c.n)
	return nil
}

// dropRest throws a long message away.
func (s *session) dropRest(c *chunk) error {
	s.client.Discard(c.n)
	for c.rest > 0 {
		if len(s.client.Buffered()) == 0 {
			if err := s.fillClient(); err != nil {
				return err
			}
		}
		n := min(c.rest, len(s.client.Buffered()))
		s.client.Discard(n)
		c.rest -= n
	}
	return nil
}

// carry sends the chunk to a node and forwards the answer, again elsewhere if nobody can notice.
func (s *session) carry(c *chunk) error {
	began := s.began
	drained(s.canceled) // a cancel that came too late for the last statement is not for this one
	try := attempt{now: began}
	if c.unit != nil {
		s.knowsNames(c.unit)
	}
	for {
		if s.ctx.Err() != nil {
			return s.cause()
		}
		l, problem := s.place(c, &try)
		if problem != nil {
			return s.refuse(c, problem)
		}
		if err := s.prepareLease(l, c); err != nil {
			if problem := s.notPrepared(l, err, &try, began); problem != nil {
				return s.refuse(c, problem)
			}
			continue
		}
		if told := s.reportedNow(); told != nil {
			if err := s.client.Write(told); err != nil {
				return err
			}
		}
		p, err := s.readies(c, l)
		if err != nil {
			s.lost(l, err)
			s.giveUp(l)
			if !l.older(began) {
				try.replays++
			}
			if try.replays < 3 && s.st.tx == txIdle {
				continue
			}
			p = problemReplay(err)
		}
		if p != nil {
			return s.refuse(c, p)
		}
		again, err := s.exchange(c, l, &try, began)
		if err != nil || !again {
			return err
		}
	}
}

// notPrepared decides what a lease is worth that could not be brought up to the session's settings: once more
// on a fresh one, then the client hears why. Connections that have died in the pool do not count: there is an end of them.
func (s *session) notPrepared(l *lease, err error, try *attempt, began int64) *problem {
	var refused *errReplay
	s.giveUp(l)
	if s.ctx.Err() != nil {
		return s.ended()
	}
	if s.relaying().clientErr != nil {
		return clientGone(s.relaying().clientErr)
	}
	if !errors.As(err, &refused) {
		s.lost(l, err)
		if l.older(began) {
			return nil
		}
	}
	if try.replays++; try.replays < 2 {
		return nil
	}
	if errors.As(err, &refused) && len(refused.report) > 0 {
		return &problem{raw: refused.report}
	}
	return problemReplay(err)
}

// attempt is what has been tried for one chunk.
type attempt struct {
	number   int   // how often it was sent
	now      int64 // health.Clock() as the next decision may take it; 0: time has passed
	avoid    uint64
	primary  bool // go to the primary, whatever the class
	replays  int
	freshEnd int64 // health.Clock() at which the wait for a fresh standby is over; 0: not begun
	freshMin uint64
	holdEnd  int64
	vouchEnd int64
	held     time.Duration
	decision router.Decision
}

// classify says what a text may do, with the names as this session sees them.
func (s *session) classify(sql []byte) *router.Unit {
	u := s.understand(sql)
	if u.Flags&router.FlagUnknownName != 0 {
		s.catalog.Missed()
	}
	return u
}

// understand says what a text may do as things are now.
func (s *session) understand(sql []byte) *router.Unit {
	u := s.srv.classifier.Classify(sql, s.environment())
	if excessive(u) {
		return s.srv.unread
	}
	return u
}

// excessive says whether a text changes more of the session than is followed.
func excessive(u *router.Unit) bool {
	size := 0
	for i := range u.Effects {
		size += len(u.Effects[i].Name) + len(u.Effects[i].Value)
	}
	return len(u.Effects) > maxEffects || size > maxChunk
}

// bound records what executing a portal may do.
func (s *session) bound(portal []byte, u *router.Unit) {
	if len(portal) == 0 {
		s.portal = u
		return
	}
	if s.portals == nil {
		s.portals = make(map[string]*router.Unit)
	}
	s.portals[string(portal)] = u
}

// defines records that a node has made a statement of the client's (or closed it, with st nil).
// It becomes the session's when the chunk is settled: until then the chunk may be sent again.
func (s *session) defines(name string, st *statement) {
	s.pending = append(s.pending, definition{name: name, st: st})
}

// defined is what a name means after all that was sent in the unfinished batch; ok is false when the
// batch has not defined it.
func (s *session) defined(name []byte) (st *statement, ok bool) {
	for i := len(s.sent) - 1; i >= 0; i-- {
		if d := &s.sent[i]; d.all && len(name) > 0 {
			return nil, true
		} else if !d.all && d.name == string(name) {
			return d.st, true
		}
	}
	return nil, false
}

// settleStatements makes the completed definitions the session's.
func (s *session) settleStatements() {
	for _, d := range s.pending {
		switch {
		case d.all:
			clear(s.named)
		case d.name == "":
			s.unnamed = d.st
			if s.target.Pooled && d.st != nil && d.st.parse == nil {
				s.st.leftOpaque(false) // too long to be made again elsewhere
			}
		case d.st == nil:
			delete(s.named, d.name)
		default:
			if s.named == nil {
				s.named = make(map[string]*statement)
			}
			if s.target.Pooled && d.st.parse == nil {
				s.st.leftOpaque(false) // too long to be made again elsewhere
			}
			s.named[d.name] = d.st
		}
	}
	s.pending = s.pending[:0]
}

// mark remembers what the session has seen or done on a lease, before the client hears of it.
func (s *session) mark(l *lease, wrote bool) {
	at := s.cluster.Monitor.Fence().Mark()
	s.st.saw(l.node, l.node.Live.Fresh().Incarnation, at, wrote)
	if wrote {
		s.target.Marks.raise(at)
	}
}

// fillClient waits for more bytes of the client. A lease that must be heard while the session holds
// it is watched meanwhile; what it says reaches the client at once.
func (s *session) fillClient() error {
	var quiet quiet
	for {
		l := s.watched()
		if s.envOf.set != s.st.effective && !s.inDuplex {
			s.environment() // the time-outs of the session may have changed
		}
		if s.inDuplex {
			return s.client.Fill() // the relay reads the lease
		}
		for _, held := range s.leases {
			if held != nil {
				held.conn.Link.Rest() // one that was opened and not used has the buffer of its login
			}
		}
		if s.deferred.text != "" && l == nil {
			return s.fillDeferred()
		}
		if l == nil && s.onlyDoubts() {
			if over, err := s.fillDoubting(&quiet); !over {
				return err
			}
			continue
		}
		if l == nil && s.idleTimeout > 0 {
			return s.fillIdle()
		}
		if l == nil {
			return s.fillParking()
		}
		s.watch.start(s.srv.clock, l.conn.Link, s.client)
		err := s.client.Fill()
		spoke, lerr := s.watch.stop()
		if spoke {
			if e := s.spoke(l, lerr); e != nil {
				return e
			}
			if isTimeout(err) && !s.isWanted() {
				continue
			}
		}
		return err
	}
}

// How long a silent session waits before it looks whether the catalog tells it that it needs its connection no more.
const (
	doubtPause    = 20 * time.Millisecond
	maxDoubtPause = time.Second
)

// onlyDoubts says whether the session has a connection for nothing but doubts that the catalog may resolve.
func (s *session) onlyDoubts() bool {
	return s.target.Pooled && len(s.doubts) > 0 && s.st.tx == txIdle && s.batch == nil && !s.skipping
}

// quiet is how long a client has said nothing while its session was in doubt.
type quiet struct{ last, all time.Duration }

// fillDoubting waits for more bytes of the client. over is true after a pause, which grows: the doubts may be resolved by
// then, and the connection was given back. The client's idle_session_timeout holds meanwhile.
func (s *session) fillDoubting(so *quiet) (over bool, err error) {
	pause := min(max(2*so.last, doubtPause), maxDoubtPause)
	if s.idleTimeout > 0 {
		pause = min(pause, s.idleTimeout-so.all)
	}
	if err := s.client.SetReadDeadline(time.Now().Add(pause)); err != nil {
		return false, err
	}
	err = s.client.Fill()
	if e := s.noDeadline(); e != nil {
		return false, e
	}
	if !isTimeout(err) || s.ctx.Err() != nil || s.srv.isDraining() {
		return false, err
	}
	so.last, so.all = pause, so.all+pause
	if s.idleTimeout > 0 && so.all >= s.idleTimeout {
		return false, &loginProblem{problemIdle()}
	}
	s.environment()
	s.countPin()
	s.release()
	return true, nil
}

// fillIdle waits for more bytes of the client as long as its idle_session_timeout allows. The leases
// have timers of their own, but which of them is idle says nothing about the session.
func (s *session) fillIdle() error {
	if err := s.client.SetReadDeadline(time.Now().Add(s.idleTimeout)); err != nil {
		return err
	}
	err := s.client.Fill()
	if e := s.noDeadline(); e != nil {
		return e
	}
	if isTimeout(err) && s.ctx.Err() == nil && !s.srv.isDraining() {
		return &loginProblem{problemIdle()}
	}
	return err
}

// watched is the lease that may speak while the client is silent: that of an open transaction,
// or one that the session must not lose.
func (s *session) watched() *lease {
	switch {
	case s.batch != nil:
		return s.batch
	case s.txLease != nil:
		return s.txLease
	case s.st.held() != router.PinNone:
		return s.leases[slotPrimary]
	}
	return nil
}

// errDeferredLong says that a deferred BEGIN has waited long enough.
var errDeferredLong = errors.New("the deferred BEGIN is due")

// fillDeferred waits for more bytes of the client no longer than a BEGIN may be deferred.
func (s *session) fillDeferred() error {
	left := s.target.BeginDefer - time.Duration(health.Clock()-s.deferred.at)
	if err := s.client.SetReadDeadline(time.Now().Add(left)); err != nil {
		return err
	}
	err := s.client.Fill()
	if e := s.noDeadline(); e != nil {
		return e
	}
	if isTimeout(err) && s.ctx.Err() == nil {
		return errDeferredLong
	}
	return err
}

// hear forwards what a held lease has said unasked, as far as the client may see it. quiet says
// that the session does not need the lease: nothing reaches the client but notifications and
// parameters. The error says that the lease is of no use any more.
func (s *session) hear(l *lease, quiet bool) error {
	if len(l.conn.Link.Buffered()) == 0 {
		if err := l.conn.Link.Fill(); err != nil {
			return err
		}
	}
	var r relay // the session's own may be in the middle of a batch
	r.reset(s, l)
	r.open = true
	if err := r.step(); err != nil {
		return err
	}
	if r.clientErr != nil {
		return &clientError{r.clientErr}
	}
	if r.fatal != nil {
		if !quiet {
			return &nodeFatal{report: r.fatal}
		}
		return errLeaseEnded
	}
	return nil
}

// errLeaseEnded is a lease that the node ended while nobody needed it.
var errLeaseEnded = errors.New("node ended the connection")

// nodeFatal is a lease that ended with a FATAL of the node.
type nodeFatal struct{ report []byte }

func (e *nodeFatal) Error() string { return "node ended the connection with FATAL" }

// clientError is an error of the client's link that was met while a lease was heard.
type clientError struct{ err error }

func (e *clientError) Error() string { return "client: " + e.err.Error() }

// spoke handles what a watched lease has said. lerr is the link's error, nil when bytes are there.
// The error ends the session.
func (s *session) spoke(l *lease, lerr error) error {
	if lerr == nil {
		lerr = s.hear(l, false)
		if lerr == nil {
			return nil
		}
	}
	var client *clientError
	if errors.As(lerr, &client) {
		return client.err
	}
	var fatal *nodeFatal
	_ = errors.As(lerr, &fatal)
	s.lost(l, lerr)
	pinned := s.st.held()
	inTx := s.txLease == l || s.batch == l
	s.giveUp(l)
	if pinned != router.PinNone {
		return s.lostPin(pinned, fatal)
	}
	if inTx {
		dying := fatal == nil || s.srv.nodeDying(fatal.report)
		switch {
		case s.st.tx == txIdle:
			s.batchLost = true
		case s.moves.text != "" && dying:
			s.restart()
		default:
			s.txDied()
		}
		if fatal != nil && !s.srv.nodeDying(fatal.report) {
			// The node ended this session on its own account: a time-out that the client set, or a
			// person's pg_terminate_backend.
			return &sessionFatal{report: fatal.report}
		}
	}
	return nil
}

// sessionFatal ends a session with the node's own words.
type sessionFatal struct{ report []byte }

func (e *sessionFatal) Error() string { return "node ended the session" }
