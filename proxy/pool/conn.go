package pool

import (
	"context"
	"sync/atomic"
	"time"

	"pgweir/internal/auth"
	"pgweir/internal/pgwire"
)

// Key is what two sessions must have in common to use the same connection one after the other.
type Key struct {
	Cluster string
	Node    int // health.Node.ID
	// Entry is the name that clients ask for, which limits are for; Database is the server's.
	Entry    string
	Database string
	User     string
	// Startup is a canonical form of the parameters that can only be given at startup.
	Startup string
}

// Spec is everything needed to open a connection, and the key it is found by later.
type Spec struct {
	Key
	Target
	// NodeName is the node's name in metrics.
	NodeName string
	// Keys log the user in.
	Keys auth.Keys
	// AllowCleartext sends a password that the node asks for in the clear over an
	// unencrypted network.
	AllowCleartext bool
	// Params go into the StartupMessage behind user and database, in this order, and
	// Config.NodeSettings behind them.
	Params []pgwire.Param
	// OpenedMark is called once the node has said ReadyForQuery; nil: Conn.OpenedMark is 0.
	OpenedMark func() uint64
	// Ranker judges idle connections; nil: all fit.
	Ranker Ranker
	// Patience bounds Get beside its context.
	Patience Patience
	// Home is where Get notes what the next TryGet looks at; nil: nowhere.
	Home *Home
}

// A Ranker says how well an idle connection fits, from Unfit to Best. It is called with a lock held, by any
// goroutine: it must be quick and must not call the pool.
type Ranker interface{ Rank(c *Conn) int }

// What Ranker.Rank returns. A Reluctant connection is used only when no other can be had, not even a new one.
const (
	Unfit = iota
	Reluctant
	Fit
	Good
	Best
)

// Conn is a logged-in connection to a node. Its fields belong to whoever holds the lease.
type Conn struct {
	Key
	Link *pgwire.Link
	// PID and Secret are from BackendKeyData; 0 and nil where the node sent none.
	PID    uint32
	Secret []byte
	// Params is what the node reported at login, in order, kept up to date by DISCARD ALL: what
	// a session finds that changes nothing.
	Params []pgwire.Param
	// Notices are the bodies of the NoticeResponses sent during the login, in order.
	Notices [][]byte
	// OpenedMark is what Spec.OpenedMark returned.
	OpenedMark uint64
	// Opened is when the node was ready.
	Opened time.Time
	// TLS says that the connection is encrypted.
	TLS bool
	// Dirty makes Put send DISCARD ALL. The lease's holder sets it when anything of the
	// session may be left in the connection.
	Dirty bool
	// Temporary is for the lease's holders: its server process has made a schema for temporary objects. It stays
	// after DISCARD ALL, and so does the schema.
	Temporary bool
	// State is what the lease's holders know of the connection. The pool only keeps it; DISCARD ALL makes it nil.
	State any
	// OnClose is called once the pool closes the connection; nil: nothing is.
	OnClose func()

	cfg       Config
	target    Target
	pool      *group
	slot      int // index in the pool's list of leases
	retired   atomic.Bool
	idleSince time.Time
}

// Cancel asks the node to cancel what this connection is doing, over a connection of its own and
// within ctx. When it returns nil the node has taken note: a
// statement sent later is not hit. It may be called by any goroutine.
func (c *Conn) Cancel(ctx context.Context) error {
	return c.cfg.cancel(ctx, c.target, encrypted(c.TLS), c.PID, c.Secret)
}

// Retired says whether the connection is to be closed when its lease ends.
func (c *Conn) Retired() bool { return c.retired.Load() }

// Silent says whether there is nothing to read on a connection that should be idle, not even its
// end. It does not block, reads nothing, and works under TLS, too.
func (c *Conn) Silent() bool { return len(c.Link.Buffered()) == 0 && silent(c.Link.Conn()) }

// Param is the value that the node reported at login, "" if it did not.
func (c *Conn) Param(name string) string {
	for _, p := range c.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// setParam keeps what the node reports.
func (c *Conn) setParam(name, value string) {
	for i := range c.Params {
		if c.Params[i].Name == name {
			c.Params[i].Value = value
			return
		}
	}
	c.Params = append(c.Params, pgwire.Param{Name: name, Value: value})
}

// usable says whether an idle connection can be given out: nothing to read on it.
func (c *Conn) usable(now time.Time) bool {
	return !c.retired.Load() && (now.Sub(c.idleSince) < idleTrust || c.Silent())
}

// now is the present by the monotonic clock alone; time.Now reads two clocks. Only differences of it mean anything.
func now() time.Time { return began.Add(time.Since(began)) }

var began = time.Now()

// idleTrust is how long a connection that was given back is believed to be alive without a look.
const idleTrust = 5 * time.Millisecond

// leave says goodbye and closes. Nobody else may use the connection any more, and it must be
// between statements.
func (c *Conn) leave() {
	_ = c.Link.SetWriteDeadline(time.Now().Add(goodbye))
	_ = c.Link.Write(pgwire.AppendTerminate(nil))
	c.close()
}

// close closes the socket and says so.
func (c *Conn) close() {
	_ = c.Link.Close()
	if c.OnClose != nil {
		c.OnClose()
	}
}

// goodbye bounds the sending of Terminate.
const goodbye = 100 * time.Millisecond
