package pgwire

// AppendAuthentication is an Authentication message with data behind its code: nothing for
// AuthOK and AuthCleartextPassword, four bytes of salt for AuthMD5Password, the server's
// message for AuthSASLContinue and AuthSASLFinal.
func AppendAuthentication(dst []byte, code uint32, data []byte) []byte {
	dst, at := begin(dst, MsgAuthentication)
	return finish(append(u32(dst, code), data...), at)
}

// AppendAuthOK is AuthenticationOk.
func AppendAuthOK(dst []byte) []byte { return AppendAuthentication(dst, AuthOK, nil) }

// AppendAuthSASL is AuthenticationSASL with the mechanisms, the preferred one first.
func AppendAuthSASL(dst []byte, mechanisms ...string) []byte {
	dst, at := begin(dst, MsgAuthentication)
	dst = u32(dst, AuthSASL)
	for _, m := range mechanisms {
		dst = text(dst, m)
	}
	return finish(append(dst, 0), at)
}

// Field is one field of an ErrorResponse or NoticeResponse.
type Field struct {
	Kind  byte // as ErrorView's comments name them: 'C', 'M', 'D', …
	Value string
}

// AppendFields is an ErrorResponse (typ MsgErrorResponse) or NoticeResponse
// (MsgNoticeResponse) of these fields in this order. Fields without a value are left out.
func AppendFields(dst []byte, typ byte, fields ...Field) []byte {
	dst, at := begin(dst, typ)
	for _, f := range fields {
		if f.Value != "" && f.Kind != 0 {
			dst = text(append(dst, f.Kind), f.Value)
		}
	}
	return finish(append(dst, 0), at)
}

// Report is an error or notice in PostgreSQL's order of fields.
type Report struct {
	Severity string // ERROR, FATAL, WARNING, NOTICE …; sent as S and V
	Code     string // SQLSTATE
	Message  string
	Detail   string // may be empty, as all that follow
	Hint     string
	Routine  string
}

// AppendError is an ErrorResponse.
func AppendError(dst []byte, r Report) []byte { return appendReport(dst, MsgErrorResponse, r) }

// AppendNotice is a NoticeResponse.
func AppendNotice(dst []byte, r Report) []byte { return appendReport(dst, MsgNoticeResponse, r) }

// appendReport is a report as a message of either type.
func appendReport(dst []byte, typ byte, r Report) []byte {
	return AppendFields(dst, typ,
		Field{'S', r.Severity}, Field{'V', r.Severity}, Field{'C', r.Code}, Field{'M', r.Message},
		Field{'D', r.Detail}, Field{'H', r.Hint}, Field{'R', r.Routine})
}

// AppendErrorV2 is an error in the form of protocol 2, which is the one that a client of
// protocol 2 can read: PostgreSQL's answer to such a client (see Startup.Version).
func AppendErrorV2(dst []byte, severity, message string) []byte {
	dst = append(dst, MsgErrorResponse)
	dst = append(dst, severity...)
	dst = append(dst, ":  "...)
	return text(dst, message+"\n")
}

// AppendParameterStatus is a ParameterStatus.
func AppendParameterStatus[N, V Text](dst []byte, name N, value V) []byte {
	dst, at := begin(dst, MsgParameterStatus)
	return finish(text(text(dst, name), value), at)
}

// AppendBackendKeyData is a BackendKeyData; the secret has 4 bytes for a client of protocol
// 3.0, and 4 to MaxCancelSecret for later ones.
func AppendBackendKeyData(dst []byte, pid uint32, secret []byte) []byte {
	dst, at := begin(dst, MsgBackendKeyData)
	return finish(append(u32(dst, pid), secret...), at)
}

// AppendReadyForQuery is a ReadyForQuery.
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, MsgReadyForQuery, 0, 0, 0, 5, status)
}

// AppendNegotiate is a NegotiateProtocolVersion: the newest version that may be spoken, whole
// (Version32, not only its minor part, which is what PostgreSQL sends), and the names of the
// protocol options that are not known.
func AppendNegotiate(dst []byte, version uint32, unknown []string) []byte {
	dst, at := begin(dst, MsgNegotiateProtocolVersion)
	dst = u32(u32(dst, version), uint32(len(unknown)))
	for _, name := range unknown {
		dst = text(dst, name)
	}
	return finish(dst, at)
}

// AppendCommandComplete is a CommandComplete.
func AppendCommandComplete[T Text](dst []byte, tag T) []byte {
	return appendText(dst, MsgCommandComplete, tag)
}

// AppendNotification is a NotificationResponse.
func AppendNotification[C, P Text](dst []byte, pid uint32, channel C, payload P) []byte {
	dst, at := begin(dst, MsgNotificationResponse)
	return finish(text(text(u32(dst, pid), channel), payload), at)
}

// TypeText is the OID of the type text.
const TypeText uint32 = 25

// AppendTextColumns is a RowDescription of columns of type text that belong to no table, to be
// sent in text format.
func AppendTextColumns(dst []byte, names ...string) []byte {
	dst, at := begin(dst, MsgRowDescription)
	dst = u16(dst, count(len(names)))
	for _, name := range names {
		dst = appendColumn(dst, Column{Name: []byte(name), Type: TypeText, TypeSize: -1, TypeMod: -1})
	}
	return finish(dst, at)
}

// AppendRowDescription is a RowDescription.
func AppendRowDescription(dst []byte, columns ...Column) []byte {
	dst, at := begin(dst, MsgRowDescription)
	dst = u16(dst, count(len(columns)))
	for _, c := range columns {
		dst = appendColumn(dst, c)
	}
	return finish(dst, at)
}

// appendColumn is one column of a RowDescription.
func appendColumn(dst []byte, c Column) []byte {
	dst = text(dst, c.Name)
	dst = u16(u32(dst, c.Table), c.Attribute)
	dst = u16(u32(dst, c.Type), uint16(c.TypeSize))
	return u16(u32(dst, uint32(c.TypeMod)), c.Format)
}

// AppendTextRow is a DataRow of values none of which is NULL.
func AppendTextRow(dst []byte, values ...string) []byte {
	dst, at := begin(dst, MsgDataRow)
	dst = u16(dst, count(len(values)))
	for _, v := range values {
		dst = append(u32(dst, uint32(len(v))), v...)
	}
	return finish(dst, at)
}

// AppendDataRow is a DataRow; a nil value is NULL.
func AppendDataRow(dst []byte, values ...[]byte) []byte {
	dst, at := begin(dst, MsgDataRow)
	dst = u16(dst, count(len(values)))
	for _, v := range values {
		dst = appendValue(dst, v)
	}
	return finish(dst, at)
}
