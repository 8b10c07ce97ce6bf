package catalog

import "bytes"

// Bounds of a scan; what is beyond them counts as opaque.
const (
	maxBody    = 1 << 20     // bytes of one body
	maxSetting = 1024        // bytes of the name of a setting; a longer one counts as state that stays
	maxNesting = 8           // string constants that are themselves statements
	maxNested  = 4 * maxBody // bytes of all of them
)

// listing is what the names of the list at hand are.
type listing uint8

// What a name behind a comma is.
const (
	listNone listing = iota
	listRead
	listWrite
)

// bodyScanner reads SQL or PL/pgSQL text and notes what it can use and leave behind.
type bodyScanner struct {
	lex     lexer
	out     *code
	names   *symbols
	nesting int
	left    *int // bytes that may still be read

	prev, prev2 word // the words before the token at hand; names are wordOther
	first       word // the statement's first word
	list        listing
	lists       []listing    // of the enclosing parentheses
	settings    []settingArg // open calls of set_config
	temp        bool         // CREATE TEMP whose ON COMMIT DROP is yet to come
}

// settingArg follows the arguments of one call of set_config.
type settingArg struct {
	depth  int    // of its parentheses
	index  int    // of the argument at hand
	tokens int    // of that argument
	named  bool   // it starts with is_local
	yes    bool   // its last token is true
	local  bool   // the call is local to the transaction
	known  bool   // it names a setting of which DISCARD ALL leaves nothing
	naming bool   // the argument at hand starts with setting_name
	name   string // of the setting, "" where it is no constant
}

// scanBody adds to out what a body in SQL or PL/pgSQL uses, as far as names can be found,
// and whether it can leave state in the session (behaviour.md §3).
func scanBody(src []byte, out *code, names *symbols) {
	left := maxNested
	s := bodyScanner{lex: lexer{src: src}, out: out, names: names, left: &left}
	s.scan()
}

// scan reads all of the text.
func (s *bodyScanner) scan() {
	*s.left -= len(s.lex.src)
	if len(s.lex.src) > maxBody || s.nesting > maxNesting || *s.left < 0 {
		s.out.flags |= codeOpaque | codeLasting | codeNextval | codeCurrval
		return
	}
	for {
		t := s.lex.next()
		if t.kind == tokEnd {
			break
		}
		s.token(t)
	}
	s.endStatement()
}

// opaque notes that the body can leave anything in the session.
func (s *bodyScanner) opaque() { s.out.flags |= codeOpaque | codeLasting }

// leaves notes that the body can leave state in the session that DISCARD ALL removes.
func (s *bodyScanner) leaves() { s.out.flags |= codeOpaque }

// shift moves on to w.
func (s *bodyScanner) shift(w word) {
	s.prev2, s.prev = s.prev, w
	if s.first == wordNone {
		s.first = w
	}
}

// startStatement forgets the words so far: what follows stands where a statement may start.
func (s *bodyScanner) startStatement() {
	if s.temp {
		s.leaves()
	}
	s.temp = false
	s.prev, s.prev2, s.first = wordNone, wordNone, wordNone
	s.list = listNone
}

// endStatement is startStatement at a semicolon or the end, where nothing can be open.
func (s *bodyScanner) endStatement() {
	s.startStatement()
	if len(s.settings) > 0 {
		s.opaque()
	}
	s.settings, s.lists = s.settings[:0], s.lists[:0]
}

// token acts on one token.
func (s *bodyScanner) token(t token) {
	s.argument(t)
	switch t.kind {
	case tokWord:
		w := wordOf(t.text)
		if w == wordOther {
			s.name(t)
			return
		}
		if !w.reserved() {
			if c := s.lex.peek(); c == '(' || c == '.' {
				s.reference(t)
			}
		}
		s.keyword(w)
	case tokName:
		s.name(t)
	case tokString:
		s.string(t)
	case tokPunct:
		s.punct(t.text[0])
	case tokOp:
		s.operator(t)
	default:
		s.shift(wordOther)
	}
}

// operator acts on an operator: one may be a user's own, "::" is followed by a type.
func (s *bodyScanner) operator(t token) {
	switch string(t.text) {
	case "::":
		look := s.lex.ahead()
		name := look.next()
		for name.kind == tokWord || name.kind == tokName {
			last := s.names.number(name.text)
			if look.peek() != '.' {
				s.out.add(refTypeName, 0, last)
				break
			}
			look.next()
			name = look.next()
		}
		s.shift(wordOther)
		return
	case ":=", "=>", ":", "%":
		s.shift(wordOther)
		return
	}
	s.out.add(refOpName, 0, s.names.number(t.text))
	s.shift(wordOther)
}

// punct acts on a single character.
func (s *bodyScanner) punct(c byte) {
	switch c {
	case ';':
		s.endStatement()
		return
	case '(':
		s.lists = append(s.lists, s.list)
		if s.prev == wordFrom {
			return // FROM (a JOIN b): names may follow as behind FROM itself
		}
		s.list = listNone
	case ')':
		if n := len(s.lists); n > 0 {
			s.list = s.lists[n-1]
			s.lists = s.lists[:n-1]
		}
	case ',':
		switch s.list {
		case listRead:
			s.shift(wordFrom)
			return
		case listWrite:
			s.shift(wordTruncate)
			return
		}
	}
	s.shift(wordOther)
}

// keyword acts on a word that decides something.
func (s *bodyScanner) keyword(w word) {
	starts := s.prev == wordNone
	switch w {
	case wordBegin, wordThen, wordElse, wordLoop, wordAtomic:
		s.startStatement()
		return
	case wordSet:
		if starts {
			s.setStatement()
		}
		s.list = listNone
	case wordLoad:
		look := s.lex.ahead()
		if starts && look.next().kind == tokString {
			s.opaque()
		}
	case wordReset:
		if starts && !s.assigned() {
			s.changes(s.lex.ahead())
		}
	case wordListen, wordUnlisten, wordPrepare, wordDeallocate, wordDiscard:
		if starts && !s.assigned() {
			s.leaves()
		}
	case wordExecute:
		s.execute()
	case wordCreate, wordAlter:
		if starts {
			s.out.flags |= codeDDL
		}
	case wordDrop:
		if starts {
			s.out.flags |= codeDDL
		}
		if s.prev == wordCommit && s.prev2 == wordOn {
			s.temp = false // it goes with the transaction
		}
	case wordTemp:
		s.temporary()
	case wordFrom, wordJoin, wordUsing:
		if w == wordFrom && s.prev == wordDelete {
			s.shift(wordTruncate)
			return
		}
		s.list = listRead
		s.shift(wordFrom)
		return
	case wordTruncate:
		if starts {
			s.list = listWrite
		}
	case wordStop, wordOn, wordSelect:
		s.list = listNone
	}
	s.shift(w)
}

// setStatement acts on SET at the start of a statement: what is not local to the
// transaction leaves state.
func (s *bodyScanner) setStatement() {
	look := s.lex.ahead()
	t := look.next()
	if t.is("local") && !s.assigned() {
		s.localName(look)
		return
	}
	if t.is("transaction") || t.is("constraints") || s.assigned() {
		return
	}
	if t.is("session") {
		s.changes(look)
		return
	}
	s.changes(s.lex.ahead())
}

// changes notes that a setting is changed whose name is the next token of look.
func (s *bodyScanner) changes(look lexer) {
	if t := look.next(); t.kind == tokWord && resettable(string(t.text)) && look.peek() != '.' {
		s.leaves()
		return
	}
	s.opaque()
}

// localName notes a setting that is set for the transaction; its name is next in look.
func (s *bodyScanner) localName(look lexer) {
	t := look.next()
	if t.kind != tokWord && t.kind != tokName {
		return
	}
	name := string(t.text)
	for look.peek() == '.' {
		look.next()
		if name += "." + string(look.next().text); len(name) > maxSetting {
			s.opaque()
			return
		}
	}
	s.local(lowerASCII(name))
}

// local notes that a setting is set for the transaction: the name of a custom one stays.
func (s *bodyScanner) local(name string) {
	if isCustomSetting(name) {
		s.out.add(refLeaves, 0, s.names.numberString(name))
	}
}

// assigned tells whether the word at hand is a variable that is assigned to.
func (s *bodyScanner) assigned() bool {
	look := s.lex.ahead()
	t := look.next()
	return t.kind == tokOp && (t.text[0] == '=' || string(t.text[:min(2, len(t.text))]) == ":=")
}

// execute acts on EXECUTE: a string constant alone is read as the statement it is, anything
// else is opaque, but for the rights and triggers that share the word.
func (s *bodyScanner) execute() {
	look := s.lex.ahead()
	t := look.next()
	switch {
	case t.is("function"), t.is("procedure"), t.is("on"):
		return
	case t.kind != tokString:
		s.opaque()
		return
	}
	end := look.ahead()
	if e := end.next(); e.kind == tokEnd || e.punct(';') || e.is("into") || e.is("using") || e.is("loop") {
		s.statement(t)
		return
	}
	s.opaque()
}

// statement reads a string constant as the statement it is.
func (s *bodyScanner) statement(t token) {
	src := t.text
	switch t.escape {
	case 'E', 'U':
		if bytes.IndexByte(src, '\\') >= 0 {
			s.opaque()
			return
		}
		src = bytes.ReplaceAll(src, []byte("''"), []byte("'"))
	case 0:
		src = bytes.ReplaceAll(src, []byte("''"), []byte("'"))
	}
	inner := bodyScanner{lex: lexer{src: src}, out: s.out, names: s.names, nesting: s.nesting + 1, left: s.left}
	inner.scan()
}

// temporary acts on TEMP where it makes something temporary.
func (s *bodyScanner) temporary() {
	before := s.prev
	if before == wordLocal || before == wordGlobal {
		before = s.prev2
	}
	switch before {
	case wordCreate, wordReplace:
		s.temp = true
	case wordInto:
		// SELECT INTO TEMP t, but not INTO temp FROM … with a variable of that name.
		look := s.lex.ahead()
		t := look.next()
		if t.kind == tokName || t.kind == tokWord && wordOf(t.text) != wordFrom && wordOf(t.text) != wordStop {
			s.leaves()
		}
	}
}

// string acts on a string constant: the body of DO is a statement list.
func (s *bodyScanner) string(t token) {
	if s.first == wordDo {
		s.statement(t)
	}
	s.shift(wordOther)
}

// name acts on a name, qualified or not.
func (s *bodyScanner) name(t token) {
	hold := t.is("hold") && s.prev == wordWith
	s.reference(t)
	if hold {
		s.leaves() // a cursor that outlives the transaction
	}
	s.shift(wordOther)
}

// reference notes what a name and those joined to it by dots may stand for: a call, a
// relation. It leaves the lexer behind the last part.
func (s *bodyScanner) reference(t token) {
	var schema uint32
	last := s.names.number(t.text)
	for s.lex.peek() == '.' {
		look := s.lex.ahead()
		look.next()
		part := look.next()
		if part.kind != tokWord && part.kind != tokName {
			break
		}
		s.lex.pos = look.pos
		schema, last = last, s.names.number(part.text)
		if s.names.text(schema) == "pg_temp" {
			s.leaves()
		}
	}
	s.relation(schema, last)
	if s.lex.peek() == '(' {
		s.call(schema, last)
	}
}

// relation notes a name where a relation may stand.
func (s *bodyScanner) relation(schema, name uint32) {
	before, behind := s.prev, s.prev2
	if before == wordOnly {
		before = behind
	}
	switch {
	case s.first == wordRefresh, before == wordTruncate, before == wordUpdate, before == wordCopy,
		before == wordTable && s.first == wordTruncate,
		before == wordInto && (behind == wordInsert || behind == wordMerge):
		s.out.flags |= codeWrites
		s.out.add(refWrite, schema, name)
	case before == wordFrom, before == wordTable:
		s.out.add(refRead, schema, name)
	}
}

// call notes a call of a function; the built-in ones that matter by themselves are known.
func (s *bodyScanner) call(schema, name uint32) {
	s.out.add(refCall, schema, name)
	if schema != 0 && s.names.text(schema) != "pg_catalog" {
		return
	}
	switch what := sessionEffect(s.names.text(name)); what {
	case effectSetConfig:
		s.settings = append(s.settings, settingArg{depth: len(s.lists) + 1})
	case effectQuery:
		s.queryArgument()
	default:
		s.out.flags |= what.flags()
	}
}

// queryArgument acts on a function that runs its first argument as a query.
func (s *bodyScanner) queryArgument() {
	look := s.lex.ahead()
	look.next()
	t := look.next()
	end := look.ahead()
	if e := end.next(); t.kind == tokString && (e.punct(',') || e.punct(')')) {
		s.statement(t)
		return
	}
	s.opaque()
}

// argument follows the arguments of the innermost open call of set_config.
func (s *bodyScanner) argument(t token) {
	n := len(s.settings)
	if n == 0 {
		return
	}
	a := &s.settings[n-1]
	switch depth := len(s.lists); {
	case depth < a.depth:
		return
	case depth == a.depth && t.punct(','):
		a.end()
		a.index++
		return
	case depth == a.depth && t.punct(')'):
		a.end()
		switch {
		case a.local:
			s.local(a.name)
		case a.known:
			s.leaves()
		default:
			s.opaque()
		}
		s.settings = s.settings[:n-1]
		return
	}
	a.tokens++
	if a.index == 0 {
		a.known = a.tokens == 1 && t.kind == tokString && t.escape == 0 && resettable(lowerASCII(string(t.text)))
	}
	if a.tokens == 1 {
		a.named, a.naming = t.is("is_local"), t.is("setting_name")
	}
	if first := a.index == 0 && !a.naming; first || a.naming {
		at := 3
		if first {
			at = 1
		}
		switch {
		case a.tokens == at && t.kind == tokString && t.escape == 0:
			a.name = lowerASCII(string(t.text))
		case a.tokens >= at:
			a.name = ""
		}
	}
	a.yes = t.is("true") || t.kind == tokString && (string(t.text) == "true" || string(t.text) == "t")
}

// end looks at an argument that is complete.
func (a *settingArg) end() {
	if a.yes && (a.index == 2 && a.tokens == 1 || a.named && a.tokens == 3) {
		a.local = true
	}
	a.tokens, a.named, a.naming, a.yes = 0, false, false, false
}
