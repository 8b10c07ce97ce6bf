package router

// keyword names an unquoted word that means something to the parser; zero is any other word.
type keyword uint8

// The keywords that the parser asks for by name.
const (
	kwNone keyword = iota
	kwAbort
	kwAccess
	kwAll
	kwAlter
	kwAnalyse
	kwAnalyze
	kwAnd
	kwAs
	kwAtomic
	kwAuthorization
	kwBegin
	kwCall
	kwCase
	kwChain
	kwCharacteristics
	kwCheckpoint
	kwClose
	kwCluster
	kwComment
	kwCommit
	kwCommitted
	kwConstraints
	kwCopy
	kwCreate
	kwCurrentDate
	kwCurrentTime
	kwCurrentTimestamp
	kwDeallocate
	kwDeclare
	kwDefault
	kwDeferrable
	kwDelete
	kwDiscard
	kwDistinct
	kwDo
	kwDrop
	kwElse
	kwEnd
	kwExcept
	kwExecute
	kwExists
	kwExplain
	kwFetch
	kwFor
	kwFrom
	kwFunction
	kwGlobal
	kwGrant
	kwGroup
	kwHaving
	kwHold
	kwImport
	kwInsert
	kwIntersect
	kwInto
	kwIs
	kwIsolation
	kwJoin
	kwKey
	kwLanguage
	kwLateral
	kwLevel
	kwLimit
	kwListen
	kwLoad
	kwLocal
	kwLocaltime
	kwLocaltimestamp
	kwLock
	kwLoop
	kwMaterialized
	kwMerge
	kwMove
	kwNames
	kwNo
	kwNot
	kwNotify
	kwOffset
	kwOn
	kwOnly
	kwOperator
	kwOption
	kwOr
	kwOrder
	kwOrdinality
	kwPlans
	kwPrepare
	kwPrepared
	kwProcedure
	kwRead
	kwReassign
	kwRecursive
	kwRefresh
	kwReindex
	kwRelease
	kwRepeatable
	kwReplace
	kwReset
	kwReturning
	kwRevoke
	kwRole
	kwRollback
	kwRows
	kwSavepoint
	kwSchema
	kwSecurity
	kwSelect
	kwSequence
	kwSequences
	kwSerializable
	kwSession
	kwSet
	kwShare
	kwShow
	kwSnapshot
	kwStart
	kwStdin
	kwStdout
	kwTable
	kwTablesample
	kwTemp
	kwTemporary
	kwThen
	kwTies
	kwTime
	kwTo
	kwTransaction
	kwTruncate
	kwUncommitted
	kwUnion
	kwUnlisten
	kwUnlogged
	kwUpdate
	kwUsing
	kwVacuum
	kwValues
	kwView
	kwWait
	kwWhere
	kwWindow
	kwWith
	kwWork
	kwWrite
	kwXml
	kwZone
)

// maxKeyword is the length of the longest keyword.
const maxKeyword = 17

// lookupKeyword is the keyword that word, in lower case, spells.
func lookupKeyword(word []byte) keyword {
	switch string(word) {
	case "abort":
		return kwAbort
	case "access":
		return kwAccess
	case "all":
		return kwAll
	case "alter":
		return kwAlter
	case "analyse":
		return kwAnalyse
	case "analyze":
		return kwAnalyze
	case "and":
		return kwAnd
	case "as":
		return kwAs
	case "atomic":
		return kwAtomic
	case "authorization":
		return kwAuthorization
	case "begin":
		return kwBegin
	case "call":
		return kwCall
	case "case":
		return kwCase
	case "chain":
		return kwChain
	case "characteristics":
		return kwCharacteristics
	case "checkpoint":
		return kwCheckpoint
	case "close":
		return kwClose
	case "cluster":
		return kwCluster
	case "comment":
		return kwComment
	case "commit":
		return kwCommit
	case "committed":
		return kwCommitted
	case "constraints":
		return kwConstraints
	case "copy":
		return kwCopy
	case "create":
		return kwCreate
	case "current_date":
		return kwCurrentDate
	case "current_time":
		return kwCurrentTime
	case "current_timestamp":
		return kwCurrentTimestamp
	case "deallocate":
		return kwDeallocate
	case "declare":
		return kwDeclare
	case "default":
		return kwDefault
	case "deferrable":
		return kwDeferrable
	case "delete":
		return kwDelete
	case "discard":
		return kwDiscard
	case "distinct":
		return kwDistinct
	case "do":
		return kwDo
	case "drop":
		return kwDrop
	case "else":
		return kwElse
	case "end":
		return kwEnd
	case "except":
		return kwExcept
	case "execute":
		return kwExecute
	case "exists":
		return kwExists
	case "explain":
		return kwExplain
	case "fetch":
		return kwFetch
	case "for":
		return kwFor
	case "from":
		return kwFrom
	case "function":
		return kwFunction
	case "global":
		return kwGlobal
	case "grant":
		return kwGrant
	case "group":
		return kwGroup
	case "having":
		return kwHaving
	case "hold":
		return kwHold
	case "import":
		return kwImport
	case "insert":
		return kwInsert
	case "intersect":
		return kwIntersect
	case "into":
		return kwInto
	case "is":
		return kwIs
	case "isolation":
		return kwIsolation
	case "join":
		return kwJoin
	case "key":
		return kwKey
	case "language":
		return kwLanguage
	case "lateral":
		return kwLateral
	case "level":
		return kwLevel
	case "limit":
		return kwLimit
	case "listen":
		return kwListen
	case "load":
		return kwLoad
	case "local":
		return kwLocal
	case "localtime":
		return kwLocaltime
	case "localtimestamp":
		return kwLocaltimestamp
	case "lock":
		return kwLock
	case "loop":
		return kwLoop
	case "materialized":
		return kwMaterialized
	case "merge":
		return kwMerge
	case "move":
		return kwMove
	case "names":
		return kwNames
	case "no":
		return kwNo
	case "not":
		return kwNot
	case "notify":
		return kwNotify
	case "offset":
		return kwOffset
	case "on":
		return kwOn
	case "only":
		return kwOnly
	case "operator":
		return kwOperator
	case "option":
		return kwOption
	case "or":
		return kwOr
	case "order":
		return kwOrder
	case "ordinality":
		return kwOrdinality
	case "plans":
		return kwPlans
	case "prepare":
		return kwPrepare
	case "prepared":
		return kwPrepared
	case "procedure":
		return kwProcedure
	case "read":
		return kwRead
	case "reassign":
		return kwReassign
	case "recursive":
		return kwRecursive
	case "refresh":
		return kwRefresh
	case "reindex":
		return kwReindex
	case "release":
		return kwRelease
	case "repeatable":
		return kwRepeatable
	case "replace":
		return kwReplace
	case "reset":
		return kwReset
	case "returning":
		return kwReturning
	case "revoke":
		return kwRevoke
	case "role":
		return kwRole
	case "rollback":
		return kwRollback
	case "rows":
		return kwRows
	case "savepoint":
		return kwSavepoint
	case "schema":
		return kwSchema
	case "security":
		return kwSecurity
	case "select":
		return kwSelect
	case "sequence":
		return kwSequence
	case "sequences":
		return kwSequences
	case "serializable":
		return kwSerializable
	case "session":
		return kwSession
	case "set":
		return kwSet
	case "share":
		return kwShare
	case "show":
		return kwShow
	case "snapshot":
		return kwSnapshot
	case "start":
		return kwStart
	case "stdin":
		return kwStdin
	case "stdout":
		return kwStdout
	case "table":
		return kwTable
	case "tablesample":
		return kwTablesample
	case "temp":
		return kwTemp
	case "temporary":
		return kwTemporary
	case "then":
		return kwThen
	case "ties":
		return kwTies
	case "time":
		return kwTime
	case "to":
		return kwTo
	case "transaction":
		return kwTransaction
	case "truncate":
		return kwTruncate
	case "uncommitted":
		return kwUncommitted
	case "union":
		return kwUnion
	case "unlisten":
		return kwUnlisten
	case "unlogged":
		return kwUnlogged
	case "update":
		return kwUpdate
	case "using":
		return kwUsing
	case "vacuum":
		return kwVacuum
	case "values":
		return kwValues
	case "view":
		return kwView
	case "wait":
		return kwWait
	case "where":
		return kwWhere
	case "window":
		return kwWindow
	case "with":
		return kwWith
	case "work":
		return kwWork
	case "write":
		return kwWrite
	case "xml":
		return kwXml
	case "zone":
		return kwZone
	}
	return kwNone
}

// hardWord reports whether a lower-case word can never name a function: PostgreSQL reserves
// it, or its grammar knows it as a construct or type of its own (appendix C of its documentation).
func hardWord(word string) bool {
	switch word {
	case "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "between", "bigint", "bit",
		"boolean", "both", "case", "cast", "char", "character", "check", "coalesce", "collate", "column",
		"constraint", "create", "current_catalog", "current_date", "current_role", "current_time",
		"current_timestamp", "current_user", "dec", "decimal", "default", "deferrable", "desc", "distinct", "do",
		"else", "end", "except", "exists", "extract", "false", "fetch", "float", "for", "foreign", "from", "grant",
		"greatest", "group", "grouping", "having", "in", "initially", "inout", "int", "integer", "intersect",
		"interval", "into", "lateral", "leading", "least", "limit", "localtime", "localtimestamp", "national",
		"nchar", "none", "normalize", "not", "null", "nullif", "numeric", "offset", "on", "only", "or", "order",
		"out", "overlay", "placing", "position", "precision", "primary", "real", "references", "returning", "row",
		"select", "session_user", "setof", "smallint", "some", "substring", "symmetric", "table", "then", "time",
		"timestamp", "to", "trailing", "treat", "trim", "true", "union", "unique", "user", "using", "values",
		"varchar", "variadic", "when", "where", "window", "with", "xmlattributes", "xmlconcat", "xmlelement",
		"xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot", "xmlserialize", "xmltable":
		return true
	}
	return false
}

// softWord reports whether a lower-case word that stands before a parenthesis is usually part
// of a construct; it names a function only where the catalog has one of that name.
func softWord(word string) bool {
	switch word {
	case "absent", "at", "authorization", "binary", "by", "collation", "columns", "concurrently", "conflict",
		"content", "cross", "cube", "day", "delete", "document", "escape", "exclude", "filter", "first", "following",
		"freeze", "full", "groups", "hour", "ilike", "include", "inner", "insert", "is", "isnull", "join", "key",
		"like", "matched", "materialized", "minute", "month", "natural", "next", "nothing", "notnull", "operator",
		"ordinality", "outer", "over", "passing", "path", "preceding", "range", "recursive", "repeatable", "returns",
		"rollup", "rows", "second", "set", "sets", "similar", "strip", "tablesample", "ties", "unbounded", "update",
		"using", "varying", "verbose", "within", "without", "wrapper", "year", "zone":
		return true
	}
	return false
}
