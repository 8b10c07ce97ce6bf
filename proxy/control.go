package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"pgweir/proxy/pool"
)

// What administrators ask for that cannot be done, in the words of the console.
var (
	// ErrUnknownDatabase is a name that no client of this process has asked for.
	ErrUnknownDatabase = errors.New("no client has asked for this database")
	// ErrPaused and ErrNotPaused are a PAUSE or RESUME of what is so already.
	ErrPaused    = errors.New("already paused")
	ErrNotPaused = errors.New("not paused")
	// ErrUnknownClient is a pid that belongs to no client.
	ErrUnknownClient = errors.New("no client has this id")
)

// StillHeld is a wait for sessions that was over before they had let their connections go.
type StillHeld struct {
	Sessions int
	Err      error // why the wait was over
}

// Error is what is wrong.
func (e *StillHeld) Error() string { return "clients still hold connections: " + e.Err.Error() }

// Unwrap is why the wait was over.
func (e *StillHeld) Unwrap() error { return e.Err }

// Names is what an administrator's word is about: a database name that clients ask for, or all of them.
type Names struct {
	Name  string // "": all
	Known bool   // clients may ask for it, though none may have
}

// named is the doors of a name, which is made if known says that clients may ask for it; all of them for "".
func (srv *Server) named(name string, known bool) ([]*door, error) {
	if name == "" {
		return srv.doors.all(), nil
	}
	srv.doors.mu.Lock()
	defer srv.doors.mu.Unlock()
	at := srv.doors.mu.byName[name]
	if at == nil {
		if !known {
			return nil, ErrUnknownDatabase
		}
		at = srv.doors.make(name)
	}
	return []*door{at}, nil
}

// shutDoors shuts the doors of a name, or all that there are and will be; false when none was open.
func (srv *Server) shutDoors(of Names) ([]*door, bool, error) {
	changed := false
	if of.Name == "" {
		srv.doors.mu.Lock()
		changed, srv.doors.mu.shut = !srv.doors.mu.shut, true
		srv.doors.mu.Unlock()
	}
	all, err := srv.named(of.Name, of.Known)
	if err != nil {
		return nil, false, err
	}
	for _, at := range all {
		changed = at.close() || changed
	}
	return all, changed, nil
}

// Pause holds the sessions that asked for a name as soon as they want a connection and have none, and waits
// until none of them has one. Idle connections are closed. When ctx ends first, everything goes on as before and
// the error is a *StillHeld.
func (srv *Server) Pause(ctx context.Context, of Names) error {
	all, changed, err := srv.shutDoors(of)
	if err != nil {
		return err
	}
	if !changed {
		return ErrPaused
	}
	for _, at := range all {
		if n, err := at.quiet(ctx); err != nil {
			_ = srv.Resume(of.Name)
			return &StillHeld{Sessions: n, Err: err}
		}
	}
	srv.Reconnect(of)
	return nil
}

// quiet waits until no session of the door holds a connection; n is how many do when ctx ends first.
func (at *door) quiet(ctx context.Context) (n int, err error) {
	for {
		n, quieter := at.holders()
		if n == 0 {
			return 0, nil
		}
		select {
		case <-quieter:
		case <-ctx.Done():
			return n, context.Cause(ctx)
		}
	}
}

// Resume lets the sessions of a name go on that Pause or Kill held, or all of them for "".
func (srv *Server) Resume(name string) error {
	all, err := srv.named(name, false)
	if err != nil {
		return err
	}
	changed := false
	if name == "" {
		srv.doors.mu.Lock()
		changed, srv.doors.mu.shut = srv.doors.mu.shut, false
		srv.doors.mu.Unlock()
	}
	for _, at := range all {
		changed = at.open() || changed
	}
	if !changed {
		return ErrNotPaused
	}
	return nil
}

// Paused says whether clients that ask for a name are held.
func (srv *Server) Paused(name string) bool {
	srv.doors.mu.Lock()
	defer srv.doors.mu.Unlock()
	if at := srv.doors.mu.byName[name]; at != nil {
		return at.shut.Load()
	}
	return srv.doors.mu.shut
}

// AllPaused says whether everything is paused, and what comes too.
func (srv *Server) AllPaused() bool {
	srv.doors.mu.Lock()
	defer srv.doors.mu.Unlock()
	return srv.doors.mu.shut
}

// Stopping says whether the server has begun to stop.
func (srv *Server) Stopping() bool { return srv.isDraining() || srv.lingers.Load() }

// Disable refuses new clients that ask for a name, or lets them in again. Those that are in stay.
func (srv *Server) Disable(of Names, disabled bool) error {
	all, err := srv.named(of.Name, of.Known)
	if err != nil {
		return err
	}
	for _, at := range all {
		at.mu.Lock()
		at.mu.disabled = disabled
		at.mu.Unlock()
	}
	return nil
}

// Reconnect closes the connections that serve a name: idle ones now, others when their sessions let them
// go.
func (srv *Server) Reconnect(of Names) {
	srv.pool.Retire(func(k pool.Key) bool { return of.Name == "" || k.Entry == of.Name })
}

// Kill ends all sessions that asked for a name, with what they are doing, and the connections that serve it; those
// that come later are held until Resume. It waits for the sessions to end, at most until ctx does.
func (srv *Server) Kill(ctx context.Context, of Names) error {
	all, _, err := srv.shutDoors(of)
	if err != nil {
		return err
	}
	var victims []*session
	for _, at := range all {
		victims = append(victims, at.members()...)
	}
	err = srv.end(ctx, victims)
	srv.Reconnect(of)
	return err
}

// KillClient ends the session of that pid, and waits until it is gone, at most until ctx ends.
func (srv *Server) KillClient(ctx context.Context, pid uint32) error {
	s := srv.keys.session(pid)
	if s == nil {
		cs := srv.keys.console(pid)
		if cs == nil {
			return ErrUnknownClient
		}
		cs.kill()
		return nil
	}
	return srv.end(ctx, []*session{s})
}

// How long a session that is killed may take for its farewell before its socket is closed, and how often it is woken: it
// may be setting a deadline of its own in the moment in which it is.
const (
	killGrace = goodbye
	killAgain = 50 * time.Millisecond
)

// end kills sessions and waits for their end. What they run on a node is cancelled there.
func (srv *Server) end(ctx context.Context, victims []*session) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range victims {
		s.cancel(errKilled)
		if l := s.occupied(); l != nil {
			wg.Go(func() { srv.stop(ctx, s, l) })
		}
	}
	began := time.Now()
	for {
		var left []*session
		for _, s := range victims {
			if srv.keys.session(s.pid.Load()) == s {
				left = append(left, s)
			}
		}
		if len(left) == 0 {
			return nil
		}
		victims = left
		for _, s := range left {
			_ = s.client.SetReadDeadline(past)
			_ = s.client.SetWriteDeadline(time.Now().Add(goodbye))
			if time.Since(began) > killGrace {
				_ = s.client.Close()
			}
		}
		if err := awaitEnd(ctx, left[0]); err != nil {
			return &StillHeld{Sessions: len(left), Err: err}
		}
	}
}

// awaitEnd waits for a session to leave, or for a moment.
func awaitEnd(ctx context.Context, s *session) error {
	_, quieter := s.door.holders()
	timer := time.NewTimer(killAgain)
	defer timer.Stop()
	select {
	case <-quieter:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// stop closes the socket of a lease on which something runs for a session, so that the session hears of its end, and cancels
// that on the node. The session's context is over: it sends nothing more on the lease, and nobody else gets it.
func (srv *Server) stop(ctx context.Context, s *session, l *lease) {
	l.cancelling.Lock()
	if s.running.Load() != l && s.asking.Load() != l {
		l.cancelling.Unlock()
		return
	}
	l.closed = true
	l.cancelling.Unlock()
	_ = l.conn.Link.Close()
	ctx, cancel := context.WithTimeout(ctx, s.target.CancelTimeout)
	defer cancel()
	if err := l.conn.Cancel(ctx); err != nil {
		srv.log.Warn("cancel", "cluster", s.cluster.Name, "node", l.node.Name, "error", err)
	}
}
