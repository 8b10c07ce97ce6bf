package catalog

import "pgweir/router"

// firstUserOID is the first oid that initdb does not hand out (FirstNormalObjectId).
const firstUserOID = 16384

// facts is what one read found, before it is judged. Names are shared with the cache's symbols.
type facts struct {
	database    uint32 // its oid
	version     int    // server_version_num
	namespaces  map[uint32]string
	languages   map[uint32]language
	rights      *rights
	isolation   isolation
	settings    map[string]bool // known to pg_settings → a client may set it
	functions   []function
	relations   []relation
	operators   []operator
	types       []userType
	typeUses    []pair // a type → a type it is made of
	columns     []pair // a relation → an interesting type of one of its columns
	casts       []castFact
	castable    map[uint32]bool // types with an implicit cast worth knowing, and those made of them
	inherits    []pair          // parent → child
	cascades    []pair          // referenced table → table that a cascade writes
	expressions []expression
	handlers    []pair // foreign table → handler function
	identities  []uint32
	ddlTriggers []uint32
	aggregates  map[uint32][]uint32 // → support functions
	typeNames   map[uint32]string   // of casts' ends and interesting types
}

// pair is an edge between two oids.
type pair struct{ from, to uint32 }

// language is a row of pg_language.
type language struct {
	name    string
	trusted bool
}

// function is a row of pg_proc.
type function struct {
	oid, schema, lang uint32
	returns           uint32
	name              string
	extension         string   // "" if it belongs to none
	kind              byte     // prokind
	volatility        byte     // provolatile
	row               bool     // its first argument can be a row, so that t.f may call it
	touched           bool     // of initdb's making, but changed since
	version           uint32   // xmin
	settings          []string // custom ones that it is declared to SET
	body              *code    // of what it runs
	defaults          *code    // of its parameters' defaults, which a call runs
}

// own tells whether the function is not one as initdb makes them in pg_catalog.
func (f *function) own() bool { return f.oid >= firstUserOID || f.touched }

// relation is a row of pg_class of a kind that can be named in FROM.
type relation struct {
	oid, schema uint32
	name        string
	kind        byte // relkind
	persistence byte // relpersistence
	policies    bool // relrowsecurity
}

// operator is a row of pg_operator.
type operator struct {
	oid, function uint32
	name          string
}

// userType is a type that calling code may hide in: a domain, or a base type with functions
// of its own.
type userType struct {
	oid, base uint32 // base is that of a domain
	name      string
	functions []uint32 // input, receive, typmod input
	code      *code    // of a domain's default
}

// castFact is a row of pg_cast with a function.
type castFact struct {
	source, target, function uint32
	implicit                 bool
}

// when tells which use of its owner reaches an expression.
type when uint8

// The uses.
const (
	onRead       when = 1 << iota // reading the relation
	onWrite                       // writing it
	onType                        // converting to the type
	onViewRead                    // reading the view, refreshing or writing the view
	onPolicyRead                  // reading, if row-level security is on
	onPolicy                      // writing, if row-level security is on
)

// expression is code that belongs to a relation or type, and a function it calls, if any.
type expression struct {
	owner    uint32
	use      when
	function uint32
	code     *code
}

// isolation is what decides default_transaction_isolation at login.
type isolation struct {
	server   bool
	database *bool
	roles    map[string]bool // ALTER ROLE … IN DATABASE before ALTER ROLE
}

// database's default for a role that has none of its own.
func (i isolation) base() bool {
	if i.database != nil {
		return *i.database
	}
	return i.server
}

// of tells whether a session of that role starts serializable.
func (i isolation) of(role string) bool {
	if s, ok := i.roles[role]; ok {
		return s
	}
	return i.base()
}

// settingVerdict judges current_setting(name) for a constant name: what a client can set
// follows its session to any node, all else describes the node (behaviour.md §2).
func (f *facts) settingVerdict(name string) router.NameVerdict {
	settable, known := f.settings[name]
	switch {
	case known && settable && name != "transaction_read_only":
		return router.VerdictRead
	case !known && isCustomSetting(name):
		return router.VerdictRead
	}
	return router.VerdictNode
}

// isCustomSetting tells whether a setting's name has the form a.b (section 20.16).
func isCustomSetting(name string) bool {
	for i := 1; i < len(name)-1; i++ {
		if name[i] == '.' {
			return true
		}
	}
	return false
}
