package router

import (
	"bytes"
	"strings"
)

// maxWritten is the longest token that is brought into another form.
const maxWritten = 64 << 10

// written is a token of a setting's value as the session keeps it: constants as '…', names as they are or as "…", so
// that whoever reads them needs to know one spelling. ok is false for one that is too long, and for a constant that is spelled otherwise and cannot be
// brought into that form; its text is the client's own.
func (p *parser) written(t *token) (text string, ok bool) {
	b := p.text[t.start:t.end]
	switch {
	case len(b) > maxWritten:
		return string(b), false
	case t.kind == tokQuoted && t.esc != 0:
		return `"` + strings.ReplaceAll(p.ident(t), `"`, `""`) + `"`, true
	case !t.str() || p.ordinary(b):
		return string(b), true
	}
	v, ok := p.constant(t)
	if !ok || strings.Contains(v, `\`) { // which means something else where standard_conforming_strings is off
		return string(b), false
	}
	return `'` + strings.ReplaceAll(v, `'`, `''`) + `'`, true
}

// ordinary reports whether a string constant is one '…' without escapes.
func (p *parser) ordinary(b []byte) bool {
	if b[0] != '\'' || !p.std && bytes.IndexByte(b, '\\') >= 0 {
		return false
	}
	for b = b[1 : len(b)-1]; ; b = b[2:] {
		i := bytes.IndexByte(b, '\'')
		if i < 0 {
			return true
		}
		if b = b[i:]; len(b) < 2 || b[1] != '\'' {
			return false // its first part ends here
		}
	}
}

// interpreted reports whether a setting's value has to be known beside the node that holds it.
func interpreted(name string) bool {
	switch name {
	case "statement_timeout", "idle_session_timeout", "synchronous_commit":
		return true
	}
	return changesNames(name) || strings.HasPrefix(name, "default_transaction_")
}
