package router

// Reason is why a unit went where it went. The list is closed and part of the API: it is the
// label of routes_total and what SHOW pgweir.last_route says; docs/reasons.md is generated from it.
type Reason uint8

// The reasons. The first group comes from the classifier, the second from routing.
const (
	ReasonUnknown      Reason = iota
	ReasonRead                // a proven read
	ReasonSession             // session statement, any node at hand
	ReasonWrite               // DML, DDL, utility that writes or locks
	ReasonLocking             // FOR UPDATE, SHARE … at any depth
	ReasonVolatile            // a volatile or unknown function
	ReasonNodeLocal           // describes one node
	ReasonAdvisory            // advisory locks
	ReasonSequence            // nextval, currval, lastval, a sequence read directly
	ReasonTemporary           // a temporary relation or pg_temp
	ReasonUnlogged            // an unlogged relation
	ReasonForeign             // a foreign table
	ReasonUnknownName         // the catalog view does not know a name
	ReasonUnparsed            // the scanner did not understand the text
	ReasonSerializable        // SERIALIZABLE, in any spelling
	ReasonEncoding            // a client_encoding in which a character may end in a backslash
	ReasonTransaction         // transaction control, or in an explicit transaction on the primary
	ReasonFunctionCall        // the FunctionCall message
	ReasonIncomplete          // a unit whose rest is not known: streamed, flushed with a row limit
	ReasonSetting             // SHOW or current_setting of a setting a client cannot set
	ReasonCopyIn              // COPY FROM
	ReasonSnapshot            // pg_export_snapshot, SET TRANSACTION SNAPSHOT

	ReasonReadOnlyTx   // a read-only transaction on its standby
	ReasonHint         // a hint asked for it
	ReasonHintRefused  // a standby hint that cannot be followed
	ReasonRoutePrimary // route: primary
	ReasonShadow       // route: shadow
	ReasonOffload      // the session is outside the offload percentage
	ReasonPinned       // the session is pinned
	ReasonLearned      // the shape was refused by a standby before
	ReasonNotFresh     // no standby was fresh in time
	ReasonNoStandby    // no standby may be read
	ReasonShare        // reads_on_primary: share chose the primary
	ReasonRerun        // run again after a standby's refusal, conflict or death
	ReasonNoPrimary    // nowhere: held
	ReasonOverride     // the console's SET route
	reasonCount
)
