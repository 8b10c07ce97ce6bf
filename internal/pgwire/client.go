package pgwire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// ParseQuery is the text of a Query.
func ParseQuery(body []byte) (sql []byte, err error) {
	r := reader{rest: body}
	sql = r.text()
	return sql, r.end()
}

// ParseView is what a Parse says.
type ParseView struct {
	Name  []byte // of the statement; empty for the unnamed one
	SQL   []byte
	Types OIDs // the parameter types that the client gave; 0 leaves one to the node
}

// ParseParse reads the body of a Parse.
func ParseParse(body []byte) (ParseView, error) {
	r := reader{rest: body}
	v := ParseView{Name: r.text(), SQL: r.text()}
	v.Types = OIDs(r.bytes(4 * int(r.uint16())))
	return v, r.end()
}

// OIDs is a list of object identifiers as it stands in a message: four bytes each.
type OIDs []byte

// Len is the number of identifiers.
func (o OIDs) Len() int { return len(o) / 4 }

// At is the i-th identifier, counted from 0.
func (o OIDs) At(i int) uint32 { return binary.BigEndian.Uint32(o[4*i:]) }

// BindView is what a Bind says first, which is all that is needed to send it on under another
// name of portal or statement.
type BindView struct {
	Portal    []byte // empty for the unnamed one
	Statement []byte // empty for the unnamed one
	Rest      []byte // everything behind the two names; see ParseArguments
}

// ParseBind reads the two names of a Bind. What stands behind them is not checked.
func ParseBind(body []byte) (BindView, error) {
	r := reader{rest: body}
	v := BindView{Portal: r.text(), Statement: r.text()}
	if r.err != nil {
		return v, r.err
	}
	v.Rest = r.rest
	return v, nil
}

// Arguments is what stands in a Bind behind its names.
type Arguments struct {
	Formats Formats // of the values: none (all text), one for all, or one each
	Results Formats // asked for, of the result's columns, likewise
	Count   int     // of the values
	values  []byte
}

// Formats is a list of format codes as it stands in a message: two bytes each, 0 for text and 1
// for binary.
type Formats []byte

// Len is the number of codes.
func (f Formats) Len() int { return len(f) / 2 }

// At is the i-th code, counted from 0.
func (f Formats) At(i int) uint16 { return binary.BigEndian.Uint16(f[2*i:]) }

// For is the format of column or parameter i: the list may be empty, which is text, or hold
// one code, which is for all.
func (f Formats) For(i int) uint16 {
	switch f.Len() {
	case 0:
		return 0
	case 1:
		return f.At(0)
	}
	if i >= f.Len() {
		return 0
	}
	return f.At(i)
}

// ParseArguments reads BindView.Rest whole. That the number of formats fits the number of
// values and that the statement has as many parameters is left to the node.
func ParseArguments(rest []byte) (Arguments, error) {
	r := reader{rest: rest}
	var a Arguments
	a.Formats = Formats(r.bytes(2 * int(r.uint16())))
	a.Count = int(r.uint16())
	start := r.rest
	for range a.Count {
		if n := int32(r.uint32()); n != -1 {
			r.bytes(int(n))
		}
		if r.err != nil {
			return Arguments{}, r.err
		}
	}
	a.values = start[:len(start)-len(r.rest)]
	a.Results = Formats(r.bytes(2 * int(r.uint16())))
	return a, r.end()
}

// Next cuts the first value off: nil for NULL, an empty slice for an empty value. ok is false
// when none is left.
func (a *Arguments) Next() (value []byte, ok bool) {
	r := reader{rest: a.values}
	if len(r.rest) == 0 {
		return nil, false
	}
	value = nextValue(&r)
	a.values = r.rest
	return value, r.err == nil
}

// nextValue reads a length and as many bytes; nil for the length −1.
func nextValue(r *reader) []byte {
	n := int32(r.uint32())
	if n == -1 {
		return nil
	}
	return r.bytes(int(n))
}

// ParseDescribe is what a Describe names: KindStatement or KindPortal, and the name.
func ParseDescribe(body []byte) (kind byte, name []byte, err error) {
	return parseTarget(body, "DESCRIBE")
}

// ParseClose is what a Close names, as ParseDescribe.
func ParseClose(body []byte) (kind byte, name []byte, err error) {
	return parseTarget(body, "CLOSE")
}

// parseTarget reads a kind and a name; what is PostgreSQL's word for the message.
func parseTarget(body []byte, what string) (kind byte, name []byte, err error) {
	r := reader{rest: body}
	kind, name = r.uint8(), r.text()
	if err := r.end(); err != nil {
		return kind, name, err
	}
	if kind != KindStatement && kind != KindPortal {
		return kind, name, &ProtocolError{
			Code:    CodeProtocolViolation,
			Message: fmt.Sprintf("invalid %s message subtype %d", what, kind),
		}
	}
	return kind, name, nil
}

// ParseExecute is the portal that an Execute runs and the number of rows after which it pauses;
// 0 or less is no limit.
func ParseExecute(body []byte) (portal []byte, maxRows int32, err error) {
	r := reader{rest: body}
	portal, maxRows = r.text(), int32(r.uint32())
	return portal, maxRows, r.end()
}

// ParseEmpty checks a message that has no fields: Sync, Flush, Terminate, CopyDone, and those
// of nodes such as ParseComplete.
func ParseEmpty(body []byte) error {
	if len(body) != 0 {
		return ErrMessageFormat
	}
	return nil
}

// ParseCopyFail is the reason that a client gives for ending its COPY.
func ParseCopyFail(body []byte) (reason []byte, err error) { return ParseQuery(body) }

// ParsePassword is the password of a PasswordMessage, with the checks and errors of the server.
func ParsePassword(body []byte) (password []byte, err error) {
	n := len(body)
	if n == 0 || bytes.IndexByte(body, 0) != n-1 {
		return nil, ErrPasswordSize
	}
	if n == 1 {
		return nil, ErrPasswordEmpty
	}
	return body[: n-1 : n-1], nil
}

// ParseSASLInitial is the mechanism that a client chose and its first message, nil if it sent
// none. The body of a SASLResponse is its data as it is.
func ParseSASLInitial(body []byte) (mechanism, data []byte, err error) {
	r := reader{rest: body}
	mechanism = r.text()
	data = nextValue(&r)
	return mechanism, data, r.end()
}
