package pgwire

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// packet is a startup packet with this code and body and a true length.
func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, body...)
}

func TestStartupLength(t *testing.T) {
	for _, c := range []struct {
		in  string
		n   int
		ok  bool
		err error
	}{
		{"", 0, false, nil},
		{"\x00\x00\x00", 0, false, nil},
		{"\x00\x00\x00\x08", 8, true, nil},
		{"\x00\x00\x27\x14", 10_004, true, nil},
		{"\x00\x00\x27\x15", 0, true, ErrStartupLength},
		{"\x00\x00\x00\x00", 0, true, ErrStartupLength},
		{"\x00\x00\x00\x03", 0, true, ErrStartupLength},
		{"\x00\x00\x00\x07", 0, true, ErrStartupLength},
		{"\x7f\xff\xff\xff", 0, true, ErrStartupLength},
		{"\x80\x00\x00\x00", 0, true, ErrStartupLength},
		{"\xff\xff\xff\xff", 0, true, ErrStartupLength},
		{"GET / HTTP/1.0\r\n\r\n", 0, true, ErrStartupLength},
		{"\x16\x03\x01\x02\x00\x01", 0, true, ErrStartupLength},
		{"SSH-2.0-x", 0, true, ErrStartupLength},
	} {
		n, ok, err := StartupLength([]byte(c.in))
		if n != c.n || ok != c.ok || !errors.Is(err, c.err) {
			t.Errorf("StartupLength(%q) = %d, %v, %v", c.in, n, ok, err)
		}
	}
}

func TestLooksLikeTLS(t *testing.T) {
	if !LooksLikeTLS([]byte("\x16\x03\x01")) || LooksLikeTLS(nil) || LooksLikeTLS(AppendSSLRequest(nil)) {
		t.Error("TLS is what begins with 0x16")
	}
}

func TestParseStartup(t *testing.T) {
	const who = "user\x00u\x00database\x00d\x00"
	for name, c := range map[string]struct {
		in   []byte
		want Startup
	}{
		"ordinary": {
			AppendStartup(nil, Version30, []Param{{"user", "u"}, {"database", "d"}, {"DateStyle", "ISO"}}),
			Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "d", Settings: []Param{{"DateStyle", "ISO"}}},
		},
		"3.2": {packet(Version32, who+"\x00"), Startup{Kind: KindStartup, Version: Version32, User: "u", Database: "d"}},
		"3.9999": {
			packet(3<<16|9999, who+"\x00"),
			Startup{Kind: KindStartup, Version: 3<<16 | 9999, User: "u", Database: "d"},
		},
		"database of the user": {
			packet(Version30, "user\x00u\x00\x00"), Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "u"},
		},
		"empty database": {
			packet(Version30, "user\x00u\x00database\x00\x00\x00"),
			Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "u"},
		},
		"the last one counts": {
			packet(Version30, "user\x00nobody\x00database\x00x\x00options\x00-c\x00options\x00\x00"+who+"\x00"),
			Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "d"},
		},
		"settings in order": {
			packet(Version30, who+"b\x001\x00a\x002\x00b\x003\x00e\x00\x00\x00"),
			Startup{
				Kind: KindStartup, Version: Version30, User: "u", Database: "d",
				Settings: []Param{{"b", "1"}, {"a", "2"}, {"b", "3"}, {"e", ""}},
			},
		},
		"protocol options": {
			packet(Version30, who+"_pq_.x\x001\x00_pq_.\x00\x00\x00"),
			Startup{
				Kind: KindStartup, Version: Version30, User: "u", Database: "d",
				Protocol: []Param{{"_pq_.x", "1"}, {"_pq_.", ""}},
			},
		},
		"replication": {
			packet(Version30, who+"replication\x00tr\x00\x00"),
			Startup{Kind: KindStartup, Version: Version30, User: "u", Replication: ReplicationPhysical},
		},
		"logical replication": {
			packet(Version30, who+"replication\x00database\x00\x00"),
			Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "d", Replication: ReplicationDatabase},
		},
		"no replication": {
			packet(Version30, who+"replication\x00OFF\x00\x00"),
			Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "d"},
		},
		"options": {
			packet(Version30, who+"options\x00-c x=1\x00\x00"),
			Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "d", Options: "-c x=1"},
		},
		"last byte is not looked at": {
			packet(Version30, who+"x"), Startup{Kind: KindStartup, Version: Version30, User: "u", Database: "d"},
		},
		"SSLRequest":    {AppendSSLRequest(nil), Startup{Kind: KindSSLRequest, Version: codeSSL}},
		"GSSENCRequest": {AppendGSSENCRequest(nil), Startup{Kind: KindGSSENCRequest, Version: codeGSS}},
		"CancelRequest": {
			AppendCancel(nil, 5_000_000, []byte("1234")),
			Startup{Kind: KindCancelRequest, PID: 5_000_000, Secret: []byte("1234")},
		},
		"CancelRequest of 3.2": {
			AppendCancel(nil, 1, []byte(strings.Repeat("s", 256))),
			Startup{Kind: KindCancelRequest, PID: 1, Secret: []byte(strings.Repeat("s", 256))},
		},
	} {
		got, err := ParseStartup(c.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		equal(t, name, got, c.want)
	}
}

// TestStartupErrors holds PostgreSQL's answers; those of version 15 were observed.
func TestStartupErrors(t *testing.T) {
	const who = "user\x00postgres\x00database\x00postgres\x00"
	for name, c := range map[string]struct {
		in      []byte
		code    string
		message string
	}{
		"protocol 2": {packet(2<<16, who+"\x00"), "0A000", "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"},
		"protocol 4": {packet(4<<16|1, who+"\x00"), "0A000", "unsupported frontend protocol 4.1: server supports 3.0 to 3.2"},
		"nonsense":   {packet(0xffffffff, ""), "0A000", "unsupported frontend protocol 65535.65535: server supports 3.0 to 3.2"},
		"no user":    {packet(Version30, "\x00"), "28000", "no PostgreSQL user name specified in startup packet"},
		"empty user": {
			packet(Version30, "user\x00\x00database\x00d\x00\x00"), "28000",
			"no PostgreSQL user name specified in startup packet",
		},
		"nothing":       {packet(Version30, ""), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		"no terminator": {packet(Version30, who), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		"no value":      {packet(Version30, who+"a\x00"), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		"open value":    {packet(Version30, who+"a\x00b"), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		"open name":     {packet(Version30, who+"ab"), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		"terminated twice": {
			packet(Version30, who+"\x00\x00"), "08P01", "invalid startup packet layout: expected terminator as last byte",
		},
		"empty name": {
			packet(Version30, who+"\x00x\x00\x00"), "08P01", "invalid startup packet layout: expected terminator as last byte",
		},
		"replication": {
			packet(Version30, who+"replication\x00maybe\x00\x00"), "22023", `invalid value for parameter "replication": "maybe"`,
		},
		"replication o": {
			packet(Version30, who+"replication\x00o\x00\x00"), "22023", `invalid value for parameter "replication": "o"`,
		},
		"short cancel":           {packet(codeCancel, "123"), "08P01", "invalid length of query cancel packet"},
		"cancel without secret":  {packet(codeCancel, "1234"), "08P01", "invalid length of cancel key in query cancel packet"},
		"cancel with too much":   {packet(codeCancel, strings.Repeat("x", 4+257)), "08P01", "invalid length of cancel key in query cancel packet"},
		"incomplete":             {packet(Version30, who+"\x00")[:20], "08P01", "incomplete startup packet"},
		"less than a length":     {[]byte{0, 0}, "08P01", "incomplete startup packet"},
		"more than it says":      {append(packet(Version30, who+"\x00"), 0), "08P01", "invalid length of startup packet"},
		"HTTP":                   {[]byte("GET / HTTP/1.0\r\n\r\n"), "08P01", "invalid length of startup packet"},
		"a length of 2³¹ and up": {[]byte("\x80\x00\x00\x08\x00\x03\x00\x00"), "08P01", "invalid length of startup packet"},
	} {
		_, err := ParseStartup(c.in)
		var pe *ProtocolError
		if !errors.As(err, &pe) || pe.Code != c.code || pe.Message != c.message {
			t.Errorf("%s: %v, want %s (SQLSTATE %s)", name, err, c.message, c.code)
		}
	}
}

func TestRepeatedRequest(t *testing.T) {
	s, err := ParseStartup(AppendSSLRequest(nil))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "message", s.Repeated().Message, "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2")
}

func TestNegotiate(t *testing.T) {
	for name, c := range map[string]struct {
		s       Startup
		newest  uint32
		version uint32
		unknown []string
		needed  bool
	}{
		"3.0":               {Startup{Version: Version30}, Version32, Version30, nil, false},
		"3.2":               {Startup{Version: Version32}, Version32, Version32, nil, false},
		"3.2 for an old":    {Startup{Version: Version32}, Version30, Version30, nil, true},
		"3.9999":            {Startup{Version: 3<<16 | 9999}, Version32, Version32, nil, true},
		"3.0 and an option": {Startup{Version: Version30, Protocol: []Param{{"_pq_.x", ""}}}, Version32, Version30, []string{"_pq_.x"}, true},
	} {
		version, unknown, needed := c.s.Negotiate(c.newest)
		equal(t, name, []any{version, unknown, needed}, []any{c.version, c.unknown, c.needed})
	}
}

func TestParseBool(t *testing.T) {
	for in, want := range map[string][2]bool{
		"true": {true, true}, "T": {true, true}, "yes": {true, true}, "Y": {true, true}, "on": {true, true}, "1": {true, true},
		"false": {false, true}, "fAl": {false, true}, "n": {false, true}, "of": {false, true}, "off": {false, true}, "0": {false, true},
		"": {}, "o": {}, "2": {}, "10": {}, "truee": {}, "onn": {}, "offf": {}, " on": {}, "database": {},
	} {
		on, ok := parseBool(in)
		equal(t, "parseBool "+in, [2]bool{on, ok}, want)
	}
}
