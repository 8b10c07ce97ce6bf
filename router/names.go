package router

import (
	"slices"
	"strings"
)

// chain is a name of up to four parts with dots between them.
type chain struct {
	parts [4]string
	n     int
	bare  bool // one part, not quoted: may be a keyword
	over  bool // more than four parts
}

// last is the name without what qualifies it.
func (c *chain) last() string { return c.parts[c.n-1] }

// schema is the schema that qualifies the name, "" when none does.
func (c *chain) schema() string {
	if c.n < 2 {
		return ""
	}
	return c.parts[c.n-2]
}

// is reports whether the chain is the unquoted word w.
func (c *chain) is(w string) bool { return c.bare && c.parts[0] == w }

// chain reads a name, which the token at hand starts.
func (p *parser) chain() chain {
	c := chain{bare: p.tok.kind == tokIdent && p.peek.kind != tokDot}
	for {
		if c.n == len(c.parts) {
			c.over = true
			copy(c.parts[:], c.parts[1:])
			c.n--
		}
		c.parts[c.n] = p.ident(&p.tok)
		c.n++
		p.advance()
		if p.tok.kind != tokDot || !p.peek.word() {
			return c
		}
		p.advance()
	}
}

// flag notes a fact about what the statement does when it runs.
func (p *parser) flag(f Flag) {
	if !p.explain {
		p.unit.Flags |= f
	}
}

// schemas is the path that unqualified names are looked up in. Of a session whose path is not
// known only the built-in schema is.
func (p *parser) schemas() []string {
	if p.env.Path == nil {
		return builtinPath[:]
	}
	return p.env.Path.Schemas
}

// builtinPath is the path of a session of which nothing is known.
var builtinPath = [...]string{systemSchema}

// systemSchema is the schema of the built-in names.
const systemSchema = "pg_catalog"

// isTemp reports whether a schema holds temporary objects.
func isTemp(schema string) bool {
	return schema == "pg_temp" || strings.HasPrefix(schema, "pg_temp_") || strings.HasPrefix(schema, "pg_toast_temp_")
}

// function says what calling the function c means for the unit: all of its overloads, in all
// schemas of the path, joined.
func (p *parser) function(c *chain) {
	name, schema := c.last(), c.schema()
	if isTemp(schema) {
		p.opaque(true)
		p.primary(ReasonTemporary, MarkWrite, certain)
		return
	}
	if c.over {
		p.unknown()
		return
	}
	builtin := builtinNone
	if schema == "" || schema == systemSchema {
		builtin = builtinFunction(name)
	}
	info, found := p.declared(schema, name)
	switch {
	case builtin == builtinNone && !found:
		if c.bare && softWord(name) && p.construct(name) {
			return
		}
		p.unknown()
		return
	case builtin != builtinNone:
		p.builtin(builtin, !found)
		switch name {
		case "pg_cancel_backend":
			p.flag(FlagCancels)
		case "pg_terminate_backend":
			p.flag(FlagTerminates)
		case "pg_notify":
			p.flag(FlagNotifies)
		}
	}
	if found {
		p.user(info)
	}
}

// construct reports whether a word in front of the parenthesis at hand belongs to a construct
// where it stands: it follows an operand, or the word that introduces it.
func (p *parser) construct(word string) bool {
	before := &p.prev2
	var intro []string
	switch word {
	case "by":
		intro = []string{"group", "order", "partition", "first"}
	case "sets":
		intro = []string{"grouping"}
	case "zone":
		intro = []string{"time"}
	case "materialized":
		intro = []string{"as", "not"}
	case "first", "next":
		intro = []string{"fetch"}
	case "conflict":
		intro = []string{"on"}
	case "insert":
		return len(p.stack) > 0 && p.top().verb == kwMerge
	case "like", "ilike":
		intro = []string{"not"}
	}
	if before.kind == tokIdent {
		for _, w := range intro {
			if equalFold(p.text[before.start:before.end], w) {
				return true
			}
		}
	}
	return p.operand(before)
}

// operand reports whether a token surely ends an operand, so that what follows continues an
// expression and does not start one.
func (p *parser) operand(t *token) bool {
	switch t.kind {
	case tokString, tokTimeWord, tokBits, tokNumber, tokParam, tokQuoted, tokRBracket:
		return true
	case tokRParen: // or an expression starts behind it
		return t.start != p.leadEnd || t.start == 0
	case tokIdent:
		switch w := p.ident(t); w {
		case "null", "true", "false", "end", "user", "current_date", "current_user", "current_timestamp", "localtimestamp":
			return true
		default:
			return !hardWord(w) && !softWord(w)
		}
	}
	return false
}

// declared is what the catalog says of a function, joined over the schemas it may be found in.
// Of pg_catalog it lists only the names that are not all as initdb made them.
func (p *parser) declared(schema, name string) (info FuncInfo, found bool) {
	cat := p.env.Catalog
	if cat == nil {
		return FuncInfo{}, false
	}
	if schema != "" {
		info, found = cat.Functions[QName{schema, name}]
		return info, found
	}
	for _, s := range p.schemas() {
		if f, ok := cat.Functions[QName{s, name}]; ok {
			info = joinFunctions(info, f)
			found = true
		}
	}
	return info, found
}

// joinFunctions is the verdict over two sets of overloads.
func joinFunctions(a, b FuncInfo) FuncInfo {
	return FuncInfo{
		Verdict: max(a.Verdict, b.Verdict),
		Opaque:  a.Opaque || b.Opaque,
		Lasting: a.Lasting || b.Lasting,
		Leaves:  JoinNames(a.Leaves, b.Leaves),
		Nextval: a.Nextval || b.Nextval,
		Builtin: a.Builtin && b.Builtin,
	}
}

// user is what calling a function that the catalog describes means for the unit.
func (p *parser) user(f FuncInfo) {
	if f.Opaque {
		p.opaque(f.Lasting)
	}
	p.leavesNames(f.Leaves)
	if f.Nextval {
		p.flag(FlagNextval)
	}
	switch f.Verdict {
	case VerdictRead:
		p.flag(FlagCatalog)
	case VerdictNode:
		p.primary(ReasonNodeLocal, MarkRead, 0)
	case VerdictPrimary:
		p.primary(ReasonVolatile, MarkWrite, certain)
	case VerdictUnknown:
		p.unknown()
	default:
		p.primary(ReasonVolatile, MarkWrite, 0)
	}
}

// opaque says that running the statement can leave state in the session that nobody sees; lasting, that DISCARD ALL
// may not remove all of it.
func (p *parser) opaque(lasting bool) {
	if p.explain {
		return
	}
	p.leaves(true, lasting)
	p.primary(ReasonState, MarkRead, certain)
}

// leaves flags what the statement can leave in the session.
func (p *parser) leaves(opaque, lasting bool) {
	if opaque {
		p.flag(FlagOpaque)
	}
	if opaque && lasting {
		p.flag(FlagLasting)
	}
}

// How many names of custom settings a text may leave, of how many bytes with what stands between them. More of them count as
// state that nothing removes.
const (
	maxLeft      = 64
	maxLeftBytes = 8 << 10
)

// leavesNames says that running the statement leaves names of custom settings.
func (p *parser) leavesNames(names string) {
	if !p.explain && !p.unit.leave(names) {
		p.opaque(true)
	}
}

// leave adds names to those that the unit leaves; false where they are too many.
func (u *Unit) leave(names string) bool {
	all := JoinNames(u.Leaves, names)
	if len(all) > maxLeftBytes || CountNames(all) > maxLeft {
		return false
	}
	u.Leaves = all
	return true
}

// unknown says that the statement uses a name of which nothing is known.
func (p *parser) unknown() {
	p.unit.Flags |= FlagUnknownName
	p.leaves(true, true)
	p.flag(FlagNextval)
	p.primary(ReasonUnknownName, MarkWrite, 0)
}

// fewSight is how many common table expressions are looked through one by one.
const fewSight = 16

// sees brings a common table expression into sight.
func (p *parser) sees(name string) {
	p.ctes = append(p.ctes, name)
	switch {
	case p.sight != nil:
		p.sight[name]++
	case len(p.ctes) > fewSight:
		p.sight = make(map[string]int)
		for _, c := range p.ctes {
			p.sight[c]++
		}
	}
}

// forgets leaves only the first n common table expressions in sight.
func (p *parser) forgets(n int) {
	if p.sight != nil {
		for _, c := range p.ctes[n:] {
			p.sight[c]--
		}
	}
	p.ctes = p.ctes[:n]
}

// inSight reports whether name is a common table expression that may be read here.
func (p *parser) inSight(name string) bool {
	if p.sight != nil {
		return p.sight[name] > 0
	}
	return slices.Contains(p.ctes, name)
}

// find is what is known of the relation c; ok is false when nothing is, and system tells
// that it is PostgreSQL's own.
func (p *parser) find(c *chain) (info RelInfo, ok bool) {
	name, schema := c.last(), c.schema()
	if c.over {
		return RelInfo{}, false
	}
	if schema != "" {
		return p.findIn(schema, name)
	}
	for _, s := range p.schemas() {
		if info, ok = p.findIn(s, name); ok {
			return info, true
		}
	}
	return RelInfo{}, false
}

// findIn is find in one schema.
func (p *parser) findIn(schema, name string) (RelInfo, bool) {
	if r, ok := systemRelation(schema, name); ok {
		return r, true
	}
	if p.env.Catalog == nil {
		return RelInfo{}, false
	}
	r, ok := p.env.Catalog.Relations[QName{schema, name}]
	return r, ok
}

// assumed is the relation that stands for every name where there is no database to ask.
func (p *parser) assumed() (RelInfo, bool) {
	return RelInfo{Kind: 'r', Persistence: 'p', Read: VerdictRead}, p.env.Catalog != nil && p.env.Catalog.AssumeTables
}

// temporary reports whether the relation c is, or may be, a temporary one.
func (p *parser) temporary(c *chain) bool {
	if c.n > 1 {
		return isTemp(c.schema())
	}
	return p.env.Path != nil && p.env.Path.Temp
}

// relation says what reading the relation c means for the unit.
func (p *parser) relation(c *chain) {
	if c.n == 1 && p.inSight(c.parts[0]) {
		return
	}
	if p.temporary(c) {
		p.primary(ReasonTemporary, MarkRead, certain)
		return
	}
	r, ok := p.find(c)
	if !ok {
		if r, ok = p.assumed(); !ok {
			p.unknown()
			return
		}
	}
	if r.ReadOpaque {
		p.opaque(r.ReadLasting)
	}
	p.leavesNames(r.ReadLeaves)
	if r.ReadNextval {
		p.flag(FlagNextval)
	}
	switch {
	case r.Persistence == 't':
		p.primary(ReasonTemporary, MarkRead, certain)
	case r.Persistence == 'u':
		p.primary(ReasonUnlogged, MarkRead, certain)
	case r.Kind == 'f':
		p.primary(ReasonForeign, MarkWrite, 0)
	case r.Kind == 'S':
		p.primary(ReasonSequence, MarkRead, 0)
	default:
		p.readVerdict(&r)
	}
}

// readVerdict is relation for what the verdict alone decides.
func (p *parser) readVerdict(r *RelInfo) {
	if r.Read == VerdictRead {
		if r.Calls || r.Kind == 'v' {
			p.flag(FlagCatalog)
		}
		return
	}
	reason, mark, s := r.Reason, MarkWrite, strength(0)
	switch r.Read {
	case VerdictNode:
		reason, mark = pickReason(reason, ReasonNodeLocal), MarkRead
	case VerdictPrimary:
		reason, s = pickReason(reason, ReasonVolatile), certain
	case VerdictDoubtful:
		reason = pickReason(reason, ReasonVolatile)
	default:
		p.unknown()
		return
	}
	switch reason {
	case ReasonUnlogged, ReasonTemporary, ReasonSequence:
		mark = MarkRead
	}
	p.primary(reason, mark, s)
}

// pickReason is a, or b when a says nothing.
func pickReason(a, b Reason) Reason {
	if a == ReasonUnknown {
		return b
	}
	return a
}

// target says what writing into the relation c means for the unit, beyond that it is a write.
func (p *parser) target(c *chain) {
	if p.explain {
		if r, ok := p.find(c); ok && (r.Persistence == 'u' || r.Persistence == 't') || p.temporary(c) {
			p.relation(c) // planning it opens it
		} else if !ok {
			if _, assumed := p.assumed(); !assumed {
				p.unknown()
			}
		}
		return
	}
	r, ok := p.find(c)
	if p.temporary(c) && !ok {
		r, ok = RelInfo{}, true // its triggers are the session's own, which is pinned
	}
	if !ok {
		if r, ok = p.assumed(); !ok {
			p.unknown()
			return
		}
	}
	p.leaves(r.WriteOpaque, r.WriteLasting)
	p.leavesNames(r.WriteLeaves)
	if r.WriteNextval {
		p.flag(FlagNextval)
	}
}

// newRelation says what creating the relation c means for the session.
func (p *parser) newRelation(c *chain) {
	path := p.schemas()
	first := len(path) > 0 && isTemp(path[0]) || p.env.Path != nil && p.env.Path.CreateTemp
	if isTemp(c.schema()) || c.n == 1 && first {
		p.pin(PinTemp)
	}
}

// useType looks at a name that may be a type's.
func (p *parser) useType(c *chain) {
	if cat := p.env.Catalog; cat != nil && cat.VolatileTypes[c.last()] {
		p.listed(c.last())
	}
}

// attribute looks at a name behind a dot, which may be a function of what stands before it.
func (p *parser) attribute(name string) {
	if cat := p.env.Catalog; cat != nil && cat.AttributeFunctions[name] {
		p.listed(name)
	}
}

// operator looks at the operator at hand.
func (p *parser) operator() {
	cat := p.env.Catalog
	if cat == nil || len(cat.VolatileOperators) == 0 {
		return
	}
	if name := string(p.text[p.tok.start:p.tok.end]); cat.VolatileOperators[name] {
		p.listed(name)
	}
}

// listed is what using an operator, type or attribute means that the catalog lists as no
// plain read.
func (p *parser) listed(name string) {
	if p.env.Catalog.OpaqueNames[name] {
		p.opaque(true)
	}
	p.primary(ReasonVolatile, MarkWrite, 0)
}
