package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"pgweir/health"
	"pgweir/internal/auth"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// arrival is a connection whose client has not logged in yet.
type arrival struct {
	srv      *Server
	listener int
	link     *pgwire.Link
	ctx      context.Context
	cancel   context.CancelCauseFunc
	nudge    *pool.Nudge
	until    time.Time // the end of the login
	endPoint []byte    // of the certificate the client was shown, for channel binding
	secure   bool
	reloads  uint64 // timekeeper.reloads before the target was resolved
}

// negotiate reads packets until the client has said what it wants: TLS and GSS requests are
// answered, everything else is returned. The caller has set one deadline for the whole login.
func (a *arrival) negotiate() (pgwire.Startup, error) {
	var asked, askedGSS bool
	for {
		if err := a.await(1); err != nil {
			return pgwire.Startup{}, err
		}
		if !asked && !a.secure && pgwire.LooksLikeTLS(a.link.Buffered()) {
			return pgwire.Startup{}, errDirectTLS
		}
		n, err := a.packet()
		if err != nil {
			return pgwire.Startup{}, err
		}
		st, err := pgwire.ParseStartup(a.link.Buffered()[:n])
		if err != nil {
			return st, err
		}
		a.link.Discard(n)
		switch st.Kind {
		case pgwire.KindSSLRequest:
			if asked || a.secure {
				return st, st.Repeated()
			}
			asked = true
			if err := a.answerTLS(); err != nil {
				return st, err
			}
		case pgwire.KindGSSENCRequest:
			if askedGSS || a.secure {
				return st, st.Repeated()
			}
			askedGSS = true
			if len(a.link.Buffered()) > 0 {
				return st, pgwire.ErrDataAfterGSSRequest
			}
			if err := a.link.Write([]byte{'N'}); err != nil {
				return st, err
			}
		default:
			return st, nil
		}
	}
}

// await waits until n bytes are buffered.
func (a *arrival) await(n int) error {
	for len(a.link.Buffered()) < n {
		if err := a.link.Fill(); err != nil {
			return err
		}
	}
	return nil
}

// packet waits for a whole startup packet and returns its length.
func (a *arrival) packet() (int, error) {
	for {
		n, ok, err := pgwire.StartupLength(a.link.Buffered())
		if err != nil {
			return 0, err
		}
		if ok && len(a.link.Buffered()) >= n {
			return n, nil
		}
		if err := a.link.Fill(); err != nil {
			return 0, err
		}
	}
}

// answerTLS answers an SSLRequest, and shakes hands if this listener speaks TLS.
func (a *arrival) answerTLS() error {
	if len(a.link.Buffered()) > 0 {
		return pgwire.ErrDataAfterSSLRequest
	}
	conf := a.srv.tlsConfig(a.listener)
	if conf == nil {
		return a.link.Write([]byte{'N'})
	}
	if err := a.link.Write([]byte{'S'}); err != nil {
		return err
	}
	return a.handshake(a.link.Conn(), conf)
}

// errDirectTLS is a connection that begins with a TLS handshake.
var errDirectTLS = errors.New("connection begins with TLS")

// direct shakes hands with a client that did not ask (sslnegotiation=direct): it must name the protocol.
func (a *arrival) direct() error {
	conf := a.srv.tlsConfig(a.listener)
	if conf == nil {
		return &pgwire.ProtocolError{Code: pgwire.CodeProtocolViolation, Message: "received direct SSL connection request, but SSL is not enabled", LogOnly: true}
	}
	conf = conf.Clone()
	conf.NextProtos = []string{"postgresql"}
	first := append([]byte(nil), a.link.Buffered()...)
	a.link.Discard(len(first))
	if err := a.handshake(&replayed{Conn: a.link.Conn(), first: first}, conf); err != nil {
		return err
	}
	if c, ok := a.link.Conn().(*tls.Conn); ok && c.ConnectionState().NegotiatedProtocol != "postgresql" {
		return &pgwire.ProtocolError{
			Code: pgwire.CodeProtocolViolation, Message: "received direct SSL connection request without ALPN protocol negotiation extension", LogOnly: true,
		}
	}
	return nil
}

// replayed is a socket of which some bytes were read already.
type replayed struct {
	net.Conn
	first []byte
}

// Read gives the bytes that were read already first.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// handshake turns the link into a TLS one.
func (a *arrival) handshake(c net.Conn, conf *tls.Config) error {
	var shown *tls.Certificate
	conf = conf.Clone()
	if get := conf.GetCertificate; get != nil {
		conf.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := get(h)
			shown = cert
			return cert, err
		}
	} else if len(conf.Certificates) > 0 {
		shown = &conf.Certificates[0]
	}
	t := tls.Server(c, conf)
	if err := t.HandshakeContext(a.ctx); err != nil {
		return fmt.Errorf("shaking hands with the client: %w", err)
	}
	a.link.StartTLS(t)
	a.secure = true
	if shown != nil && shown.Leaf != nil {
		a.endPoint = auth.TLSServerEndPoint(shown.Leaf)
	}
	return nil
}

// login takes a client from its StartupMessage to the session that can be run. The error ends
// the connection.
func (a *arrival) login(st pgwire.Startup) (*session, error) {
	srv := a.srv
	a.reloads = srv.timekeeper.reloads.Load()
	target, err := srv.cfg.Resolve(a.listener, st.Database, st.User)
	if err != nil {
		// Who may not log in learns nothing of which databases there are: the password comes first,
		// and target.Cluster is one that knows users.
	}
	var users auth.Source = auth.Chain(nil)
	if target.Cluster != nil {
		users = target.Cluster.Auth
	}
	keys, aerr := a.authenticate(&st, users, target.Cluster)
	if aerr != nil {
		return nil, aerr
	}
	if err != nil {
		return nil, &loginProblem{&problem{code: codeNoDatabase, message: err.Error()}}
	}
	if st.Replication == pgwire.ReplicationPhysical {
		none := *target // others share it
		none.Database = ""
		target = &none
	}
	s, lerr := srv.newSession(a, &st, target, keys)
	if lerr != nil {
		return nil, lerr
	}
	if st.Replication != pgwire.ReplicationNone {
		return s, s.tunnel(&st)
	}
	late := time.AfterFunc(time.Until(a.until), func() { a.cancel(errLoginLate) })
	err = s.begin(&st)
	if !late.Stop() {
		err = s.cause()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// errLoginLate ends a login that waits for a node for too long.
var errLoginLate = errors.New("client_login_timeout")

// host is the client's address without its port.
func (a *arrival) host() string {
	h, _, err := net.SplitHostPort(a.link.Conn().RemoteAddr().String())
	if err != nil {
		return "[local]"
	}
	return h
}

// mayEnter refuses a client in the clear where the listener takes TLS only.
func (a *arrival) mayEnter(st *pgwire.Startup) error {
	if !a.srv.tlsRequired(a.listener) || a.secure {
		return nil
	}
	return &loginProblem{&problem{
		code: codeAuthFailed, message: fmt.Sprintf("no pg_hba.conf entry for host %q, user %q, database %q, no encryption", a.host(), st.User, st.Database),
		detail: "This listener takes TLS connections only.",
	}}
}

// forConsole says whether a client asks for the console.
func (a *arrival) forConsole(st *pgwire.Startup) bool {
	c := a.srv.cfg.Console
	return c != nil && c.Serves(st.Database)
}

// authenticate proves who the client is to those who know its users; what is known may change with the
// cluster, nil for none. Its parameters were fixed by its one StartupMessage.
func (a *arrival) authenticate(st *pgwire.Startup, source auth.Source, cluster *Cluster) (auth.Keys, error) {
	srv := a.srv
	if version, unknown, needed := st.Negotiate(pgwire.Version32); needed {
		if err := a.link.Write(pgwire.AppendNegotiate(nil, version, unknown)); err != nil {
			return auth.Keys{}, err
		}
		st.Version = version
	}
	secret, err := a.lookup(source, st.User, cluster)
	if err != nil && !errors.Is(err, auth.ErrNoUser) {
		srv.log.Warn("user look-up", "user", st.User, "error", err)
		return auth.Keys{}, &loginProblem{&problem{
			code: codeCannotConnect, message: "cannot verify users now", hint: "The server that knows the users cannot be asked. Try again.",
		}}
	}
	x := auth.NewServerExchange(st.User, secret, auth.ServerOptions{Seed: srv.seed, TLS: a.secure, EndPoint: a.endPoint})
	out := x.Begin(nil)
	for {
		if err := a.link.Write(out); err != nil {
			return auth.Keys{}, err
		}
		if err := a.await(1); err != nil {
			return auth.Keys{}, err
		}
		if typ := a.link.Buffered()[0]; typ != pgwire.MsgPassword {
			// Before the length is believed: a second startup packet has none that means anything here.
			what := "SASL"
			if x.Method() == "md5" {
				what = "password"
			}
			return auth.Keys{}, pgwire.UnexpectedDuringLogin(what, typ)
		}
		_, body, err := a.link.ReadMessage(x.MaxBody())
		if err != nil {
			var long *pgwire.MessageTooLong
			if errors.As(err, &long) {
				return auth.Keys{}, pgwire.ErrMessageLength
			}
			return auth.Keys{}, err
		}
		next, done, err := x.Step(out[:0], body)
		if err != nil {
			srv.metrics.login(x.Method(), "denied")
			var denied *auth.Error
			if f, ok := source.(auth.Forgetter); ok && errors.As(err, &denied) && denied.Denied() {
				f.Forget(st.User)
			}
			return auth.Keys{}, err
		}
		out = next
		if done {
			srv.metrics.login(x.Method(), "ok")
			return x.Keys(), a.link.Write(pgwire.AppendAuthOK(out))
		}
	}
}

// lookup asks for a user's secret; while no node can be asked it waits, as every start-up does then.
func (a *arrival) lookup(source auth.Source, user string, cluster *Cluster) (auth.Secret, error) {
	deadline := time.NewTimer(min(lookupWait, a.srv.admission.Load().LoginTimeout/2))
	defer deadline.Stop()
	for {
		secret, err := source.Lookup(a.ctx, user)
		if err == nil || errors.Is(err, auth.ErrNoUser) || cluster == nil {
			return secret, err
		}
		again := time.NewTimer(lookupPause)
		select {
		case <-again.C:
		case <-cluster.Monitor.Changed():
			again.Stop()
		case <-deadline.C:
			again.Stop()
			return secret, err
		case <-a.ctx.Done():
			again.Stop()
			return secret, context.Cause(a.ctx)
		}
	}
}

// How long a login waits for a node that knows the users, and how often it asks.
const (
	lookupWait  = 30 * time.Second
	lookupPause = 250 * time.Millisecond
)

// newSession makes the session of an authenticated client.
func (srv *Server) newSession(a *arrival, st *pgwire.Startup, target *Target, keys auth.Keys) (*session, error) {
	s := &session{
		srv: srv, client: a.link, ctx: a.ctx, cancel: a.cancel, nudge: a.nudge, cluster: target.Cluster, target: target, user: st.User,
		keys:     target.Cluster.sharedKeys(st.User, &keys),
		listener: a.listener, base: emptyBase, canceled: make(chan struct{}, 1), serial: srv.statements.next(),
	}
	s.st = newState(s.loginMark())
	s.timing.times.Store(&s.target.Times)
	if err := s.startup(st); err != nil {
		return nil, err
	}
	s.offloaded = offloaded(target.Offload, a.host(), st.User)
	srv.keys.register(s, st.Version >= pgwire.Version32)
	if err := srv.doors.enter(s); err != nil {
		srv.keys.unregister(s)
		return nil, err
	}
	if srv.timekeeper.reloads.Load() != a.reloads {
		srv.retime(s) // a reload may have looked for it too early
	}
	srv.timekeeper.heed(s.timing.times.Load())
	return s, nil
}

// loginMark is what a session must not read behind from its first statement on: everything before its login.
// While there is no primary nothing newer than the last sample can be proven; what this database's
// sessions wrote still counts.
func (s *session) loginMark() uint64 {
	snap := s.cluster.Monitor.Snapshot()
	if snap.Primary == nil || !snap.Primary.Trusted(health.Clock()) {
		return s.target.Marks.load()
	}
	return s.cluster.Monitor.Fence().Mark()
}

// startup splits the startup parameters into what is the session's own and what every node login carries. What stands in
// options comes first, as a node applies it.
func (s *session) startup(st *pgwire.Startup) error {
	options, err := s.startupOptions(st.Options)
	if err != nil {
		return err
	}
	if options != "" {
		s.startsWith(pgwire.Param{Name: "options", Value: options})
	}
	for _, p := range st.Settings {
		mine, err := s.takes(p)
		if err != nil {
			return err
		}
		if !mine {
			s.startsWith(p)
		}
	}
	return nil
}

// startsWith adds to what every node login of the session carries, and to the key of its pool.
func (s *session) startsWith(p pgwire.Param) {
	s.startupParams = append(s.startupParams, p)
	s.startupKey += p.Name + "\x00" + p.Value + "\x00"
}

// takes takes a startup parameter that is the session's own and no node's to know.
func (s *session) takes(p pgwire.Param) (mine bool, err error) {
	if isName(p.Name) {
		s.name = given{p.Value, true}
		return true, nil
	}
	rest, ok := strings.CutPrefix(strings.ToLower(p.Name), "pgweir.")
	if !ok {
		return false, nil
	}
	if problem := s.setOwn(rest, p.Value, false); problem != nil {
		return true, &loginProblem{problem}
	}
	return true, nil
}

// startupOptions takes out of options what is the session's own. A text that cannot be read, or not all of it, is left as
// it is: errors are a node's.
func (s *session) startupOptions(options string) (kept string, err error) {
	lower := strings.ToLower(options)
	if !strings.Contains(lower, "pgweir.") && !strings.Contains(lower, "application") {
		return options, nil
	}
	o, err := pgwire.ParseOptions(options)
	if err != nil || o.Opaque {
		return options, nil
	}
	var left []byte
	for _, p := range o.Settings {
		mine, err := s.takes(p)
		if err != nil {
			return "", err
		}
		if !mine {
			left = pgwire.AppendOption(left, p.Name, p.Value)
		}
	}
	return string(left), nil
}

// begin finds what a login on the primary starts with and tells the client that it is in.
func (s *session) begin(st *pgwire.Startup) error {
	s.wake()
	// Without a view the session works all the same: whatever names anything goes to the primary.
	view, err := s.cluster.Catalog.Load(s.ctx, s.target.Database)
	if err != nil && s.ctx.Err() != nil {
		return s.cause()
	}
	s.catalog = view

	base, err := s.srv.bases.get(s)
	if err != nil {
		return err
	}
	s.base = base
	out, err := s.introduce()
	if err != nil {
		return err
	}
	s.reports = s.reports[:0]
	s.settleSync()
	if s.target.RealPID {
		s.takePID()
	}
	for _, p := range s.base.params {
		out = pgwire.AppendParameterStatus(out, p.Name, s.shown(p.Name, p.Value))
	}
	out = pgwire.AppendBackendKeyData(out, s.pid.Load(), s.secret)
	out = pgwire.AppendReadyForQuery(out, byte(txIdle))
	return s.client.Write(out)
}

// takePID gives the session the process id of its server process on the primary, and that process. While there is
// none to be had the session keeps its virtual one: a login fails for other reasons.
func (s *session) takePID() {
	snap := s.cluster.Monitor.Snapshot()
	if snap.Primary == nil || !snap.Primary.Trusted(health.Clock()) {
		return
	}
	if l, err := s.leaseOf(snap.Primary); err == nil {
		s.st.told = s.srv.keys.rename(s, l)
	}
}

// shown is what the client sees of a parameter that a node reports.
func (s *session) shown(name, value string) string {
	if name == "in_hot_standby" {
		if s.readsOnly() {
			return "on"
		}
		return "off"
	}
	if told, ok := s.told(name); ok {
		return told
	}
	return value
}

// offloaded decides for a session, by its client and user, whether offload applies to it.
func offloaded(percent int, host, user string) bool {
	if percent >= 100 {
		return true
	}
	var h uint32 = 2166136261
	for _, c := range []byte(host + "\x00" + user) {
		h = (h ^ uint32(c)) * 16777619
	}
	return int(h%100) < percent
}

// told is what the client was told of a parameter, where that is not in the base.
func (s *session) told(name string) (value string, ok bool) {
	if name != nameSetting {
		value, ok = s.params[name]
		return value, ok
	}
	if shown := s.figures.name.Load(); shown != nil {
		return *shown, true
	}
	return "", false
}

// tells takes the value of a parameter that the client is to see, and says whether it is news to it.
func (s *session) tells(name, value string) bool {
	known, ok := s.told(name)
	if !ok {
		known, ok = s.base.param(name)
	}
	news := !ok || known != value
	switch {
	case name == nameSetting:
		if value == s.nameShown {
			s.figures.name.Store(&s.nameShown) // which never changes again
		} else {
			s.figures.name.Store(&value)
		}
	case news && s.params == nil:
		s.params = map[string]string{name: value}
	case news:
		s.params[name] = value
	}
	return news
}

// notified takes a NotificationResponse: a sender that is a lease of ours is shown under its
// virtual pid.
func (s *session) notified(body []byte) (bool, error) {
	pid, _, _, err := pgwire.ParseNotification(body)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errHostile, err)
	}
	switch l := s.leases[slotPrimary]; {
	case l == nil:
	case l.conn.PID == pid: // kept since the LISTEN, so nobody else has sent anything over it
		setPID(body, s.pid.Load())
	default:
		if v := s.srv.keys.virtual(s.cluster.Name, l.node.ID, pid); v != 0 {
			setPID(body, v)
		}
	}
	return true, nil
}

// statementTimeout is the client's statement_timeout as far as it is known, 0 when it has none.
func (s *session) statementTimeout() time.Duration {
	return parseTimeout(unquote(s.setting("statement_timeout")))
}

// parseTimeout reads a duration as PostgreSQL's settings do: milliseconds without a unit.
func parseTimeout(v string) time.Duration {
	i := 0
	for i < len(v) && (v[i] >= '0' && v[i] <= '9') {
		i++
	}
	if i == 0 || i > 12 {
		return 0
	}
	var n int64
	for _, c := range v[:i] {
		n = n*10 + int64(c-'0')
	}
	unit := map[string]time.Duration{
		"": time.Millisecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour,
		"d": 24 * time.Hour, "us": time.Microsecond,
	}[strings.TrimSpace(v[i:])]
	return time.Duration(n) * unit
}

// setting is the client's own text of a setting, or the base's value.
func (s *session) setting(name string) string {
	if v, ok := s.st.effective.get(name); ok && v != wasReset {
		return v
	}
	return s.base.setting(name)
}

// cause is why the session's context ended.
func (s *session) cause() error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	return errTerminate
}

// role is the role in force: SET ROLE, or the session's user.
func (s *session) role() string {
	if v, ok := s.st.effective.get("role"); ok && !strings.EqualFold(unquote(v), "none") {
		return unquote(v)
	}
	if v, ok := s.st.effective.get("session_authorization"); ok {
		return unquote(v)
	}
	if v := s.base.setting("role"); v != "" && v != "none" {
		return v
	}
	return s.user
}

// close gives back what the session holds.
func (s *session) close() {
	if s.target.RealPID {
		s.srv.keys.unregister(s) // before another session gets a process whose id this one has
	}
	for _, l := range s.leases {
		if l == nil {
			continue
		}
		// DISCARD ALL leaves custom settings behind, empty, and what nobody can see.
		if l.spoiled || l.left != "" || len(s.doubts) > 0 || s.st.custom || s.st.lasts() || s.st.tx != txIdle || s.batch != nil || s.deferred.text != "" && s.txLease != nil {
			s.giveUp(l)
			continue
		}
		l.conn.Dirty = true
		s.giveBack(l)
	}
	s.showPin(router.PinNone)
	if s.syncOn != nil {
		s.syncOn()
	}
	s.srv.keys.unregister(s)
	s.srv.doors.leave(s)
	s.cancel(nil)
}
