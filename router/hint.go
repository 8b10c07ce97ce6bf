package router

// hintWord is what a hint comment starts with.
const hintWord = "pgweir:"

// leadingHint is the hint in the comments in front of a text: the first block comment that
// says "pgweir: primary", "pgweir: standby" or "pgweir: auto" and nothing else, in any case.
func leadingHint(text []byte) Hint {
	s := scanner{src: text}
	for {
		for s.pos < len(text) && byteClass[text[s.pos]]&byteSpace != 0 {
			s.pos++
		}
		if s.pos+1 >= len(text) {
			return HintNone
		}
		switch {
		case text[s.pos] == '-' && text[s.pos+1] == '-':
			s.lineComment()
		case text[s.pos] == '/' && text[s.pos+1] == '*':
			start := s.pos + 2
			if !s.blockComment() {
				return HintNone
			}
			if h := parseHint(text[start : s.pos-2]); h != HintNone {
				return h
			}
		default:
			return HintNone
		}
	}
}

// parseHint is the hint in the body of a comment.
func parseHint(b []byte) Hint {
	b = trimSpace(b)
	if len(b) < len(hintWord) || !equalFold(b[:len(hintWord)], hintWord) {
		return HintNone
	}
	h, _ := ParseHint(trimSpace(b[len(hintWord):]))
	return h
}

// ParseHint reads the value of a hint comment or of the setting pgweir.route, in any case;
// ok is false when it is neither primary, standby nor auto.
func ParseHint[T string | []byte](value T) (h Hint, ok bool) {
	b := []byte(value)
	switch {
	case equalFold(b, "primary"):
		return HintPrimary, true
	case equalFold(b, "standby"):
		return HintStandby, true
	case equalFold(b, "auto"):
		return HintAuto, true
	}
	return HintNone, false
}

// trimSpace is b without the white space around it.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && byteClass[b[0]]&byteSpace != 0 {
		b = b[1:]
	}
	for len(b) > 0 && byteClass[b[len(b)-1]]&byteSpace != 0 {
		b = b[:len(b)-1]
	}
	return b
}
