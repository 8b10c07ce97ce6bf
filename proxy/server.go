package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"pgweir/health"
	"pgweir/internal/auth"
	"pgweir/internal/catalog"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// Config is what a Server is built from.
type Config struct {
	// Resolve says what a client gets that came in by a listener (its index) and asks for a
	// database as a user. Sessions share it, so nobody writes to it. Its error is the message of a 3D000.
	Resolve func(listener int, database, user string) (*Target, error)
	// ClientTLS is the TLS configuration of a listener, nil where it speaks none; required says
	// that plaintext is refused. It is asked for every connection.
	ClientTLS func(listener int) (conf *tls.Config, required bool)
	// Admission is what Refresh changes.
	Admission
	// HoldMax bounds the statements that wait for a primary.
	HoldMax int
	// UnknownSQLState is what a write of unknown outcome is answered with; "" is 08007.
	UnknownSQLState string
	// Process is this process's number in the pids it gives out, at most MaxProcess; -1 draws one.
	Process int
	// Peer is where the process of another number takes cancel requests, false where it is not known. It is asked for
	// every request that names one. Nil: there is no other.
	Peer       func(process int) (Peer, bool)
	Classifier *router.Classifier
	// GiveWay lets others run while the bytes of a long message keep coming; nil: nobody waits.
	GiveWay func()
	Pool    *pool.Pool
	// Console is nil where there is none.
	Console *Console
	Metrics *Metrics
	Log     *slog.Logger
}

// Admission bounds who may come in.
type Admission struct {
	// LoginTimeout bounds everything from accept to the end of the login.
	LoginTimeout time.Duration
	// MaxClients bounds the client connections; 0: no limit.
	MaxClients int
}

// DefaultConfig is every value that has a default.
func DefaultConfig() Config {
	return Config{Admission: Admission{LoginTimeout: time.Minute}, HoldMax: 10_000, Process: -1}
}

// Validate returns everything that is wrong, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Resolve == nil || c.ClientTLS == nil || c.Classifier == nil || c.Pool == nil || c.Metrics == nil || c.Log == nil {
		errs = append(errs, errors.New("a part is missing"))
	}
	if c.LoginTimeout <= 0 {
		errs = append(errs, fmt.Errorf("LoginTimeout: %v: must be above zero", c.LoginTimeout))
	}
	if c.MaxClients < 0 || c.HoldMax < 1 {
		errs = append(errs, errors.New("limits: MaxClients must not be negative, HoldMax must be at least 1"))
	}
	if c.Process > maxProcess {
		errs = append(errs, fmt.Errorf("process number %d: must be at most %d", c.Process, maxProcess))
	}
	return errors.Join(errs...)
}

// Cluster is one primary with its standbys, as sessions use it.
type Cluster struct {
	Name    string
	Monitor Monitor
	Catalog *catalog.Manager
	Auth    auth.Source
	NodeTLS pool.TLS

	metrics *clusterMetrics
	clients atomic.Int64
	held    atomic.Int64
	closed  [timeLimits]atomic.Int64 // clients that were disconnected, by why
	began   atomic.Uint64            // how often what connections start with has changed
	mu      struct {
		sync.Mutex
		marks map[string]*Marks
		keys  map[string]weak.Pointer[auth.Keys] // of users
	}
}

// SettingsChanged says that connections to the cluster's nodes may start with other settings from now on. Those that
// have the old ones must have been retired.
func (c *Cluster) SettingsChanged() { c.began.Add(1) }

// Monitor is what sessions ask of a cluster's health; *health.Monitor is one. None of it waits.
type Monitor interface {
	Snapshot() *health.Snapshot
	Changed() <-chan struct{}
	Fence() *health.Fence
	Report(nodeID int, e health.Evidence)
	VoidNode(nodeID int)
}

// NewCluster joins the parts of a cluster; its counters are in m.
func NewCluster(name string, mon Monitor, cat *catalog.Manager, users auth.Source, nodeTLS pool.TLS, m *Metrics) *Cluster {
	c := &Cluster{Name: name, Monitor: mon, Catalog: cat, Auth: users, NodeTLS: nodeTLS, metrics: m.cluster(name)}
	c.mu.marks, c.mu.keys = make(map[string]*Marks), make(map[string]weak.Pointer[auth.Keys])
	return c
}

// Clients is how many clients are logged in.
func (c *Cluster) Clients() int { return int(c.clients.Load()) }

// Held is how many statements wait for a primary.
func (c *Cluster) Held() int { return int(c.held.Load()) }

// MarksOf is what all sessions of a database share; the same pointer for the same name.
func (c *Cluster) MarksOf(database string) *Marks {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.mu.marks[database]
	if m == nil {
		m = new(Marks)
		c.mu.marks[database] = m
	}
	return m
}

// sharedKeys is the one copy of the keys that a user's sessions have in common, as long as one of them is there.
func (c *Cluster) sharedKeys(user string, keys *auth.Keys) *auth.Keys {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.mu.keys[user].Value(); known != nil && known.Equal(*keys) {
		return known
	}
	c.mu.keys[user] = weak.Make(keys)
	return keys
}

// Marks is what the sessions of one database know together.
type Marks struct {
	write atomic.Uint64 // the fence's mark of the last acknowledged write
	ddl   atomic.Uint64 // the catalog's stamp of the last DDL
}

// raise moves the write mark up to at.
func (m *Marks) raise(at uint64) {
	for {
		old := m.write.Load()
		if at <= old || m.write.CompareAndSwap(old, at) {
			return
		}
	}
}

// load is the write mark.
func (m *Marks) load() uint64 { return m.write.Load() }

// Target is what a session gets: where it goes and the settings that hold for it.
type Target struct {
	Cluster        *Cluster
	Entry          string // the name that the client asked for: limits are counted by it
	Database       string // the server's name of it
	Marks          *Marks
	Route          router.RouteMode
	ListenerRoute  router.RouteMode
	Consistency    router.Consistency
	ReadFrom       []string
	OnPrimary      router.ReadsOnPrimary
	Zone           string
	Offload        int // percentage of sessions
	FreshnessWait  func(router.Consistency) time.Duration
	MaxLagBytes    int64
	MaxLagTime     time.Duration
	Pooled         bool          // pool_mode: transaction
	RealPID        bool          // backend_pid: real; only where Pooled is false
	ResetOpaque    bool          // routing.opaque: reset; holds only where Pooled is true
	Optimistic     bool          // transactions: optimistic
	BeginDefer     time.Duration // 0: a BEGIN is sent at once
	HoldTimeout    time.Duration
	ConnectTimeout time.Duration
	WaitTimeout    time.Duration // for a connection of a full pool; 0: no limit
	WaitNotify     time.Duration // after which a client is told that it waits for a connection; 0: never
	CancelTimeout  time.Duration // for a cancel to reach a node
	AddHost        AddHost       // application_name_add_host
	Times          Times         // what Refresh asks for again
}

// Server serves clients.
type Server struct {
	cfg        Config
	log        *slog.Logger
	pool       *pool.Pool
	classifier *router.Classifier
	metrics    *Metrics
	keys       *keyTable
	doors      *doors
	statements *statementTable
	sequences  sequenceUsers
	bases      bases
	names      names
	holds      *holds
	gates      *gates
	clock      *clock
	timekeeper *timekeeper
	lot        *pgwire.Lot    // of clients that have been silent for a while
	conns      sync.WaitGroup // connections of clients, and who accepts them
	admission  atomic.Pointer[Admission]
	seed       *auth.Seed
	clients    atomic.Int64
	consoles   atomic.Int64 // clients of the console, those about to log in too
	lingers    atomic.Bool
	left       chan struct{} // a client left; buffered for one

	// Units of what cannot be looked at: a message that is not there as a whole, a query of that kind, a FunctionCall of a
	// large object and of anything else; and a read without any peculiarity.
	incomplete, unread, largeObject, functionCall, plainRead *router.Unit

	mu struct {
		sync.Mutex
		sessions map[*pgwire.Link]context.CancelCauseFunc
		draining bool
	}
}

// leavesAnything flags what can leave anything in the session.
const leavesAnything = router.FlagOpaque | router.FlagLasting | router.FlagNextval

// New is a server that serves nobody yet.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("proxy configuration: %w", err)
	}
	if cfg.Process < 0 {
		cfg.Process = randomProcess()
	}
	srv := &Server{
		cfg: cfg, log: cfg.Log, pool: cfg.Pool, classifier: cfg.Classifier, metrics: cfg.Metrics,
		keys: newKeyTable(cfg.Process), doors: newDoors(), left: make(chan struct{}, 1), statements: newStatementTable(), holds: newHolds(cfg.HoldMax), gates: newGates(), clock: newClock(), timekeeper: newTimekeeper(), seed: auth.NewSeed(),
		incomplete: &router.Unit{
			Class: router.ClassPrimary, Reason: router.ReasonIncomplete, Mark: router.MarkWrite,
			Flags: router.FlagMayCommit, Statements: 1,
		},
		unread: &router.Unit{
			Class: router.ClassPrimary, Reason: router.ReasonIncomplete, Mark: router.MarkWrite, Flags: router.FlagMayCommit | leavesAnything, Statements: 1,
		},
		largeObject: &router.Unit{
			Class: router.ClassPrimary, Reason: router.ReasonFunctionCall, Mark: router.MarkWrite, Flags: router.FlagMayCommit, Statements: 1,
		},
		functionCall: &router.Unit{
			Class: router.ClassPrimary, Reason: router.ReasonFunctionCall, Mark: router.MarkWrite, Flags: router.FlagMayCommit | leavesAnything, Statements: 1,
		},
		plainRead: &router.Unit{Class: router.ClassRead, Reason: router.ReasonRead, Mark: router.MarkRead, Statements: 1},
	}
	srv.admission.Store(&cfg.Admission)
	srv.mu.sessions = make(map[*pgwire.Link]context.CancelCauseFunc)
	var err error
	if srv.lot, err = pgwire.NewLot(); err != nil {
		return nil, err
	}
	return srv, nil
}

// Serve accepts clients on the listeners until ctx ends, and then lets every session come to a
// transaction boundary; those that have not after grace end with FATAL 57P01. It closes the
// listeners.
func (srv *Server) Serve(ctx context.Context, grace time.Duration, listeners ...net.Listener) {
	var wg sync.WaitGroup
	stopClock := make(chan struct{})
	wg.Go(func() { srv.clock.run(stopClock, &wg) })
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	wg.Go(func() { srv.timekeeper.run(base, srv, stopClock, &wg) })
	wg.Go(func() {
		if err := srv.lot.Run(); err != nil {
			srv.log.Error("waiting for silent clients", "error", err)
		}
	})
	for i, l := range listeners {
		srv.conns.Go(func() { srv.accept(base, i, l) })
	}
	<-ctx.Done()
	for _, l := range listeners {
		_ = l.Close()
	}
	srv.awaitClients()
	srv.drain()
	done := make(chan struct{})
	wg.Go(func() { srv.conns.Wait(); close(done) })
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		srv.Cut()
		<-done
	}
	cut(errDraining)
	close(stopClock)
	_ = srv.lot.Close()
	wg.Wait()
}

// accept serves one listener until it is closed. What else can go wrong (no file descriptors,
// a client that left already) passes.
func (srv *Server) accept(ctx context.Context, index int, l net.Listener) {
	pause := time.Millisecond
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = time.Millisecond
			srv.conns.Go(func() { srv.arrive(ctx, index, c) })
		case errors.Is(err, net.ErrClosed):
			return
		default:
			srv.log.Warn("accept", "listener", l.Addr(), "error", err)
			<-time.After(pause)
			pause = min(2*pause, time.Second)
		}
	}
}

// arrive takes one connection from its accept to the end of its login. A session that can be served
// goes on in a goroutine of its own: a login needs a stack several times as large as one that waits, and a
// goroutine keeps its stack until the collector halves it.
func (srv *Server) arrive(ctx context.Context, listener int, c net.Conn) {
	link := pgwire.NewLink(c)
	ctx, end := context.WithCancelCause(ctx)
	nudge := new(pool.Nudge)
	cancel := func(cause error) {
		end(cause)
		nudge.Now()
	}
	if !srv.enter(link, cancel) {
		_ = link.Close()
		return
	}
	s, reason := srv.admit(ctx, cancel, nudge, listener, link)
	if s == nil || reason != nil {
		srv.depart(link, s, cancel, reason)
		return
	}
	srv.conns.Go(func() { srv.serveSession(s) })
}

// serveSession is the life of a session behind its login.
func (srv *Server) serveSession(s *session) {
	s.cluster.clients.Add(1)
	srv.metrics.clientStarts(s.cluster.Name)
	srv.pool.Join(s.cluster.Name, s.target.Entry, s.user)
	s.settlesIn()
	srv.goesOn(s)
}

// goesOn serves a session until it ends or is parked.
func (srv *Server) goesOn(s *session) {
	reason := s.run()
	for errors.Is(reason, errParks) {
		if srv.park(s) {
			return
		}
		reason = s.run()
	}
	s.timing.word.Store(doesNothing)
	srv.pool.Leave(s.cluster.Name, s.target.Entry, s.user)
	srv.metrics.clientEnds(s.cluster.Name)
	s.cluster.clients.Add(-1)
	srv.depart(s.client, s, s.cancel, reason)
}

// depart ends a connection; s is nil when it came to no session.
func (srv *Server) depart(link *pgwire.Link, s *session, cancel context.CancelCauseFunc, reason error) {
	if s != nil {
		s.close()
	}
	srv.done(link, s, reason)
	cancel(reason)
	srv.leave(link)
	_ = link.Close()
}

// admit takes a new connection through its login.
func (srv *Server) admit(ctx context.Context, cancel context.CancelCauseFunc, nudge *pool.Nudge, listener int, link *pgwire.Link) (*session, error) {
	until := time.Now().Add(srv.admission.Load().LoginTimeout)
	if err := link.SetDeadline(until); err != nil {
		return nil, err
	}
	a := &arrival{srv: srv, listener: listener, link: link, ctx: ctx, cancel: cancel, nudge: nudge, until: until}
	st, err := a.negotiate()
	if errors.Is(err, errDirectTLS) {
		if err = a.direct(); err == nil {
			st, err = a.negotiate()
		}
	}
	if err != nil {
		return nil, err
	}
	if st.Kind == pgwire.KindCancelRequest {
		srv.cancelRequest(ctx, &st)
		return nil, errTerminate
	}
	if err := a.mayEnter(&st); err != nil {
		return nil, err
	}
	if a.forConsole(&st) {
		return nil, a.console(&st) // to its end
	}
	if n, most := srv.clients.Add(1), srv.admission.Load().MaxClients; most > 0 && n > int64(most) {
		srv.uncount()
		return nil, &loginProblem{&problem{
			code: codeTooMany, message: "sorry, too many clients already",
			detail: fmt.Sprintf("pgweir takes %d (max_client_conn).", most),
		}}
	}
	s, err := a.login(st)
	if err != nil && s == nil {
		srv.uncount()
		return nil, err
	}
	if err == nil {
		err = link.SetDeadline(time.Time{})
		if srv.isDraining() {
			err = errDraining
		}
	}
	return s, err
}

// done counts and logs the end of a connection, and says goodbye if the client can hear it. It is the one
// place that does.
func (srv *Server) done(link *pgwire.Link, s *session, reason error) {
	if cause := context.Cause(contextOf(s)); cause != nil && isTimeout(reason) {
		reason = cause
	}
	if s != nil {
		srv.uncount()
	}
	if out := farewell(reason); out != nil {
		_ = link.SetWriteDeadline(time.Now().Add(goodbye))
		_ = link.Write(out)
	}
	attrs := []any{"client", link.Conn().RemoteAddr(), "side", side(reason)}
	if s != nil {
		attrs = append(attrs, "cluster", s.cluster.Name, "database", s.target.Database, "user", s.user)
	}
	if reason != nil && !errors.Is(reason, errTerminate) {
		attrs = append(attrs, "error", reason)
	}
	if side(reason) == "client" && s != nil {
		srv.log.Debug("connection ended", attrs...)
		return
	}
	if errors.Is(reason, errTerminate) {
		return
	}
	srv.log.Info("connection ended", attrs...)
}

// contextOf is the session's context, one that never ends without a session.
func contextOf(s *session) context.Context {
	if s == nil {
		return context.Background()
	}
	return s.ctx
}

// goodbye bounds the writing of the last message.
const goodbye = 2 * time.Second

// enter makes a connection known, unless the server is draining.
func (srv *Server) enter(link *pgwire.Link, cancel context.CancelCauseFunc) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.mu.draining {
		return false
	}
	srv.mu.sessions[link] = cancel
	return true
}

// leave forgets a connection.
func (srv *Server) leave(link *pgwire.Link) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.mu.sessions, link)
}

// isDraining says whether the server has begun to stop.
func (srv *Server) isDraining() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.mu.draining
}

// Linger makes Serve wait for all clients to leave before it ends those that are left: it is for the moment before its
// context ends. Cut ends the wait.
func (srv *Server) Linger() { srv.lingers.Store(true) }

// uncount takes a client out of the number of those that are in or about to be.
func (srv *Server) uncount() {
	srv.clients.Add(-1)
	select {
	case srv.left <- struct{}{}:
	default:
	}
}

// awaitClients waits for the last client to leave, if that is what was asked for.
func (srv *Server) awaitClients() {
	for srv.lingers.Load() && srv.clients.Load() > 0 && !srv.isDraining() {
		<-srv.left
	}
}

// drain wakes every session that waits for its client: one that is between transactions ends.
func (srv *Server) drain() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.mu.draining = true
	for link := range srv.mu.sessions {
		_ = link.SetReadDeadline(past)
	}
}

// Cut ends every session that is left, without waiting for its transaction.
func (srv *Server) Cut() {
	srv.mu.Lock()
	srv.mu.draining = true
	for link, cancel := range srv.mu.sessions {
		cancel(errDraining)
		_ = link.SetReadDeadline(past)
		_ = link.SetWriteDeadline(time.Now().Add(goodbye))
	}
	srv.mu.Unlock()
	// Who waits for a node is woken by the end of that connection.
	for _, l := range srv.keys.running() {
		_ = l.conn.Link.Close()
	}
}

// tlsConfig is the TLS configuration of a listener, nil when it speaks none.
func (srv *Server) tlsConfig(listener int) *tls.Config {
	conf, _ := srv.cfg.ClientTLS(listener)
	return conf
}

// tlsRequired says whether a listener refuses plaintext.
func (srv *Server) tlsRequired(listener int) bool {
	_, required := srv.cfg.ClientTLS(listener)
	return required
}

// Sessions is how many clients are logged in or about to be.
func (srv *Server) Sessions() int { return int(srv.clients.Load()) }
