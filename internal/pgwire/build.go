package pgwire

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Text is what the builders take for a text.
type Text interface{ ~string | ~[]byte }

// begin puts a header with a length to be filled in behind dst; at is where the length stands.
func begin(dst []byte, typ byte) (out []byte, at int) {
	return append(dst, typ, 0, 0, 0, 0), len(dst) + 1
}

// finish fills in the length word at at, which counts itself and everything behind it.
func finish(dst []byte, at int) []byte {
	n := len(dst) - at
	if n > math.MaxInt32 {
		panic("BUG: a message of more than 2³¹−1 bytes was built")
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(n))
	return dst
}

// text appends s up to its first NUL byte, and a NUL.
func text[T Text](dst []byte, s T) []byte {
	n := len(dst)
	dst = append(dst, s...)
	if i := bytes.IndexByte(dst[n:], 0); i >= 0 {
		dst = dst[:n+i]
	}
	return append(dst, 0)
}

// u16 and u32 append numbers as the protocol has them.
func u16(dst []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(dst, v) }

// u32 appends four bytes.
func u32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

// count is a length as the two bytes in front of a list.
func count(n int) uint16 {
	if n > math.MaxUint16 {
		panic("BUG: a list of more than 65535 entries was built")
	}
	return uint16(n)
}

// AppendMessage is a message with the body as it is.
func AppendMessage[T Text](dst []byte, typ byte, body T) []byte {
	dst, at := begin(dst, typ)
	return finish(append(dst, body...), at)
}

// AppendEmpty is a message without fields.
func AppendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

// AppendSync is a Sync.
func AppendSync(dst []byte) []byte { return AppendEmpty(dst, MsgSync) }

// AppendFlush is a Flush.
func AppendFlush(dst []byte) []byte { return AppendEmpty(dst, MsgFlush) }

// AppendTerminate is a Terminate.
func AppendTerminate(dst []byte) []byte { return AppendEmpty(dst, MsgTerminate) }

// AppendCopyDone is a CopyDone, of either side.
func AppendCopyDone(dst []byte) []byte { return AppendEmpty(dst, MsgCopyDone) }

// AppendQuery is a Query.
func AppendQuery[T Text](dst []byte, sql T) []byte { return appendText(dst, MsgQuery, sql) }

// AppendCopyFail is a CopyFail.
func AppendCopyFail[T Text](dst []byte, reason T) []byte {
	return appendText(dst, MsgCopyFail, reason)
}

// AppendPassword is a PasswordMessage.
func AppendPassword[T Text](dst []byte, password T) []byte {
	return appendText(dst, MsgPassword, password)
}

// appendText is a message of one text.
func appendText[T Text](dst []byte, typ byte, s T) []byte {
	dst, at := begin(dst, typ)
	return finish(text(dst, s), at)
}

// AppendParse is a Parse. types are the parameter types as a ParseView gives them; nil leaves
// all to the node.
func AppendParse[N, S Text](dst []byte, name N, sql S, types OIDs) []byte {
	dst, at := begin(dst, MsgParse)
	dst = text(text(dst, name), sql)
	dst = u16(dst, count(types.Len()))
	return finish(append(dst, types[:4*types.Len()]...), at)
}

// AppendOIDs is a list of types for AppendParse.
func AppendOIDs(dst OIDs, types ...uint32) OIDs {
	for _, t := range types {
		dst = u32(dst, t)
	}
	return dst
}

// AppendBindHead is a Bind under other names with the rest of a client's: BindView.Rest, or nil
// for no parameters and all of the result in text.
func AppendBindHead[P, S Text](dst []byte, portal P, statement S, rest []byte) []byte {
	dst, at := begin(dst, MsgBind)
	dst = text(text(dst, portal), statement)
	if rest == nil {
		return finish(append(dst, 0, 0, 0, 0, 0, 0), at)
	}
	return finish(append(dst, rest...), at)
}

// AppendBind is a Bind with parameters in text, of which a nil one is NULL, and a result in text.
func AppendBind[P, S Text](dst []byte, portal P, statement S, values ...[]byte) []byte {
	dst, at := begin(dst, MsgBind)
	dst = text(text(dst, portal), statement)
	dst = u16(u16(dst, 0), count(len(values)))
	for _, v := range values {
		dst = appendValue(dst, v)
	}
	return finish(u16(dst, 0), at)
}

// appendValue is a length and the bytes; nil is NULL.
func appendValue(dst, v []byte) []byte {
	if v == nil {
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	return append(u32(dst, uint32(len(v))), v...)
}

// AppendDescribe is a Describe of a statement or portal.
func AppendDescribe[T Text](dst []byte, kind byte, name T) []byte {
	return appendTarget(dst, MsgDescribe, kind, name)
}

// AppendClose is a Close of a statement or portal.
func AppendClose[T Text](dst []byte, kind byte, name T) []byte {
	return appendTarget(dst, MsgClose, kind, name)
}

// appendTarget is a message of a kind and a name.
func appendTarget[T Text](dst []byte, typ, kind byte, name T) []byte {
	dst, at := begin(dst, typ)
	return finish(text(append(dst, kind), name), at)
}

// AppendExecute is an Execute; maxRows 0 is no limit.
func AppendExecute[T Text](dst []byte, portal T, maxRows int32) []byte {
	dst, at := begin(dst, MsgExecute)
	return finish(u32(text(dst, portal), uint32(maxRows)), at)
}

// AppendSASLInitial is a SASLInitialResponse; nil data is none.
func AppendSASLInitial[M Text](dst []byte, mechanism M, data []byte) []byte {
	dst, at := begin(dst, MsgPassword)
	return finish(appendValue(text(dst, mechanism), data), at)
}

// AppendSASLResponse is a SASLResponse.
func AppendSASLResponse(dst, data []byte) []byte { return AppendMessage(dst, MsgPassword, data) }

// AppendStartup is a StartupMessage; version is Version30 or Version32.
func AppendStartup(dst []byte, version uint32, params []Param) []byte {
	at := len(dst)
	dst = u32(append(dst, 0, 0, 0, 0), version)
	for _, p := range params {
		dst = text(text(dst, p.Name), p.Value)
	}
	return finish(append(dst, 0), at)
}

// AppendSSLRequest is an SSLRequest.
func AppendSSLRequest(dst []byte) []byte { return u32(u32(dst, 8), codeSSL) }

// AppendGSSENCRequest is a GSSENCRequest.
func AppendGSSENCRequest(dst []byte) []byte { return u32(u32(dst, 8), codeGSS) }

// AppendCancel is a CancelRequest for what a BackendKeyData gave.
func AppendCancel(dst []byte, pid uint32, secret []byte) []byte {
	at := len(dst)
	dst = u32(u32(append(dst, 0, 0, 0, 0), codeCancel), pid)
	return finish(append(dst, secret...), at)
}
