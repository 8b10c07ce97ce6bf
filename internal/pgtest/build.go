package pgtest

import "fmt"

// Startup is a StartupMessage of protocol 3.minor with parameters in pairs of name and value.
func Startup(minor uint16, params ...string) Message {
	fields := []any{uint16(3), minor}
	for _, p := range params {
		fields = append(fields, p)
	}
	return Msg(0, append(fields, byte(0))...)
}

// SSLRequest is an SSLRequest.
func SSLRequest() Message { return Msg(0, uint16(1234), uint16(5679)) }

// GSSENCRequest is a GSSENCRequest.
func GSSENCRequest() Message { return Msg(0, uint16(1234), uint16(5680)) }

// CancelRequest is a CancelRequest.
func CancelRequest(pid uint32, secret []byte) Message {
	return Msg(0, uint16(1234), uint16(5678), pid, secret)
}

// Query is a Query.
func Query(sql string) Message { return Msg('Q', sql) }

// Parse is a Parse with the types of the first parameters.
func Parse(name, sql string, types ...uint32) Message {
	fields := []any{name, sql, uint16(len(types))}
	for _, t := range types {
		fields = append(fields, t)
	}
	return Msg('P', fields...)
}

// Bind is a Bind in text format; an argument is a string or nil.
func Bind(portal, statement string, args ...any) Message {
	fields := []any{portal, statement, uint16(0), uint16(len(args))}
	for _, a := range args {
		if a == nil {
			fields = append(fields, Value(nil))
			continue
		}
		fields = append(fields, Value(fmt.Append([]byte{}, a)))
	}
	return Msg('B', append(fields, uint16(0))...)
}

// BindBinary is a Bind without parameters whose result is asked for in binary.
func BindBinary(portal, statement string) Message {
	return Msg('B', portal, statement, uint16(0), uint16(0), uint16(1), uint16(1))
}

// DescribeStatement is a Describe of a prepared statement.
func DescribeStatement(name string) Message { return Msg('D', byte('S'), name) }

// DescribePortal is a Describe of a portal.
func DescribePortal(name string) Message { return Msg('D', byte('P'), name) }

// Execute is an Execute; limit 0 is no limit.
func Execute(portal string, limit int32) Message { return Msg('E', portal, limit) }

// CloseStatement is a Close of a prepared statement.
func CloseStatement(name string) Message { return Msg('C', byte('S'), name) }

// ClosePortal is a Close of a portal.
func ClosePortal(name string) Message { return Msg('C', byte('P'), name) }

// Sync is a Sync.
func Sync() Message { return Msg('S') }

// Flush is a Flush.
func Flush() Message { return Msg('H') }

// Terminate is a Terminate.
func Terminate() Message { return Msg('X') }

// CopyData is a CopyData, of either side.
func CopyData(data string) Message { return Msg('d', []byte(data)) }

// CopyDone is a CopyDone, of either side.
func CopyDone() Message { return Msg('c') }

// CopyFail is a CopyFail.
func CopyFail(reason string) Message { return Msg('f', reason) }

// Password is a PasswordMessage.
func Password(password string) Message { return Msg('p', password) }

// Extended is one statement in the extended protocol: Parse, Bind, Describe, Execute, Sync.
func Extended(sql string, args ...any) []Message {
	return []Message{Parse("", sql), Bind("", "", args...), DescribePortal(""), Execute("", 0), Sync()}
}

// AuthOK is AuthenticationOk.
func AuthOK() Message { return Msg('R', int32(0)) }

// ParameterStatus is a ParameterStatus.
func ParameterStatus(name, value string) Message { return Msg('S', name, value) }

// BackendKeyData is a BackendKeyData.
func BackendKeyData(pid uint32, secret []byte) Message { return Msg('K', pid, secret) }

// ReadyForQuery is a ReadyForQuery with the transaction byte I, T or E.
func ReadyForQuery(status byte) Message { return Msg('Z', status) }

// ParseComplete is a ParseComplete.
func ParseComplete() Message { return Msg('1') }

// BindComplete is a BindComplete.
func BindComplete() Message { return Msg('2') }

// CloseComplete is a CloseComplete.
func CloseComplete() Message { return Msg('3') }

// NoData is a NoData.
func NoData() Message { return Msg('n') }

// PortalSuspended is a PortalSuspended.
func PortalSuspended() Message { return Msg('s') }

// EmptyQueryResponse is an EmptyQueryResponse.
func EmptyQueryResponse() Message { return Msg('I') }

// ParameterDescription is a ParameterDescription.
func ParameterDescription(types ...uint32) Message {
	fields := []any{uint16(len(types))}
	for _, t := range types {
		fields = append(fields, t)
	}
	return Msg('t', fields...)
}

// RowDescription is a RowDescription of columns of type text.
func RowDescription(names ...string) Message {
	fields := []any{uint16(len(names))}
	for _, n := range names {
		fields = append(fields, n, uint32(0), uint16(0), uint32(25), int16(-1), int32(-1), uint16(0))
	}
	return Msg('T', fields...)
}

// DataRow is a DataRow; a value is a string or nil.
func DataRow(values ...any) Message {
	fields := []any{uint16(len(values))}
	for _, v := range values {
		if v == nil {
			fields = append(fields, Value(nil))
			continue
		}
		fields = append(fields, Value(fmt.Append([]byte{}, v)))
	}
	return Msg('D', fields...)
}

// CommandComplete is a CommandComplete.
func CommandComplete(tag string) Message { return Msg('C', tag) }

// CopyInResponse is a CopyInResponse in text format.
func CopyInResponse(columns int) Message { return copyResponse('G', columns) }

// CopyOutResponse is a CopyOutResponse in text format.
func CopyOutResponse(columns int) Message { return copyResponse('H', columns) }

// copyResponse is the beginning of a COPY in text format.
func copyResponse(typ byte, columns int) Message {
	return Msg(typ, byte(0), uint16(columns), make([]byte, 2*columns))
}

// Error is an ErrorResponse; more holds further fields, each beginning with its letter.
func Error(severity, code, message string, more ...string) Message {
	return report('E', severity, code, message, more)
}

// Notice is a NoticeResponse.
func Notice(severity, code, message string, more ...string) Message {
	return report('N', severity, code, message, more)
}

// report is the fields of an error or notice.
func report(typ byte, severity, code, message string, more []string) Message {
	fields := []any{"S" + severity, "V" + severity, "C" + code, "M" + message}
	for _, f := range more {
		fields = append(fields, f)
	}
	return Msg(typ, append(fields, byte(0))...)
}

// Notification is a NotificationResponse.
func Notification(pid uint32, channel, payload string) Message {
	return Msg('A', pid, channel, payload)
}
