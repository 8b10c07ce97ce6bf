package router

// bodyLeft is what running the body of a DO can leave in the session.
type bodyLeft uint8

// What a body leaves, the surer the greater.
const (
	bodyNothing bodyLeft = iota
	bodyUnknown          // names are in it of which nothing is known
	bodyOpaque           // a word, or something that is known, leaves state
)

// bodyUse is what a name in a body is to the statement that it stands in.
type bodyUse uint8

// The uses of a name.
const (
	usedSomehow bodyUse = iota // a column, a variable, one more relation of a list, …
	usedRead                   // it stands where a relation is read, or in an expression that looks the same
	usedMaybe                  // it may be written
	usedWritten                // it is a relation that is written
)

// bodyLeaves says what a PL/pgSQL body can leave in the session: by a word that does so, or by what it calls,
// reads and writes.
func (p *parser) bodyLeaves(body string) bodyLeft {
	q := newParser([]byte(body), p.env, p.giveWay)
	q.body = true
	left, truncates := bodyNothing, false
	for q.tok.kind != tokEOF {
		switch {
		case q.tok.kind == tokError, q.tok.kind == tokIdent && q.prev.kind != tokDot && q.stateWord():
			return bodyOpaque
		case q.tok.kind == tokOp && q.opaqueName(string(q.text[q.tok.start:q.tok.end])):
			return bodyOpaque
		case !q.tok.word():
			truncates = truncates && q.tok.kind != tokSemi
			q.advance()
			continue
		}
		truncates = truncates || q.tok.kw == kwTruncate
		use := q.bodyUse()
		if truncates {
			use = max(use, usedMaybe)
		}
		c := q.chain()
		switch {
		case q.tok.kind != tokLParen || use == usedWritten: // INSERT INTO t (a, b)
			q.bodyRelation(&c, use)
		case !c.bare || !hardWord(c.last()):
			q.function(&c)
		}
		for i := range c.n {
			if q.opaqueName(c.parts[i]) || i+1 < c.n && isTemp(c.parts[i]) {
				return bodyOpaque
			}
		}
		switch flags := q.unit.Flags; {
		case flags&FlagUnknownName != 0:
			left = bodyUnknown
		case flags&FlagOpaque != 0:
			return bodyOpaque
		}
		q.unit.Flags = 0
	}
	p.leavesNames(q.unit.Leaves)
	return left
}

// opaqueName says whether the catalog lists an operator, type or attribute whose use can leave state in the session.
func (p *parser) opaqueName(name string) bool {
	return p.env.Catalog != nil && p.env.Catalog.OpaqueNames[name]
}

// bodyUse is what the name at hand is, by the two words in front of it.
func (p *parser) bodyUse() bodyUse {
	switch p.prev.kw {
	case kwInto:
		if p.prev2.kw == kwInsert || p.prev2.kw == kwMerge {
			return usedWritten
		}
	case kwUpdate:
		switch p.prev2.kw {
		case kwBegin, kwThen, kwElse, kwLoop:
			return usedWritten
		}
		if p.prev2.kind == tokSemi {
			return usedWritten
		}
		return usedMaybe // FOR UPDATE OF t
	case kwOnly:
		return usedMaybe
	case kwFrom:
		if p.prev2.kw == kwDelete {
			return usedWritten
		}
		return usedRead
	case kwJoin:
		return usedRead
	}
	return usedSomehow
}

// bodyRelation flags what using the relation c can leave, if it is one.
func (p *parser) bodyRelation(c *chain, use bodyUse) {
	r, ok := p.find(c)
	if !ok {
		_, assumed := p.assumed()
		if !assumed && (use == usedWritten || use == usedRead && p.env.Catalog == nil) {
			p.unknown()
		}
		return
	}
	p.leaves(r.ReadOpaque, r.ReadLasting)
	p.leavesNames(r.ReadLeaves)
	if use >= usedMaybe {
		p.leaves(r.WriteOpaque, r.WriteLasting)
		p.leavesNames(r.WriteLeaves)
	}
}

// stateWord reports whether the word at hand starts something that stays in the session.
func (p *parser) stateWord() bool {
	switch p.tok.kw {
	case kwExecute, kwListen, kwUnlisten, kwLoad, kwTemp, kwTemporary, kwPrepare, kwDeallocate, kwDiscard, kwReset, kwHold:
		return true
	case kwSet:
		switch p.prev.kind {
		case tokSemi, tokEOF:
			return true
		}
		switch p.prev.kw {
		case kwBegin, kwThen, kwElse, kwLoop:
			return true
		}
		return p.peek.kw == kwLocal || p.peek.kw == kwSession || p.peek.kw == kwRole
	case kwCreate, kwAlter, kwDrop, kwGrant, kwRevoke, kwComment:
		return p.opaqueDDL()
	}
	return false
}

// opaqueDDL says whether DDL can leave state in the session: by an event trigger.
func (p *parser) opaqueDDL() bool { return p.env.Catalog != nil && p.env.Catalog.OpaqueDDL }
