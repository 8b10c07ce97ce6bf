package pgwire

import (
	"encoding/binary"
	"io"
	"math"
)

// The types of messages that clients send, named as in the section "Message Formats". CopyData
// and CopyDone go both ways.
const (
	MsgBind         byte = 'B'
	MsgClose        byte = 'C'
	MsgCopyData     byte = 'd'
	MsgCopyDone     byte = 'c'
	MsgCopyFail     byte = 'f'
	MsgDescribe     byte = 'D'
	MsgExecute      byte = 'E'
	MsgFlush        byte = 'H'
	MsgFunctionCall byte = 'F'
	MsgParse        byte = 'P'
	MsgPassword     byte = 'p' // PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse
	MsgQuery        byte = 'Q'
	MsgSync         byte = 'S'
	MsgTerminate    byte = 'X'
)

// The types of messages that nodes send. The same byte may mean another message in the other
// direction; the names never do.
const (
	MsgAuthentication           byte = 'R'
	MsgBackendKeyData           byte = 'K'
	MsgBindComplete             byte = '2'
	MsgCloseComplete            byte = '3'
	MsgCommandComplete          byte = 'C'
	MsgCopyBothResponse         byte = 'W'
	MsgCopyInResponse           byte = 'G'
	MsgCopyOutResponse          byte = 'H'
	MsgDataRow                  byte = 'D'
	MsgEmptyQueryResponse       byte = 'I'
	MsgErrorResponse            byte = 'E'
	MsgFunctionCallResponse     byte = 'V'
	MsgNegotiateProtocolVersion byte = 'v'
	MsgNoData                   byte = 'n'
	MsgNoticeResponse           byte = 'N'
	MsgNotificationResponse     byte = 'A'
	MsgParameterDescription     byte = 't'
	MsgParameterStatus          byte = 'S'
	MsgParseComplete            byte = '1'
	MsgPortalSuspended          byte = 's'
	MsgReadyForQuery            byte = 'Z'
	MsgRowDescription           byte = 'T'
)

// What Describe and Close name.
const (
	KindStatement byte = 'S'
	KindPortal    byte = 'P'
)

// The transaction byte of ReadyForQuery.
const (
	TxIdle   byte = 'I' // outside a transaction block
	TxOpen   byte = 'T' // inside one
	TxFailed byte = 'E' // inside one that can only be rolled back
)

// The codes of the Authentication messages.
const (
	AuthOK                uint32 = 0
	AuthCleartextPassword uint32 = 3
	AuthMD5Password       uint32 = 5
	AuthGSS               uint32 = 7
	AuthGSSContinue       uint32 = 8
	AuthSSPI              uint32 = 9
	AuthSASL              uint32 = 10
	AuthSASLContinue      uint32 = 11
	AuthSASLFinal         uint32 = 12
)

// Bounds of PostgreSQL on what a client may send; lengths are those of bodies.
const (
	// MaxStartup is the longest startup packet, its own length word not counted.
	MaxStartup = 10_000
	// MaxAuthToken is the longest body of a message of type MsgPassword.
	MaxAuthToken = 65_535
	// MaxSmallMessage is the longest body of a message that has no reason to be long.
	MaxSmallMessage = 10_000
	// MaxLargeMessage is the longest body of every other message of a client.
	MaxLargeMessage = 0x3fffffff - 1
	// MaxCancelSecret is the longest secret of a BackendKeyData and a CancelRequest.
	MaxCancelSecret = 256
)

// HeaderSize is the number of bytes in front of the body of every typed message.
const HeaderSize = 5

// ParseHeader reads the first HeaderSize bytes of a typed message: its type and the length of
// its body, the header not counted. With fewer bytes the error is io.ErrShortBuffer: read on
// and ask again. A length that no message has (below 4, or above 2³¹−1, which PostgreSQL takes
// for negative) is ErrMessageLength, and the stream cannot be read on.
func ParseHeader(b []byte) (typ byte, n int, err error) {
	if len(b) < HeaderSize {
		return 0, 0, io.ErrShortBuffer
	}
	length := binary.BigEndian.Uint32(b[1:])
	if length < 4 || length > math.MaxInt32 {
		return b[0], 0, ErrMessageLength
	}
	return b[0], int(length) - 4, nil
}

// NextMessage cuts the first whole message off b: its type, its body, and what stands behind
// it. With less than a whole message in b the error is io.ErrShortBuffer, with an impossible
// length ErrMessageLength.
func NextMessage(b []byte) (typ byte, body, rest []byte, err error) {
	typ, n, err := ParseHeader(b)
	if err != nil {
		return typ, nil, b, err
	}
	if n > len(b)-HeaderSize {
		return typ, nil, b, io.ErrShortBuffer
	}
	end := HeaderSize + n
	return typ, b[HeaderSize:end:end], b[end:], nil
}

// ClientLimit is the longest body that PostgreSQL takes in a message of this type from a
// logged-in client. ok is false for a type that such a client never sends: MsgPassword and
// everything unknown. The answer to the first is ErrMessageLength, to the second
// UnexpectedClientMessage.
func ClientLimit(typ byte) (limit int, ok bool) {
	switch typ {
	case MsgQuery, MsgParse, MsgBind, MsgFunctionCall, MsgCopyData:
		return MaxLargeMessage, true
	case MsgExecute, MsgDescribe, MsgClose, MsgSync, MsgFlush, MsgTerminate, MsgCopyDone, MsgCopyFail:
		return MaxSmallMessage, true
	}
	return 0, false
}
