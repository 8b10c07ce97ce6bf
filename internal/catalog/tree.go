package catalog

import "bytes"

// The oids of the built-in functions whose arguments decide (fixed in pg_proc.dat).
const (
	oidCurrentSetting        = 2077
	oidCurrentSettingMissing = 3294
	oidSetConfig             = 2078
)

// treeScanner reads the text of a pg_node_tree: nodes in braces, lists in parentheses, and
// fields that start with a colon. Names in it have their spaces and brackets escaped by
// backslashes, so that tokens end at the next bare space or bracket.
type treeScanner struct {
	src     []byte
	pos     int
	depth   int
	out     *code
	names   *symbols
	setting []call // open calls of set_config
	convert []int  // depths of open nodes that run a type's input function or constraints
}

// call is a call of set_config whose last argument is yet to be seen.
type call struct {
	depth int    // of the FUNCEXPR node
	local bool   // the last argument so far is a constant true: is_local
	known bool   // it names a setting of which DISCARD ALL leaves nothing
	name  string // of the setting, "" where it is no constant
}

// scanTree adds to out what an expression or query kept as pg_node_tree uses. Text that is
// no such tree adds nothing that could be wrong: every number after a known field is taken.
func scanTree(src []byte, out *code, names *symbols) {
	s := treeScanner{src: src, out: out, names: names}
	for {
		tok := s.next()
		if tok == nil {
			break
		}
		s.token(tok)
	}
	if len(s.setting) > 0 {
		out.flags |= codeOpaque | codeLasting
	}
}

// next returns the next token, a single bracket or a run of other bytes; nil at the end.
func (s *treeScanner) next() []byte {
	src := s.src
	for s.pos < len(src) && src[s.pos] <= ' ' {
		s.pos++
	}
	if s.pos == len(src) {
		return nil
	}
	start := s.pos
	if isBracket(src[start]) {
		s.pos++
		return src[start:s.pos]
	}
	for s.pos < len(src) && src[s.pos] > ' ' && !isBracket(src[s.pos]) {
		if src[s.pos] == '\\' && s.pos+1 < len(src) {
			s.pos++
		}
		s.pos++
	}
	return src[start:s.pos]
}

// isBracket tells whether c is a token of its own.
func isBracket(c byte) bool { return c == '{' || c == '}' || c == '(' || c == ')' }

// token acts on one token.
func (s *treeScanner) token(tok []byte) {
	switch tok[0] {
	case '{':
		s.depth++
		s.node()
	case '(':
		s.depth++
	case '}', ')':
		s.closeCall()
		if n := len(s.convert); n > 0 && s.convert[n-1] == s.depth {
			s.convert = s.convert[:n-1]
		}
		s.depth--
	case ':':
		s.field(tok)
	}
}

// node looks at the name behind an opening brace.
func (s *treeScanner) node() {
	at := s.pos
	name := s.next()
	switch {
	case name == nil || isBracket(name[0]) || name[0] == ':':
		s.pos, name = at, nil
	case string(name) == "ROWMARKCLAUSE":
		s.out.flags |= codeLocks
	}
	if string(name) == "COERCEVIAIO" || string(name) == "COERCETODOMAIN" {
		s.convert = append(s.convert, s.depth)
	}
	if n := len(s.setting); n > 0 && s.depth == s.setting[n-1].depth+2 {
		s.setting[n-1].local = string(name) == "CONST" && s.isTrue()
	}
}

// isTrue tells whether the CONST node at hand is a boolean true.
func (s *treeScanner) isTrue() bool {
	end := bytes.IndexByte(s.src[s.pos:], '}')
	if end < 0 {
		return false
	}
	body := s.src[s.pos : s.pos+end]
	return bytes.Contains(body, []byte(":consttype 16 ")) && bytes.Contains(body, []byte(":constvalue 1 [ 1 "))
}

// closeCall ends a set_config whose node ends here; one that is not local is opaque.
func (s *treeScanner) closeCall() {
	n := len(s.setting)
	if n == 0 || s.setting[n-1].depth != s.depth {
		return
	}
	switch c := &s.setting[n-1]; {
	case c.local && isCustomSetting(c.name):
		s.out.add(refLeaves, 0, s.names.numberString(c.name))
	case c.local:
	default:
		s.out.flags |= codeOpaque
		if !c.known {
			s.out.flags |= codeLasting
		}
	}
	s.setting = s.setting[:n-1]
}

// field acts on a field's name by reading what follows it.
func (s *treeScanner) field(tok []byte) {
	switch string(tok) {
	case ":funcid":
		s.function()
	case ":opfuncid", ":aggfnoid", ":winfnoid", ":tsmhandler", ":startInRangeFunc", ":endInRangeFunc":
		s.oid(refFunc)
	case ":opno", ":eqop", ":sortop":
		s.oid(refOp)
	case ":opnos":
		s.oids(refOp)
	case ":relid":
		s.oid(refRel)
	case ":resulttype":
		if n := len(s.convert); n > 0 && s.convert[n-1] == s.depth {
			s.oid(refType)
		}
	case ":seqid":
		s.out.flags |= codeNextval
	case ":commandType":
		// CmdType: 1 is SELECT, everything above writes or is a utility statement.
		if n, ok := s.number(); ok && n > 1 {
			s.out.flags |= codeWrites
		}
	}
}

// function acts on the function of a FUNCEXPR.
func (s *treeScanner) function() {
	n, ok := s.number()
	if !ok || n == 0 {
		return
	}
	switch n {
	case oidSetConfig:
		name := s.constantName()
		s.setting = append(s.setting, call{depth: s.depth, known: resettable(name), name: name})
		s.out.flags |= codeSets
		return
	case oidCurrentSetting, oidCurrentSettingMissing:
		if name := s.constantName(); name != "" {
			s.out.add(refSetting, 0, s.names.numberString(name))
			return
		}
	}
	s.out.add(refFunc, n, 0)
}

// constantName returns the text constant that is the first argument of the call at hand,
// lower-cased, "" if the argument is anything else. It does not advance.
func (s *treeScanner) constantName() string {
	look := treeScanner{src: s.src, pos: s.pos}
	for {
		tok := look.next()
		if tok == nil || isBracket(tok[0]) {
			return ""
		}
		if string(tok) == ":args" {
			break
		}
	}
	for _, want := range []string{"(", "{", "CONST"} {
		if string(look.next()) != want {
			return ""
		}
	}
	for {
		tok := look.next()
		if tok == nil || isBracket(tok[0]) {
			return ""
		}
		if string(tok) == ":constvalue" {
			break
		}
	}
	if _, ok := look.number(); !ok || string(look.next()) != "[" {
		return ""
	}
	// A varlena: four bytes of length, then the text.
	var name []byte
	for i := 0; ; i++ {
		tok := look.next()
		if string(tok) == "]" {
			break
		}
		n, ok := parseNumber(tok)
		if !ok {
			return ""
		}
		if i >= 4 {
			name = append(name, byte(n))
		}
	}
	return lowerASCII(string(name))
}

// oid notes the oid that follows.
func (s *treeScanner) oid(kind refKind) {
	if n, ok := s.number(); ok && n != 0 {
		s.out.add(kind, n, 0)
	}
}

// oids notes the oids of a list "(o 1 2)".
func (s *treeScanner) oids(kind refKind) {
	at := s.pos
	if string(s.next()) != "(" || string(s.next()) != "o" {
		s.pos = at
		return
	}
	for {
		n, ok := parseNumber(s.next())
		if !ok {
			return // the closing parenthesis
		}
		s.out.add(kind, n, 0)
	}
}

// number reads the number that follows; without one nothing is consumed.
func (s *treeScanner) number() (uint32, bool) {
	at := s.pos
	n, ok := parseNumber(s.next())
	if !ok {
		s.pos = at
	}
	return n, ok
}

// parseNumber reads an unsigned decimal number; a small negative one (a byte of a constant
// is printed signed) comes back modulo 256.
func parseNumber(tok []byte) (uint32, bool) {
	neg := len(tok) > 1 && tok[0] == '-'
	if neg {
		tok = tok[1:]
	}
	if len(tok) == 0 || len(tok) > 10 {
		return 0, false
	}
	var n uint64
	for _, c := range tok {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if neg {
		n = (256 - n) & 0xFF
	}
	return uint32(n), n < 1<<32
}
