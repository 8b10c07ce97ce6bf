//go:build !linux

package pgwire

import (
	"net"
	"syscall"
)

// rawConn is nil: this system has no raw engine, and links go through net.Conn.
func rawConn(net.Conn) syscall.RawConn { return nil }

// rawRead is never called where rawConn is nil.
func rawRead(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// rawWrite is never called where rawConn is nil.
func rawWrite(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// rawLook is never called where rawConn is nil.
func rawLook(uintptr) Quiet { return QuietYes }

// rawGone is never called where rawConn is nil.
func rawGone(uintptr) bool { return false }
