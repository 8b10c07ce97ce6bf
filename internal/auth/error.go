package auth

import "fmt"

// SQLSTATEs of this package.
const (
	stateProtocolViolation = "08P01"
	stateNotSupported      = "0A000"
	stateInvalidAuth       = "28000"
	stateInvalidPassword   = "28P01"
)

// Error ends the login of a client. SQLState, Message and Detail are what PostgreSQL would say and
// may be sent to the client; Reason may not.
type Error struct {
	SQLState string
	Message  string
	Detail   string
	Reason   string // for the log: what is known beyond what the client may learn
}

// Error is the message with its detail and reason.
func (e *Error) Error() string {
	s := e.Message
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

// Denied says whether the client spoke correctly but its proof was wrong, or there is no such
// user: the moment to call Forget.
func (e *Error) Denied() bool { return e.SQLState == stateInvalidPassword }

// Denial is PostgreSQL's answer to a wrong password and to an unknown user alike.
func Denial(user, reason string) *Error {
	return &Error{
		SQLState: stateInvalidPassword,
		Message:  fmt.Sprintf("password authentication failed for user \"%s\"", user), //nolint:gocritic // PostgreSQL does not escape
		Reason:   reason,
	}
}

// malformed is PostgreSQL's answer to a SCRAM message that breaks the grammar.
func malformed(detail string) *Error {
	return &Error{SQLState: stateProtocolViolation, Message: "malformed SCRAM message", Detail: detail}
}

// violation is a breach of the protocol around the mechanism.
func violation(message string) *Error {
	return &Error{SQLState: stateProtocolViolation, Message: message}
}
