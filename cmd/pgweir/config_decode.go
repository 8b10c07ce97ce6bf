package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Problem is one thing that is wrong in a configuration.
type Problem struct {
	Pos     string // file:line:column, the variable or the flag; "" for what is missing everywhere
	Path    string // the key, for example clusters.shop.nodes[2].weight; "" for the file itself
	Message string
}

// String is the problem on one line.
func (p Problem) String() string {
	parts := []string{p.Pos, p.Path, p.Message}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// Problems is the error of a configuration: everything that is wrong with it, in the order of
// the file.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// field is one key of a section: its name, what it means in one line, and the value it fills.
type field struct {
	key string
	doc string
	val value
}

// value takes what stands behind a key and can show it again. The values of config_values.go
// point into a Config.
type value interface {
	// decode reads n into the place the value points to; on a problem the place keeps what it had.
	decode(d *decoder, n *yaml.Node, path string)
	// show calls emit for every leaf below the value; nil stands for a value that is not set.
	show(path string, emit emitter)
}

// emitter takes one leaf: its path, its value as it would stand in a file, and whether it
// must be hidden.
type emitter func(path, text string, secret bool)

// decoder walks a tree of YAML nodes and collects everything that is wrong with it.
type decoder struct {
	file   string
	lookup func(string) (string, bool) // environment, for ${VAR}

	places   map[*yaml.Node]string // where nodes that are not of the file come from
	nodes    map[string]*yaml.Node // path → the node that was decoded there
	origins  map[string]string     // path → place, as config print shows it
	secrets  map[string]bool
	warnings []string
	problems []placed
}

// placed is a problem with what it is sorted by.
type placed struct {
	Problem
	line, column int
}

// newDecoder returns a decoder for the text of file.
func newDecoder(file string, lookup func(string) (string, bool)) *decoder {
	return &decoder{
		file: file, lookup: lookup,
		places: map[*yaml.Node]string{}, nodes: map[string]*yaml.Node{},
		origins: map[string]string{}, secrets: map[string]bool{},
	}
}

// parse reads one YAML document; the result is a mapping, empty for an empty file. What is
// wrong with the text itself is a problem, and nil is returned.
func (d *decoder) parse(text io.Reader) *yaml.Node {
	loader, err := yaml.NewLoader(text)
	if err != nil {
		d.failText(err)
		return nil
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.MappingNode}
	case err != nil:
		d.failText(err)
		return nil
	}
	if err := loader.Load(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			d.failText(err)
		} else {
			d.fail(&second, "", "a second document; a configuration is one document")
		}
		return nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return &yaml.Node{Kind: yaml.MappingNode}
	}
	if root.Kind != yaml.MappingNode {
		d.fail(root, "", "a configuration is a mapping of keys to values, this is %s", kindOf(root))
		return nil
	}
	return root
}

// failText records what the YAML parser says about the text.
func (d *decoder) failText(err error) {
	p := placed{Problem: Problem{Pos: d.file, Message: "not YAML: " + err.Error()}}
	var le *yaml.LoadError
	if errors.As(err, &le) {
		p.line, p.column = le.Mark.Line, le.Mark.Column
		p.Message = "not YAML: " + le.Message
		if p.line > 0 {
			p.Pos = fmt.Sprintf("%s:%d:%d", d.file, p.line, p.column)
		}
	}
	d.problems = append(d.problems, p)
}

// fail records a problem at n; a nil n stands for the file as a whole.
func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	p := placed{Problem: Problem{Pos: d.file, Path: path, Message: fmt.Sprintf(format, args...)}}
	if n != nil {
		p.Pos = d.position(n)
		if d.places[n] == "" {
			p.line, p.column = n.Line, n.Column
		}
	}
	d.problems = append(d.problems, p)
}

// failAt records a problem at the node that was decoded at path, or at the nearest one around it.
func (d *decoder) failAt(path, format string, args ...any) {
	for at := path; ; at = parentPath(at) {
		if n := d.nodes[at]; n != nil || at == "" {
			d.fail(n, path, format, args...)
			return
		}
	}
}

// failed says whether something is wrong at path or below it.
func (d *decoder) failed(path string) bool {
	return slices.ContainsFunc(d.problems, func(p placed) bool {
		rest, below := strings.CutPrefix(p.Path, path)
		return below && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// position is where n stands, for a problem.
func (d *decoder) position(n *yaml.Node) string {
	if place := d.places[n]; place != "" {
		return place
	}
	if n.Line == 0 {
		return d.file
	}
	return fmt.Sprintf("%s:%d:%d", d.file, n.Line, n.Column)
}

// all returns the problems in the order of the file, nil when there are none.
func (d *decoder) all() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b placed) int {
		if a.line != b.line {
			return a.line - b.line
		}
		return a.column - b.column
	})
	var out Problems
	for _, p := range d.problems {
		if !slices.Contains(out, p.Problem) {
			out = append(out, p.Problem)
		}
	}
	return out
}

// seen remembers that path was decoded from n. A mapping is no origin: it gives no value to
// the keys that it does not name.
func (d *decoder) seen(n *yaml.Node, path string) {
	d.nodes[path] = n
	switch place := d.places[n]; {
	case n.Kind == yaml.MappingNode:
	case place != "":
		d.origins[path] = originOf(place)
	case n.Line > 0:
		d.origins[path] = fmt.Sprintf("%s:%d", d.file, n.Line)
	}
}

// originOf is the place of a value as config print names its source.
func originOf(place string) string {
	if strings.HasPrefix(place, "-") {
		return "flag " + place
	}
	return "env " + place
}

// section decodes a mapping with a fixed set of keys, in the order of fields: what a later
// field starts from is complete when it is decoded.
func (d *decoder) section(n *yaml.Node, path string, fields []field) {
	type entry struct {
		val *yaml.Node
		at  string
	}
	found := make([]*entry, len(fields))
	d.each(n, path, func(key, val *yaml.Node, at string) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
		switch {
		case i >= 0:
			found[i] = &entry{val, at}
		case notYet(at) != "":
			d.fail(key, at, "%s", notYet(at))
		default:
			d.fail(key, at, "unknown key%s", didYouMean(key.Value, keysOf(fields)))
		}
	})
	for i, e := range found {
		if e != nil {
			d.seen(e.val, e.at)
			fields[i].val.decode(d, e.val, e.at)
		}
	}
}

// each calls f for every entry of a mapping, with merge keys (<<) followed. An empty value
// stands for an empty mapping; anything else is a problem.
func (d *decoder) each(n *yaml.Node, path string, f func(key, val *yaml.Node, at string)) {
	d.entries(n, path, map[string]*yaml.Node{}, 0, f)
}

// entries is each with the keys that were seen and the depth of merges and aliases, which a
// document could otherwise make endless.
func (d *decoder) entries(n *yaml.Node, path string, taken map[string]*yaml.Node, depth int, f func(key, val *yaml.Node, at string)) {
	n = resolve(n)
	switch {
	case n == nil || depth > maxDepth:
		d.failAt(path, "aliases are nested too deeply")
		return
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return
	case n.Kind != yaml.MappingNode:
		d.fail(n, path, "takes keys with values, this is %s", kindOf(n))
		return
	}
	var merged []*yaml.Node
	here := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		at := joinPath(path, key.Value)
		switch first := taken[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			d.fail(key, path, "a key is a word, this is %s", kindOf(key))
		case key.Tag == "!!merge":
			merged = append(merged, val)
		case here[key.Value]:
			d.fail(key, at, "given twice, first in line %d", first.Line)
		case first != nil: // the mapping that merges this one in has its own
		default:
			taken[key.Value], here[key.Value] = key, true
			if val = resolve(val); val == nil {
				d.fail(n.Content[i+1], at, "aliases are nested too deeply")
				continue
			}
			f(key, val, at)
		}
	}
	for _, m := range merged {
		if r := resolve(m); r != nil && r.Kind == yaml.SequenceNode {
			for _, one := range r.Content {
				d.entries(one, path, taken, depth+1, f)
			}
			continue
		}
		d.entries(m, path, taken, depth+1, f)
	}
}

// maxDepth bounds aliases of aliases and merges of merges.
const maxDepth = 32

// resolve follows aliases; nil when they never end.
func resolve(n *yaml.Node) *yaml.Node {
	for range maxDepth {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// items calls f for every entry of a list. A scalar stands for a list of its parts between
// commas, which is how a variable or a flag gives one.
func (d *decoder) items(n *yaml.Node, path string, f func(item *yaml.Node, at string)) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
	case n.Kind == yaml.ScalarNode:
		text, ok := d.scalar(n, path)
		if !ok || text == "" {
			return
		}
		for i, part := range strings.Split(text, ",") {
			item := &yaml.Node{Kind: yaml.ScalarNode, Value: strings.TrimSpace(part), Line: n.Line, Column: n.Column}
			if place := d.places[n]; place != "" {
				d.places[item] = place
			}
			d.item(item, path, i, f)
		}
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			d.item(item, path, i, f)
		}
	default:
		d.fail(n, path, "takes a list, this is %s", kindOf(n))
	}
}

// item hands one entry of a list on.
func (d *decoder) item(item *yaml.Node, path string, i int, f func(item *yaml.Node, at string)) {
	at := fmt.Sprintf("%s[%d]", path, i)
	if item = resolve(item); item == nil {
		d.failAt(at, "aliases are nested too deeply")
		return
	}
	d.seen(item, at)
	f(item, at)
}

// scalar is the text of a single value with its variables filled in.
func (d *decoder) scalar(n *yaml.Node, path string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fail(n, path, "takes one value, this is %s", kindOf(n))
		return "", false
	case n.Tag == "!!null":
		d.fail(n, path, "has no value")
		return "", false
	case d.places[n] != "":
		return n.Value, true // a variable or a flag was expanded by whoever set it
	}
	text, err := expand(n.Value, d.lookup)
	if err != nil {
		d.fail(n, path, "%v", err)
		return "", false
	}
	return text, true
}

// kindOf names what a node is, for problems.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "empty"
		}
		return fmt.Sprintf("the single value %q", n.Value)
	default:
		return "something else"
	}
}

// joinPath is the path of key below path. Keys that would be ambiguous are quoted.
func joinPath(path, key string) string {
	if key == "" || strings.ContainsAny(key, ".[] :\"\n") {
		key = fmt.Sprintf("%q", key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// parentPath is the path of what holds the last key or index of path.
func parentPath(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

// keysOf are the names of fields.
func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}
