package proxy

import (
	"crypto/tls"
	"net"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// ClientView is what can be seen of a session from outside.
type ClientView struct {
	PID         uint32 // the one that the client was given
	User        string
	Entry       string // the database, as the client asked for it
	Database    string // the server's name of it
	Cluster     string
	Application string
	Addr, Local net.Addr
	TLS         string    // version and cipher; "" in the clear
	Since       time.Time // when it logged in
	Request     time.Time // when its last unit came that went to a node; zero before
	Pooled      bool
	Holding     bool          // it has a connection to a node, or is about to get one
	Running     bool          // a unit runs on a node now
	Waiting     time.Duration // for a connection, until now; 0 when it does not
	Cancels     int           // cancel requests of it that are on their way
	Pin         router.Pin
	Pinned      time.Time // since when; zero without a pin
}

// ServerView is what can be seen of a connection to a node.
type ServerView struct {
	pool.View
	Client  uint32    // pid of the session that holds it; 0: none
	Request time.Time // of that session
}

// DoorView is what can be seen of a database name that clients have asked for.
type DoorView struct {
	Name     string
	Paused   bool
	Disabled bool
	Clients  int
	Usage    Usage
}

// Doors is every database name that clients of this process have asked for, or that is paused.
func (srv *Server) Doors() []DoorView {
	var out []DoorView
	for _, at := range srv.doors.all() {
		v := DoorView{Name: at.name, Paused: at.shut.Load(), Usage: at.usage()}
		at.mu.Lock()
		v.Disabled, v.Clients = at.mu.disabled, len(at.mu.sessions)
		at.mu.Unlock()
		out = append(out, v)
	}
	return out
}

// Clients is every session, in no order.
func (srv *Server) Clients() []ClientView {
	var out []ClientView
	for _, at := range srv.doors.all() {
		for _, s := range at.members() {
			out = append(out, s.clientView())
		}
	}
	return out
}

// Servers is every connection to a node, in no order.
func (srv *Server) Servers() []ServerView {
	conns := srv.pool.Conns()
	out := make([]ServerView, 0, len(conns))
	for _, c := range conns {
		v := ServerView{View: c}
		if s := srv.keys.holder(c.Cluster, c.Node, c.PID); s != nil && c.IdleSince.IsZero() {
			v.Client, v.Request = s.pid.Load(), wall(s.figures.request.Load())
		}
		out = append(out, v)
	}
	return out
}

// Arriving is how many connections have not logged in yet.
func (srv *Server) Arriving() int {
	srv.mu.Lock()
	all := len(srv.mu.sessions)
	srv.mu.Unlock()
	return max(0, all-srv.keys.count())
}

// Holder is the client's pid of the session that holds the backend of that pid on a node, or held it last; 0
// when there is none.
func (srv *Server) Holder(cluster string, node int, pid uint32) uint32 {
	return srv.keys.virtual(cluster, node, pid)
}

// clientView is what can be seen of a session. It may be called by any goroutine: it reads what never changes
// behind the login, and what the session publishes.
func (s *session) clientView() ClientView {
	f := &s.figures
	socket := s.client.Conn()
	v := ClientView{
		PID: s.pid.Load(), User: s.user, Entry: s.target.Entry, Database: s.target.Database, Cluster: s.cluster.Name,
		Addr: socket.RemoteAddr(), Local: socket.LocalAddr(), TLS: encryption(s.client), Since: wall(f.since),
		Request: wall(f.request.Load()), Pooled: s.target.Pooled, Holding: f.holding.Load(), Running: s.running.Load() != nil,
		Cancels: int(f.cancels.Load()), Pin: router.Pin(f.pin.Load()),
	}
	if since := f.waiting.Load(); since != 0 {
		v.Waiting = max(time.Duration(health.Clock()-since), 1)
	}
	if v.Pin != router.PinNone {
		v.Pinned = wall(f.pinned.Load())
	}
	v.Application = s.application()
	return v
}

// application is the client's application_name as it was told, or came with.
func (s *session) application() string {
	if name := s.figures.name.Load(); name != nil {
		return *name
	}
	return s.name.name
}

// wall is the time of day at a reading of health.Clock; zero for 0.
func wall(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(health.Clock() - at))
}

// encryption is the version and cipher of a TLS connection, "" of any other.
func encryption(l *pgwire.Link) string {
	t, ok := l.Conn().(*tls.Conn)
	if !ok {
		return ""
	}
	state := t.ConnectionState()
	return tls.VersionName(state.Version) + "/" + tls.CipherSuiteName(state.CipherSuite)
}
