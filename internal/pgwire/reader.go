package pgwire

import (
	"bytes"
	"encoding/binary"
)

// reader takes fields off the front of a body. After the first failure it returns zero values
// and keeps the error, so that a view is checked once, at its end.
type reader struct {
	rest []byte
	err  *ProtocolError
}

// fail remembers the first error and leaves nothing to read.
func (r *reader) fail(err *ProtocolError) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// text is a string up to its NUL byte, which is taken too.
func (r *reader) text() []byte {
	i := bytes.IndexByte(r.rest, 0)
	if i < 0 {
		r.fail(ErrMessageString)
		return nil
	}
	s := r.rest[:i:i]
	r.rest = r.rest[i+1:]
	return s
}

// bytes is the next n bytes.
func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.fail(ErrMessageShort)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// uint8 is the next byte.
func (r *reader) uint8() byte {
	if len(r.rest) < 1 {
		r.fail(ErrMessageShort)
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// uint16 is the next two bytes.
func (r *reader) uint16() uint16 {
	if len(r.rest) < 2 {
		r.fail(ErrMessageShort)
		return 0
	}
	v := binary.BigEndian.Uint16(r.rest)
	r.rest = r.rest[2:]
	return v
}

// uint32 is the next four bytes.
func (r *reader) uint32() uint32 {
	if len(r.rest) < 4 {
		r.fail(ErrMessageShort)
		return 0
	}
	v := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	return v
}

// end is the error of everything read so far; bytes left over are one.
func (r *reader) end() error {
	if r.err != nil {
		return r.err
	}
	if len(r.rest) != 0 {
		return ErrMessageFormat
	}
	return nil
}
