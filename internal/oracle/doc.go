// Package oracle answers: does PostgreSQL's own grammar agree with the scanner of package router?
//
// It holds tests only, in a module of its own, since the grammar comes as C code that takes
// minutes to compile and has no place in the binary. For every statement that the grammar
// accepts it checks that
//   - the scanner counts as many statements as the grammar,
//   - what the grammar calls a write, a lock, a utility or SELECT INTO is never read or session,
//   - every function that a read calls is one that the built-in table calls a read,
//   - every relation that a read reads was seen as one: it turns to the primary when the catalog
//     says that this relation is unlogged,
//   - every SET and RESET leaves its effect.
//
// The statements are the golden files of package router, statements put together at random from
// parts, and the .sql files below the directories in ORACLE_CORPUS (separated by colons).
package oracle
