package health

import (
	"fmt"
	"time"
)

// mark is a position on a timeline.
type mark struct {
	Timeline uint32
	Position lsn
}

// after says whether m lies behind o on one line of descent.
func (m mark) after(o mark) bool {
	return m.Timeline > o.Timeline || m.Timeline == o.Timeline && m.Position > o.Position
}

// facts is everything known of one node. It is changed only by answered, failed, freshFailed and
// by what people order; what follows from it is decided elsewhere.
type facts struct {
	id   int
	cfg  NodeConfig
	live *Live
	gone int64 // Clock when it left the configuration or the discovery, 0 while it is there

	obs      *observation // newest answer, nil before the first
	evidence int64        // Clock at the sending of the newest answer that agrees with obs
	score    int          // missed probes since the last answer, by weight
	misses   int          // the same, unweighted
	oks      int          // answers in a row
	last     failure      // newest miss
	down     bool
	downAt   int64 // Clock when it went down
	missedAt int64 // Clock of the first miss in a row
	contact  int64 // Clock when its host last answered anything
	noFresh  int   // new connections in a row that timed out

	member   bool   // was seen as a standby of the line, or was its primary
	watched  bool   // member by what this process saw itself
	server   int64  // start of the server last seen as a standby of the line, 0 for none
	serverOn uint32 // the timeline it was on then
	received mark   // furthest position received as a standby of the line
	replayed mark   // the same, replayed: always at the end of a record
	rival    bool   // was writable on the line's own timeline beside its primary
	outvoted bool   // ACCEPT chose another node while this one was writable
	writable int64  // Clock when this server was first seen writable, 0 while it is not
	manual   bool   // quarantined by a person
	drained  bool   // drained by a person
	shown    Role   // what traffic was told last
	several  int64
	severalT string // what showed that the address answers for several servers, 0 and "" if it does not
	starts   [2]seenStart
}

// seenStart is when a server that started at start last answered.
type seenStart struct {
	start  int64
	server string
	sent   int64 // Clock at the sending of its newest answer
}

// severalHold is for how long an address is refused after it last answered for several servers.
const severalHold = int64(60 * time.Second)

// answered takes an answered probe.
func (f *facts) answered(o *observation, rise int, now int64) {
	f.identify(o)
	if f.obs != nil && o.sent < f.obs.sent {
		return
	}
	if f.obs != nil && (f.obs.start != o.start || f.obs.recovery != o.recovery) {
		f.evidence = 0
	}
	switch {
	case o.recovery:
		f.writable = 0
	case f.writable == 0, f.obs != nil && f.obs.start != o.start:
		f.writable = now
	}
	if o.timeline == 0 && f.obs != nil && f.obs.start == o.start && f.obs.recovery && o.recovery {
		o.timeline = f.obs.timeline // a lower bound stays one while the server lives
	}
	f.obs = o
	f.evidence = max(f.evidence, o.sent)
	f.contact = max(f.contact, o.sent)
	f.score, f.misses, f.missedAt = 0, 0, 0
	f.oks++
	if f.down && f.oks >= rise {
		f.down, f.downAt = false, 0
	}
	if o.recovery {
		f.rival, f.outvoted = false, false
	}
}

// identify notices that two servers answer at one address: one that started at another time
// answered a question that was asked after the first had answered, and then the first answers again.
// A restart cannot do that.
func (f *facts) identify(o *observation) {
	cur, old := &f.starts[0], &f.starts[1]
	switch {
	case cur.start == o.start:
		if o.sent > cur.sent {
			cur.sent = o.sent
		}
	case old.start == o.start && o.sent > cur.sent && cur.sent != 0:
		f.several = o.sent
		f.severalT = fmt.Sprintf("answers for several servers (started %s%s and %s%s); name the servers themselves, or discover: dns://%s",
			microseconds(cur.start), inBrackets(cur.server), microseconds(o.start), inBrackets(o.server), f.cfg.addr())
		f.starts[0], f.starts[1] = seenStart{o.start, o.server, o.sent}, f.starts[0]
	case o.sent >= cur.sent:
		f.starts[0], f.starts[1] = seenStart{o.start, o.server, o.sent}, f.starts[0]
	}
}

// inBrackets is " [s]", or nothing.
func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " [" + s + "]"
}

// refused says whether the address answered for several servers lately.
func (f *facts) refused(now int64) bool { return f.several != 0 && now-f.several < severalHold }

// failed takes a missed probe.
func (f *facts) failed(miss failure, fall int, now int64) {
	f.last = miss
	f.oks = 0
	f.misses++
	f.score += miss.weight(fall)
	if f.missedAt == 0 {
		f.missedAt = now
	}
	if miss.hostAnswers() {
		f.contact = now
	}
	if f.score >= fall && !f.down {
		f.down, f.downAt = true, now
		f.evidence = 0
	}
}

// freshFailed takes the outcome of a new connection made beside the probe's own. Only silence
// counts: it is what a hung postmaster shows while its old connections work.
func (f *facts) freshFailed(miss *failure) {
	if miss == nil || miss.kind != failTimeout {
		f.noFresh = 0
		return
	}
	f.noFresh++
	f.last = *miss
}

// trusted says whether the newest answer was sent within the trust window.
func (f *facts) trusted(now int64, window time.Duration) bool {
	return f.evidence > 0 && now-f.evidence <= int64(window)
}

// health is the node's state by its probes alone, before lag and role are looked at.
func (f *facts) health(now int64, cfg *Config) State {
	switch {
	case f.refused(now), f.down:
		return StateDown
	case f.obs == nil:
		return StateUnknown
	case f.misses > 0, f.noFresh >= cfg.Fall, !f.trusted(now, cfg.TrustWindow):
		return StateSuspect
	case f.drained, f.gone != 0, f.manual:
		return StateDraining
	}
	return StateUp
}

// words is the node's state for people.
func (f *facts) words(state State, now int64) string {
	switch {
	case f.refused(now):
		return f.severalT
	case state == StateDown:
		return fmt.Sprintf("down %s (%s)", ago(now-f.downAt), f.last.text)
	case state == StateUnknown && f.misses > 0:
		return "no answer yet (" + f.last.text + ")"
	case state == StateUnknown:
		return "not asked yet"
	case state == StateSuspect && f.misses > 0:
		return fmt.Sprintf("suspect since %s (%s)", ago(now-f.missedAt), f.last.text)
	case state == StateSuspect && f.noFresh >= 1:
		return "new connections time out (" + f.last.text + ")"
	case state == StateSuspect:
		return fmt.Sprintf("no answer for %s", ago(now-f.evidence))
	case f.manual:
		return "quarantined by QUARANTINE"
	case f.gone != 0:
		return "left the configuration " + ago(now-f.gone) + " ago"
	case f.drained:
		return "draining"
	}
	return ""
}

// ago is a span for people: tenths below ten seconds, then whole seconds.
func ago(ns int64) string {
	if ns < 0 {
		ns = 0
	}
	d := time.Duration(ns)
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	if d < 10*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Truncate(time.Minute).String()
}

// follow remembers how far the node was seen to receive as a standby of the line on timeline line
// of system; 0 for both before there is a line.
func (f *facts) follow(system uint64, line uint32) {
	o := f.obs
	if o == nil || !o.recovery || o.received == 0 || o.timeline == 0 {
		return
	}
	if system != 0 && o.system != system || line != 0 && o.timeline > line {
		return
	}
	f.member, f.watched = true, true
	f.server, f.serverOn = o.start, o.timeline
	if m := (mark{o.timeline, o.received}); m.after(f.received) {
		f.received = m
	}
	if m := (mark{o.timeline, o.replayed}); m.after(f.replayed) {
		f.replayed = m
	}
}
