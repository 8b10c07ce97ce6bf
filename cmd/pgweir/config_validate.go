package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
)

// validate checks what a single value cannot tell: names that refer to each other, values that
// only make sense together, files that must be there. It completes what follows from the rest:
// the databases of a configuration that names none.
func validate(d *decoder, c *Config) {
	validateClusters(d, c)
	validateListeners(d, c)
	validateAuth(d, c)
	validatePeers(d, c)
	if len(c.Clusters) > 0 {
		validateDatabases(d, c)
		validateUsers(d, c)
	}
	validateLevels(d, c)
	if c.StateDir == "" {
		d.warnings = append(d.warnings, "state_dir is not set: after a restart pgweir does not know the highest timeline it has seen")
	}
}

// validateClusters checks the clusters and their nodes.
func validateClusters(d *decoder, c *Config) {
	short := map[bool]string{true: "nodes", false: "discover"}[d.nodes["nodes"] != nil]
	switch {
	case d.nodes["clusters"] != nil && d.nodes[short] != nil:
		d.failAt(short, "stands beside clusters: put the nodes into one of them")
		c.Clusters = slices.DeleteFunc(c.Clusters, func(cl *Cluster) bool { return d.nodes["clusters."+cl.Name] == nil })
	case len(c.Clusters) == 0:
		d.fail(nil, "", "no node is configured; the smallest file is: nodes: [pg-a, pg-b]; or give --node DSN")
	}
	owner := map[string]string{}
	for _, cl := range c.Clusters {
		at := joinPath("clusters", cl.Name)
		if d.nodes[short] != nil && cl.Name == "main" && d.nodes[at] == nil {
			at = ""
		}
		key := func(k string) string { return strings.TrimPrefix(at+"."+k, ".") }
		switch {
		case len(cl.Nodes) > 0 && cl.Discover != "":
			d.failAt(key("discover"), "nodes and discover exclude each other")
		case len(cl.Nodes) == 0 && cl.Discover == "" && d.nodes[key("discover")] == nil && len(d.nodesBelow(key("nodes"))) == 0:
			d.failAt(at, "has no nodes; for example nodes: [pg-a:5432, pg-b:5432]")
		}
		validateNodes(d, cl, key("nodes"), owner)
		validateTuning(d, cl.Tuning, key)
	}
}

// nodesBelow lists the decoded paths directly in the list at path.
func (d *decoder) nodesBelow(path string) []string {
	var out []string
	for at := range d.nodes {
		if strings.HasPrefix(at, path+"[") {
			out = append(out, at)
		}
	}
	return out
}

// validateNodes checks that names and addresses are unique; owner collects the addresses of
// all clusters.
func validateNodes(d *decoder, cl *Cluster, at string, owner map[string]string) {
	names := map[string]bool{}
	for i, n := range cl.Nodes {
		item := fmt.Sprintf("%s[%d]", at, i)
		other, taken := owner[n.Addr()]
		switch {
		case n.Host == "": // reported where it was read
			continue
		case taken && other == cl.Name:
			d.failAt(item, "%s is given twice", n.Addr())
		case taken:
			d.failAt(item, "%s belongs to cluster %q already", n.Addr(), other)
		case names[n.Name]:
			d.failAt(item, "two nodes are named %q", n.Name)
		}
		owner[n.Addr()], names[n.Name] = cl.Name, true
	}
	if len(cl.Nodes) > 0 && !slices.ContainsFunc(cl.Nodes, func(n Node) bool { return n.Promote }) {
		d.failAt(at, "no node may be primary: promote is false on every one")
	}
}

// validateTuning checks what a cluster's probes and monitor need.
func validateTuning(d *decoder, t Tuning, key func(string) string) {
	if t.Probe.Interval >= t.TrustWindow {
		d.failAt(key("probe.interval"), "%s is not shorter than trust_window (%s): every role would be in doubt between two probes",
			formatDuration(t.Probe.Interval), formatDuration(t.TrustWindow))
	}
	m := t.Monitor
	var ways []string
	for way, set := range map[string]bool{
		"password": m.Password != "", "password_file": m.PasswordFile != "",
		"password_command": len(m.PasswordCommand) > 0, "passfile": m.PassFile != "",
	} {
		if set {
			ways = append(ways, way)
		}
	}
	if slices.Sort(ways); len(ways) > 1 {
		d.failAt(key("monitor."+ways[len(ways)-1]), "%s exclude each other", strings.Join(ways, " and "))
	}
	if d.nodes[key("monitor.password_ttl")] != nil && len(m.PasswordCommand) == 0 {
		d.failAt(key("monitor.password_ttl"), "only password_command has a time to live")
	}
	if m.PasswordFile != "" {
		d.needFile(key("monitor.password_file"), m.PasswordFile)
	}
	if m.PassFile != "" {
		d.needFile(key("monitor.passfile"), m.PassFile)
	}
	validateServerTLS(d, t.ServerTLS, key("server_tls"))
}

// validateServerTLS checks that a mode has the files it needs and that they can be read.
func validateServerTLS(d *decoder, tls ServerTLS, at string) {
	switch {
	case tls.Cert != "" && tls.Key == "":
		d.failAt(at+".cert", "needs a key")
	case tls.Key != "" && tls.Cert == "":
		d.failAt(at+".key", "needs a cert")
	}
	switch verifies := tls.Mode == "verify-ca" || tls.Mode == "verify-full"; {
	case verifies && tls.CA == "":
		d.failAt(d.given(at+".mode"), "%q needs a ca: a file, or system", tls.Mode)
	case tls.CA == systemCA && tls.Mode != "verify-full":
		d.failAt(d.given(at+".ca"), "\"system\": everybody gets a certificate from one of them, so the name must be checked too: mode verify-full")
	}
	for k, name := range map[string]string{"ca": tls.CA, "cert": tls.Cert, "key": tls.Key} {
		if name != "" && name != systemCA {
			d.needFile(at+"."+k, name)
		}
	}
}

// needFile checks that a file can be read.
func (d *decoder) needFile(at, name string) {
	f, err := os.Open(name)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		d.failAt(d.given(at), "%s cannot be read: %s", name, plainCause(err))
	}
}

// given is at, or the same key at the top where the cluster took it from there.
func (d *decoder) given(at string) string {
	if d.nodes[at] == nil && strings.HasPrefix(at, "clusters.") {
		if _, below, ok := strings.Cut(strings.TrimPrefix(at, "clusters."), "."); ok && d.nodes[below] != nil {
			return below
		}
	}
	return at
}

// plainCause is what went wrong with a file, without its name.
func plainCause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// validateListeners checks addresses and certificates.
func validateListeners(d *decoder, c *Config) {
	taken := map[string]bool{}
	for i, l := range c.Listen {
		at := fmt.Sprintf("listen[%d]", i)
		_, port, err := parseAddr(l.Addr, 0)
		if err != nil {
			continue // reported where it was read
		}
		if port != 0 && taken[l.Addr] {
			d.failAt(at, "%s is given twice", l.Addr)
		}
		taken[l.Addr] = true
		if d.nodes[at+".tls"] != nil {
			validateClientTLS(d, l.TLS, at+".tls")
		}
	}
	if c.Admin.Listen != "" && taken[c.Admin.Listen] {
		if _, port, _ := parseAddr(c.Admin.Listen, 0); port != 0 {
			d.failAt("admin.listen", "%s is an address for clients already", c.Admin.Listen)
		}
	}
	validateClientTLS(d, c.TLS, "tls")
}

// validateClientTLS checks that a mode has the files it needs and that they can be read.
func validateClientTLS(d *decoder, t ClientTLS, at string) {
	switch {
	case t.Mode != "default" && t.Mode != "disable" && t.Cert == "":
		d.failAt(at+".mode", "%q needs a cert and a key", t.Mode)
	case t.Cert != "" && t.Key == "":
		d.failAt(at+".cert", "needs a key")
	case t.Key != "" && t.Cert == "":
		d.failAt(at+".key", "needs a cert")
	}
	if (t.Mode == "verify-ca" || t.Mode == "verify-full") && t.CA == "" {
		d.failAt(at+".mode", "%q needs a ca that the clients' certificates come from", t.Mode)
	}
	before := len(d.problems)
	for _, f := range []struct{ key, name string }{{"cert", t.Cert}, {"key", t.Key}, {"ca", t.CA}} {
		if f.name != "" {
			d.needFile(at+"."+f.key, f.name)
		}
	}
	if len(d.problems) == before && t.Cert != "" && t.Key != "" {
		if _, err := t.Config(); err != nil {
			d.failAt(at, "%v", err)
		}
	}
}

// validateAuth checks where clients' secrets come from.
func validateAuth(d *decoder, c *Config) {
	if c.Auth.File != "" {
		d.needFile("auth.file", c.Auth.File)
	}
	if q := c.Auth.Query; q != "default" && q != "off" && !strings.Contains(q, "$1") {
		if strings.ContainsAny(q, " (") {
			d.failAt("auth.query", "the query has no $1 for the user's name")
		} else {
			d.failAt("auth.query", "%q: default, off or a query is accepted%s", q, didYouMean(q, []string{"default", "off"}))
		}
	}
}

// validatePeers checks that every process has one number and one address, and that none of them is this process's.
func validatePeers(d *decoder, c *Config) {
	validateServerTLS(d, c.PeerTLS, "peer_tls")
	if len(c.Peers) > 0 && c.Process == nil && !d.failed("process") {
		d.failAt("peers", "needs process: the number of this process, which no other has")
	}
	numbers, addrs := map[int]bool{}, map[string]bool{}
	for i, p := range c.Peers {
		at := fmt.Sprintf("peers[%d]", i)
		switch {
		case p.Process < 0: // reported where it was read
		case c.Process != nil && *c.Process == p.Process:
			d.failAt(at+".process", "%d is this process's own number", p.Process)
		case numbers[p.Process]:
			d.failAt(at+".process", "%d is given twice", p.Process)
		}
		switch own := slices.IndexFunc(c.Listen, func(l Listener) bool { return leadsTo(p.Addr, l.Addr) }); {
		case p.Addr == "": // likewise
		case own >= 0:
			d.failAt(at+".address", "%s is an address that this process itself listens on (listen[%d])", p.Addr, own)
		case addrs[p.Addr]:
			d.failAt(at+".address", "%s is given twice", p.Addr)
		}
		numbers[p.Process], addrs[p.Addr] = true, true
	}
	if len(c.Peers) > 0 && !slices.ContainsFunc(c.Listen, func(l Listener) bool { return !l.ReusePort }) {
		d.warnings = append(d.warnings, "peers: no peer can reach this process alone, since every address that it listens on has reuse_port")
	}
	if len(c.Peers) > 0 && c.tellsRealPIDs() {
		d.warnings = append(d.warnings, "backend_pid: real beside peers: such a pid names no process, so that a cancel request which comes to another process reaches nothing")
	}
}

// tellsRealPIDs says whether any level has backend_pid: real.
func (c *Config) tellsRealPIDs() bool {
	levels := []*Overrides{&c.Overrides}
	for _, cl := range c.Clusters {
		levels = append(levels, &cl.Overrides)
	}
	for _, db := range c.Databases {
		levels = append(levels, &db.Overrides)
	}
	for _, u := range c.Users {
		levels = append(append(levels, &u.Overrides), slices.Collect(maps.Values(u.Databases))...)
	}
	return slices.ContainsFunc(levels, func(o *Overrides) bool { return o.BackendPID != nil && *o.BackendPID == "real" })
}

// leadsTo says whether who dials an address reaches a listener of this machine, as far as the texts tell.
func leadsTo(addr, listener string) bool {
	host, port, err := parseAddr(addr, 0)
	if err != nil {
		return false
	}
	at, listens, err := parseAddr(listener, 0)
	if err != nil || port != listens {
		return false
	}
	ip, any := net.ParseIP(host), net.ParseIP(at)
	return host == at || (at == "" || any != nil && any.IsUnspecified()) && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// validateDatabases checks that databases name clusters, and makes the rest where none is named.
func validateDatabases(d *decoder, c *Config) {
	if len(c.Databases) == 0 {
		if d.nodes["databases"] == nil || len(c.Clusters) == 1 {
			if len(c.Clusters) > 1 {
				d.failAt("clusters", "there are %d, and no databases that say which a client gets; for example databases: {\"*\": {cluster: %s}}",
					len(c.Clusters), c.Clusters[0].Name)
				return
			}
			c.Databases["*"] = &Database{Name: "*", Cluster: c.Clusters[0].Name}
			return
		}
	}
	var names []string
	for _, cl := range c.Clusters {
		names = append(names, cl.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Databases)) {
		db, at := c.Databases[name], joinPath("databases", name)
		switch {
		case db.Cluster == "" && len(c.Clusters) == 1:
			db.Cluster = c.Clusters[0].Name
		case d.failed(at):
		case db.Cluster == "":
			d.failAt(at, "needs a cluster: %s", strings.Join(names, ", "))
		case !slices.Contains(names, db.Cluster):
			d.failAt(at+".cluster", "there is no cluster %q%s", db.Cluster, didYouMean(db.Cluster, names))
		}
		switch name {
		case c.Console.Database:
			d.failAt(at, "is the name of the console; console.database gives that another one")
		case pgbouncerName:
			d.warnings = append(d.warnings, at+": takes this name from the console, which is reached as "+c.Console.Database+" only")
		}
	}
}

// validateUsers checks that combinations name databases.
func validateUsers(d *decoder, c *Config) {
	_, rest := c.Databases["*"]
	known := slices.Sorted(maps.Keys(c.Databases))
	for _, name := range slices.Sorted(maps.Keys(c.Users)) {
		u, at := c.Users[name], joinPath("users", name)
		if d.nodes[at+".password"] != nil && d.nodes[at+".password_file"] != nil {
			d.failAt(at+".password_file", "password and password_file exclude each other")
		}
		for db := range u.Databases {
			if !rest && !slices.Contains(known, db) {
				d.failAt(joinPath(at+".databases", db), "there is no database %q%s", db, didYouMean(db, known))
			}
		}
	}
}

// validateLevels checks the settings that every level may carry.
func validateLevels(d *decoder, c *Config) {
	check := func(at string, o *Overrides, clusters ...*Cluster) {
		validateReadFrom(d, strings.TrimPrefix(at+".read_from", "."), o, clusters)
		if o.Prefer != nil && *o.Prefer == "zone" && c.Zone == "" {
			d.failAt(strings.TrimPrefix(at+".prefer", "."), "\"zone\": the zone of this process is not known; set zone, or PGWEIR_ZONE")
		}
		if q := o.QueryTimeout; q != nil && *q > 0 && *q < c.Hold.Timeout {
			d.warnings = append(d.warnings, fmt.Sprintf("%s: %s is over before hold.timeout (%s): a statement that waits for a primary ends with its client then",
				strings.TrimPrefix(at+".query_timeout", "."), formatDuration(*q), formatDuration(c.Hold.Timeout)))
		}
	}
	check("", &c.Overrides, c.Clusters...)
	for i := range c.Listen {
		check(fmt.Sprintf("listen[%d]", i), &c.Listen[i].Overrides, c.Clusters...)
	}
	for _, cl := range c.Clusters {
		check(joinPath("clusters", cl.Name), &cl.Overrides, cl)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Databases)) {
		db := c.Databases[name]
		if cl := c.Cluster(db.Cluster); cl != nil {
			check(joinPath("databases", db.Name), &db.Overrides, cl)
		}
	}
	for _, user := range slices.Sorted(maps.Keys(c.Users)) {
		u, at := c.Users[user], joinPath("users", user)
		check(at, &u.Overrides, c.Clusters...)
		for _, name := range slices.Sorted(maps.Keys(u.Databases)) {
			check(joinPath(at+".databases", name), u.Databases[name], c.Clusters...)
		}
	}
}

// validateReadFrom checks that some node of the clusters has each tag. Nodes that are yet to
// be discovered may have any: nothing is checked then.
func validateReadFrom(d *decoder, at string, o *Overrides, clusters []*Cluster) {
	if o.ReadFrom == nil || slices.ContainsFunc(clusters, func(cl *Cluster) bool { return cl.Discover != "" }) {
		return
	}
	tags := map[string]bool{}
	for _, cl := range clusters {
		for _, n := range cl.Nodes {
			for _, t := range n.Tags {
				tags[t] = true
			}
		}
	}
	known := strings.Join(slices.Sorted(maps.Keys(tags)), ", ")
	if known == "" {
		known = "none"
	}
	for i, t := range *o.ReadFrom {
		item := d.nodes[fmt.Sprintf("%s[%d]", at, i)]
		switch {
		case tags[t]:
		case len(clusters) == 1:
			d.fail(item, at, "no node of cluster %q has tag %q (tags: %s)", clusters[0].Name, t, known)
		case len(clusters) > 1:
			d.fail(item, at, "no node of any cluster has tag %q (tags: %s)", t, known)
		}
	}
}
