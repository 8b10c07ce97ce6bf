package router

// transactionStatement classifies transaction control; false when the word at hand starts
// none. Outside of a transaction it needs no particular node, and inside one it has no choice.
func (p *parser) transactionStatement() bool {
	e := Effect{}
	ok := true
	switch p.tok.kw {
	case kwBegin:
		p.advance()
		_ = p.accept(kwWork) || p.accept(kwTransaction)
		ok = p.begin(&e)
	case kwStart:
		p.advance()
		ok = p.accept(kwTransaction) && p.begin(&e)
	case kwCommit, kwEnd:
		if p.peek.kw == kwPrepared {
			p.twoPhase()
			return true
		}
		e.Kind = EffectCommit
		p.unit.Flags |= FlagMayCommit
		ok = p.endTransaction(&e)
	case kwRollback, kwAbort:
		if p.peek.kw == kwPrepared {
			p.twoPhase()
			return true
		}
		e.Kind = EffectRollback
		ok = p.rollback(&e)
	case kwSavepoint:
		p.advance()
		e.Kind = EffectSavepoint
		ok = p.nameInto(&e)
	case kwRelease:
		p.advance()
		p.accept(kwSavepoint)
		e.Kind = EffectRelease
		ok = p.nameInto(&e)
	case kwPrepare:
		if p.peek.kw != kwTransaction {
			return false
		}
		e.Kind = EffectPrepareTransaction
		p.twoPhase()
		p.effect(e)
		return true
	default:
		return false
	}
	if !ok || !p.done() {
		p.unparsed()
		p.skipStatement()
		return true
	}
	p.session(ReasonTransaction)
	p.effect(e)
	return true
}

// begin reads the modes of BEGIN or START TRANSACTION.
func (p *parser) begin(e *Effect) bool {
	e.Kind = EffectBegin
	if p.done() {
		p.plainTx = true
		return true
	}
	mode, ok := p.modes()
	if mode.Isolation == 'u' {
		mode.Isolation = 'r'
	}
	e.Tx = mode
	if mode.Isolation == 'S' {
		p.serializable()
	}
	p.plainTx = p.plainTx || mode.ReadOnly != Yes
	if mode.ReadOnly == No {
		p.readWrite()
	}
	return ok
}

// modes reads transaction modes up to the end of the statement; false when something else
// stands among them. The level 'u' is READ UNCOMMITTED, which is one of its own only as the
// text of a setting.
func (p *parser) modes() (m TxMode, ok bool) {
	for {
		switch p.tok.kw {
		case kwIsolation:
			p.advance()
			if !p.accept(kwLevel) || !p.level(&m) {
				return m, false
			}
		case kwRead:
			p.advance()
			switch {
			case p.accept(kwOnly):
				m.ReadOnly = Yes
			case p.accept(kwWrite):
				m.ReadOnly = No
			default:
				return m, false
			}
		case kwDeferrable:
			p.advance()
			m.Deferrable = Yes
		case kwNot:
			p.advance()
			if !p.accept(kwDeferrable) {
				return m, false
			}
			m.Deferrable = No
		default:
			return m, false
		}
		if p.done() {
			return m, true
		}
		p.acceptKind(tokComma)
	}
}

// level reads the name of an isolation level.
func (p *parser) level(m *TxMode) bool {
	switch {
	case p.accept(kwSerializable):
		m.Isolation = 'S'
	case p.accept(kwRepeatable):
		m.Isolation = 'R'
		return p.accept(kwRead)
	case p.accept(kwRead):
		switch {
		case p.accept(kwCommitted):
			m.Isolation = 'r'
		case p.accept(kwUncommitted):
			m.Isolation = 'u'
		default:
			return false
		}
	default:
		return false
	}
	return true
}

// endTransaction reads what may follow COMMIT and ROLLBACK.
func (p *parser) endTransaction(e *Effect) bool {
	p.advance()
	_ = p.accept(kwWork) || p.accept(kwTransaction)
	if !p.accept(kwAnd) {
		return true
	}
	no := p.accept(kwNo)
	e.AndChain = !no
	return p.accept(kwChain)
}

// rollback reads ROLLBACK, to a savepoint or whole.
func (p *parser) rollback(e *Effect) bool {
	if !p.endTransaction(e) {
		return false
	}
	if e.AndChain || !p.accept(kwTo) {
		return true
	}
	e.Kind = EffectRollbackTo
	p.accept(kwSavepoint)
	return p.nameInto(e)
}

// nameInto reads a name.
func (p *parser) nameInto(e *Effect) bool {
	if !p.tok.word() {
		return false
	}
	e.Name = p.ident(&p.tok)
	p.advance()
	return true
}

// twoPhase classifies the statements of two-phase commit.
func (p *parser) twoPhase() {
	p.write()
	p.skipStatement()
}

// setTransaction is SET TRANSACTION.
func (p *parser) setTransaction() {
	p.advance()
	e := Effect{Kind: EffectSetTransaction, Local: true}
	if p.accept(kwSnapshot) {
		e.Tx.Snapshot = true
		p.primary(ReasonSnapshot, MarkRead, certain)
		p.effect(e)
		p.skipStatement()
		return
	}
	mode, ok := p.modes()
	if !ok {
		p.unparsed()
		p.skipStatement()
		return
	}
	if mode.Isolation == 'u' {
		mode.Isolation = 'r'
	}
	e.Tx = mode
	if mode.Isolation == 'S' {
		p.serializable()
	}
	if mode.ReadOnly == No {
		p.readWrite()
	}
	p.session(ReasonSession)
	p.effect(e)
}

// transaction reports whether the effect is that of a transaction control statement.
func (k EffectKind) transaction() bool {
	switch k {
	case EffectBegin, EffectCommit, EffectRollback, EffectSavepoint, EffectRollbackTo, EffectRelease:
		return true
	}
	return false
}

// sessionStatement classifies the rest of class session and cursors; false when the word at
// hand starts none of them.
func (p *parser) sessionStatement() bool {
	switch p.tok.kw {
	case kwPrepare:
		p.prepare()
	case kwDeclare:
		p.declare()
	case kwDeallocate:
		p.advance()
		if p.tok.kw == kwPrepare && !p.statementEnds() {
			p.advance()
		}
		p.oneOrAll(EffectDeallocate, EffectDeallocateAll)
	case kwDiscard:
		p.discard()
	case kwClose:
		p.advance()
		p.oneOrAll(EffectCloseCursor, EffectCloseCursor)
	case kwUnlisten:
		p.advance()
		p.session(ReasonSession)
		e := Effect{Kind: EffectUnlisten, Name: "*"}
		if p.tok.kind == tokOp {
			p.advance()
		} else if !p.nameInto(&e) {
			p.unparsed()
			p.skipStatement()
			return true
		}
		p.effect(e)
	case kwFetch, kwMove:
		p.read()
		p.flag(FlagLateRows)
		p.skipStatement()
	default:
		return false
	}
	return true
}

// oneOrAll reads a name, or ALL.
func (p *parser) oneOrAll(one, all EffectKind) {
	p.session(ReasonSession)
	e := Effect{Kind: one}
	if p.tok.kw == kwAll && p.statementEnds() {
		p.advance()
		e.Kind, e.Name = all, "*"
	} else if !p.nameInto(&e) {
		p.unparsed()
		p.skipStatement()
		return
	}
	p.effect(e)
}

// discard classifies DISCARD.
func (p *parser) discard() {
	p.advance()
	e := Effect{Kind: EffectDiscard}
	switch p.tok.kw {
	case kwAll:
		e.Kind = EffectDiscardAll
		p.names = true
	case kwPlans:
		e.Name = "plans"
	case kwSequences:
		e.Name = "sequences"
	case kwTemp, kwTemporary:
		e.Name = "temp"
		p.names = true
	default:
		p.unparsed()
		p.skipStatement()
		return
	}
	p.session(ReasonSession)
	p.effect(e)
	p.advance()
}
