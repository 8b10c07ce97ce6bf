package proxy

import (
	"errors"
	"sync"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/router"
)

// errTunnelEnded is the normal end of a replication connection.
var errTunnelEnded = errors.New("replication connection ended")

// tunnel carries a replication connection: its own login on the primary, and from then on bytes in both
// directions that nobody looks at. The connection is never pooled. The error ends the client's connection.
func (s *session) tunnel(st *pgwire.Startup) error {
	value := "true"
	if st.Replication == pgwire.ReplicationDatabase {
		value = "database"
	}
	s.startsWith(pgwire.Param{Name: "replication", Value: value})
	if s.name.ok {
		s.startsWith(pgwire.Param{Name: nameSetting, Value: s.name.name}) // synchronous_standby_names may speak of it
	}
	var try attempt
	var l *lease
	for l == nil {
		d := s.toPrimary(s.cluster.Monitor.Snapshot(), health.Clock(), router.ReasonTransaction)
		if d.Node == nil {
			if p := s.hold(&try); p != nil {
				return p.asLogin()
			}
			continue
		}
		var err error
		if l, err = s.leaseOf(d.Node); err != nil {
			if p := s.notConnected(d, err, &try); p != nil {
				return p.asLogin()
			}
		}
	}
	var out []byte
	for _, p := range l.conn.Params {
		out = pgwire.AppendParameterStatus(out, p.Name, p.Value)
	}
	out = pgwire.AppendBackendKeyData(out, s.pid.Load(), s.secret)
	out = pgwire.AppendReadyForQuery(out, byte(txIdle))
	if err := s.client.Write(out); err != nil {
		return err
	}
	if err := s.client.SetDeadline(time.Time{}); err != nil {
		return err
	}
	l.begin(s)
	defer s.running.Store(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = pump(s.client, l.conn.Link)
		_ = s.client.SetReadDeadline(past)
	})
	err := pump(l.conn.Link, s.client)
	_ = l.conn.Link.Close()
	wg.Wait()
	s.giveUp(l)
	if isTimeout(err) && s.ctx.Err() == nil && !s.srv.isDraining() {
		err = errTunnelEnded // the node ended it
	}
	return err
}

// pump copies everything from one link to the other until either breaks; the end of the
// stream is io.EOF.
func pump(to, from *pgwire.Link) error {
	for {
		if b := from.Buffered(); len(b) > 0 {
			if err := to.Write(b); err != nil {
				return err
			}
			from.Discard(len(b))
		}
		if err := from.Fill(); err != nil {
			return err
		}
	}
}
