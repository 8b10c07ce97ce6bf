package router

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// unicodeString reads a U&'…' constant (section 4.1.2.3) from its first quote to the end of its UESCAPE clause.
func (s *scanner) unicodeString(t *token) tokenKind {
	open := s.pos
	k := s.quoted(t, false)
	end := s.pos
	if k == tokError || !s.std || !s.uescape(t) { // PostgreSQL refuses it, too, where a backslash is an escape
		return tokError
	}
	t.plain = false
	if bytes.IndexByte(s.src[open:end], t.esc) >= 0 {
		return tokTimeWord // who knows what it spells
	}
	return k
}

// unicodeIdent reads a U&"…" identifier from its first quote to the end of its UESCAPE clause.
func (s *scanner) unicodeIdent(t *token) tokenKind {
	open := s.pos
	if s.quotedIdent(t) == tokError {
		return tokError
	}
	end := s.pos
	if !s.uescape(t) {
		return tokError
	}
	t.plain = false
	if _, ok := unescape(s.src[open+1:end-1], '"', t.esc); !ok {
		return tokError
	}
	return tokQuoted
}

// uescape moves over the UESCAPE clause that may follow, and says in t what begins an escape. False for a clause that
// is none of PostgreSQL's, or is not written as one character between quotes.
func (s *scanner) uescape(t *token) bool {
	const word = "uescape"
	t.esc = '\\'
	ahead := *s
	if !ahead.skip() || !begins(ahead.src[ahead.pos:], word) {
		return true
	}
	if ahead.pos += len(word); ahead.pos < len(ahead.src) && byteClass[ahead.src[ahead.pos]]&byteIdent != 0 {
		return true
	}
	if !ahead.skip() || ahead.pos >= len(ahead.src) || ahead.src[ahead.pos] != '\'' {
		return false
	}
	open := ahead.pos
	var lit token
	if k := ahead.quoted(&lit, !s.std); k == tokError || !lit.plain || ahead.pos != open+3 {
		return false
	}
	t.esc = ahead.src[open+1]
	s.pos = ahead.pos
	switch c := t.esc; {
	case byteClass[c]&(byteSpace|byteDigit) != 0, c >= 0x80, c == '+', c == '"', c|0x20 >= 'a' && c|0x20 <= 'f':
		return false
	}
	return true
}

// unicodeBody is what stands between the quotes of the first part of a U&'…' or U&"…" token; whole says that it has no
// other.
func unicodeBody(b []byte) (body []byte, whole bool) {
	quote, i := b[2], 3
	for ; b[i] != quote || i+1 < len(b) && b[i+1] == quote; i++ {
		if b[i] == quote {
			i++
		}
	}
	rest := scanner{src: b[i+1:]}
	return b[3:i], !rest.skip() || rest.pos >= len(rest.src) || rest.src[rest.pos] != quote
}

// unescape is the text that is written between quotes with escapes, in UTF-8; false where PostgreSQL refuses it.
func unescape(b []byte, quote, esc byte) (string, bool) {
	if bytes.IndexByte(b, esc) < 0 && bytes.IndexByte(b, quote) < 0 {
		return string(b), true
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		switch {
		case b[i] == quote: // always doubled
			out = append(out, quote)
			i += 2
		case b[i] != esc:
			out = append(out, b[i])
			i++
		case i+1 < len(b) && b[i+1] == esc:
			out = append(out, esc)
			i += 2
		default:
			r, n := escapeAt(b[i:], esc)
			if utf16.IsSurrogate(r) {
				low, m := escapeAt(b[i+n:], esc)
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return "", false
				}
				n += m
			}
			if r <= 0 || !utf8.ValidRune(r) {
				return "", false
			}
			out = utf8.AppendRune(out, r)
			i += n
		}
	}
	return string(out), true
}

// escapeAt is the character that the escape at the beginning of b stands for, and the escape's length; -1 for what is
// none.
func escapeAt(b []byte, esc byte) (r rune, n int) {
	if len(b) == 0 || b[0] != esc {
		return -1, 0
	}
	digits := b[1:]
	want := 4
	if len(digits) > 0 && digits[0] == '+' {
		digits, want = digits[1:], 6
	}
	if len(digits) < want {
		return -1, 0
	}
	for _, c := range digits[:want] {
		switch {
		case byteClass[c]&byteDigit != 0:
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return -1, 0
		}
	}
	return r, len(b) - len(digits) + want
}
