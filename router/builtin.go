package router

import (
	"strconv"
	"strings"
)

// builtin is what calling a built-in function means. The table is functions.go, generated
// from running servers and from the verdicts in genfunctions/verdicts.txt.
type builtin uint8

// The kinds of built-in function.
const (
	builtinNone           builtin = iota // not in the table: treated as unknown
	builtinRead                          // the same on every node
	builtinTime                          // … but it reads the transaction's own timestamp
	builtinNode                          // describes one node, or a session's own backend
	builtinSnapshot                      // describes the transaction or its snapshot on one node
	builtinPID                           // pg_backend_pid
	builtinAct                           // acts on one node or backend
	builtinWrite                         // a standby refuses it
	builtinText                          // runs a query given as text
	builtinVolatile                      // volatile, and not known to be harmless
	builtinNextval                       // nextval, setval
	builtinCurrval                       // currval, lastval
	builtinSequence                      // reads a sequence directly
	builtinLock                          // takes a session's advisory lock
	builtinXactLock                      // takes a transaction's advisory lock
	builtinUnlock                        // gives an advisory lock back
	builtinUnlockAll                     // gives all of them back
	builtinExport                        // pg_export_snapshot
	builtinSetConfig                     // set_config
	builtinCurrentSetting                // current_setting
	builtinSeed                          // setseed
)

// lock reports whether the function takes or gives back advisory locks.
func (b builtin) lock() bool { return b >= builtinLock && b <= builtinUnlockAll }

// Builtin is the verdict over a function of pg_catalog by its name, for the catalog's reader;
// ok is false when the table does not know it.
func Builtin(name string) (info FuncInfo, ok bool) {
	info.Builtin = true
	switch b := builtinFunction(name); b {
	case builtinNone:
		return FuncInfo{}, false
	case builtinRead, builtinTime:
		info.Verdict = VerdictRead
	case builtinNode, builtinSnapshot, builtinPID, builtinCurrentSetting:
		info.Verdict = VerdictNode
	case builtinLock:
		info.Verdict, info.Opaque = VerdictPrimary, true
	case builtinText, builtinSetConfig, builtinSeed:
		info.Verdict, info.Opaque, info.Lasting = VerdictPrimary, true, true
	case builtinNextval:
		info.Verdict, info.Nextval = VerdictPrimary, true
	case builtinAct, builtinVolatile:
		info.Verdict = VerdictDoubtful
	default:
		info.Verdict = VerdictPrimary
	}
	return info, true
}

// systemRelation is what is known of a relation of PostgreSQL's own schemas.
func systemRelation(schema, name string) (RelInfo, bool) {
	switch schema {
	case systemSchema, "information_schema":
	default:
		return RelInfo{}, false
	}
	r := RelInfo{Kind: 'r', Persistence: 'p', Read: VerdictRead}
	switch systemRelationKind(schema, name) {
	case builtinNone:
		return RelInfo{}, false
	case builtinRead, builtinTime:
	case builtinSequence:
		r.Read, r.Reason = VerdictDoubtful, ReasonSequence
	case builtinSetConfig: // pg_settings, whose rule turns an UPDATE into set_config
		r.Read, r.Reason, r.WriteOpaque, r.WriteLasting = VerdictNode, ReasonNodeLocal, true, true
	default:
		r.Read, r.Reason = VerdictNode, ReasonNodeLocal
	}
	return r, true
}

// builtin says what calling a built-in function means for the unit; its parenthesis is the
// token at hand. sure: no function of another schema can be meant.
func (p *parser) builtin(b builtin, sure bool) {
	switch b {
	case builtinRead:
	case builtinTime:
		p.flag(FlagTxTime)
	case builtinNode:
		p.primary(ReasonNodeLocal, MarkRead, 0)
	case builtinSnapshot:
		p.flag(FlagTxTime)
		p.primary(ReasonNodeLocal, MarkRead, 0)
	case builtinPID:
		p.primary(ReasonNodeLocal, MarkRead, certain)
		p.pin(PinBackendPID)
	case builtinAct:
		p.primary(ReasonNodeLocal, MarkWrite, 0)
	case builtinWrite:
		p.primary(ReasonWrite, MarkWrite, refused)
	case builtinText:
		p.leaves(true, true)
		p.flag(FlagNextval)
		p.primary(ReasonVolatile, MarkWrite, 0)
	case builtinNextval:
		p.flag(FlagNextval)
		p.primary(ReasonSequence, MarkWrite, refused)
	case builtinCurrval:
		p.flag(FlagCurrval)
		p.primary(ReasonSequence, MarkRead, certain)
	case builtinSequence:
		p.primary(ReasonSequence, MarkRead, 0)
	case builtinLock, builtinXactLock, builtinUnlock, builtinUnlockAll:
		p.advisory(b)
	case builtinExport:
		p.flag(FlagTxTime)
		p.primary(ReasonSnapshot, MarkRead, certain)
	case builtinSetConfig:
		p.setConfig(sure)
	case builtinCurrentSetting:
		p.currentSetting()
	case builtinSeed:
		p.leaves(true, true)
		p.primary(ReasonState, MarkRead, certain)
	default:
		p.primary(ReasonVolatile, MarkWrite, 0)
	}
}

// advisory says what a function of advisory locks means for the unit.
func (p *parser) advisory(b builtin) {
	p.primary(ReasonAdvisory, MarkWrite, certain)
	switch b {
	case builtinLock:
		p.pin(PinAdvisoryLock)
	case builtinUnlock, builtinUnlockAll: // in a larger query it may run for no row
		p.effect(Effect{Kind: EffectUnlock})
	}
}

// currentSetting says what current_setting means for the unit: its parenthesis is the token at hand.
func (p *parser) currentSetting() {
	name, ok := p.firstConstant()
	if ok && p.ownSetting(name) {
		return
	}
	p.primary(ReasonSetting, MarkRead, 0)
}

// firstConstant is the first argument of the call at hand in lower case, if it is a plain
// constant and nothing else.
func (p *parser) firstConstant() (string, bool) {
	ahead, arg := p.scan, p.peek
	var t token
	ahead.next(&t)
	if !arg.str() {
		return "", false
	}
	if t.kind == tokCast {
		ahead.next(&t)
		if t.kind != tokIdent || !equalFold(p.text[t.start:t.end], "text") {
			return "", false
		}
		ahead.next(&t)
	}
	if t.kind != tokComma && t.kind != tokRParen {
		return "", false
	}
	v, ok := p.constant(&arg)
	return lowerASCII(v), ok
}

// lowerASCII is s with its ASCII letters in lower case.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// setConfig says what a set_config means that is part of a larger query: only the setting of
// a transaction is left to the lease that has it, if its name decides nothing else.
func (p *parser) setConfig(sure bool) {
	c, ok := p.configCall()
	if sure && ok && c.local && c.name != "" && c.harmless() {
		p.effect(Effect{Kind: EffectSet, Local: true, Name: c.name, ByFunction: true})
		if p.body && !c.passing() {
			p.leavesNames(c.name)
		}
		return
	}
	if !ok || !c.local {
		p.leaves(true, !ok || !c.passing())
	}
	p.names = true
	p.primary(ReasonState, MarkRead, certain)
}

// configCall is a call of set_config as it is written.
type configCall struct {
	name  string // "" when it is no plain constant
	value string // the constant as it is written; "" when it is none
	param int    // the number of the parameter that the value is; 0 when it is none
	null  bool   // the value is NULL
	local bool   // is_local is the constant true
	known bool   // is_local is a constant
}

// harmless reports whether the setting decides neither names nor the transaction.
func (c *configCall) harmless() bool {
	switch c.name {
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable", "default_transaction_isolation", "pgweir.route":
		return false
	}
	return !changesNames(c.name)
}

// passing reports whether DISCARD ALL leaves nothing of the setting: a custom one ("a.b") stays, with an empty value.
func (c *configCall) passing() bool {
	return c.name != "" && c.name != "seed" && !strings.Contains(c.name, ".")
}

// maxConfigCall is how many tokens a call of set_config may have to be looked into.
const maxConfigCall = 256

// lookAhead is how many bytes of a text, beyond twice its length, are read again to look into calls of set_config: calls
// within calls would be read as often as they are deep.
const lookAhead = 64 << 10

// configCall reads the call of set_config whose parenthesis is the token at hand, without
// moving; false when its last argument is no constant.
func (p *parser) configCall() (c configCall, ok bool) {
	if p.looked > 2*len(p.text)+lookAhead {
		return c, false
	}
	ahead, t := p.scan, p.peek
	defer func() { p.looked += t.end - p.peek.start }()
	var args [3]struct {
		tok    token
		tokens int
	}
	depth := 0
	for arg, n := 0, 0; n < maxConfigCall; ahead.next(&t) {
		n++
		switch t.kind {
		case tokEOF, tokError, tokSemi:
			return c, false
		case tokLParen, tokLBracket:
			depth++
		case tokRParen, tokRBracket:
			if depth--; depth < 0 {
				return p.config(args[0].tok, args[1].tok, args[2].tok, [3]int{args[0].tokens, args[1].tokens, args[2].tokens}, arg)
			}
		case tokComma:
			if depth == 0 {
				if arg++; arg > 2 {
					return c, false
				}
				continue
			}
		}
		if args[arg].tokens == 0 {
			args[arg].tok = t
		}
		args[arg].tokens++
	}
	return c, false
}

// config makes a configCall of its three arguments and the number of tokens in each.
func (p *parser) config(name, value, local token, tokens [3]int, commas int) (c configCall, ok bool) {
	if commas != 2 || tokens[2] != 1 || local.kind != tokIdent {
		return c, false
	}
	b := p.text[local.start:local.end]
	switch {
	case equalFold(b, "true"):
		c.local, c.known = true, true
	case equalFold(b, "false"):
		c.known = true
	default:
		return c, false
	}
	if tokens[0] == 1 {
		if v, plain := p.constant(&name); plain {
			c.name = lowerASCII(v)
		}
	}
	if tokens[1] == 1 {
		switch {
		case value.str():
			var known bool
			if c.value, known = p.written(&value); !known && interpreted(c.name) {
				return c, false
			}
			p.lits = true
		case value.kind == tokIdent && equalFold(p.text[value.start:value.end], "null"):
			c.null = true
		case value.kind == tokParam:
			c.param, _ = strconv.Atoi(p.src(&value)[1:])
		}
	}
	return c, true
}

// sessionSelect recognises a SELECT of nothing but set_config with known arguments,
// current_setting and pg_advisory_unlock_all(), and moves to its end; otherwise it leaves everything as it was.
func (p *parser) sessionSelect() bool {
	if p.explain || p.body || !p.tok.sessionName(p) {
		return false
	}
	mark := *p // what is appended to the effects since then is out of its sight
	if p.sessionItems() {
		return true
	}
	lits, looked := p.lits, p.looked
	*p = mark
	p.lits, p.looked = p.lits || lits, looked
	return false
}

// sessionName reports whether the name behind SELECT can start a sessionSelect.
func (t *token) sessionName(p *parser) bool {
	b := p.text[p.peek.start:p.peek.end]
	if p.peek.kind == tokQuoted && len(b) > 2 {
		b = b[1 : len(b)-1]
	}
	return equalFold(b, "set_config") || equalFold(b, "current_setting") || equalFold(b, "pg_catalog") || equalFold(b, "pg_advisory_unlock_all")
}

// sessionItems reads the whole of a sessionSelect.
func (p *parser) sessionItems() bool {
	p.advance()
	for {
		if !p.tok.word() {
			return false
		}
		c := p.chain()
		if p.tok.kind != tokLParen || c.over || c.n > 1 && c.schema() != systemSchema {
			return false
		}
		if _, other := p.declared(c.schema(), c.last()); other {
			return false
		}
		if !p.sessionCall(c.last()) {
			return false
		}
		p.skipParens()
		if p.accept(kwAs) || p.tok.word() {
			if !p.tok.word() {
				return false
			}
			p.advance()
		}
		if p.done() {
			p.session(ReasonSession)
			return p.tok.kind != tokError
		}
		if !p.acceptKind(tokComma) {
			return false
		}
	}
}

// sessionCall adds the effect of one call of a sessionSelect.
func (p *parser) sessionCall(name string) bool {
	switch builtinFunction(name) {
	case builtinUnlockAll:
		if p.peek.kind != tokRParen {
			return false
		}
		p.effect(Effect{Kind: EffectUnlockAll})
		return true
	case builtinCurrentSetting:
		name, ok := p.firstConstant()
		if ok = ok && p.ownSetting(name); ok {
			p.read()
		}
		return ok
	case builtinSetConfig:
		c, ok := p.configCall()
		if !ok || c.name == "" || c.name == "session_authorization" {
			return false
		}
		if c.param > 0 && !c.local && c.harmless() {
			p.leaves(true, !c.passing())
			p.flag(FlagSettingParam)
			p.primary(ReasonState, MarkRead, certain)
			p.effect(Effect{Kind: EffectSetParam, Name: c.name, Param: c.param, ByFunction: true})
			return true
		}
		if c.value == "" && !c.null {
			return false
		}
		e := Effect{Kind: EffectSet, Name: c.name, Value: c.value, Local: c.local, ByFunction: true}
		if c.null {
			e.Kind = EffectReset
		}
		plain, _ := p.literal(c.value)
		p.setting(e, lowerASCII(plain))
		return true
	}
	return false
}

// literal is the content of a constant as it was written, if it is plain.
func (p *parser) literal(src string) (string, bool) {
	if len(src) < 2 || src[0] != '\'' {
		return "", false
	}
	return src[1 : len(src)-1], true
}
