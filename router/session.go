package router

import "strings"

// set classifies SET in all of its forms (SQL command reference, SET).
func (p *parser) set() {
	p.advance()
	local := false
	switch {
	case p.tok.kw == kwLocal && p.peek.word():
		local = true
		p.advance()
	case p.tok.kw == kwSession && p.peek.kw == kwCharacteristics:
		p.characteristics()
		return
	case p.tok.kw == kwSession && p.peek.kw == kwAuthorization:
		p.advance()
		p.authorization(local)
		return
	case p.tok.kw == kwSession && p.peek.word():
		p.advance()
	}
	switch {
	case p.tok.kw == kwSession && p.peek.kw == kwAuthorization:
		p.advance()
		p.authorization(local)
	case p.tok.kw == kwTransaction:
		p.setTransaction()
	case p.tok.kw == kwConstraints:
		p.session(ReasonSession)
		p.skipStatement()
	default:
		p.setNamed(local)
	}
}

// setNamed is set behind SESSION and LOCAL: a setting and its value.
func (p *parser) setNamed(local bool) {
	e := Effect{Kind: EffectSet, Local: local}
	t := p.tok
	p.advance()
	switch {
	case t.kw == kwTime && p.tok.kw == kwZone:
		p.advance()
		e.Name = "timezone"
		if p.tok.kw == kwLocal && p.statementEnds() {
			e.Kind = EffectReset
		}
	case t.kw == kwNames:
		e.Name = "client_encoding"
		if p.done() {
			e.Kind = EffectReset
		}
	case t.kw == kwSchema && p.tok.str():
		e.Name = "search_path"
	case t.kw == kwRole && !p.assignment():
		e.Kind, e.Name = EffectSetRole, "role"
	case t.kw == kwXml && p.tok.kw == kwOption:
		p.advance()
		e.Name = "xmloption"
	case t.kw == kwSession && p.tok.kw == kwCharacteristics, !t.word():
		p.unparsed()
		p.skipStatement()
		return
	default:
		e.Name = p.settingName(&t)
		if !p.assignment() {
			p.unparsed()
			p.skipStatement()
			return
		}
		p.advance()
	}
	p.setValue(e)
}

// settingName is the name of a setting in lower case: first is its first part, and what stands behind it comes next.
func (p *parser) settingName(first *token) string {
	name := strings.ToLower(p.ident(first))
	if p.tok.kind != tokDot {
		return name
	}
	var whole strings.Builder
	whole.WriteString(name)
	for p.tok.kind == tokDot && p.peek.word() {
		p.advance()
		whole.WriteByte('.')
		whole.WriteString(strings.ToLower(p.ident(&p.tok)))
		p.advance()
	}
	return whole.String()
}

// assignment reports whether the token at hand is the TO or = of SET.
func (p *parser) assignment() bool {
	return p.tok.kw == kwTo || p.tok.kind == tokOp && p.text[p.tok.start] == '=' && p.tok.end == p.tok.start+1
}

// statementEnds reports whether the statement ends behind the token at hand.
func (p *parser) statementEnds() bool {
	return p.peek.kind == tokSemi || p.peek.kind == tokEOF
}

// setValue reads the value of the setting in e up to the end of the statement.
func (p *parser) setValue(e Effect) {
	if p.tok.kw == kwDefault && p.statementEnds() {
		e.Kind = EffectReset
		p.advance()
	}
	first, words, known, at := p.tok, 0, true, p.tok.start
	var value strings.Builder
	for !p.done() {
		text, ok := p.written(&p.tok)
		value.Write(p.text[at:p.tok.start])
		value.WriteString(text)
		known, at = known && ok, p.tok.end
		words++
		p.advance()
	}
	if words == 0 && e.Kind != EffectReset {
		p.unparsed()
		return
	}
	if !known && interpreted(e.Name) {
		p.names = p.names || changesNames(e.Name)
		p.leaves(true, true) // nobody can read it
		p.primary(ReasonState, MarkNone, certain)
		return
	}
	if e.Kind != EffectReset {
		e.Value = value.String()
		p.lits = true
	}
	p.session(ReasonSession)
	p.setting(e, p.bare(&first, words))
}

// bare is the value of a setting that is one word or constant, lower-cased; "" when it is
// something else.
func (p *parser) bare(t *token, words int) string {
	if words != 1 {
		return ""
	}
	switch {
	case t.word():
		return strings.ToLower(p.ident(t))
	case t.str():
		v, _ := p.constant(t)
		return strings.ToLower(v)
	}
	return p.src(t)
}

// setting adds the effect of a change of one setting; value is it in plain, "" if unknown.
func (p *parser) setting(e Effect, value string) {
	switch e.Name {
	case "session_authorization":
		p.names = true
		if e.Kind == EffectSet { // a reset leaves the pin, if there is one
			e.Kind = EffectSetSessionAuth
			p.primary(ReasonState, MarkNone, certain)
			p.pin(PinSessionAuthorization)
		}
	case "role":
		if e.Kind == EffectSet {
			e.Kind = EffectSetRole
		}
		p.names = true
	case "transaction_read_only", "transaction_isolation", "transaction_deferrable":
		p.transactionSetting(e, value)
		return
	case "default_transaction_isolation":
		if e.Kind != EffectReset && (value == "" || strings.HasPrefix(value, "serializable")) {
			p.unit.Flags |= FlagSerializable
		}
	case "transaction_snapshot":
		p.primary(ReasonSnapshot, MarkRead, certain)
	default:
		if changesNames(e.Name) {
			p.names = true
		}
		if strings.HasPrefix(e.Name, "pgweir.") {
			p.unit.Flags |= FlagPgweir
		}
	}
	p.effect(e)
}

// changesNames reports whether a setting decides how the text or the names of later
// statements are read.
func changesNames(name string) bool {
	switch name {
	case "search_path", "role", "session_authorization", "standard_conforming_strings", "client_encoding",
		"backslash_quote", "temp_tablespaces", "row_security", "default_table_access_method":
		return true
	}
	return false
}

// transactionSetting is a change of one of the settings that belong to the transaction.
func (p *parser) transactionSetting(e Effect, value string) {
	t := Effect{Kind: EffectSetTransaction, Name: e.Name, Value: e.Value, Local: true}
	switch e.Name {
	case "transaction_read_only":
		if t.Tx.ReadOnly = boolean(value); t.Tx.ReadOnly != Yes {
			p.readWrite()
		}
	case "transaction_deferrable":
		t.Tx.Deferrable = boolean(value)
	default:
		t.Tx.Isolation = isolation(value)
		if t.Tx.Isolation == 'S' || t.Tx.Isolation == 0 {
			p.serializable()
		}
	}
	p.effect(t)
}

// readWrite says that the statement asks for a transaction that a hot standby cannot have.
func (p *parser) readWrite() { p.primary(ReasonTransaction, MarkNone, certain) }

// serializable says that the statement asks for what a hot standby refuses.
func (p *parser) serializable() {
	p.unit.Flags |= FlagSerializable
	p.primary(ReasonSerializable, MarkNone, certain)
}

// isolation is an isolation level as TxMode spells it; 0 for a value that is none.
func isolation(value string) uint8 {
	switch value {
	case "serializable":
		return 'S'
	case "repeatable read":
		return 'R'
	case "read committed", "read uncommitted":
		return 'r'
	}
	return 0
}

// boolean is a Boolean setting's value: any prefix of its words that is not ambiguous.
func boolean(value string) Tri {
	switch {
	case value == "", value == "o":
		return Unset
	case value == "1", value == "on", strings.HasPrefix("true", value), strings.HasPrefix("yes", value):
		return Yes
	case value == "0", value == "off", value == "of", strings.HasPrefix("false", value), strings.HasPrefix("no", value):
		return No
	}
	return Unset
}

// authorization is set behind SESSION, at AUTHORIZATION.
func (p *parser) authorization(local bool) {
	p.advance()
	p.setValue(Effect{Kind: EffectSet, Name: "session_authorization", Local: local})
}

// characteristics is SET SESSION CHARACTERISTICS AS TRANSACTION.
func (p *parser) characteristics() {
	p.advance()
	p.advance()
	if !p.accept(kwAs) || !p.accept(kwTransaction) {
		p.unparsed()
		p.skipStatement()
		return
	}
	mode, ok := p.modes()
	if !ok {
		p.unparsed()
		p.skipStatement()
		return
	}
	p.session(ReasonSession)
	add := func(name, value string) {
		p.effect(Effect{Kind: EffectSetCharacteristics, Name: name, Value: value})
	}
	switch mode.Isolation {
	case 'S':
		p.unit.Flags |= FlagSerializable
		add("default_transaction_isolation", "'serializable'")
	case 'R':
		add("default_transaction_isolation", "'repeatable read'")
	case 'u':
		add("default_transaction_isolation", "'read uncommitted'")
	case 'r':
		add("default_transaction_isolation", "'read committed'")
	}
	for _, s := range [...]struct {
		name  string
		value Tri
	}{{"default_transaction_read_only", mode.ReadOnly}, {"default_transaction_deferrable", mode.Deferrable}} {
		switch s.value {
		case Yes:
			add(s.name, "on")
		case No:
			add(s.name, "off")
		}
	}
}

// reset classifies RESET.
func (p *parser) reset() {
	p.advance()
	e := Effect{Kind: EffectReset}
	t := p.tok
	p.advance()
	switch {
	case t.kw == kwAll && p.done():
		e.Kind = EffectResetAll
		p.names = true
	case t.kw == kwTime && p.accept(kwZone):
		e.Name = "timezone"
	case t.kw == kwSession && p.accept(kwAuthorization):
		e.Name = "session_authorization"
	case t.kw == kwTransaction && p.accept(kwIsolation) && p.accept(kwLevel):
		e.Name = "transaction_isolation"
	case !t.word():
		p.unparsed()
		p.skipStatement()
		return
	default:
		e.Name = p.settingName(&t)
	}
	p.session(ReasonSession)
	if e.Kind == EffectResetAll {
		p.effect(e)
		return
	}
	p.setting(e, "")
}

// show classifies SHOW.
func (p *parser) show() {
	p.advance()
	t := p.tok
	p.advance()
	name := ""
	switch {
	case t.kw == kwTime && p.accept(kwZone):
		name = "timezone"
	case t.kw == kwSession && p.accept(kwAuthorization):
		name = "session_authorization"
	case t.kw == kwTransaction && p.accept(kwIsolation) && p.accept(kwLevel):
		name = "transaction_isolation"
	case t.kw == kwAll && p.done():
		p.primary(ReasonSetting, MarkRead, 0)
		return
	case !t.word():
		p.unparsed()
		p.skipStatement()
		return
	default:
		name = p.settingName(&t)
	}
	if strings.HasPrefix(name, "pgweir.") {
		p.unit.Flags |= FlagPgweir
		p.session(ReasonSession)
	} else {
		p.showSetting(name)
	}
	p.unit.Show = name
}

// showSetting says what showing a setting means for the unit.
func (p *parser) showSetting(name string) {
	if p.ownSetting(name) {
		p.read()
		return
	}
	p.primary(ReasonSetting, MarkRead, 0)
}

// ownSetting reports whether a client itself can set a setting, so that it reads the same on
// every node.
func (p *parser) ownSetting(name string) bool {
	if name == "transaction_read_only" {
		return false
	}
	prefix, _, dotted := strings.Cut(name, ".")
	if !dotted {
		return clientSetting(name)
	}
	if moduleSetting(prefix) {
		return false
	}
	return p.env.Catalog == nil || !p.env.Catalog.FixedSettings[name]
}
