package router

import (
	"time"

	"pgweir/health"
)

// RouteMode is the setting route (behaviour.md §2, "Switching it on").
type RouteMode uint8

// The modes.
const (
	RouteAuto RouteMode = iota
	RoutePrimary
	RouteShadow
	RouteStandby
)

// Consistency is the setting consistency (freshness.md, "Levels").
type Consistency uint8

// The levels.
const (
	ConsistencyApplication Consistency = iota
	ConsistencyEventual
	ConsistencySession
	ConsistencyGlobal
)

// ReadsOnPrimary is what happens to reads when no standby is fresh in time.
type ReadsOnPrimary uint8

// The values of reads_on_primary.
const (
	ReadsFallback ReadsOnPrimary = iota
	ReadsShare
	ReadsNever
)

// View is what routing needs to know of a session. It is passed by value and holds no lock.
type View struct {
	Mode           RouteMode
	ListenerMode   RouteMode // the listener's own route: standby ignores primary hints
	Override       bool      // the console's SET route: Mode stands above every hint
	Offloaded      bool      // false: the session is outside the offload percentage
	SessionHint    Hint      // SET pgweir.route or the startup option
	Consistency    Consistency
	OnPrimary      ReadsOnPrimary
	Pinned         Pin
	UnsafeEncoding bool
	Serializable   bool // default_transaction_isolation is serializable in this session
	// Need is the smallest fresh-as-of number a standby may serve with: its fence must be above it.
	Need uint64
	// LastRead is the node that answered the session's last read, and since when; that node
	// needs only NeedOwn as long as its incarnation is LastReadInc. nil when there is none.
	LastRead    *health.Node
	LastReadInc uint64
	NeedOwn     uint64
	ReadFrom    []string // tags, any of which a reading node must have; nil: all
	PreferZone  string   // "" when no zone is preferred
	MaxLagBytes int64
	// MaxLagTime is max_lag in time, for the level eventual; 0: not limited, like MaxLagBytes.
	MaxLagTime time.Duration
	// LocalHint is SET LOCAL pgweir.route of the transaction, the strongest hint.
	LocalHint Hint
	// ReadOnly: the session's transactions are read-only by default, a plain BEGIN included.
	ReadOnly bool
	// FreshnessWait is how much longer the unit may wait for a sample; 0 when it has waited.
	FreshnessWait time.Duration
	Avoid         uint64       // bit set of node IDs (mod 64) already tried for this unit
	Held          *health.Node // a standby lease at hand, preferred when it is as good as another
	// Sticky: the lease on Held is the session's alone, and another standby costs a new
	// connection: as long as Held is fresh, or may be within FreshnessWait, no other standby is
	// looked at.
	Sticky bool
}

// Decision is where a unit goes and why.
type Decision struct {
	// Node is nil when there is nowhere to go now: Wait says what to wait for.
	Node   *health.Node
	Target Target
	Reason Reason
	Wait   Wait
	// Refuse: a standby was asked for and would refuse: the client gets ERROR 25006.
	Refuse bool
	// Unproven: a read that goes to the primary while nothing proves yet that the primary shows
	// all that the session's last read saw on a standby: wait for a sample up to freshness_wait,
	// then go and count it (freshness_unproven_total).
	Unproven bool
}

// Target is the kind of node that was chosen; a label of metrics.
type Target uint8

// The targets.
const (
	TargetNone Target = iota
	TargetPrimary
	TargetStandby
	TargetLocal // answered by pgweir
)

// Wait is what an undecided unit waits for.
type Wait uint8

// What to wait for.
const (
	WaitNone    Wait = iota
	WaitFresh        // a sample that makes a standby fresh, up to freshness_wait
	WaitPrimary      // a primary, up to hold.timeout
	WaitStandby      // a standby that may answer, up to hold.timeout (reads_on_primary: never)
)
