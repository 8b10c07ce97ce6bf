package router

import (
	"math"
	"slices"
	"strings"
)

// parser walks the tokens of one text and gathers what its statements may do. It is built
// for one text and thrown away.
type parser struct {
	scan    scanner
	text    []byte // the whole text: the scanner gives its own up at an error
	std     bool
	env     *Env
	prev2   token // the two tokens before tok
	prev    token
	tok     token
	peek    token // the token behind tok
	unit    Unit
	lits    bool // a constant's content decided: the unit is that of this very text only
	explain bool // inside EXPLAIN without ANALYZE: nothing runs
	body    bool // inside a body that runs later (PREPARE, DO): its effects are not the statement's
	names   bool // an effect changes how names or bytes of later statements are read
	plainTx bool // a BEGIN that is not READ ONLY
	reads   bool // a statement of class read
	// A primary verdict came from LOCK … ACCESS SHARE, and from anything else.
	lockShare, otherPrimary bool
	leadEnd                 int    // where the last level ends that leads to an expression
	pins                    uint32 // by Pin: those that the text takes so far
	stack                   []level
	ctes                    []string
	sight                   map[string]int // how often each of ctes is there; nil while they are few
	looked                  int            // bytes that were read again by configCall
	lookedAtTargets         bool           // … for opaqueTarget
	opaqueTarget            bool           // see anyOpaqueTarget
	giveWay                 func()         // lets others run; nil: nobody waits
	pause                   int            // where giveWay is called next
}

// stride is how many bytes of a text are read before others may run.
const stride = 8 << 10

// parse classifies one text. giveWay, if it is not nil, is called at every stride.
func parse(text []byte, env *Env, giveWay func()) (u *Unit, literals bool) {
	p := newParser(text, env, giveWay)
	p.run()
	return &p.unit, p.lits
}

// newParser is a parser at the first token of a text.
func newParser(text []byte, env *Env, giveWay func()) *parser {
	p := &parser{scan: scanner{src: text, std: env.StdStrings}, text: text, std: env.StdStrings, env: env, giveWay: giveWay, pause: math.MaxInt}
	if giveWay != nil {
		p.pause = stride
	}
	p.load(&p.tok)
	p.load(&p.peek)
	return p
}

// load reads one token and looks its keyword up.
func (p *parser) load(t *token) {
	p.scan.next(t)
	if t.kind != tokIdent || t.end-t.start > maxKeyword {
		return
	}
	var low [maxKeyword]byte
	n := copy(low[:], p.text[t.start:t.end])
	for i, b := range low[:n] {
		if b >= 'A' && b <= 'Z' {
			low[i] = b | 0x20
		}
	}
	t.kw = lookupKeyword(low[:n])
}

// advance moves to the next token.
func (p *parser) advance() {
	p.prev2, p.prev, p.tok = p.prev, p.tok, p.peek
	p.load(&p.peek)
	if p.peek.end > p.pause {
		p.giveWay()
		p.pause = p.peek.end + stride
	}
}

// accept moves over the keyword k and reports whether it stood there.
func (p *parser) accept(k keyword) bool {
	if p.tok.kw != k {
		return false
	}
	p.advance()
	return true
}

// acceptKind moves over a token of the kind k and reports whether it stood there.
func (p *parser) acceptKind(k tokenKind) bool {
	if p.tok.kind != k {
		return false
	}
	p.advance()
	return true
}

// done reports whether the statement is over.
func (p *parser) done() bool {
	return p.tok.kind == tokSemi || p.tok.kind == tokEOF || p.tok.kind == tokError
}

// src is the text of a token as it was written.
func (p *parser) src(t *token) string { return string(p.text[t.start:t.end]) }

// run classifies every statement of the text and joins them into the unit.
func (p *parser) run() {
	for {
		for p.tok.kind == tokSemi {
			p.advance()
		}
		if p.tok.kind == tokEOF {
			break
		}
		if p.tok.kind == tokError {
			p.unparsed()
			break
		}
		p.unit.Statements++
		if p.unit.Statements == 1 {
			p.unit.Command = p.command()
		}
		p.explain, p.body, p.pins = false, false, 0
		p.stack, p.ctes, p.sight = p.stack[:0], p.ctes[:0], nil
		p.statement()
		if p.tok.kind != tokSemi && p.tok.kind != tokEOF {
			p.unparsed()
			p.skipStatement()
		}
	}
	p.finish()
}

// command is the first word of the statement in upper case, behind opening parentheses.
func (p *parser) command() string {
	ahead, t := p.scan, p.tok
	if t.kind == tokLParen {
		t = p.peek
		for n := 0; t.kind == tokLParen && n < maxDepth; n++ {
			ahead.next(&t)
		}
	}
	if t.kind != tokIdent || t.end-t.start > maxKeyword {
		return ""
	}
	return strings.ToUpper(p.src(&t))
}

// finish settles what depends on the text as a whole.
func (p *parser) finish() {
	u := &p.unit
	if u.Statements > 1 {
		u.Flags |= FlagMulti
	}
	if p.names {
		u.Flags |= FlagNames
	}
	if p.plainTx {
		u.Flags |= FlagBegin
	}
	if p.reads {
		u.Flags |= FlagReads
	}
	if p.lockShare && !p.otherPrimary {
		u.Flags |= FlagReadInReadOnly
	}
	u.Effects = slices.Clip(u.Effects) // Join appends to what has room, and others share this
	settle(u)
	if u.Statements > 1 {
		u.Flags &^= FlagSettingParam
	}
	u.OnlyTx = u.Statements == 1 && len(u.Effects) == 1 && u.Effects[0].Kind.transaction() && u.Flags&FlagUnparsed == 0
}

// settle applies the rules that hold between the statements of one unit: what a statement
// before them makes of those behind it.
func settle(u *Unit) {
	if u.Class == ClassSession && u.Reason == ReasonUnknown {
		u.Reason = ReasonSession
	}
	if u.Mark == MarkWrite {
		u.Flags |= FlagMayCommit
	}
	if u.Flags&FlagReads == 0 {
		return
	}
	if u.Flags&FlagNames != 0 {
		raise(u, ClassPrimary, ReasonState, MarkRead, 0)
	}
	if u.Flags&FlagSerializable != 0 {
		raise(u, ClassPrimary, ReasonSerializable, MarkRead, certain)
	}
	if u.Flags&FlagBegin != 0 && u.Class != ClassPrimary {
		if !u.beginsWriting() {
			u.Flags |= FlagReadInReadOnly
		}
		raise(u, ClassPrimary, ReasonTransaction, MarkRead, 0)
	}
}

// beginsWriting reports whether the unit holds a BEGIN READ WRITE.
func (u *Unit) beginsWriting() bool {
	for i := range u.Effects {
		if u.Effects[i].Kind == EffectBegin && u.Effects[i].Tx.ReadOnly == No {
			return true
		}
	}
	return false
}

// strength says how sure a verdict is.
type strength uint8

// The strengths.
const (
	certain      strength = 1 << iota // no standby hint overrides it
	standbyError                      // … and a standby would refuse it with 25006
)

// refused is the strength of what a standby refuses.
const refused = certain | standbyError

// raise lifts the unit to a verdict. The strongest class wins, then what is certain, then
// what came first.
func raise(u *Unit, class Class, reason Reason, mark Mark, s strength) {
	u.Mark = max(u.Mark, mark)
	switch {
	case class > u.Class, u.Reason == ReasonUnknown,
		class == u.Class && s&certain != 0 && !u.Certain:
		u.Class, u.Reason = class, reason
	}
	if s&certain != 0 {
		u.Certain = true
	}
	if s&standbyError != 0 {
		u.StandbyError = true
	}
}

// primary lifts the unit to class primary.
func (p *parser) primary(reason Reason, mark Mark, s strength) {
	p.otherPrimary = true
	raise(&p.unit, ClassPrimary, reason, mark, s)
}

// read lifts the unit to class read.
func (p *parser) read() {
	p.reads = true
	raise(&p.unit, ClassRead, ReasonRead, MarkRead, 0)
}

// write lifts the unit to what a standby refuses with 25006.
func (p *parser) write() {
	if p.explain {
		return
	}
	p.primary(ReasonWrite, MarkWrite, refused)
}

// session lifts the unit to class session.
func (p *parser) session(reason Reason) {
	raise(&p.unit, ClassSession, reason, MarkNone, 0)
}

// unparsed says that the text, or a part of it, was not understood: it may do anything.
func (p *parser) unparsed() {
	p.unit.Flags |= FlagUnparsed | FlagOpaque | FlagLasting | FlagNextval
	p.primary(ReasonUnparsed, MarkWrite, certain)
}

// effect adds a change of the session's state.
func (p *parser) effect(e Effect) {
	if p.explain || p.body {
		return
	}
	if len(p.unit.Effects) > MaxEffects {
		p.unparsed()
		return
	}
	e.Statement = max(p.unit.Statements-1, 0)
	p.unit.Effects = append(p.unit.Effects, e)
}

// pin adds the effect of taking a pin, once in a statement. In a body that runs later nobody sees when it is
// taken, which makes the statement opaque.
func (p *parser) pin(pin Pin) {
	if p.body {
		p.leaves(true, true)
	}
	if p.explain || p.body || p.pins&(1<<pin) != 0 {
		return
	}
	p.pins |= 1 << pin
	p.effect(Effect{Kind: EffectPin, Pin: pin})
}

// skipStatement moves to the end of the statement without looking at it.
func (p *parser) skipStatement() {
	for !p.done() {
		p.advance()
	}
}

// ident is what the identifier token t names: lower-cased unless quoted, doubled quotes
// undone, cut to the 63 bytes that PostgreSQL keeps.
func (p *parser) ident(t *token) string {
	b := p.text[t.start:t.end]
	if t.kind == tokQuoted {
		if t.esc != 0 {
			body, _ := unicodeBody(b)
			name, _ := unescape(body, '"', t.esc) // the scanner has looked
			return cutName(name)
		}
		b = b[1 : len(b)-1]
		if t.plain {
			return cutName(string(b))
		}
		return cutName(strings.ReplaceAll(string(b), `""`, `"`))
	}
	low := make([]byte, len(b))
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		low[i] = c
	}
	return cutName(string(low))
}

// maxName is NAMEDATALEN - 1.
const maxName = 63

// cutName cuts a name as PostgreSQL does, at the end of a UTF-8 character.
func cutName(s string) string {
	if len(s) <= maxName {
		return s
	}
	n := maxName
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}

// constant is the content of the string constant t, if it is written so plainly that it is
// the bytes between its quotes, or with Unicode escapes in one part. Using it ties the unit to this very text.
func (p *parser) constant(t *token) (string, bool) {
	p.lits = true
	if !t.str() {
		return "", false
	}
	b := p.text[t.start:t.end]
	if b[0] == '$' {
		tag := 1
		for b[tag] != '$' {
			tag++
		}
		tag++
		return string(b[tag : len(b)-tag]), true
	}
	if t.esc != 0 {
		body, whole := unicodeBody(b)
		if !whole {
			return "", false
		}
		return unescape(body, '\'', t.esc)
	}
	if !t.plain {
		return "", false
	}
	if b[0] != '\'' {
		b = b[1:]
	}
	return string(b[1 : len(b)-1]), true
}
