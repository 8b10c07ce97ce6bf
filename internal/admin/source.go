package admin

import "time"

// Source is what the answers are made of. Its methods are called once for every request, from
// several goroutines, and must not wait for any node.
type Source interface {
	// Clusters is the state of every cluster now, in the order of the configuration.
	Clusters() []Cluster
	// Unready says in words what is still missing before clients can be served; empty: nothing.
	Unready() []string
}

// Cluster is one cluster as people see it.
type Cluster struct {
	Name        string
	Seen        bool   // its nodes were looked at once
	Primary     string // the node that may be written to now, "" when there is none
	Why         string // without a primary: why, in words
	SplitBrain  bool
	Unconfirmed bool // the primary was accepted without memory and without a majority's word
	Epoch       uint64
	System      uint64 // system identifier, 0 when unknown
	Timeline    uint32 // 0 when unknown
	Held        int    // statements that wait for a primary
	Clients     int
	Nodes       []Node  // in the order of the configuration
	Events      []Event // newest first
}

// Node is one node as people see it.
type Node struct {
	Name     string
	Host     string
	Port     int
	Zone     string
	Tags     []string
	Role     string // primary, standby, other (writable and not accepted), unknown
	State    string // up, lagging, draining, suspect, down, unknown
	Trusted  bool   // what is known of it is recent enough to send something there
	Reads    bool   // may answer reads as a standby
	Timeline uint32
	Detail   string // one sentence in words, "" when there is nothing to say
	LagBytes int64  // -1 when unknown
	Lag      time.Duration
	Version  int // server_version_num, 0 when unknown
}

// Event is something that happened to a cluster.
type Event struct {
	At   time.Time
	Text string
}

// writable says whether the cluster answers writes now.
func (c Cluster) writable() bool { return c.Primary != "" }

// readable says whether anything answers reads now.
func (c Cluster) readable() bool {
	if c.writable() {
		return true
	}
	for _, n := range c.Nodes {
		if n.serves() {
			return true
		}
	}
	return false
}

// replica says whether a standby at most so many bytes behind answers reads; a negative number
// stands for any lag that the configuration takes.
func (c Cluster) replica(bytes int64) bool {
	for _, n := range c.Nodes {
		if n.serves() && (bytes < 0 || n.LagBytes >= 0 && n.LagBytes <= bytes) {
			return true
		}
	}
	return false
}

// serves says whether the node answers reads as a standby.
func (n Node) serves() bool {
	return n.Role == "standby" && n.State == "up" && n.Trusted && n.Reads
}
