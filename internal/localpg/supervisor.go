package localpg

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Supervisor is a small cluster manager for one Cluster: it watches the primary, and when that is
// dead promotes the standby that received most, points the others at it and brings the old
// primary back as a standby. It acts as an outsider would and knows nothing of any proxy. Since it
// owns the processes it fences a hung primary by killing it before it promotes.
type Supervisor struct {
	cfg SupervisorConfig
	c   *Cluster
}

// SupervisorConfig says how patient a Supervisor is and whom it tells.
type SupervisorConfig struct {
	Interval time.Duration // between two looks at a primary whose process lives; 0: 500 ms
	Fall     int           // looks without an answer, each a second or an Interval long, until a living primary counts as hung; 0: 6
	Rejoin   bool          // bring dead nodes back as standbys
	Say      func(string)  // told each step in a sentence; nil: nobody. Called from Run's goroutine
}

// NewSupervisor makes a supervisor; Run starts it.
func NewSupervisor(c *Cluster, cfg SupervisorConfig) *Supervisor {
	if cfg.Interval <= 0 {
		cfg.Interval = 500 * time.Millisecond
	}
	if cfg.Fall <= 0 {
		cfg.Fall = 6
	}
	if cfg.Say == nil {
		cfg.Say = func(string) {}
	}
	return &Supervisor{cfg: cfg, c: c}
}

// Run watches until ctx ends, which is no error. An error means that the cluster needs a person.
func (s *Supervisor) Run(ctx context.Context) error {
	primary, err := s.c.Primary(ctx)
	if err != nil {
		return err
	}
	for {
		if err := s.watch(ctx, primary); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		next, err := s.failover(ctx, primary)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		primary = next
	}
}

// watch returns when the primary is dead (or ctx ended). Meanwhile it brings dead standbys back.
func (s *Supervisor) watch(ctx context.Context, primary *Node) error {
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	missed := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-primary.Ended():
			s.say("%s (port %d), the primary, is dead", primary.Name, primary.Port())
			return nil
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, max(s.cfg.Interval, time.Second))
		_, err := primary.Value(ask, "postgres", "SELECT 1")
		cancel()
		switch {
		case err == nil:
			missed = 0
			if s.cfg.Rejoin {
				s.rejoin(ctx, primary)
			}
		case ctx.Err() != nil:
			return nil
		default:
			missed++
		}
		if missed >= s.cfg.Fall && primary.Running() {
			s.say("%s (port %d), the primary, has not answered %d times: it is killed, so that it cannot come back writable", primary.Name, primary.Port(), missed)
			return primary.Kill9()
		}
	}
}

// failover promotes the best standby and returns it.
func (s *Supervisor) failover(ctx context.Context, dead *Node) (*Node, error) {
	best, err := s.furthest(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	s.say("promoting %s (port %d), which received most", best.Name, best.Port())
	if err := best.Promote(ctx); err != nil {
		return nil, err
	}
	s.say("%s (port %d) is the primary now, after %d ms", best.Name, best.Port(), time.Since(began).Milliseconds())
	var errs []error
	for _, n := range s.c.Nodes {
		if n != best && n != dead && n.Running() && !n.Paused() {
			if err := n.Follow(ctx, best); err != nil {
				errs = append(errs, fmt.Errorf("point %s at %s: %w", n.Name, best.Name, err))
				continue
			}
			s.say("%s (port %d) follows %s", n.Name, n.Port(), best.Name)
		}
	}
	return best, errors.Join(errs...)
}

// furthest waits until the standbys receive nothing any more and returns the one that has most;
// of equals the one with the lowest ID.
func (s *Supervisor) furthest(ctx context.Context) (*Node, error) {
	var best *Node
	var most LSN
	for _, n := range s.c.Nodes {
		if !n.Running() || n.Paused() {
			continue
		}
		if rec, err := n.InRecovery(ctx); err != nil || !rec {
			continue
		}
		err := poll(ctx, func(ctx context.Context) (string, error) {
			v, err := n.Value(ctx, "postgres", "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'")
			if err == nil && v != "0" {
				return fmt.Sprintf("wait for the receiver of %s to end", n.Name), nil
			}
			return "", err
		})
		if err != nil {
			return nil, err
		}
		at, err := n.Received(ctx)
		if err != nil {
			return nil, err
		}
		if best == nil || at > most {
			best, most = n, at
		}
	}
	if best == nil {
		return nil, errors.New("choose a standby to promote: none is running")
	}
	return best, nil
}

// rejoin brings one dead node back as a standby of primary, if there is one.
func (s *Supervisor) rejoin(ctx context.Context, primary *Node) {
	for _, n := range s.c.Nodes {
		if n == primary || n.Running() {
			continue
		}
		how, err := n.Rejoin(ctx, primary)
		if err != nil {
			s.say("%s (port %d) could not be brought back: %v", n.Name, n.Port(), err)
			return
		}
		s.say("%s (port %d) is back as a standby of %s, by %s", n.Name, n.Port(), primary.Name, how)
		return
	}
}

// say tells one step.
func (s *Supervisor) say(format string, args ...any) { s.cfg.Say(fmt.Sprintf(format, args...)) }
