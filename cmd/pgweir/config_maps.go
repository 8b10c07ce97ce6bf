package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"pgweir/proxy"
)

// listeners is listen: one address, or a list of addresses and mappings.
type listeners struct {
	p   *[]Listener
	tls *ClientTLS // what a listener's TLS starts from
	dir string
}

func (v listeners) fields(l *Listener) section {
	return append(section{
		{"addr", "host:port", addr(&l.Addr, false)},
		{"tls", "TLS with clients", clientTLS(&l.TLS, v.dir)},
		{"reuse_port", "other processes of the same user may listen on this address, and the kernel spreads clients over all (SO_REUSEPORT; Linux)", boolean(&l.ReusePort)},
	}, listenerOverrides(&l.Overrides)...)
}

func (v listeners) decode(d *decoder, n *yaml.Node, at string) {
	list := []Listener{}
	d.items(n, at, func(item *yaml.Node, at string) {
		l := Listener{TLS: *v.tls}
		if item.Kind == yaml.ScalarNode {
			addr(&l.Addr, false).decode(d, item, at)
		} else {
			v.fields(&l).decode(d, item, at)
			if item.Kind == yaml.MappingNode && d.nodes[at+".addr"] == nil {
				d.fail(item, at, "addr is missing; for example :6432")
			}
		}
		list = append(list, l)
	})
	if len(list) == 0 {
		d.fail(n, at, "has no address; for example :6432")
		return
	}
	*v.p = list
}

func (v listeners) show(at string, emit emitter) {
	for i := range *v.p {
		v.fields(&(*v.p)[i]).show(fmt.Sprintf("%s[%d]", at, i), emit)
	}
}

// peers is peers: a list of mappings.
type peers struct{ p *[]Peer }

func (v peers) fields(p *Peer) section {
	return section{
		{"process", "its number", integer(&p.Process, 0, proxy.MaxProcess)},
		{"address", "host:port that leads to that process alone, not to a balancer or a port that several listen on", peerAddr(&p.Addr)},
	}
}

// peerAddr is an address to connect to.
func peerAddr(p *string) value {
	return leaf[string]{
		p: p, format: func(s string) string { return s },
		parse: func(s string) (string, error) {
			host, port, err := parseAddr(s, 0)
			switch {
			case err != nil:
				return "", fmt.Errorf("%q: is no address; for example pgweir-1:6432", s)
			case host == "":
				return "", fmt.Errorf("%q: the host is missing", s)
			case port == 0:
				return "", fmt.Errorf("%q: \"0\" is no port; 1 to 65535 are", s)
			}
			return s, nil
		},
	}
}

func (v peers) decode(d *decoder, n *yaml.Node, at string) {
	list := []Peer{}
	d.items(n, at, func(item *yaml.Node, at string) {
		p := Peer{Process: -1}
		if item.Kind == yaml.ScalarNode {
			d.fail(item, at, "takes keys with values; for example {process: 2, address: \"pgweir-2:6432\"}")
			return
		}
		v.fields(&p).decode(d, item, at)
		for _, key := range []string{"process", "address"} {
			if item.Kind == yaml.MappingNode && d.nodes[at+"."+key] == nil {
				d.fail(item, at, "%s is missing", key)
			}
		}
		list = append(list, p)
	})
	*v.p = list
}

func (v peers) show(at string, emit emitter) {
	for i := range *v.p {
		v.fields(&(*v.p)[i]).show(fmt.Sprintf("%s[%d]", at, i), emit)
	}
}

// nodeList is nodes: a list of addresses and mappings.
type nodeList struct{ p *[]Node }

func nodeFields(n *Node) section {
	return section{
		{"name", "what metrics and people see; default: the host", text(&n.Name)},
		{"host", "name or address", text(&n.Host)},
		{"port", "TCP port", integer(&n.Port, 1, 65535)},
		{"zone", "where it stands", mayBeEmpty(&n.Zone)},
		{"tags", "words that read_from names", textList{p: &n.Tags, sorted: true}},
		{"weight", "share of the reads; 0: none", integer(&n.Weight, 0, 1_000_000)},
		{"reads", "false: never answers reads as a standby", boolean(&n.Reads)},
		{"promote", "false: never to be promoted", boolean(&n.Promote)},
	}
}

func (v nodeList) decode(d *decoder, n *yaml.Node, at string) {
	list := []Node{}
	d.items(n, at, func(item *yaml.Node, at string) {
		node := Node{Port: 5432, Weight: 1, Reads: true, Promote: true}
		if item.Kind == yaml.ScalarNode {
			node.Host, node.Port = v.address(d, item, at)
		} else {
			nodeFields(&node).decode(d, item, at)
			if item.Kind == yaml.MappingNode && d.nodes[at+".host"] == nil {
				d.fail(item, at, "host is missing")
			} else if err := checkHost(node.Host); err != nil {
				d.fail(d.nodes[at+".host"], at+".host", "%v", err)
			}
		}
		list = append(list, node)
	})
	nameNodes(list)
	*v.p = list
}

// address reads a node that is written as host:port; the host is empty after a problem.
func (v nodeList) address(d *decoder, item *yaml.Node, at string) (host string, port int) {
	s, ok := d.scalar(item, at)
	if !ok {
		return "", 0
	}
	host, port, err := parseAddr(s, 5432)
	switch {
	case err != nil:
		d.fail(item, at, "%v", err)
		return "", 0
	case host == "":
		d.fail(item, at, "is empty; for example pg-a:5432")
	}
	return host, port
}

func (v nodeList) show(at string, emit emitter) {
	for i := range *v.p {
		nodeFields(&(*v.p)[i]).show(fmt.Sprintf("%s[%d]", at, i), notEmptyOnly(emit))
	}
}

// notEmptyOnly is emit without the values that say nothing.
func notEmptyOnly(emit emitter) emitter {
	return func(path, text string, secret bool) {
		if text != "" {
			emit(path, text, secret)
		}
	}
}

// nameNodes gives every node without a name its host, with the port where two share a host.
func nameNodes(list []Node) {
	count := map[string]int{}
	for _, n := range list {
		count[n.Host]++
	}
	for i := range list {
		switch n := &list[i]; {
		case n.Name != "":
		case count[n.Host] > 1:
			n.Name = n.Addr()
		default:
			n.Name = n.Host
		}
	}
}

// discover is a source of nodes.
type discover struct{ p *string }

func (v discover) decode(d *decoder, n *yaml.Node, at string) {
	s, ok := d.scalar(n, at)
	if !ok {
		return
	}
	scheme, rest, _ := strings.Cut(s, "://")
	switch scheme {
	case "dns":
		host, port, err := parseAddr(strings.TrimSuffix(rest, "/"), 5432)
		if err != nil || host == "" {
			d.fail(n, at, "%q: is no source; for example dns://ledger-pods.db.svc:5432", s)
			return
		}
		*v.p = Node{Host: host, Port: port}.Addr()
	case "patroni", "repmgr", "pg_auto_failover":
		d.fail(n, at, "%q: discovery by %s is not available in this version; dns:// is", s, scheme)
	default:
		d.fail(n, at, "%q: is no source; for example dns://ledger-pods.db.svc:5432", s)
	}
}

func (v discover) show(at string, emit emitter) {
	if *v.p != "" {
		emit(at, "dns://"+*v.p, false)
	}
}

// short is the cluster of the single-cluster form, made when first needed. It expects the
// top's tuning to be complete.
func short(c *Config) *Cluster {
	if cl := c.Cluster("main"); cl != nil {
		return cl
	}
	c.Clusters = append(c.Clusters, &Cluster{Name: "main", Tuning: c.Tuning})
	return c.Clusters[len(c.Clusters)-1]
}

// nodesOf is the short form of a single cluster's nodes.
type nodesOf struct{ c *Config }

func (v nodesOf) decode(d *decoder, n *yaml.Node, at string) {
	nodeList{&short(v.c).Nodes}.decode(d, n, at)
}

func (v nodesOf) show(string, emitter) {} // shown as the cluster's

// discoverOf is the short form of a single cluster's source of nodes.
type discoverOf struct{ c *Config }

func (v discoverOf) decode(d *decoder, n *yaml.Node, at string) {
	discover{&short(v.c).Discover}.decode(d, n, at)
}

func (v discoverOf) show(string, emitter) {} // shown as the cluster's

// clusters is the map of clusters.
type clusters struct {
	c   *Config
	dir string
}

func (v clusters) fields(cl *Cluster) section {
	s := section{
		{"nodes", "addresses", nodeList{&cl.Nodes}},
		{"discover", "dns://host:port, every address of which is a node", discover{&cl.Discover}},
	}
	s = append(s, tuning(&cl.Tuning, v.dir)...)
	return append(s, overrides(&cl.Overrides)...)
}

// decode expects the top's tuning to be complete: every cluster starts from it.
func (v clusters) decode(d *decoder, n *yaml.Node, at string) {
	d.each(n, at, func(key, val *yaml.Node, at string) {
		d.seen(val, at)
		cl := &Cluster{Name: key.Value, Tuning: v.c.Tuning}
		v.fields(cl).decode(d, val, at)
		if key.Value == "" {
			d.fail(key, at, "a cluster needs a name")
		}
		ownPassword(d, at, &cl.Monitor)
		v.c.Clusters = append(v.c.Clusters, cl)
	})
}

func (v clusters) show(at string, emit emitter) {
	for _, cl := range v.c.Clusters {
		v.fields(cl).show(joinPath(at, cl.Name), emit)
	}
}

// ownPassword drops what a cluster's monitor took from the top when the cluster names a
// password of its own in another way.
func ownPassword(d *decoder, at string, m *Monitor) {
	own := func(key string) bool { return d.nodes[at+".monitor."+key] != nil }
	if !own("password") && !own("password_file") && !own("password_command") && !own("passfile") {
		return
	}
	if !own("password") {
		m.Password = ""
	}
	if !own("password_file") {
		m.PasswordFile = ""
	}
	if !own("password_command") {
		m.PasswordCommand = nil
	}
	if !own("passfile") {
		m.PassFile = ""
	}
}

// databases is the map of names that clients ask for.
type databases struct{ c *Config }

func (v databases) fields(db *Database) section {
	return append(section{
		{"cluster", "which cluster; may be left out when there is one", text(&db.Cluster)},
		{"dbname", "the server's name of the database; default: the same", text(&db.DBName)},
	}, overrides(&db.Overrides)...)
}

func (v databases) decode(d *decoder, n *yaml.Node, at string) {
	d.each(n, at, func(key, val *yaml.Node, at string) {
		d.seen(val, at)
		if key.Value == "" {
			d.fail(key, at, "a database needs a name; \"*\" stands for the rest")
		}
		db := &Database{Name: key.Value}
		v.fields(db).decode(d, val, at)
		v.c.Databases[db.Name] = db
	})
}

func (v databases) show(at string, emit emitter) {
	for _, name := range slices.Sorted(maps.Keys(v.c.Databases)) {
		v.fields(v.c.Databases[name]).show(joinPath(at, name), notEmptyOnly(emit))
	}
}

// users is the map of users.
type users struct {
	c   *Config
	dir string
}

func (v users) decode(d *decoder, n *yaml.Node, at string) {
	d.each(n, at, func(key, val *yaml.Node, at string) {
		d.seen(val, at)
		if key.Value == "" {
			d.fail(key, at, "a user needs a name")
		}
		u := &User{Name: key.Value, Databases: map[string]*Overrides{}}
		v.fields(u).decode(d, val, at)
		v.c.Users[u.Name] = u
	})
}

func (v users) fields(u *User) section {
	return append(section{
		{"password", "SCRAM verifier, md5 hash or plain text", secret(&u.Password)},
		{"password_file", "a file with it", secretFile{&u.Password, v.dir}},
		{"databases", "settings for this user on one database", userDatabases{u}},
	}, overrides(&u.Overrides)...)
}

func (v users) show(at string, emit emitter) {
	for _, name := range slices.Sorted(maps.Keys(v.c.Users)) {
		v.fields(v.c.Users[name]).show(joinPath(at, name), notEmptyOnly(emit))
	}
}

// userDatabases is what one user gets on single databases.
type userDatabases struct{ u *User }

func (v userDatabases) decode(d *decoder, n *yaml.Node, at string) {
	d.each(n, at, func(key, val *yaml.Node, at string) {
		d.seen(val, at)
		o := &Overrides{}
		overrides(o).decode(d, val, at)
		v.u.Databases[key.Value] = o
	})
}

func (v userDatabases) show(at string, emit emitter) {
	for _, name := range slices.Sorted(maps.Keys(v.u.Databases)) {
		overrides(v.u.Databases[name]).show(joinPath(at, name), emit)
	}
}

// adminUsers is the map of those who may use the console.
type adminUsers struct{ p *Admin }

func (v adminUsers) decode(d *decoder, n *yaml.Node, at string) {
	v.p.Users = map[string]string{}
	d.each(n, at, func(key, val *yaml.Node, at string) {
		if key.Value == "" {
			d.fail(key, at, "a user needs a name")
		}
		role := ""
		choice(&role, words("admin", "stats")...).decode(d, val, at)
		v.p.Users[key.Value] = role
	})
}

func (v adminUsers) show(at string, emit emitter) {
	for _, name := range slices.Sorted(maps.Keys(v.p.Users)) {
		emit(joinPath(at, name), v.p.Users[name], false)
	}
}
