package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"pgweir/proxy/pool"
)

// Grade is how good something is.
type Grade string

// The grades; the worst one decides the exit status.
const (
	Good   Grade = "ok"
	Advice Grade = "advice"  // works, and could be better
	Bad    Grade = "problem" // does not work, or will not one day
)

// Finding is one line of check.
type Finding struct {
	Cluster string `json:"cluster,omitempty"`
	Node    string `json:"node,omitempty"`
	Check   string `json:"check"`
	Grade   Grade  `json:"grade"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// judge is what is said of one cluster.
type judge struct {
	cfg     *Config
	cluster *Cluster
	all     []*facts
	out     []Finding
}

// add appends a finding; node may be "".
func (j *judge) add(node, check string, grade Grade, fix, format string, args ...any) {
	j.out = append(j.out, Finding{Cluster: j.cluster.Name, Node: node, Check: check, Grade: grade, Fix: fix, Message: fmt.Sprintf(format, args...)})
}

// judgeCluster says what is right and wrong with a cluster. It asks nobody.
func judgeCluster(cfg *Config, cl *Cluster, all []*facts, now time.Time) []Finding {
	j := &judge{cfg: cfg, cluster: cl, all: all}
	for _, f := range all {
		if j.reach(f) {
			j.identity(f)
			j.rights(f)
			j.connections(f)
			j.standby(f)
			j.encryption(f, now)
		}
	}
	j.primary()
	j.agreement()
	j.standbySettings()
	j.files()
	return j.out
}

// reach judges whether the node could be asked.
func (j *judge) reach(f *facts) bool {
	if f.failure == nil {
		role := "primary"
		if f.inRecovery {
			role = "standby"
		}
		j.add(f.node.Name, "connect", Good, "", "%s, PostgreSQL %s", role, f.release())
		if f.version/10000 < 14 {
			j.add(f.node.Name, "version", Advice, "upgrade to PostgreSQL 14 or later", "PostgreSQL %s is older than what pgweir is tested with", f.release())
		}
		return true
	}
	said := f.failure.Error()
	fix := "is the address right, does the server run, and does a firewall let " + f.node.Addr() + " through?"
	for part, hint := range map[string]string{
		"28P01":              "check monitor.user and its password; setup-sql makes the role",
		"28000":              "check monitor.user, and that pg_hba.conf lets it in from this host",
		"3D000":              "set monitor.dbname to a database that is there",
		"42501":              "let the monitor connect to the database that monitor.dbname names",
		"53300":              "the server has no connection left; raise max_connections or lower pool_size",
		"refused TLS":        "the server has no TLS: set ssl = on there, or server_tls.mode to prefer",
		"x509":               "check server_tls.ca, and that the node's certificate names the host it is configured by",
		"no such host":       "the name cannot be resolved here",
		"connection refused": "nobody listens at " + f.node.Addr() + ": does the server run, with listen_addresses set?",
		"password_":          "see that monitor's password can be read",
	} {
		if strings.Contains(said, part) {
			fix = hint
		}
	}
	j.add(f.node.Name, "connect", Bad, fix, "cannot be asked: %s", message(f.failure))
	return false
}

// identity judges whether the address belongs to one server.
func (j *judge) identity(f *facts) {
	ids := slices.Compact(slices.Sorted(slices.Values(f.identities)))
	if len(ids) > 1 {
		j.add(f.node.Name, "address", Bad, "name the servers themselves: a load balancer, a Kubernetes ClusterIP service (use a headless one) or a reader endpoint hides which node answers",
			"%s answers for %d different servers", f.node.Addr(), len(ids))
	}
}

// rights judges what the monitor may do on the node.
func (j *judge) rights(f *facts) {
	name, role := f.node.Name, j.cluster.Monitor.User
	switch {
	case f.superuser:
		j.add(name, "rights", Advice, "pgweir setup-sql makes a role that may only what is needed", "%s is a superuser", role)
	case !f.monitor:
		j.add(name, "rights", Bad, fmt.Sprintf("GRANT pg_monitor TO %s; or run the output of pgweir setup-sql", role),
			"%s has no pg_monitor: receivers, and so timelines of standbys, cannot be seen", role)
	case !f.signals:
		j.add(name, "rights", Good, "", "%s has pg_monitor; without pg_signal_backend a connection that is given up ends by time-out on the node, not at once", role)
	default:
		j.add(name, "rights", Good, "", "%s has pg_monitor and pg_signal_backend", role)
	}
	switch {
	case f.lookup == "" && j.cfg.Auth.Query != "off":
		j.add(name, "logins", Good, "", "auth.query works")
	case f.lookup != "":
		grade := Advice
		if j.cfg.Auth.Query != "default" {
			grade = Bad
		}
		j.add(name, "logins", grade, "run the output of pgweir setup-sql in database "+j.cluster.Monitor.Database+", or set auth.query: off",
			"auth.query does not work (%s): only %s and the users of auth.file and users may log in", f.lookup, role)
	}
}

// monitorConnections is what pgweir itself holds on a node: the probe, the sampler, the look at
// fresh connections, and the look-up of users.
const monitorConnections = 4

// connections judges the worst case against what the server takes. Each process has pools of its own, counts its clients
// by itself and has its own monitor; that the other ones are configured alike is taken for granted.
func (j *judge) connections(f *facts) {
	limit := f.number("max_connections") - f.number("superuser_reserved_connections") - f.number("reserved_connections")
	processes, each := 1+len(j.cfg.Peers), ""
	if processes > 1 {
		each = fmt.Sprintf(" in each of %d processes", processes)
	}
	pools, largest, users := j.pools(f)
	worst := processes * (pools + monitorConnections)
	counted := fmt.Sprintf("%d connections for clients (pools of every database, for each of %s that may log in) and %d of the monitor", pools, plural(users, "role"), monitorConnections)
	if most := j.cfg.MaxClientConn; most > 0 && most < pools {
		worst = processes * (most + monitorConnections)
		counted = fmt.Sprintf("%d connections for clients (max_client_conn) and %d of the monitor", most, monitorConnections)
	}
	if each != "" {
		counted += "," + each
	}
	switch {
	case processes*(largest+monitorConnections) > limit:
		j.add(f.node.Name, "max_connections", Bad, fmt.Sprintf("lower pool_size to at most %d, or raise max_connections", max(1, limit/processes-monitorConnections)),
			"one pool alone may take %d connections and the monitor %d%s, the server takes %d", largest, monitorConnections, each, limit)
	case worst > limit:
		j.add(f.node.Name, "max_connections", Advice, "lower pool_size or max_client_conn, or raise max_connections; as long as few roles are busy at once nothing happens",
			"at worst %s, together %d; the server takes %d", counted, worst, limit)
	default:
		j.add(f.node.Name, "max_connections", Good, "", "at worst %s, together %d of %d", counted, worst, limit)
	}
}

// pools adds up the pools of a node: every database that leads to this cluster, for each role
// that may log in. largest is the largest single pool.
func (j *judge) pools(f *facts) (sum, largest, users int) {
	users = max(1, f.loginRoles-1) // the monitor is one of them
	listener := 0
	ofUser := 0
	for _, name := range slices.Sorted(maps.Keys(j.cfg.Databases)) {
		db := j.cfg.Databases[name]
		if db.Cluster != j.cluster.Name {
			continue
		}
		s, err := j.cfg.Settings(listener, name, "")
		if err != nil {
			continue
		}
		times := 1
		if name == "*" {
			times = max(1, len(f.databases))
		}
		one := worstOf(s.Pool)
		all := users * one
		if most := s.Pool.MaxDatabase; most > 0 {
			all = min(all, most)
		}
		sum += times * all
		ofUser = max(ofUser, s.Pool.MaxUser)
		if s.Pool.MaxUser == 0 {
			ofUser = math.MaxInt32
		}
		largest = max(largest, one)
	}
	for name, u := range j.cfg.Users {
		for db := range j.cfg.Databases {
			if s, err := j.cfg.Settings(listener, db, name); err == nil && s.Cluster == j.cluster && (u.PoolSize != nil || len(u.Databases) > 0) {
				largest = max(largest, worstOf(s.Pool))
			}
		}
	}
	return min(sum, users*ofUser), largest, users
}

// worstOf is the largest number of connections that one pool may have.
func worstOf(l pool.Limits) int {
	most := l.Size + l.Reserve
	for _, shared := range []int{l.MaxDatabase, l.MaxUser} {
		if shared > 0 {
			most = min(most, shared)
		}
	}
	return most
}

// standby judges what makes a standby lose reads.
func (j *judge) standby(f *facts) {
	if !f.inRecovery {
		return
	}
	name := f.node.Name
	switch {
	case f.receiver == "streaming":
		j.add(name, "streaming", Good, "", "receives from its upstream, timeline %s", f.timeline)
	case f.monitor || f.superuser:
		j.add(name, "streaming", Bad, "see the node's log: primary_conninfo, a missing slot, WAL that is gone, or a timeline it cannot follow", "receives nothing: it answers no reads but at eventual")
	}
	if f.replayPaused {
		j.add(name, "replay", Bad, "SELECT pg_wal_replay_resume()", "replay is paused: it answers no reads")
	}
	if d := f.duration("recovery_min_apply_delay"); d > 0 {
		j.add(name, "replay", Advice, "set reads: false for this node, or recovery_min_apply_delay = 0", "replay is delayed by %s: only eventual reads can be answered", formatDuration(d))
	}
	delay := f.settings["max_standby_streaming_delay"]
	switch {
	case delay == "-1" || delay == "-1ms":
		j.add(name, "conflicts", Advice, "set max_standby_streaming_delay to some seconds, and hot_standby_feedback = on", "a long read stops replay without end: the node is stale meanwhile")
	case f.settings["hot_standby_feedback"] == "on":
		j.add(name, "conflicts", Good, "", "hot_standby_feedback is on, conflicts wait %s", formatDuration(f.duration("max_standby_streaming_delay")))
	default:
		j.add(name, "conflicts", Advice, "hot_standby_feedback = on, if the primary may keep dead rows for the sake of reads here; cancelled reads are run again elsewhere where the client has seen nothing",
			"hot_standby_feedback is off: reads longer than %s (max_standby_streaming_delay) may be cancelled", formatDuration(f.duration("max_standby_streaming_delay")))
	}
	timeout := f.duration("wal_receiver_timeout")
	switch {
	case timeout == 0:
		j.add(name, "receiver", Advice, "wal_receiver_timeout = '4s'", "wal_receiver_timeout is off: a primary that hangs is a living one to this standby, for ever")
	case timeout > 10*time.Second:
		j.add(name, "receiver", Advice, "wal_receiver_timeout = '4s', wal_sender_timeout likewise", "a primary that hangs looks alive to this standby for %s (wal_receiver_timeout %s)",
			formatDuration(timeout/2+500*time.Millisecond), formatDuration(timeout))
	default:
		j.add(name, "receiver", Good, "", "a primary that hangs is noticed within %s", formatDuration(timeout/2+500*time.Millisecond))
	}
}

// certificateWarning is how long before its end a certificate is told of.
const certificateWarning = 30 * 24 * time.Hour

// encryption judges TLS with the node.
func (j *judge) encryption(f *facts, now time.Time) {
	if !f.encrypted {
		if !strings.HasPrefix(f.node.Host, "/") && j.cluster.ServerTLS.Mode == "prefer" {
			j.add(f.node.Name, "tls", Good, "", "not encrypted: the node has no TLS")
		}
		return
	}
	grade, words := certificateGrade(f.certificateEnd, now)
	fix := ""
	if grade != Good {
		fix = "renew the node's certificate and reload the server"
	}
	j.add(f.node.Name, "tls", grade, fix, "encrypted; its certificate %s", words)
}

// certificateGrade judges how long a certificate holds.
func certificateGrade(end, now time.Time) (Grade, string) {
	left := end.Sub(now)
	days := int(left.Hours() / 24)
	switch {
	case left <= 0:
		return Bad, "ended on " + end.UTC().Format(time.DateOnly)
	case left < certificateWarning:
		return Advice, fmt.Sprintf("ends on %s, in %s", end.UTC().Format(time.DateOnly), plural(days, "day"))
	default:
		return Good, fmt.Sprintf("holds until %s", end.UTC().Format(time.DateOnly))
	}
}

// primary judges that exactly one node may be written to, and that all are of one cluster.
func (j *judge) primary() {
	var writable []string
	answered := 0
	for _, f := range j.all {
		if f.failure == nil {
			answered++
			if !f.inRecovery {
				writable = append(writable, f.node.Name)
			}
		}
	}
	switch {
	case answered == 0:
	case len(writable) == 1:
		j.add("", "primary", Good, "", "%s is the primary", writable[0])
	case len(writable) == 0:
		j.add("", "primary", Bad, "promote a standby, or name the primary among the nodes", "none of the nodes that answered is a primary")
	default:
		j.add("", "primary", Bad, "stop the one that is not meant to be it, before it takes writes", "%s are writable at the same time", strings.Join(writable, " and "))
	}
	if systems := distinct(j.all, func(f *facts) string { return f.system }); len(systems) > 1 {
		j.add("", "identity", Bad, "put nodes of different clusters into different clusters of the configuration", "the nodes belong to different clusters: system identifier %s", spread(systems))
	}
	if lines := distinct(j.all, func(f *facts) string { return f.timeline }); len(lines) > 1 {
		j.add("", "timeline", Bad, "let the standbys follow the primary's timeline (recovery_target_timeline = latest), or clone them again", "the nodes are on different timelines: %s", spread(lines))
	}
}
