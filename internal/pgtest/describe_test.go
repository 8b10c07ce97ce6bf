package pgtest

import (
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		m    Message
		want string
	}{
		{AuthOK(), "Authentication Ok"},
		{Msg('R', int32(3)), "Authentication CleartextPassword"},
		{Msg('R', int32(5), []byte("salt")), "Authentication MD5Password"},
		{Msg('R', int32(10), "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", byte(0)), "Authentication SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256"},
		{Msg('R', int32(11), []byte("r=x")), "Authentication SASL step 11"},
		{Msg('R', int32(99), []byte("x")), `Authentication code 99 "x"`},
		{BackendKeyData(7, []byte("abcd")), "BackendKeyData pid=* secret=* (4 bytes)"},
		{ParameterStatus("a", "b"), `ParameterStatus a="b"`},
		{ReadyForQuery('E'), "ReadyForQuery E"},
		{RowDescription("a", "b"), `RowDescription "a"(table 0.0 type 25 size -1 mod -1 format 0) "b"(table 0.0 type 25 size -1 mod -1 format 0)`},
		{DataRow("1", nil, ""), `DataRow "1" NULL ""`},
		{DataRow(), "DataRow"},
		{CommandComplete("SELECT 1"), `CommandComplete "SELECT 1"`},
		{
			Error("ERROR", "40P01", "deadlock detected", "DProcess 4711 waits; Process 12 holds", "Fdeadlock.c", "L12", "RDeadLockReport"),
			`ErrorResponse S="ERROR" V="ERROR" C="40P01" M="deadlock detected" D="Process * waits; Process * holds"`,
		},
		{Notice("NOTICE", "00000", "server process (PID 77) left"), `NoticeResponse S="NOTICE" V="NOTICE" C="00000" M="server process (PID *) left"`},
		{Notification(7, "c", "p"), `NotificationResponse pid=* "c" "p"`},
		{ParameterDescription(23, 70000), "ParameterDescription 23 70000"},
		{CopyInResponse(2), "CopyInResponse 0 0 0"},
		{CopyOutResponse(0), "CopyOutResponse 0"},
		{CopyData("1\t2\n"), `CopyData "1\t2\n"`},
		{CopyDone(), "CopyDone"},
		{Msg('V', Value("x")), `FunctionCallResponse "x"`},
		{Msg('V', Value(nil)), "FunctionCallResponse NULL"},
		{Msg('v', uint32(3<<16|2), int32(1), "_pq_.x"), `NegotiateProtocolVersion 3.2 "_pq_.x"`},
		{ParseComplete(), "ParseComplete"},
		{BindComplete(), "BindComplete"},
		{CloseComplete(), "CloseComplete"},
		{NoData(), "NoData"},
		{PortalSuspended(), "PortalSuspended"},
		{EmptyQueryResponse(), "EmptyQueryResponse"},
		{Msg('?', []byte("x")), `Message('?') "x"`},
		{Msg('Z'), `ReadyForQuery malformed (1 bytes wanted, 0 there) ""`},
		{Msg('Z', []byte("II")), `ReadyForQuery malformed (bytes left over) "II"`},
		{Msg('C', []byte("x")), `CommandComplete malformed (text without an end) "x"`},
		{Msg('D', int16(1), uint32(1<<31)), `DataRow malformed (-2147483648 bytes wanted, 0 there) "\x00\x01\x80\x00\x00\x00"`},
		{Msg('n', byte(0)), `NoData malformed (bytes left over) "\x00"`},
	} {
		if got := Describe(c.m); got != c.want {
			t.Errorf("Describe(%q %q)\n got %s\nwant %s", c.m.Type, c.m.Body, got, c.want)
		}
	}
	all := []Message{BackendKeyData(7, []byte("abcd")), Error("ERROR", "XX000", "m", "Ff.c", "Rr"), ParameterDescription(23, 70000)}
	var lines []string
	for _, m := range all {
		lines = append(lines, DescribeWith(m, Mask{OIDs: true}))
	}
	want := "BackendKeyData pid=7 secret=61626364\n" +
		`ErrorResponse S="ERROR" V="ERROR" C="XX000" M="m" F="f.c" R="r"` + "\nParameterDescription 23 *"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("unmasked:\n%s", got)
	}
	if got := Transcript(all[:1]); got != "BackendKeyData pid=* secret=* (4 bytes)\n" {
		t.Errorf("transcript %q", got)
	}
}

// FuzzDescribe prints anything.
func FuzzDescribe(f *testing.F) {
	f.Add(byte('D'), []byte("\x00\x01\x80\x00\x00\x00"))
	f.Add(byte('E'), []byte("Mm\x00\x00"))
	f.Add(byte('v'), []byte("\x00\x03\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		line := DescribeWith(Message{typ, body}, Mask{})
		if strings.ContainsAny(line, "\n") {
			t.Errorf("more than a line: %q", line)
		}
		Describe(Message{typ, body})
		Rows([]Message{{'D', body}})
	})
}
