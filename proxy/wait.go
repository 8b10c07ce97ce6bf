package proxy

import (
	"context"
	"errors"
	"strings"
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
func (s *session) waitFor(ctx context.Context, node *health.Node) (*pool.Conn, error) {
	limit, why := s.waitLimit()
	spec := &pool.Spec{
		Key: pool.Key{
			Cluster: s.cluster.Name, Node: node.ID, Entry: s.target.Entry, Database: s.target.Database, User: s.user, Startup: s.startupKey,
		},
		Target: pool.Target{Addr: node.Addr, Host: node.Host, TLS: s.cluster.NodeTLS}, NodeName: node.Name,
		Keys: *s.keys, Params: s.startupParams, OpenedMark: s.cluster.Monitor.Fence().Mark, Ranker: s,
		Patience: pool.Patience{
			Limit: limit, Over: why, Notify: s.target.WaitNotify, Notice: s.tellWait, Cancel: s.canceled, Canceled: errWaitCanceled,
			Nudge:  s.nudge,
			AtOnce: s.atOnce,
		},
		Home: &s.homes[slotOf(node)],
	}
	began := s.figures.waits()
	defer s.figures.served(began)
	return s.srv.pool.Get(ctx, spec)
}

// tellWait tells the client that it waits.
func (s *session) tellWait() {
	if s.hears("notice") {
		_ = s.client.Write(waitNotice()) // if the client is gone, its session will find out
	}
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
