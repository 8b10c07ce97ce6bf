package catalog

// types reads the types whose use runs code: domains, base types with functions of their
// own, the sources of implicit casts by such functions; then, until nothing is added, what
// is made of them: arrays, domains, ranges, composite types, and the relations with such
// columns. In most databases nothing is interesting and no further query runs.
func (r *reader) types() {
	f := r.facts
	seeds := make(map[uint32]bool)
	j := newCodeJudge(f)
	bases := make(map[uint32][]uint32) // base type → domains over it
	r.rows("domains", `SELECT oid, typname, typbasetype, typdefaultbin::text FROM pg_type WHERE typtype = 'd'`, func(row row) {
		out := &code{}
		scanTree(row[3], out, r.cache.names)
		t := userType{oid: row.oid(0), name: r.name(row[1]), base: row.oid(2), code: out.seal()}
		f.types = append(f.types, t)
		bases[t.base] = append(bases[t.base], t.oid)
		if j.matters(t.code) {
			seeds[t.oid] = true
		}
	})
	r.rows("types", `
		SELECT oid, typname, typinput::oid, typreceive::oid, typmodin::oid FROM pg_type
		WHERE typtype <> 'd' AND (typinput::oid >= 16384 OR typreceive::oid >= 16384 OR typmodin::oid >= 16384)`, func(row row) {
		t := userType{oid: row.oid(0), name: r.name(row[1])}
		for i := 2; i < 5; i++ {
			if fn := row.oid(i); fn >= firstUserOID {
				t.functions = append(t.functions, fn)
				seeds[t.oid] = seeds[t.oid] || j.function(fn)
			}
		}
		f.types = append(f.types, t)
	})
	for _, e := range f.expressions {
		if e.use == onType && j.matters(e.code) {
			seeds[e.owner] = true
		}
	}
	f.castable = make(map[uint32]bool)
	for _, c := range f.casts {
		if c.implicit && c.function >= firstUserOID && j.function(c.function) {
			seeds[c.source] = true
			f.castable[c.source] = true
		}
	}
	r.spread(seeds, bases)
}

// spread follows the interesting types to what is made of them.
func (r *reader) spread(seeds map[uint32]bool, bases map[uint32][]uint32) {
	f := r.facts
	known := seeds
	for len(seeds) > 0 && r.err == nil {
		var list oidList
		next := make(map[uint32]bool)
		uses := func(from, to uint32) {
			f.typeUses = append(f.typeUses, pair{from, to})
			if f.castable[to] && !f.castable[from] {
				f.castable[from] = true
			}
			if !known[from] {
				next[from] = true
			}
		}
		for oid := range seeds {
			list.add(oid)
			for _, domain := range bases[oid] {
				uses(domain, oid)
			}
		}
		r.rows("names of types", `SELECT oid, typname FROM pg_type WHERE oid = ANY($1::oid[])`,
			func(row row) { f.typeNames[row.oid(0)] = r.name(row[1]) }, list.String())
		r.rows("arrays and ranges", `
			SELECT oid, typelem FROM pg_type WHERE typelem = ANY($1::oid[]) AND typcategory = 'A'
			UNION ALL SELECT rngtypid, rngsubtype FROM pg_range WHERE rngsubtype = ANY($1::oid[])`,
			func(row row) { uses(row.oid(0), row.oid(1)) }, list.String())
		if f.version >= 140000 {
			r.rows("multiranges", `SELECT rngmultitypid, rngtypid FROM pg_range WHERE rngtypid = ANY($1::oid[])`,
				func(row row) { uses(row.oid(0), row.oid(1)) }, list.String())
		}
		r.rows("columns", `
			SELECT DISTINCT a.attrelid, c.reltype, a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
			WHERE a.atttypid = ANY($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
				AND c.relpersistence <> 't'`, func(row row) {
			f.columns = append(f.columns, pair{row.oid(0), row.oid(2)})
			if composite := row.oid(1); composite != 0 {
				uses(composite, row.oid(2))
			}
		}, list.String())
		for oid := range next {
			known[oid] = true
		}
		seeds = next
	}
}

// codeJudge tells, before verdicts are known, which code may matter to them.
type codeJudge struct {
	plain     map[uint32]bool // functions of initdb's making that only compute
	own       map[uint32]bool // other functions that may do more than read
	operators map[uint32]uint32
}

// newCodeJudge prepares the look-ups.
func newCodeJudge(f *facts) codeJudge {
	j := codeJudge{plain: make(map[uint32]bool), own: make(map[uint32]bool), operators: make(map[uint32]uint32)}
	for i := range f.functions {
		switch fn := &f.functions[i]; {
		case !fn.own():
			j.plain[fn.oid] = fn.volatility == 'i'
		default:
			j.own[fn.oid] = fn.volatility == 'v' || fn.body != nil || fn.defaults != nil
		}
	}
	for _, op := range f.operators {
		j.operators[op.oid] = op.function
	}
	return j
}

// function tells whether calling a function may do more than read.
func (j codeJudge) function(oid uint32) bool {
	if own, ok := j.own[oid]; ok {
		return own
	}
	return !j.plain[oid]
}

// matters tells whether running c may do more than compute.
func (j codeJudge) matters(c *code) bool {
	if c == nil {
		return false
	}
	if c.flags != 0 {
		return true
	}
	for _, ref := range c.refs {
		switch ref.kind {
		case refFunc:
			if j.function(ref.a) {
				return true
			}
		case refOp:
			if j.function(j.operators[ref.a]) {
				return true
			}
		case refType:
			// Conversions inside of a domain's check are followed as edges.
		default:
			return true
		}
	}
	return false
}
