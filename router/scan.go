package router

// tokenKind is what kind of lexical element a token is.
type tokenKind uint8

// The kinds of token. Comments and white space are never tokens.
const (
	tokEOF      tokenKind = iota
	tokError              // the text breaks a lexical rule, or one that differs between versions: nothing behind it is read
	tokIdent              // an unquoted identifier or keyword
	tokQuoted             // a quoted identifier
	tokString             // a character string constant of any spelling, all of its continuations included
	tokTimeWord           // a string constant that may hold now, today, tomorrow or yesterday
	tokBits               // B'…' or X'…'
	tokNumber             // a number of any spelling
	tokParam              // $1
	tokOp                 // an operator
	tokLParen             // (
	tokRParen             // )
	tokLBracket           // [
	tokRBracket           // ]
	tokComma              // ,
	tokDot                // .
	tokDotDot             // ..
	tokSemi               // ;
	tokColon              // :
	tokCast               // ::
	tokAssign             // :=
)

// token is one lexical element: src[start:end] of the text it was read from.
type token struct {
	kind  tokenKind
	kw    keyword // of an unquoted identifier; filled by the parser, not by the scanner
	plain bool    // of a string constant or quoted identifier: its content is exactly the bytes between its quotes
	esc   byte    // of U&'…' and U&"…": what begins an escape; such a token holds its UESCAPE clause. 0 of all others
	start int
	end   int
}

// str reports whether the token is a character string constant.
func (t *token) str() bool { return t.kind == tokString || t.kind == tokTimeWord }

// word reports whether the token is an identifier, quoted or not.
func (t *token) word() bool { return t.kind == tokIdent || t.kind == tokQuoted }

// scanner splits a text into tokens by the rules of section 4.1 of the PostgreSQL
// documentation. It allocates nothing and holds no state but its position and what it knows of the text behind it, so a
// copy of it is a mark to come back to. std says what a backslash in an ordinary string constant means
// (standard_conforming_strings).
type scanner struct {
	src   []byte
	pos   int
	std   bool
	signs int // up to here each + and - is an operator of its own
}

// Classes of bytes.
const (
	byteSpace uint8 = 1 << iota
	byteIdentStart
	byteIdent
	byteDigit
	byteOp
	byteOpLong // an operator that holds one of these may end in + or -
)

// byteClass is what every byte may be part of.
var byteClass = func() (t [256]uint8) {
	for _, b := range []byte(" \t\n\r\f\v") {
		t[b] |= byteSpace
	}
	for b := range 256 {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b == '_', b >= 0x80:
			t[b] |= byteIdentStart | byteIdent
		case b >= '0' && b <= '9':
			t[b] |= byteDigit | byteIdent
		case b == '$':
			t[b] |= byteIdent
		}
	}
	for _, b := range []byte("~!@#^&|`?+-*/%<>=") {
		t[b] |= byteOp
	}
	for _, b := range []byte("~!@#%^&|`?") {
		t[b] |= byteOpLong
	}
	return t
}()

// next reads the next token into t. Behind the end of the text, and behind an error, it
// yields tokEOF and tokError for ever.
func (s *scanner) next(t *token) {
	t.kw, t.plain, t.esc = 0, false, 0
	if !s.skip() {
		s.pos = len(s.src)
		t.kind, t.start, t.end = tokError, len(s.src), len(s.src)
		s.src = s.src[:0:0]
		s.pos = 1
		return
	}
	if s.pos >= len(s.src) {
		t.kind = tokEOF
		if s.pos > len(s.src) {
			t.kind = tokError
		}
		t.start, t.end = len(s.src), len(s.src)
		return
	}
	t.start = s.pos
	c := s.src[s.pos]
	switch class := byteClass[c]; {
	case class&byteIdentStart != 0:
		t.kind = s.wordOrPrefixed(t, c)
	case class&byteDigit != 0:
		t.kind = s.number()
	case c == '\'':
		t.kind = s.quoted(t, !s.std)
	case c == '"':
		t.kind = s.quotedIdent(t)
	case class&byteOp != 0:
		t.kind = s.operator()
	case c == '$':
		t.kind = s.dollar(t)
	default:
		t.kind = s.punctuation(c)
	}
	t.end = s.pos
	if t.kind == tokError {
		s.src = s.src[:0:0]
		s.pos = 1
	}
}

// skip moves over white space and comments; it reports false when a comment does not end.
func (s *scanner) skip() bool {
	src := s.src
	for s.pos < len(src) {
		c := src[s.pos]
		switch {
		case byteClass[c]&byteSpace != 0:
			s.pos++
		case c == '-' && s.pos+1 < len(src) && src[s.pos+1] == '-':
			s.lineComment()
		case c == '/' && s.pos+1 < len(src) && src[s.pos+1] == '*':
			if !s.blockComment() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

// lineComment moves over a comment that ends with its line.
func (s *scanner) lineComment() {
	for s.pos += 2; s.pos < len(s.src); s.pos++ {
		if c := s.src[s.pos]; c == '\n' || c == '\r' {
			return
		}
	}
}

// blockComment moves over a comment that may hold others; false when it does not end.
func (s *scanner) blockComment() bool {
	src, depth := s.src, 1
	for s.pos += 2; s.pos < len(src); {
		switch {
		case src[s.pos] == '*' && s.pos+1 < len(src) && src[s.pos+1] == '/':
			s.pos += 2
			if depth--; depth == 0 {
				return true
			}
		case src[s.pos] == '/' && s.pos+1 < len(src) && src[s.pos+1] == '*':
			s.pos += 2
			depth++
		default:
			s.pos++
		}
	}
	return false
}

// wordOrPrefixed reads an identifier, or a constant whose first letter says how it is written.
func (s *scanner) wordOrPrefixed(t *token, c byte) tokenKind {
	if s.pos+1 < len(s.src) {
		n := s.src[s.pos+1]
		switch {
		case n == '\'' && (c == 'e' || c == 'E'):
			s.pos++
			return s.quoted(t, true)
		case n == '\'' && (c == 'b' || c == 'B' || c == 'x' || c == 'X'):
			s.pos++
			if k := s.quoted(t, false); k == tokError {
				return k
			}
			return tokBits
		case n == '\'' && (c == 'n' || c == 'N'):
			s.pos++
			return s.quoted(t, !s.std)
		case n == '&' && (c == 'u' || c == 'U') && s.pos+2 < len(s.src):
			switch s.src[s.pos+2] {
			case '\'':
				s.pos += 2
				return s.unicodeString(t)
			case '"':
				s.pos += 2
				return s.unicodeIdent(t)
			}
		}
	}
	src, i := s.src, s.pos+1
	for i < len(src) && byteClass[src[i]]&byteIdent != 0 {
		i++
	}
	s.pos = i
	return tokIdent
}

// quoted reads a string constant from its first quote to the end of its last continuation
// (section 4.1.2.1: parts separated by white space with a newline are one constant).
func (s *scanner) quoted(t *token, escapes bool) tokenKind {
	open := s.pos
	t.plain = true
	spells := false // letters may come of an escape, or of two parts
	for {
		if !s.quotedPart(t, escapes, &spells) {
			return tokError
		}
		end := s.pos
		if !s.continued() {
			s.pos = end
			if spells || timeWord(s.src[open+1:end-1]) {
				return tokTimeWord
			}
			return tokString
		}
		t.plain, spells = false, true
	}
}

// quotedPart reads one part of a string constant, both quotes included; spells is set by an escape that may be a letter.
func (s *scanner) quotedPart(t *token, escapes bool, spells *bool) bool {
	src, i := s.src, s.pos+1
	for i < len(src) {
		switch src[i] {
		case '\'':
			if i+1 < len(src) && src[i+1] == '\'' {
				t.plain = false
				i += 2
				continue
			}
			s.pos = i + 1
			return true
		case '\\':
			if escapes {
				t.plain = false
				if i++; i < len(src) && byteClass[src[i]]&(byteIdentStart|byteDigit) != 0 {
					switch src[i] {
					case 'b', 'f', 'n', 'r', 't': // no letters
					default:
						*spells = true
					}
				}
			}
		}
		i++
	}
	return false
}

// continued moves to the quote of a string constant's next part and reports whether there is one.
func (s *scanner) continued() bool {
	newline := false
	for s.pos < len(s.src) {
		c := s.src[s.pos]
		switch {
		case c == '\n' || c == '\r':
			newline = true
			s.pos++
		case byteClass[c]&byteSpace != 0:
			s.pos++
		case c == '-' && s.pos+1 < len(s.src) && s.src[s.pos+1] == '-':
			s.lineComment()
		default:
			return newline && c == '\''
		}
	}
	return false
}

// quotedIdent reads a quoted identifier.
func (s *scanner) quotedIdent(t *token) tokenKind {
	src, open := s.src, s.pos
	t.plain = true
	for i := open + 1; i < len(src); i++ {
		if src[i] != '"' {
			continue
		}
		if i+1 < len(src) && src[i+1] == '"' {
			t.plain = false
			i++
			continue
		}
		s.pos = i + 1
		if i == open+1 {
			return tokError // a zero-length identifier
		}
		return tokQuoted
	}
	return tokError
}

// dollar reads a parameter or a dollar-quoted string constant.
func (s *scanner) dollar(t *token) tokenKind {
	src, i := s.src, s.pos+1
	if i < len(src) && byteClass[src[i]]&byteDigit != 0 {
		for i < len(src) && byteClass[src[i]]&byteDigit != 0 {
			i++
		}
		s.pos = i
		if i < len(src) && byteClass[src[i]]&byteIdentStart != 0 {
			return tokError // an error from PostgreSQL 16 on, two tokens before
		}
		return tokParam
	}
	for i < len(src) && src[i] != '$' {
		c := byteClass[src[i]]
		if c&byteIdentStart == 0 && (c&byteDigit == 0 || i == s.pos+1) {
			return tokError
		}
		i++
	}
	if i >= len(src) {
		return tokError
	}
	tag := src[s.pos : i+1]
	for j := i + 1; j+len(tag) <= len(src); j++ {
		if src[j] == '$' && string(src[j:j+len(tag)]) == string(tag) {
			s.pos = j + len(tag)
			t.plain = false
			if timeWord(src[i+1 : j]) {
				return tokTimeWord
			}
			return tokString
		}
	}
	return tokError
}

// number reads a number. What follows a number without a space is an error: PostgreSQL 14
// reads it as the next token, and later versions refuse it.
func (s *scanner) number() tokenKind {
	src, i := s.src, s.pos
	if src[i] == '0' && i+1 < len(src) {
		switch src[i+1] | 0x20 {
		case 'x', 'o', 'b':
			i += 2
			for i < len(src) && hexDigit(src[i]) {
				i++
			}
			s.pos = i
			return s.numberEnd()
		}
	}
	i = s.digits(i)
	if i < len(src) && src[i] == '.' && (i+1 >= len(src) || src[i+1] != '.') {
		i = s.digits(i + 1)
	}
	if i < len(src) && src[i]|0x20 == 'e' {
		j := i + 1
		if j < len(src) && (src[j] == '+' || src[j] == '-') {
			j++
		}
		if j < len(src) && byteClass[src[j]]&byteDigit != 0 {
			i = s.digits(j)
		}
	}
	s.pos = i
	return s.numberEnd()
}

// digits moves over digits and the underscores between them.
func (s *scanner) digits(i int) int {
	for i < len(s.src) && (byteClass[s.src[i]]&byteDigit != 0 ||
		s.src[i] == '_' && i+1 < len(s.src) && byteClass[s.src[i+1]]&byteDigit != 0) {
		i++
	}
	return i
}

// numberEnd checks that nothing that could be a word touches the number.
func (s *scanner) numberEnd() tokenKind {
	if s.pos < len(s.src) && byteClass[s.src[s.pos]]&(byteIdentStart|byteDigit) != 0 {
		return tokError
	}
	return tokNumber
}

// operator reads the longest operator (section 4.1.3): a comment ends it, and it may end in
// + or - only if it holds a character that no SQL operator has.
func (s *scanner) operator() tokenKind {
	if s.pos < s.signs {
		s.pos++
		return tokOp
	}
	src, i, long := s.src, s.pos, false
	for i < len(src) && byteClass[src[i]]&byteOp != 0 {
		if i+1 < len(src) && (src[i] == '-' && src[i+1] == '-' || src[i] == '/' && src[i+1] == '*') {
			break
		}
		long = long || byteClass[src[i]]&byteOpLong != 0
		i++
	}
	if !long && i > s.pos+1 && (src[i-1] == '+' || src[i-1] == '-') {
		i = s.withoutSigns(i)
	}
	s.pos = i
	return tokOp
}

// withoutSigns is where the operator ends that must not end in the signs in front of end.
func (s *scanner) withoutSigns(end int) int {
	s.signs = end
	for end > s.pos+1 && (s.src[end-1] == '+' || s.src[end-1] == '-') {
		end--
	}
	return end
}

// punctuation reads what is neither word, constant nor operator.
func (s *scanner) punctuation(c byte) tokenKind {
	s.pos++
	var n byte
	if s.pos < len(s.src) {
		n = s.src[s.pos]
	}
	switch c {
	case '(':
		return tokLParen
	case ')':
		return tokRParen
	case '[':
		return tokLBracket
	case ']':
		return tokRBracket
	case ',':
		return tokComma
	case ';':
		return tokSemi
	case '.':
		if n == '.' {
			s.pos++
			return tokDotDot
		}
		if byteClass[n]&byteDigit != 0 {
			s.pos--
			return s.fraction()
		}
		return tokDot
	case ':':
		if n == ':' {
			s.pos++
			return tokCast
		}
		if n == '=' {
			s.pos++
			return tokAssign
		}
		return tokColon
	}
	return tokError
}

// fraction reads a number that starts with its point.
func (s *scanner) fraction() tokenKind {
	i := s.digits(s.pos + 1)
	if i < len(s.src) && s.src[i]|0x20 == 'e' {
		j := i + 1
		if j < len(s.src) && (s.src[j] == '+' || s.src[j] == '-') {
			j++
		}
		if j < len(s.src) && byteClass[s.src[j]]&byteDigit != 0 {
			i = s.digits(j)
		}
	}
	s.pos = i
	return s.numberEnd()
}

// hexDigit reports whether b may stand in a number behind 0x.
func hexDigit(b byte) bool {
	return byteClass[b]&byteDigit != 0 || b == '_' || b|0x20 >= 'a' && b|0x20 <= 'f'
}

// timeWord reports whether a string constant may be read as a moment that depends on the
// transaction's own (section 8.5.1.4), alone or as a part of a list: one of its words begins like one of those.
func timeWord(b []byte) bool {
	letter := false // before the byte at hand
	for i, c := range b {
		if !letter {
			switch c | 0x20 {
			case 'n':
				if begins(b[i:], "now") {
					return true
				}
			case 't':
				if begins(b[i:], "today") || begins(b[i:], "tomorrow") {
					return true
				}
			case 'y':
				if begins(b[i:], "yesterday") {
					return true
				}
			}
		}
		letter = byteClass[c]&byteIdentStart != 0
	}
	return false
}

// begins reports whether b begins with the lower-case ASCII word w in any case.
func begins(b []byte, w string) bool { return len(b) >= len(w) && equalFold(b[:len(w)], w) }

// equalFold reports whether b is the lower-case ASCII word w in any case.
func equalFold(b []byte, w string) bool {
	if len(b) != len(w) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != w[i] {
			return false
		}
	}
	return true
}
