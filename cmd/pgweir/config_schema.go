package main

import (
	"math"
	"time"

	"go.yaml.in/yaml/v4"

	"pgweir/proxy"
	"pgweir/router"
)

// schema lists the keys of a whole configuration, bound to c, in the order in which they are
// decoded and shown: listen starts from tls, clusters from the tuning. dir is where relative
// file names start.
func schema(c *Config, dir string) section {
	s := section{
		{"admin", "the address for metrics, health and the status page", adminValue{&c.Admin}},
		{"console", "the SQL console", section{
			{"database", "the name of its database, beside pgbouncer", text(&c.Console.Database)},
		}},
		{"auth", "where the secrets of clients come from", section{
			{"query", "default (pgweir.user_lookup), off, or a query with $1 for the user's name", text(&c.Auth.Query)},
			{"file", "a userlist.txt", path{&c.Auth.File, dir}},
		}},
		{"tls", "TLS with clients", clientTLS(&c.TLS, dir)},
		{"listen", "addresses that clients connect to", listeners{&c.Listen, &c.TLS, dir}},
	}
	s = append(s, tuning(&c.Tuning, dir)...)
	s = append(s, overrides(&c.Overrides)...)
	return append(s, section{
		{"hold", "statements that wait for a primary", section{
			{"timeout", "how long a statement waits", duration(&c.Hold.Timeout, 0, time.Hour)},
			{"max", "how many wait at once", integer(&c.Hold.Max, 0, 10_000_000)},
		}},
		{"begin_defer", "how long a deferred BEGIN waits for the first statement", duration(&c.BeginDefer, 0, 10*time.Second)},
		{"client_login_timeout", "how long a client may take to log in", duration(&c.ClientLoginTimeout, 100*time.Millisecond, time.Hour)},
		{"max_client_conn", "how many clients may be connected; 0: no limit", integer(&c.MaxClientConn, 0, 10_000_000)},
		{"failover", "what clients see at a failover", section{
			{"unknown_sqlstate", "the SQLSTATE of a commit with unknown outcome", choice(&c.UnknownSQLState, words("08007", "40003")...)},
		}},
		{"drain_timeout", "how long a stop waits for open transactions", duration(&c.DrainTimeout, 0, 24*time.Hour)},
		{"state_dir", "where the line of each cluster is remembered", path{&c.StateDir, dir}},
		{"zone", "the zone this process runs in", mayBeEmpty(&c.Zone)},
		{"process", "the number of this process among those that serve the same clients, in the pids that it gives out; default: drawn at the start", optional[int]{&c.Process, func(v *int) value { return integer(v, 0, proxy.MaxProcess) }}},
		{"peers", "the other processes, which are passed the cancel requests of their clients", peers{&c.Peers}},
		{"peer_tls", "TLS with the peers", serverTLS(&c.PeerTLS, dir)},
		{"default_pool_size", "pool_size where no level says any", integer(&c.Pool.DefaultSize, 1, 1_000_000)},
		{"server_connect_timeout", "dial, TLS and login at a node", duration(&c.Pool.ConnectTimeout, 10*time.Millisecond, time.Hour)},
		{"server_login_retry", "how long nothing more is opened after a node said that it has no connection to spare (53300)", duration(&c.Pool.LoginRetry, 0, time.Hour)},
		{"cancel_wait_timeout", "how long a cancel request may be under way to a node", duration(&c.Pool.CancelTimeout, 10*time.Millisecond, time.Hour)},
		{"log", "the log, on standard error", section{
			{"level", "debug, info, warn or error", choice(&c.Log.Level, words("debug", "info", "warn", "error")...)},
			{"format", "text or json", choice(&c.Log.Format, words("text", "json")...)},
		}},
		{"nodes", "the nodes of the only cluster, main", nodesOf{c}},
		{"discover", "dns://host:port, every address of which is a node of the only cluster, main", discoverOf{c}},
		{"clusters", "clusters by name", clusters{c, dir}},
		{"databases", "what a client gets that asks for a name", databases{c}},
		{"users", "users by name", users{c, dir}},
	}...)
}

// tuning lists the keys that a cluster may set for itself.
func tuning(t *Tuning, dir string) section {
	return section{
		{"monitor", "how pgweir itself logs in to the nodes", section{
			{"user", "the role of setup-sql", text(&t.Monitor.User)},
			{"dbname", "the database it connects to", text(&t.Monitor.Database)},
			{"password", "its password", secret(&t.Monitor.Password)},
			{"password_file", "a file with its password, read again when it changes", path{&t.Monitor.PasswordFile, dir}},
			{"password_command", "a command that prints its password", textList{p: &t.Monitor.PasswordCommand}},
			{"password_ttl", "how long the printed password is used", duration(&t.Monitor.PasswordTTL, time.Second, 365*24*time.Hour)},
			{"passfile", "a file as libpq's .pgpass", path{&t.Monitor.PassFile, dir}},
		}},
		{"server_tls", "TLS with the nodes", serverTLS(&t.ServerTLS, dir)},
		{"trust_window", "how old the evidence for a node's role may be", duration(&t.TrustWindow, 20*time.Millisecond, time.Minute)},
		{"probe", "how nodes are looked at", section{
			{"interval", "time between two probes of a node", duration(&t.Probe.Interval, 5*time.Millisecond, time.Minute)},
			{"timeout", "when a probe counts as missed", duration(&t.Probe.Timeout, 5*time.Millisecond, time.Minute)},
			{"standby_interval", "time between two looks at whether a standby was promoted", duration(&t.Probe.StandbyInterval, 5*time.Millisecond, time.Minute)},
			{"fresh_interval", "time between two connections made only to see whether one can be made", duration(&t.Probe.FreshInterval, 100*time.Millisecond, time.Hour)},
			{"fall", "missed probes until a node is down", integer(&t.Probe.Fall, 1, 100)},
			{"rise", "answered probes until it is up again", integer(&t.Probe.Rise, 1, 100)},
		}},
		{"sampling", "how positions are sampled while somebody waits for a fresh standby", section{
			{"min_interval", "time between two samples of a node", duration(&t.SamplingInterval, 100*time.Microsecond, time.Minute)},
		}},
		{"max_lag", "how far behind a standby may be, as a size, a time or both", lagValue{&t.MaxLag}},
		{"primary", "what must be seen before writes are sent", section{
			{"require", "peers: a majority or a standby that receives; none; auto: peers with three or more nodes", choice(&t.PrimaryRequire, words("auto", "peers", "none")...)},
		}},
		{"startup", "the first look at a cluster", section{
			{"grace", "how long to look for a majority before a primary is taken unconfirmed", duration(&t.StartupGrace, 0, 10*time.Minute)},
		}},
		{"discovery", "nodes that come and go", section{
			{"interval", "time between two look-ups", duration(&t.DiscoveryInterval, 100*time.Millisecond, time.Hour)},
			{"forget", "how long a node that left counts for the majority", duration(&t.DiscoveryForget, time.Second, 365*24*time.Hour)},
		}},
		{"promotion", "who promotes a standby", choice(new("external"),
			word[string]{name: "external", val: "external"},
			word[string]{name: "pgweir", refuse: "promotion by pgweir is not available in this version; only external is"})},
		{"routing", "what the catalog does not say about functions", section{
			{"read_only_functions", "volatile functions that only read", textList{p: &t.Routing.ReadOnlyFunctions, unset: "[]"}},
			{"session_safe_functions", "functions that leave nothing in the session", textList{p: &t.Routing.SessionSafeFunctions, unset: "[]"}},
			{"trusted_extensions", "extensions whose C functions leave nothing in the session; default: the server's contrib", textList{p: &t.Routing.TrustedExtensions, unset: "(the server's contrib)"}},
			{"opaque", "what follows a statement whose effects cannot be seen: pin, the client keeps its connection to the primary; or reset, what it left is lost when its transaction is over", choice(&t.Routing.Opaque, words("pin", "reset")...)},
		}},
	}
}

// overrides lists the keys that stand at every level.
func overrides(o *Overrides) section {
	return append(listenerOverrides(o), section{
		{"offload", "percentage of sessions that route: auto applies to", optional[int]{&o.Offload, func(v *int) value { return integer(v, 0, 100) }}},
		{"reads_on_primary", "fallback, share or never", optional[router.ReadsOnPrimary]{&o.ReadsOnPrimary, func(v *router.ReadsOnPrimary) value {
			return choice(v, word[router.ReadsOnPrimary]{name: "fallback", val: router.ReadsFallback},
				word[router.ReadsOnPrimary]{name: "share", val: router.ReadsShare},
				word[router.ReadsOnPrimary]{name: "never", val: router.ReadsNever})
		}}},
		{"prefer", "zone: standbys in the zone of this process first", optional[string]{&o.Prefer, func(v *string) value { return choice(v, words("none", "zone")...) }}},
		{"freshness_wait", "how long a read waits for a fresh standby; default: 10ms, 20ms at global", optional[time.Duration]{&o.FreshnessWait, func(v *time.Duration) value { return duration(v, 0, time.Minute) }}},
		{"pool_size", "connections to a node for one database and user; default: default_pool_size", optional[int]{&o.PoolSize, func(v *int) value { return integer(v, 1, 1_000_000) }}},
		{"min_pool_size", "how many of them are kept open while a client is logged in", number(&o.MinPoolSize)},
		{"reserve_pool_size", "how many more there may be once somebody has waited for reserve_pool_timeout", number(&o.ReserveSize)},
		{"reserve_pool_timeout", "how long one waits for a connection before the reserve is used", period(&o.ReserveTimeout)},
		{"max_db_connections", "connections to a node for one database, all users together; 0: no limit", number(&o.MaxDatabase)},
		{"max_user_connections", "connections to a node for one user, all databases together; 0: no limit", number(&o.MaxUser)},
		{"server_lifetime", "age at which an unused connection to a node is closed; 0: each is used once", period(&o.ServerLifetime)},
		{"server_idle_timeout", "when an idle connection to a node is closed; 0: never", period(&o.ServerIdle)},
		{"query_wait_timeout", "how long a statement waits for a connection; 0: no limit", period(&o.WaitTimeout)},
		{"query_wait_notify", "after what wait a NOTICE tells the client of it; 0: never", period(&o.WaitNotify)},
		{"query_timeout", "how long a statement may take, waits included, before its client is disconnected; 0: no limit", period(&o.QueryTimeout)},
		{"transaction_timeout", "how long a transaction may take before its client is disconnected; 0: no limit", period(&o.TransactionTimeout)},
		{"idle_transaction_timeout", "how long a client may be idle within a transaction before it is disconnected; 0: no limit", period(&o.IdleTransaction)},
		{"client_idle_timeout", "how long a client may be idle outside of a transaction before it is disconnected; 0: no limit", period(&o.ClientIdle)},
		{"client_lifetime", "age at which a client is disconnected as soon as it is idle outside of a transaction; 0: no limit", period(&o.ClientLifetime)},
		{"backend_pid", "the process id that a client is told: virtual, or, in pool_mode: session, real for that of its process on the primary, with which the session ends", optional[string]{&o.BackendPID, func(v *string) value {
			return choice(v, word[string]{name: "virtual", val: "virtual"}, word[string]{name: "real", val: "real"})
		}}},
		{"application_name_add_host", "what is added to the application_name that a client comes with: host, host:port (unix for a Unix socket), or off", optional[proxy.AddHost]{&o.AddHost, func(v *proxy.AddHost) value {
			return choice(v, word[proxy.AddHost]{name: "off", val: proxy.AddNothing}, word[proxy.AddHost]{name: "host", val: proxy.AddHostOnly},
				word[proxy.AddHost]{name: "host:port", val: proxy.AddHostPort})
		}}},
		{"transactions", "where explicit transactions start", optional[string]{&o.Transactions, func(v *string) value {
			return choice(v, word[string]{name: "primary", val: "primary"},
				word[string]{name: "optimistic", val: "optimistic"})
		}}},
	}...)
}

// number is a count that a level may set.
func number(p **int) value {
	return optional[int]{p, func(v *int) value { return integer(v, 0, 1_000_000) }}
}

// period is a time that a level may set, of any length.
func period(p **time.Duration) value {
	return optional[time.Duration]{p, func(v *time.Duration) value { return duration(v, 0, math.MaxInt64) }}
}

// listenerOverrides lists those of them that a listener may set.
func listenerOverrides(o *Overrides) section {
	return section{
		{"route", "auto, primary, shadow or standby", optional[router.RouteMode]{&o.Route, func(v *router.RouteMode) value {
			return choice(v, word[router.RouteMode]{name: "auto", val: router.RouteAuto},
				word[router.RouteMode]{name: "primary", val: router.RoutePrimary},
				word[router.RouteMode]{name: "shadow", val: router.RouteShadow},
				word[router.RouteMode]{name: "standby", val: router.RouteStandby})
		}}},
		{"consistency", "eventual, session, application or global", optional[router.Consistency]{&o.Consistency, func(v *router.Consistency) value {
			return choice(v, word[router.Consistency]{name: "eventual", val: router.ConsistencyEventual},
				word[router.Consistency]{name: "session", val: router.ConsistencySession},
				word[router.Consistency]{name: "application", val: router.ConsistencyApplication},
				word[router.Consistency]{name: "global", val: router.ConsistencyGlobal})
		}}},
		{"read_from", "tags, any of which a node must have to answer reads", optional[[]string]{&o.ReadFrom, func(v *[]string) value { return textList{p: v, unset: "[]"} }}},
		{"pool_mode", "how long a client keeps its connection to a node: transaction or session", optional[string]{&o.PoolMode, func(v *string) value {
			return choice(v, word[string]{name: "transaction", val: "transaction"}, word[string]{name: "session", val: "session"},
				word[string]{name: "statement", refuse: "statement pooling does not exist here; use transaction"})
		}}},
	}
}

// serverTLS lists the keys of TLS with who is connected to.
func serverTLS(t *ServerTLS, dir string) section {
	return section{
		{"mode", "libpq's sslmode", choice(&t.Mode, words("disable", "allow", "prefer", "require", "verify-ca", "verify-full")...)},
		{"ca", "authorities, PEM; system for those of the machine", path{&t.CA, dir}},
		{"cert", "pgweir's own certificate, PEM", path{&t.Cert, dir}},
		{"key", "its key, PEM", path{&t.Key, dir}},
	}
}

// clientTLS lists the keys of TLS with clients.
func clientTLS(t *ClientTLS, dir string) section {
	return section{
		{"mode", "libpq's sslmode; default: prefer where there is a certificate", choice(&t.Mode, words("default", "disable", "allow", "prefer", "require", "verify-ca", "verify-full")...)},
		{"cert", "certificate with its chain, PEM", path{&t.Cert, dir}},
		{"key", "its key, PEM", path{&t.Key, dir}},
		{"ca", "authorities of client certificates, PEM", path{&t.CA, dir}},
	}
}

// adminValue is admin: a mapping, or the address alone.
type adminValue struct{ p *Admin }

func (v adminValue) fields() section {
	return section{
		{"listen", "host:port, or off", addr(&v.p.Listen, true)},
		{"users", "who may use the console, by name: admin, or stats for looking only; default: the monitors' users are admins", adminUsers(v)},
	}
}

func (v adminValue) decode(d *decoder, n *yaml.Node, at string) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		addr(&v.p.Listen, true).decode(d, n, at)
		return
	}
	v.fields().decode(d, n, at)
}

func (v adminValue) show(at string, emit emitter) { v.fields().show(at, emit) }
