package pgwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// isProtocol fails unless err is nil or a *ProtocolError with a SQLSTATE and a message.
func isProtocol(t *testing.T, what string, err error) {
	t.Helper()
	var pe *ProtocolError
	if err != nil && (!errors.As(err, &pe) || len(pe.Code) != 5 || pe.Message == "") {
		t.Fatalf("%s: error %#v", what, err)
	}
}

// FuzzFrames walks a stream of messages: every step takes at least a header or ends the walk,
// and what was cut off is what stood there.
func FuzzFrames(f *testing.F) {
	f.Add(AppendSync(AppendQuery(nil, "select 1")))
	f.Add([]byte("Q\x80\x00\x00\x00"))
	f.Add([]byte("D\x00\x00\x00\x05"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var again []byte
		for rest := stream; ; {
			typ, body, next, err := NextMessage(rest)
			if err != nil {
				if err != io.ErrShortBuffer && err != ErrMessageLength {
					t.Fatalf("error %v", err)
				}
				if !bytes.Equal(append(again, next...), stream) {
					t.Fatal("bytes were lost")
				}
				return
			}
			again = AppendMessage(again, typ, body)
			if !bytes.HasPrefix(stream, again) || len(next) != len(stream)-len(again) {
				t.Fatalf("message %q %q is not what stood there", typ, body)
			}
			rest = next
		}
	})
}

// FuzzStartup reads a startup packet, and what it accepts can be said again.
func FuzzStartup(f *testing.F) {
	f.Add(AppendStartup(nil, Version30, []Param{{"user", "u"}, {"options", "-c a=b"}}))
	f.Add(AppendStartup(nil, Version32, []Param{{"user", "u"}, {"_pq_.x", "y"}, {"replication", "database"}}))
	f.Add(AppendSSLRequest(nil))
	f.Add(AppendGSSENCRequest(nil))
	f.Add(AppendCancel(nil, 1, []byte("1234")))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("\x80\x00\x00\x08\x00\x03\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStartup(b)
		isProtocol(t, "ParseStartup", err)
		if err != nil {
			return
		}
		var again []byte
		switch s.Kind {
		case KindSSLRequest:
			again = AppendSSLRequest(nil)
		case KindGSSENCRequest:
			again = AppendGSSENCRequest(nil)
		case KindCancelRequest:
			again = AppendCancel(nil, s.PID, s.Secret)
		case KindStartup:
			checkStartup(t, s)
			return
		default:
			t.Fatalf("kind %d", s.Kind)
		}
		// What stands behind the code of an SSLRequest is of no interest, to PostgreSQL neither.
		if !bytes.HasPrefix(b[4:], again[4:]) {
			t.Fatalf("%q said again is %q", b, again)
		}
	})
}

// checkStartup builds the packet that says the same and reads it.
func checkStartup(t *testing.T, s Startup) {
	if s.User == "" || (s.Database == "") != (s.Replication == ReplicationPhysical) || s.Version>>16 != 3 {
		t.Fatalf("impossible startup %+v", s)
	}
	params := []Param{{"user", s.User}, {"database", s.Database}, {"options", s.Options}}
	switch s.Replication {
	case ReplicationPhysical:
		params = append(params, Param{"replication", "true"})
	case ReplicationDatabase:
		params = append(params, Param{"replication", "database"})
	}
	params = append(append(params, s.Settings...), s.Protocol...)
	b := AppendStartup(nil, s.Version, params)
	if len(b) > MaxStartup {
		return
	}
	again, err := ParseStartup(b)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "startup", again, s)
	_, err = ParseOptions(s.Options)
	isProtocol(t, "ParseOptions", err)
}

// FuzzOptions reads the startup parameter options; the settings that come out can be said again.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"-c", "-c=", "-c =x", "--", "--=", `\`, `-c a\`, "-c a=b --c-d=e", "-e -xy a", "-S 1", "-:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := SplitOptions(text)
		if total := len(strings.Join(args, "")); total > len(text) {
			t.Fatalf("%d bytes of arguments from %d", total, len(text))
		}
		o, err := ParseOptions(text)
		isProtocol(t, "ParseOptions", err)
		var b []byte
		for _, s := range o.Settings {
			if strings.ContainsAny(s.Name, "=-") {
				t.Fatalf("name %q", s.Name)
			}
			b = AppendOption(b, s.Name, s.Value)
		}
		again, err := ParseOptions(string(b))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "settings", again.Settings, o.Settings)
	})
}

// FuzzErrorFields reads an ErrorResponse as a view and field by field: both see the same.
func FuzzErrorFields(f *testing.F) {
	f.Add(AppendError(nil, Report{Severity: "ERROR", Code: "42601", Message: "m", Detail: "d", Hint: "h"})[HeaderSize:])
	f.Add([]byte("Mno code\x00\x00"))
	f.Add([]byte("\x00"))
	f.Add([]byte("C"))
	f.Add([]byte("Ca\x00Cb\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := ErrorFields(body)
		isProtocol(t, "ErrorFields", err)
		if err != nil {
			return
		}
		var fields []Field
		last := map[byte]string{}
		for rest := body; ; {
			kind, value, next, err := NextField(rest)
			if err != nil {
				t.Fatal(err)
			}
			if kind == 0 {
				break
			}
			fields, last[kind], rest = append(fields, Field{kind, string(value)}), string(value), next
		}
		for kind, got := range map[byte][]byte{'V': v.Severity, 'S': v.Localized, 'C': v.Code, 'M': v.Message, 'D': v.Detail, 'H': v.Hint, 'R': v.Routine} {
			if want, ok := last[kind]; string(got) != want || (got != nil) != ok {
				t.Fatalf("field %q is %q, want %q", kind, got, want)
			}
		}
		again := AppendFields(nil, MsgErrorResponse, fields...)[HeaderSize:]
		if len(again) == len(body) && !bytes.Equal(again, body) {
			t.Fatalf("%q said again is %q", body, again)
		}
		v.Fatal()
	})
}

// FuzzClientViews reads a body as every message of a client; what is accepted can be said again
// byte for byte.
func FuzzClientViews(f *testing.F) {
	for _, b := range [][]byte{
		AppendQuery(nil, "select 1"), AppendParse(nil, "s", "select $1", AppendOIDs(nil, 23)), AppendBind(nil, "p", "s", []byte("x"), nil),
		AppendDescribe(nil, 'S', "s"), AppendExecute(nil, "p", 1), AppendSASLInitial(nil, "SCRAM-SHA-256", []byte("n,,")),
		AppendPassword(nil, "x"),
	} {
		f.Add(b[HeaderSize:])
	}
	f.Add([]byte("\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, again := range clientAgain(t, body) {
			if !bytes.Equal(again[HeaderSize:], body) {
				t.Fatalf("%q said again is %q", body, again)
			}
		}
	})
}

// clientAgain is the body said again by every builder of whose message it is one.
func clientAgain(t *testing.T, body []byte) (again [][]byte) {
	keep := func(what string, err error, b []byte) {
		isProtocol(t, what, err)
		if err == nil {
			again = append(again, b)
		}
	}
	sql, err := ParseQuery(body)
	keep("Query", err, AppendQuery(nil, sql))
	parse, err := ParseParse(body)
	keep("Parse", err, AppendParse(nil, parse.Name, parse.SQL, parse.Types))
	bind, err := ParseBind(body)
	keep("Bind", err, AppendBindHead(nil, bind.Portal, bind.Statement, bind.Rest))
	if err == nil {
		walkArguments(t, bind.Rest)
	}
	kind, name, err := ParseDescribe(body)
	keep("Describe", err, AppendDescribe(nil, kind, name))
	kind, name, err = ParseClose(body)
	keep("Close", err, AppendClose(nil, kind, name))
	portal, rows, err := ParseExecute(body)
	keep("Execute", err, AppendExecute(nil, portal, rows))
	password, err := ParsePassword(body)
	keep("Password", err, AppendPassword(nil, password))
	mechanism, data, err := ParseSASLInitial(body)
	keep("SASL", err, AppendSASLInitial(nil, mechanism, data))
	return again
}

// walkArguments takes all values out of a Bind: as many as it says, and not more bytes than
// there are.
func walkArguments(t *testing.T, rest []byte) {
	args, err := ParseArguments(rest)
	isProtocol(t, "ParseArguments", err)
	if err != nil {
		return
	}
	n, total := 0, 0
	for v, ok := args.Next(); ok; v, ok = args.Next() {
		n, total = n+1, total+len(v)
	}
	if n != args.Count || total > len(rest) {
		t.Fatalf("%d values of %d, %d bytes of %d", n, args.Count, total, len(rest))
	}
	for i := range args.Count {
		args.Formats.For(i)
	}
}

// FuzzNodeViews reads a body as every message of a node; what is accepted can be said again.
func FuzzNodeViews(f *testing.F) {
	for _, b := range [][]byte{
		AppendReadyForQuery(nil, 'I'), AppendParameterStatus(nil, "a", "b"), AppendBackendKeyData(nil, 1, []byte("1234")),
		AppendNotification(nil, 1, "c", "p"), AppendNegotiate(nil, Version30, []string{"_pq_.x"}), AppendAuthSASL(nil, "a", "b"),
		AppendTextColumns(nil, "a"), AppendDataRow(nil, []byte("a"), nil),
	} {
		f.Add(b[HeaderSize:])
	}
	f.Add([]byte("\x00\x03\x00\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x01\x80\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, again := range nodeAgain(t, body) {
			if !bytes.Equal(again[HeaderSize:], body) {
				t.Fatalf("%q said again is %q", body, again)
			}
		}
	})
}

// nodeAgain is clientAgain for messages of nodes.
func nodeAgain(t *testing.T, body []byte) (again [][]byte) {
	keep := func(what string, err error, b []byte) {
		isProtocol(t, what, err)
		if err == nil {
			again = append(again, b)
		}
	}
	status, err := ParseReadyForQuery(body)
	keep("ReadyForQuery", err, AppendReadyForQuery(nil, status))
	name, value, err := ParseParameterStatus(body)
	keep("ParameterStatus", err, AppendParameterStatus(nil, name, value))
	pid, secret, err := ParseBackendKeyData(body)
	keep("BackendKeyData", err, AppendBackendKeyData(nil, pid, secret))
	pid, channel, payload, err := ParseNotification(body)
	keep("NotificationResponse", err, AppendNotification(nil, pid, channel, payload))
	version, unknown, err := ParseNegotiate(body)
	keep("NegotiateProtocolVersion", err, AppendNegotiate(nil, version, unknown))
	code, data, err := ParseAuthentication(body)
	keep("Authentication", err, AppendAuthentication(nil, code, data))
	for m := []byte("x"); err == nil && len(m) > 0; {
		m, data, err = NextMechanism(data)
		isProtocol(t, "NextMechanism", err)
	}
	rows, err := ParseRowDescription(body)
	keep("RowDescription", err, AppendRowDescription(nil, columns(rows)...))
	values, err := ParseDataRow(body)
	keep("DataRow", err, AppendDataRow(nil, cells(values)...))
	_, err = ParseParameterDescription(body)
	isProtocol(t, "ParameterDescription", err)
	_, _, err = ParseCopyResponse(body)
	isProtocol(t, "CopyResponse", err)
	return again
}

// columns is all columns of a RowDescription.
func columns(rows Rows) (all []Column) {
	for c, ok := rows.Next(); ok; c, ok = rows.Next() {
		all = append(all, c)
	}
	return all
}

// cells is all values of a DataRow.
func cells(values Values) (all [][]byte) {
	for v, ok := values.Next(); ok; v, ok = values.Next() {
		all = append(all, v)
	}
	return all
}
