package router

// withState is how far a level is in its WITH clause.
type withState uint8

// The states of a WITH clause.
const (
	withNone withState = iota
	withName           // the name of a common table expression comes next
	withAs             // its AS and its statement come next
	withDone           // its statement is over: a comma or the main statement comes next
)

// level is what the parser knows of one pair of parentheses or brackets, or of the statement itself.
type level struct {
	bracket bool      // [ ] instead of ( )
	start   bool      // nothing has been read in it
	names   bool      // a list of columns, column definitions or type modifiers: no calls in it
	query   bool      // a SELECT, VALUES, TABLE or DML statement stands directly in it
	from    bool      // in a FROM clause, or a parenthesised join
	expect  bool      // … where a relation, function or subquery comes next
	item    bool      // … right behind one: aliases and column lists
	using   bool      // the USING of DELETE or MERGE has been seen
	group   bool      // in GROUP BY
	cte     bool      // the statement of a common table expression
	rec     bool      // WITH RECURSIVE
	with    withState // how far its WITH clause is
	verb    keyword   // INSERT, UPDATE, DELETE or MERGE
	leads   bool      // the list of DISTINCT ON or the name in OPERATOR(): an expression follows
	pending string    // the common table expression whose statement comes next
	ctes    int       // how many common table expressions were in sight when it opened
}

// top is the innermost level. It is valid until the next push or pop.
func (p *parser) top() *level { return &p.stack[len(p.stack)-1] }

// push opens a level.
func (p *parser) push(l level) {
	l.ctes = len(p.ctes)
	p.stack = append(p.stack, l)
}

// pop closes the innermost level; what its WITH clause named goes out of sight.
func (p *parser) pop() {
	l := *p.top()
	p.stack = p.stack[:len(p.stack)-1]
	p.forgets(l.ctes)
	if l.cte && len(p.stack) > 0 {
		up := p.top()
		up.with = withDone
		if !up.rec {
			p.sees(up.pending)
		}
	}
}

// query walks a SELECT, VALUES, TABLE, WITH or DML statement, and everything that looks like
// one, to the end of the statement. Inside parentheses (of COPY) it stops in front of the
// one that closes them.
func (p *parser) query(parens bool) {
	base := len(p.stack)
	p.push(level{start: true})
	for p.step(base, parens) {
	}
	if len(p.stack) > base+1 {
		p.unparsed() // parentheses are open: a syntax error
	}
	p.stack = p.stack[:base]
}

// maxDepth is how many levels are told apart; PostgreSQL's own parser takes no more.
const maxDepth = 10000

// step handles one token, or one construct of several; false at the end.
func (p *parser) step(base int, parens bool) bool {
	lv := p.top()
	start := lv.start
	lv.start = false
	if len(p.stack) > maxDepth {
		p.unparsed()
		p.skipStatement()
	}
	switch p.tok.kind {
	case tokEOF, tokError, tokSemi:
		return false
	case tokLParen:
		p.open(lv, start)
	case tokLBracket:
		p.advance()
		p.push(level{bracket: true})
	case tokRParen, tokRBracket:
		if len(p.stack) == base+1 && p.tok.kind == tokRParen {
			if !parens {
				p.unparsed()
				p.skipStatement()
			}
			return false
		}
		if len(p.stack) == base+1 || lv.bracket != (p.tok.kind == tokRBracket) {
			p.unparsed()
			p.skipStatement()
			return false
		}
		if lv.leads {
			p.leadEnd = p.tok.start
		}
		p.pop()
		p.advance()
	case tokComma:
		lv.comma()
		p.advance()
	case tokOp:
		p.operator()
		p.advance()
	case tokCast:
		p.advance()
		p.typeName()
	case tokDot:
		p.advance()
		p.attributes()
	case tokIdent:
		if !p.keyword(lv, start) {
			p.name(lv)
		}
	case tokQuoted:
		p.name(lv)
	default:
		if p.tok.kind == tokTimeWord {
			p.flag(FlagTxTime)
		}
		p.advance()
	}
	return true
}

// comma is what a comma means at the level.
func (lv *level) comma() {
	switch {
	case lv.with == withDone:
		lv.with = withName
	case lv.from:
		lv.expect, lv.item = true, false
	}
}

// open handles a parenthesis that is no call's.
func (p *parser) open(lv *level, start bool) {
	next := level{start: true}
	lv.query = lv.query || start || lv.with == withDone
	next.leads = p.prev.kw == kwOn && p.prev2.kw == kwDistinct
	switch {
	case lv.with == withAs && (p.prev.kw == kwAs || p.prev.kw == kwMaterialized):
		next.cte = true
	case lv.expect:
		lv.expect, lv.item = false, true
		next.from, next.expect = true, true
	case lv.group:
		next.group = true // (CUBE (a, b)) inside GROUPING SETS
	}
	p.advance()
	p.push(next)
}

// keyword handles the word at hand if it is a keyword that matters where it stands.
func (p *parser) keyword(lv *level, start bool) bool {
	if lv.with == withName || lv.expect && p.tok.kw.relationName() {
		return false
	}
	switch p.tok.kw {
	case kwNone:
		return false
	case kwSelect:
		*lv = level{cte: lv.cte, ctes: lv.ctes, query: true, verb: lv.verb}
	case kwValues:
		lv.query = lv.query || start || lv.with == withDone
		lv.with, lv.from, lv.expect, lv.item = withNone, false, false, false
	case kwTable:
		if start || lv.with == withDone || lv.verb == kwInsert || p.prev.kw.setOperation() {
			lv.query, lv.from, lv.expect, lv.with = true, true, true, withNone
		}
	case kwFrom:
		if lv.query && !(p.prev.kw == kwDistinct && (p.prev2.kw == kwIs || p.prev2.kw == kwNot)) {
			lv.from, lv.expect, lv.item, lv.group = true, true, false, false
		}
	case kwJoin:
		if !lv.from || lv.expect {
			return false
		}
		lv.expect, lv.item = true, false
	case kwOn:
		lv.item = false
	case kwWhere, kwHaving, kwWindow, kwOrder, kwLimit, kwOffset, kwFetch, kwUnion, kwIntersect, kwExcept, kwReturning, kwGroup:
		lv.from, lv.expect, lv.item = false, false, false
		lv.group = p.tok.kw == kwGroup
	case kwInsert, kwUpdate, kwDelete, kwMerge:
		if !(start || lv.with != withNone) || !p.verbAhead() {
			return false
		}
		p.verb(lv)
		return true
	case kwLateral, kwOnly:
	default:
		return p.keywordMore(lv, start)
	}
	p.advance()
	return true
}

// relationName reports whether the keyword can name a relation, since PostgreSQL does not
// reserve it.
func (k keyword) relationName() bool {
	switch k {
	case kwSet, kwOperator, kwInsert, kwUpdate, kwDelete, kwMerge:
		return true
	}
	return false
}

// setOperation reports whether a query may follow the keyword at the same level.
func (k keyword) setOperation() bool {
	return k == kwUnion || k == kwIntersect || k == kwExcept || k == kwAll || k == kwDistinct
}

// keywordMore is the second half of keyword: what needs more than a flag.
func (p *parser) keywordMore(lv *level, start bool) bool {
	switch p.tok.kw {
	case kwUsing:
		if (lv.verb == kwDelete || lv.verb == kwMerge) && !lv.using {
			lv.using, lv.from, lv.expect, lv.item = true, true, true, false
		}
	case kwRows:
		if !lv.expect || p.peek.kw != kwFrom {
			return false
		}
		p.advance()
	case kwWith:
		if (start || lv.verb == kwInsert) && p.peek.kw != kwOrdinality && p.peek.kw != kwTies && p.peek.kw != kwTime {
			lv.with = withName
			if p.peek.kw == kwRecursive {
				lv.rec = true
				p.advance()
			}
		}
	case kwAs:
		p.as(lv)
		return true
	case kwInto:
		if lv.query && lv.verb == kwNone {
			p.selectInto()
			return true
		}
	case kwFor:
		switch p.peek.kw {
		case kwUpdate, kwShare, kwNo, kwKey:
			if lv.query {
				p.primary(ReasonLocking, MarkWrite, refused)
				lv.from, lv.expect, lv.item = false, false, false
			}
		}
	case kwCurrentDate, kwCurrentTime, kwCurrentTimestamp, kwLocaltime, kwLocaltimestamp:
		if p.prev.kind != tokDot {
			p.flag(FlagTxTime)
		}
	case kwSet:
		if lv.verb == kwNone {
			return false // an alias: it ends no FROM clause
		}
		lv.from, lv.expect, lv.item = false, false, false
	case kwTablesample:
		if p.peek.kind == tokLParen {
			return false
		}
		p.advance()
		if p.tok.word() {
			if c := p.chain(); p.tok.kind == tokLParen {
				p.call(lv, c)
			}
		}
		return true
	case kwOperator:
		if p.peek.kind != tokLParen || !p.operand(&p.prev) {
			return false
		}
		c := p.chain()
		p.function(&c) // a function of that name, where the catalog has one
		p.advance()
		p.push(level{start: true, leads: true})
		return true
	default:
		return false
	}
	p.advance()
	return true
}

// as handles AS: what follows it is a label, an alias, a type or a parenthesised list, and
// never the name of a function that is called.
func (p *parser) as(lv *level) {
	p.advance()
	if lv.with == withAs {
		p.accept(kwNot)
		p.accept(kwMaterialized)
		return
	}
	if p.tok.kind == tokLParen {
		names := lv.item
		p.advance()
		p.push(level{names: names})
		return
	}
	if !p.tok.word() {
		return
	}
	p.typeName()
}

// typeName moves over the name of a type (or a label) and its modifiers.
func (p *parser) typeName() {
	if !p.tok.word() {
		return
	}
	c := p.chain()
	p.useType(&c)
	if p.tok.kind == tokLParen {
		p.advance()
		p.push(level{names: true})
	}
}

// attributes moves over the names behind a dot that follows a closing parenthesis or bracket.
func (p *parser) attributes() {
	if !p.tok.word() {
		return
	}
	c := p.chain()
	for i := range c.n {
		p.attribute(c.parts[i])
	}
}

// name handles an identifier, qualified or not: a relation, a call, a type or a column.
func (p *parser) name(lv *level) {
	c := p.chain()
	call := p.tok.kind == tokLParen
	switch {
	case lv.with == withName:
		lv.with, lv.pending = withAs, c.last()
		if lv.rec {
			p.sees(lv.pending)
		}
		if call {
			p.advance()
			p.push(level{names: true})
		}
	case lv.expect && call:
		lv.expect, lv.item = false, true
		p.call(lv, c)
	case lv.expect:
		lv.expect, lv.item = false, true
		p.relation(&c)
	case call && (lv.names || lv.item && !c.is("repeatable")):
		p.advance()
		p.push(level{names: true})
	case call:
		p.call(lv, c)
	default:
		p.useType(&c)
		for i := 1; i < c.n; i++ {
			p.attribute(c.parts[i])
		}
	}
}

// call handles a name in front of a parenthesis, and opens its level.
func (p *parser) call(lv *level, c chain) {
	next := level{start: true}
	word := c.last()
	switch {
	case c.bare && hardWord(word):
	case c.bare && lv.group && (word == "cube" || word == "rollup" || word == "sets"):
		next.group = true
	default:
		p.function(&c)
	}
	p.advance()
	p.push(next)
}

// verbAhead reports whether the INSERT, UPDATE, DELETE or MERGE at hand starts a statement
// and is no column of that name.
func (p *parser) verbAhead() bool {
	switch p.tok.kw {
	case kwInsert, kwMerge:
		return p.peek.kw == kwInto || p.tok.kw == kwMerge && p.peek.word()
	case kwDelete:
		return p.peek.kw == kwFrom
	}
	return p.peek.word() && p.peek.kw != kwAs && p.peek.kw != kwIs
}

// verb handles a data-modifying statement up to its target.
func (p *parser) verb(lv *level) {
	lv.verb, lv.query, lv.with = p.tok.kw, true, withNone
	lv.from, lv.expect, lv.item = false, false, false
	p.write()
	p.advance()
	for p.tok.kw == kwInto || p.tok.kw == kwFrom || p.tok.kw == kwOnly {
		p.advance()
	}
	paren := p.acceptKind(tokLParen)
	if !p.tok.word() {
		return
	}
	insert := lv.verb == kwInsert
	c := p.chain()
	p.target(&c)
	if paren {
		p.acceptKind(tokRParen)
	}
	if insert && p.tok.kind == tokLParen {
		p.advance()
		p.push(level{})
	}
}

// selectInto handles the INTO of SELECT INTO up to the name of the new table.
func (p *parser) selectInto() {
	p.write()
	p.flag(FlagDDL)
	p.leaves(p.opaqueDDL(), true)
	p.advance()
	for {
		switch p.tok.kw {
		case kwTemporary, kwTemp:
			p.pin(PinTemp)
		case kwLocal, kwGlobal, kwUnlogged, kwTable:
		default:
			if p.tok.word() {
				c := p.chain()
				p.newRelation(&c)
			}
			return
		}
		p.advance()
	}
}
