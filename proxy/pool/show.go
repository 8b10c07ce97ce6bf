package pool

import (
	"net"
	"time"
)

// View is what can be seen of a connection from outside of its lease.
type View struct {
	Key
	NodeName    string
	PID         uint32
	Addr, Local net.Addr // the node's end and ours
	Opened      time.Time
	IdleSince   time.Time // zero while it is leased
	TLS         bool
	Retired     bool // to be closed when its lease ends
}

// Conns is every connection that is open now, in no order; those that are being opened are only counted, in Stats.
func (p *Pool) Conns() []View {
	var out []View
	for _, g := range p.all() {
		out = g.views(out)
	}
	return out
}

// views appends what can be seen of the group's connections.
func (g *group) views(out []View) []View {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.mu.idle {
		out = append(out, c.view(g.nodeName, c.idleSince))
	}
	for _, c := range g.mu.leased {
		out = append(out, c.view(g.nodeName, time.Time{}))
	}
	return out
}

// view is what can be seen of a connection. It reads only what does not change while it is leased.
func (c *Conn) view(node string, idleSince time.Time) View {
	socket := c.Link.Conn()
	return View{
		Key: c.Key, NodeName: node, PID: c.PID, Addr: socket.RemoteAddr(), Local: socket.LocalAddr(), Opened: c.Opened,
		IdleSince: idleSince, TLS: c.TLS, Retired: c.retired.Load(),
	}
}
