package pgwire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	pgproto3 "github.com/jackc/pgproto3/v2"
)

// secondOpinion is what pgproto3/v2 reads from one whole message of a client or node. It is
// archived with an unfixed panic (GO-2026-4518: a negative length inside of a message), which
// is recovered here and counted; panicked tells of it.
func secondOpinion(message []byte, fromNode bool) (said any, err error, panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			said, err, panicked = nil, fmt.Errorf("panic: %v", p), true
		}
	}()
	r := pgproto3.NewChunkReader(bytes.NewReader(message))
	if fromNode {
		said, err = pgproto3.NewFrontend(r, nil).Receive()
		return said, err, false
	}
	said, err = pgproto3.NewBackend(r, nil).Receive()
	return said, err, false
}

// FuzzAgainstPgproto3 reads one message with this package and with pgproto3/v2. Whatever this
// package accepts the other one accepts, and reads the same from it. Whatever the other accepts
// and this package refuses has bytes behind its last field, which only the server checks, or is
// on the list in mayRefuse.
func FuzzAgainstPgproto3(f *testing.F) {
	for _, b := range clientSeeds() {
		f.Add(b, false)
	}
	for _, b := range nodeSeeds() {
		f.Add(b, true)
	}
	f.Add([]byte("D\x00\x00\x00\x0a\x00\x01\x80\x00\x00\x00"), true)
	f.Add([]byte("B\x00\x00\x00\x10\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00"), false)
	var panics atomic.Int64
	f.Cleanup(func() {
		if n := panics.Load(); n > 0 {
			f.Logf("pgproto3/v2 panicked %d times", n)
		}
	})
	f.Fuzz(func(t *testing.T, message []byte, fromNode bool) {
		typ, body, rest, err := NextMessage(message)
		if err != nil || len(rest) > 0 {
			return
		}
		mine, known, err := read(typ, body, fromNode)
		if !known {
			return
		}
		said, otherErr, panicked := secondOpinion(message, fromNode)
		switch {
		case panicked:
			panics.Add(1)
			if err == nil {
				t.Fatalf("accepted what makes pgproto3 panic: %q", message)
			}
		case err == nil && otherErr != nil:
			if !mayAccept(typ, body, fromNode) {
				t.Fatalf("accepted %q, pgproto3 says %v", message, otherErr)
			}
		case err != nil && otherErr == nil:
			if !errors.Is(err, ErrMessageFormat) && !mayRefuse(typ, body, fromNode) {
				t.Fatalf("refused %q (%v), pgproto3 reads %#v", message, err, said)
			}
		case err == nil:
			if other := show(said); other != mine {
				t.Fatalf("%q:\n  pgwire   %s\n  pgproto3 %s", message, mine, other)
			}
		}
	})
}

// mayAccept is what pgproto3 refuses and PostgreSQL takes.
func mayAccept(typ byte, body []byte, fromNode bool) bool {
	// Secrets of more than 4 bytes came with protocol 3.2.
	return fromNode && typ == MsgBackendKeyData && len(body) != 8
}

// mayRefuse is what pgproto3 takes and PostgreSQL refuses otherwise than for bytes left over.
func mayRefuse(typ byte, body []byte, fromNode bool) bool {
	switch {
	case fromNode:
		// pgproto3 does not compare the number of types with how many there are.
		return typ == MsgParameterDescription
	case typ == MsgDescribe || typ == MsgClose:
		return len(body) > 0 && body[0] != KindStatement && body[0] != KindPortal
	}
	return false
}

// clientSeeds is one message of every kind that is compared.
func clientSeeds() [][]byte {
	return [][]byte{
		AppendQuery(nil, "select 1"),
		AppendParse(nil, "s", "select $1", AppendOIDs(nil, 23, 25)),
		AppendBind(nil, "p", "s", []byte("x"), nil, []byte{}),
		AppendDescribe(nil, KindPortal, "p"),
		AppendClose(nil, KindStatement, "s"),
		AppendExecute(nil, "p", 10),
		AppendCopyFail(nil, "no"),
		AppendSync(nil), AppendFlush(nil), AppendTerminate(nil), AppendCopyDone(nil),
	}
}

// nodeSeeds is the same for nodes.
func nodeSeeds() [][]byte {
	return [][]byte{
		AppendError(nil, Report{Severity: "ERROR", Code: "42601", Message: "m", Detail: "d", Hint: "h", Routine: "r"}),
		AppendNotice(nil, Report{Severity: "NOTICE", Code: "00000", Message: "m"}),
		AppendReadyForQuery(nil, TxOpen),
		AppendParameterStatus(nil, "TimeZone", "UTC"),
		AppendBackendKeyData(nil, 1, []byte("1234")),
		AppendNotification(nil, 1, "channel", "payload"),
		AppendCommandComplete(nil, "INSERT 0 1"),
		AppendTextColumns(nil, "a", "b"),
		AppendDataRow(nil, []byte("1"), nil, []byte{}),
		AppendMessage(nil, MsgParameterDescription, []byte{0, 1, 0, 0, 0, 23}),
		AppendMessage(nil, MsgCopyInResponse, []byte{0, 0, 2, 0, 0, 0, 1}),
		AppendAuthOK(nil),
	}
}

// read is what this package reads from a message, in the form of show. known is false for types
// that are not compared.
func read(typ byte, body []byte, fromNode bool) (said string, known bool, err error) {
	if fromNode {
		return readNode(typ, body)
	}
	return readClient(typ, body)
}

// readClient reads a message of a client.
func readClient(typ byte, body []byte) (said string, known bool, err error) {
	switch typ {
	case MsgQuery:
		sql, err := ParseQuery(body)
		return fmt.Sprintf("Query %q", sql), true, err
	case MsgParse:
		v, err := ParseParse(body)
		said = fmt.Sprintf("Parse %q %q", v.Name, v.SQL)
		for i := range v.Types.Len() {
			said += fmt.Sprintf(" %d", v.Types.At(i))
		}
		return said, true, err
	case MsgBind:
		said, err := readBind(body)
		return said, true, err
	case MsgDescribe:
		kind, name, err := ParseDescribe(body)
		return fmt.Sprintf("Describe %c %q", kind, name), true, err
	case MsgClose:
		kind, name, err := ParseClose(body)
		return fmt.Sprintf("Close %c %q", kind, name), true, err
	case MsgExecute:
		portal, rows, err := ParseExecute(body)
		return fmt.Sprintf("Execute %q %d", portal, uint32(rows)), true, err
	case MsgCopyFail:
		reason, err := ParseCopyFail(body)
		return fmt.Sprintf("CopyFail %q", reason), true, err
	}
	return "", false, nil
}

// readBind reads a Bind whole.
func readBind(body []byte) (string, error) {
	v, err := ParseBind(body)
	if err != nil {
		return "", err
	}
	a, err := ParseArguments(v.Rest)
	if err != nil {
		return "", err
	}
	said := fmt.Sprintf("Bind %q %q formats", v.Portal, v.Statement)
	for i := range a.Formats.Len() {
		said += fmt.Sprintf(" %d", a.Formats.At(i))
	}
	for value, ok := a.Next(); ok; value, ok = a.Next() {
		said += showValue(value)
	}
	said += " results"
	for i := range a.Results.Len() {
		said += fmt.Sprintf(" %d", a.Results.At(i))
	}
	return said, nil
}

// readNode reads a message of a node.
func readNode(typ byte, body []byte) (said string, known bool, err error) {
	switch typ {
	case MsgErrorResponse, MsgNoticeResponse:
		v, err := ErrorFields(body)
		position, _ := strconv.ParseInt(string(v.Position), 10, 32)
		return fmt.Sprintf("Error %q %q %q %q %q %q %d %q %q %q", v.Localized, v.Severity, v.Code, v.Message, v.Detail, v.Hint,
			int32(position), v.Schema, v.Table, v.Routine), true, err
	case MsgReadyForQuery:
		status, err := ParseReadyForQuery(body)
		if err != nil && len(body) == 1 {
			err = ErrMessageFormat // pgproto3 takes any byte
		}
		return fmt.Sprintf("ReadyForQuery %c", status), true, err
	case MsgParameterStatus:
		name, value, err := ParseParameterStatus(body)
		return fmt.Sprintf("ParameterStatus %q %q", name, value), true, err
	case MsgBackendKeyData:
		pid, secret, err := ParseBackendKeyData(body)
		return fmt.Sprintf("BackendKeyData %d %x", pid, secret), true, err
	case MsgNotificationResponse:
		pid, channel, payload, err := ParseNotification(body)
		return fmt.Sprintf("Notification %d %q %q", pid, channel, payload), true, err
	case MsgCommandComplete:
		tag, err := ParseCommandComplete(body)
		return fmt.Sprintf("CommandComplete %q", tag), true, err
	case MsgRowDescription:
		rows, err := ParseRowDescription(body)
		said = "RowDescription"
		for _, c := range columns(rows) {
			said += fmt.Sprintf(" %q %d %d %d %d %d %d", c.Name, c.Table, c.Attribute, c.Type, c.TypeSize, c.TypeMod, int16(c.Format))
		}
		return said, true, err
	case MsgDataRow:
		values, err := ParseDataRow(body)
		said = "DataRow"
		for _, v := range cells(values) {
			said += showValue(v)
		}
		return said, true, err
	case MsgParameterDescription:
		types, err := ParseParameterDescription(body)
		said = "ParameterDescription"
		for i := range types.Len() {
			said += fmt.Sprintf(" %d", types.At(i))
		}
		return said, true, err
	}
	return "", false, nil
}

// showValue is a value of a row or Bind.
func showValue(v []byte) string {
	if v == nil {
		return " NULL"
	}
	return fmt.Sprintf(" %q", v)
}

// show is what pgproto3 read, in the form of read.
func show(said any) string {
	switch m := said.(type) {
	case *pgproto3.Query:
		return fmt.Sprintf("Query %q", m.String)
	case *pgproto3.Parse:
		s := fmt.Sprintf("Parse %q %q", m.Name, m.Query)
		for _, o := range m.ParameterOIDs {
			s += fmt.Sprintf(" %d", o)
		}
		return s
	case *pgproto3.Bind:
		s := fmt.Sprintf("Bind %q %q formats", m.DestinationPortal, m.PreparedStatement)
		for _, c := range m.ParameterFormatCodes {
			s += fmt.Sprintf(" %d", uint16(c))
		}
		for _, v := range m.Parameters {
			s += showValue(v)
		}
		s += " results"
		for _, c := range m.ResultFormatCodes {
			s += fmt.Sprintf(" %d", uint16(c))
		}
		return s
	case *pgproto3.Describe:
		return fmt.Sprintf("Describe %c %q", m.ObjectType, m.Name)
	case *pgproto3.Close:
		return fmt.Sprintf("Close %c %q", m.ObjectType, m.Name)
	case *pgproto3.Execute:
		return fmt.Sprintf("Execute %q %d", m.Portal, m.MaxRows)
	case *pgproto3.CopyFail:
		return fmt.Sprintf("CopyFail %q", m.Message)
	case *pgproto3.ErrorResponse:
		return showError(m)
	case *pgproto3.NoticeResponse:
		return showError((*pgproto3.ErrorResponse)(m))
	}
	return showNode(said)
}

// showError is an error or notice that pgproto3 read.
func showError(m *pgproto3.ErrorResponse) string {
	return fmt.Sprintf("Error %q %q %q %q %q %q %d %q %q %q", m.Severity, m.SeverityUnlocalized, m.Code, m.Message,
		m.Detail, m.Hint, m.Position, m.SchemaName, m.TableName, m.Routine)
}

// showNode is show for the rest of a node's messages.
func showNode(said any) string {
	switch m := said.(type) {
	case *pgproto3.ReadyForQuery:
		return fmt.Sprintf("ReadyForQuery %c", m.TxStatus)
	case *pgproto3.ParameterStatus:
		return fmt.Sprintf("ParameterStatus %q %q", m.Name, m.Value)
	case *pgproto3.BackendKeyData:
		return fmt.Sprintf("BackendKeyData %d %08x", m.ProcessID, m.SecretKey)
	case *pgproto3.NotificationResponse:
		return fmt.Sprintf("Notification %d %q %q", m.PID, m.Channel, m.Payload)
	case *pgproto3.CommandComplete:
		return fmt.Sprintf("CommandComplete %q", m.CommandTag)
	case *pgproto3.RowDescription:
		s := "RowDescription"
		for _, f := range m.Fields {
			s += fmt.Sprintf(" %q %d %d %d %d %d %d", f.Name, f.TableOID, f.TableAttributeNumber, f.DataTypeOID, f.DataTypeSize, f.TypeModifier, f.Format)
		}
		return s
	case *pgproto3.DataRow:
		s := "DataRow"
		for _, v := range m.Values {
			s += showValue(v)
		}
		return s
	case *pgproto3.ParameterDescription:
		s := "ParameterDescription"
		for _, o := range m.ParameterOIDs {
			s += fmt.Sprintf(" %d", o)
		}
		return s
	}
	return fmt.Sprintf("%#v", said)
}

// TestKnownPanic shows that the second codec's panic is recovered and told apart, and that this
// package refuses what causes it.
func TestKnownPanic(t *testing.T) {
	for _, c := range []struct {
		message  string
		fromNode bool
	}{
		{"D\x00\x00\x00\x0a\x00\x01\x80\x00\x00\x00", true},
		{"B\x00\x00\x00\x10\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00", false},
		{"Q\x00\x00\x00\x04", false},
	} {
		if _, _, panicked := secondOpinion([]byte(c.message), c.fromNode); !panicked {
			t.Errorf("%q: pgproto3/v2 does not panic any more", c.message)
		}
		if _, known, err := read(c.message[0], []byte(c.message[HeaderSize:]), c.fromNode); !known || err == nil {
			t.Errorf("%q: accepted", c.message)
		}
	}
}
