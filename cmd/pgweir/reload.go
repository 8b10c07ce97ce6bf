package main

import (
	"regexp"
	"slices"
	"strings"
)

// Change is one value that differs between two configurations.
type Change struct {
	Path     string
	Old, New string // *** for secrets, "" where the key is not there
	// Restart says that the running process keeps the old value until it is started again.
	Restart bool
}

// String is the change on one line.
func (c Change) String() string {
	show := func(s string) string {
		if s == "" {
			return "(none)"
		}
		return s
	}
	return c.Path + ": " + show(c.Old) + " → " + show(c.New)
}

// Diff lists what differs between two configurations, in the order of the keys.
func Diff(before, after *Config) []Change {
	type val struct {
		text   string
		secret bool
	}
	flat := func(c *Config) (order []string, vals map[string]val) {
		vals = map[string]val{}
		schema(c, "").show("", func(path, text string, secret bool) {
			order = append(order, path)
			vals[path] = val{text, secret}
		})
		return order, vals
	}
	oldOrder, oldVals := flat(before)
	newOrder, newVals := flat(after)
	for _, path := range oldOrder {
		if _, ok := newVals[path]; !ok {
			newOrder = append(newOrder, path)
		}
	}
	var out []Change
	for _, path := range newOrder {
		o, n := oldVals[path], newVals[path]
		if o == n {
			continue
		}
		ch := Change{Path: path, Old: o.text, New: n.text, Restart: needsRestart(path)}
		if o.secret || n.secret {
			ch.Old, ch.New = mask(o.text), mask(n.text)
		}
		out = append(out, ch)
	}
	return out
}

// mask hides a secret but not whether there is one.
func mask(s string) string {
	if s == "" {
		return ""
	}
	return hidden
}

// restartKeys match the keys that are read once, when the process starts: its sockets, what it
// remembers on disk, what the monitors and the pools are built with.
// Everything else changes at a reload.
var restartKeys = []*regexp.Regexp{
	regexp.MustCompile(`^listen\[\d+\]\.(addr|reuse_port)$`),
	regexp.MustCompile(`^(admin\.listen|console|auth|state_dir|log|zone|process|failover|drain_timeout)(\.|$)`),
	regexp.MustCompile(`^hold\.max$`),
	regexp.MustCompile(`^clusters\.("[^"]*"|[^.]+)\.(nodes|discover|monitor|server_tls|trust_window|probe|sampling|max_lag|primary|startup|discovery)(\.|\[|$)`),
	regexp.MustCompile(`^clusters\.("[^"]*"|[^.]+)\.routing\.(read_only_functions|session_safe_functions|trusted_extensions)$`),
}

// needsRestart says whether a changed value at path waits for a restart. Keys of the top that
// clusters start from count where they arrive, in the cluster.
func needsRestart(path string) bool {
	return slices.ContainsFunc(restartKeys, func(re *regexp.Regexp) bool { return re.MatchString(path) })
}

// Reloaded is what a running process goes on with after a reload.
type Reloaded struct {
	Config  *Config  // what holds from now on
	Applied []Change // what is different now
	Waiting []Change // what keeps its old value until a restart
}

// Reload merges a new configuration into the running one: what can change does, what cannot
// keeps its running value and is listed. A cluster that is new or gone waits for a restart,
// and with it the databases that name it.
func Reload(running, next *Config) Reloaded {
	merged := *next
	merged.Auth, merged.StateDir, merged.Log, merged.Zone = running.Auth, running.StateDir, running.Log, running.Zone
	merged.Process = running.Process
	merged.Admin.Listen, merged.Console = running.Admin.Listen, running.Console
	merged.UnknownSQLState, merged.DrainTimeout, merged.Hold.Max = running.UnknownSQLState, running.DrainTimeout, running.Hold.Max
	merged.Listen = keepListeners(running.Listen, next.Listen)
	merged.Clusters = make([]*Cluster, len(running.Clusters))
	for i, old := range running.Clusters {
		cl := *old
		if n := next.Cluster(old.Name); n != nil {
			cl.Overrides, cl.Routing.Opaque = n.Overrides, n.Routing.Opaque
		}
		merged.Clusters[i] = &cl
	}
	merged.Databases = keepDatabases(running, next)
	out := Reloaded{Config: &merged, Applied: Diff(running, &merged)}
	for _, ch := range Diff(&merged, next) {
		if inherited := strings.SplitN(ch.Path, ".", 2)[0]; !ch.Restart && slices.Contains(tunedAtTop, inherited) {
			continue
		}
		ch.Restart = true
		out.Waiting = append(out.Waiting, ch)
	}
	return out
}

// tunedAtTop are keys of the top that hold only through the clusters that start from them.
var tunedAtTop = []string{"monitor", "server_tls", "trust_window", "probe", "sampling", "max_lag", "primary", "startup", "discovery", "routing"}

// keepListeners are the running addresses with the settings that the new configuration gives them.
func keepListeners(running, next []Listener) []Listener {
	out := slices.Clone(running)
	for i := range out {
		if j := slices.IndexFunc(next, func(l Listener) bool { return l.Addr == out[i].Addr }); j >= 0 {
			out[i], out[i].ReusePort = next[j], running[i].ReusePort
		}
	}
	return out
}

// keepDatabases are the new databases, without those whose cluster is not running and with
// those whose cluster is about to go.
func keepDatabases(running, next *Config) map[string]*Database {
	out := map[string]*Database{}
	for name, db := range next.Databases {
		if running.Cluster(db.Cluster) != nil {
			out[name] = db
		}
	}
	for name, db := range running.Databases {
		if _, ok := out[name]; !ok && (next.Cluster(db.Cluster) == nil || next.Databases[name] != nil) {
			out[name] = db
		}
	}
	return out
}
