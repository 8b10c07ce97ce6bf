package pgwire

import "fmt"

// SQLSTATEs of what a peer can do wrong on this level.
const (
	CodeProtocolViolation    = "08P01"
	CodeFeatureNotSupported  = "0A000"
	CodeInvalidParameter     = "22023"
	CodeInvalidAuthorization = "28000"
	CodeInvalidPassword      = "28P01"
	CodeSyntaxError          = "42601"
)

// ProtocolError is input that breaks the protocol, in the words that PostgreSQL has for it. The
// severity is not part of it: what is found in a startup packet or in a header ends the
// connection (FATAL); what is found in the body of an otherwise whole message is an ERROR to
// PostgreSQL, and the connection goes on at the next Sync.
type ProtocolError struct {
	Code    string // SQLSTATE
	Message string
	Detail  string // may be empty
	Hint    string // may be empty
	// LogOnly says that PostgreSQL writes this into its log and closes the connection without
	// a word to the client (its level COMMERROR).
	LogOnly bool
}

// Error is PostgreSQL's message with the SQLSTATE behind it.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%s (SQLSTATE %s)", e.Message, e.Code)
}

// Errors with a fixed text.
var (
	// ErrMessageLength: the length word of a typed message is impossible or over its limit.
	ErrMessageLength = &ProtocolError{Code: CodeProtocolViolation, Message: "invalid message length", LogOnly: true}
	// ErrMessageFormat: bytes are left behind the last field of a message.
	ErrMessageFormat = &ProtocolError{Code: CodeProtocolViolation, Message: "invalid message format"}
	// ErrMessageShort: a message ends inside of a field.
	ErrMessageShort = &ProtocolError{Code: CodeProtocolViolation, Message: "insufficient data left in message"}
	// ErrMessageString: a text has no terminator.
	ErrMessageString = &ProtocolError{Code: CodeProtocolViolation, Message: "invalid string in message"}
	// ErrStartupLength: the length word of a startup packet is impossible.
	ErrStartupLength = &ProtocolError{Code: CodeProtocolViolation, Message: "invalid length of startup packet", LogOnly: true}
	// ErrStartupIncomplete: the stream ended inside of a startup packet.
	ErrStartupIncomplete = &ProtocolError{Code: CodeProtocolViolation, Message: "incomplete startup packet", LogOnly: true}
	// ErrStartupLayout: the parameters of a startup packet do not end where it does.
	ErrStartupLayout = &ProtocolError{
		Code:    CodeProtocolViolation,
		Message: "invalid startup packet layout: expected terminator as last byte",
	}
	// ErrNoUser: a startup packet names no user.
	ErrNoUser = &ProtocolError{
		Code:    CodeInvalidAuthorization,
		Message: "no PostgreSQL user name specified in startup packet",
	}
	// ErrCancelLength: a CancelRequest too short for a pid.
	ErrCancelLength = &ProtocolError{
		Code: CodeProtocolViolation, Message: "invalid length of query cancel packet", LogOnly: true,
	}
	// ErrCancelKeyLength: a CancelRequest with no secret, or one over MaxCancelSecret.
	ErrCancelKeyLength = &ProtocolError{
		Code: CodeProtocolViolation, Message: "invalid length of cancel key in query cancel packet", LogOnly: true,
	}
	// ErrDataAfterSSLRequest: plaintext was sent behind an SSLRequest before its answer.
	ErrDataAfterSSLRequest = &ProtocolError{
		Code:    CodeProtocolViolation,
		Message: "received unencrypted data after SSL request",
		Detail: "This could be either a client-software bug or evidence of an attempted" +
			" man-in-the-middle attack.",
	}
	// ErrDataAfterGSSRequest: plaintext was sent behind a GSSENCRequest before its answer.
	ErrDataAfterGSSRequest = &ProtocolError{
		Code:    CodeProtocolViolation,
		Message: "received unencrypted data after GSSAPI encryption request",
		Detail: "This could be either a client-software bug or evidence of an attempted" +
			" man-in-the-middle attack.",
	}
	// ErrPasswordSize: a password message with something behind the password, or no terminator.
	ErrPasswordSize = &ProtocolError{Code: CodeProtocolViolation, Message: "invalid password packet size"}
	// ErrPasswordEmpty: a password message with nothing in it.
	ErrPasswordEmpty = &ProtocolError{Code: CodeInvalidPassword, Message: "empty password returned by client"}
)

// UnexpectedClientMessage is PostgreSQL's FATAL for a message of a type that a logged-in client
// never sends.
func UnexpectedClientMessage(typ byte) *ProtocolError {
	return &ProtocolError{
		Code:    CodeProtocolViolation,
		Message: fmt.Sprintf("invalid frontend message type %d", typ),
	}
}

// UnexpectedDuringCopy is PostgreSQL's ERROR for a message that has no place in a COPY FROM STDIN.
func UnexpectedDuringCopy(typ byte) *ProtocolError {
	return &ProtocolError{
		Code:    CodeProtocolViolation,
		Message: fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", typ),
	}
}

// UnexpectedDuringLogin is PostgreSQL's FATAL for another message where the answer to a request
// for a password ("password") or a step of SASL ("SASL") was due.
func UnexpectedDuringLogin(want string, typ byte) *ProtocolError {
	return &ProtocolError{
		Code:    CodeProtocolViolation,
		Message: fmt.Sprintf("expected %s response, got message type %d", want, typ),
	}
}
