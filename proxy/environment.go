package proxy

import (
	"strings"

	"pgweir/router"
)

// envKey is what the environment of the classifier was made from.
type envKey struct {
	set     *settings
	catalog *router.Catalog
	temp    bool
	made    bool
}

// environment is how texts of this session are to be read: its catalog view, its resolved path,
// its string syntax and encoding. It is made again only when one of these changes.
func (s *session) environment() *router.Env {
	db := s.catalog
	if db == nil {
		db = s.cluster.Catalog.Database(s.target.Database)
	}
	view := db.View()
	if !db.Settled(s.target.Marks.ddl.Load()) {
		view = nil // DDL has passed by that the view does not know yet
	}
	key := envKey{set: s.st.effective, catalog: view, temp: s.st.pins[router.PinTemp], made: true}
	if key == s.envOf {
		s.resolveDoubts()
		return &s.env
	}
	s.envOf = key
	s.env = router.Env{
		Cluster:        s.cluster.Name,
		Database:       s.target.Database,
		Catalog:        view,
		StdStrings:     !isOff(s.setting("standard_conforming_strings")),
		UnsafeEncoding: unsafeEncoding(unquote(s.setting("client_encoding"))),
	}
	isolation := strings.ToLower(unquote(s.setting("default_transaction_isolation")))
	s.serializable, s.readCommitted = isolation == "serializable", isolation == "read committed" || isolation == "read uncommitted"
	s.idleTimeout = parseTimeout(unquote(s.setting("idle_session_timeout")))
	s.timing.check.Store(int64(parseTimeout(unquote(s.setting("client_connection_check_interval")))))
	s.readOnly = isOn(s.setting("default_transaction_read_only"))
	if view != nil {
		if s.env.Path = db.Path(s.role(), s.searchPath(), key.temp); s.env.Path == nil {
			s.env.Catalog = nil // without a path nobody knows which names are meant
		}
	}
	if s.env.Path == nil && strings.Contains(strings.ToLower(s.searchPath()), "pg_temp") {
		s.env.Path = temporaryPath
	}
	s.resolveDoubts()
	return &s.env
}

// temporaryPath is the path of a session of which no more is known than that it searches the schema for temporary
// relations: what it creates may be one.
var temporaryPath = &router.Path{Schemas: []string{"pg_catalog"}, CreateTemp: true}

// searchPath is search_path in the form in which the server shows it.
func (s *session) searchPath() string {
	v, ok := s.st.effective.get("search_path")
	if !ok {
		return s.base.setting("search_path")
	}
	if literal, ok := strings.CutPrefix(v, byFunction); ok {
		return unquote(literal)
	}
	return listValue(v)
}

// listValue turns the client's own text of a list setting (a, "B", 'c d') into the form in which the
// server keeps it: string literals are identifiers there.
func listValue(v string) string {
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] != '\'' {
			b.WriteByte(v[i])
			continue
		}
		var lit strings.Builder
		for i++; i < len(v); i++ {
			if v[i] == '\'' {
				if i+1 < len(v) && v[i+1] == '\'' {
					i++
				} else {
					break
				}
			}
			lit.WriteByte(v[i])
		}
		b.WriteString(quoteIdent(lit.String()))
	}
	return b.String()
}

// isOff is a boolean setting that is known to be off.
func isOff(v string) bool {
	if v == "" {
		return false
	}
	on, ok := parseBool(unquote(v))
	return ok && !on
}

// withoutDashes leaves of a name of an encoding what tells it from others.
var withoutDashes = strings.NewReplacer("_", "", "-", "")

// unsafeEncoding says whether a character of this client encoding may end in a backslash (or another
// ASCII byte), so that a scanner which reads bytes can be fooled.
func unsafeEncoding(name string) bool {
	switch strings.ToUpper(withoutDashes.Replace(name)) {
	case "SJIS", "SHIFTJIS", "MSKANJI", "WIN932", "WINDOWS932", "BIG5", "WIN950", "WINDOWS950", "GBK", "WIN936", "WINDOWS936",
		"GB18030", "UHC", "WIN949", "WINDOWS949", "JOHAB", "SHIFTJIS2004", "SJIS2004":
		return true
	}
	return false
}
