package health

import (
	"fmt"
	"time"
)

// Role is what a node is, as its own answers say.
type Role uint8

// The roles of a node.
const (
	RoleUnknown Role = iota
	RolePrimary      // not in recovery and accepted as the one writer of the cluster's line
	RoleStandby      // in recovery
	RoleOther        // writable, but not accepted: quarantined, unproven, or a second candidate
)

// String is the role in one lower-case word, as labels of metrics spell it.
func (r Role) String() string {
	switch r {
	case RoleUnknown:
		return "unknown"
	case RolePrimary:
		return "primary"
	case RoleStandby:
		return "standby"
	case RoleOther:
		return "other"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// State is whether a node may take traffic; the diagram stands in doc.go.
type State uint8

// The states of a node.
const (
	StateUnknown State = iota
	StateUp
	StateLagging  // a standby beyond max_lag or on another line: no new reads
	StateDraining // taken out by a person: no new reads, what runs may finish
	StateSuspect  // probes began to miss: no new work, leases stay
	StateDown     // leases are closed
)

// String is the state in one lower-case word.
func (s State) String() string {
	switch s {
	case StateUnknown:
		return "unknown"
	case StateUp:
		return "up"
	case StateLagging:
		return "lagging"
	case StateDraining:
		return "draining"
	case StateSuspect:
		return "suspect"
	case StateDown:
		return "down"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Node is one PostgreSQL instance as a Snapshot shows it. It is immutable but for Live,
// which is the same pointer in all snapshots for as long as the node belongs to the cluster.
type Node struct {
	ID       int      // stable while the process lives, unique in the cluster, never used again; from 1
	Name     string   // as configured or discovered; what metrics and people see
	Addr     string   // host:port to dial, or the path of a Unix socket
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
	// Settings is another one when what connections start with may have changed on the node: its configuration was
	// reloaded, or the settings of a role or database were altered. "" when unknown.
	Settings string
	// TrustWindow is how old the newest evidence may be for Trusted; 0 means DefaultTrustWindow.
	TrustWindow time.Duration
	Live        *Live
}

// Trusted says whether the node answered a probe that was sent within the trust window before now,
// a value of Clock. What is not trusted gets nothing new: no statement may be sent there, and
// Changed tells when that is over. Because only clocks are compared, a stop of the whole process
// voids all evidence without anybody doing anything.
func (n *Node) Trusted(now int64) bool {
	if n.Live == nil {
		return false
	}
	window := n.TrustWindow
	if window == 0 {
		window = DefaultTrustWindow
	}
	sent := n.Live.evidence.Load()
	return sent > 0 && now-sent <= int64(window)
}

// Snapshot is everything the router may know of one cluster at one moment. It is immutable
// and swapped as one value; two equal Epochs mean that the primary and its line are the same
// (a node that went Down shows only in its State).
type Snapshot struct {
	Cluster string
	Epoch   uint64  // grows with every change of the primary or of the line; 0 before the first primary
	Primary *Node   // nil when there is none that may be written to; may stand untrusted, see Node.Trusted
	Nodes   []*Node // configured order
	Why     string  // when Primary is nil: why, in words for DETAIL; otherwise ""
	// Positions says whether the servers report WAL positions. Without them session and
	// application consistency are timed (freshness.md, "Without positions").
	Positions bool
	// SplitBrain: two members of this line are writable and neither descends from the other.
	SplitBrain bool
	// Unconfirmed: the primary was accepted without memory and without a majority's word.
	Unconfirmed bool
	System      uint64 // system identifier of the line, 0 before there is one
	Timeline    uint32 // timeline of the line, 0 before there is one
}

// Node returns the node with that ID, nil when the snapshot has none.
func (s *Snapshot) Node(id int) *Node {
	for _, n := range s.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Named returns the node with that name, nil when the snapshot has none.
func (s *Snapshot) Named(name string) *Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}
