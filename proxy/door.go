package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgweir/health"
)

// door is what the sessions have in common that asked for one database by one name: whether they may take
// connections to nodes now, and what they have done.
//
// A session that wants its first connection says that it holds one, and then looks whether the door is shut; whoever
// shuts it does so first, and then looks who holds. One of them sees the other, whatever the order, and no lock is taken
// by a session that finds the door open.
type door struct {
	name string
	shut atomic.Bool
	mu   struct {
		sync.Mutex
		sessions map[*session]struct{}
		ended    Usage         // of sessions that are gone
		opened   chan struct{} // closed when the door is opened; nil while it is not shut
		quieter  chan struct{} // closed when a session lets its last connection go, or leaves; nil: nobody waits for it
		disabled bool          // new clients are refused
	}
}

// doors are the doors of a server by their name.
type doors struct {
	mu struct {
		sync.Mutex
		byName map[string]*door
		shut   bool // those to come are shut too
	}
}

// newDoors has no doors yet.
func newDoors() *doors {
	d := &doors{}
	d.mu.byName = make(map[string]*door)
	return d
}

// enter lets a session in by the door that its database's name stands for. The error is a *loginProblem.
func (d *doors) enter(s *session) error {
	s.figures.since = health.Clock()
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.make(s.target.Entry)
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.mu.disabled {
		return &loginProblem{&problem{
			code: codeNotReady, message: fmt.Sprintf("database %q is not currently accepting connections", at.name),
			detail: "An administrator has disabled it on the console of pgweir.",
		}}
	}
	s.door = at
	at.mu.sessions[s] = struct{}{}
	return nil
}

// make is the door of a name. The lock is held.
func (d *doors) make(name string) *door {
	at := d.mu.byName[name]
	if at == nil {
		at = &door{name: name}
		at.mu.sessions = make(map[*session]struct{})
		d.mu.byName[name] = at
		if d.mu.shut {
			at.close()
		}
	}
	return at
}

// leave takes a session that ends out; a door by which nothing was ever done goes with its last one.
func (d *doors) leave(s *session) {
	at := s.door
	if at == nil {
		return
	}
	s.publish()
	d.mu.Lock()
	defer d.mu.Unlock()
	at.mu.Lock()
	defer at.mu.Unlock()
	delete(at.mu.sessions, s)
	at.mu.ended.add(s.figures.usage())
	at.wake()
	if len(at.mu.sessions) == 0 && at.mu.ended.Queries == 0 && at.mu.opened == nil && !at.mu.disabled {
		delete(d.mu.byName, at.name)
	}
}

// all is every door.
func (d *doors) all() []*door {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.mu.byName))
}

// wake tells whoever waits for the door to become quieter. The lock is held.
func (at *door) wake() {
	if at.mu.quieter != nil {
		close(at.mu.quieter)
		at.mu.quieter = nil
	}
}

// close shuts the door; false when it was shut already.
func (at *door) close() bool {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.mu.opened != nil {
		return false
	}
	at.mu.opened = make(chan struct{})
	at.shut.Store(true)
	return true
}

// open opens the door; false when it was not shut.
func (at *door) open() bool {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.mu.opened == nil {
		return false
	}
	at.shut.Store(false)
	close(at.mu.opened)
	at.mu.opened = nil
	return true
}

// opening is closed when the door is opened; nil when it is open.
func (at *door) opening() <-chan struct{} {
	at.mu.Lock()
	defer at.mu.Unlock()
	return at.mu.opened
}

// holders is how many sessions hold connections, and what is closed when there may be fewer.
func (at *door) holders() (n int, quieter <-chan struct{}) {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.mu.quieter == nil {
		at.mu.quieter = make(chan struct{})
	}
	for s := range at.mu.sessions {
		if s.figures.holding.Load() {
			n++
		}
	}
	return n, at.mu.quieter
}

// members are the sessions that came in by the door.
func (at *door) members() []*session {
	at.mu.Lock()
	defer at.mu.Unlock()
	out := make([]*session, 0, len(at.mu.sessions))
	for s := range at.mu.sessions {
		out = append(out, s)
	}
	return out
}

// usage is what all sessions have done that ever came in by the door.
func (at *door) usage() Usage {
	at.mu.Lock()
	defer at.mu.Unlock()
	u := at.mu.ended
	for s := range at.mu.sessions {
		u.add(s.figures.usage())
	}
	return u
}

// pass waits until the session may take a connection: one that holds another is never stopped. The error is a
// *shutError or the context's.
func (s *session) pass(ctx context.Context) error {
	f := &s.figures
	f.holding.Store(true)
	for s.door.shut.Load() && s.atHand() == nil {
		opened := s.door.opening()
		if opened == nil {
			continue
		}
		s.letGo()
		if err := s.awaitOpen(ctx, opened); err != nil {
			return err
		}
		f.holding.Store(true)
	}
	return nil
}

// awaitOpen waits for a shut door to be opened, as long as a statement may wait for a connection.
func (s *session) awaitOpen(ctx context.Context, opened <-chan struct{}) error {
	began := s.figures.waits()
	defer s.figures.served(began)
	limit, why := s.waitLimit()
	over, stop := after(limit)
	defer stop()
	select {
	case <-opened:
		return nil
	case <-s.canceled:
		return &shutError{problemCanceled()}
	case <-over:
		if errors.Is(why, errWaitStatement) {
			return &shutError{problemStatementTimeout()}
		}
		return &shutError{problemPaused(s.target.Entry, time.Duration(health.Clock()-began))}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// letGo says that the session holds no connection any more, if that is so.
func (s *session) letGo() {
	if s.atHand() != nil {
		return
	}
	s.figures.holding.Store(false)
	if s.door.shut.Load() {
		s.door.mu.Lock()
		s.door.wake()
		s.door.mu.Unlock()
	}
}

// shutError is a door that stayed shut for as long as the session could wait.
type shutError struct{ problem *problem }

func (e *shutError) Error() string { return e.problem.message }

// problemPaused is a statement that came while its database was paused, and waited as long as it may.
func problemPaused(name string, waited time.Duration) *problem {
	return &problem{
		code: codeCannotConnect, message: fmt.Sprintf("database %q is paused", name),
		detail: fmt.Sprintf("The statement waited for %s and was not sent.", waited.Round(time.Millisecond)),
		hint:   "An administrator has paused it on the console; RESUME lets statements go on.",
	}
}

// after is time.After with a way to stop it; for 0 it never comes.
func after(d time.Duration) (<-chan time.Time, func() bool) {
	if d <= 0 {
		return nil, func() bool { return false }
	}
	t := time.NewTimer(d)
	return t.C, t.Stop
}
