package pgtest

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Message is one message of the protocol as it stands on the wire, of either side. A Message of
// type 0 has no type byte: a startup packet.
type Message struct {
	Type byte
	Body []byte
}

// maxMessage is the longest body that is read; a length above it is taken for a broken stream.
const maxMessage = 1<<30 + 1<<16

// Bytes is the message with its header.
func (m Message) Bytes() []byte {
	var b []byte
	if m.Type != 0 {
		b = append(b, m.Type)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Body)+4))
	return append(b, m.Body...)
}

// Join is the bytes of several messages, one behind the other.
func Join(ms ...Message) []byte {
	var b []byte
	for _, m := range ms {
		b = append(b, m.Bytes()...)
	}
	return b
}

// ReadMessage reads one message with a type byte. At the end of the stream the error is io.EOF,
// inside of a message io.ErrUnexpectedEOF.
func ReadMessage(r io.Reader) (Message, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Message{}, err
	}
	body, err := readBody(r, binary.BigEndian.Uint32(head[1:]))
	if err != nil {
		return Message{}, fmt.Errorf("read message %q: %w", head[0], err)
	}
	return Message{Type: head[0], Body: body}, nil
}

// ReadStartup reads one packet without a type byte.
func ReadStartup(r io.Reader) (Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Message{}, err
	}
	body, err := readBody(r, binary.BigEndian.Uint32(head[:]))
	if err != nil {
		return Message{}, fmt.Errorf("read startup packet: %w", err)
	}
	return Message{Body: body}, nil
}

// readBody reads what a length word announces.
func readBody(r io.Reader, length uint32) ([]byte, error) {
	if length < 4 || length > maxMessage {
		return nil, fmt.Errorf("impossible length %d", int32(length))
	}
	body := make([]byte, length-4)
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return body, nil
}

// Value is a part of a message: its length in four bytes and the bytes. Nil is NULL, which is
// the length −1 and nothing.
type Value []byte

// Msg builds a message of any type from its fields: a string is written with a NUL behind it, a
// []byte as it is, a Value with its length, and byte, int16, uint16, int32 and uint32 as
// numbers. It panics for anything else.
func Msg(typ byte, fields ...any) Message {
	var b []byte
	for _, f := range fields {
		switch v := f.(type) {
		case string:
			b = append(append(b, v...), 0)
		case Value:
			if v == nil {
				b = binary.BigEndian.AppendUint32(b, 1<<32-1)
				continue
			}
			b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
			b = append(b, v...)
		case []byte:
			b = append(b, v...)
		case byte:
			b = append(b, v)
		case int16:
			b = binary.BigEndian.AppendUint16(b, uint16(v))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case int32:
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		default:
			panic(fmt.Sprintf("BUG: pgtest.Msg: field of type %T", f))
		}
	}
	return Message{Type: typ, Body: b}
}
