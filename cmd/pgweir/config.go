package main

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgweir/proxy"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// Config is a complete, checked configuration. It is immutable after LoadConfig: a reload
// makes a new one.
type Config struct {
	Listen  []Listener
	Admin   Admin
	Console Console
	Auth    Auth
	TLS     ClientTLS // of listeners that have none of their own

	// Tuning and Overrides at the top are what clusters, databases and users start from.
	// Every pointer of these Overrides is set, but for FreshnessWait, whose default depends
	// on the level, and PoolSize, whose default is Pool.DefaultSize.
	Tuning
	Overrides

	Clusters  []*Cluster           // in the order of the file; never empty
	Databases map[string]*Database // by the name a client asks for; "*" is the rest; never empty
	Users     map[string]*User     // by name

	Hold               Hold
	BeginDefer         time.Duration // how long a deferred BEGIN waits for the first statement
	ClientLoginTimeout time.Duration // for everything from accept to AuthenticationOk
	MaxClientConn      int           // 0: no limit
	UnknownSQLState    string        // failover.unknown_sqlstate: 08007 or 40003
	DrainTimeout       time.Duration // how long a stop waits for transactions
	StateDir           string        // "": what was seen of a cluster's line is lost at a restart
	Zone               string        // where this process runs
	Process            *int          // the number of this process among those that serve the same clients; nil: drawn
	Peers              []Peer        // the other ones
	PeerTLS            ServerTLS
	Pool               PoolLimits
	Log                Log

	Warnings []string // what is accepted but should be known; one sentence each

	origins map[string]string // path of a key → where its value came from
	secrets map[string]bool   // paths whose values are never shown
}

// Listener is one address that clients connect to.
type Listener struct {
	Addr      string // host:port, host may be empty
	TLS       ClientTLS
	ReusePort bool // other processes may listen on the same address
	Overrides      // only Route, PoolMode, Consistency and ReadFrom are ever set
}

// Peer is another process that serves the same clients.
type Peer struct {
	Process int
	Addr    string // host:port of that process alone
}

// Admin is the address that answers HTTP, and who may use the console.
type Admin struct {
	Listen string            // "": no HTTP
	Users  map[string]string // admin or stats, by name; empty: the monitors' users are admins
}

// Console is the database that answers administrators.
type Console struct {
	Database string // beside pgbouncer
}

// Auth says where the secrets of clients come from; the users of the configuration come first.
type Auth struct {
	Query string // a query with $1 for the user's name, "default" for pgweir.user_lookup, "off"
	File  string // PgBouncer's userlist.txt; "" for none
}

// Hold bounds what waits for a primary.
type Hold struct {
	Timeout time.Duration
	Max     int // statements that wait at once
}

// PoolLimits holds for the connections to nodes, whatever pool they are in.
type PoolLimits struct {
	DefaultSize    int           // default_pool_size: pool_size where no level says any
	ConnectTimeout time.Duration // server_connect_timeout: dial, TLS and login
	LoginRetry     time.Duration // server_login_retry: after a node had no connection to spare
	CancelTimeout  time.Duration // cancel_wait_timeout: how long a cancel may be under way to a node
}

// Log says how the process logs.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text or json
}

// Cluster is one primary with its standbys. Its Tuning is complete: what the cluster does not
// say itself is copied from the top.
type Cluster struct {
	Name     string
	Nodes    []Node
	Discover string // host:port of a dns:// source, "" for static nodes
	Tuning
	Overrides
}

// Node is one configured PostgreSQL address.
type Node struct {
	Name    string // what metrics and people see: name, else the host, with the port where the host alone is ambiguous
	Host    string // name, address, or the directory of a Unix socket
	Port    int
	Zone    string
	Tags    []string // sorted
	Weight  int
	Reads   bool
	Promote bool
}

// Addr is what is dialled: host:port, or the file of a Unix socket where Host is its directory.
func (n Node) Addr() string {
	if strings.HasPrefix(n.Host, "/") {
		return fmt.Sprintf("%s/.s.PGSQL.%d", n.Host, n.Port)
	}
	return net.JoinHostPort(n.Host, strconv.Itoa(n.Port))
}

// Tuning is what may differ between clusters and is asked of a cluster, not of a session.
type Tuning struct {
	Monitor           Monitor
	ServerTLS         ServerTLS
	TrustWindow       time.Duration
	Probe             Probe
	SamplingInterval  time.Duration // sampling.min_interval
	MaxLag            Lag
	PrimaryRequire    string // primary.require: auto (peers with three or more nodes), peers, none
	StartupGrace      time.Duration
	DiscoveryInterval time.Duration
	DiscoveryForget   time.Duration
	Routing           Routing
}

// Probe is how nodes are looked at.
type Probe struct {
	Interval        time.Duration
	Timeout         time.Duration
	StandbyInterval time.Duration // between two looks at whether a standby was promoted
	FreshInterval   time.Duration // between two connections made only to see whether one can be made
	Fall            int           // missed probes until a node is down
	Rise            int           // answered probes until it is up again
}

// Lag bounds how far behind a standby may be that answers reads; both bounds hold.
type Lag struct {
	Bytes int64
	Time  time.Duration
}

// Routing is what a user tells the classifier about his functions.
type Routing struct {
	ReadOnlyFunctions    []string // volatile by the catalog, known to read only
	SessionSafeFunctions []string // known to leave nothing in a session
	TrustedExtensions    []string // nil: the server's contrib
	Opaque               string   // pin or reset
}

// Overrides are the settings that a session's listener, user and database may change; nil:
// this level does not say. Config.Settings resolves them.
type Overrides struct {
	Route          *router.RouteMode
	Consistency    *router.Consistency
	ReadFrom       *[]string
	ReadsOnPrimary *router.ReadsOnPrimary
	Prefer         *string // zone or none
	Offload        *int    // percentage of sessions
	FreshnessWait  *time.Duration
	PoolMode       *string // transaction or session
	PoolSize       *int
	MinPoolSize    *int
	ReserveSize    *int           // reserve_pool_size
	ReserveTimeout *time.Duration // reserve_pool_timeout
	MaxDatabase    *int           // max_db_connections; 0: no limit
	MaxUser        *int           // max_user_connections; 0: no limit
	ServerLifetime *time.Duration // 0: used once
	ServerIdle     *time.Duration // server_idle_timeout; 0: idle connections stay
	WaitTimeout    *time.Duration // query_wait_timeout; 0: no limit
	WaitNotify     *time.Duration // query_wait_notify; 0: never
	BackendPID     *string        // virtual or real
	// Limits of time; 0: none.
	QueryTimeout, TransactionTimeout *time.Duration
	IdleTransaction                  *time.Duration // idle_transaction_timeout
	ClientIdle                       *time.Duration // client_idle_timeout
	ClientLifetime                   *time.Duration
	AddHost                          *proxy.AddHost // application_name_add_host
	Transactions                     *string        // primary, optimistic
}

// Database is what a client gets that asks for its name.
type Database struct {
	Name    string // "*" for the rest
	Cluster string
	DBName  string // the server's name; "" for the name the client asked for
	Overrides
}

// User is what the configuration says of one user.
type User struct {
	Name      string
	Password  Secret // "": auth.file or auth.query know it
	Overrides        // for every database
	Databases map[string]*Overrides
}

// Settings are what holds for one session: every level looked up, in the order listener, user
// and database, user, database, cluster, top.
type Settings struct {
	Cluster       *Cluster
	Entry         string // the key of databases that matched: the name, or "*"
	DBName        string // what the server calls the database
	ListenerRoute *router.RouteMode
	Route         router.RouteMode
	Consistency   router.Consistency
	// ReadFrom: tags, any of which a node must have to answer reads; nil: every node.
	ReadFrom       []string
	ReadsOnPrimary router.ReadsOnPrimary
	PreferZone     string // "": no zone is preferred
	Offload        int
	// FreshnessWait is the value for the session's level; a session that changes its level
	// asks WaitAt.
	FreshnessWait time.Duration
	PoolMode      string
	Pool          pool.Limits
	WaitTimeout   time.Duration // query_wait_timeout; 0: no limit
	WaitNotify    time.Duration // query_wait_notify; 0: never
	Times         proxy.Times   // query_timeout and its like
	BackendPID    string        // real counts in pool_mode session only
	AddHost       proxy.AddHost // application_name_add_host
	Transactions  string

	wait *time.Duration
}

// The waits for a fresh standby where none is configured.
const (
	defaultFreshnessWait       = 10 * time.Millisecond
	defaultFreshnessWaitGlobal = 20 * time.Millisecond
)

// WaitAt is freshness_wait at a consistency level.
func (s Settings) WaitAt(level router.Consistency) time.Duration {
	switch {
	case s.wait != nil:
		return *s.wait
	case level == router.ConsistencyGlobal:
		return defaultFreshnessWaitGlobal
	default:
		return defaultFreshnessWait
	}
}

// NoDatabaseError says that no entry of databases takes a name; for a client it is 3D000.
type NoDatabaseError struct{ Database string }

// Error is in PostgreSQL's words.
func (e *NoDatabaseError) Error() string {
	return fmt.Sprintf("database %q does not exist", e.Database)
}

// Settings resolves what holds for a session of user on database that came in by
// Listen[listener]. The only error is *NoDatabaseError.
func (c *Config) Settings(listener int, database, user string) (Settings, error) {
	db, ok := c.Databases[database]
	if !ok {
		if db, ok = c.Databases["*"]; !ok {
			return Settings{}, &NoDatabaseError{Database: database}
		}
	}
	cluster := c.Cluster(db.Cluster)
	if cluster == nil {
		panic("BUG: database " + db.Name + " names a cluster that validation did not check")
	}
	levels := []*Overrides{&c.Listen[listener].Overrides}
	if u := c.Users[user]; u != nil {
		if both := u.Databases[database]; both != nil {
			levels = append(levels, both)
		}
		levels = append(levels, &u.Overrides)
	}
	levels = append(levels, &db.Overrides, &cluster.Overrides, &c.Overrides)

	s := Settings{
		Cluster: cluster, Entry: db.Name, DBName: db.DBName,
		ListenerRoute:  c.Listen[listener].Route,
		Route:          first(levels, func(o *Overrides) *router.RouteMode { return o.Route }),
		Consistency:    first(levels, func(o *Overrides) *router.Consistency { return o.Consistency }),
		ReadFrom:       first(levels, func(o *Overrides) *[]string { return o.ReadFrom }),
		ReadsOnPrimary: first(levels, func(o *Overrides) *router.ReadsOnPrimary { return o.ReadsOnPrimary }),
		Offload:        first(levels, func(o *Overrides) *int { return o.Offload }),
		PoolMode:       first(levels, func(o *Overrides) *string { return o.PoolMode }),
		Pool:           c.poolLimits(levels),
		Times:          times(levels),
		WaitTimeout:    first(levels, func(o *Overrides) *time.Duration { return o.WaitTimeout }),
		WaitNotify:     first(levels, func(o *Overrides) *time.Duration { return o.WaitNotify }),
		BackendPID:     first(levels, func(o *Overrides) *string { return o.BackendPID }),
		AddHost:        first(levels, func(o *Overrides) *proxy.AddHost { return o.AddHost }),
		Transactions:   first(levels, func(o *Overrides) *string { return o.Transactions }),
	}
	if s.DBName == "" {
		s.DBName = database
	}
	if first(levels, func(o *Overrides) *string { return o.Prefer }) == "zone" {
		s.PreferZone = c.Zone
	}
	if i := slices.IndexFunc(levels, func(o *Overrides) bool { return o.FreshnessWait != nil }); i >= 0 {
		s.wait = levels[i].FreshnessWait
	}
	s.FreshnessWait = s.WaitAt(s.Consistency)
	return s, nil
}

// times are the limits of time of a session.
func times(levels []*Overrides) proxy.Times {
	return proxy.Times{
		Query:           first(levels, func(o *Overrides) *time.Duration { return o.QueryTimeout }),
		Transaction:     first(levels, func(o *Overrides) *time.Duration { return o.TransactionTimeout }),
		IdleTransaction: first(levels, func(o *Overrides) *time.Duration { return o.IdleTransaction }),
		Idle:            first(levels, func(o *Overrides) *time.Duration { return o.ClientIdle }),
		Life:            first(levels, func(o *Overrides) *time.Duration { return o.ClientLifetime }),
	}
}

// poolLimits is what holds for the pools of a session.
func (c *Config) poolLimits(levels []*Overrides) pool.Limits {
	l := pool.Limits{
		Size:           c.Pool.DefaultSize,
		Min:            first(levels, func(o *Overrides) *int { return o.MinPoolSize }),
		Reserve:        first(levels, func(o *Overrides) *int { return o.ReserveSize }),
		ReserveAfter:   first(levels, func(o *Overrides) *time.Duration { return o.ReserveTimeout }),
		MaxDatabase:    first(levels, func(o *Overrides) *int { return o.MaxDatabase }),
		MaxUser:        first(levels, func(o *Overrides) *int { return o.MaxUser }),
		ConnectTimeout: c.Pool.ConnectTimeout,
		LoginRetry:     c.Pool.LoginRetry,
		IdleTimeout:    first(levels, func(o *Overrides) *time.Duration { return o.ServerIdle }),
		Lifetime:       first(levels, func(o *Overrides) *time.Duration { return o.ServerLifetime }),
	}
	if i := slices.IndexFunc(levels, func(o *Overrides) bool { return o.PoolSize != nil }); i >= 0 {
		l.Size = *levels[i].PoolSize
	}
	return l
}

// PoolLimits is what holds for the pools of a user for a name that clients ask for; where nothing takes the
// name any more, what holds at the top.
func (c *Config) PoolLimits(_, entry, user string) pool.Limits {
	s, err := c.Settings(0, entry, user)
	if err != nil {
		return c.poolLimits([]*Overrides{&c.Overrides})
	}
	return s.Pool
}

// first is the value of the first level that has one; the top level always has.
func first[T any](levels []*Overrides, of func(*Overrides) *T) T {
	for _, l := range levels {
		if v := of(l); v != nil {
			return *v
		}
	}
	panic("BUG: a setting without a default")
}

// Cluster is the cluster of that name, nil when there is none.
func (c *Config) Cluster(name string) *Cluster {
	for _, cl := range c.Clusters {
		if cl.Name == name {
			return cl
		}
	}
	return nil
}

// DefaultConfig is what holds where nothing is said. It has no nodes and so does not validate.
func DefaultConfig() *Config {
	return &Config{
		Listen:  []Listener{{Addr: "127.0.0.1:6432"}},
		Admin:   Admin{Listen: "127.0.0.1:9187"},
		Console: Console{Database: "pgweir"},
		Auth:    Auth{Query: "default"},
		TLS:     ClientTLS{Mode: "default"},
		Tuning: Tuning{
			Monitor:     Monitor{User: "pgweir", Database: "postgres", PasswordTTL: 10 * time.Minute},
			ServerTLS:   ServerTLS{Mode: "prefer"},
			TrustWindow: 500 * time.Millisecond,
			Probe: Probe{
				Interval: 200 * time.Millisecond, Timeout: 500 * time.Millisecond,
				StandbyInterval: 50 * time.Millisecond, FreshInterval: 5 * time.Second, Fall: 3, Rise: 2,
			},
			SamplingInterval:  2 * time.Millisecond,
			MaxLag:            Lag{Bytes: 16 << 20, Time: 10 * time.Second},
			PrimaryRequire:    "auto",
			StartupGrace:      5 * time.Second,
			DiscoveryInterval: 5 * time.Second,
			DiscoveryForget:   10 * time.Minute,
			Routing:           Routing{Opaque: "pin"},
		},
		Overrides: Overrides{
			Route:          new(router.RouteAuto),
			Consistency:    new(router.ConsistencyApplication),
			ReadFrom:       new([]string),
			ReadsOnPrimary: new(router.ReadsFallback),
			Prefer:         new("none"),
			Offload:        new(100),
			PoolMode:       new("transaction"),
			MinPoolSize:    new(0),
			ReserveSize:    new(0),
			ReserveTimeout: new(5 * time.Second),
			MaxDatabase:    new(0),
			MaxUser:        new(0),
			ServerLifetime: new(time.Hour),
			ServerIdle:     new(10 * time.Minute),
			WaitTimeout:    new(2 * time.Minute),
			WaitNotify:     new(5 * time.Second),
			BackendPID:     new("virtual"),
			QueryTimeout:   new(time.Duration), TransactionTimeout: new(time.Duration), IdleTransaction: new(time.Duration),
			ClientIdle: new(time.Duration), ClientLifetime: new(time.Duration),
			AddHost:      new(proxy.AddNothing),
			Transactions: new("primary"),
		},
		Databases:          map[string]*Database{},
		Users:              map[string]*User{},
		Hold:               Hold{Timeout: 30 * time.Second, Max: 10000},
		BeginDefer:         100 * time.Millisecond,
		ClientLoginTimeout: time.Minute,
		MaxClientConn:      10000,
		UnknownSQLState:    "08007",
		PeerTLS:            ServerTLS{Mode: "prefer"},
		DrainTimeout:       30 * time.Second,
		Pool: PoolLimits{
			DefaultSize: 20, ConnectTimeout: 15 * time.Second, LoginRetry: 15 * time.Second, CancelTimeout: 10 * time.Second,
		},
		Log:     Log{Level: "info", Format: "text"},
		origins: map[string]string{},
		secrets: map[string]bool{},
	}
}
