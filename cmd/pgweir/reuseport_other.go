//go:build !linux

package main

import (
	"errors"
	"syscall"
)

// reusePort says that connections to one address are not spread over processes here: elsewhere SO_REUSEPORT means
// something else.
func reusePort(string, string, syscall.RawConn) error {
	return errors.New("reuse_port is available on Linux only")
}
