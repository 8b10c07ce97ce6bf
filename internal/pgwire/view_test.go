package pgwire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// body is the body of the one message in b.
func body(t testing.TB, typ byte, b []byte) []byte {
	t.Helper()
	got, body, rest, err := NextMessage(b)
	if err != nil || got != typ || len(rest) != 0 {
		t.Fatalf("not one message of type %q: %q (%v)", typ, b, err)
	}
	return body
}

// equal fails unless two values are equal, where nil and empty slices differ.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s = %#v, want %#v", what, got, want)
	}
}

func TestClientMessages(t *testing.T) {
	sql, err := ParseQuery(body(t, MsgQuery, AppendQuery(nil, "select 'ä'")))
	equal(t, "Query", string(sql), "select 'ä'")
	equal(t, "error", err, nil)

	parse, err := ParseParse(body(t, MsgParse, AppendParse(nil, "s1", []byte("select $1"), AppendOIDs(nil, 23, 1<<32-1))))
	equal(t, "error", err, nil)
	equal(t, "Parse", []string{string(parse.Name), string(parse.SQL)}, []string{"s1", "select $1"})
	equal(t, "types", []uint32{parse.Types.At(0), parse.Types.At(1)}, []uint32{23, 1<<32 - 1})
	equal(t, "number of types", parse.Types.Len(), 2)

	raw := AppendBind(nil, "p", "s1", []byte("a"), nil, []byte{})
	bind, err := ParseBind(body(t, MsgBind, raw))
	equal(t, "error", err, nil)
	equal(t, "Bind", []string{string(bind.Portal), string(bind.Statement)}, []string{"p", "s1"})
	equal(t, "Bind again", AppendBindHead(nil, bind.Portal, bind.Statement, bind.Rest), raw)
	args, err := ParseArguments(bind.Rest)
	equal(t, "error", err, nil)
	equal(t, "count", args.Count, 3)
	for _, want := range [][]byte{[]byte("a"), nil, {}} {
		got, ok := args.Next()
		equal(t, "argument", got, want)
		equal(t, "argument there", ok, true)
	}
	if _, ok := args.Next(); ok {
		t.Error("a fourth argument")
	}
	equal(t, "bare Bind", AppendBindHead(nil, "", "x", nil), AppendBind(nil, "", "x"))

	kind, name, err := ParseDescribe(body(t, MsgDescribe, AppendDescribe(nil, KindPortal, "p")))
	equal(t, "Describe", []any{kind, string(name), err}, []any{KindPortal, "p", nil})
	kind, name, err = ParseClose(body(t, MsgClose, AppendClose(nil, KindStatement, "s")))
	equal(t, "Close", []any{kind, string(name), err}, []any{KindStatement, "s", nil})
	portal, rows, err := ParseExecute(body(t, MsgExecute, AppendExecute(nil, "p", -5)))
	equal(t, "Execute", []any{string(portal), rows, err}, []any{"p", int32(-5), nil})
	reason, err := ParseCopyFail(body(t, MsgCopyFail, AppendCopyFail(nil, "no")))
	equal(t, "CopyFail", []any{string(reason), err}, []any{"no", nil})
	password, err := ParsePassword(body(t, MsgPassword, AppendPassword(nil, "geheim")))
	equal(t, "Password", []any{string(password), err}, []any{"geheim", nil})
	mechanism, data, err := ParseSASLInitial(body(t, MsgPassword, AppendSASLInitial(nil, "SCRAM-SHA-256", []byte("n,,"))))
	equal(t, "SASLInitialResponse", []any{string(mechanism), string(data), err}, []any{"SCRAM-SHA-256", "n,,", nil})
	_, data, err = ParseSASLInitial(body(t, MsgPassword, AppendSASLInitial(nil, "X", nil)))
	equal(t, "SASLInitialResponse without data", []any{data, err}, []any{[]byte(nil), nil})
	equal(t, "SASLResponse", body(t, MsgPassword, AppendSASLResponse(nil, []byte("c=biws"))), []byte("c=biws"))
	for typ, b := range map[byte][]byte{
		MsgSync: AppendSync(nil), MsgFlush: AppendFlush(nil), MsgTerminate: AppendTerminate(nil), MsgCopyDone: AppendCopyDone(nil),
	} {
		equal(t, "message without fields", ParseEmpty(body(t, typ, b)), nil)
	}
}

func TestNodeMessages(t *testing.T) {
	status, err := ParseReadyForQuery(body(t, MsgReadyForQuery, AppendReadyForQuery(nil, TxFailed)))
	equal(t, "ReadyForQuery", []any{status, err}, []any{TxFailed, nil})
	name, value, err := ParseParameterStatus(body(t, MsgParameterStatus, AppendParameterStatus(nil, "TimeZone", []byte("UTC"))))
	equal(t, "ParameterStatus", []any{string(name), string(value), err}, []any{"TimeZone", "UTC", nil})
	for _, secret := range []string{"1234", strings.Repeat("x", MaxCancelSecret)} {
		pid, got, err := ParseBackendKeyData(body(t, MsgBackendKeyData, AppendBackendKeyData(nil, 5_000_000, []byte(secret))))
		equal(t, "BackendKeyData", []any{pid, string(got), err}, []any{uint32(5_000_000), secret, nil})
	}
	pid, channel, payload, err := ParseNotification(body(t, MsgNotificationResponse, AppendNotification(nil, 7, "c", "p")))
	equal(t, "NotificationResponse", []any{pid, string(channel), string(payload), err}, []any{uint32(7), "c", "p", nil})
	tag, err := ParseCommandComplete(body(t, MsgCommandComplete, AppendCommandComplete(nil, "SELECT 1")))
	equal(t, "CommandComplete", []any{string(tag), err}, []any{"SELECT 1", nil})
	version, unknown, err := ParseNegotiate(body(t, MsgNegotiateProtocolVersion, AppendNegotiate(nil, Version32, []string{"_pq_.a", "_pq_.b"})))
	equal(t, "NegotiateProtocolVersion", []any{version, unknown, err}, []any{Version32, []string{"_pq_.a", "_pq_.b"}, nil})
	code, _, err := ParseAuthentication(body(t, MsgAuthentication, AppendAuthOK(nil)))
	equal(t, "AuthenticationOk", []any{code, err}, []any{AuthOK, nil})

	code, data, err := ParseAuthentication(body(t, MsgAuthentication, AppendAuthSASL(nil, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")))
	equal(t, "AuthenticationSASL", []any{code, err}, []any{AuthSASL, nil})
	for _, want := range []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", ""} {
		var m []byte
		m, data, err = NextMechanism(data)
		equal(t, "mechanism", []any{string(m), err}, []any{want, nil})
	}

	row, err := ParseDataRow(body(t, MsgDataRow, AppendDataRow(nil, []byte("1"), nil, []byte{})))
	equal(t, "DataRow", []any{row.Count, err}, []any{3, nil})
	for _, want := range [][]byte{[]byte("1"), nil, {}} {
		got, ok := row.Next()
		equal(t, "value", []any{got, ok}, []any{want, true})
	}
	if _, ok := row.Next(); ok {
		t.Error("a fourth value")
	}
	equal(t, "DataRow of texts", AppendTextRow(nil, "a", ""), AppendDataRow(nil, []byte("a"), []byte{}))

	types, err := ParseParameterDescription(AppendOIDs(OIDs{0, 2}, 23, 25))
	equal(t, "ParameterDescription", []any{types.Len(), types.At(1), err}, []any{2, uint32(25), nil})
	format, columns, err := ParseCopyResponse([]byte{1, 0, 2, 0, 1, 0, 0})
	equal(t, "CopyInResponse", []any{format, columns.Len(), columns.At(0), columns.At(1), err}, []any{byte(1), 2, uint16(1), uint16(0), nil})
}

func TestRowDescription(t *testing.T) {
	want := []Column{
		{Name: []byte("a"), Table: 16384, Attribute: 1, Type: 23, TypeSize: 4, TypeMod: -1},
		{Name: []byte{}, Type: 1<<32 - 1, TypeSize: -2, TypeMod: 1<<31 - 1, Format: 1},
	}
	rows, err := ParseRowDescription(body(t, MsgRowDescription, AppendRowDescription(nil, want...)))
	equal(t, "error", err, nil)
	for _, w := range want {
		got, ok := rows.Next()
		equal(t, "column", []any{got, ok}, []any{w, true})
	}
	if _, ok := rows.Next(); ok {
		t.Error("a third column")
	}
	rows, err = ParseRowDescription(body(t, MsgRowDescription, AppendTextColumns(nil, "x")))
	equal(t, "error", err, nil)
	got, _ := rows.Next()
	equal(t, "column of text", got, Column{Name: []byte("x"), Type: TypeText, TypeSize: -1, TypeMod: -1})
}

func TestErrorFields(t *testing.T) {
	b := AppendError(nil, Report{
		Severity: "FATAL", Code: "57P03", Message: "no primary", Detail: "d", Hint: "h", Routine: "pgweir",
	})
	v, err := ErrorFields(body(t, MsgErrorResponse, b))
	equal(t, "error", err, nil)
	equal(t, "fields", v, ErrorView{
		Severity: []byte("FATAL"), Localized: []byte("FATAL"), Code: []byte("57P03"), Message: []byte("no primary"),
		Detail: []byte("d"), Hint: []byte("h"), Routine: []byte("pgweir"),
	})
	equal(t, "Fatal", v.Fatal(), true)

	v, err = ErrorFields(body(t, MsgNoticeResponse, AppendNotice(nil, Report{Severity: "NOTICE", Message: "m"})))
	equal(t, "notice", []any{string(v.Message), v.Code, v.Fatal(), err}, []any{"m", []byte(nil), false, nil})

	v, err = ErrorFields([]byte("SFEHLER\x00VERROR\x00P7\x00ssch\x00ttab\x00zunknown\x00cone\x00\x00"))
	equal(t, "error", err, nil)
	equal(t, "position, schema, table", []string{string(v.Position), string(v.Schema), string(v.Table)}, []string{"7", "sch", "tab"})
	for in, want := range map[string]error{
		"":               ErrMessageShort,
		"\x00":           nil,
		"\x00x":          ErrMessageFormat,
		"M":              ErrMessageString,
		"Mno end":        ErrMessageString,
		"Mno terminator": ErrMessageString,
		"Mm\x00":         ErrMessageShort,
	} {
		if _, err := ErrorFields([]byte(in)); !errors.Is(err, want) {
			t.Errorf("ErrorFields(%q): %v, want %v", in, err, want)
		}
	}
}

// TestTruncated cuts well-formed bodies at every place and puts a byte behind them: there is an
// error each time, and it is a *ProtocolError.
func TestTruncated(t *testing.T) {
	parsers := map[string]struct {
		message []byte
		parse   func([]byte) error
	}{
		"Query":   {AppendQuery(nil, "select 1"), func(b []byte) error { _, err := ParseQuery(b); return err }},
		"Parse":   {AppendParse(nil, "n", "sql", AppendOIDs(nil, 1, 2)), func(b []byte) error { _, err := ParseParse(b); return err }},
		"Execute": {AppendExecute(nil, "p", 1), func(b []byte) error { _, _, err := ParseExecute(b); return err }},
		"Describe": {AppendDescribe(nil, 'S', "p"), func(b []byte) error {
			_, _, err := ParseDescribe(b)
			return err
		}},
		"Close": {AppendClose(nil, 'S', "p"), func(b []byte) error { _, _, err := ParseClose(b); return err }},
		"Bind": {AppendBind(nil, "p", "s", []byte("value"), nil), func(b []byte) error {
			v, err := ParseBind(b)
			if err != nil {
				return err
			}
			_, err = ParseArguments(v.Rest)
			return err
		}},
		"SASL":          {AppendSASLInitial(nil, "m", []byte("data")), func(b []byte) error { _, _, err := ParseSASLInitial(b); return err }},
		"Password":      {AppendPassword(nil, "pw"), func(b []byte) error { _, err := ParsePassword(b); return err }},
		"ErrorResponse": {AppendError(nil, Report{Code: "XX000", Message: "m"}), func(b []byte) error { _, err := ErrorFields(b); return err }},
		"ReadyForQuery": {AppendReadyForQuery(nil, 'I'), func(b []byte) error { _, err := ParseReadyForQuery(b); return err }},
		"ParameterStatus": {AppendParameterStatus(nil, "a", "b"), func(b []byte) error {
			_, _, err := ParseParameterStatus(b)
			return err
		}},
		"Notification":   {AppendNotification(nil, 1, "a", "b"), func(b []byte) error { _, _, _, err := ParseNotification(b); return err }},
		"RowDescription": {AppendTextColumns(nil, "a", "b"), func(b []byte) error { _, err := ParseRowDescription(b); return err }},
		"DataRow":        {AppendTextRow(nil, "a", "b"), func(b []byte) error { _, err := ParseDataRow(b); return err }},
		"Negotiate":      {AppendNegotiate(nil, Version30, []string{"a", "b"}), func(b []byte) error { _, _, err := ParseNegotiate(b); return err }},
		"BackendKeyData": {AppendBackendKeyData(nil, 1, make([]byte, 4)), func(b []byte) error {
			_, _, err := ParseBackendKeyData(b)
			if len(b) == 9 { // a longer secret is one of protocol 3.2
				return ErrMessageFormat
			}
			return err
		}},
	}
	for name, p := range parsers {
		_, body, _, _ := NextMessage(p.message)
		if err := p.parse(body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var pe *ProtocolError
		for i := range body {
			if err := p.parse(bytes.Clone(body[:i])); !errors.As(err, &pe) {
				t.Errorf("%s cut at %d: %v", name, i, err)
			}
		}
		if err := p.parse(append(bytes.Clone(body), 0)); !errors.As(err, &pe) {
			t.Errorf("%s and a byte: %v", name, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	for name, c := range map[string]struct {
		got  func() error
		want string
	}{
		"Describe of what": {func() error { _, _, err := ParseDescribe([]byte("Xa\x00")); return err }, "invalid DESCRIBE message subtype 88 (SQLSTATE 08P01)"},
		"Close of what":    {func() error { _, _, err := ParseClose([]byte("\x00a\x00")); return err }, "invalid CLOSE message subtype 0 (SQLSTATE 08P01)"},
		"empty password":   {func() error { _, err := ParsePassword([]byte("\x00")); return err }, "empty password returned by client (SQLSTATE 28P01)"},
		"two passwords":    {func() error { _, err := ParsePassword([]byte("a\x00b\x00")); return err }, "invalid password packet size (SQLSTATE 08P01)"},
		"negative value": {func() error {
			_, err := ParseArguments([]byte("\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00"))
			return err
		}, "insufficient data left in message (SQLSTATE 08P01)"},
		"enormous value": {func() error {
			_, err := ParseDataRow([]byte("\x00\x01\x7f\xff\xff\xff\x00\x00"))
			return err
		}, "insufficient data left in message (SQLSTATE 08P01)"},
		"negative row": {func() error { _, err := ParseDataRow([]byte("\x00\x01\x80\x00\x00\x00")); return err }, "insufficient data left in message (SQLSTATE 08P01)"},
		"many types":   {func() error { _, err := ParseParse([]byte("\x00\x00\xff\xff")); return err }, "insufficient data left in message (SQLSTATE 08P01)"},
		"many options": {func() error {
			_, _, err := ParseNegotiate([]byte("\x00\x03\x00\x00\xff\xff\xff\xff"))
			return err
		}, "invalid string in message (SQLSTATE 08P01)"},
		"status": {func() error { _, err := ParseReadyForQuery([]byte("X")); return err }, "invalid message format (SQLSTATE 08P01)"},
		"short secret": {func() error {
			_, _, err := ParseBackendKeyData([]byte("1234123"))
			return err
		}, "insufficient data left in message (SQLSTATE 08P01)"},
		"long secret": {func() error {
			_, _, err := ParseBackendKeyData(make([]byte, 4+MaxCancelSecret+1))
			return err
		}, "invalid message format (SQLSTATE 08P01)"},
	} {
		err := c.got()
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestBuildersCutAtNUL shows that no text can hide a second message or another field.
func TestBuildersCutAtNUL(t *testing.T) {
	for name, c := range map[string][2][]byte{
		"Query":           {AppendQuery(nil, "a\x00Q\x00\x00\x00\x04"), AppendQuery(nil, "a")},
		"Parse":           {AppendParse(nil, "n\x00x", []byte("s\x00y"), nil), AppendParse(nil, "n", "s", nil)},
		"ParameterStatus": {AppendParameterStatus(nil, "n\x00x", "v\x00"), AppendParameterStatus(nil, "n", "v")},
		"Error": {
			AppendError(nil, Report{Code: "XX000", Message: "m\x00C00000"}),
			AppendError(nil, Report{Code: "XX000", Message: "m"}),
		},
		"Startup": {
			AppendStartup(nil, Version30, []Param{{"user", "u\x00database\x00x"}}),
			AppendStartup(nil, Version30, []Param{{"user", "u"}}),
		},
	} {
		if !bytes.Equal(c[0], c[1]) {
			t.Errorf("%s: %q, want %q", name, c[0], c[1])
		}
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct {
		f    Formats
		i    int
		want uint16
	}{
		{nil, 0, 0},
		{nil, 7, 0},
		{Formats{0, 1}, 7, 1},
		{Formats{0, 0, 0, 1}, 0, 0},
		{Formats{0, 0, 0, 1}, 1, 1},
		{Formats{0, 0, 0, 1}, 2, 0},
	} {
		equal(t, "format", c.f.For(c.i), c.want)
	}
}

func TestErrorV2(t *testing.T) {
	_, err := ParseStartup(AppendStartup(nil, 2<<16, nil))
	var pe *ProtocolError
	if !errors.As(err, &pe) {
		t.Fatal(err)
	}
	got := AppendErrorV2(nil, "FATAL", pe.Message)
	equal(t, "answer to protocol 2", string(got),
		"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\x00")
}
