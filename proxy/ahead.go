package proxy

import (
	"context"
	"slices"
	"time"

	"pgweir/health"
	"pgweir/internal/pgwire"
	"pgweir/router"
)

// prelude is the SQL that goes in front of a chunk, in the same write and as a unit of its own, to bring its lease up to
// the session's settings.
type prelude struct {
	sql string    // "" when there is none
	set *settings // what the lease has behind it
}

// travelling are the settings that may go ahead of a chunk without their answer being waited for. The node runs the chunk even
// where it has refused them, so a wrong value of them must not change what a statement means, may do, or makes durable; and they
// can hardly be refused: anybody may set them, to a value that a node has taken from this session before.
var travelling = []string{
	nameSetting, "client_min_messages", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
}

// unhurried is the shortest statement_timeout under which a few SET are believed to end in time on any machine.
const unhurried = time.Second

// travels says whether all that the lease lacks of the session's settings may go ahead of the chunk.
func (s *session) travels(c *chunk, l *lease) bool {
	if s.careful || l.unsure || c.rest > 0 || c.end != endSync && c.end != endQuery && c.end != endFlush {
		return false
	}
	from, to := l.set, s.st.set
	for _, set := range []*settings{from, to} {
		for i := range set.pairs {
			name := set.pairs[i].name
			if a, had := from.get(name); slices.Contains(travelling, name) {
				continue
			} else if b, ok := to.get(name); had != ok || a != b {
				return false
			}
		}
		v, ok := set.get("statement_timeout")
		if !ok {
			v = s.base.setting("statement_timeout")
		}
		if d := parseTimeout(unquote(v)); d > 0 && d < unhurried {
			return false
		}
	}
	return true
}

// goesAhead puts what is to go ahead in front of the chunk.
func (k *composer) goesAhead(a prelude) {
	if a.sql == "" {
		return
	}
	k.out = pgwire.AppendQuery(k.out, a.sql)
	k.touched = true
	k.r.push(expectation{typ: pgwire.MsgQuery, kind: byte(txIdle), swallow: true, set: a.set})
	k.setPlan("", 0)
}

// notSet takes the error that a node answers what went ahead with. The chunk runs all the same: the answer of a read is thrown
// away and asked for again, that of anything else is the client's, behind a warning.
func (r *relay) notSet(report []byte, v *pgwire.ErrorView) {
	r.unset = append([]byte{}, report...)
	r.canceled = string(v.Code) == codeCanceled
	if r.anew && !r.seen {
		r.discard = true
		r.withdraw()
		return
	}
	r.recancel = r.canceled
	r.instead = pgwire.AppendNotice(nil, pgwire.Report{
		Severity: "WARNING", Code: "01000", Message: "settings of the session were not in force for this statement",
		Detail: string(v.Message), Hint: "They are set before the next statement, or its error says why they cannot be.", Routine: routine,
	})
}

// setAhead records that what went ahead is in force, and returns what the client is to hear of it.
func (r *relay) setAhead(set *settings) {
	if r.unset != nil {
		return
	}
	r.l.set = set
	r.instead = r.s.reported()
}

// cancelAgain passes a cancel request on that has hit what went ahead of the client's statement, and not the statement.
func (r *relay) cancelAgain() {
	r.recancel = false
	ctx, cancel := context.WithTimeout(r.s.ctx, r.s.target.CancelTimeout)
	defer cancel()
	if err := r.l.conn.Cancel(ctx); err != nil {
		r.s.srv.log.Warn("cancel", "cluster", r.s.cluster.Name, "node", r.l.node.Name, "error", err)
	}
}

// sendAgain sees to a read whose settings were refused when they went ahead of it: they are set by themselves now, and the answer
// to that is the client's to hear. A cancel that has hit them was meant for the read.
func (s *session) sendAgain(c *chunk, l *lease) (again bool, err error) {
	r := s.relaying()
	s.pending = s.pending[:0]
	s.careful = true
	l.used = health.Clock()
	if !s.boundTo(l) {
		s.giveUp(l)
	}
	if r.canceled {
		return false, s.refuse(c, &problem{raw: r.unset})
	}
	return true, nil
}

// doubtSettings notes that nobody knows what is SET on the lease.
func (s *session) doubtSettings(l *lease) {
	s.careful = true
	l.unsure = true
}

// closeUnsure closes a lease of which nobody knows what is SET on it as soon as nothing binds the session to it. One that is
// kept is told everything before the next statement.
func (s *session) closeUnsure(l *lease) {
	if l.unsure && s.st.tx == txIdle && s.batch == nil && !s.boundTo(l) {
		s.giveUp(l)
	}
}

// boundTo says whether the session would lose something with a lease that is between transactions.
func (s *session) boundTo(l *lease) bool {
	return l == s.leases[slotPrimary] && (s.st.held() != router.PinNone || len(s.doubts) > 0)
}
