package router

import (
	"slices"
	"strings"
)

// NameVerdict is what the catalog says about reading a relation or calling a function.
type NameVerdict uint8

// The verdicts, in the order of their strength: overloads and dependencies are joined with max.
const (
	VerdictUnknown  NameVerdict = iota // the view does not know the name
	VerdictRead                        // any node gives the same answer
	VerdictNode                        // describes one node: primary, but leaves only a read mark
	VerdictPrimary                     // writes, locks or cannot be read on a standby
	VerdictDoubtful                    // volatile or unknown: primary out of doubt, a standby hint overrides it
)

// FuncInfo is the joined verdict over all overloads of one function name in one schema.
type FuncInfo struct {
	Verdict NameVerdict
	Opaque  bool // its body, or something it calls, can leave state in the session
	Lasting bool // … of which DISCARD ALL may leave something
	// Leaves: custom settings that it sets for its transaction or its own time, whose names stay on the connection,
	// empty (JoinNames).
	Leaves  string
	Nextval bool // may call nextval
	Builtin bool // every candidate is in pg_catalog
}

// RelInfo is the verdict over one relation, everything below a view included.
type RelInfo struct {
	Kind         byte // pg_class.relkind
	Persistence  byte // pg_class.relpersistence
	Read         NameVerdict
	ReadOpaque   bool   // reading it can leave state in the session (functions of views and policies)
	ReadLasting  bool   // … of which DISCARD ALL may leave something
	ReadLeaves   string // as FuncInfo.Leaves
	ReadNextval  bool
	WriteOpaque  bool // triggers, rules, defaults and policies that a write reaches
	WriteLasting bool
	WriteLeaves  string
	WriteNextval bool // defaults, identity, triggers
	// Reason is why Read is not VerdictRead, where Kind and Persistence do not tell (a view
	// over an unlogged table); ReasonUnknown leaves it to the classifier.
	Reason Reason
	// Calls: reading it calls functions that are not built in (views, policies), so that a
	// standby may refuse it in the middle of its answer.
	Calls bool
	// Columns of composite attribute notation are not listed: see Attributes in Catalog.
}

// JoinNames is the union of two sets of names, each sorted and put together with NUL between them.
func JoinNames(a, b string) string {
	switch {
	case HasNames(a, b):
		return a
	case a == "":
		return b
	}
	all := append(strings.Split(a, "\x00"), strings.Split(b, "\x00")...)
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\x00")
}

// HasNames says whether all of some names are among others.
func HasNames(all, some string) bool {
	if some == "" || all == some {
		return true
	}
	for some != "" { // both are sorted
		var name, other string
		name, some, _ = strings.Cut(some, "\x00")
		for other != name {
			if all == "" {
				return false
			}
			other, all, _ = strings.Cut(all, "\x00")
		}
	}
	return true
}

// CountNames is how many names there are in a set.
func CountNames(names string) int {
	if names == "" {
		return 0
	}
	return strings.Count(names, "\x00") + 1
}

// QName is a schema-qualified name.
type QName struct{ Schema, Name string }

// Catalog is what one database says about its names: immutable, swapped as a whole. It is
// filled by internal/catalog and asked by the classifier.
type Catalog struct {
	Generation uint64
	Functions  map[QName]FuncInfo // functions, procedures, aggregates, window functions
	Relations  map[QName]RelInfo  // tables, views, materialised views, sequences, foreign tables, partitioned tables
	// VolatileOperators, VolatileCasts (by target type name) and VolatileTypes (domains and
	// types whose input function or constraint is not a plain read) hold bare names.
	VolatileOperators map[string]bool
	VolatileTypes     map[string]bool
	// AttributeFunctions: bare names f for which t.f may call a function f(t) that is no plain read.
	AttributeFunctions map[string]bool
	// OpaqueNames: those of the three lists above whose use can leave state in the session.
	OpaqueNames map[string]bool
	// FunctionSchemas and RelationSchemas list, for a bare name, the schemas that have it:
	// so that an unqualified name that no schema of the path has is known to be unknown.
	DefaultIsolationSerializable bool // the database or server default is serializable
	// AssumeTables: there is no database to ask. A relation that is not listed counts as an
	// ordinary table without triggers; a function that is not listed stays unknown.
	AssumeTables bool
	// FixedSettings: settings of extensions ("a.b") that a client cannot set, so that SHOW
	// and current_setting of them describe a node.
	FixedSettings map[string]bool
	// OpaqueDDL: an event trigger is there whose function can leave state in the session.
	OpaqueDDL bool
}

// Path is a resolved search path of one session: the schemas an unqualified name is looked up
// in, in order, pg_catalog included where PostgreSQL puts it, schemas without USAGE left out.
// Equal paths are one pointer (internal/catalog interns them), so the pointer is the cache key.
type Path struct {
	Schemas []string
	Temp    bool // pg_temp exists in this session: an unqualified relation may be a temporary one
	// CreateTemp: the setting names pg_temp before every schema that counts, so an unqualified
	// CREATE makes a temporary relation. Schemas never holds pg_temp.
	CreateTemp bool
}
