package pgwire

import (
	"net"
	"syscall"
	"unsafe"
)

// rawConn is the raw side of a plain TCP or Unix socket, nil for anything else.
func rawConn(c net.Conn) syscall.RawConn {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		rc, err := c.(syscall.Conn).SyscallConn()
		if err == nil {
			return rc
		}
	}
	return nil
}

// rawRead reads from a non-blocking socket without telling the scheduler. n is 0 at the end of the stream.
func rawRead(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// rawWrite writes to a non-blocking socket without telling the scheduler; n may be less than len(p).
func rawWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// rawLook peeks at a non-blocking socket.
func rawLook(fd uintptr) Quiet {
	var b [1]byte
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return QuietYes
		case errno != 0 || n == 0:
			return QuietDead
		default:
			return QuietData
		}
	}
}

// pollFD is the kernel's struct pollfd.
type pollFD struct {
	fd              int32
	events, revents int16
}

// What poll tells of a stream that has ended.
const (
	pollErr   = 0x8
	pollHup   = 0x10
	pollRDHup = 0x2000
)

// rawGone asks whether the peer of a socket has shut its side down, or the stream is broken.
func rawGone(fd uintptr) bool {
	p := pollFD{fd: int32(fd), events: pollRDHup}
	var now syscall.Timespec
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if errno != syscall.EINTR {
			return errno != 0 || n > 0 && p.revents&(pollErr|pollHup|pollRDHup) != 0
		}
	}
}
