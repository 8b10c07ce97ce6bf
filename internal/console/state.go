package console

import "time"

// State is everything that can be shown of a process at one moment.
type State struct {
	Now       time.Time
	Databases []Database
	Pools     []Pool
	Clients   []Client // those of the console too
	Servers   []Server
	Users     []User
	Nodes     []Node
	Events    []Event // newest first
	Timeouts  []Timeout
	Arriving  int // connections that have not logged in yet
	Memory    []Memory
	Peers     []Peer
	Paused    bool // everything is, and what comes too
	Stopping  bool
}

// Database is one name that clients may ask for.
type Database struct {
	Name      string
	Cluster   string
	Host      string // of the primary; "" while there is none
	Port      int
	Database  string // the server's name of it
	PoolSize  int
	MinSize   int
	Reserve   int
	PoolMode  string
	MaxConns  int // 0: no limit
	Current   int // connections to nodes that serve it
	Paused    bool
	Disabled  bool
	Usage     Usage
	IsConsole bool
}

// Usage is what the sessions of a database have done since the process started.
type Usage struct {
	Transactions, Queries, Received, Sent uint64
	InTransaction, InQuery, Waited        time.Duration
}

// Pool is the connections to one node for one user of one of the server's databases.
type Pool struct {
	Name                                 string // the database that it is shown under
	Cluster, Node, Database, User        string
	Size, Idle, Leased, Opening, Waiting int
}

// Client is one client.
type Client struct {
	ID          uint32 // the pid that it was given
	User, Name  string // Name is the database, as it asked for it
	Cluster     string // "" on the console
	Application string
	Addr, Local string // without port
	Port        int
	LocalPort   int
	TLS         string
	Since       time.Time
	Request     time.Time // zero: none yet
	PoolMode    string
	Running     bool
	Holding     bool
	Waiting     time.Duration // 0: it does not
	Cancels     int
	Node        string // of the connection that it holds, "" without one
	ServerPID   uint32
	Pin         string // "" without one
	Pinned      time.Time
	IsConsole   bool
}

// Server is one connection to a node.
type Server struct {
	User, Name  string // Name is the database that it is shown under
	Cluster     string
	Node        string
	Application string // of the client that holds it
	Addr, Local string
	Port        int
	LocalPort   int
	TLS         bool
	Opened      time.Time
	Request     time.Time // of the client that holds it
	Leased      bool
	Closing     bool // it is closed when its client lets it go
	PID         uint32
	Client      uint32 // 0: none
}

// User is one user who is configured or here.
type User struct{ Name, PoolMode string }

// Node is one node.
type Node struct {
	Cluster, Name, Host string
	Port                int
	Role, State, Detail string
	Reads               bool
	Timeline            uint32
	LagBytes            int64 // -1: unknown
	Lag                 time.Duration
	Version             int // 0: unknown
}

// Timeout is how many clients of a cluster were disconnected because they were over a limit of time.
type Timeout struct {
	Cluster, Limit string
	Clients        int64
}

// Event is something that happened to a cluster.
type Event struct {
	Cluster string
	At      time.Time
	Text    string
}

// Peer is another process that serves the same clients.
type Peer struct {
	Process  int
	Host     string
	Port     int
	PoolSize int // how many cancel requests may be under way to it
}

// Memory is what one kind of thing takes: the number of them, and bytes of each and in all; 0 where that does not apply.
type Memory struct {
	Name        string
	Size, Count int64
	Total       int64
}

// Setting is one value of the configuration.
type Setting struct {
	Key, Value, Default string
	Changeable          bool // at a reload
}
