package health

import "time"

// Role is what a node is, as its own answers say.
type Role uint8

// The roles of a node.
const (
	RoleUnknown Role = iota
	RolePrimary      // not in recovery and accepted as the one writer of the cluster's line
	RoleStandby      // in recovery
	RoleOther        // writable, but not accepted: quarantined, unproven, or a second candidate
)

// State is whether a node may take traffic; the diagram stands in doc.go.
type State uint8

// The states of a node.
const (
	StateUnknown State = iota
	StateUp
	StateLagging  // a standby beyond max_lag, paused, or on another line: no new reads above what its level allows
	StateDraining // taken out by a person: no new work, what runs may finish
	StateSuspect  // probes began to miss: no new work, leases stay
	StateDown     // leases are closed
)

// Node is one PostgreSQL instance as a Snapshot shows it. It is immutable but for Live,
// which is the same pointer in all snapshots for as long as the node belongs to the cluster.
type Node struct {
	ID       int      // stable while the process lives, unique in the cluster, never used again
	Name     string   // as configured or discovered; what metrics and people see
	Addr     string   // host:port to dial
	Host     string   // the host of Addr, for TLS verification
	Zone     string   // "" when none is set
	Tags     []string // sorted
	Weight   int      // share of the reads; 0: never reads; default 1
	NoReads  bool     // reads: false
	Role     Role
	State    State
	Timeline uint32
	Detail   string // one sentence in words for DETAIL and the status page, for example "down 12 s (connection refused)"
	LagBytes int64  // replay lag behind the newest known primary position, -1 when unknown
	LagTime  time.Duration
	Version  int // server_version_num, 0 when unknown
	Live     *Live
}

// Snapshot is everything the router may know of one cluster at one moment. It is immutable
// and swapped as one value; two equal Epochs mean that nothing changed that matters to a lease.
type Snapshot struct {
	Cluster string
	Epoch   uint64  // grows with every change of the primary or of the line
	Primary *Node   // nil when there is none that may be written to
	Nodes   []*Node // configured order
	Why     string  // when Primary is nil: why, in words for DETAIL; otherwise ""
	// Positions says whether the servers report WAL positions. Without them session and
	// application consistency are timed (freshness.md, "Without positions").
	Positions bool
}
