package catalog

// word is a keyword that decides something in a body; wordOther is every other one.
type word uint8

// The words that decide.
const (
	wordNone word = iota // at the start of a statement
	wordOther
	wordAlter
	wordAtomic
	wordBegin
	wordCommit
	wordCopy
	wordCreate
	wordDeallocate
	wordDelete
	wordDiscard
	wordDo
	wordDrop
	wordElse
	wordExecute
	wordFrom
	wordFunction
	wordGlobal
	wordGrant
	wordInsert
	wordInto
	wordJoin
	wordListen
	wordLoad
	wordLocal
	wordLoop
	wordMaterialized
	wordMerge
	wordOn
	wordOnly
	wordOr
	wordPrepare
	wordRefresh
	wordReplace
	wordReset
	wordRevoke
	wordSelect
	wordSet
	wordStop // a keyword that ends a list of relations
	wordTable
	wordTemp
	wordThen
	wordTruncate
	wordUnlisten
	wordUpdate
	wordUsing
	wordView
	wordWith
)

// wordOf returns what an unquoted, folded word is.
func wordOf(text []byte) word {
	switch string(text) {
	case "alter":
		return wordAlter
	case "atomic":
		return wordAtomic
	case "begin":
		return wordBegin
	case "commit":
		return wordCommit
	case "copy":
		return wordCopy
	case "create":
		return wordCreate
	case "deallocate":
		return wordDeallocate
	case "delete":
		return wordDelete
	case "discard":
		return wordDiscard
	case "do":
		return wordDo
	case "drop":
		return wordDrop
	case "else":
		return wordElse
	case "execute":
		return wordExecute
	case "from":
		return wordFrom
	case "function", "procedure":
		return wordFunction
	case "global":
		return wordGlobal
	case "grant":
		return wordGrant
	case "insert":
		return wordInsert
	case "into":
		return wordInto
	case "join":
		return wordJoin
	case "listen":
		return wordListen
	case "load":
		return wordLoad
	case "local":
		return wordLocal
	case "loop":
		return wordLoop
	case "materialized":
		return wordMaterialized
	case "merge":
		return wordMerge
	case "on":
		return wordOn
	case "only":
		return wordOnly
	case "or":
		return wordOr
	case "prepare":
		return wordPrepare
	case "refresh":
		return wordRefresh
	case "replace":
		return wordReplace
	case "reset":
		return wordReset
	case "revoke":
		return wordRevoke
	case "select":
		return wordSelect
	case "set":
		return wordSet
	case "where", "group", "order", "having", "limit", "offset", "fetch", "union", "except", "intersect", "values", "returning", "window", "when":
		return wordStop
	case "table":
		return wordTable
	case "temp", "temporary":
		return wordTemp
	case "then":
		return wordThen
	case "truncate":
		return wordTruncate
	case "unlisten":
		return wordUnlisten
	case "update":
		return wordUpdate
	case "using":
		return wordUsing
	case "view":
		return wordView
	case "with":
		return wordWith
	}
	return wordOther
}

// reserved tells whether a word that decides something can name nothing (Appendix C).
func (w word) reserved() bool {
	switch w {
	case wordCreate, wordElse, wordFrom, wordGrant, wordInto, wordJoin, wordOn, wordOnly, wordOr,
		wordSelect, wordStop, wordTable, wordThen, wordUsing, wordWith:
		return true
	}
	return false
}
