package main

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Source is everything a configuration is read from; Load may be called again, for a reload.
type Source struct {
	File    string            // "": no file
	Environ map[string]string // variables, PGWEIR_… and those that ${VAR} names
	Flags   []FlagValue       // in the order of the command line
}

// FlagValue is one use of a flag.
type FlagValue struct{ Name, Value string }

// key is one value that a flag and a variable can set: a scalar of the top level, or a list of them.
type key struct {
	path string // in the tree
	flag string // without the dashes
	doc  string
	list bool // may be repeated
	dsn  bool // takes a DSN
}

// variable is the name of the environment variable that sets k.
func (k key) variable() string {
	return "PGWEIR_" + strings.ToUpper(strings.ReplaceAll(k.flag, "-", "_"))
}

// keys lists what flags and variables can set.
func keys() []key {
	out := []key{
		{path: "nodes", flag: "node", doc: "a node's `DSN` (URI, keywords or host:port), any number of times; its user is the monitor", list: true, dsn: true},
		{path: "admin.listen", flag: "admin", doc: "the `address` for metrics, health and the status page, or off"},
	}
	var walk func(prefix string, fields section)
	walk = func(prefix string, fields section) {
		for _, f := range fields {
			k := key{path: joinPath(prefix, f.key), doc: f.doc}
			k.flag = strings.NewReplacer(".", "-", "_", "-").Replace(k.path)
			switch v := f.val.(type) {
			case section:
				walk(k.path, v)
				continue
			case adminValue, clusters, databases, users:
				continue
			case listeners, nodesOf, textList, optional[[]string]:
				k.list = true
			}
			out = append(out, k)
		}
	}
	walk("", schema(DefaultConfig(), ""))
	return out
}

// newSource registers -c and every flag of the configuration with fs and returns the source
// that fs.Parse fills.
func newSource(fs *flag.FlagSet, environ []string) *Source {
	s := &Source{Environ: map[string]string{}}
	for _, kv := range environ {
		name, val, _ := strings.Cut(kv, "=")
		s.Environ[name] = val
	}
	s.File = s.Environ["PGWEIR_CONFIG"]
	fs.StringVar(&s.File, "c", s.File, "the configuration `file`")
	fs.StringVar(&s.File, "config", s.File, "the configuration `file`")
	for _, k := range keys() {
		fs.Func(k.flag, k.doc, func(val string) error {
			s.Flags = append(s.Flags, FlagValue{Name: k.flag, Value: val})
			return nil
		})
	}
	return s
}

// Load reads and checks everything. The error is Problems when the configuration is wrong,
// with everything that is wrong with it.
func (s *Source) Load() (*Config, error) {
	lookup := func(name string) (string, bool) { val, ok := s.Environ[name]; return val, ok }
	d := newDecoder(s.File, lookup)
	root, dir := &yaml.Node{Kind: yaml.MappingNode}, ""
	if s.File != "" {
		content, err := os.ReadFile(s.File)
		if err != nil {
			d.problems = append(d.problems, placed{Problem: Problem{Pos: s.File, Message: "cannot be read: " + plainCause(err)}})
			return nil, d.all()
		}
		dir = filepath.Dir(s.File)
		if root = d.parse(bytes.NewReader(content)); root == nil {
			return nil, d.all()
		}
	}
	s.overlay(d, root)
	c := DefaultConfig()
	schema(c, dir).decode(d, root, "")
	if d.nodes["listen"] == nil {
		c.Listen[0].TLS = c.TLS // as every listener that the file names starts from it
	}
	validate(d, c)
	if err := d.all(); err != nil {
		return nil, err
	}
	c.origins, c.secrets = d.origins, d.secrets
	c.Warnings = d.warnings
	return c, nil
}

// overlay lays variables and then flags over the tree of the file.
func (s *Source) overlay(d *decoder, root *yaml.Node) {
	all := keys()
	known := map[string]bool{"PGWEIR_CONFIG": true}
	for _, name := range otherVariables() {
		known[name] = true
	}
	for _, k := range all {
		known[k.variable()] = true
		if val := s.Environ[k.variable()]; val != "" {
			d.put(root, k, []string{val}, k.variable())
		}
	}
	s.warnUnknown(d, known)
	given := map[string][]string{}
	for _, f := range s.Flags {
		given[f.Name] = append(given[f.Name], f.Value)
	}
	for _, k := range all { // a DSN stands first, so that what it says can be said again
		if vals := given[k.flag]; len(vals) > 0 {
			d.put(root, k, vals, "--"+k.flag)
			if k.path == "monitor.password" {
				d.warnings = append(d.warnings, "--"+k.flag+": a password on the command line can be read by every user of this machine; use --monitor-password-file")
			}
		}
	}
}

// otherVariables are those that something else of ours reads: the demo's servers, the tests.
func otherVariables() []string {
	return []string{"PGWEIR_PG_BINS", "PGWEIR_PG_CACHE", "PGWEIR_BIN", "PGWEIR_REQUIRE_DRIVERS", "PGWEIR_PARITY_SHOW"}
}

// warnUnknown warns of variables that look like ours and are not. It is no error, since
// Kubernetes makes up such names for a service that is called pgweir.
func (s *Source) warnUnknown(d *decoder, known map[string]bool) {
	names := slices.Sorted(maps.Keys(known))
	for _, name := range slices.Sorted(maps.Keys(s.Environ)) {
		rest, ours := strings.CutPrefix(name, "PGWEIR_")
		if !ours || known[name] || rest == "PORT" || strings.HasPrefix(rest, "PORT_") || strings.Contains(rest, "SERVICE_") || strings.Contains(rest, "_PORT_") {
			continue
		}
		msg := name + ": no setting has this variable"
		if near := nearest(name, names); near != "" {
			msg += "; did you mean " + near + "?"
		}
		d.warnings = append(d.warnings, msg)
	}
}

// put sets what k stands for to what was given at place, a variable or a flag.
func (d *decoder) put(root *yaml.Node, k key, vals []string, place string) {
	switch {
	case k.dsn:
		d.putDSNs(root, vals, place)
	case k.list && len(vals) > 1:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		d.places[list] = place
		for _, v := range vals {
			for _, part := range strings.Split(v, ",") {
				list.Content = append(list.Content, d.synthetic(strings.TrimSpace(part), place))
			}
		}
		d.set(root, k.path, list)
	default:
		d.set(root, k.path, d.synthetic(vals[len(vals)-1], place))
	}
}

// synthetic is a scalar that stands at a variable or a flag.
func (d *decoder) synthetic(val, place string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: val}
	d.places[n] = place
	return n
}

// set puts val at path in the tree below root, in place of what is there.
func (d *decoder) set(root *yaml.Node, path string, val *yaml.Node) {
	at, parts := root, strings.Split(path, ".")
	for i, part := range parts {
		j := 0
		for j < len(at.Content) && at.Content[j].Value != part {
			j += 2
		}
		last := i == len(parts)-1
		if j == len(at.Content) {
			name := d.synthetic(part, d.places[val])
			at.Content = append(at.Content, name, &yaml.Node{Kind: yaml.MappingNode})
			d.places[at.Content[j+1]] = d.places[val]
		}
		if last {
			at.Content[j+1] = val
			return
		}
		at.Content[j+1] = d.mapping(at.Content[j+1], part == "admin", strings.Join(parts[:i+1], "."))
		at = at.Content[j+1]
	}
}

// mapping makes n a mapping that can be added to without changing what others share with it.
// Where n is something else it is a problem, unless the value as a whole is replaced anyway.
func (d *decoder) mapping(n *yaml.Node, replace bool, path string) *yaml.Node {
	switch {
	case n.Kind == yaml.MappingNode:
		return n
	case n.Kind == yaml.AliasNode:
		merge := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!merge", Value: "<<", Line: n.Line, Column: n.Column}
		return &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{merge, n}}
	case n.Kind == yaml.ScalarNode && (n.Tag == "!!null" || replace):
	default:
		d.fail(n, path, "takes keys with values, this is %s", kindOf(n))
	}
	return &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column}
}

// putDSNs sets nodes, monitor and server_tls to what DSNs say.
func (d *decoder) putDSNs(root *yaml.Node, vals []string, place string) {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	d.places[list] = place
	said := map[string]string{} // path → value
	for i, v := range vals {
		dsn, err := parseDSN(v)
		if err != nil {
			if len(vals) > 1 {
				err = fmt.Errorf("DSN %d of %d: %w", i+1, len(vals), err)
			}
			d.failPlace(place, "", "%v", err)
			continue
		}
		for _, hp := range dsn.hosts {
			list.Content = append(list.Content, d.synthetic(hp, place))
		}
		for _, path := range slices.Sorted(maps.Keys(dsn.said)) {
			val := dsn.said[path]
			if before, ok := said[path]; ok && before != val {
				shown := fmt.Sprintf("%q and %q", before, val)
				if path == "monitor.password" {
					shown = "two passwords"
				}
				d.failPlace(place, path, "%s: the nodes of a cluster have one monitor; give the same in every DSN or in one only", shown)
				continue
			}
			said[path] = val
		}
	}
	d.set(root, "nodes", list)
	for _, path := range slices.Sorted(maps.Keys(said)) {
		d.set(root, path, d.synthetic(said[path], place))
	}
	if said["monitor.password"] != "" && place[0] == '-' {
		d.warnings = append(d.warnings, place+": a password on the command line can be read by every user of this machine; use PGPASSFILE or --monitor-password-file")
	}
}

// failPlace records a problem at a variable or a flag.
func (d *decoder) failPlace(place, path, format string, args ...any) {
	d.problems = append(d.problems, placed{Problem: Problem{Pos: place, Path: path, Message: fmt.Sprintf(format, args...)}})
}
