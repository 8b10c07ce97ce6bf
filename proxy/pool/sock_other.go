//go:build !linux

package pool

import (
	"net"
	"syscall"
	"time"
)

// userTimeout is nil: only Linux has TCP_USER_TIMEOUT.
func userTimeout(time.Duration) func(network, addr string, c syscall.RawConn) error { return nil }

// silent cannot tell and says yes: a dead connection is found when it is used.
func silent(net.Conn) bool { return true }
