package pgwire

import (
	"errors"
	"io"
	"testing"
)

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		in  string
		typ byte
		n   int
		err error
	}{
		{"", 0, 0, io.ErrShortBuffer},
		{"Q\x00\x00\x00", 0, 0, io.ErrShortBuffer},
		{"Q\x00\x00\x00\x04", 'Q', 0, nil},
		{"Q\x00\x00\x00\x05x", 'Q', 1, nil},
		{"D\x7f\xff\xff\xff", 'D', 1<<31 - 5, nil},
		{"Q\x00\x00\x00\x00", 'Q', 0, ErrMessageLength},
		{"Q\x00\x00\x00\x03", 'Q', 0, ErrMessageLength},
		{"Q\x80\x00\x00\x00", 'Q', 0, ErrMessageLength},
		{"Q\xff\xff\xff\xff", 'Q', 0, ErrMessageLength},
	} {
		typ, n, err := ParseHeader([]byte(c.in))
		if typ != c.typ || n != c.n || !errors.Is(err, c.err) {
			t.Errorf("ParseHeader(%q) = %q, %d, %v; want %q, %d, %v", c.in, typ, n, err, c.typ, c.n, c.err)
		}
	}
}

func TestNextMessage(t *testing.T) {
	stream := AppendSync(AppendQuery(nil, "select 1"))
	typ, body, rest, err := NextMessage(stream)
	if typ != MsgQuery || string(body) != "select 1\x00" || err != nil {
		t.Fatalf("first message: %q %q %v", typ, body, err)
	}
	typ, body, rest, err = NextMessage(rest)
	if typ != MsgSync || len(body) != 0 || len(rest) != 0 || err != nil {
		t.Fatalf("second message: %q %q %q %v", typ, body, rest, err)
	}
	for i := range len(stream) - HeaderSize {
		if i >= HeaderSize+9 {
			break
		}
		if _, _, left, err := NextMessage(stream[:i]); err != io.ErrShortBuffer || len(left) != i {
			t.Errorf("%d bytes: left %d, error %v", i, len(left), err)
		}
	}
	if _, _, _, err := NextMessage([]byte("Q\x00\x00\x00\x01")); err != ErrMessageLength {
		t.Errorf("tiny length: %v", err)
	}
}

func TestClientLimit(t *testing.T) {
	for typ, want := range map[byte]int{
		MsgQuery: MaxLargeMessage, MsgParse: MaxLargeMessage, MsgBind: MaxLargeMessage,
		MsgFunctionCall: MaxLargeMessage, MsgCopyData: MaxLargeMessage,
		MsgSync: MaxSmallMessage, MsgTerminate: MaxSmallMessage, MsgExecute: MaxSmallMessage,
	} {
		if got, ok := ClientLimit(typ); !ok || got != want {
			t.Errorf("ClientLimit(%q) = %d, %v; want %d", typ, got, ok, want)
		}
	}
	known := 0
	for typ := range 256 {
		if _, ok := ClientLimit(byte(typ)); ok {
			known++
		}
	}
	if known != 13 {
		t.Errorf("%d types are known, want 13", known)
	}
	if _, ok := ClientLimit(MsgPassword); ok {
		t.Error("a logged-in client sends no passwords")
	}
}
