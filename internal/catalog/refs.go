package catalog

import "slices"

// refKind says what a ref names.
type refKind uint8

// The kinds of refs. The first five come from parsed trees and carry an oid, the rest from
// text and carry symbols.
const (
	refFunc     refKind = iota // a: oid of a function that is called
	refOp                      // a: oid of an operator
	refRel                     // a: oid of a relation that is read, or written if the text writes
	refType                    // a: oid of a type that something is converted to
	refSetting                 // b: symbol of the constant name given to current_setting
	refCall                    // a, b: symbols of schema (0: bare) and name of what is called
	refRead                    // a, b: of a relation that is read
	refWrite                   // a, b: of a relation that is written
	refOpName                  // b: of an operator
	refTypeName                // b: of a type behind "::"
	refLeaves                  // b: of a custom setting that is set for the transaction
)

// ref is one thing that a piece of code can use.
type ref struct {
	kind refKind
	a, b uint32
}

// refFlags is what a piece of code does by itself.
type refFlags uint8

// The flags of a piece of code.
const (
	codeOpaque  refFlags = 1 << iota // can leave state in the session
	codeNextval                      // calls nextval or setval
	codeCurrval                      // calls currval or lastval
	codeWrites                       // holds INSERT, UPDATE, DELETE, MERGE or a utility statement
	codeLocks                        // holds FOR UPDATE or its kin
	codeDDL                          // holds CREATE, ALTER or DROP
	codeSets                         // calls set_config
	codeLasting                      // … of which DISCARD ALL leaves something: a name of a custom setting, a library, anything unknown
)

// code is what a scan found in one piece of code: a rule, an expression, a body. It is
// immutable once sealed; nil is code that uses nothing.
type code struct {
	flags refFlags
	refs  []ref
}

// add notes a ref; duplicates go when the code is sealed.
func (c *code) add(kind refKind, a, b uint32) {
	c.refs = append(c.refs, ref{kind, a, b})
}

// seal removes duplicates and spare room; code that uses nothing becomes nil.
func (c *code) seal() *code {
	slices.SortFunc(c.refs, func(x, y ref) int {
		if x.kind != y.kind {
			return int(x.kind) - int(y.kind)
		}
		if x.a != y.a {
			return compare(x.a, y.a)
		}
		return compare(x.b, y.b)
	})
	c.refs = slices.Compact(c.refs)
	if len(c.refs) == 0 && c.flags == 0 {
		return nil
	}
	return &code{flags: c.flags, refs: slices.Clone(c.refs)}
}

// compare orders two numbers.
func compare(a, b uint32) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// symbols numbers names, so that what is kept of a body is small. Number 0 is no name.
type symbols struct {
	byName map[string]uint32
	list   []string
}

// newSymbols returns an empty table.
func newSymbols() *symbols {
	return &symbols{byName: make(map[string]uint32), list: []string{""}}
}

// text returns the name with that number.
func (s *symbols) text(n uint32) string { return s.list[n] }

// number returns the number of name, a new one if it has none.
func (s *symbols) number(name []byte) uint32 {
	if n, ok := s.byName[string(name)]; ok {
		return n
	}
	return s.numberString(string(name))
}

// numberString is number for a string that may be kept.
func (s *symbols) numberString(name string) uint32 {
	n, ok := s.byName[name]
	if !ok {
		n = uint32(len(s.list))
		s.byName[name] = n
		s.list = append(s.list, name)
	}
	return n
}
