package router

// Class is what a unit of statements may do, and so who may answer it.
type Class uint8

// The classes, in the order of their strength: a unit has the strongest class of its statements.
const (
	ClassSession Class = iota // needs no particular node and never counts as a write
	ClassRead                 // a standby may answer
	ClassPrimary              // only the primary may answer
)

// Mark is what a unit leaves behind in the session's memory of what it has seen (freshness.md).
type Mark uint8

// The marks, in the order of their strength.
const (
	MarkNone  Mark = iota // saw no data: class session
	MarkRead              // saw data, wrote nothing: proven reads, and what goes to the primary only because it describes a node
	MarkWrite             // everything else
)

// Flag is one fact about a unit that decides how it is run, beyond its class.
type Flag uint32

// The flags of a unit.
const (
	// FlagCatalog: the class rests on the catalog alone, so the standby's answer is kept back
	// for the net under the classifier (behaviour.md §2).
	FlagCatalog      Flag = 1 << iota
	FlagOpaque            // can leave state in the session that cannot be seen from outside
	FlagNextval           // may call nextval, so lastval and currval may be asked for later
	FlagDDL               // changes the catalog: the view is read again
	FlagMayCommit         // can make a write durable: COMMIT in any spelling, a write outside a block, CALL, DO, PREPARE TRANSACTION …
	FlagCopyIn            // COPY FROM STDIN: the client's data follows
	FlagCopyOut           // COPY TO STDOUT
	FlagMulti             // several statements in one string
	FlagSerializable      // asks for SERIALIZABLE
	FlagTxTime            // reads the transaction's own timestamp or snapshot (now(), current_timestamp, pg_current_snapshot …)
	FlagUnparsed          // the scanner did not understand the text completely
	FlagPgweir            // SHOW pgweir.* / SET pgweir.*: answered by pgweir itself
	FlagCurrval           // asks for currval or lastval
	// FlagReadInReadOnly: primary by class, but a read inside a read-only transaction: LOCK …
	// ACCESS SHARE, and reads behind a plain BEGIN whose session is read-only by default.
	FlagReadInReadOnly
	FlagUnknownName // names something that the catalog view does not know: it should be read again soon
	FlagNames       // changes how the names or bytes of what follows are read (search_path, role, client_encoding …)
	FlagBegin       // holds a BEGIN that is not READ ONLY
	FlagReads       // holds a statement of class read
	// FlagSettingParam: the unit is primary and opaque for nothing but set_config calls whose
	// value is a parameter (EffectSetParam). Who knows the parameter's text from Bind may treat
	// it as class session (or read, with FlagReads), and each effect as EffectSet.
	FlagSettingParam
	FlagCancels    // calls pg_cancel_backend
	FlagTerminates // calls pg_terminate_backend
	FlagNotifies   // NOTIFY, or calls pg_notify
	FlagLateRows   // FETCH or EXECUTE: what rows it returns is not settled when it is prepared
	// FlagLasting: opaque, and DISCARD ALL may not remove all that is left: a name of a custom
	// setting, a library, the seed of random, or what nobody knows of.
	FlagLasting
)

// Pin is why a session keeps its connection to the primary.
type Pin uint8

// The pins; the names are part of the API (docs/reasons.md).
const (
	PinNone Pin = iota
	PinTemp
	PinCursorHold
	PinAdvisoryLock
	PinListen
	PinLoad
	PinSessionAuthorization
	PinSQLPrepare
	PinOpaque
	PinBackendPID
	PinSequence
	pinCount
)

// EffectKind is one way in which a statement changes the session's state.
type EffectKind uint8

// The effects that are tracked (behaviour.md §3).
const (
	EffectNone               EffectKind = iota
	EffectSet                           // SET name = value (Local: SET LOCAL); set_config with known arguments
	EffectReset                         // RESET name, SET name TO DEFAULT
	EffectResetAll                      // RESET ALL
	EffectSetRole                       // SET ROLE value, none included; RESET ROLE is EffectReset of "role"
	EffectSetSessionAuth                // SET SESSION AUTHORIZATION; RESET likewise with EffectReset
	EffectSetCharacteristics            // SET SESSION CHARACTERISTICS AS TRANSACTION …: Name is the setting, Value its text
	EffectSetTransaction                // SET TRANSACTION …: Tx says what
	EffectDiscardAll                    // DISCARD ALL
	EffectDiscard                       // DISCARD PLANS | SEQUENCES | TEMP: Name says which
	EffectPrepare                       // PREPARE name
	EffectDeallocate                    // DEALLOCATE name
	EffectDeallocateAll                 // DEALLOCATE ALL
	EffectListen                        // LISTEN channel
	EffectUnlisten                      // UNLISTEN channel; Name "*" for all
	EffectPin                           // takes Pin
	EffectUnlockAll                     // pg_advisory_unlock_all()
	EffectBegin                         // BEGIN, START TRANSACTION: Tx says how
	EffectCommit                        // COMMIT, END; AndChain
	EffectRollback                      // ROLLBACK, ABORT; AndChain
	EffectSavepoint                     // SAVEPOINT name
	EffectRollbackTo                    // ROLLBACK TO name
	EffectRelease                       // RELEASE name
	EffectPrepareTransaction            // PREPARE TRANSACTION
	EffectDeclare                       // DECLARE name CURSOR; a hold cursor also has EffectPin
	EffectCloseCursor                   // CLOSE name; Name "*" for all
	EffectSetParam                      // set_config(Name, $Param, false)
	EffectUnlock                        // pg_advisory_unlock…: the pin may be gone, pg_locks tells
	EffectVacate                        // DROP DATABASE and its like: nobody else may be connected to the database Name
)

// EndsTransaction reports whether a statement of this kind ends the transaction block that it runs in.
func (k EffectKind) EndsTransaction() bool {
	return k == EffectCommit || k == EffectRollback || k == EffectPrepareTransaction
}

// TxMode is what BEGIN or SET TRANSACTION asks of a transaction; the zero value asks nothing.
type TxMode struct {
	ReadOnly   Tri   // READ ONLY or READ WRITE
	Isolation  uint8 // 0 unset, else 'r' READ COMMITTED (and UNCOMMITTED), 'R' REPEATABLE READ, 'S' SERIALIZABLE
	Deferrable Tri
	Snapshot   bool // SET TRANSACTION SNAPSHOT
}

// Tri is a setting that may be absent.
type Tri uint8

// The values of a Tri.
const (
	Unset Tri = iota
	Yes
	No
)

// Effect is one change to the session's state, in the order of the text.
type Effect struct {
	Kind     EffectKind
	Pin      Pin
	Local    bool   // SET LOCAL
	AndChain bool   // COMMIT AND CHAIN, ROLLBACK AND CHAIN
	Name     string // lower-cased unless quoted: setting, statement, channel, savepoint, cursor
	Value    string // the client's own text of the value, ready to stand behind "SET name TO "; for set_config: a quoted literal
	// ByFunction: set_config made the setting, and only set_config(Name, Value, Local) makes the
	// same again: SET would quote the elements of a list. Value "" with Local: not known.
	ByFunction bool
	Param      int // of EffectSetParam: the number of the parameter that is the value, from 1
	Statement  int // which of the text's non-empty statements has it, from 0
	Tx         TxMode
}

// MaxEffects is how many effects of a text are told apart. A text with more counts as one that was not understood, and
// its unit has the first MaxEffects+1 of them.
const MaxEffects = 1024

// Unit is what the classifier says of one simple-query string or of one prepared statement's
// text. It is immutable and may be shared by all sessions.
type Unit struct {
	Class      Class
	Reason     Reason // why that class
	Mark       Mark
	Flags      Flag
	Statements int      // how many non-empty statements the text holds
	Effects    []Effect // nil for nearly all
	Hint       Hint     // the leading comment's hint
	// Leaves: custom settings whose names, empty, stay on the connection behind it, and no effect tells of (JoinNames).
	Leaves string
	// OnlyTx: the text is one transaction control statement that was understood completely,
	// so Effects has exactly one entry; such a BEGIN may be deferred.
	OnlyTx bool
	// Certain: a known write, locking clause or state that no standby hint may override;
	// false when the class is Primary only out of doubt.
	Certain bool
	// StandbyError: with Certain and a standby hint the client gets 25006 (writes, locking
	// clauses); otherwise the unit goes to the primary with ReasonHintRefused.
	StandbyError bool
	// Show names the setting of a lone SHOW, "" otherwise. For SHOW pgweir.x it is "pgweir.x".
	Show string
	// Command is the leading keyword of the first statement in upper case ("SELECT", "INSERT"), for metrics, tags and errors.
	Command string
}

// Hint is what a user asked for by comment, setting or option.
type Hint uint8

// The hints.
const (
	HintNone Hint = iota
	HintPrimary
	HintStandby
	HintAuto
)
