package catalog

import (
	bits64 "math/bits"
	"slices"

	"pgweir/router"
)

// builder turns facts into the graph and the graph into the view.
type builder struct {
	facts *facts
	rules *rules
	names *symbols
	graph graph

	functions map[uint32]nodeID // by oid
	operators map[uint32]nodeID // by oid: the function's node
	reads     map[uint32]nodeID // relation by oid: reading it
	writes    map[uint32]nodeID // and writing it
	typeNodes map[uint32]nodeID // by oid: converting text to it, and its constraints
	castNodes map[uint32]nodeID // by oid: what naming it may run, its casts included
	calls     map[nameKey]nodeID
	readNames map[nameKey]nodeID
	wrtNames  map[nameKey]nodeID
	opNames   map[nameKey]nodeID
	castNames map[nameKey]nodeID
	ddl       nodeID
	left      []string // names of custom settings that something leaves, by their bits in state.names
}

// nameKey is a name in a body: the symbols of its schema, 0 for none, and of itself.
type nameKey struct{ schema, name uint32 }

// build judges facts: the view for the classifier, without its generation.
func build(f *facts, rules *rules, names *symbols) *router.Catalog {
	b := &builder{
		facts: f, rules: rules, names: names,
		functions: make(map[uint32]nodeID, len(f.functions)),
		operators: make(map[uint32]nodeID, len(f.operators)),
		reads:     make(map[uint32]nodeID, len(f.relations)),
		writes:    make(map[uint32]nodeID, len(f.relations)),
		typeNodes: make(map[uint32]nodeID),
		castNodes: make(map[uint32]nodeID),
		calls:     make(map[nameKey]nodeID),
		readNames: make(map[nameKey]nodeID),
		wrtNames:  make(map[nameKey]nodeID),
		opNames:   make(map[nameKey]nodeID),
		castNames: make(map[nameKey]nodeID),
	}
	b.ddl = b.graph.add(state{verdict: router.VerdictRead})
	b.addFunctions()
	b.addRelations()
	b.addTypes()
	b.linkFunctions()
	b.linkRelations()
	b.linkTypes()
	b.linkNames()
	b.graph.solve()
	return b.catalog()
}

// addFunctions makes a node for every function with what is declared of it.
func (b *builder) addFunctions() {
	for i := range b.facts.functions {
		fn := &b.facts.functions[i]
		b.functions[fn.oid] = b.graph.add(b.declared(fn))
	}
	for _, op := range b.facts.operators {
		if n, ok := b.functions[op.function]; ok {
			b.operators[op.oid] = n
		}
	}
}

// declared returns what a function is by itself: its body's calls come by edges.
func (b *builder) declared(fn *function) state {
	schema := b.facts.namespaces[fn.schema]
	lang := b.facts.languages[fn.lang].name
	switch {
	case fn.oid < firstUserOID && schema != "pg_catalog":
		return state{verdict: router.VerdictRead} // information_schema
	case !fn.own():
		return b.builtin(fn)
	case fn.touched && (lang == "internal" || lang == "c"):
		// Changed rights look the same as a changed volatility.
		s := b.builtin(fn)
		if fn.volatility == 'v' && s.verdict == router.VerdictRead && !volatileRead(fn.name) {
			s.verdict, s.reason = router.VerdictDoubtful, router.ReasonVolatile
		}
		return s
	}
	s := state{verdict: router.VerdictRead, bits: bitCalls, safe: b.rules.sessionSafe.has(schema, fn.name)}
	trusted := fn.extension != "" && b.rules.trusted[fn.extension]
	if fn.volatility == 'v' {
		s.verdict, s.reason = router.VerdictDoubtful, router.ReasonVolatile
	}
	if fn.kind == 'p' {
		s.verdict, s.reason = router.VerdictPrimary, router.ReasonWrite
	}
	if fn.body != nil {
		s.bits |= codeBits(fn.body.flags)
	}
	if trusted {
		known := contribFunction(fn.extension, fn.name)
		s.bits |= known.bits
		s.safe = s.safe || known.bits&bitOpaque == 0
		if known.verdict != router.VerdictUnknown {
			s.verdict, s.reason = known.verdict, reasonOf(fn.name, known.verdict)
		}
	}
	if b.rules.readOnly.has(schema, fn.name) {
		s.verdict, s.reason = router.VerdictRead, router.ReasonUnknown
	}
	if s.safe {
		s.bits &^= bitOpaque | bitLasting
	}
	return s
}

// builtin returns what a function of pg_catalog is, as initdb made it.
func (b *builder) builtin(fn *function) state {
	s := state{bits: codeBits(sessionEffect(fn.name).flags())}
	info, known := router.Builtin(fn.name)
	switch {
	case fn.name == "pg_is_other_temp_schema", fn.name == "pg_my_temp_schema":
		// They tell temporary relations apart in the views of information_schema; a session
		// that has some of its own reads on the primary anyway.
		s.verdict = router.VerdictRead
	case known:
		s.verdict = info.Verdict
		if info.Opaque {
			s.bits |= bitOpaque
		}
		if info.Lasting {
			s.bits |= bitLasting
		}
		if info.Nextval {
			s.bits |= bitNextval
		}
	case fn.volatility == 'i':
		s.verdict = router.VerdictRead
	default:
		s.verdict = router.VerdictDoubtful
	}
	s.reason = reasonOf(fn.name, s.verdict)
	return s
}

// reasonOf returns why a function with that verdict is no plain read.
func reasonOf(name string, v router.NameVerdict) router.Reason {
	switch v {
	case router.VerdictRead, router.VerdictUnknown:
		return router.ReasonUnknown
	case router.VerdictNode:
		return router.ReasonNodeLocal
	}
	switch e := sessionEffect(name); {
	case e == effectNextval || e == effectCurrval || name == "pg_sequence_last_value":
		return router.ReasonSequence
	case len(name) > 12 && (name[:12] == "pg_advisory_" || name[:12] == "pg_try_advis"):
		return router.ReasonAdvisory
	case name == "pg_export_snapshot":
		return router.ReasonSnapshot
	}
	return router.ReasonVolatile
}

// codeBits returns the bits of what code does by itself.
func codeBits(f refFlags) bits {
	var out bits
	if f&codeOpaque != 0 {
		out |= bitOpaque
	}
	if f&codeLasting != 0 {
		out |= bitLasting
	}
	if f&codeNextval != 0 {
		out |= bitNextval
	}
	if f&codeCurrval != 0 {
		out |= bitCurrval
	}
	return out
}

// addRelations makes two nodes for every relation, with what its kind says of reading it.
func (b *builder) addRelations() {
	for i := range b.facts.relations {
		rel := &b.facts.relations[i]
		s := state{verdict: router.VerdictRead}
		switch {
		case rel.persistence == 'u':
			s = state{verdict: router.VerdictPrimary, reason: router.ReasonUnlogged}
		case rel.kind == 'f':
			s = state{verdict: router.VerdictPrimary, reason: router.ReasonForeign}
		case rel.kind == 'S':
			s = state{verdict: router.VerdictPrimary, reason: router.ReasonSequence}
		}
		b.reads[rel.oid] = b.graph.add(s)
		b.writes[rel.oid] = b.graph.add(state{verdict: router.VerdictRead})
	}
}

// addTypes makes two nodes for every type that matters.
func (b *builder) addTypes() {
	add := func(oid uint32) {
		if _, ok := b.typeNodes[oid]; !ok {
			b.typeNodes[oid] = b.graph.add(state{verdict: router.VerdictRead})
			b.castNodes[oid] = b.graph.add(state{verdict: router.VerdictRead})
			b.graph.link(b.castNodes[oid], b.typeNodes[oid], true)
		}
	}
	for _, t := range b.facts.types {
		add(t.oid)
	}
	for _, u := range b.facts.typeUses {
		add(u.from)
		add(u.to)
	}
	for _, c := range b.facts.casts {
		if c.function >= firstUserOID {
			add(c.source)
			add(c.target)
		}
	}
}

// linkFunctions adds what functions use.
func (b *builder) linkFunctions() {
	for i := range b.facts.functions {
		fn := &b.facts.functions[i]
		if !fn.own() {
			continue
		}
		n := b.functions[fn.oid]
		b.use(n, fn.body, false)
		for _, name := range fn.settings {
			b.leaves(n, lowerASCII(name))
		}
		b.use(n, fn.defaults, true)
		for _, support := range b.facts.aggregates[fn.oid] {
			b.linkTo(n, b.functions, support, true)
		}
		if b.facts.castable[fn.returns] {
			b.linkTo(n, b.castNodes, fn.returns, true)
		}
	}
	for _, fn := range b.facts.ddlTriggers {
		b.linkTo(b.ddl, b.functions, fn, false)
	}
}

// linkTo adds an edge to the node of an oid, if there is one.
func (b *builder) linkTo(from nodeID, nodes map[uint32]nodeID, oid uint32, full bool) {
	if to, ok := nodes[oid]; ok {
		b.graph.link(from, to, full)
	}
}

// linkRelations adds what reading and writing relations uses.
func (b *builder) linkRelations() {
	policies := make(map[uint32]bool)
	kinds := make(map[uint32]byte, len(b.facts.relations))
	for i := range b.facts.relations {
		rel := &b.facts.relations[i]
		policies[rel.oid] = rel.policies
		kinds[rel.oid] = rel.kind
		b.graph.link(b.writes[rel.oid], b.reads[rel.oid], false)
	}
	for _, e := range b.facts.expressions {
		read, ok := b.reads[e.owner]
		if !ok {
			continue
		}
		write := b.writes[e.owner]
		switch {
		case e.use == onViewRead && kinds[e.owner] == 'm':
			b.use(write, e.code, false) // what REFRESH reaches; reading shows what is stored
		case e.use == onViewRead:
			b.use(read, e.code, true)
			b.writeThrough(write, e.code)
		case e.use&(onPolicy|onPolicyRead) != 0 && policies[e.owner]:
			b.use(write, e.code, false)
			if e.use&onPolicyRead != 0 {
				b.use(read, e.code, true)
			}
		case e.use&onWrite != 0:
			b.use(write, e.code, false)
			b.linkTo(write, b.functions, e.function, false)
		}
	}
	for _, p := range b.facts.inherits {
		if parent, ok := b.reads[p.from]; ok {
			b.linkTo(parent, b.reads, p.to, true)
			b.linkTo(b.writes[p.from], b.writes, p.to, false)
		}
	}
	for _, p := range b.facts.cascades {
		if from, ok := b.writes[p.from]; ok {
			b.linkTo(from, b.writes, p.to, false)
		}
	}
	for _, p := range b.facts.handlers {
		if read, ok := b.reads[p.from]; ok {
			b.linkTo(read, b.functions, p.to, false)
		}
	}
	for _, oid := range b.facts.identities {
		if n, ok := b.writes[oid]; ok {
			b.graph.mark(n, bitNextval)
		}
	}
	for _, c := range b.facts.columns {
		if n, ok := b.writes[c.from]; ok {
			b.linkTo(n, b.typeNodes, c.to, false)
			if b.facts.castable[c.to] {
				b.linkTo(b.reads[c.from], b.castNodes, c.to, true)
			}
		}
	}
}

// writeThrough lets writing a view reach what writing the relations below it reaches, as
// for an automatically updatable view (CREATE VIEW, "Updatable Views").
func (b *builder) writeThrough(write nodeID, c *code) {
	if c == nil {
		return
	}
	for _, r := range c.refs {
		if r.kind == refRel {
			b.linkTo(write, b.writes, r.a, false)
		}
	}
}

// linkTypes adds what using types and casts runs.
func (b *builder) linkTypes() {
	for _, t := range b.facts.types {
		n := b.typeNodes[t.oid]
		for _, fn := range t.functions {
			b.linkTo(n, b.functions, fn, true)
		}
		b.use(n, t.code, true)
		b.linkTo(n, b.typeNodes, t.base, true)
		b.linkTo(b.castNodes[t.oid], b.castNodes, t.base, true)
	}
	for _, e := range b.facts.expressions {
		if n, ok := b.typeNodes[e.owner]; ok && e.use == onType {
			b.use(n, e.code, true)
		}
	}
	for _, u := range b.facts.typeUses {
		b.graph.link(b.typeNodes[u.from], b.typeNodes[u.to], true)
		b.graph.link(b.castNodes[u.from], b.castNodes[u.to], true)
	}
	for _, c := range b.facts.casts {
		if c.function < firstUserOID {
			continue
		}
		b.linkTo(b.castNodes[c.target], b.functions, c.function, true)
		if c.implicit {
			// It may run where no type is named: whatever brings the source brings the cast.
			b.linkTo(b.castNodes[c.source], b.functions, c.function, true)
		}
	}
}

// use adds edges for all that c uses; a full edge carries verdicts as well.
func (b *builder) use(from nodeID, c *code, full bool) {
	if c == nil {
		return
	}
	b.graph.mark(from, codeBits(c.flags))
	if full && c.flags&codeLocks != 0 {
		b.graph.raise(from, router.VerdictPrimary, router.ReasonLocking)
	}
	if full && c.flags&codeSets != 0 {
		b.graph.raise(from, router.VerdictPrimary, router.ReasonState)
	}
	if full && c.flags&codeWrites != 0 {
		b.graph.raise(from, router.VerdictPrimary, router.ReasonWrite)
	}
	if c.flags&codeDDL != 0 {
		b.graph.link(from, b.ddl, false)
	}
	for _, r := range c.refs {
		switch r.kind {
		case refFunc:
			b.linkTo(from, b.functions, r.a, full)
		case refOp:
			b.linkTo(from, b.operators, r.a, full)
		case refType:
			b.linkTo(from, b.typeNodes, r.a, full)
		case refRel:
			b.linkTo(from, b.reads, r.a, full)
			if c.flags&codeWrites != 0 {
				b.linkTo(from, b.writes, r.a, false)
			}
		case refSetting:
			if v := b.facts.settingVerdict(b.names.text(r.b)); full && v != router.VerdictRead {
				b.graph.raise(from, v, router.ReasonSetting)
			}
		case refCall:
			b.graph.link(from, b.nameNode(b.calls, r), false)
		case refRead:
			b.graph.link(from, b.nameNode(b.readNames, r), false)
		case refWrite:
			b.graph.link(from, b.nameNode(b.wrtNames, r), false)
		case refOpName:
			b.graph.link(from, b.nameNode(b.opNames, r), false)
		case refTypeName:
			b.graph.link(from, b.nameNode(b.castNames, ref{b: r.b}), false)
		case refLeaves:
			b.leaves(from, b.names.text(r.b))
		}
	}
}

// leaves notes that using a node leaves the name of a custom setting on the connection, empty, although the setting is the
// transaction's. Where there are too many such names it counts as opaque.
func (b *builder) leaves(n nodeID, name string) {
	at := slices.Index(b.left, name)
	if at < 0 {
		at = len(b.left)
		if at == 64 {
			b.graph.mark(n, bitOpaque|bitLasting)
			return
		}
		b.left = append(b.left, name)
	}
	b.graph.leave(n, 1<<at)
}

// leftNames is names of settings as router.FuncInfo has them.
func (b *builder) leftNames(names uint64) (left string) {
	for ; names != 0; names &= names - 1 {
		left = router.JoinNames(left, b.left[bits64.TrailingZeros64(names)])
	}
	return left
}

// nameNode returns the node of a name that some body uses.
func (b *builder) nameNode(nodes map[nameKey]nodeID, r ref) nodeID {
	key := nameKey{r.a, r.b}
	n, ok := nodes[key]
	if !ok {
		n = b.graph.add(state{verdict: router.VerdictRead})
		nodes[key] = n
	}
	return n
}

// linkNames leads the names in bodies to everything of that name.
func (b *builder) linkNames() {
	bare := func(nodes map[nameKey]nodeID, name string, n nodeID) {
		if from, ok := nodes[nameKey{0, b.names.numberString(name)}]; ok {
			b.graph.link(from, n, false)
		}
	}
	to := func(nodes map[nameKey]nodeID, schema, name string, n nodeID) {
		bare(nodes, name, n)
		sym := b.names.numberString(name)
		if from, ok := nodes[nameKey{b.names.numberString(schema), sym}]; ok {
			b.graph.link(from, n, false)
		}
	}
	for i := range b.facts.functions {
		if fn := &b.facts.functions[i]; fn.own() {
			to(b.calls, b.facts.namespaces[fn.schema], fn.name, b.functions[fn.oid])
		}
	}
	for i := range b.facts.relations {
		rel := &b.facts.relations[i]
		schema := b.facts.namespaces[rel.schema]
		to(b.readNames, schema, rel.name, b.reads[rel.oid])
		to(b.wrtNames, schema, rel.name, b.writes[rel.oid])
	}
	for _, op := range b.facts.operators {
		if n, ok := b.operators[op.oid]; ok && op.function >= firstUserOID {
			bare(b.opNames, op.name, n)
		}
	}
	for oid, n := range b.castNodes {
		for _, name := range typeSpellings(b.typeName(oid)) {
			bare(b.castNames, name, n)
		}
	}
}
