package router

// Split cuts a script into its statements, as psql does: at semicolons outside of
// parentheses and of BEGIN ATOMIC bodies. The statements are parts of text, with the comments
// in front of them and without their semicolon; empty ones are left out. std is
// standard_conforming_strings. Behind a lexical error the rest is one statement.
func Split(text []byte, std bool) [][]byte {
	var out [][]byte
	p := newParser(text, &Env{StdStrings: std}, nil)
	start := 0
	for {
		empty := p.done() && p.tok.kind != tokError
		p.splitOne()
		end := p.tok.start
		if p.tok.kind == tokError {
			end = len(text)
		}
		if statement := trimSpace(text[start:end]); !empty && len(statement) > 0 {
			out = append(out, statement)
		}
		if p.tok.kind != tokSemi {
			return out
		}
		start = p.tok.end
		p.advance()
	}
}

// splitOne moves to the end of a statement.
func (p *parser) splitOne() {
	create := p.tok.kw == kwCreate
	parens, atomic := 0, 0
	for p.tok.kind != tokEOF && p.tok.kind != tokError {
		switch p.tok.kind {
		case tokSemi:
			if parens <= 0 && atomic == 0 {
				return
			}
		case tokLParen:
			parens++
		case tokRParen:
			parens--
		}
		atomic = p.atomicDepth(create, atomic)
		p.advance()
	}
}

// atomicDepth is how deep in BEGIN ATOMIC and CASE the text is behind the token at hand.
func (p *parser) atomicDepth(create bool, depth int) int {
	if p.prev.kw == kwAs || p.prev.kind == tokDot {
		return depth
	}
	switch {
	case depth == 0 && create && p.tok.kw == kwBegin && p.peek.kw == kwAtomic:
		return 1
	case depth > 0 && p.tok.kw == kwCase:
		return depth + 1
	case depth > 0 && p.tok.kw == kwEnd:
		return depth - 1
	}
	return depth
}
