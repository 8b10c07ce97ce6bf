package catalog

import (
	"strings"
	"sync"

	"pgweir/router"
)

// Bounds of the path caches; a full one is emptied, which costs a few cache misses later.
const (
	maxPaths    = 4096  // per view: distinct (role, search_path, temp)
	maxInterned = 16384 // per manager: distinct resolved paths
	maxNameLen  = 63    // NAMEDATALEN - 1
)

// interner makes equal paths one pointer for all databases of a manager.
type interner struct {
	mu struct {
		sync.Mutex
		paths map[string]*router.Path
	}
}

// intern returns the one path that equals want.
func (in *interner) intern(want router.Path) *router.Path {
	var b strings.Builder
	if want.Temp {
		b.WriteByte('t')
	}
	if want.CreateTemp {
		b.WriteByte('c')
	}
	for _, s := range want.Schemas {
		b.WriteByte(0)
		b.WriteString(s)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if p := in.mu.paths[b.String()]; p != nil {
		return p
	}
	if in.mu.paths == nil || len(in.mu.paths) >= maxInterned {
		in.mu.paths = make(map[string]*router.Path)
	}
	p := &want
	in.mu.paths[b.String()] = p
	return p
}

// role is a row of pg_roles, as far as paths need it.
type role struct {
	oid   uint32
	super bool
}

// schema is a row of pg_namespace with the roles that its ACL gives USAGE to.
type schema struct {
	name  string
	usage []uint32 // grantees; 0 is PUBLIC
}

// The roles with rights of their own (section 22.5, "Predefined Roles").
const (
	roleDatabaseOwner = "pg_database_owner"
	roleReadAllData   = "pg_read_all_data"
	roleWriteAllData  = "pg_write_all_data"
)

// rights answers which schemas a role may use, as of one snapshot of the catalog. It is
// immutable once filled.
type rights struct {
	roles   map[string]role
	members map[uint32][]uint32 // member → roles whose privileges it inherits
	schemas []schema
	byName  map[string]int // index into schemas
	owner   uint32         // of the database
}

// privileges returns the roles whose privileges id has, itself included (has_privs_of_role).
func (r *rights) privileges(id uint32) map[uint32]bool {
	seen := map[uint32]bool{id: true}
	queue := []uint32{id}
	visit := func(id uint32) {
		if id != 0 && !seen[id] {
			seen[id] = true
			queue = append(queue, id)
		}
	}
	for len(queue) > 0 {
		id := queue[0]
		queue = queue[1:]
		if id == r.owner {
			visit(r.roles[roleDatabaseOwner].oid)
		}
		for _, parent := range r.members[id] {
			visit(parent)
		}
	}
	return seen
}

// mayUse tells whether a role with these privileges has USAGE on schema i.
func (r *rights) mayUse(privs map[uint32]bool, i int) bool {
	for _, grantee := range r.schemas[i].usage {
		if grantee == 0 || privs[grantee] {
			return true
		}
	}
	for _, name := range []string{roleReadAllData, roleWriteAllData} {
		if all, ok := r.roles[name]; ok && privs[all.oid] {
			return true
		}
	}
	return false
}

// resolve turns the text of search_path into the schemas that names are looked up in, in
// order, as the server does for that role: unknown schemas and those without USAGE are
// skipped, pg_catalog stands first unless it is named. pg_temp is not among them; createTemp
// tells that it comes before all that are named. ok is false for a role that the snapshot
// does not know and for text that is no list of names.
func (r *rights) resolve(roleName, searchPath string) (schemas []string, createTemp, ok bool) {
	who, known := r.roles[roleName]
	if !known {
		return nil, false, false
	}
	names, ok := splitSearchPath(searchPath)
	if !ok {
		return nil, false, false
	}
	var privs map[uint32]bool
	seen := make(map[string]bool, len(names)+1)
	for _, name := range names {
		switch name {
		case "$user":
			name = roleName
		case "pg_temp":
			createTemp = createTemp || len(schemas) == 0
			continue
		}
		i, exists := r.byName[name]
		if !exists || seen[name] {
			continue
		}
		if !who.super {
			if privs == nil {
				privs = r.privileges(who.oid)
			}
			if !r.mayUse(privs, i) {
				continue
			}
		}
		seen[name] = true
		schemas = append(schemas, name)
	}
	if !seen["pg_catalog"] {
		schemas = append([]string{"pg_catalog"}, schemas...)
	}
	return schemas, createTemp, true
}

// splitSearchPath splits the value of search_path as the server does (SplitIdentifierString):
// names separated by commas, quoted or folded, cut at 63 bytes. Empty text is an empty list.
func splitSearchPath(s string) ([]string, bool) {
	rest := trimSpace(s)
	if rest == "" {
		return nil, true
	}
	var names []string
	for {
		var name string
		if rest != "" && rest[0] == '"' {
			var ok bool
			if name, rest, ok = cutIdentifier(rest); !ok {
				return nil, false
			}
		} else {
			n := strings.IndexAny(rest, ", \t\n\r\f\v")
			if n < 0 {
				n = len(rest)
			}
			if n == 0 {
				return nil, false
			}
			name, rest = lowerASCII(rest[:n]), rest[n:]
		}
		names = append(names, truncateName(name))
		rest = trimSpace(rest)
		if rest == "" {
			return names, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		rest = trimSpace(rest[1:])
	}
}

// trimSpace takes the scanner's white space off the front and the end.
func trimSpace(s string) string { return strings.Trim(s, " \t\n\r\f\v") }

// truncateName cuts a name at 63 bytes without splitting a character of UTF-8.
func truncateName(s string) string {
	if len(s) <= maxNameLen {
		return s
	}
	n := maxNameLen
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}

// pathKey is what a path is resolved from.
type pathKey struct {
	role, searchPath string
	temp             bool
}

// path resolves and remembers; nil when the role is not known or the text is no list of names.
func (s *snapshot) path(in *interner, key pathKey) *router.Path {
	s.paths.Lock()
	p, ok := s.paths.known[key]
	s.paths.Unlock()
	if ok {
		return p
	}
	schemas, createTemp, ok := s.rights.resolve(key.role, key.searchPath)
	if ok {
		p = in.intern(router.Path{Schemas: schemas, Temp: key.temp, CreateTemp: createTemp})
	}
	s.paths.Lock()
	defer s.paths.Unlock()
	if s.paths.known == nil || len(s.paths.known) >= maxPaths {
		s.paths.known = make(map[pathKey]*router.Path)
	}
	s.paths.known[key] = p
	return p
}
