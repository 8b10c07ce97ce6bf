package catalog

import (
	"strconv"
	"strings"
)

// appendNumber appends n in decimal.
func appendNumber(dst []byte, n uint32) []byte { return strconv.AppendUint(dst, uint64(n), 10) }

// functions reads pg_proc but for the bodies. The rows of initdb's making are told from those
// that were changed since by the transaction that made the last of the former.
func (r *reader) functions() {
	f := r.facts
	members := make(map[uint32]string)
	r.rows("extensions' functions", `
		SELECT d.objid, e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
		WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'`,
		func(row row) { members[row.oid(0)] = r.name(row[1]) })
	r.rows("functions", `
		WITH made AS (
			SELECT min(x) AS last FROM (
				SELECT xmin::text::bigint FROM pg_extension WHERE extname = 'plpgsql' AND oid < 16384
				UNION ALL SELECT xmin::text::bigint FROM pg_namespace WHERE nspname = 'information_schema' AND oid < 16384
			) v(x))
		SELECT p.oid, p.pronamespace, p.proname, p.prolang, p.prokind, p.provolatile, p.xmin, p.prorettype,
			coalesce(t.typtype IN ('c', 'd') OR t.typname IN ('record', 'any', 'anyelement', 'anynonarray', 'anycompatible', 'anycompatiblenonarray'), false),
			p.oid < 16384 AND p.pronamespace = 'pg_catalog'::regnamespace AND coalesce(p.xmin::text::bigint > made.last, false),
			(SELECT string_agg(split_part(s, '=', 1), '=') FROM unnest(p.proconfig) s WHERE s LIKE '%.%')
		FROM made, pg_proc p LEFT JOIN pg_type t ON p.pronargs > 0 AND t.oid = p.proargtypes[0]`, func(row row) {
		oid := row.oid(0)
		var settings []string
		for name := range strings.SplitSeq(string(row[10]), "=") {
			if isCustomSetting(name) {
				settings = append(settings, lowerASCII(name))
			}
		}
		f.functions = append(f.functions, function{
			oid: oid, schema: row.oid(1), name: r.name(row[2]), lang: row.oid(3),
			kind: row.byte(4), volatility: row.byte(5), version: row.oid(6), returns: row.oid(7),
			row: row.bool(8), touched: row.bool(9) && members[oid] == "", extension: members[oid], settings: settings,
		})
	})
}

// bodies reads what functions run, as far as it is not cached.
func (r *reader) bodies() {
	f := r.facts
	fresh := make(map[uint32]cachedCode, len(r.cache.functions))
	var missing oidList
	index := make(map[uint32]int)
	for i := range f.functions {
		fn := &f.functions[i]
		if !fn.own() {
			continue
		}
		if c, ok := r.cache.functions[fn.oid]; ok && c.version == fn.version {
			fn.body, fn.defaults = c.body, c.defaults
			fresh[fn.oid] = c
			continue
		}
		missing.add(fn.oid)
		index[fn.oid] = i
	}
	parsed := "NULL"
	if f.version >= 140000 {
		parsed = "prosqlbody::text"
	}
	if missing.n > 0 {
		r.rows("function bodies", `SELECT oid, prosrc, `+parsed+`, proargdefaults::text FROM pg_proc WHERE oid = ANY($1::oid[])`, func(row row) {
			fn := &f.functions[index[row.oid(0)]]
			fn.body = r.body(fn, row[1], row[2])
			if row[3] != nil {
				out := &code{}
				scanTree(row[3], out, r.cache.names)
				fn.defaults = out.seal()
			}
			fresh[fn.oid] = cachedCode{version: fn.version, body: fn.body, defaults: fn.defaults}
		}, missing.String())
	}
	r.cache.functions = fresh
}

// body finds what a function's body uses, by its language.
func (r *reader) body(fn *function, source, parsed []byte) *code {
	out := &code{}
	lang := r.facts.languages[fn.lang]
	switch {
	case parsed != nil:
		scanTree(parsed, out, r.cache.names)
	case lang.name == "sql", lang.name == "plpgsql":
		scanBody(source, out, r.cache.names)
	case fn.touched && (lang.name == "c" || lang.name == "internal"):
		// Still the server's own code.
	case fn.volatility == 'v':
		// Text that cannot be read, or code that cannot: behaviour.md §3, "effects pgweir
		// cannot see". Whether the extension is trusted is decided later.
		if fn.kind != 'a' {
			out.flags |= codeOpaque | codeLasting
		}
	case lang.name != "c" && lang.name != "internal":
		scanForeign(source, out)
	}
	return out.seal()
}

// rules reads pg_rewrite, as far as it is not cached.
func (r *reader) rules() {
	type rule struct {
		oid, version uint32
		relation     uint32
		read         bool
	}
	var rules []rule
	r.rows("rules", `SELECT oid, xmin, ev_class, ev_type = '1' FROM pg_rewrite WHERE ev_enabled <> 'D'`, func(row row) {
		rules = append(rules, rule{oid: row.oid(0), version: row.oid(1), relation: row.oid(2), read: row.bool(3)})
	})
	fresh := make(map[uint32]cachedCode, len(rules))
	versions := make(map[uint32]uint32)
	var missing oidList
	for _, rule := range rules {
		if c, ok := r.cache.rules[rule.oid]; ok && c.version == rule.version {
			fresh[rule.oid] = c
			continue
		}
		versions[rule.oid] = rule.version
		missing.add(rule.oid)
	}
	if missing.n > 0 {
		r.rows("rules' actions", `SELECT oid, ev_qual::text, ev_action::text FROM pg_rewrite WHERE oid = ANY($1::oid[])`, func(row row) {
			out := &code{}
			scanTree(row[1], out, r.cache.names)
			scanTree(row[2], out, r.cache.names)
			fresh[row.oid(0)] = cachedCode{version: versions[row.oid(0)], body: out.seal()}
		}, missing.String())
	}
	r.cache.rules = fresh
	for _, rule := range rules {
		use := onWrite
		if rule.read {
			use = onViewRead
		}
		if c := fresh[rule.oid].body; c != nil {
			r.facts.expressions = append(r.facts.expressions, expression{owner: rule.relation, use: use, code: c})
		}
	}
}
