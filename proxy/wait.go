package proxy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/proxy/pool"
)

// Why a wait for a connection ended.
var (
	errWaitOver      = errors.New("query_wait_timeout")
	errWaitStatement = errors.New("statement_timeout")
	errWaitCanceled  = errors.New("cancel request")
)

// waitFor is a connection that has to be opened or waited for: up to query_wait_timeout or the client's
// statement_timeout, both from when its statement began, and until a cancel comes.
func (s *session) waitFor(ctx context.Context, spec *pool.Spec) (*pool.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.watchWait(ctx, cancel) })
	began := s.figures.waits()
	defer s.figures.served(began)
	conn, err := s.srv.pool.Get(ctx, *spec)
	cancel(nil)
	wg.Wait()
	return conn, err
}

// watchWait ends a wait when its time has come, and tells the client of a long one.
func (s *session) watchWait(ctx context.Context, end context.CancelCauseFunc) {
	limit, why := s.waitLimit()
	over, stop := after(limit)
	defer stop()
	notify, stopNotify := after(s.target.WaitNotify)
	defer stopNotify()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			end(why)
		case <-s.canceled:
			end(errWaitCanceled)
		case <-notify:
			if s.hears("notice") {
				_ = s.client.Write(waitNotice()) // if the client is gone, its session will find out
			}
		}
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

// waitLimit is how much longer a statement may wait for a connection, and what ends it then; 0: without end.
func (s *session) waitLimit() (time.Duration, error) {
	limit, why := s.target.WaitTimeout, errWaitOver
	if t := s.statementTimeout(); t > 0 && (limit == 0 || t < limit) {
		limit, why = t, errWaitStatement
	}
	if limit > 0 && s.began > 0 {
		limit = max(limit-time.Duration(health.Clock()-s.began), 1)
	}
	return limit, why
}

// waitNotice tells a client that its statement waits.
func waitNotice() []byte {
	return pgwire.AppendNotice(nil, pgwire.Report{
		Severity: "NOTICE", Code: "00000", Message: "no connection to a server is free, the statement is waiting", Routine: routine,
	})
}

// hears says whether the client's client_min_messages lets a message through.
func (s *session) hears(level string) bool {
	switch strings.ToLower(unquote(s.setting("client_min_messages"))) {
	case "warning", "error", "fatal", "panic":
		return level != "notice"
	}
	return true
}
