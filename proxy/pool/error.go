package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"pgweir/internal/pgwire"
)

// Stage is how far a login came.
type Stage uint8

// The stages of a login.
const (
	StageDial  Stage = iota // nobody answered, or refused
	StageTLS                // encryption was not agreed upon
	StageStart              // the StartupMessage was sent, the node has not asked for a proof yet
	StageAuth               // the node asked who is there
	StageReady              // the node has let us in, and is not ready yet
)

// String is the stage in words.
func (s Stage) String() string {
	return [...]string{"connecting", "negotiating TLS", "starting up", "authenticating", "waiting until ready"}[s]
}

// ConnectError says why there is no new connection to a node.
type ConnectError struct {
	Addr  string
	Stage Stage
	// Response is the body of the node's ErrorResponse as it came, to be passed on; nil when
	// the node did not say anything.
	Response []byte
	// SQLState and Message are from Response.
	SQLState string
	Message  string
	// Err is the reason where there is no Response.
	Err error
}

// Error names the address, the stage and the reason.
func (e *ConnectError) Error() string {
	if e.Response != nil {
		return fmt.Sprintf("%s %s: %s (SQLSTATE %s)", e.Stage, e.Addr, e.Message, e.SQLState)
	}
	return fmt.Sprintf("%s %s: %v", e.Stage, e.Addr, e.Err)
}

// Unwrap is the reason.
func (e *ConnectError) Unwrap() error { return e.Err }

// Refused says whether the host answered that nobody listens at the address.
func (e *ConnectError) Refused() bool {
	return errors.Is(e.Err, syscall.ECONNREFUSED) || errors.Is(e.Err, syscall.ENOENT)
}

// Timeout says whether the time for the login ran out.
func (e *ConnectError) Timeout() bool {
	var n net.Error
	return errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, os.ErrDeadlineExceeded) ||
		errors.As(e.Err, &n) && n.Timeout()
}

// Unavailable says whether the node is not able to take anybody now, by its own word (starting
// up, shutting down, in recovery without hot standby: class 57P) or by its silence.
func (e *ConnectError) Unavailable() bool {
	if e.Response != nil {
		return len(e.SQLState) == 5 && e.SQLState[:3] == "57P"
	}
	return e.Stage < StageAuth || isNetwork(e.Err)
}

// isNetwork says whether err came from a socket and not from what was read.
func isNetwork(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, errClosedByNode) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, context.DeadlineExceeded)
}

// Full says whether the node has no connection to spare (class 53).
func (e *ConnectError) Full() bool { return e.Response != nil && strings.HasPrefix(e.SQLState, "53") }

// WaitError says that no connection became free until the caller's context ended.
type WaitError struct {
	Key Key
	// Limit is what was reached, as the configuration calls it, and Size its value.
	Limit string
	Size  int
	// Node is what the node said that has none to spare, nil where it is our own limit.
	Node   *ConnectError
	Waited time.Duration
	Err    error // the context's cause
}

// Error names the pool and its limit.
func (e *WaitError) Error() string {
	if e.Node != nil {
		return fmt.Sprintf("waiting %v for a connection to database %q as %q (%s): %v",
			e.Waited.Round(time.Millisecond), e.Key.Database, e.Key.User, e.Node.Message, e.Err)
	}
	return fmt.Sprintf("waiting %v for a connection to database %q as %q (%s: %d): %v",
		e.Waited.Round(time.Millisecond), e.Key.Database, e.Key.User, e.Limit, e.Size, e.Err)
}

// Unwrap is the context's cause.
func (e *WaitError) Unwrap() error { return e.Err }

// Errors of this package.
var (
	// ErrClosed is what Get returns after Close.
	ErrClosed = errors.New("the pool is closed")

	errClosedByNode = errors.New("the node closed the connection")
	errTooMuch      = errors.New("the node sent more than a login needs")
	errSmuggled     = errors.New("the node sent unencrypted data after its answer to SSLRequest")
	errNoTLS        = errors.New("the node does not offer TLS, but sslmode requires it")
)

// responseError is a ConnectError for an ErrorResponse, whose body is copied.
func responseError(addr string, stage Stage, body []byte) *ConnectError {
	fields, err := pgwire.ErrorFields(body)
	if err != nil {
		return &ConnectError{Addr: addr, Stage: stage, Err: fmt.Errorf("reading the node's ErrorResponse: %w", err)}
	}
	return &ConnectError{
		Addr: addr, Stage: stage, Response: append([]byte{}, body...),
		SQLState: string(fields.Code), Message: string(fields.Message),
	}
}

// isReset says whether the peer ended the connection by force.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
