package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
)

// MaxProcess is the largest number of a process that serves clients beside others.
const MaxProcess = maxProcess

// Peer is where another process takes the cancel requests of its clients.
type Peer struct {
	pool.Target
	// Timeout bounds how long a request may be under way there.
	Timeout time.Duration
}

// forwardedMark stands in the pid of a cancel request that a process passes on. No client is ever given a pid with it
// (pids are positive), and it only takes away: a request that has it is not passed on. So whoever sets it
// without being a peer gains nothing (docs/decisions/0019).
const forwardedMark = 1 << 31

// MaxForwards is how many requests may be under way to one peer; the others wait. Anybody can send a cancel
// request without logging in, and must not have the process open any number of sockets.
const MaxForwards = 64

// The results of a cancel request.
const (
	cancelFound       = "found"       // its key is that of a client of this process
	cancelUnknown     = "unknown"     // it is nobody's, or that of a process that is no peer
	cancelForwarded   = "forwarded"   // it was passed on to the process that it names
	cancelFailed      = "failed"      // that process did not take it
	cancelMisdirected = "misdirected" // it was passed on already, and not to the process that it names
)

// namedProcess is the number of the process that gave a pid out; false for the pid of a server process.
func namedProcess(pid uint32) (int, bool) {
	n := int(pid>>pidBits) - processBase
	return n, n >= 0 && n <= maxProcess && pid >= firstPID
}

// cancelRequest carries out a CancelRequest: it reaches the statement that runs for the client that has its key, here
// or at the process that the key names, or nothing. Nothing is answered, as PostgreSQL answers nothing: that
// the connection is closed says that what is sent from now on is not hit.
func (srv *Server) cancelRequest(ctx context.Context, st *pgwire.Startup) {
	pid, marked := st.PID&^forwardedMark, st.PID&forwardedMark != 0
	source := "client"
	if marked {
		source = "peer"
	}
	result, err := srv.passCancel(ctx, pid, st.Secret, marked)
	srv.metrics.cancelled(source, result)
	if err != nil {
		srv.log.Warn("passing a cancel request on", "error", err)
	} else {
		srv.log.Debug("cancel request", "pid", pid, "from", source, "result", result)
	}
}

// passCancel brings a cancel request to where its key is known. One that is marked came from a peer and goes no further.
func (srv *Server) passCancel(ctx context.Context, pid uint32, secret []byte, marked bool) (string, error) {
	if srv.cancelHere(ctx, pid, secret) {
		return cancelFound, nil
	}
	process, named := namedProcess(pid)
	switch {
	case !named || process == int(srv.keys.process):
		return cancelUnknown, nil
	case marked:
		return cancelMisdirected, nil
	case srv.cfg.Peer == nil:
		return cancelUnknown, nil
	}
	peer, ok := srv.cfg.Peer(process)
	if !ok {
		return cancelUnknown, nil
	}
	ctx, cancel := context.WithTimeout(ctx, peer.Timeout)
	defer cancel()
	leave, err := srv.gates.enter(ctx, process)
	if err == nil {
		defer leave()
		err = pool.ForwardCancel(ctx, peer.Target, pid|forwardedMark, secret)
	}
	if err != nil {
		return cancelFailed, fmt.Errorf("to process %d: %w", process, err)
	}
	return cancelForwarded, nil
}

// gates bounds what is under way to each peer.
type gates struct {
	mu struct {
		sync.Mutex
		of map[int]chan struct{} // by the peer's number; a token for each request under way
	}
}

// newGates are gates that nobody has gone through.
func newGates() *gates {
	g := new(gates)
	g.mu.of = make(map[int]chan struct{})
	return g
}

// enter waits, within ctx, until one more request may be under way to a peer; leave says that it is not any more.
func (g *gates) enter(ctx context.Context, process int) (leave func(), err error) {
	g.mu.Lock()
	gate := g.mu.of[process]
	if gate == nil {
		gate = make(chan struct{}, MaxForwards)
		g.mu.of[process] = gate
	}
	g.mu.Unlock()
	select {
	case gate <- struct{}{}:
		return func() { <-gate }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for %d others: %w", MaxForwards, context.Cause(ctx))
	}
}
