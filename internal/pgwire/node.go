package pgwire

import "encoding/binary"

// ErrorView is what an ErrorResponse or NoticeResponse says. A field that is missing is nil;
// even Code may be, since a hostile node can leave it out.
type ErrorView struct {
	Severity  []byte // V: never translated; nil before PostgreSQL 9.6
	Localized []byte // S: the severity in the session's language
	Code      []byte // C: SQLSTATE
	Message   []byte // M
	Detail    []byte // D
	Hint      []byte // H
	Position  []byte // P
	Schema    []byte // s
	Table     []byte // t
	Routine   []byte // R
}

// ErrorFields reads the body of an ErrorResponse or NoticeResponse. Of a field that comes twice
// the last one counts; fields that ErrorView does not have are skipped (NextField sees all).
func ErrorFields(body []byte) (ErrorView, error) {
	var v ErrorView
	for rest := body; ; {
		kind, value, next, err := NextField(rest)
		if err != nil {
			return v, err
		}
		if kind == 0 {
			if len(next) != 0 {
				return v, ErrMessageFormat
			}
			return v, nil
		}
		if f := v.field(kind); f != nil {
			*f = value
		}
		rest = next
	}
}

// field is where the view keeps a field, nil if it does not.
func (v *ErrorView) field(kind byte) *[]byte {
	switch kind {
	case 'V':
		return &v.Severity
	case 'S':
		return &v.Localized
	case 'C':
		return &v.Code
	case 'M':
		return &v.Message
	case 'D':
		return &v.Detail
	case 'H':
		return &v.Hint
	case 'P':
		return &v.Position
	case 's':
		return &v.Schema
	case 't':
		return &v.Table
	case 'R':
		return &v.Routine
	}
	return nil
}

// Fatal says whether the node ends the connection after this error: FATAL or PANIC.
func (v *ErrorView) Fatal() bool {
	s := v.Severity
	if s == nil {
		s = v.Localized
	}
	return string(s) == "FATAL" || string(s) == "PANIC"
}

// NextField cuts the first field off the body of an ErrorResponse or NoticeResponse. At the
// terminator kind is 0, and rest is what stands behind it: nothing, in a well-formed message.
func NextField(body []byte) (kind byte, value, rest []byte, err error) {
	r := reader{rest: body}
	kind = r.uint8()
	if kind != 0 {
		value = r.text()
	}
	if r.err != nil {
		return 0, nil, nil, r.err
	}
	return kind, value, r.rest, nil
}

// ParseReadyForQuery is the transaction byte: TxIdle, TxOpen or TxFailed.
func ParseReadyForQuery(body []byte) (status byte, err error) {
	r := reader{rest: body}
	status = r.uint8()
	if err := r.end(); err != nil {
		return status, err
	}
	if status != TxIdle && status != TxOpen && status != TxFailed {
		return status, ErrMessageFormat
	}
	return status, nil
}

// ParseParameterStatus is a setting that a node reports, and its value.
func ParseParameterStatus(body []byte) (name, value []byte, err error) {
	r := reader{rest: body}
	name, value = r.text(), r.text()
	return name, value, r.end()
}

// ParseBackendKeyData is what a CancelRequest has to say: the pid, and the secret as it stands
// in the message, 4 bytes in protocol 3.0 and up to MaxCancelSecret later.
func ParseBackendKeyData(body []byte) (pid uint32, secret []byte, err error) {
	r := reader{rest: body}
	pid, secret = r.uint32(), r.rest
	if r.err != nil {
		return 0, nil, r.err
	}
	if len(secret) < 4 {
		return 0, nil, ErrMessageShort
	}
	if len(secret) > MaxCancelSecret {
		return 0, nil, ErrMessageFormat
	}
	return pid, secret, nil
}

// ParseNotification is what a NotificationResponse says: the pid of the notifying backend, the
// channel, and the payload.
func ParseNotification(body []byte) (pid uint32, channel, payload []byte, err error) {
	r := reader{rest: body}
	pid, channel, payload = r.uint32(), r.text(), r.text()
	return pid, channel, payload, r.end()
}

// ParseCommandComplete is the tag of a CommandComplete.
func ParseCommandComplete(body []byte) (tag []byte, err error) { return ParseQuery(body) }

// ParseAuthentication is the code of an Authentication message and what stands behind it: a
// salt, the list of mechanisms, or a step of SASL.
func ParseAuthentication(body []byte) (code uint32, data []byte, err error) {
	r := reader{rest: body}
	code = r.uint32()
	if r.err != nil {
		return 0, nil, r.err
	}
	return code, r.rest, nil
}

// NextMechanism cuts the first mechanism off the data of an AuthSASL message. At the end of the
// list it is empty.
func NextMechanism(data []byte) (mechanism, rest []byte, err error) {
	r := reader{rest: data}
	mechanism = r.text()
	if r.err != nil {
		return nil, nil, r.err
	}
	return mechanism, r.rest, nil
}

// ParseNegotiate is what a NegotiateProtocolVersion says: the newest version that the node
// speaks, and the names of the protocol options that it does not know. The names are copied.
func ParseNegotiate(body []byte) (version uint32, unknown []string, err error) {
	r := reader{rest: body}
	version = r.uint32()
	for n := r.uint32(); n > 0 && r.err == nil; n-- {
		if name := r.text(); r.err == nil {
			unknown = append(unknown, string(name))
		}
	}
	if err := r.end(); err != nil {
		return 0, nil, err
	}
	return version, unknown, nil
}

// ParseParameterDescription is the types of a statement's parameters.
func ParseParameterDescription(body []byte) (OIDs, error) {
	r := reader{rest: body}
	types := OIDs(r.bytes(4 * int(r.uint16())))
	return types, r.end()
}

// ParseCopyResponse is what CopyInResponse, CopyOutResponse and CopyBothResponse say: the format
// of the whole (0 text, 1 binary) and of each column.
func ParseCopyResponse(body []byte) (format byte, columns Formats, err error) {
	r := reader{rest: body}
	format = r.uint8()
	columns = Formats(r.bytes(2 * int(r.uint16())))
	return format, columns, r.end()
}

// Rows is the columns of a RowDescription, in order.
type Rows struct {
	Count int // of the columns that Next has not returned
	rest  []byte
}

// Column is one column of a RowDescription.
type Column struct {
	Name      []byte
	Table     uint32 // OID of the table, 0 if it is no column of a table
	Attribute uint16 // number in the table
	Type      uint32 // OID of the type
	TypeSize  int16  // negative: of variable width
	TypeMod   int32
	Format    uint16 // 0 text, 1 binary; 0 also while it is not known
}

// ParseRowDescription reads the body of a RowDescription; all of it has been checked when it
// returns.
func ParseRowDescription(body []byte) (Rows, error) {
	r := reader{rest: body}
	rows := Rows{Count: int(r.uint16()), rest: r.rest}
	for range rows.Count {
		r.text()
		r.bytes(columnSize)
		if r.err != nil {
			return Rows{}, r.err
		}
	}
	return rows, r.end()
}

// columnSize is the length of what follows a column's name.
const columnSize = 18

// Next cuts the first column off. ok is false when none is left.
func (rows *Rows) Next() (c Column, ok bool) {
	if rows.Count == 0 {
		return Column{}, false
	}
	r := reader{rest: rows.rest}
	c.Name = r.text()
	f := r.bytes(columnSize)
	if r.err != nil {
		return Column{}, false
	}
	c.Table = binary.BigEndian.Uint32(f)
	c.Attribute = binary.BigEndian.Uint16(f[4:])
	c.Type = binary.BigEndian.Uint32(f[6:])
	c.TypeSize = int16(binary.BigEndian.Uint16(f[10:]))
	c.TypeMod = int32(binary.BigEndian.Uint32(f[12:]))
	c.Format = binary.BigEndian.Uint16(f[16:])
	rows.Count--
	rows.rest = r.rest
	return c, true
}

// Values is the values of a DataRow, in order.
type Values struct {
	Count int // of the values that Next has not returned
	rest  []byte
}

// ParseDataRow reads the body of a DataRow; all of it has been checked when it returns.
func ParseDataRow(body []byte) (Values, error) {
	r := reader{rest: body}
	values := Values{Count: int(r.uint16()), rest: r.rest}
	for range values.Count {
		nextValue(&r)
		if r.err != nil {
			return Values{}, r.err
		}
	}
	return values, r.end()
}

// Next cuts the first value off: nil for NULL, an empty slice for an empty value. ok is false
// when none is left.
func (v *Values) Next() (value []byte, ok bool) {
	if v.Count == 0 {
		return nil, false
	}
	r := reader{rest: v.rest}
	value = nextValue(&r)
	if r.err != nil {
		return nil, false
	}
	v.Count--
	v.rest = r.rest
	return value, true
}
