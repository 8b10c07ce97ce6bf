package catalog

import (
	"errors"
	"fmt"
	"strings"

	"pgweir/router"
)

// Rules is what the configuration adds to what the catalog says. The zero value adds nothing
// and trusts the server's contrib modules.
type Rules struct {
	// ReadOnlyFunctions are volatile functions that only read: "name" in any schema,
	// "schema.name", or "schema.*". Quotes and case folding are PostgreSQL's.
	ReadOnlyFunctions []string
	// SessionSafeFunctions are functions that leave nothing in the session, whatever their
	// bodies look like. Same spelling.
	SessionSafeFunctions []string
	// TrustedExtensions are extensions whose C functions leave nothing in the session. nil
	// means the server's contrib modules; in a list, "contrib" stands for them.
	TrustedExtensions []string
}

// Validate returns every name in the rules that cannot be a name, joined.
func (r Rules) Validate() error {
	_, err := compileRules(r)
	return err
}

// contribWord stands for all contrib modules in Rules.TrustedExtensions.
const contribWord = "contrib"

// contrib lists the extensions that the server's own source tree carries, of all supported
// versions (Appendix F, "Additional Supplied Modules"; Part V for the languages).
func contrib() []string {
	return []string{
		"adminpack", "amcheck", "autoinc", "bloom", "bool_plperl", "bool_plperlu", "btree_gin", "btree_gist",
		"citext", "cube", "dblink", "dict_int", "dict_xsyn", "earthdistance", "file_fdw", "fuzzystrmatch",
		"hstore", "hstore_plperl", "hstore_plperlu", "hstore_plpython3u", "insert_username", "intagg", "intarray", "isn",
		"jsonb_plperl", "jsonb_plperlu", "jsonb_plpython3u", "lo", "ltree", "ltree_plpython3u", "moddatetime", "old_snapshot",
		"pageinspect", "pg_buffercache", "pg_freespacemap", "pg_logicalinspect", "pg_prewarm", "pg_stat_statements",
		"pg_surgery", "pg_trgm", "pg_visibility", "pg_walinspect", "pgcrypto", "pgrowlocks", "pgstattuple",
		"plperl", "plperlu", "plpgsql", "plpython3u", "pltcl", "pltclu", "postgres_fdw", "refint", "seg", "sslinfo",
		"tablefunc", "tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "xml2",
	}
}

// rules is Rules made ready for look-ups.
type rules struct {
	readOnly    nameSet
	sessionSafe nameSet
	trusted     map[string]bool
}

// compileRules parses the names of r; the error lists every bad one.
func compileRules(r Rules) (*rules, error) {
	var errs []error
	c := &rules{trusted: make(map[string]bool)}
	c.readOnly = newNameSet("read_only_functions", r.ReadOnlyFunctions, &errs)
	c.sessionSafe = newNameSet("session_safe_functions", r.SessionSafeFunctions, &errs)
	if r.TrustedExtensions == nil {
		r.TrustedExtensions = []string{contribWord}
	}
	for _, name := range r.TrustedExtensions {
		if name == contribWord {
			for _, e := range contrib() {
				c.trusted[e] = true
			}
			continue
		}
		if name == "" {
			errs = append(errs, errors.New(`trusted_extensions: "" is no extension's name`))
			continue
		}
		c.trusted[name] = true
	}
	return c, errors.Join(errs...)
}

// nameSet is a set of function names as the configuration spells them.
type nameSet struct {
	bare    map[string]bool       // any schema
	full    map[router.QName]bool // one schema
	schemas map[string]bool       // everything in a schema
}

// newNameSet parses spellings; bad ones are appended to errs under key.
func newNameSet(key string, spellings []string, errs *[]error) nameSet {
	s := nameSet{bare: map[string]bool{}, full: map[router.QName]bool{}, schemas: map[string]bool{}}
	for _, sp := range spellings {
		parts, star, ok := splitQualified(sp)
		switch {
		case !ok || len(parts) > 2 || (star && len(parts) != 1):
			*errs = append(*errs, fmt.Errorf("%s: %q is no function name: accepted are name, schema.name and schema.*, without arguments", key, sp))
		case star:
			s.schemas[parts[0]] = true
		case len(parts) == 2:
			s.full[router.QName{Schema: parts[0], Name: parts[1]}] = true
		default:
			s.bare[parts[0]] = true
		}
	}
	return s
}

// has tells whether the set names schema.name.
func (s nameSet) has(schema, name string) bool {
	return s.bare[name] || s.schemas[schema] || s.full[router.QName{Schema: schema, Name: name}]
}

// splitQualified reads a possibly quoted, possibly qualified name; star tells that it ended
// in ".*", which is then not among the parts.
func splitQualified(s string) (parts []string, star, ok bool) {
	rest := strings.TrimSpace(s)
	for {
		if rest == "*" && len(parts) > 0 {
			return parts, true, true
		}
		part, after, ok := cutIdentifier(rest)
		if !ok || part == "" {
			return nil, false, false
		}
		parts = append(parts, part)
		if after == "" {
			return parts, false, true
		}
		if after[0] != '.' {
			return nil, false, false
		}
		rest = after[1:]
	}
}

// cutIdentifier takes one identifier off the front of s: quoted as it stands, otherwise
// lower-cased as far as ASCII goes. ok is false when there is none.
func cutIdentifier(s string) (name, rest string, ok bool) {
	if s == "" {
		return "", "", false
	}
	if s[0] == '"' {
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			if s[i] != '"' {
				b.WriteByte(s[i])
				continue
			}
			if i+1 < len(s) && s[i+1] == '"' {
				b.WriteByte('"')
				i++
				continue
			}
			return b.String(), s[i+1:], true
		}
		return "", "", false
	}
	n := 0
	for n < len(s) && isIdentByte(s[n], n == 0) {
		n++
	}
	return lowerASCII(s[:n]), s[n:], n > 0
}

// isIdentByte tells whether c may stand in an unquoted identifier (section 4.1.1).
func isIdentByte(c byte, first bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c >= 0x80:
		return true
	case c >= '0' && c <= '9', c == '$':
		return !first
	}
	return false
}

// lowerASCII folds A to Z and leaves every other byte, as the server does in a multi-byte encoding.
func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if c := b[j]; c >= 'A' && c <= 'Z' {
					b[j] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
