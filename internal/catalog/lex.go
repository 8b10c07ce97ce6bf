package catalog

import "bytes"

// tokenKind is what a token of a function body is.
type tokenKind uint8

// The kinds of tokens.
const (
	tokEnd    tokenKind = iota
	tokWord             // an unquoted identifier or keyword, folded
	tokName             // a quoted identifier, quotes taken off
	tokString           // a string constant; text is what is between the quotes, as it stands
	tokNumber
	tokPunct // one of ( ) [ ] , ; . and everything that is no operator
	tokOp    // a run of operator characters
)

// token is one token of a function body. Its text is valid until the next one is read.
type token struct {
	kind   tokenKind
	text   []byte
	escape byte // of a string: 0 standard, 'E' and 'U' with escapes, '$' dollar-quoted
}

// is tells whether t is that unquoted word; word is lower case.
func (t token) is(word string) bool { return t.kind == tokWord && string(t.text) == word }

// punct tells whether t is that single character.
func (t token) punct(c byte) bool { return t.kind == tokPunct && t.text[0] == c }

// lexer splits SQL and PL/pgSQL by the server's lexical rules (section 4.1), leniently: what
// does not end ends at the end of the text. It is a value: a copy looks ahead.
type lexer struct {
	src []byte
	pos int
	buf []byte // of folded words and unquoted names
}

// next returns the next token; comments and white space are passed over.
func (l *lexer) next() token {
	l.skip()
	if l.pos >= len(l.src) {
		return token{kind: tokEnd}
	}
	c := l.src[l.pos]
	switch {
	case c == '\'':
		return l.quoted(0)
	case c == '"':
		return l.quotedName()
	case c == '$':
		return l.dollar()
	case isIdentByte(c, true):
		return l.word()
	case c >= '0' && c <= '9':
		start := l.pos
		for l.pos < len(l.src) && isIdentByte(l.src[l.pos], false) {
			l.pos++
		}
		return token{kind: tokNumber, text: l.src[start:l.pos]}
	case isOpByte(c):
		return l.operator()
	}
	l.pos++
	return token{kind: tokPunct, text: l.src[l.pos-1 : l.pos]}
}

// skip passes over white space and comments.
func (l *lexer) skip() {
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case c <= ' ':
			l.pos++
		case c == '-' && l.at(1) == '-':
			for l.pos < len(l.src) && l.src[l.pos] != '\n' && l.src[l.pos] != '\r' {
				l.pos++
			}
		case c == '/' && l.at(1) == '*':
			l.blockComment()
		default:
			return
		}
	}
}

// peek returns the first byte of the next token, 0 at the end.
func (l *lexer) peek() byte {
	look := lexer{src: l.src, pos: l.pos}
	look.skip()
	return look.at(0)
}

// ahead returns a lexer at the same place whose tokens leave those of l alone.
func (l *lexer) ahead() lexer { return lexer{src: l.src, pos: l.pos} }

// blockComment passes over a comment and those nested in it.
func (l *lexer) blockComment() {
	depth := 0
	for l.pos < len(l.src) {
		switch {
		case l.src[l.pos] == '/' && l.at(1) == '*':
			depth++
			l.pos += 2
		case l.src[l.pos] == '*' && l.at(1) == '/':
			depth--
			l.pos += 2
			if depth == 0 {
				return
			}
		default:
			l.pos++
		}
	}
}

// at returns the byte n ahead, 0 behind the end.
func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.src) {
		return l.src[l.pos+n]
	}
	return 0
}

// word reads an identifier, or a string or name with a prefix letter.
func (l *lexer) word() token {
	switch c := l.src[l.pos]; {
	case l.at(1) == '\'' && (c == 'e' || c == 'E'):
		l.pos++
		return l.quoted('E')
	case l.at(1) == '\'' && (c == 'b' || c == 'B' || c == 'x' || c == 'X' || c == 'n' || c == 'N'):
		l.pos++
		return l.quoted(0)
	case (c == 'u' || c == 'U') && l.at(1) == '&' && (l.at(2) == '\'' || l.at(2) == '"'):
		l.pos += 2
		if l.src[l.pos] == '"' {
			return l.quotedName()
		}
		return l.quoted('U')
	}
	start := l.pos
	for l.pos < len(l.src) && isIdentByte(l.src[l.pos], false) {
		l.pos++
	}
	l.buf = append(l.buf[:0], l.src[start:l.pos]...)
	for i, c := range l.buf {
		if c >= 'A' && c <= 'Z' {
			l.buf[i] = c + 'a' - 'A'
		}
	}
	return token{kind: tokWord, text: truncateBytes(l.buf)}
}

// truncateBytes cuts an identifier as the server does.
func truncateBytes(b []byte) []byte {
	if len(b) <= maxNameLen {
		return b
	}
	return b[:len(truncateName(string(b[:maxNameLen+1])))]
}

// quoted reads a string constant that starts at the quote at hand.
func (l *lexer) quoted(escape byte) token {
	l.pos++
	start := l.pos
	for l.pos < len(l.src) {
		switch c := l.src[l.pos]; {
		case c == '\\' && escape == 'E':
			l.pos += 2
			continue
		case c == '\'' && l.at(1) == '\'':
			l.pos += 2
			continue
		case c == '\'':
			l.pos++
			return token{kind: tokString, text: l.src[start : l.pos-1], escape: escape}
		}
		l.pos++
	}
	l.pos = len(l.src)
	return token{kind: tokString, text: l.src[min(start, len(l.src)):], escape: escape}
}

// quotedName reads a quoted identifier.
func (l *lexer) quotedName() token {
	l.pos++
	l.buf = l.buf[:0]
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		if c == '"' {
			l.pos++
			if l.pos >= len(l.src) || l.src[l.pos] != '"' {
				break
			}
		}
		l.buf = append(l.buf, c)
		l.pos++
	}
	return token{kind: tokName, text: truncateBytes(l.buf)}
}

// dollar reads a dollar-quoted string, a parameter, or a lone dollar.
func (l *lexer) dollar() token {
	start := l.pos
	end := start + 1
	for end < len(l.src) && isIdentByte(l.src[end], end == start+1) && l.src[end] != '$' {
		end++
	}
	if end < len(l.src) && l.src[end] == '$' {
		tag := l.src[start : end+1]
		l.pos = end + 1
		body := l.src[l.pos:]
		n := bytes.Index(body, tag)
		if n < 0 {
			l.pos = len(l.src)
			return token{kind: tokString, text: body, escape: '$'}
		}
		l.pos += n + len(tag)
		return token{kind: tokString, text: body[:n], escape: '$'}
	}
	l.pos++
	for l.pos < len(l.src) && l.src[l.pos] >= '0' && l.src[l.pos] <= '9' {
		l.pos++
	}
	return token{kind: tokNumber, text: l.src[start:l.pos]}
}

// operator reads a run of operator characters; a comment ends it.
func (l *lexer) operator() token {
	start := l.pos
	for l.pos < len(l.src) && isOpByte(l.src[l.pos]) {
		if l.pos > start && ((l.src[l.pos] == '-' && l.at(1) == '-') || (l.src[l.pos] == '/' && l.at(1) == '*')) {
			break
		}
		l.pos++
	}
	return token{kind: tokOp, text: l.src[start:l.pos]}
}

// isOpByte tells whether c may stand in an operator; the colon counts, for := and ::.
func isOpByte(c byte) bool {
	switch c {
	case '+', '-', '*', '/', '<', '>', '=', '~', '!', '@', '#', '%', '^', '&', '|', '`', '?', ':':
		return true
	}
	return false
}
