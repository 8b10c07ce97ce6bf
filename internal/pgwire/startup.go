package pgwire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The versions of the protocol that this package speaks.
const (
	Version30 uint32 = 3 << 16
	Version32 uint32 = 3<<16 | 2
)

// The codes that stand where a StartupMessage has its version.
const (
	codeCancel uint32 = 1234<<16 | 5678
	codeSSL    uint32 = 1234<<16 | 5679
	codeGSS    uint32 = 1234<<16 | 5680
)

// StartupKind is what the first packet of a connection is.
type StartupKind uint8

// The kinds of first packets.
const (
	KindStartup       StartupKind = iota + 1 // StartupMessage, of protocol 3
	KindSSLRequest                           // the next packet is another one, in TLS or not
	KindGSSENCRequest                        // likewise
	KindCancelRequest                        // nothing follows and nothing is answered
)

// Param is one parameter of a StartupMessage.
type Param struct{ Name, Value string }

// Replication is what a StartupMessage asks for with its parameter replication.
type Replication uint8

// The kinds of sessions.
const (
	ReplicationNone     Replication = iota // an ordinary session
	ReplicationPhysical                    // replication=true
	ReplicationDatabase                    // replication=database
)

// Startup is the first packet of a connection. Its strings are copies.
type Startup struct {
	Kind StartupKind

	// Version of a StartupMessage: 3<<16 and the minor version that the client asks for, which
	// may be newer than Version32.
	Version uint32
	// User is never empty, Database is the user's name if the client named none (and empty for
	// ReplicationPhysical). Neither is cut at 63 bytes, as PostgreSQL before 17 does.
	User, Database string
	Replication    Replication
	// Options is the parameter options, for ParseOptions; Settings are the parameters that
	// name a setting, in order, doubles included: PostgreSQL applies all of them, one after
	// the other, after those in Options.
	Options  string
	Settings []Param
	// Protocol is the parameters whose name begins with "_pq_.".
	Protocol []Param

	// PID and Secret are those of a CancelRequest. The secret has 4 bytes in protocol 3.0 and
	// 1 to MaxCancelSecret here.
	PID    uint32
	Secret []byte
}

// Negotiate says what a client that sent this must be told before anything else: the version
// to speak, and the names of the protocol options that nobody knows here. If needed is false,
// nothing is sent, and version is the client's.
func (s *Startup) Negotiate(newest uint32) (version uint32, unknown []string, needed bool) {
	for _, p := range s.Protocol {
		unknown = append(unknown, p.Name)
	}
	version = min(s.Version, newest)
	return version, unknown, s.Version > newest || len(unknown) > 0
}

// LooksLikeTLS says whether a connection begins with a TLS handshake and not with a packet of
// PostgreSQL (direct TLS, sslnegotiation=direct). One byte is enough: it is the first of a
// length that no startup packet has.
func LooksLikeTLS(b []byte) bool { return len(b) > 0 && b[0] == 0x16 }

// StartupLength is the length of the startup packet that b begins with, its length word
// included. ok is false while b is shorter than that word. A length that PostgreSQL does not
// take (as every other protocol's first four bytes are) is ErrStartupLength.
func StartupLength(b []byte) (n int, ok bool, err error) {
	if len(b) < 4 {
		return 0, false, nil
	}
	length := binary.BigEndian.Uint32(b)
	if length < 8 || length > MaxStartup+4 {
		return 0, true, ErrStartupLength
	}
	return int(length), true, nil
}

// ParseStartup reads one whole startup packet, its length word included, as StartupLength
// cuts it off. The errors are PostgreSQL's, found in PostgreSQL's order.
//
// An SSLRequest is a StartupMessage of an impossible version when TLS was asked for before, and
// so is a GSSENCRequest: see Repeated.
func ParseStartup(b []byte) (Startup, error) {
	n, ok, err := StartupLength(b)
	if err != nil {
		return Startup{}, err
	}
	if !ok || n > len(b) {
		return Startup{}, ErrStartupIncomplete
	}
	if n < len(b) {
		return Startup{}, ErrStartupLength
	}
	code, body := binary.BigEndian.Uint32(b[4:]), b[8:]
	switch code {
	case codeCancel:
		return parseCancel(body)
	case codeSSL:
		return Startup{Kind: KindSSLRequest, Version: code}, nil
	case codeGSS:
		return Startup{Kind: KindGSSENCRequest, Version: code}, nil
	}
	if code>>16 != 3 {
		return Startup{Version: code}, unsupportedVersion(code)
	}
	s := Startup{Kind: KindStartup, Version: code}
	if err := s.parseParams(body); err != nil {
		return s, err
	}
	if s.User == "" {
		return s, ErrNoUser
	}
	if s.Database == "" {
		s.Database = s.User
	}
	if s.Replication == ReplicationPhysical {
		s.Database = ""
	}
	return s, nil
}

// Repeated is PostgreSQL's FATAL for an SSLRequest or GSSENCRequest where another one had its
// answer already.
func (s *Startup) Repeated() *ProtocolError { return unsupportedVersion(s.Version) }

// unsupportedVersion is the error for a major version other than 3.
func unsupportedVersion(version uint32) *ProtocolError {
	return &ProtocolError{
		Code: CodeFeatureNotSupported,
		Message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.%d",
			version>>16, version&0xffff, Version32&0xffff),
	}
}

// parseCancel reads what stands behind the code of a CancelRequest.
func parseCancel(body []byte) (Startup, error) {
	if len(body) < 4 {
		return Startup{}, ErrCancelLength
	}
	secret := body[4:]
	if len(secret) == 0 || len(secret) > MaxCancelSecret {
		return Startup{}, ErrCancelKeyLength
	}
	return Startup{
		Kind:   KindCancelRequest,
		PID:    binary.BigEndian.Uint32(body),
		Secret: append([]byte(nil), secret...),
	}, nil
}

// parseParams reads the parameters of a StartupMessage. A parameter that has no value is not
// looked at; the check of the layout finds it. Of the last byte PostgreSQL checks only that it is
// one, not that it is a NUL.
func (s *Startup) parseParams(body []byte) error {
	r := reader{rest: body}
	for len(r.rest) > 1 && r.rest[0] != 0 {
		name, value := r.text(), r.text()
		if r.err != nil {
			return ErrStartupLayout
		}
		if err := s.param(string(name), string(value)); err != nil {
			return err
		}
	}
	if len(r.rest) != 1 {
		return ErrStartupLayout
	}
	return nil
}

// param takes one parameter. Of user, database, options and replication the last one counts.
func (s *Startup) param(name, value string) error {
	switch {
	case name == "user":
		s.User = value
	case name == "database":
		s.Database = value
	case name == "options":
		s.Options = value
	case name == "replication":
		kind, ok := parseReplication(value)
		if !ok {
			return &ProtocolError{
				Code:    CodeInvalidParameter,
				Message: fmt.Sprintf("invalid value for parameter %q: \"%s\"", "replication", value),
				Hint:    `Valid values are: "false", 0, "true", 1, "database".`,
			}
		}
		s.Replication = kind
	case strings.HasPrefix(name, "_pq_."):
		s.Protocol = append(s.Protocol, Param{name, value})
	default:
		s.Settings = append(s.Settings, Param{name, value})
	}
	return nil
}

// parseReplication reads "database" or a Boolean in any of PostgreSQL's spellings.
func parseReplication(value string) (kind Replication, ok bool) {
	if value == "database" {
		return ReplicationDatabase, true
	}
	on, ok := parseBool(value)
	if on {
		return ReplicationPhysical, ok
	}
	return ReplicationNone, ok
}

// parseBool reads a Boolean as PostgreSQL's settings do: unambiguous beginnings of true, false,
// yes, no, on and off in any case, 1 and 0.
func parseBool(value string) (on, ok bool) {
	v := strings.ToLower(value)
	switch {
	case v == "1":
		return true, true
	case v == "0":
		return false, true
	case v == "" || v == "o":
		return false, false
	case strings.HasPrefix("true", v), strings.HasPrefix("yes", v), v == "on":
		return true, true
	case strings.HasPrefix("false", v), strings.HasPrefix("no", v), strings.HasPrefix("off", v):
		return false, true
	}
	return false, false
}
