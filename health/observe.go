package health

import (
	"strings"
	"time"
)

// capability is one group of things that a server can be asked, found out at first contact.
type capability uint16

// The capabilities; what a missing one costs stands in doc.go.
const (
	canIdentity     capability = 1 << iota // pg_control_system
	canPositions                           // WAL positions
	canTimeline                            // the timeline that a primary writes
	canReceiver                            // pg_stat_wal_receiver
	canControl                             // pg_control_checkpoint, pg_control_recovery
	canSnapshot                            // pg_current_snapshot
	canSettings                            // pg_db_role_setting
	allCapabilities = canIdentity | canPositions | canTimeline | canReceiver | canControl | canSnapshot | canSettings
)

// lacking names what is missing in c, "" for nothing.
func (c capability) lacking() string {
	var parts []string
	for _, k := range []struct {
		one  capability
		name string
	}{
		{canIdentity, "the system identifier"},
		{canPositions, "WAL positions"},
		{canTimeline, "the primary's timeline"},
		{canReceiver, "the WAL receiver"},
		{canControl, "the control file"},
		{canSnapshot, "transaction snapshots"},
		{canSettings, "role settings"},
	} {
		if c&k.one == 0 {
			parts = append(parts, k.name)
		}
	}
	return strings.Join(parts, ", ")
}

// fork is where a timeline of a history ended.
type fork struct {
	timeline uint32
	end      lsn
}

// observation is one answered probe.
type observation struct {
	sent      int64 // Clock when the probe was sent
	version   int
	recovery  bool
	readOnly  bool // a writable node that says transaction_read_only = on
	system    uint64
	start     int64  // postmaster's start, microseconds of Unix time
	server    string // the address that the server itself sees, "" over a Unix socket
	timeline  uint32 // on a standby a lower bound; 0 unknown
	previous  uint32 // the timeline before it, as the last checkpoint says; 0 unknown
	history   []fork // of a writable node's timeline, oldest first
	forks     bool   // history is known
	flush     lsn
	received  lsn // 0: never streamed since the server started
	replayed  lsn
	paused    bool
	receiving bool // a WAL receiver is at work
	follows   uint32
	sender    string // host of the primary as the standby knows it
	senderAt  int    // its port
	latestEnd lsn    // newest position that the sender told
	lastMsg   int64  // age of the sender's last message by the standby's own clock, nanoseconds; -1 unknown
	can       capability
	settings  string // settingsExpr, "" unknown
}

// forkOf is where timeline ended in the history of o.
func (o *observation) forkOf(timeline uint32) (lsn, bool) {
	for _, f := range o.history {
		if f.timeline == timeline {
			return f.end, true
		}
	}
	return 0, false
}

// writable says whether o is a server outside of recovery.
func (o *observation) writable() bool { return o != nil && !o.recovery }

// failKind says what a missed probe proves.
type failKind uint8

// The kinds of failure.
const (
	failTimeout failKind = iota // silence: a time-out, no route
	failRefused                 // the host answers, nobody listens
	failUnready                 // the server says that it cannot take connections now (57P03)
	failLogin                   // it answers, but not to us: authentication, rights, no free slot
	failName                    // the name could not be looked up
	failBroken                  // the connection ended, or something else than PostgreSQL answered
)

// failure is one missed probe.
type failure struct {
	kind failKind
	text string // in words, for Detail
}

// hostAnswers says whether the failure shows that the node's host is reachable (rule 8).
func (f failure) hostAnswers() bool {
	switch f.kind {
	case failRefused, failUnready, failLogin, failBroken:
		return true
	case failTimeout, failName:
		return false
	}
	return false
}

// weight is how much the failure counts towards fall: two refused connections are enough, a login
// that fails or a name that is not found is no evidence of death.
func (f failure) weight(fall int) int {
	switch f.kind {
	case failRefused:
		return (fall + 1) / 2
	case failLogin, failName:
		return 0
	case failTimeout, failUnready, failBroken:
		return 1
	}
	return 1
}

// microseconds is a time for people from microseconds of Unix time.
func microseconds(us int64) string {
	return time.UnixMicro(us).UTC().Format("2006-01-02 15:04:05.000")
}
