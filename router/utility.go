package router

// utility classifies statements that act on the primary and nowhere else; false when the
// word at hand starts none.
func (p *parser) utility() bool {
	switch p.tok.kw {
	case kwCreate:
		p.create()
	case kwAlter, kwDrop, kwGrant, kwRevoke, kwReassign, kwImport:
		p.ddl()
	case kwNotify:
		p.flag(FlagNotifies)
		p.write()
		p.skipStatement()
	case kwTruncate:
		p.write()
		p.truncate()
	case kwVacuum, kwAnalyze, kwAnalyse, kwCluster, kwReindex, kwCheckpoint, kwComment, kwSecurity:
		p.write()
		p.leaves(p.opaqueDDL(), true)
		p.skipStatement()
	case kwRefresh:
		p.write()
		p.leaves(p.opaqueDDL(), true)
		p.refresh()
	case kwLock:
		p.lock()
	case kwCall:
		p.callProcedure()
	case kwDo:
		p.do()
	case kwExecute:
		p.execute()
	case kwListen:
		p.listen()
	case kwLoad:
		p.primary(ReasonState, MarkWrite, certain)
		p.pin(PinLoad)
		p.skipStatement()
	case kwWait: // WAIT FOR LSN, where a server has it: about one node's replay
		p.primary(ReasonNodeLocal, MarkRead, 0)
		p.skipStatement()
	default:
		return false
	}
	return true
}

// truncate looks at the triggers of what TRUNCATE empties.
func (p *parser) truncate() {
	p.advance()
	p.accept(kwTable)
	for !p.done() {
		p.accept(kwOnly)
		if !p.tok.word() {
			break
		}
		c := p.chain()
		p.target(&c)
		if p.tok.kind == tokOp { // "*"
			p.advance()
		}
		if p.tok.kind != tokComma {
			break
		}
		p.advance()
	}
	for ; !p.done(); p.advance() {
		if p.tok.kind == tokIdent && equalFold(p.text[p.tok.start:p.tok.end], "cascade") && p.anyOpaqueTarget() {
			p.leaves(true, true) // what refers to it is emptied with it
		}
	}
}

// anyOpaqueTarget says whether there is a relation of which a write can leave state in the session. It looks once for a text.
func (p *parser) anyOpaqueTarget() bool {
	switch {
	case p.env.Catalog == nil:
		return true
	case !p.lookedAtTargets:
		p.lookedAtTargets = true
		for _, r := range p.env.Catalog.Relations {
			p.opaqueTarget = p.opaqueTarget || r.WriteOpaque || r.WriteLeaves != ""
		}
	}
	return p.opaqueTarget
}

// lock classifies LOCK TABLE: the weakest lock is one that a read-only transaction may take.
func (p *parser) lock() {
	share := false
	s := refused
	for !p.done() {
		if p.tok.kw == kwAccess && p.peek.kw == kwShare {
			share, s = true, certain
		}
		p.advance()
	}
	other := p.otherPrimary
	p.primary(ReasonLocking, MarkWrite, s)
	if share {
		p.otherPrimary, p.lockShare = other, true
	}
}

// callProcedure classifies CALL of a procedure.
func (p *parser) callProcedure() {
	p.primary(ReasonWrite, MarkWrite, certain)
	p.advance()
	p.query(false)
}

// do classifies DO: its body may leave anything in the session, if what it says is not
// plain enough to tell.
func (p *parser) do() {
	p.primary(ReasonWrite, MarkWrite, certain)
	p.advance()
	left := bodyNothing
	for !p.done() {
		switch {
		case p.tok.kw == kwLanguage:
			p.advance()
			if !p.tok.word() && !p.tok.str() || !p.plpgsql(&p.tok) {
				left = bodyOpaque
			}
		case p.tok.str():
			body, ok := p.constant(&p.tok)
			if !ok {
				left = bodyOpaque
				break
			}
			left = max(left, p.bodyLeaves(body))
		}
		p.advance()
	}
	p.leaves(left != bodyNothing, true)
	if left == bodyUnknown {
		p.flag(FlagUnknownName)
	}
	p.flag(FlagNextval)
}

// plpgsql reports whether the token names the language PL/pgSQL.
func (p *parser) plpgsql(t *token) bool {
	if t.word() {
		return p.ident(t) == "plpgsql"
	}
	name, ok := p.constant(t)
	return ok && equalFold([]byte(name), "plpgsql")
}

// listen classifies LISTEN.
func (p *parser) listen() {
	p.primary(ReasonState, MarkWrite, refused)
	p.advance()
	if p.tok.word() {
		p.effect(Effect{Kind: EffectListen, Name: p.ident(&p.tok)})
		p.pin(PinListen)
		p.advance()
	}
}

// refresh looks at what REFRESH MATERIALIZED VIEW runs.
func (p *parser) refresh() {
	for !p.done() && p.tok.kw != kwView {
		p.advance()
	}
	p.accept(kwView)
	if p.tok.kind == tokIdent && equalFold(p.text[p.tok.start:p.tok.end], "concurrently") {
		p.advance()
	}
	if p.tok.word() {
		c := p.chain()
		if r, ok := p.find(&c); ok {
			p.leaves(r.ReadOpaque, r.ReadLasting)
			p.leavesNames(r.ReadLeaves)
		}
	}
	p.skipStatement()
}

// ddl classifies a statement that changes the catalog, and looks at the functions it names:
// a default or a USING clause may run them.
func (p *parser) ddl() {
	p.write()
	p.flag(FlagDDL)
	p.vacates()
	p.leaves(p.opaqueDDL(), true)
	depth := 0
	for !p.done() || p.tok.kind == tokSemi && depth > 0 { // CREATE RULE … DO (a; b)
		switch p.tok.kind {
		case tokLParen:
			depth++
		case tokRParen:
			depth--
		}
		if !p.tok.word() {
			p.advance()
			continue
		}
		c := p.chain()
		if isTemp(c.schema()) {
			p.pin(PinTemp)
		}
		if p.tok.kind != tokLParen {
			continue
		}
		if info, ok := p.declared(c.schema(), c.last()); ok {
			p.leaves(info.Opaque, info.Lasting)
			p.leavesNames(info.Leaves)
		}
		if k := builtinFunction(c.last()); k == builtinSetConfig || k.lock() {
			p.leaves(true, true)
		}
	}
	if depth > 0 {
		p.unparsed()
	}
}

// is says whether the token at hand is a word that is no key word of its own here.
func (p *parser) is(word string) bool {
	return p.tok.kind == tokIdent && equalFold(p.text[p.tok.start:p.tok.end], word)
}

// vacates looks for what PostgreSQL does to a database only while nobody else is connected to it: DROP, ALTER … RENAME,
// ALTER … SET TABLESPACE, and CREATE, which copies another.
func (p *parser) vacates() {
	verb := p.tok.kw
	if verb == kwAlter || verb == kwDrop {
		p.advance()
	}
	if !p.is("database") {
		return
	}
	p.advance()
	if p.is("if") {
		p.advance()
		p.accept(kwExists)
	}
	if !p.tok.word() {
		return
	}
	name := p.ident(&p.tok)
	p.advance()
	switch {
	case verb == kwDrop, verb == kwAlter && p.is("rename"):
	case verb == kwAlter && p.accept(kwSet) && p.is("tablespace"):
	case verb == kwAlter:
		return
	default:
		name = p.template()
	}
	if name != "" {
		p.effect(Effect{Kind: EffectVacate, Name: name})
	}
}

// template is the database that CREATE DATABASE copies; "" where that does not parse.
func (p *parser) template() string {
	const usual = "template1"
	for ; !p.done(); p.advance() {
		if !p.is("template") {
			continue
		}
		p.advance()
		if p.tok.kind == tokOp { // "="
			p.advance()
		}
		switch {
		case p.is("default"):
			return usual
		case p.tok.word():
			return p.ident(&p.tok)
		case p.tok.str():
			name, _ := p.constant(&p.tok)
			return name
		}
		return ""
	}
	return usual
}

// create classifies CREATE.
func (p *parser) create() {
	p.write()
	p.flag(FlagDDL)
	p.advance()
	materialized := false
	for p.tok.kind == tokIdent {
		switch p.tok.kw {
		case kwOr, kwReplace, kwGlobal, kwLocal, kwUnlogged, kwRecursive, kwMaterialized:
			materialized = materialized || p.tok.kw == kwMaterialized
			p.advance()
			continue
		case kwTemp, kwTemporary:
			p.pin(PinTemp)
			p.advance()
			continue
		case kwFunction, kwProcedure:
			p.createRoutine()
			return
		case kwTable, kwView, kwSequence:
			runs := materialized || p.tok.kw == kwTable
			p.advance()
			p.createRelation(runs)
			return
		}
		break
	}
	p.ddl()
}

// createRelation is create behind TABLE, VIEW or SEQUENCE; runs: a query behind AS is run.
func (p *parser) createRelation(runs bool) {
	for p.tok.kind == tokIdent && equalFold(p.text[p.tok.start:p.tok.end], "if") || p.tok.kw == kwNot || p.tok.kw == kwExists {
		p.advance()
	}
	if !p.tok.word() {
		p.ddl()
		return
	}
	c := p.chain()
	p.newRelation(&c)
	if runs {
		p.leaves(p.opaqueDDL(), true)
		p.tableAs()
		return
	}
	p.ddl()
}

// tableAs looks for the query of CREATE TABLE AS and looks at what it runs.
func (p *parser) tableAs() {
	depth := 0
	for !p.done() {
		switch p.tok.kind {
		case tokLParen:
			depth++
		case tokRParen:
			depth--
		case tokIdent:
			if depth == 0 && p.tok.kw == kwAs {
				p.advance()
				if p.tok.kw == kwExecute {
					p.execute()
					return
				}
				p.query(false)
				return
			}
		}
		if depth > 0 && p.tok.word() {
			c := p.chain()
			if info, ok := p.declared(c.schema(), c.last()); ok && p.tok.kind == tokLParen {
				p.leaves(info.Opaque, info.Lasting)
				p.leavesNames(info.Leaves)
			}
			continue
		}
		p.advance()
	}
}

// createTableAs reports whether the CREATE at hand is one that EXPLAIN takes: CREATE TABLE AS
// or CREATE MATERIALIZED VIEW.
func (p *parser) createTableAs() bool {
	switch p.peek.kw {
	case kwTable, kwTemp, kwTemporary, kwUnlogged, kwMaterialized, kwLocal, kwGlobal:
		return true
	}
	return false
}

// createRoutine moves over CREATE FUNCTION or PROCEDURE; a BEGIN ATOMIC body holds semicolons
// and ends with the END that belongs to it.
func (p *parser) createRoutine() {
	p.advance()
	if p.tok.word() {
		c := p.chain()
		if isTemp(c.schema()) {
			p.pin(PinTemp)
		}
	}
	p.leaves(p.opaqueDDL(), true)
	depth := 0
	for p.tok.kind != tokEOF && p.tok.kind != tokError {
		if depth == 0 && p.tok.kind == tokSemi {
			return
		}
		depth = p.atomicDepth(true, depth)
		p.advance()
	}
	if depth > 0 {
		p.unparsed()
	}
}
