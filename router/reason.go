package router

import "strconv"

// Reason is why a unit went where it went. The list is closed and part of the API: it is the
// label of routes_total and what SHOW pgweir.last_route says; docs/reasons.md is generated from it.
type Reason uint8

// The reasons; what each says stands in reasonTable. The first group comes from the
// classifier, the second from routing.
const (
	ReasonUnknown Reason = iota
	ReasonRead
	ReasonSession
	ReasonWrite
	ReasonLocking
	ReasonVolatile
	ReasonNodeLocal
	ReasonAdvisory
	ReasonSequence
	ReasonTemporary
	ReasonUnlogged
	ReasonForeign
	ReasonUnknownName
	ReasonUnparsed
	ReasonSerializable
	ReasonEncoding
	ReasonTransaction
	ReasonFunctionCall
	ReasonIncomplete
	ReasonSetting
	ReasonCopyIn
	ReasonSnapshot
	ReasonState

	ReasonReadOnlyTx
	ReasonOptimistic
	ReasonHint
	ReasonHintRefused
	ReasonRoutePrimary
	ReasonShadow
	ReasonOffload
	ReasonPinned
	ReasonLearned
	ReasonNotFresh
	ReasonNoStandby
	ReasonShare
	ReasonRerun
	ReasonNoPrimary
	ReasonOverride
	reasonCount
)

// named is an entry of a closed list: its name in metrics and output, and what it says.
type named struct{ name, says string }

// reasonTable holds the reasons in the order of their constants.
var reasonTable = [reasonCount]named{
	ReasonUnknown:      {"unknown", "Nothing was decided; it is never counted."},
	ReasonRead:         {"read", "A proven read: a standby may answer."},
	ReasonSession:      {"session", "A session statement, which needs no particular node."},
	ReasonWrite:        {"write", "DML, DDL, a utility that writes or locks, CALL, DO, or a function that a standby refuses."},
	ReasonLocking:      {"locking", "FOR UPDATE, NO KEY UPDATE, SHARE or KEY SHARE at any depth, or LOCK."},
	ReasonVolatile:     {"volatile", "A function, operator, type, view or policy that is volatile and not known to be harmless, or that runs a query given as text."},
	ReasonNodeLocal:    {"node_local", "A function or view that describes one node or acts on it."},
	ReasonAdvisory:     {"advisory", "An advisory lock: a standby's own excludes nobody elsewhere."},
	ReasonSequence:     {"sequence", "nextval, setval, currval, lastval, or a sequence read directly."},
	ReasonTemporary:    {"temporary", "A relation that is, or may be, a temporary one."},
	ReasonUnlogged:     {"unlogged", "An unlogged relation, which a standby cannot read."},
	ReasonForeign:      {"foreign", "A foreign table."},
	ReasonUnknownName:  {"unknown_name", "A function or relation that is not built in and that the catalog view does not know."},
	ReasonUnparsed:     {"unparsed", "Text that was not understood: newer syntax, or none."},
	ReasonSerializable: {"serializable", "SERIALIZABLE in any spelling, which a hot standby refuses."},
	ReasonEncoding:     {"encoding", "A client_encoding in which a character may end in a backslash."},
	ReasonTransaction:  {"transaction", "Transaction control, or a statement of an explicit transaction on the primary."},
	ReasonFunctionCall: {"function_call", "The FunctionCall message of the protocol."},
	ReasonIncomplete:   {"incomplete", "A batch whose rest was not known when it had to be sent."},
	ReasonSetting:      {"setting", "SHOW or current_setting of a setting that a client cannot set, or whose name is no constant."},
	ReasonCopyIn:       {"copy_in", "COPY FROM."},
	ReasonSnapshot:     {"snapshot", "pg_export_snapshot or SET TRANSACTION SNAPSHOT: of use on one node only."},
	ReasonState:        {"state", "Uses or leaves state that stays with the primary's connection: PREPARE, EXECUTE, LISTEN, LOAD, WITH HOLD, SET SESSION AUTHORIZATION, or what cannot be seen from outside."},

	ReasonReadOnlyTx:   {"read_only_transaction", "A read-only transaction on its standby."},
	ReasonOptimistic:   {"optimistic", "A transaction that has only read so far, on a standby (`transactions: optimistic`)."},
	ReasonHint:         {"hint", "A hint asked for it."},
	ReasonHintRefused:  {"hint_refused", "A standby was asked for, and the statement is one that no hint moves there."},
	ReasonRoutePrimary: {"route_primary", "The setting route is primary."},
	ReasonShadow:       {"shadow", "The setting route is shadow."},
	ReasonOffload:      {"offload", "The session is outside of the offload percentage."},
	ReasonPinned:       {"pinned", "The session is pinned to its connection to the primary."},
	ReasonLearned:      {"learned", "A standby refused a statement of this shape before."},
	ReasonNotFresh:     {"not_fresh", "No standby was fresh enough in time."},
	ReasonNoStandby:    {"no_standby", "No standby may be read now; or, with `pool_mode: session`, none has a connection to spare and the session holds the primary's."},
	ReasonShare:        {"share", "reads_on_primary is share, and the primary was the least busy."},
	ReasonRerun:        {"rerun", "Run again after a standby's refusal, conflict or death."},
	ReasonNoPrimary:    {"no_primary", "There is no primary now."},
	ReasonOverride:     {"override", "The console's SET route stands above everything."},
}

// String is the reason's name, as metrics and output have it.
func (r Reason) String() string { return nameOf(reasonTable[:], int(r)) }

// Reasons are all reasons, in order.
func Reasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// pinTable holds the pins in the order of their constants.
var pinTable = [pinCount]named{
	PinNone:                 {"none", "The session is not pinned."},
	PinTemp:                 {"temporary", "A temporary relation."},
	PinCursorHold:           {"cursor_hold", "A cursor declared WITH HOLD."},
	PinAdvisoryLock:         {"advisory_lock", "A session's advisory lock."},
	PinListen:               {"listen", "LISTEN; reads still spread."},
	PinLoad:                 {"load", "A library that LOAD brought in."},
	PinSessionAuthorization: {"session_authorization", "SET SESSION AUTHORIZATION."},
	PinSQLPrepare:           {"sql_prepare", "A statement made by PREPARE in SQL."},
	PinOpaque:               {"opaque", "Something ran that can leave state that cannot be seen from outside."},
	PinBackendPID:           {"backend_pid", "pg_backend_pid() was asked for; or the client was told the process id at its login (backend_pid: real), where reads still spread."},
	PinSequence:             {"sequence", "currval or lastval is in use: the connection is kept, reads still spread."},
}

// String is the pin's name, as metrics and output have it.
func (p Pin) String() string { return nameOf(pinTable[:], int(p)) }

// Pins are all pins but PinNone, in order.
func Pins() []Pin {
	all := make([]Pin, 0, pinCount-1)
	for p := PinNone + 1; p < pinCount; p++ {
		all = append(all, p)
	}
	return all
}

// nameOf is the name of entry i of a closed list.
func nameOf(list []named, i int) string {
	if i < len(list) {
		return list[i].name
	}
	return strconv.Itoa(i)
}

// String is the class's name, as metrics and output have it.
func (c Class) String() string {
	return nameOf([]named{{name: "session"}, {name: "read"}, {name: "primary"}}, int(c))
}

// String is the mark's name.
func (m Mark) String() string {
	return nameOf([]named{{name: "none"}, {name: "read"}, {name: "write"}}, int(m))
}

// String is the target's name, as metrics and output have it.
func (t Target) String() string {
	return nameOf([]named{{name: "none"}, {name: "primary"}, {name: "standby"}, {name: "local"}}, int(t))
}
