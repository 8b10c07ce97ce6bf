package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"pgweir/internal/pgwire"
)

// CancelRequest asks the node at the target to cancel what the backend of this pid is doing, over
// a connection of its own that is encrypted if secure is set (as the one to be cancelled is). When
// it returns nil the node has closed that connection, which it does after it has sent the
// signal: nothing sent to that backend afterwards is hit. It is bounded by ctx.
func CancelRequest(ctx context.Context, target Target, secure bool, pid uint32, secret []byte) error {
	return DefaultConfig().cancel(ctx, target, encrypted(secure), pid, secret)
}

// ForwardCancel passes a cancel request on to another process like this one, over one connection that is encrypted as the target's
// TLS says (allow is disable: such a process takes requests in the clear). When it returns nil that process has closed the
// connection: it has carried the request out, or knows nobody with the key. It is bounded by ctx.
func ForwardCancel(ctx context.Context, target Target, pid uint32, secret []byte) error {
	e := insisted
	switch target.TLS.Mode() {
	case SSLDisable, SSLAllow:
		e = inClear
	case SSLPrefer:
		e = ifOffered
	}
	return DefaultConfig().cancel(ctx, target, e, pid, secret)
}

// cancel sends a cancel request and waits for the end of the connection.
func (c Config) cancel(ctx context.Context, target Target, e encryption, pid uint32, secret []byte) error {
	if pid == 0 {
		return errors.New("cancelling: the node gave no key")
	}
	release := func() bool { return true }
	s, cerr := c.open(ctx, target, e, func(conn net.Conn) { release = watch(ctx, conn) })
	defer func() { release() }()
	if cerr != nil {
		return fmt.Errorf("cancelling: %w", cerr)
	}
	defer s.Close()
	if _, err := s.Write(pgwire.AppendCancel(nil, pid, slices.Clone(secret))); err != nil {
		return fmt.Errorf("cancelling at %s: %w", target.Addr, because(ctx, err))
	}
	// The node answers nothing and closes; some close with a reset.
	var b [1]byte
	n, err := s.Read(b[:])
	switch {
	case n > 0:
		return fmt.Errorf("cancelling at %s: unexpected answer", target.Addr)
	case err == nil || errors.Is(err, io.EOF) || ctx.Err() == nil && isReset(err):
		return nil
	}
	return fmt.Errorf("cancelling at %s: %w", target.Addr, because(ctx, err))
}
