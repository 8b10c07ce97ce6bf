package router

// The bytes that stand for what a shape leaves out. A byte below 0x20 never starts a token.
const (
	shapeEnd   = 0x00 // the end of a token
	shapeMore  = 0x01 // one or more constants of the same kind, with commas between them
	shapeRows  = 0x02 // one or more parenthesised lists of the same shape
	shapeKinds = 0x03 // plus the token's kind: a constant
)

// maxShape is the longest shape that is remembered.
const maxShape = 4096

// shape appends to dst what a text is without its comments, its white space, the case of its
// unquoted words and the content of its constants; runs of constants of one kind, and of
// parenthesised lists that look the same, are folded. ok is false when the text breaks the
// lexical rules or its shape is longer than maxShape: then it has none.
func shape(dst []byte, text []byte, std bool) (out []byte, ok bool) {
	f := folder{out: dst, last: -1, group: -1, prevEnd: -1}
	s := scanner{src: text, std: std}
	var t token
	for {
		s.next(&t)
		switch t.kind {
		case tokEOF:
			return f.out, true
		case tokError:
			return f.out, false
		case tokString, tokTimeWord, tokBits, tokNumber, tokParam:
			f.constant(t.kind)
		case tokIdent:
			f.word(text[t.start:t.end])
		case tokComma:
			f.comma()
		case tokLParen:
			f.open()
		case tokRParen:
			f.close()
		default:
			f.other(text[t.start:t.end])
		}
		if len(f.out) > maxShape {
			return f.out, false
		}
	}
}

// folder writes a shape.
type folder struct {
	out     []byte
	last    int       // where the constant ends that stands directly before, or before a comma; -1 without one
	kind    tokenKind // that constant's kind
	comma1  bool      // a comma follows that constant
	more    bool      // that constant is a run already
	group   int       // where the open list of constants starts; -1 without one
	prev    int       // where the last closed list of constants starts
	prevEnd int       // where it ends; -1 without one
	rows    bool      // it is a run already
}

// constant writes a constant, or folds it into the one before.
func (f *folder) constant(k tokenKind) {
	if f.comma1 && f.last >= 0 && f.kind == k {
		f.out = f.out[:f.last]
		if !f.more {
			f.out = append(f.out, shapeMore, shapeEnd)
			f.more = true
		}
		f.last, f.comma1 = len(f.out), false
		return
	}
	f.out = append(f.out, shapeKinds+byte(k), shapeEnd)
	f.last, f.kind, f.comma1, f.more = len(f.out), k, false, false
}

// word writes an unquoted word in lower case.
func (f *folder) word(b []byte) {
	f.last, f.group, f.prevEnd, f.comma1 = -1, -1, -1, false
	n := len(f.out)
	f.out = append(f.out, b...)
	for i, c := range f.out[n:] {
		if c >= 'A' && c <= 'Z' {
			f.out[n+i] = c | 0x20
		}
	}
	f.out = append(f.out, shapeEnd)
}

// other writes a token as it is.
func (f *folder) other(b []byte) {
	f.last, f.group, f.prevEnd, f.comma1 = -1, -1, -1, false
	f.out = append(f.out, b...)
	f.out = append(f.out, shapeEnd)
}

// comma writes a comma.
func (f *folder) comma() {
	f.comma1 = f.last >= 0
	f.out = append(f.out, ',', shapeEnd)
}

// open writes an opening parenthesis, which may start a list of constants.
func (f *folder) open() {
	f.last, f.comma1 = -1, false
	f.group = len(f.out)
	f.out = append(f.out, '(', shapeEnd)
}

// close writes a closing parenthesis; a list of constants that looks like the one before the
// comma before it is dropped.
func (f *folder) close() {
	f.last, f.comma1 = -1, false
	f.out = append(f.out, ')', shapeEnd)
	if f.group < 0 {
		f.prevEnd = -1
		return
	}
	start := f.group
	f.group = -1
	if f.prevEnd >= 0 && f.prevTail()+2 == start && string(f.out[f.prev:f.prevEnd]) == string(f.out[start:]) {
		f.out = f.out[:f.prevTail()]
		if !f.rows {
			f.out = append(f.out, shapeRows, shapeEnd)
			f.rows = true
		}
		return
	}
	f.prev, f.prevEnd, f.rows = start, len(f.out), false
}

// prevTail is where the last closed list ends, its mark of a run included.
func (f *folder) prevTail() int {
	if f.rows {
		return f.prevEnd + 2
	}
	return f.prevEnd
}
