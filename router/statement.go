package router

// statement classifies the statement that the token at hand starts, and moves to its end.
func (p *parser) statement() {
	switch p.tok.kind {
	case tokLParen:
		p.read()
		p.query(false)
		return
	case tokIdent:
	default:
		p.unparsed()
		p.skipStatement()
		return
	}
	switch p.tok.kw {
	case kwSelect:
		if !p.sessionSelect() {
			p.read()
			p.query(false)
		}
	case kwValues, kwTable, kwWith:
		p.read()
		p.query(false)
	case kwInsert, kwUpdate, kwDelete, kwMerge:
		p.dml()
	case kwSet:
		p.set()
	case kwReset:
		p.reset()
	case kwShow:
		p.show()
	case kwExplain:
		p.explainStatement()
	case kwCopy:
		p.copy()
	default:
		if !p.transactionStatement() && !p.sessionStatement() && !p.utility() {
			p.unparsed()
			p.skipStatement()
		}
	}
}

// startsQuery reports whether the keyword can start a statement inside parentheses.
func (k keyword) startsQuery() bool {
	switch k {
	case kwSelect, kwValues, kwTable, kwWith:
		return true
	}
	return false
}

// dml classifies INSERT, UPDATE, DELETE and MERGE.
func (p *parser) dml() {
	if p.explain {
		p.read()
	}
	p.write()
	p.query(false)
}

// explainStatement classifies EXPLAIN: nothing runs without ANALYZE, and with it the
// statement is what it would be alone.
func (p *parser) explainStatement() {
	p.advance()
	analyze := false
	if p.tok.kind == tokLParen && p.peek.kind != tokLParen && !p.peek.kw.startsQuery() {
		analyze = p.explainOptions()
	} else {
		if p.tok.kw == kwAnalyze || p.tok.kw == kwAnalyse {
			analyze = true
			p.advance()
		}
		if p.tok.kind == tokIdent && equalFold(p.text[p.tok.start:p.tok.end], "verbose") {
			p.advance()
		}
	}
	p.read()
	p.explain = !analyze
	switch p.tok.kw {
	case kwSelect, kwValues, kwTable, kwWith:
		p.query(false)
	case kwInsert, kwUpdate, kwDelete, kwMerge:
		p.dml()
	case kwDeclare:
		effects := len(p.unit.Effects)
		p.declare()
		p.unit.Effects = p.unit.Effects[:effects]
	case kwCreate:
		p.explain = p.explain && p.createTableAs()
		p.create()
	case kwExecute:
		p.execute()
	default:
		if p.tok.kind == tokLParen {
			p.query(false)
			break
		}
		// REFRESH MATERIALIZED VIEW, and what is no query.
		p.explain = false
		p.write()
		p.skipStatement()
	}
	p.explain = false
}

// explainOptions moves over EXPLAIN's parenthesised options and reports whether ANALYZE is on
// among them; a value that it does not know counts as on.
func (p *parser) explainOptions() bool {
	analyze := false
	p.advance()
	for !p.done() && p.tok.kind != tokRParen {
		option := p.tok
		p.advance()
		on := true
		for !p.done() && p.tok.kind != tokComma && p.tok.kind != tokRParen {
			on = !p.off(&p.tok)
			p.advance()
		}
		if option.kw == kwAnalyze || option.kw == kwAnalyse ||
			option.kind == tokQuoted && (p.ident(&option) == "analyze" || p.ident(&option) == "analyse") {
			analyze = on
		}
		p.acceptKind(tokComma)
	}
	p.acceptKind(tokRParen)
	return analyze
}

// off reports whether a token surely spells a Boolean that is false.
func (p *parser) off(t *token) bool {
	b := p.text[t.start:t.end]
	switch t.kind {
	case tokIdent:
		return equalFold(b, "off") || equalFold(b, "false")
	case tokNumber:
		p.lits = true
		return len(b) == 1 && b[0] == '0'
	case tokString, tokTimeWord:
		v, ok := p.constant(t)
		return ok && (equalFold([]byte(v), "off") || equalFold([]byte(v), "false"))
	}
	return false
}

// copy classifies COPY.
func (p *parser) copy() {
	p.advance()
	var c chain
	relation := false
	if p.tok.kind == tokLParen {
		p.advance()
		p.read()
		p.query(true)
		if !p.acceptKind(tokRParen) {
			p.unparsed()
			return
		}
	} else {
		if p.tok.kind == tokIdent && equalFold(p.text[p.tok.start:p.tok.end], "binary") && p.peek.word() {
			p.advance()
		}
		if !p.tok.word() {
			p.unparsed()
			p.skipStatement()
			return
		}
		c, relation = p.chain(), true
		if p.tok.kind == tokLParen {
			p.skipParens()
		}
	}
	in := p.tok.kw == kwFrom
	if !in && p.tok.kw != kwTo {
		p.unparsed()
		p.skipStatement()
		return
	}
	p.advance()
	client := p.tok.kw == kwStdin || p.tok.kw == kwStdout
	switch {
	case in:
		p.copyIn(&c, relation, client)
	case client:
		p.flag(FlagCopyOut)
		if relation {
			p.read()
			p.relation(&c)
		}
	default: // a file or program of the server
		p.primary(ReasonWrite, MarkWrite, certain)
	}
	p.skipStatement()
}

// copyIn classifies COPY FROM into the relation c.
func (p *parser) copyIn(c *chain, relation, client bool) {
	if !relation {
		p.unparsed()
		return
	}
	p.primary(ReasonCopyIn, MarkWrite, refused)
	p.target(c)
	if client {
		p.flag(FlagCopyIn)
	}
}

// skipParens moves over a pair of parentheses and what is in it.
func (p *parser) skipParens() {
	depth := 0
	for !p.done() {
		switch p.tok.kind {
		case tokLParen:
			depth++
		case tokRParen:
			depth--
		}
		p.advance()
		if depth == 0 {
			return
		}
	}
}

// declare classifies DECLARE … CURSOR FOR query.
func (p *parser) declare() {
	p.advance()
	if !p.tok.word() {
		p.unparsed()
		p.skipStatement()
		return
	}
	p.effect(Effect{Kind: EffectDeclare, Name: p.ident(&p.tok)})
	p.advance()
	for !p.done() && p.tok.kw != kwFor {
		if p.tok.kw == kwWith && p.peek.kw == kwHold {
			p.primary(ReasonState, MarkRead, certain)
			p.pin(PinCursorHold)
		}
		p.advance()
	}
	if !p.accept(kwFor) {
		p.unparsed()
		return
	}
	p.read()
	p.query(false)
}

// execute classifies EXECUTE of a statement made by PREPARE, which the session is pinned for:
// what it can do was noted when it was prepared.
func (p *parser) execute() {
	p.explain = false
	p.primary(ReasonState, MarkWrite, certain)
	p.unit.Flags |= FlagNextval | FlagLateRows
	p.advance()
	if p.tok.word() {
		p.advance()
	}
	if p.tok.kind == tokLParen {
		p.query(false)
	}
	p.skipStatement()
}

// prepare classifies PREPARE name AS statement.
func (p *parser) prepare() {
	p.primary(ReasonState, MarkRead, certain)
	p.advance()
	if !p.tok.word() {
		p.unparsed()
		p.skipStatement()
		return
	}
	p.effect(Effect{Kind: EffectPrepare, Name: p.ident(&p.tok)})
	p.pin(PinSQLPrepare)
	p.advance()
	if p.tok.kind == tokLParen {
		p.skipParens()
	}
	if !p.accept(kwAs) {
		p.unparsed()
		p.skipStatement()
		return
	}
	p.body = true
	switch p.tok.kw {
	case kwSelect, kwValues, kwTable, kwWith, kwInsert, kwUpdate, kwDelete, kwMerge:
		p.query(false)
	default:
		if p.tok.kind != tokLParen {
			p.unparsed()
			p.skipStatement()
			break
		}
		p.query(false)
	}
	p.body = false
}
