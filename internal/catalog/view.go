package catalog

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/router"
)

// snapshot is everything that is known of a database as of one read. It is immutable but
// for the memory of resolved paths.
type snapshot struct {
	catalog   *router.Catalog
	rights    *rights
	isolation isolation
	readAt    time.Time // when the read began
	paths     struct {
		sync.Mutex
		known map[pathKey]*router.Path
	}
}

// serializable tells whether a session of that role starts serializable.
func (s *snapshot) serializable(role string) bool { return s.isolation.of(role) }

// readDatabase reads one database and judges what it found.
func readDatabase(ctx context.Context, target *pgconn.Config, timeout time.Duration, rules *rules, c *cache) (*snapshot, error) {
	c.trim()
	f, err := readFacts(ctx, target, timeout, c)
	if err != nil {
		return nil, err
	}
	return &snapshot{catalog: build(f, rules, c.names), rights: f.rights, isolation: f.isolation}, nil
}

// catalog reads the solved graph into the view.
func (b *builder) catalog() *router.Catalog {
	c := &router.Catalog{
		Functions:                    make(map[router.QName]router.FuncInfo, len(b.facts.functions)),
		Relations:                    make(map[router.QName]router.RelInfo, len(b.facts.relations)),
		VolatileOperators:            make(map[string]bool),
		VolatileTypes:                make(map[string]bool),
		AttributeFunctions:           make(map[string]bool),
		OpaqueNames:                  make(map[string]bool),
		DefaultIsolationSerializable: b.facts.isolation.base(),
		FixedSettings:                make(map[string]bool),
		OpaqueDDL:                    b.graph.states[b.ddl].bits&bitOpaque != 0 || b.graph.states[b.ddl].names != 0,
	}
	b.viewFunctions(c)
	b.viewRelations(c)
	for _, op := range b.facts.operators {
		if n, ok := b.operators[op.oid]; ok {
			b.list(c, c.VolatileOperators, op.name, n)
		}
	}
	for oid, n := range b.castNodes {
		for _, name := range typeSpellings(b.typeName(oid)) {
			b.list(c, c.VolatileTypes, name, n)
		}
	}
	for name, settable := range b.facts.settings {
		if !settable && isCustomSetting(name) {
			c.FixedSettings[name] = true
		}
	}
	return c
}

// list puts name on a list of what is no plain read, if using n is none.
func (b *builder) list(c *router.Catalog, list map[string]bool, name string, n nodeID) {
	if b.plain(n) {
		return
	}
	list[name] = true
	if s := &b.graph.states[n]; s.bits&bitOpaque != 0 || s.names != 0 {
		c.OpaqueNames[name] = true
	}
}

// plain tells whether using a node only reads, and the same on every node.
func (b *builder) plain(n nodeID) bool {
	s := b.graph.states[n]
	return s.verdict == router.VerdictRead && s.bits&^bitCalls == 0 && s.names == 0
}

// typeName returns the name of a type that was read.
func (b *builder) typeName(oid uint32) string {
	if name, ok := b.facts.typeNames[oid]; ok {
		return name
	}
	for i := range b.facts.types {
		if b.facts.types[i].oid == oid {
			return b.facts.types[i].name
		}
	}
	return ""
}

// viewFunctions lists the functions outside pg_catalog, and those names of pg_catalog that
// are not all as initdb made them.
func (b *builder) viewFunctions(c *router.Catalog) {
	touched := make(map[router.QName]bool)
	for i := range b.facts.functions {
		fn := &b.facts.functions[i]
		if schema := b.facts.namespaces[fn.schema]; schema == "pg_catalog" && fn.own() {
			touched[router.QName{Schema: schema, Name: fn.name}] = true
		}
	}
	for i := range b.facts.functions {
		fn := &b.facts.functions[i]
		schema, ok := b.facts.namespaces[fn.schema]
		if !ok {
			continue
		}
		name := router.QName{Schema: schema, Name: fn.name}
		if schema == "pg_catalog" && !touched[name] {
			continue
		}
		s := b.graph.states[b.functions[fn.oid]]
		info := c.Functions[name]
		info.Verdict = max(info.Verdict, s.verdict)
		info.Opaque = info.Opaque || s.bits&bitOpaque != 0
		info.Lasting = info.Lasting || s.bits&bitLasting != 0
		info.Leaves = router.JoinNames(info.Leaves, b.leftNames(s.names))
		info.Nextval = info.Nextval || s.bits&bitNextval != 0
		info.Builtin = schema == "pg_catalog"
		c.Functions[name] = info
		if fn.row && fn.own() {
			b.list(c, c.AttributeFunctions, fn.name, b.functions[fn.oid])
		}
	}
}

// viewRelations lists the relations.
func (b *builder) viewRelations(c *router.Catalog) {
	for i := range b.facts.relations {
		rel := &b.facts.relations[i]
		schema, ok := b.facts.namespaces[rel.schema]
		if !ok {
			continue
		}
		read, write := b.graph.states[b.reads[rel.oid]], b.graph.states[b.writes[rel.oid]]
		info := router.RelInfo{
			Kind: rel.kind, Persistence: rel.persistence,
			Read:         read.verdict,
			ReadOpaque:   read.bits&bitOpaque != 0,
			ReadLasting:  read.bits&bitLasting != 0,
			ReadLeaves:   b.leftNames(read.names),
			WriteLeaves:  b.leftNames(write.names),
			ReadNextval:  read.bits&bitNextval != 0,
			WriteOpaque:  write.bits&bitOpaque != 0,
			WriteLasting: write.bits&bitLasting != 0,
			WriteNextval: write.bits&bitNextval != 0,
			Reason:       read.reason,
			Calls:        read.bits&bitCalls != 0,
		}
		if schema == "pg_catalog" && rel.kind == 'v' && nodeView(rel.name) {
			info.Read, info.Reason = router.VerdictNode, router.ReasonNodeLocal
		}
		c.Relations[router.QName{Schema: schema, Name: rel.name}] = info
	}
}

// typeSpellings returns the words by which SQL names a type: the name in pg_type and, for
// built-in types, the standard's (table 8.1).
func typeSpellings(name string) []string {
	switch name {
	case "":
		return nil
	case "bool":
		return []string{"bool", "boolean"}
	case "int2":
		return []string{"int2", "smallint"}
	case "int4":
		return []string{"int4", "int", "integer"}
	case "int8":
		return []string{"int8", "bigint"}
	case "float4":
		return []string{"float4", "real", "float"}
	case "float8":
		return []string{"float8", "double", "float"}
	case "numeric":
		return []string{"numeric", "decimal", "dec"}
	case "bpchar":
		return []string{"bpchar", "char", "character", "nchar"}
	case "varchar":
		return []string{"varchar", "char", "character", "nchar"}
	case "bit", "varbit":
		return []string{name, "bit"}
	case "time", "timetz":
		return []string{name, "time"}
	case "timestamp", "timestamptz":
		return []string{name, "timestamp"}
	}
	return []string{name}
}
