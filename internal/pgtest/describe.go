package pgtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Mask says what DescribeWith leaves out because it differs between two runs.
type Mask struct {
	Identity bool // pids and secrets
	Source   bool // file and line in PostgreSQL's source code
	Routine  bool // the function there, which pgweir's own errors use to name pgweir
	OIDs     bool // OIDs of tables, of types above the built-in ones
}

// Describe prints a message of a node with everything masked that a client cannot rely on: the
// identity of the backend and the place in its source code.
func Describe(m Message) string {
	return DescribeWith(m, Mask{Identity: true, Source: true, Routine: true})
}

// DescribeAll is Describe of each.
func DescribeAll(ms []Message) []string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = Describe(m)
	}
	return lines
}

// Transcript is the lines of DescribeAll, each with a line end.
func Transcript(ms []Message) string {
	var b strings.Builder
	for _, line := range DescribeAll(ms) {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// DescribeWith prints a message of a node in one line: its name and all of its fields. Of a
// malformed one it prints the bytes and why they are malformed.
func DescribeWith(m Message, mask Mask) string {
	d := decoder{b: m.Body, mask: mask}
	name, read := nodeMessage(m.Type)
	if read != nil {
		read(&d)
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = errors.New("bytes left over")
	}
	if d.err != nil {
		return fmt.Sprintf("%s malformed (%v) %q", name, d.err, m.Body)
	}
	return name + d.out.String()
}

// nodeMessage is the name of a type and how its body is printed; nil for a body without fields.
func nodeMessage(typ byte) (name string, read func(*decoder)) {
	switch typ {
	case '1':
		return "ParseComplete", nil
	case '2':
		return "BindComplete", nil
	case '3':
		return "CloseComplete", nil
	case 'A':
		return "NotificationResponse", (*decoder).notification
	case 'C':
		return "CommandComplete", (*decoder).text
	case 'D':
		return "DataRow", (*decoder).row
	case 'E':
		return "ErrorResponse", (*decoder).fields
	case 'G':
		return "CopyInResponse", (*decoder).copyFormats
	case 'H':
		return "CopyOutResponse", (*decoder).copyFormats
	case 'I':
		return "EmptyQueryResponse", nil
	case 'K':
		return "BackendKeyData", (*decoder).key
	case 'N':
		return "NoticeResponse", (*decoder).fields
	case 'R':
		return "Authentication", (*decoder).authentication
	case 'S':
		return "ParameterStatus", (*decoder).pair
	case 'T':
		return "RowDescription", (*decoder).columns
	case 'V':
		return "FunctionCallResponse", (*decoder).value
	case 'W':
		return "CopyBothResponse", (*decoder).copyFormats
	case 'Z':
		return "ReadyForQuery", (*decoder).status
	case 'c':
		return "CopyDone", nil
	case 'd':
		return "CopyData", (*decoder).rest
	case 'n':
		return "NoData", nil
	case 's':
		return "PortalSuspended", nil
	case 't':
		return "ParameterDescription", (*decoder).types
	case 'v':
		return "NegotiateProtocolVersion", (*decoder).negotiate
	}
	return fmt.Sprintf("Message(%q)", typ), (*decoder).rest
}

// decoder prints one field after the other into out.
type decoder struct {
	b    []byte
	out  strings.Builder
	err  error
	mask Mask
}

// printf adds a word to the line.
func (d *decoder) printf(format string, args ...any) {
	if d.err == nil {
		fmt.Fprintf(&d.out, " "+format, args...)
	}
}

// take is the next n bytes.
func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		if d.err == nil {
			d.err = fmt.Errorf("%d bytes wanted, %d there", n, len(d.b))
		}
		d.b = nil
		return make([]byte, max(0, min(n, 8)))
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// number is an unsigned number of size bytes.
func (d *decoder) number(size int) int {
	var v int
	for _, c := range d.take(size) {
		v = v<<8 | int(c)
	}
	return v
}

// signed is a signed number of size bytes.
func (d *decoder) signed(size int) int {
	v := d.number(size)
	if v >= 1<<(8*size-1) {
		v -= 1 << (8 * size)
	}
	return v
}

// str is a text up to its NUL.
func (d *decoder) str() string {
	i := bytes.IndexByte(d.b, 0)
	if i < 0 {
		if d.err == nil {
			d.err = errors.New("text without an end")
		}
		d.b = nil
		return ""
	}
	s := string(d.b[:i])
	d.b = d.b[i+1:]
	return s
}

// text prints one text.
func (d *decoder) text() { d.printf("%q", d.str()) }

// rest prints all the bytes that are left.
func (d *decoder) rest() { d.printf("%q", d.take(len(d.b))) }

// status prints the transaction byte.
func (d *decoder) status() { d.printf("%c", d.number(1)) }

// pair prints a name and its value.
func (d *decoder) pair() {
	name := d.str()
	d.printf("%s=%q", name, d.str())
}

// pid prints a pid.
func (d *decoder) pid() {
	pid := d.number(4)
	if d.mask.Identity {
		d.printf("pid=*")
		return
	}
	d.printf("pid=%d", pid)
}

// key prints a BackendKeyData.
func (d *decoder) key() {
	d.pid()
	secret := d.take(len(d.b))
	if d.mask.Identity {
		d.printf("secret=* (%d bytes)", len(secret))
		return
	}
	d.printf("secret=%x", secret)
}

// notification prints a NotificationResponse.
func (d *decoder) notification() {
	d.pid()
	d.text()
	d.text()
}

// value prints bytes with a length in front.
func (d *decoder) value() {
	n := d.signed(4)
	if n == -1 {
		d.printf("NULL")
		return
	}
	d.printf("%q", d.take(n))
}

// row prints a DataRow.
func (d *decoder) row() {
	for n := d.number(2); n > 0 && d.err == nil; n-- {
		d.value()
	}
}

// types prints a list of types.
func (d *decoder) types() {
	for n := d.number(2); n > 0 && d.err == nil; n-- {
		d.printf("%s", d.oid(d.number(4)))
	}
}

// firstUserOID is the smallest OID that PostgreSQL gives to what users create.
const firstUserOID = 16384

// oid prints an OID unless it is one that differs between two databases.
func (d *decoder) oid(v int) string {
	if d.mask.OIDs && v >= firstUserOID {
		return "*"
	}
	return fmt.Sprint(v)
}

// columns prints a RowDescription.
func (d *decoder) columns() {
	for n := d.number(2); n > 0 && d.err == nil; n-- {
		name := d.str()
		table, attribute := d.oid(d.number(4)), d.number(2)
		typ, size, mod, format := d.oid(d.number(4)), d.signed(2), d.signed(4), d.number(2)
		d.printf("%q(table %s.%d type %s size %d mod %d format %d)", name, table, attribute, typ, size, mod, format)
	}
}

// copyFormats prints the format of a COPY and of its columns.
func (d *decoder) copyFormats() {
	d.printf("%d", d.number(1))
	for n := d.number(2); n > 0 && d.err == nil; n-- {
		d.printf("%d", d.number(2))
	}
}

// fields prints the fields of an error or notice.
func (d *decoder) fields() {
	for d.err == nil {
		kind := byte(d.number(1))
		if kind == 0 || d.err != nil {
			return
		}
		v := d.str()
		switch {
		case d.mask.Source && (kind == 'F' || kind == 'L'):
		case d.mask.Routine && kind == 'R':
		case d.mask.Identity:
			d.printf("%c=%q", kind, maskPIDs(v))
		default:
			d.printf("%c=%q", kind, v)
		}
	}
}

// maskPIDs replaces the pids of PostgreSQL's messages, as in "Process 4711 waits for …".
func maskPIDs(s string) string {
	for _, before := range []string{"rocess ", "PID ", "pid "} {
		parts := strings.Split(s, before)
		for i, p := range parts[1:] {
			if rest := strings.TrimLeft(p, "0123456789"); rest != p {
				parts[i+1] = "*" + rest
			}
		}
		s = strings.Join(parts, before)
	}
	return s
}

// authentication prints what a node asks for; salts and steps of SASL are never the same twice.
func (d *decoder) authentication() {
	code := d.number(4)
	switch code {
	case 0:
		d.printf("Ok")
	case 3:
		d.printf("CleartextPassword")
	case 5:
		d.take(4)
		d.printf("MD5Password")
	case 10:
		d.printf("SASL")
		for s := d.str(); s != "" && d.err == nil; s = d.str() {
			d.printf("%s", s)
		}
	case 11, 12:
		d.take(len(d.b))
		d.printf("SASL step %d", code)
	default:
		d.printf("code %d", code)
		d.rest()
	}
}

// negotiate prints a NegotiateProtocolVersion.
func (d *decoder) negotiate() {
	version := d.take(4)
	d.printf("%d.%d", binary.BigEndian.Uint16(version), binary.BigEndian.Uint16(version[2:]))
	for n := d.number(4); n > 0 && d.err == nil; n-- {
		d.text()
	}
}
