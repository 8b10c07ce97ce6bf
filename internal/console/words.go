package console

import (
	"strings"
)

// word is one word of a command.
type word struct {
	text   string
	quoted bool
	end    bool // a semicolon
}

// upper is a word that was not quoted, in capitals; "" for another.
func (w word) upper() string {
	if w.quoted {
		return ""
	}
	return strings.ToUpper(w.text)
}

// scan cuts a text into words: bare ones, quoted ones ('…' or "…", the quote doubled inside), semicolons; an equals
// sign or comma is a word of its own. Comments are SQL's.
func scan(text string) ([]word, error) {
	var out []word
	for i := 0; i < len(text); {
		rest := text[i:]
		switch c := text[i]; {
		case strings.IndexByte(" \t\r\n\f\v", c) >= 0:
			i++
		case strings.HasPrefix(rest, "--"):
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				return out, nil
			}
			i += n
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				return nil, &Error{Code: codeSyntax, Message: "unterminated /* comment"}
			}
			i += n + 4
		case c == ';':
			out = append(out, word{end: true})
			i++
		case c == '=' || c == ',':
			out = append(out, word{text: string(c)})
			i++
		case c == '\'' || c == '"':
			value, n := quoted(rest)
			if n == 0 {
				return nil, &Error{Code: codeSyntax, Message: "unterminated quoted string"}
			}
			out = append(out, word{text: value, quoted: true})
			i += n
		default:
			n := strings.IndexAny(rest, " \t\r\n\f\v;=,'\"")
			if n < 0 {
				n = len(rest)
			}
			out = append(out, word{text: rest[:n]})
			i += n
		}
	}
	return out, nil
}

// quoted is the value of the quoted word that s begins with, and its length in s; 0 when it has no end.
func quoted(s string) (value string, n int) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != s[0]:
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == s[0]:
			b.WriteByte(s[0])
			i++
		default:
			return b.String(), i + 1
		}
	}
	return "", 0
}

// split separates commands, and leaves empty ones out.
func split(words []word) [][]word {
	var out [][]word
	start := 0
	for i := 0; i <= len(words); i++ {
		if i < len(words) && !words[i].end {
			continue
		}
		if i > start {
			out = append(out, words[start:i])
		}
		start = i + 1
	}
	return out
}

// joined is a command as it may be shown.
func joined(ws []word) string {
	var parts []string
	for _, w := range ws {
		parts = append(parts, w.text)
	}
	return strings.Join(parts, " ")
}
